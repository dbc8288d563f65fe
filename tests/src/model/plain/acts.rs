//! The steps that never wait.
//!
//! Owns what each of them does to what is shared, and its answer.

use super::Plain;
use super::shared::{
    ALL, BARRIER, BROADCAST, CONDITION, EVENT, Grant, ITEMS, MUTEX, ONCE, PLACES, Place, RW_LOCK,
    SEMAPHORE, WATCH,
};
use crate::model::program::{Act, CHANNEL, Id, Out, PAIR};

impl Plain {
    /// Does what never waits.
    pub(super) fn act(&mut self, id: Id, group: Option<Id>, act: Act) -> Out {
        let tried = |result: Result<(), bool>| match result {
            Ok(()) => Out::Unit,
            Err(true) => Out::Closed,
            Err(false) => Out::Full,
        };
        match act {
            Act::AddPermit => self.release(SEMAPHORE, 1),
            Act::TryAcquire(need) => {
                let result = self.try_acquire(SEMAPHORE, need);
                if result.is_ok() {
                    self.release(SEMAPHORE, need);
                }
                return tried(result);
            }
            Act::CloseSemaphore => self.close(SEMAPHORE),
            Act::TryLock | Act::TryRead | Act::TryWrite => {
                let (gate, need) = match act {
                    Act::TryLock => (MUTEX, 1),
                    Act::TryRead => (RW_LOCK, 1),
                    _ => (RW_LOCK, ALL),
                };
                let result = self.try_acquire(gate, need);
                if result.is_ok() {
                    self.release(gate, need);
                }
                return tried(result);
            }
            Act::Set(at) => {
                self.shared.events[at] = true;
                self.hand_all(EVENT + at, Grant::Ok);
            }
            Act::Clear(at) => self.shared.events[at] = false,
            Act::Notify(n) => (0..n).for_each(|_| {
                self.hand(CONDITION, Grant::One);
            }),
            Act::NotifyAll => self.hand_all(CONDITION, Grant::Everyone),
            Act::TryPut(CHANNEL) if !self.shared.sender => return Out::Absent,
            Act::TryPut(queue) => {
                let result = self.try_acquire(PLACES + queue, 1);
                if result.is_ok() {
                    self.insert(queue, id);
                }
                return tried(result);
            }
            Act::TryGet(CHANNEL) if self.shared.receiver != Place::Here => return Out::Absent,
            Act::TryGet(queue) => {
                return match self.try_acquire(ITEMS + queue, 1) {
                    Ok(()) => self.take(queue).map_or(Out::Closed, Out::Value),
                    Err(true) => Out::Closed,
                    Err(false) => Out::Empty,
                };
            }
            Act::TaskDone(queue) => {
                if self.shared.queues[queue].unfinished == 0 {
                    return Out::Absent;
                }
                self.shared.queues[queue].unfinished -= 1;
                self.look_whether_finished(queue);
            }
            Act::Shutdown(CHANNEL) | Act::ShutdownNow(CHANNEL)
                if self.shared.receiver != Place::Here =>
            {
                return Out::Absent;
            }
            Act::Shutdown(queue) => self.shutdown(queue),
            Act::ShutdownNow(queue) => {
                if queue == CHANNEL {
                    self.shared.receiver = Place::Gone;
                }
                self.shutdown_now(queue);
            }
            Act::DropSender => {
                if !std::mem::replace(&mut self.shared.sender, false) {
                    return Out::Absent;
                }
                self.drop_sender();
            }
            Act::ResetBarrier | Act::AbortBarrier => {
                self.shared.broken = matches!(act, Act::AbortBarrier);
                self.hand_all(BARRIER, Grant::Closed);
            }
            Act::SetOnce => {
                let result = self.try_acquire(ONCE, 1);
                if result.is_ok() {
                    self.shared.once = Some(id);
                    self.close(ONCE);
                    self.release(ONCE, 1);
                }
                return Out::Flag(result.is_ok());
            }
            Act::Broadcast => {
                let broadcast = &mut self.shared.broadcast;
                if !broadcast.sender {
                    return Out::Absent;
                }
                let receivers = broadcast.ends.iter().filter(|end| **end != Place::Gone).count();
                if receivers == 0 {
                    return Out::Closed;
                }
                broadcast.values.push(id);
                let end = broadcast.values.len() as u64;
                broadcast.first = broadcast.first.max(end.saturating_sub(broadcast.kept as u64));
                self.hand_all(BROADCAST, Grant::Ok);
                return Out::Value(receivers as u32);
            }
            Act::TryHear(at) | Act::DropHearer(at)
                if self.shared.broadcast.ends[at] != Place::Here =>
            {
                return Out::Absent;
            }
            Act::TryHear(at) => return self.try_hear(at),
            Act::DropHearer(at) => {
                self.shared.broadcast.ends[at] = Place::Gone;
                self.forget_heard();
            }
            Act::DropBroadcast => {
                if !std::mem::replace(&mut self.shared.broadcast.sender, false) {
                    return Out::Absent;
                }
                self.hand_all(BROADCAST, Grant::Ok);
            }
            Act::Watch => {
                if !self.shared.watch.sender {
                    return Out::Absent;
                }
                self.shared.watch.value += 1;
                self.shared.watch.version += 1;
                self.hand_all(WATCH, Grant::Ok);
            }
            Act::DropWatch => {
                if !std::mem::replace(&mut self.shared.watch.sender, false) {
                    return Out::Absent;
                }
                self.hand_all(WATCH, Grant::Ok);
            }
            Act::SendOneshot(at) | Act::DropOneshot(at)
                if self.shared.oneshots[at].sender != Place::Here =>
            {
                return Out::Absent;
            }
            Act::SendOneshot(at) => {
                let open = !self.shared.oneshots[at].closed;
                if open {
                    self.shared.oneshots[at].value = Some(id);
                }
                self.drop_oneshot_sender(at);
                return Out::Flag(open);
            }
            Act::DropOneshot(at) => self.drop_oneshot_sender(at),
            Act::TryOneshot(at) | Act::CloseOneshot(at)
                if self.shared.oneshots[at].receiver != Place::Here =>
            {
                return Out::Absent;
            }
            Act::TryOneshot(at) => return self.try_oneshot(at),
            Act::CloseOneshot(at) => {
                self.shared.oneshots[at].closed = true;
                if let Some(task) = self.shared.oneshots[at].on_close.take() {
                    self.wake(task);
                }
            }
            Act::Complete(at) | Act::CancelCompleter(at) | Act::Abandon(at)
                if self.shared.futures[at].completer_gone =>
            {
                return Out::Absent;
            }
            Act::Complete(at) => return Out::Flag(self.end_future(at, Out::Value(id))),
            Act::CancelCompleter(at) | Act::CancelFuture(at) => {
                return Out::Flag(self.end_future(at, Out::Cancelled));
            }
            Act::Abandon(at) => {
                self.shared.futures[at].completer_gone = true;
                self.end_future(at, Out::Abandoned);
            }
            Act::CancelGroup => match group {
                Some(group) => self.cancel_group(group),
                None => return Out::Absent,
            },
            Act::Probe => return Out::Numbers(self.probe()),
        }
        Out::Unit
    }

    fn probe(&self) -> Vec<u64> {
        let shared = &self.shared;
        let mut seen = vec![
            shared.gates[SEMAPHORE].free as u64,
            u64::from(shared.gates[MUTEX].free == 0),
            self.waiting(BARRIER) as u64,
            u64::from(shared.broken),
            u64::from(shared.once.is_some()),
            shared.watch.version,
        ];
        for queue in 0..CHANNEL {
            seen.push(shared.queues[queue].store.len() as u64);
            seen.push(u64::from(shared.gates[PLACES + queue].free == 0));
        }
        for at in 0..PAIR {
            seen.push(u64::from(shared.events[at]));
            seen.push(u64::from(shared.futures[at].end.is_some()));
        }
        if shared.broadcast.sender {
            seen.push(shared.broadcast.values.len() as u64 - shared.broadcast.first);
        }
        seen
    }
}
