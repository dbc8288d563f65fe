//! Smaller programs that still fail.
//!
//! Owns the edits, each of which makes a program smaller or plainer: a step or a tail of steps goes, a limit or
//! one side of a race goes, a body takes the place of what held or spawned it, a time gets shorter, one of several
//! handles goes. They are tried in turn, from the largest on, and each that leaves the failure in place is
//! kept, until none does: deterministic, and bounded by the size of the program.

use std::rc::Rc;

use super::program::{Body, Deferred, Expr, Program, Start, Step};

/// Programs that are tried at the most.
const TRIES_MAX: usize = 20_000;

/// The smallest program that `fails`, on the way from one that does.
pub fn shrink(mut program: Program, fails: impl Fn(&Program) -> bool) -> Program {
    let (mut at, mut since, mut tries) = (0, 0, 0);
    while tries < TRIES_MAX {
        let Some(smaller) = edited(&program, at) else {
            if since == 0 {
                break;
            }
            (at, since) = (0, 0);
            continue;
        };
        tries += 1;
        if fails(&smaller) {
            program = smaller;
            since += 1;
        } else {
            at += 1;
        }
    }
    program
}

/// The program after one edit; none if there are not so many.
fn edited(program: &Program, mut at: usize) -> Option<Program> {
    let main = edit_body(&program.main, &mut at)?;
    Some(Program { main: Rc::new(main), ..program.clone() })
}

/// Counts down to the edit that is meant.
fn is_it(at: &mut usize) -> bool {
    let it = *at == 0;
    *at = at.wrapping_sub(1);
    it
}

fn edit_body(body: &Body, at: &mut usize) -> Option<Body> {
    let with = |steps| Some(Body { id: body.id, steps });
    let len = body.steps.len();
    // A tail of steps, the longer ones first.
    let mut tail = len;
    while tail > 1 {
        if is_it(at) {
            return with(body.steps[..len - tail].to_vec());
        }
        tail /= 2;
    }
    for (i, step) in body.steps.iter().enumerate() {
        let replaced = |by: Vec<Step>| {
            let mut steps = body.steps.clone();
            steps.splice(i..=i, by);
            with(steps)
        };
        if is_it(at) {
            return replaced(Vec::new());
        }
        let edited = match step {
            Step::Spawn(task) | Step::SpawnEager(task) | Step::Child(task) => {
                if !task.steps.is_empty() && is_it(at) {
                    return replaced(task.steps.clone());
                }
                if !matches!(step, Step::Spawn(_)) && is_it(at) {
                    return replaced(vec![Step::Spawn(task.clone())]);
                }
                let edited = edit_body(task, at).map(Rc::new);
                edited.map(|task| match step {
                    Step::Spawn(_) => Step::Spawn(task),
                    Step::SpawnEager(_) => Step::SpawnEager(task),
                    _ => Step::Child(task),
                })
            }
            Step::Defer(id, Deferred::Spawn(task)) => {
                edit_body(task, at).map(|task| Step::Defer(*id, Deferred::Spawn(Rc::new(task))))
            }
            Step::Defer(id, Deferred::SpawnEager(task)) => {
                let lazy = Step::Defer(*id, Deferred::Spawn(task.clone()));
                if is_it(at) {
                    return replaced(vec![lazy]);
                }
                let eager = |task| Step::Defer(*id, Deferred::SpawnEager(Rc::new(task)));
                edit_body(task, at).map(eager)
            }
            Step::Await(id, expr) => {
                // The steps of a body in the place of what held it.
                let (bodies, _) = expr.parts();
                if let Some(inner) = bodies.first().filter(|inner| !inner.steps.is_empty())
                    && is_it(at)
                {
                    return replaced(inner.steps.clone());
                }
                edit_expr(expr, at).map(|expr| Step::Await(*id, expr))
            }
            _ => None,
        };
        if let Some(step) = edited {
            return replaced(vec![step]);
        }
    }
    None
}

fn edit_expr(expr: &Expr, at: &mut usize) -> Option<Expr> {
    let (_, parts) = expr.parts();
    for part in parts {
        if is_it(at) {
            return Some(part.clone());
        }
    }
    let in_body = |body: &Rc<Body>, at: &mut usize| edit_body(body, at).map(Rc::new);
    let boxed = |part: &Expr, at: &mut usize| edit_expr(part, at).map(Box::new);
    match expr {
        Expr::Timeout(ms, inner) => match shorter(*ms, at) {
            Some(ms) => Some(Expr::Timeout(ms, inner.clone())),
            None => boxed(inner, at).map(|inner| Expr::Timeout(*ms, inner)),
        },
        Expr::Race(a, b) => match boxed(a, at) {
            Some(a) => Some(Expr::Race(a, b.clone())),
            None => boxed(b, at).map(|b| Expr::Race(a.clone(), b)),
        },
        Expr::LetGo(ms, inner) => match shorter(*ms, at) {
            Some(ms) => Some(Expr::LetGo(ms, inner.clone())),
            None => boxed(inner, at).map(|inner| Expr::LetGo(*ms, inner)),
        },
        Expr::Started(start, bodies) => {
            let removable = matches!(start, Start::Gather | Start::TryGather);
            for (i, body) in bodies.iter().enumerate() {
                let mut others = bodies.clone();
                if removable && is_it(at) {
                    others.remove(i);
                    return Some(Expr::Started(*start, others));
                }
                if let Some(body) = in_body(body, at) {
                    others[i] = body;
                    return Some(Expr::Started(*start, others));
                }
            }
            None
        }
        Expr::Sleep(ms) => shorter(*ms, at).map(Expr::Sleep),
        Expr::JoinTimeout(task, ms) => shorter(*ms, at).map(|ms| Expr::JoinTimeout(*task, ms)),
        Expr::Gather(tasks) => fewer(tasks, at).map(Expr::Gather),
        Expr::TryGather(tasks) => fewer(tasks, at).map(Expr::TryGather),
        Expr::AsCompleted(tasks, ms, take) => {
            if ms.is_some() && is_it(at) {
                return Some(Expr::AsCompleted(tasks.clone(), None, *take));
            }
            fewer(tasks, at).map(|tasks| Expr::AsCompleted(tasks, *ms, *take))
        }
        Expr::Wait(tasks, until, ms, fallible) => {
            if ms.is_some() && is_it(at) {
                return Some(Expr::Wait(tasks.clone(), *until, None, *fallible));
            }
            fewer(tasks, at).map(|tasks| Expr::Wait(tasks, *until, *ms, *fallible))
        }
        Expr::Acquire(permits, body) => {
            if *permits > 1 && is_it(at) {
                return Some(Expr::Acquire(1, body.clone()));
            }
            in_body(body, at).map(|body| Expr::Acquire(*permits, body))
        }
        Expr::Block(body) => in_body(body, at).map(Expr::Block),
        Expr::Group(body) => in_body(body, at).map(Expr::Group),
        Expr::Lock(body) => in_body(body, at).map(Expr::Lock),
        Expr::Read(body) => in_body(body, at).map(Expr::Read),
        Expr::Write(body) => in_body(body, at).map(Expr::Write),
        Expr::Notified(want, body) => {
            if want.is_some() && is_it(at) {
                return Some(Expr::Notified(None, body.clone()));
            }
            in_body(body, at).map(|body| Expr::Notified(*want, body))
        }
        Expr::Once(body) => in_body(body, at).map(Expr::Once),
        Expr::Reserve(body) => in_body(body, at).map(Expr::Reserve),
        _ => None,
    }
}

fn shorter(ms: u64, at: &mut usize) -> Option<u64> {
    let tries = [0, 1, ms / 2, ms.saturating_sub(1)];
    let mut shorter = tries.into_iter().filter(|less| *less < ms);
    shorter.find(|_| is_it(at))
}

fn fewer(tasks: &[u32], at: &mut usize) -> Option<Vec<u32>> {
    for i in 0..tasks.len() {
        if is_it(at) {
            let mut tasks = tasks.to_vec();
            tasks.remove(i);
            return Some(tasks);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::generate;
    use crate::model::program::Act;

    fn any_step(body: &Body, is_it: &dyn Fn(&Step) -> bool) -> bool {
        body.steps.iter().any(|step| {
            let inner = match step {
                Step::Spawn(task) | Step::SpawnEager(task) | Step::Child(task) => {
                    any_step(task, is_it)
                }
                Step::Await(_, expr) => any_in(expr, is_it),
                _ => false,
            };
            inner || is_it(step)
        })
    }

    fn any_in(expr: &Expr, is_it: &dyn Fn(&Step) -> bool) -> bool {
        let (bodies, parts) = expr.parts();
        bodies.into_iter().any(|body| any_step(body, is_it))
            || parts.into_iter().any(|part| any_in(part, is_it))
    }

    #[test]
    fn shrink_leaves_what_the_failure_needs_and_nothing_else() {
        let fails = |program: &Program| {
            let sleeps = |step: &Step| matches!(step, Step::Await(_, Expr::Sleep(ms)) if *ms > 1);
            let looks = |step: &Step| matches!(step, Step::Do(_, Act::Probe));
            any_step(&program.main, &sleeps) && any_step(&program.main, &looks)
        };
        for seed in 0..20 {
            // Each ends with a sleep and a look.
            let small = shrink(generate(seed), fails);
            assert!(fails(&small));
            assert_eq!(small.main.steps.len(), 2, "seed {seed}: {small}");
        }
    }
}
