//! Programs in print.
//!
//! Owns their form: one step a line, with its number, bodies set in by two.

use std::fmt;

use super::program::{Body, Deferred, Expr, Program, Step};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} permits, places {:?}, {} parties, {} kept",
            self.permits, self.places, self.parties, self.kept
        )?;
        writeln!(f, "task {}", self.main.id)?;
        body(f, &self.main, 1)
    }
}

fn body(f: &mut fmt::Formatter<'_>, of: &Body, depth: usize) -> fmt::Result {
    let pad = depth * 2;
    for step in &of.steps {
        write!(f, "{:pad$}", "")?;
        match step {
            Step::Spawn(task) => {
                writeln!(f, "spawn task {}", task.id)?;
                body(f, task, depth + 1)?;
            }
            Step::SpawnEager(task) => {
                writeln!(f, "spawn task {}, polled at once", task.id)?;
                body(f, task, depth + 1)?;
            }
            Step::Child(task) => {
                writeln!(f, "spawn child {}", task.id)?;
                body(f, task, depth + 1)?;
            }
            Step::Cancel(id, task) => writeln!(f, "{id}: cancel {task}")?,
            Step::DropHandle(id, task) => writeln!(f, "{id}: drop the handle of {task}")?,
            Step::Ask(id, task) => writeln!(f, "{id}: ask about {task}")?,
            Step::Do(id, act) => writeln!(f, "{id}: {act:?}")?,
            Step::Defer(id, Deferred::Spawn(task)) => {
                writeln!(f, "{id}: in the destructor: spawn task {}", task.id)?;
                body(f, task, depth + 1)?;
            }
            Step::Defer(id, Deferred::SpawnEager(task)) => {
                writeln!(f, "{id}: in the destructor: spawn task {}, polled at once", task.id)?;
                body(f, task, depth + 1)?;
            }
            Step::Defer(id, deferred) => writeln!(f, "{id}: in the destructor: {deferred:?}")?,
            Step::End(id, end) => writeln!(f, "{id}: end: {end:?}")?,
            Step::Await(id, expr) => {
                write!(f, "{id}: await ")?;
                expression(f, expr, depth)?;
            }
        }
    }
    Ok(())
}

fn expression(f: &mut fmt::Formatter<'_>, expr: &Expr, depth: usize) -> fmt::Result {
    let (bodies, parts) = expr.parts();
    match expr {
        Expr::Timeout(ms, _) => write!(f, "timeout {ms} ")?,
        Expr::LetGo(ms, _) => write!(f, "{ms} ms at the most, of foreign make, ")?,
        Expr::Acquire(permits, _) => write!(f, "acquire {permits}")?,
        Expr::Notified(want, _) => write!(f, "condition {want:?}")?,
        expr if bodies.is_empty() && parts.is_empty() => write!(f, "{expr:?}")?,
        expr => write!(f, "{}", expr.label())?,
    }
    if parts.len() > 1 {
        writeln!(f)?;
        for part in &parts {
            write!(f, "{:pad$}of ", "", pad = depth * 2 + 2)?;
            expression(f, part, depth + 1)?;
        }
        return Ok(());
    }
    if let Some(part) = parts.first() {
        return expression(f, part, depth);
    }
    if bodies.is_empty() {
        return writeln!(f);
    }
    for (i, inner) in bodies.iter().enumerate() {
        match i {
            0 => writeln!(f, " body {}", inner.id)?,
            _ => writeln!(f, "{:pad$}and body {}", "", inner.id, pad = depth * 2)?,
        }
        body(f, inner, depth + 1)?;
    }
    Ok(())
}
