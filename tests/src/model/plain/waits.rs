//! Waiting in a room.
//!
//! Owns what an await does while it is in line: for a condition (the lock, the notification, the lock again)
//! and for what has no permits.

use super::body::{Grip, Kind, Node, Notice, Then};
use super::shared::{BARRIER, BROADCAST, CONDITION, EVENT, FINISHED, Grant, MUTEX, Place, WATCH};
use super::{Plain, Polled};
use crate::model::program::{Id, Out};

impl Plain {
    /// Looks at a wait for a condition: the lock, the notification, the lock again.
    pub(super) fn look_at_condition(&mut self, me: Id, node: &mut Node) -> Polled {
        let Kind::Condition(stage, want, body) = &mut node.kind else {
            unreachable!("called for a condition")
        };
        if let Notice::InLine(key) = *stage {
            let Some(grant) = self.collect(CONDITION, key) else { return Ok(None) };
            *stage = Notice::Again(grant, None);
        }
        let (waited, key) = match stage {
            Notice::Lock(key) => (false, key),
            Notice::Again(_, key) => (true, key),
            Notice::InLine(_) => unreachable!("went on above"),
        };
        if self.poll_acquire(me, MUTEX, 1, key).is_none() {
            return Ok(None);
        }
        let value = self.shared.value;
        let enough = want.map_or(waited, |least| value >= least);
        if !enough {
            // In line first, then unlocked: no notification falls between.
            *stage = Notice::InLine(self.enter(me, CONDITION, 0));
            self.release(MUTEX, 1);
            return Ok(None);
        }
        let body = body.clone();
        self.note(body.id, Out::Value(value));
        self.hold(me, node, Grip::Permits(MUTEX, 1), &body)
    }

    pub(super) fn look_in_room(&mut self, me: Id, node: &mut Node) -> Polled {
        let Kind::Room(room, key, then) = &mut node.kind else { unreachable!("called for a room") };
        let room = *room;
        // Until there is something to say: the channels look again after each wake-up.
        loop {
            if let Then::Hear(at) = then
                && key.is_none()
            {
                let out = self.try_hear(*at);
                if out != Out::Empty {
                    self.shared.broadcast.ends[*at] = Place::Here;
                    return Ok(Some(out));
                }
            }
            if let Then::Watched(least) = then
                && key.is_none()
            {
                self.shared.watch.seen = self.shared.watch.version;
                let value = self.shared.watch.value;
                if value >= *least {
                    self.shared.watch.end = Place::Here;
                    return Ok(Some(Out::Value(value)));
                }
            }
            let grant = match *key {
                Some(known) => self.collect(room, known),
                None => self.ready(room),
            };
            let Some(grant) = grant else {
                if key.is_none() {
                    *key = Some(self.enter(me, room, 0));
                }
                return Ok(None);
            };
            *key = None;
            let watch = &mut self.shared.watch;
            match then {
                Then::Hear(_) => {}
                Then::Watched(_) | Then::Changed => {
                    if watch.seen == watch.version && !watch.sender {
                        watch.end = Place::Here;
                        return Ok(Some(Out::Closed));
                    }
                    watch.seen = watch.version;
                    if let Then::Changed = then {
                        watch.end = Place::Here;
                        return Ok(Some(Out::Value(watch.value)));
                    }
                }
                _ => {
                    return Ok(Some(match grant {
                        Grant::Index(index) => Out::Value(index),
                        Grant::Closed => Out::Broken,
                        _ => Out::Unit,
                    }));
                }
            }
        }
    }

    /// What need not be waited for.
    fn ready(&mut self, room: usize) -> Option<Grant> {
        let yes = match room {
            BARRIER => return self.arrive(),
            BROADCAST => false,
            WATCH => {
                let watch = &self.shared.watch;
                watch.seen != watch.version || !watch.sender
            }
            _ if room >= FINISHED => self.shared.queues[room - FINISHED].unfinished == 0,
            _ => self.shared.events[room - EVENT],
        };
        yes.then_some(Grant::Ok)
    }
}
