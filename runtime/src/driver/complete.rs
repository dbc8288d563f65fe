//! Taking completions off the ring.
//!
//! Owns the dispatch: each completion goes to the op whose key it bears, or to the driver itself. Nothing
//! is borrowed while an op's hook or a waker runs. How a waker is called is for the caller to say: a loop
//! knows its own.

use std::task::Waker;

use super::op::end_orphan;
use super::op_slab::{Key, Slot};
use super::sqe::Cqe;
use super::{Driver, own};
use crate::contain::contained;
use crate::metrics::{Kind, wake_contained};

impl Driver {
    /// Reaps what is there, at most one completion queue full; gives how many there were. Whoever waits is
    /// woken by `wake`, which must contain a waker's panic.
    pub(crate) fn reap(&self, wake: impl Fn(Waker)) -> u32 {
        let bound = self.report.cq_entries;
        let mut reaped = 0;
        while reaped < bound {
            let Some(raw) = self.ring.borrow_mut().as_mut().and_then(|r| r.pop()) else { break };
            reaped += 1;
            let cqe = Cqe::new(raw.res, raw.flags);
            if raw.user_data & (own::CANCEL | own::WAKE) != 0 {
                self.own_completion(raw.user_data, cqe);
            } else {
                self.complete_and_wake(Key::from_user_data(raw.user_data), cqe, &wake);
            }
        }
        if reaped > 0 {
            self.metrics.add(Kind::Completions, u64::from(reaped));
        }
        reaped + self.end_never_sent(&wake)
    }

    #[inline]
    fn complete_and_wake(&self, key: Key, cqe: Cqe, wake: &impl Fn(Waker)) {
        let outer = self.dispatching.replace(true);
        let waker = self.complete(key, cqe);
        self.dispatching.set(outer);
        if let Some(waker) = waker {
            wake(waker);
        }
        if self.any_after.get() {
            self.wake_after(wake);
        }
    }

    /// Has `waker` called when the completion that is being handled has been dealt with: a waker may poll at
    /// once, and must not find an op half ended. Outside of that, at once.
    pub(crate) fn wake_soon(&self, waker: Waker) {
        if self.dispatching.get() {
            self.after.borrow_mut().push(waker);
            self.any_after.set(true);
        } else {
            wake_contained(waker, &self.metrics);
        }
    }

    #[cold]
    fn wake_after(&self, wake: &impl Fn(Waker)) {
        self.any_after.set(false);
        loop {
            let Some(waker) = self.after.borrow_mut().pop() else { return };
            wake(waker);
        }
    }

    /// Ends an op, or hands on what a multishot one brought; gives the waker of whoever waits.
    #[inline]
    fn complete(&self, key: Key, cqe: Cqe) -> Option<Waker> {
        let Some(slot) = self.slots.get(key) else {
            debug_assert!(false, "a completion of no op: {key:?} {cqe:?}");
            self.metrics.count(Kind::StrayCompletions);
            return None;
        };
        let vtable = slot.vtable.get();
        let stamp = slot.stamp();
        if stamp != 0 && !vtable.multishot {
            self.metrics.op_took(slot.opcode.get(), self.stamp.get().saturating_sub(stamp));
        }
        // SAFETY: the slot holds an op of this table until it is freed below or taken when Done, and this is
        // its completion.
        let enough = contained(|| unsafe { (vtable.completed)(slot.payload(), cqe) }.is_break());
        if enough.is_none() {
            self.metrics.count(Kind::HookPanics);
        }
        if vtable.multishot {
            if !cqe.more() {
                self.free_ended(key, slot, cqe);
            } else if enough == Some(true) {
                self.cancel(key);
            }
            return None;
        }
        // The hook may have dropped the handle.
        if slot.orphan.get() {
            self.free_ended(key, slot, cqe);
            return None;
        }
        self.slots.complete(slot, cqe);
        slot.waker.take()
    }

    /// Ends an op whose last completion has come and whose handle is gone, then frees its slot. The end runs
    /// with nothing borrowed, and may start other ops: the slot is freed only afterwards.
    fn free_ended(&self, key: Key, slot: &Slot, cqe: Cqe) {
        // SAFETY: the slot holds an op of this table; nobody reads it again, it is freed below.
        let ended = contained(|| unsafe { end_orphan(slot.vtable.get(), slot.payload(), cqe) });
        if ended.is_none() {
            self.metrics.count(Kind::HookPanics);
        }
        let waker = self.slots.free(key);
        contained(|| drop(waker));
    }

    /// Ops that were cancelled before they were sent end as the kernel would have ended them.
    fn end_never_sent(&self, wake: &impl Fn(Waker)) -> u32 {
        let mut ended = 0;
        loop {
            let Some(key) = self.waiting.borrow_mut().never_sent.pop_front() else { return ended };
            ended += 1;
            self.complete_and_wake(key, Cqe::error(libc::ECANCELED), wake);
        }
    }

    fn own_completion(&self, user_data: u64, cqe: Cqe) {
        if user_data & own::CANCEL != 0 {
            self.own_in_flight.set(self.own_in_flight.get() - 1);
            self.cancel_answered(user_data & !own::CANCEL, cqe);
        } else {
            self.wake.armed.set(false);
        }
    }
}
