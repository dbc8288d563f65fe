//! What handles, sets of handles and groups do.
//!
//! Owns [`Set`], an await of one handle or several, and [`Group`]. A handle that is awaited where its owner
//! keeps it is *busy*; one that a set took is not *held*, until the set gives it back.

use std::rc::Rc;

use super::body::{Kind, Node};
use super::{Plain, Polled, Sleep};
use crate::model::program::{Body, Expr, Id, Out, Start, Until};

pub(super) enum Set {
    /// By value (it goes with the await), by `&mut`, or shielded.
    Join(Id, How),
    /// `handle.timeout`, and whether it is over.
    JoinTimeout(Id, Sleep, bool),
    /// Inputs with what came of them, and the poll in which it was polled last.
    Gather(Vec<(Id, Option<Out>)>, u64),
    /// The same, looking at all each time, and whether an error ends it.
    TryGather(Vec<(Id, Option<Out>)>, u64),
    AsCompleted(Ended),
    Wait(Vec<Id>, Until, Option<Sleep>, bool),
}

#[derive(Clone, Copy)]
pub(super) enum How {
    Value,
    Reference,
    ShieldedReference,
    ShieldedValue,
}

pub(super) struct Ended {
    id: Id,
    /// None once its result was given.
    tasks: Vec<Option<Id>>,
    limit: Option<Sleep>,
    over: bool,
    take: usize,
    polled_in: u64,
}

/// A group of tasks.
pub(super) struct Group {
    /// Who runs, by place; places are used again, the last one that came free first.
    members: Vec<Option<Id>>,
    free: Vec<usize>,
    spawned: u32,
    failures: Vec<Out>,
    phase: Phase,
    waker: Option<Id>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Open,
    Ending,
    Closed,
}

/// How far a group is.
pub(super) enum Stage {
    /// Its body runs; with the poll before this one.
    Body(Box<Node>, u64),
    /// Waits for all children, or a failure; the body's value.
    Children(Option<u32>),
    /// Waits for those that were cancelled.
    Cancelled(Option<u32>),
}

/// Stands for the body among failures.
const BODY: u32 = u32::MAX;

impl Plain {
    /// Whether the handle lies where its owner keeps it, awaited or not.
    pub(super) fn held(&self, task: Id) -> bool {
        self.tasks.get(&task).is_some_and(|task| task.handle.held)
    }

    /// Whether a task may take its own handle, and nothing awaits it.
    pub(super) fn own(&self, me: Id, task: Id) -> bool {
        let task = self.tasks.get(&task);
        task.is_some_and(|t| t.handle.held && !t.handle.busy && t.handle.owner == me)
    }

    pub(super) fn ask(&mut self, task: Id) -> Out {
        if !self.held(task) {
            return Out::Absent;
        }
        let task = self.task(task);
        let cancelled = matches!(task.end, Some((_, Out::Cancelled)));
        Out::List(vec![Out::Flag(task.is_done()), Out::Flag(cancelled)])
    }

    pub(super) fn drop_handle(&mut self, task: Id) {
        let handle = &mut self.task(task).handle;
        handle.exists = false;
        let polled_in = handle.polled_in;
        if self.task(task).is_done() {
            return;
        }
        self.task(task).joiner = None;
        if self.passes_cancel_to(polled_in) {
            self.cancel(task);
        }
    }

    /// Awaits a handle: its result, which is thereby taken.
    fn poll_handle(&mut self, me: Id, task: Id) -> Option<Out> {
        let number = self.polling;
        let task = self.task(task);
        if let Some((_, out)) = &task.end {
            return Some(task.seen_by_handle(out.clone()));
        }
        task.handle.polled_in = number;
        task.joiner = Some(me);
        None
    }

    fn watch(&mut self, me: Id, task: Id) {
        self.task(task).joiner = Some(me);
    }

    pub(super) fn begin_set(&mut self, me: Id, id: Id, expr: Expr) -> Result<Set, Out> {
        let single = |plain: &mut Self, task: Id, how| {
            if !plain.own(me, task) {
                return Err(Out::Absent);
            }
            plain.task(task).handle.busy = true;
            Ok(Set::Join(task, how))
        };
        match expr {
            Expr::Join(task) => single(self, task, How::Value),
            Expr::JoinRef(task) => single(self, task, How::Reference),
            // A child's handle can't be shielded, nor put into a set.
            Expr::Shield(task) | Expr::ShieldRef(task) if self.is_child(task) => Err(Out::Absent),
            Expr::Shield(task) => single(self, task, How::ShieldedValue),
            Expr::ShieldRef(task) => single(self, task, How::ShieldedReference),
            Expr::JoinTimeout(task, ms) => {
                self.lend(me, &[task])?;
                Ok(Set::JoinTimeout(task, Sleep::new(self.now + ms), false))
            }
            Expr::Gather(tasks) => {
                self.lend(me, &tasks)?;
                Ok(Set::Gather(tasks.into_iter().map(|task| (task, None)).collect(), 0))
            }
            Expr::TryGather(tasks) => {
                self.lend(me, &tasks)?;
                Ok(Set::TryGather(tasks.into_iter().map(|task| (task, None)).collect(), 0))
            }
            Expr::AsCompleted(tasks, ms, take) => {
                self.lend(me, &tasks)?;
                let limit = ms.map(|ms| Sleep::new(self.now + ms));
                let tasks = tasks.into_iter().map(Some).collect();
                Ok(Set::AsCompleted(Ended { id, tasks, limit, over: false, take, polled_in: 0 }))
            }
            Expr::Wait(tasks, until, ms, fallible) => {
                self.lend(me, &tasks)?;
                let limit = ms.map(|ms| Sleep::new(self.now + ms));
                Ok(Set::Wait(tasks, until, limit, fallible))
            }
            _ => unreachable!("begun elsewhere"),
        }
    }

    /// Spawns tasks whose handles nobody else sees.
    pub(super) fn begin_started(
        &mut self,
        me: Id,
        group: Option<Id>,
        start: Start,
        bodies: &[Rc<Body>],
    ) -> Set {
        for body in bodies {
            self.spawn(body, me, group, None);
            self.task(body.id).handle.held = false;
        }
        let inputs = bodies.iter().map(|body| (body.id, None)).collect();
        match start {
            Start::Gather | Start::Pair => Set::Gather(inputs, 0),
            Start::TryGather | Start::TryPair => Set::TryGather(inputs, 0),
        }
    }

    fn is_child(&self, task: Id) -> bool {
        self.tasks.get(&task).is_some_and(|task| task.child.is_some())
    }

    /// Takes handles out of where they are kept: all, or none.
    fn lend(&mut self, me: Id, tasks: &[Id]) -> Result<(), Out> {
        if tasks.iter().any(|task| !self.own(me, *task) || self.is_child(*task)) {
            return Err(Out::Absent);
        }
        tasks.iter().for_each(|task| self.task(*task).handle.held = false);
        Ok(())
    }

    fn put_back(&mut self, task: Id) {
        self.task(task).handle.held = true;
    }

    /// Puts the handle of a task back that a set watched; nothing of the set stays with it.
    fn watched(&mut self, task: Id) {
        self.task(task).joiner = None;
        self.put_back(task);
    }

    pub(super) fn look_at_set(&mut self, me: Id, set: &mut Set) -> Polled {
        match set {
            Set::Join(task, how) => {
                let out = self.poll_handle(me, *task);
                if matches!(how, How::ShieldedReference | How::ShieldedValue) {
                    self.task(*task).handle.polled_in = 0;
                }
                if out.is_some() {
                    let handle = &mut self.task(*task).handle;
                    (handle.busy, handle.held) = (false, false);
                    self.drop_handle(*task);
                }
                Ok(out)
            }
            Set::JoinTimeout(task, limit, over) => {
                let task = *task;
                let end = self.task(task).end.as_ref().map(|end| end.1.clone());
                if *over && end == Some(Out::Cancelled) {
                    self.put_back(task);
                    return Ok(Some(Out::Elapsed));
                }
                if let Some(out) = self.poll_handle(me, task) {
                    self.drop_sleep(limit);
                    self.drop_handle(task);
                    return Ok(Some(out));
                }
                if !*over && self.poll_late_limit(me, limit) {
                    *over = true;
                    self.cancel(task);
                }
                Ok(None)
            }
            Set::Gather(inputs, polled_in) => {
                *polled_in = self.polling;
                for (task, out) in inputs.iter_mut().filter(|input| input.1.is_none()) {
                    *out = self.poll_handle(me, *task);
                    if out.is_none() {
                        return Ok(None);
                    }
                    self.drop_handle(*task);
                }
                let outs = inputs.iter_mut().filter_map(|input| input.1.take());
                Ok(Some(Out::List(outs.collect())))
            }
            Set::TryGather(inputs, polled_in) => {
                *polled_in = self.polling;
                let mut all = true;
                for at in 0..inputs.len() {
                    if inputs[at].1.is_some() {
                        continue;
                    }
                    let Some(out) = self.poll_handle(me, inputs[at].0) else {
                        all = false;
                        continue;
                    };
                    inputs[at].1 = Some(out.clone());
                    self.drop_handle(inputs[at].0);
                    if !matches!(out, Out::Value(_)) {
                        // The others are let go of.
                        let left: Vec<_> = inputs.iter().filter(|i| i.1.is_none()).collect();
                        left.iter().for_each(|input| self.drop_handle(input.0));
                        return Ok(Some(Out::At(at as u32, Box::new(out))));
                    }
                }
                if !all {
                    return Ok(None);
                }
                let outs = inputs.iter_mut().filter_map(|input| input.1.take());
                Ok(Some(Out::List(outs.collect())))
            }
            Set::AsCompleted(ended) => self.look_at_ended(me, ended),
            Set::Wait(tasks, until, limit, fallible) => {
                let (mut done, mut failed) = (0, false);
                for task in &*tasks {
                    match &self.task(*task).end {
                        Some((_, out)) => {
                            done += 1;
                            failed |=
                                *out == Out::Panicked || *fallible && matches!(out, Out::Failed(_));
                        }
                        None => self.watch(me, *task),
                    }
                }
                let holds = match until {
                    Until::All => false,
                    Until::First => done > 0,
                    Until::Error => failed,
                };
                let all = done == tasks.len();
                if !holds && !all && !limit.as_mut().is_some_and(|l| self.poll_late_limit(me, l)) {
                    return Ok(None);
                }
                if let Some(limit) = limit {
                    self.drop_sleep(limit);
                }
                let at = 0..tasks.len() as u32;
                let sets = at.partition(|at| self.task(tasks[*at as usize]).is_done());
                tasks.iter().for_each(|task| self.watched(*task));
                Ok(Some(Out::Sets(sets.0, sets.1)))
            }
        }
    }

    fn look_at_ended(&mut self, me: Id, ended: &mut Ended) -> Polled {
        loop {
            let left = ended.tasks.iter().flatten().count();
            if ended.take == 0 || left == 0 {
                let tasks = std::mem::take(&mut ended.tasks);
                tasks.into_iter().flatten().for_each(|task| self.drop_handle(task));
                if let Some(limit) = &ended.limit {
                    self.drop_sleep(limit);
                }
                return Ok(Some(Out::Unit));
            }
            let of = |at: usize| {
                let end = &self.tasks[&ended.tasks[at]?].end;
                end.as_ref().map(|(number, _)| (*number, at))
            };
            let first = (0..ended.tasks.len()).filter_map(of).min();
            let (at, out) = if let Some((_, at)) = first {
                let task = ended.tasks[at].take().expect("just seen");
                let out = self.poll_handle(me, task).expect("it has ended");
                self.drop_handle(task);
                (at, out)
            } else {
                let tasks: Vec<_> = ended.tasks.iter().flatten().copied().collect();
                tasks.into_iter().for_each(|task| self.watch(me, task));
                let over = |l| self.poll_late_limit(me, l);
                ended.over = ended.over || ended.limit.as_mut().is_some_and(over);
                if !ended.over {
                    ended.polled_in = self.polling;
                    return Ok(None);
                }
                let at = ended.tasks.iter().position(Option::is_some).expect("some are left");
                let task = ended.tasks[at].take().expect("just seen");
                self.drop_handle(task);
                (at, Out::Elapsed)
            };
            ended.take -= 1;
            self.note(ended.id, Out::At(at as u32, Box::new(out)));
        }
    }

    pub(super) fn drop_set(&mut self, set: Set) {
        match set {
            Set::Join(task, how) => {
                self.task(task).handle.busy = false;
                if matches!(how, How::Value | How::ShieldedValue) {
                    self.task(task).handle.held = false;
                    self.drop_handle(task);
                }
            }
            Set::JoinTimeout(task, limit, _) => {
                self.drop_sleep(&limit);
                self.put_back(task);
            }
            Set::Gather(inputs, polled_in) | Set::TryGather(inputs, polled_in) => {
                let waiting = inputs.iter().filter(|input| input.1.is_none()).map(|input| input.0);
                self.drop_handles(waiting.collect(), polled_in);
            }
            Set::AsCompleted(ended) => {
                let tasks = ended.tasks.into_iter().flatten().collect();
                self.drop_handles(tasks, ended.polled_in);
                if let Some(limit) = &ended.limit {
                    self.drop_sleep(limit);
                }
            }
            Set::Wait(tasks, _, limit, _) => {
                tasks.into_iter().for_each(|task| self.watched(task));
                if let Some(limit) = &limit {
                    self.drop_sleep(limit);
                }
            }
        }
    }

    /// A set of handles goes, and passes a cancel on to all if it was awaited.
    fn drop_handles(&mut self, tasks: Vec<Id>, polled_in: u64) {
        if self.passes_cancel_to(polled_in) {
            tasks.iter().for_each(|task| {
                self.cancel(*task);
            });
        }
        tasks.into_iter().for_each(|task| self.drop_handle(task));
    }

    pub(super) fn begin_group(&mut self, body: &Rc<Body>) -> Kind {
        let group = Group {
            members: Vec::new(),
            free: Vec::new(),
            spawned: 0,
            failures: Vec::new(),
            phase: Phase::Open,
            waker: None,
        };
        self.groups.insert(body.id, group);
        Kind::Group(body.id, Stage::Body(Box::new(Node::block(Some(body.id), body)), 0))
    }

    fn group(&mut self, id: Id) -> &mut Group {
        self.groups.get_mut(&id).expect("a group that was begun")
    }

    pub(super) fn spawn_child(&mut self, id: Id, owner: Id, body: &Rc<Body>) -> bool {
        let group = self.group(id);
        if group.phase == Phase::Closed {
            return false;
        }
        let place = group.free.pop().unwrap_or(group.members.len());
        group.members.resize(group.members.len().max(place + 1), None);
        group.members[place] = Some(body.id);
        let number = group.spawned;
        group.spawned += 1;
        let ending = group.phase == Phase::Ending;
        self.spawn(body, owner, Some(id), Some((id, place, number)));
        if ending {
            self.cancel(body.id);
        }
        true
    }

    pub(super) fn cancel_group(&mut self, id: Id) {
        let group = self.group(id);
        if group.phase == Phase::Open {
            group.phase = Phase::Ending;
        }
        let members: Vec<_> = group.members.iter().flatten().copied().collect();
        members.into_iter().for_each(|task| {
            self.cancel(task);
        });
    }

    fn wake_group(&mut self, id: Id) {
        if let Some(task) = self.group(id).waker.take() {
            self.wake(task);
        }
    }

    fn fail_group(&mut self, id: Id, number: u32, reason: Out) {
        let group = self.group(id);
        group.failures.push(Out::At(number, Box::new(reason)));
        if group.phase == Phase::Open {
            group.phase = Phase::Ending;
        }
        self.wake_group(id);
    }

    /// A child has ended; what its handle will say.
    pub(super) fn child_ends(&mut self, id: Id, place: usize, number: u32, out: Out) -> Out {
        let failed = matches!(out, Out::Failed(_) | Out::Panicked);
        if failed {
            self.fail_group(id, number, out.clone());
        }
        let group = self.group(id);
        group.members[place] = None;
        group.free.push(place);
        if group.members.iter().all(Option::is_none) {
            self.wake_group(id);
        }
        if failed { Out::ChildFailed } else { out }
    }

    pub(super) fn look_at_group(&mut self, me: Id, id: Id, stage: &mut Stage) -> Polled {
        if let Stage::Body(body, before) = stage {
            let number = self.polling;
            let value = if !self.group(id).failures.is_empty() {
                let mark = *before;
                self.dropped(body, mark);
                None
            } else {
                self.group(id).waker = Some(me);
                match self.poll(me, body)? {
                    None => {
                        *before = number;
                        return Ok(None);
                    }
                    Some(Out::Value(value)) => Some(value),
                    Some(out) => {
                        self.fail_group(id, BODY, out);
                        None
                    }
                }
            };
            *stage = Stage::Children(value);
        }
        let group = self.group(id);
        let live = group.members.iter().flatten().count();
        let failed = !group.failures.is_empty();
        if let Stage::Children(value) = stage {
            if !failed && live > 0 {
                group.waker = Some(me);
                return Ok(None);
            }
            let value = *value;
            if failed {
                self.cancel_group(id);
            }
            *stage = Stage::Cancelled(value);
        }
        let group = self.group(id);
        if live > 0 {
            group.waker = Some(me);
            return Ok(None);
        }
        let failures = std::mem::take(&mut group.failures);
        self.leave_group(id);
        Ok(Some(match stage {
            Stage::Cancelled(Some(value)) if failures.is_empty() => Out::Value(*value),
            _ => Out::List(failures),
        }))
    }

    fn leave_group(&mut self, id: Id) {
        self.group(id).phase = Phase::Closed;
        self.cancel_group(id);
        self.group(id).waker = None;
    }

    pub(super) fn drop_group(&mut self, id: Id, stage: Stage) {
        if let Stage::Body(mut body, _) = stage {
            self.drop_node(&mut body);
        }
        self.leave_group(id);
    }
}

impl super::Task {
    /// A child's handle says no more than that it has failed.
    fn seen_by_handle(&self, out: Out) -> Out {
        match out {
            Out::Cancelled if self.child.is_some() => Out::ChildFailed,
            out => out,
        }
    }
}
