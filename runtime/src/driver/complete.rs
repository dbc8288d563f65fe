//! Taking completions off the ring.
//!
//! Owns the dispatch: each completion goes to the op whose key it bears, or to the driver itself. Nothing
//! is borrowed while an op's hook or a waker runs.

use std::task::Waker;

use super::op::end_orphan;
use super::op_slab::{Key, VTable};
use super::sqe::Cqe;
use super::{Driver, own};
use crate::contain::contained;
use crate::metrics::{Kind, wake_contained};
use crate::sys::abi::RawCqe;

impl Driver {
    /// Reaps what is there, at most one completion queue full; gives how many there were.
    pub(crate) fn reap(&self) -> u32 {
        let bound = self.report.cq_entries;
        let mut reaped = 0;
        while reaped < bound {
            let Some(raw) = self.ring.borrow_mut().as_mut().and_then(|r| r.pop()) else { break };
            reaped += 1;
            self.dispatch(raw);
        }
        if reaped > 0 {
            self.metrics.add(Kind::Completions, u64::from(reaped));
        }
        reaped + self.end_never_sent()
    }

    fn dispatch(&self, raw: RawCqe) {
        let cqe = Cqe::new(raw.res, raw.flags);
        if raw.user_data & (own::CANCEL | own::WAKE) != 0 {
            self.own_completion(raw.user_data, cqe);
        } else {
            self.complete_and_wake(Key::from_user_data(raw.user_data), cqe);
        }
    }

    fn complete_and_wake(&self, key: Key, cqe: Cqe) {
        let outer = self.dispatching.replace(true);
        self.complete(key, cqe);
        self.dispatching.set(outer);
        self.wake_after();
    }

    /// Has `waker` called when the completion that is being handled has been dealt with: a waker may poll at
    /// once, and must not find an op half ended. Outside of that, at once.
    pub(crate) fn wake_soon(&self, waker: Waker) {
        if self.dispatching.get() {
            self.after.borrow_mut().push(waker);
        } else {
            wake_contained(waker, &self.metrics);
        }
    }

    fn wake_after(&self) {
        loop {
            let Some(waker) = self.after.borrow_mut().pop() else { return };
            wake_contained(waker, &self.metrics);
        }
    }

    fn complete(&self, key: Key, cqe: Cqe) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get(key) else {
            drop(slots);
            debug_assert!(false, "a completion of no op: {key:?} {cqe:?}");
            self.metrics.count(Kind::StrayCompletions);
            return;
        };
        let Some(vtable) = slot.vtable else { return };
        let place = slot.payload();
        let stamp = slot.stamp();
        let opcode = slot.opcode;
        if stamp != 0 && !vtable.multishot {
            self.metrics.op_took(opcode, self.stamp.get().saturating_sub(stamp));
        }
        drop(slots);
        // SAFETY: the slot holds an op of this table until it is freed below, and this is its completion.
        let enough = contained(|| unsafe { (vtable.completed)(place, cqe) }.is_break());
        if enough.is_none() {
            self.metrics.count(Kind::HookPanics);
        }
        if vtable.multishot {
            if !cqe.more() {
                self.free_ended(key, vtable, cqe);
            } else if enough == Some(true) {
                self.cancel(key);
            }
            return;
        }
        // Looked up again: the hook may have dropped the handle.
        let orphan = self.slots.borrow_mut().get(key).is_some_and(|slot| slot.orphan);
        if orphan {
            self.free_ended(key, vtable, cqe);
            return;
        }
        let waker = self.slots.borrow_mut().complete(key, cqe);
        if let Some(waker) = waker {
            wake_contained(waker, &self.metrics);
        }
    }

    /// Ends an op whose last completion has come and whose handle is gone, then frees its slot. The end runs
    /// with nothing borrowed, and may start other ops: the slot is freed only afterwards.
    fn free_ended(&self, key: Key, vtable: &'static VTable, cqe: Cqe) {
        let place = self.slots.borrow_mut().get(key).map(|slot| slot.payload());
        if let Some(place) = place {
            // SAFETY: the slot holds an op of this table; nobody reads it again, it is freed below.
            let ended = contained(|| unsafe { end_orphan(vtable, place, cqe) });
            if ended.is_none() {
                self.metrics.count(Kind::HookPanics);
            }
        }
        let waker = self.slots.borrow_mut().free(key);
        contained(|| drop(waker));
    }

    /// Ops that were cancelled before they were sent end as the kernel would have ended them.
    fn end_never_sent(&self) -> u32 {
        let mut ended = 0;
        loop {
            let Some(key) = self.waiting.borrow_mut().never_sent.pop_front() else { return ended };
            ended += 1;
            self.complete_and_wake(key, Cqe::error(libc::ECANCELED));
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
