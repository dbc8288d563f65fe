//! How a body runs, and what each await does when it is looked at.
//!
//! Owns [`Node`], an await that was begun: a tree, since limits, races and bodies hold others. `poll` looks at
//! one and at what it holds. What is in line is in `waits`, the drop of an await in `leave`, and what concerns
//! handles and groups in `sets`.

use std::rc::Rc;

use super::sets::{Set, Stage};
use super::shared::{
    ALL, BARRIER, BROADCAST, EVENT, FINISHED, Grant, ITEMS, MUTEX, ONCE, PLACES, Place, RW_LOCK,
    SEMAPHORE, WATCH,
};
use super::{Panic, Plain, Polled, Sleep};
use crate::model::program::{Body, CHANNEL, Deferred, End, Expr, Id, Out, Step};

/// An await.
pub(super) struct Node {
    pub(super) label: &'static str,
    group: Option<Id>,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    /// Not polled yet: the step, the group that it is in, and what it awaits.
    New(Id, Option<Id>, Expr),
    /// Ended, or let go of.
    Over,
    Yield(bool),
    Sleep(Sleep),
    /// A limit, and whether its end is a cancel.
    Timeout(Sleep, Box<Node>, bool),
    /// With the poll in which both were polled last.
    Race(Box<Node>, Box<Node>, u64),
    Block(Frame),
    /// Waits for permits of a gate, and then goes on.
    Acquire(usize, usize, Option<u64>, Then),
    /// Holds something while a body runs.
    Held(Grip, Box<Node>),
    /// Waits in a room for what it is handed; `None` before it has entered.
    Room(usize, Option<u64>, Then),
    /// Waits for a notification, if the value is not that large yet.
    Condition(Notice, Option<u32>, Rc<Body>),
    Oneshot(usize),
    OneshotClosed(usize),
    /// A completable future: its place, the poll it was polled in last, and whether it is shielded.
    Future(usize, Option<usize>, u64, bool),
    /// Awaits a handle or several.
    Set(Set),
    Group(Id, Stage),
}

/// What follows a wait.
pub(super) enum Then {
    /// The body runs with it.
    Hold(Grip, Rc<Body>),
    Put(usize, u32),
    Get(usize),
    Hear(usize),
    Changed,
    Watched(u32),
    Nothing,
}

/// How far a wait for a notification is.
pub(super) enum Notice {
    /// Waits for the lock.
    Lock(Option<u64>),
    /// Waits for the notification.
    InLine(u64),
    /// Has it, and waits for the lock again.
    Again(Grant, Option<u64>),
}

/// What is held while a body runs.
#[derive(Clone, Copy)]
pub(super) enum Grip {
    Permits(usize, usize),
    /// The once-cell's turn.
    Turn,
    /// Room in the channel, for this value.
    Room(u32),
}

/// A body that runs.
pub(super) struct Frame {
    pub(super) task: Id,
    pub(super) group: Option<Id>,
    pub(super) body: Rc<Body>,
    at: usize,
    pub(super) awaits: Option<(Id, Box<Node>)>,
    /// Tasks whose handles it holds.
    pub(super) owned: Vec<Id>,
    /// What its destructor does.
    pub(super) deferred: Vec<(Id, Deferred)>,
}

impl Node {
    pub(super) fn new(id: Id, group: Option<Id>, expr: Expr) -> Self {
        Self { label: expr.label(), group, kind: Kind::New(id, group, expr) }
    }

    pub(super) fn block(group: Option<Id>, body: &Rc<Body>) -> Self {
        Self::new(body.id, group, Expr::Block(body.clone()))
    }
}

impl Plain {
    pub(super) fn poll(&mut self, me: Id, node: &mut Node) -> Polled {
        if let Kind::New(..) = node.kind {
            let Kind::New(id, group, expr) = std::mem::replace(&mut node.kind, Kind::Over) else {
                unreachable!("just seen")
            };
            self.count(node.label, "begun");
            match self.begin(me, id, group, expr) {
                Ok(kind) => node.kind = kind,
                Err(out) => {
                    self.count(node.label, "refused");
                    return Ok(Some(out));
                }
            }
        }
        let polled = self.look(me, node);
        match polled {
            Ok(None) => {}
            Ok(Some(_)) => {
                self.count(node.label, "ready");
                node.kind = Kind::Over;
            }
            // On its way out a panic drops what it passes, from the inside outwards.
            Err(Panic) => self.drop_node(node),
        }
        polled
    }

    /// What an await is when it begins, or what it comes to if there is nothing to await.
    fn begin(&mut self, me: Id, id: Id, group: Option<Id>, expr: Expr) -> Result<Kind, Out> {
        let held = |gate, permits, body| {
            let then = Then::Hold(Grip::Permits(gate, permits), body);
            Ok(Kind::Acquire(gate, permits, None, then))
        };
        match expr {
            Expr::Timeout(ms, inner) => {
                let inner = Box::new(Node::new(id, group, *inner));
                Ok(Kind::Timeout(Sleep::new(self.now + ms), inner, true))
            }
            Expr::LetGo(ms, inner) => {
                let inner = Box::new(Node::new(id, group, *inner));
                Ok(Kind::Timeout(Sleep::new(self.now + ms), inner, false))
            }
            Expr::Started(start, bodies) => {
                Ok(Kind::Set(self.begin_started(me, group, start, &bodies)))
            }
            Expr::Race(a, b) => {
                let [a, b] = [a, b].map(|part| Box::new(Node::new(id, group, *part)));
                Ok(Kind::Race(a, b, 0))
            }
            Expr::Block(body) => {
                self.note(body.id, Out::Entered);
                self.live.insert(body.id);
                let (owned, deferred) = (Vec::new(), Vec::new());
                Ok(Kind::Block(Frame {
                    task: me,
                    group,
                    body,
                    at: 0,
                    awaits: None,
                    owned,
                    deferred,
                }))
            }
            Expr::Sleep(ms) => Ok(Kind::Sleep(Sleep::new(self.now + ms))),
            Expr::Yield => Ok(Kind::Yield(false)),
            Expr::Acquire(permits, body) => held(SEMAPHORE, permits, body),
            Expr::Lock(body) => held(MUTEX, 1, body),
            Expr::Read(body) => held(RW_LOCK, 1, body),
            Expr::Write(body) => held(RW_LOCK, ALL, body),
            Expr::Notified(want, body) => Ok(Kind::Condition(Notice::Lock(None), want, body)),
            Expr::Event(at) => Ok(Kind::Room(EVENT + at, None, Then::Nothing)),
            Expr::Put(queue) => Ok(Kind::Acquire(PLACES + queue, 1, None, Then::Put(queue, id))),
            Expr::Get(queue) => Ok(Kind::Acquire(ITEMS + queue, 1, None, Then::Get(queue))),
            Expr::Finished(queue) => Ok(Kind::Room(FINISHED + queue, None, Then::Nothing)),
            Expr::Barrier => Ok(Kind::Room(BARRIER, None, Then::Nothing)),
            Expr::Once(body) => match self.shared.once {
                Some(value) => Err(Out::Value(value)),
                None => Ok(Kind::Acquire(ONCE, 1, None, Then::Hold(Grip::Turn, body))),
            },
            Expr::Send | Expr::Reserve(_) if !self.shared.sender => Err(Out::Absent),
            Expr::Send => {
                self.shared.senders += 1;
                Ok(Kind::Acquire(PLACES + CHANNEL, 1, None, Then::Put(CHANNEL, id)))
            }
            Expr::Reserve(body) => {
                self.shared.senders += 1;
                let then = Then::Hold(Grip::Room(id), body);
                Ok(Kind::Acquire(PLACES + CHANNEL, 1, None, then))
            }
            Expr::Recv => {
                lend(&mut self.shared.receiver)?;
                Ok(Kind::Acquire(ITEMS + CHANNEL, 1, None, Then::Get(CHANNEL)))
            }
            Expr::Hear(at) => {
                lend(&mut self.shared.broadcast.ends[at])?;
                Ok(Kind::Room(BROADCAST, None, Then::Hear(at)))
            }
            Expr::Changed => {
                lend(&mut self.shared.watch.end)?;
                Ok(Kind::Room(WATCH, None, Then::Changed))
            }
            Expr::Watched(least) => {
                lend(&mut self.shared.watch.end)?;
                Ok(Kind::Room(WATCH, None, Then::Watched(least)))
            }
            Expr::Oneshot(at) => {
                lend(&mut self.shared.oneshots[at].receiver)?;
                Ok(Kind::Oneshot(at))
            }
            Expr::OneshotClosed(at) => {
                lend(&mut self.shared.oneshots[at].sender)?;
                Ok(Kind::OneshotClosed(at))
            }
            Expr::Future(at) => Ok(Kind::Future(at, None, 0, false)),
            Expr::FutureShielded(at) => Ok(Kind::Future(at, None, 0, true)),
            Expr::Group(body) => Ok(self.begin_group(&body)),
            expr => self.begin_set(me, id, expr).map(Kind::Set),
        }
    }

    fn look(&mut self, me: Id, node: &mut Node) -> Polled {
        match &mut node.kind {
            Kind::New(..) | Kind::Over => unreachable!("begun above, and not polled after its end"),
            Kind::Yield(yielded) => {
                if std::mem::replace(yielded, true) {
                    return Ok(Some(Out::Unit));
                }
                self.give_way(me);
                Ok(None)
            }
            Kind::Sleep(sleep) => Ok(self.poll_sleep(me, sleep).then_some(Out::Unit)),
            Kind::Timeout(limit, inner, cancels) => {
                let polled = self.poll(me, inner)?;
                if polled.is_some() {
                    self.drop_sleep(limit);
                    return Ok(polled);
                }
                let over = match *cancels {
                    true => self.poll_limit(me, limit),
                    false => self.poll_sleep(me, limit),
                };
                if !over {
                    return Ok(None);
                }
                let mark = if *cancels { self.polling } else { 0 };
                self.dropped(inner, mark);
                Ok(Some(Out::Elapsed))
            }
            Kind::Race(a, b, both) => {
                if let Some(out) = self.poll(me, a)? {
                    let mark = *both;
                    self.dropped(b, mark);
                    return Ok(Some(Out::First(Box::new(out))));
                }
                if let Some(out) = self.poll(me, b)? {
                    let mark = self.polling;
                    self.dropped(a, mark);
                    return Ok(Some(Out::Second(Box::new(out))));
                }
                *both = self.polling;
                Ok(None)
            }
            Kind::Block(frame) => match self.run_frame(frame) {
                Err(Panic) => {
                    self.drop_frame(frame);
                    node.kind = Kind::Over;
                    Err(Panic)
                }
                Ok(None) => Ok(None),
                Ok(Some(out)) => {
                    self.drop_frame(frame);
                    Ok(Some(out))
                }
            },
            Kind::Held(grip, body) => {
                let Some(out) = self.poll(me, body)? else { return Ok(None) };
                match (*grip, &out) {
                    (Grip::Turn, Out::Value(value)) => {
                        self.shared.once = Some(*value);
                        self.close(ONCE);
                        self.let_go(*grip);
                    }
                    (Grip::Room(value), Out::Value(_)) => {
                        self.shared.queues[CHANNEL].reserved -= 1;
                        if !self.shared.gates[ITEMS + CHANNEL].closed {
                            self.insert(CHANNEL, value);
                        }
                        self.drop_sender();
                    }
                    _ => self.let_go(*grip),
                }
                Ok(Some(out))
            }
            Kind::Acquire(gate, need, key, _) => {
                let Some(grant) = self.poll_acquire(me, *gate, *need, key) else { return Ok(None) };
                let Kind::Acquire(gate, need, _, then) =
                    std::mem::replace(&mut node.kind, Kind::Over)
                else {
                    unreachable!("just seen")
                };
                self.acquired(me, node, (gate, need), grant, then)
            }
            Kind::Room(..) => self.look_in_room(me, node),
            Kind::Condition(..) => self.look_at_condition(me, node),
            Kind::Oneshot(at) => {
                let at = *at;
                let out = self.try_oneshot(at);
                if out == Out::Empty {
                    self.shared.oneshots[at].on_value = Some(me);
                    return Ok(None);
                }
                self.shared.oneshots[at].receiver = Place::Here;
                Ok(Some(out))
            }
            Kind::OneshotClosed(at) => {
                let oneshot = &mut self.shared.oneshots[*at];
                if !oneshot.closed {
                    oneshot.on_close = Some(me);
                    return Ok(None);
                }
                oneshot.sender = Place::Here;
                Ok(Some(Out::Unit))
            }
            Kind::Future(at, place, polled_in, shielded) => {
                let number = self.polling;
                let future = &mut self.shared.futures[*at];
                if let Some(end) = &future.end {
                    return Ok(Some(end.clone()));
                }
                *polled_in = if *shielded { 0 } else { number };
                if place.is_none() {
                    let at = future.free.pop().unwrap_or(future.places.len());
                    future.places.resize(future.places.len().max(at + 1), None);
                    future.places[at] = Some(me);
                    *place = Some(at);
                }
                Ok(None)
            }
            Kind::Set(set) => self.look_at_set(me, set),
            Kind::Group(id, stage) => self.look_at_group(me, *id, stage),
        }
    }

    /// Goes on with what it waited for.
    fn acquired(
        &mut self,
        me: Id,
        node: &mut Node,
        (gate, need): (usize, usize),
        grant: Grant,
        then: Then,
    ) -> Polled {
        let closed = grant == Grant::Closed;
        match then {
            Then::Hold(Grip::Turn, _) if closed => {
                Ok(Some(Out::Value(self.shared.once.expect("the turn ends with a value"))))
            }
            Then::Hold(Grip::Room(_), _) if closed => {
                self.drop_sender();
                Ok(Some(Out::Closed))
            }
            Then::Hold(..) if closed => Ok(Some(Out::Closed)),
            // A place that was promised before the close, and is taken up after it, is no room.
            Then::Hold(Grip::Room(_), _) if self.shared.queues[CHANNEL].is_shutdown => {
                self.release(gate, need);
                self.drop_sender();
                Ok(Some(Out::Closed))
            }
            Then::Hold(grip, body) => {
                if gate == MUTEX {
                    self.shared.value += 1;
                    let value = self.shared.value;
                    self.note(body.id, Out::Value(value));
                } else if gate == PLACES + CHANNEL {
                    self.shared.queues[CHANNEL].reserved += 1;
                }
                self.hold(me, node, grip, &body)
            }
            Then::Put(queue, value) => {
                let open = !closed && !self.shared.queues[queue].is_shutdown;
                if open {
                    self.insert(queue, value);
                } else if !closed {
                    self.release(gate, need);
                }
                if queue == CHANNEL {
                    self.drop_sender();
                }
                Ok(Some(if open { Out::Unit } else { Out::Closed }))
            }
            Then::Get(queue) => {
                let item = if closed { None } else { self.take(queue) };
                if queue == CHANNEL {
                    self.shared.receiver = Place::Here;
                }
                Ok(Some(item.map_or(Out::Closed, Out::Value)))
            }
            _ => unreachable!("what follows a room follows no gate"),
        }
    }

    pub(super) fn hold(&mut self, me: Id, node: &mut Node, grip: Grip, body: &Rc<Body>) -> Polled {
        node.kind = Kind::Held(grip, Box::new(Node::block(node.group, body)));
        self.look(me, node)
    }

    fn run_frame(&mut self, frame: &mut Frame) -> Polled {
        loop {
            if let Some((id, awaits)) = &mut frame.awaits {
                let Some(out) = self.poll(frame.task, awaits)? else { return Ok(None) };
                let id = *id;
                frame.awaits = None;
                self.note(id, out);
            }
            let body = frame.body.clone();
            let Some(step) = body.steps.get(frame.at) else {
                return Ok(Some(Out::Value(body.id)));
            };
            frame.at += 1;
            match step {
                Step::Spawn(child) => {
                    self.count("spawn", "done");
                    self.spawn(child, frame.task, frame.group, None);
                    frame.owned.push(child.id);
                }
                Step::SpawnEager(child) => {
                    self.count("spawn_eager", "done");
                    self.spawn_eager(child, frame.task, frame.group);
                    // Nobody has the handle before.
                    self.task(child.id).handle.held = true;
                    frame.owned.push(child.id);
                }
                Step::Child(child) => {
                    self.count("group.spawn", "done");
                    let spawned =
                        frame.group.is_some_and(|group| self.spawn_child(group, frame.task, child));
                    if spawned {
                        frame.owned.push(child.id);
                    } else {
                        self.note(child.id, Out::Closed);
                    }
                }
                Step::Cancel(id, task) => self.cancel_by_handle(*id, *task),
                Step::Defer(id, deferred) => frame.deferred.push((*id, deferred.clone())),
                Step::DropHandle(id, task) => {
                    let own = self.own(frame.task, *task);
                    self.count("handle dropped", if own { "done" } else { "refused" });
                    self.note(*id, if own { Out::Unit } else { Out::Absent });
                    if own {
                        self.task(*task).handle.held = false;
                        self.drop_handle(*task);
                    }
                }
                Step::Ask(id, task) => {
                    let out = self.ask(*task);
                    self.count("handle asked", how(&out));
                    self.note(*id, out);
                }
                Step::Do(id, act) => {
                    let out = self.act(*id, frame.group, *act);
                    self.count(act.label(), how(&out));
                    self.note(*id, out);
                }
                Step::Await(id, expr) => {
                    let node = Node::new(*id, frame.group, expr.clone());
                    frame.awaits = Some((*id, Box::new(node)));
                }
                Step::End(id, End::Value) => return Ok(Some(Out::Value(*id))),
                Step::End(id, End::Error) => {
                    self.count("an error", "done");
                    return Ok(Some(Out::Failed(*id)));
                }
                Step::End(_, End::Panic) => {
                    self.count("a panic", "done");
                    return Err(Panic);
                }
            }
        }
    }
}

pub(super) fn how(out: &Out) -> &'static str {
    if *out == Out::Absent { "refused" } else { "done" }
}

fn lend(place: &mut Place) -> Result<(), Out> {
    if *place != Place::Here {
        return Err(Out::Absent);
    }
    *place = Place::Lent;
    Ok(())
}
