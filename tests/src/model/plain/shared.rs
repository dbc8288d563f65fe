//! What tasks share, as counts and lists in the order of asking.
//!
//! Owns the state of every primitive and what can happen to it. A *room* is a list of those
//! who wait and what they were handed; a *gate* counts permits in front of a room. Handing over is one step:
//! who was handed something has it, and if it goes away without having taken it, the next one does.

use std::collections::{BTreeMap, VecDeque};

use super::Plain;
use crate::model::program::{CHANNEL, Id, Out, PAIR, Program, QUEUES};

/// Gates.
pub(super) const SEMAPHORE: usize = 0;
pub(super) const MUTEX: usize = 1;
pub(super) const RW_LOCK: usize = 2;
pub(super) const ONCE: usize = 3;
pub(super) const PLACES: usize = 4;
pub(super) const ITEMS: usize = PLACES + QUEUES;
/// Rooms without a gate, behind those of the gates.
const GATES: usize = ITEMS + QUEUES;
pub(super) const EVENT: usize = GATES;
pub(super) const CONDITION: usize = EVENT + PAIR;
pub(super) const BARRIER: usize = CONDITION + 1;
pub(super) const FINISHED: usize = BARRIER + 1;
pub(super) const BROADCAST: usize = FINISHED + QUEUES;
pub(super) const WATCH: usize = BROADCAST + 1;

/// What a writer takes.
pub(super) const ALL: usize = usize::MAX >> 3;

/// What one who waits is handed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Grant {
    Ok,
    Closed,
    Index(u32),
    /// A notification of one: passed on by who can't use it.
    One,
    /// A notification of all.
    Everyone,
}

#[derive(Default)]
pub(super) struct Room {
    /// Key, task, and how much it asks for.
    pub(super) waiting: VecDeque<(u64, Id, usize)>,
    pub(super) handed: BTreeMap<u64, Grant>,
}

pub(super) struct Gate {
    pub(super) free: usize,
    pub(super) closed: bool,
}

pub(super) struct Queue {
    /// In the order of putting.
    pub(super) store: Vec<u32>,
    pub(super) reserved: usize,
    pub(super) unfinished: usize,
    pub(super) is_shutdown: bool,
}

/// An end of something, which one task at a time uses.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Place {
    Here,
    Lent,
    Gone,
}

pub(super) struct Broadcast {
    /// All that were ever sent.
    pub(super) values: Vec<u32>,
    /// Number of the first that is kept.
    pub(super) first: u64,
    pub(super) kept: usize,
    pub(super) sender: bool,
    /// What each receiver gets next.
    pub(super) next: [u64; PAIR],
    pub(super) ends: [Place; PAIR],
}

pub(super) struct Watch {
    pub(super) value: u32,
    pub(super) version: u64,
    pub(super) seen: u64,
    pub(super) sender: bool,
    pub(super) end: Place,
}

pub(super) struct Oneshot {
    pub(super) value: Option<u32>,
    pub(super) sender: Place,
    pub(super) receiver: Place,
    pub(super) closed: bool,
    /// Who is told of the value, and of the close.
    pub(super) on_value: Option<Id>,
    pub(super) on_close: Option<Id>,
}

#[derive(Default)]
pub(super) struct Future {
    pub(super) end: Option<Out>,
    pub(super) completer_gone: bool,
    /// Who waits, by the place that it took; places are used again, the last one that came free first.
    pub(super) places: Vec<Option<Id>>,
    pub(super) free: Vec<usize>,
}

pub(super) struct Shared {
    pub(super) gates: Vec<Gate>,
    pub(super) rooms: Vec<Room>,
    pub(super) queues: Vec<Queue>,
    /// Bound of the semaphore is none; what the mutex holds:
    pub(super) value: u32,
    pub(super) events: [bool; PAIR],
    pub(super) parties: usize,
    pub(super) broken: bool,
    pub(super) once: Option<u32>,
    /// Senders of the channel, the kept one among them, and its receiver.
    pub(super) senders: usize,
    pub(super) sender: bool,
    pub(super) receiver: Place,
    pub(super) broadcast: Broadcast,
    pub(super) watch: Watch,
    pub(super) oneshots: Vec<Oneshot>,
    pub(super) futures: Vec<Future>,
}

impl Shared {
    pub(super) fn new(program: &Program) -> Self {
        let mut free = vec![program.permits, 1, ALL, 1];
        free.extend(program.places);
        free.extend([0; QUEUES]);
        let oneshot = || Oneshot {
            value: None,
            sender: Place::Here,
            receiver: Place::Here,
            closed: false,
            on_value: None,
            on_close: None,
        };
        let queue = |_| Queue { store: Vec::new(), reserved: 0, unfinished: 0, is_shutdown: false };
        Self {
            gates: free.into_iter().map(|free| Gate { free, closed: false }).collect(),
            rooms: (0..=WATCH).map(|_| Room::default()).collect(),
            queues: program.places.into_iter().map(queue).collect(),
            value: 0,
            events: [false; PAIR],
            parties: program.parties,
            broken: false,
            once: None,
            senders: 1,
            sender: true,
            receiver: Place::Here,
            broadcast: Broadcast {
                values: Vec::new(),
                first: 0,
                kept: program.kept,
                sender: true,
                next: [0; PAIR],
                ends: [Place::Here; PAIR],
            },
            watch: Watch { value: 0, version: 0, seen: 0, sender: true, end: Place::Here },
            oneshots: (0..PAIR).map(|_| oneshot()).collect(),
            futures: (0..PAIR).map(|_| Future::default()).collect(),
        }
    }
}

impl Plain {
    /// Takes the last place in a room.
    pub(super) fn enter(&mut self, me: Id, room: usize, need: usize) -> u64 {
        let key = self.key();
        self.shared.rooms[room].waiting.push_back((key, me, need));
        key
    }

    /// Hands something to the first in a room, and wakes it; whether there was one.
    pub(super) fn hand(&mut self, room: usize, grant: Grant) -> bool {
        let room = &mut self.shared.rooms[room];
        let Some((key, task, _)) = room.waiting.pop_front() else { return false };
        room.handed.insert(key, grant);
        self.wake(task);
        true
    }

    pub(super) fn hand_all(&mut self, room: usize, grant: Grant) {
        while self.hand(room, grant) {}
    }

    /// What one was handed, which it thereby takes.
    pub(super) fn collect(&mut self, room: usize, key: u64) -> Option<Grant> {
        self.shared.rooms[room].handed.remove(&key)
    }

    /// Goes away; gives what it had been handed.
    pub(super) fn leave(&mut self, room: usize, key: u64) -> Option<Grant> {
        let grant = self.collect(room, key);
        self.shared.rooms[room].waiting.retain(|waiter| waiter.0 != key);
        grant
    }

    pub(super) fn waiting(&self, room: usize) -> usize {
        self.shared.rooms[room].waiting.len()
    }

    /// Takes permits if there are so many and nobody waits; an error says whether it is closed.
    pub(super) fn try_acquire(&mut self, gate: usize, need: usize) -> Result<(), bool> {
        if self.shared.gates[gate].closed {
            return Err(true);
        }
        if self.shared.gates[gate].free < need || self.waiting(gate) > 0 {
            return Err(false);
        }
        self.shared.gates[gate].free -= need;
        Ok(())
    }

    pub(super) fn release(&mut self, gate: usize, permits: usize) {
        self.shared.gates[gate].free += permits;
        self.serve(gate);
    }

    /// Nobody overtakes the first in line.
    pub(super) fn serve(&mut self, gate: usize) {
        while let Some(&(_, _, need)) = self.shared.rooms[gate].waiting.front() {
            if self.shared.gates[gate].free < need {
                return;
            }
            self.shared.gates[gate].free -= need;
            self.hand(gate, Grant::Ok);
        }
    }

    pub(super) fn close(&mut self, gate: usize) {
        self.shared.gates[gate].closed = true;
        self.hand_all(gate, Grant::Closed);
    }

    pub(super) fn poll_acquire(
        &mut self,
        me: Id,
        gate: usize,
        need: usize,
        key: &mut Option<u64>,
    ) -> Option<Grant> {
        if let Some(known) = *key {
            let grant = self.collect(gate, known);
            if grant.is_some() {
                *key = None;
            }
            return grant;
        }
        match self.try_acquire(gate, need) {
            Ok(()) => Some(Grant::Ok),
            Err(true) => Some(Grant::Closed),
            Err(false) => {
                *key = Some(self.enter(me, gate, need));
                None
            }
        }
    }

    pub(super) fn drop_acquire(&mut self, gate: usize, need: usize, key: Option<u64>) {
        let Some(key) = key else { return };
        match self.leave(gate, key) {
            Some(Grant::Ok) => self.release(gate, need),
            Some(_) => {}
            None => self.serve(gate),
        }
    }

    pub(super) fn insert(&mut self, queue: usize, item: u32) {
        self.shared.queues[queue].store.push(item);
        self.shared.queues[queue].unfinished += 1;
        self.release(ITEMS + queue, 1);
    }

    /// A getter redeems its promise.
    pub(super) fn take(&mut self, queue: usize) -> Option<u32> {
        let store = &mut self.shared.queues[queue].store;
        let at = match queue {
            _ if store.is_empty() => None,
            1 => Some(store.len() - 1),
            2 => (0..store.len()).min_by_key(|at| priority(store[*at])),
            _ => Some(0),
        };
        let item = at.map(|at| store.remove(at));
        self.release(PLACES + queue, 1);
        self.look_whether_empty(queue);
        item
    }

    pub(super) fn look_whether_empty(&mut self, queue: usize) {
        let of = &self.shared.queues[queue];
        if of.is_shutdown && of.reserved == 0 && of.store.is_empty() {
            let closed = self.shared.gates[ITEMS + queue].closed;
            if !closed {
                self.close(ITEMS + queue);
            }
        }
    }

    pub(super) fn look_whether_finished(&mut self, queue: usize) {
        if self.shared.queues[queue].unfinished == 0 {
            self.hand_all(FINISHED + queue, Grant::Ok);
        }
    }

    pub(super) fn shutdown(&mut self, queue: usize) {
        self.shared.queues[queue].is_shutdown = true;
        self.close(PLACES + queue);
        self.look_whether_empty(queue);
    }

    pub(super) fn shutdown_now(&mut self, queue: usize) {
        let of = &mut self.shared.queues[queue];
        of.is_shutdown = true;
        of.unfinished -= std::mem::take(&mut of.store).len().min(of.unfinished);
        self.close(PLACES + queue);
        self.close(ITEMS + queue);
        self.look_whether_finished(queue);
    }

    pub(super) fn drop_sender(&mut self) {
        self.shared.senders -= 1;
        if self.shared.senders == 0 {
            self.shutdown(CHANNEL);
        }
    }

    /// What somebody who comes to the barrier gets without waiting.
    pub(super) fn arrive(&mut self) -> Option<Grant> {
        if self.shared.broken {
            return Some(Grant::Closed);
        }
        let others = self.waiting(BARRIER);
        if others + 1 < self.shared.parties {
            return None;
        }
        (0..others as u32).for_each(|index| {
            self.hand(BARRIER, Grant::Index(index));
        });
        Some(Grant::Index(others as u32))
    }

    /// What was heard by everyone is not kept.
    pub(super) fn forget_heard(&mut self) {
        let broadcast = &mut self.shared.broadcast;
        let end = broadcast.values.len() as u64;
        let ends = broadcast.next.iter().zip(&broadcast.ends);
        let here = ends.filter(|(_, end)| **end != Place::Gone).map(|(next, _)| *next);
        let heard = here.min().unwrap_or(end);
        broadcast.first = broadcast.first.max(heard.min(end));
    }

    pub(super) fn try_hear(&mut self, end: usize) -> Out {
        let broadcast = &mut self.shared.broadcast;
        let next = broadcast.next[end];
        if next < broadcast.first {
            broadcast.next[end] = broadcast.first;
            return Out::Lagged(broadcast.first - next);
        }
        match broadcast.values.get(next as usize) {
            Some(value) => {
                let value = *value;
                broadcast.next[end] += 1;
                self.forget_heard();
                Out::Value(value)
            }
            None if broadcast.sender => Out::Empty,
            None => Out::Closed,
        }
    }

    pub(super) fn try_oneshot(&mut self, at: usize) -> Out {
        let oneshot = &mut self.shared.oneshots[at];
        match oneshot.value.take() {
            Some(value) => Out::Value(value),
            None if oneshot.sender == Place::Gone || oneshot.closed => Out::Closed,
            None => Out::Empty,
        }
    }

    /// Ends a completable future; whether this was its end.
    pub(super) fn end_future(&mut self, at: usize, end: Out) -> bool {
        let future = &mut self.shared.futures[at];
        if future.end.is_some() {
            return false;
        }
        future.end = Some(end);
        future.free.clear();
        let places = std::mem::take(&mut future.places);
        places.into_iter().flatten().for_each(|task| self.wake(task));
        true
    }

    pub(super) fn drop_oneshot_sender(&mut self, at: usize) {
        let oneshot = &mut self.shared.oneshots[at];
        oneshot.sender = Place::Gone;
        oneshot.on_close = None;
        if let Some(task) = oneshot.on_value.take() {
            self.wake(task);
        }
    }
}

/// The rank of an item in the priority queue.
pub(in crate::model) fn priority(item: u32) -> u32 {
    item % 3
}
