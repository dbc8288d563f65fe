//! Letting go.
//!
//! Owns what the end of a body and the drop of an await do: from the inside outwards, and whatever was handed
//! over and not taken goes on to the next in line.

use super::Plain;
use super::body::{Frame, Grip, Kind, Node, Notice, Then, how};
use super::shared::{CONDITION, Grant, MUTEX, ONCE, PLACES, Place};
use crate::model::program::{CHANNEL, Deferred, Id, Out};

impl Plain {
    pub(super) fn cancel_by_handle(&mut self, id: Id, task: Id) {
        let out = if self.held(task) { Out::Flag(self.cancel(task)) } else { Out::Absent };
        self.count("handle.cancel", how(&out));
        self.note(id, out);
    }

    fn defer(&mut self, frame: &Frame, id: Id, deferred: Deferred) {
        self.count("in a destructor", "done");
        match deferred {
            Deferred::Do(act) => {
                let out = self.act(id, frame.group, act);
                self.note(id, out);
            }
            Deferred::Cancel(task) => self.cancel_by_handle(id, task),
            Deferred::Spawn(body) => {
                self.spawn(&body, frame.task, frame.group, None);
                self.task(body.id).handle.held = false;
                self.drop_handle(body.id);
            }
            Deferred::SpawnEager(body) => {
                self.count("spawn_eager in a destructor", "done");
                self.spawn_eager(&body, frame.task, frame.group);
                self.drop_handle(body.id);
            }
        }
    }

    /// What it awaits first, then itself, then what its destructor does, then its handles in the order of spawning.
    pub(super) fn drop_frame(&mut self, frame: &mut Frame) {
        if let Some((_, mut awaits)) = frame.awaits.take() {
            self.drop_node(&mut awaits);
        }
        self.note(frame.body.id, Out::Dropped);
        self.live.remove(&frame.body.id);
        for (id, deferred) in std::mem::take(&mut frame.deferred) {
            self.defer(frame, id, deferred);
        }
        for task in std::mem::take(&mut frame.owned) {
            if std::mem::replace(&mut self.task(task).handle.held, false) {
                self.drop_handle(task);
            }
        }
    }

    pub(super) fn drop_node(&mut self, node: &mut Node) {
        let kind = std::mem::replace(&mut node.kind, Kind::Over);
        if !matches!(kind, Kind::New(..) | Kind::Over) {
            self.count(node.label, if self.mark == 0 { "let go" } else { "cancelled" });
        }
        match kind {
            Kind::New(..) | Kind::Over | Kind::Yield(_) => {}
            Kind::Sleep(sleep) => self.drop_sleep(&sleep),
            Kind::Timeout(limit, mut inner, _) => {
                self.drop_node(&mut inner);
                self.drop_sleep(&limit);
            }
            Kind::Race(mut a, mut b, _) => {
                self.drop_node(&mut a);
                self.drop_node(&mut b);
            }
            Kind::Block(mut frame) => self.drop_frame(&mut frame),
            Kind::Held(grip, mut body) => {
                self.drop_node(&mut body);
                self.let_go(grip);
            }
            Kind::Acquire(gate, need, key, then) => {
                self.drop_acquire(gate, need, key);
                match then {
                    Then::Put(CHANNEL, _) | Then::Hold(Grip::Room(_), _) => self.drop_sender(),
                    Then::Get(CHANNEL) => self.shared.receiver = Place::Here,
                    _ => {}
                }
            }
            Kind::Condition(stage, ..) => {
                let notice = match stage {
                    Notice::Lock(key) => {
                        self.drop_acquire(MUTEX, 1, key);
                        None
                    }
                    Notice::InLine(key) => self.leave(CONDITION, key),
                    Notice::Again(notice, key) => {
                        self.drop_acquire(MUTEX, 1, key);
                        Some(notice)
                    }
                };
                if notice == Some(Grant::One) {
                    self.hand(CONDITION, Grant::One);
                }
            }
            Kind::Room(room, key, then) => {
                if let Some(key) = key {
                    self.leave(room, key);
                }
                match then {
                    Then::Hear(at) => self.shared.broadcast.ends[at] = Place::Here,
                    Then::Changed | Then::Watched(_) => self.shared.watch.end = Place::Here,
                    _ => {}
                }
            }
            Kind::Oneshot(at) => self.shared.oneshots[at].receiver = Place::Here,
            Kind::OneshotClosed(at) => self.shared.oneshots[at].sender = Place::Here,
            Kind::Future(at, place, polled_in, _) => {
                let future = &mut self.shared.futures[at];
                if future.end.is_some() {
                    return;
                }
                if let Some(place) = place {
                    future.places[place] = None;
                    future.free.push(place);
                }
                if self.passes_cancel_to(polled_in) {
                    self.end_future(at, Out::Cancelled);
                }
            }
            Kind::Set(set) => self.drop_set(set),
            Kind::Group(id, stage) => self.drop_group(id, stage),
        }
    }

    pub(super) fn let_go(&mut self, grip: Grip) {
        match grip {
            Grip::Permits(gate, permits) => self.release(gate, permits),
            Grip::Turn => self.release(ONCE, 1),
            Grip::Room(_) => {
                self.shared.queues[CHANNEL].reserved -= 1;
                self.release(PLACES + CHANNEL, 1);
                self.look_whether_empty(CHANNEL);
                self.drop_sender();
            }
        }
    }
}
