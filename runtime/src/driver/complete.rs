//! Taking completions off the ring.
//!
//! Owns the dispatch: each completion goes to the op whose key it bears, or to the driver itself. Nothing
//! is borrowed while an op's hook or a waker runs. How a waker is called is for the caller to say: a loop
//! knows its own.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

use super::op::end_orphan;
use super::op_slab::{Key, Shots, Slot, State};
use super::sqe::Cqe;
use super::{Driver, own};
use crate::contain;
use crate::metrics::{Kind, wake_contained};
use crate::sys::abi::RawCqe;

/// How many completions ahead their slots are asked for.
const SLOTS_AHEAD: u32 = 3;

impl Driver {
    /// Reaps what is there, at most one completion queue full; gives how many there were. Whoever waits is
    /// woken by `wake`, which must contain a waker's panic.
    pub(crate) fn reap(&self, wake: impl Fn(Waker)) -> u32 {
        self.pool.ways().moves_on();
        let mut reaped = 0;
        // One catch for all: a hook that panics ends its own op's dispatch, and the others go on.
        while let Err(payload) =
            catch_unwind(AssertUnwindSafe(|| self.reap_some(&mut reaped, &wake)))
        {
            self.hook_panicked(payload, &wake);
        }
        reaped
    }

    fn reap_some(&self, reaped: &mut u32, wake: &impl Fn(Waker)) {
        while *reaped < self.report.cq_entries {
            let Some(raw) = self.pop_completion() else { break };
            *reaped += 1;
            self.metrics.count(Kind::Completions);
            let cqe = Cqe::new(raw.res, raw.flags);
            if raw.user_data & (own::CANCEL | own::WAKE | own::MESSAGE) != 0 {
                self.own_completion(raw.user_data, cqe);
            } else {
                self.complete(Key::from_user_data(raw.user_data), cqe, wake);
            }
        }
        if self.any_never_sent.get() {
            self.end_never_sent(reaped, wake);
        }
    }

    /// The next completion. The slots of those behind it are asked for: ops are many, and what the kernel did
    /// meanwhile has pushed them out of the caches.
    #[inline(always)]
    fn pop_completion(&self) -> Option<RawCqe> {
        let mut ring = self.ring.borrow_mut();
        let ring = ring.as_mut()?;
        let raw = ring.pop()?;
        if let Some(user_data) = ring.peek_user_data(SLOTS_AHEAD) {
            self.slots.prefetch(Key::from_user_data(user_data));
        }
        Some(raw)
    }

    /// Ops that were cancelled before they were sent end as the kernel would have ended them; those that
    /// their hooks add are for the next time.
    #[cold]
    fn end_never_sent(&self, reaped: &mut u32, wake: &impl Fn(Waker)) {
        let bound = self.waiting.borrow().never_sent.len();
        for _ in 0..bound {
            let Some(key) = self.waiting.borrow_mut().never_sent.pop_front() else { break };
            *reaped += 1;
            self.complete(key, Cqe::error(libc::ECANCELED), wake);
        }
        self.any_never_sent.set(!self.waiting.borrow().never_sent.is_empty());
    }

    /// Has `waker` called when the completion that is being handled has been dealt with: a waker may poll at
    /// once, and must not find an op half ended. Outside of that, at once.
    pub(crate) fn wake_soon(&self, waker: Waker) {
        if self.dispatching.get().is_some() {
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

    /// Ends an op, or hands on what a multishot one brought, and wakes whoever waits.
    #[inline(always)]
    fn complete(&self, key: Key, cqe: Cqe, wake: &impl Fn(Waker)) {
        let Some(slot) = self.slots.get(key) else {
            debug_assert!(false, "a completion of no op: {key:?} {cqe:?}");
            self.metrics.count(Kind::StrayCompletions);
            return;
        };
        let vtable = slot.vtable.get();
        if vtable.shots == Shots::One && cqe.is_of_several() {
            return self.complete_in_two(key, slot, cqe, wake);
        }
        let stamp = slot.stamp();
        if stamp != 0 && vtable.shots == Shots::One {
            self.metrics.op_took(slot.opcode.get(), self.stamp.get().saturating_sub(stamp));
        }
        self.dispatching.set(Some((key, cqe)));
        // SAFETY: the slot holds an op of this table until it is freed below or taken when Done, and this is
        // its completion.
        let enough = unsafe { (vtable.completed)(slot.payload(), cqe) };
        self.settle(key, slot, cqe, enough, wake);
    }

    /// One of the two completions of a send without copy: its result, and later that the kernel reads its
    /// bytes no more. It ends with the second, and gets the first.
    #[cold]
    fn complete_in_two(&self, key: Key, slot: &Slot, cqe: Cqe, wake: &impl Fn(Waker)) {
        if cqe.more() {
            let stamp = slot.stamp();
            if stamp != 0 {
                let took = self.stamp.get().saturating_sub(stamp);
                self.metrics.op_took(slot.opcode.get(), took);
            }
            return self.slots.answer(slot, cqe);
        }
        self.metrics.count(Kind::ZeroCopies);
        debug_assert!(slot.state.get() == State::Answered, "{cqe:?}");
        let cqe = Cqe::new(slot.cqe().raw_result(), 0);
        self.dispatching.set(Some((key, cqe)));
        // SAFETY: as in `complete`: the slot holds an op of this table, and the kernel is done with it.
        let enough = unsafe { (slot.vtable.get().completed)(slot.payload(), cqe) };
        self.settle(key, slot, cqe, enough, wake);
    }

    /// What follows an op's hook.
    #[inline(always)]
    fn settle(
        &self,
        key: Key,
        slot: &Slot,
        cqe: Cqe,
        enough: ControlFlow<()>,
        wake: &impl Fn(Waker),
    ) {
        let mut waker = None;
        let shots = slot.vtable.get().shots;
        if shots != Shots::One && cqe.more() {
            if enough.is_break() {
                self.cancel(key);
            }
            waker = slot.waker.take();
        } else if slot.orphan.get() || shots == Shots::Many {
            // The hook may have been what dropped the handle.
            self.free_ended(key, slot, cqe);
        } else {
            self.slots.complete(slot, cqe);
            waker = slot.waker.take();
        }
        self.dispatching.set(None);
        if let Some(waker) = waker {
            wake(waker);
        }
        if self.any_after.get() {
            self.wake_after(wake);
        }
    }

    /// A hook's panic says nothing of the operation, which ends as it would have.
    ///
    /// # Panics
    /// With the same payload if no completion was being handled.
    #[cold]
    fn hook_panicked(&self, payload: Box<dyn Any + Send>, wake: &impl Fn(Waker)) {
        let Some((key, cqe)) = self.dispatching.get() else { resume_unwind(payload) };
        contain::discard(payload);
        self.metrics.count(Kind::HookPanics);
        match self.slots.get(key) {
            Some(slot) => self.settle(key, slot, cqe, ControlFlow::Continue(()), wake),
            None => self.dispatching.set(None),
        }
    }

    /// Ends an op whose last completion has come and whose handle is gone, then frees its slot. The end runs
    /// with nothing borrowed, and may start other ops: the slot is freed only afterwards.
    fn free_ended(&self, key: Key, slot: &Slot, cqe: Cqe) {
        // SAFETY: the slot holds an op of this table; nobody reads it again, it is freed below.
        self.metrics.hook(|| unsafe { end_orphan(slot.vtable.get(), slot.payload(), cqe) });
        contain::let_go(self.slots.free(key));
    }

    fn own_completion(&self, user_data: u64, cqe: Cqe) {
        if user_data & own::CANCEL != 0 {
            self.own_in_flight.set(self.own_in_flight.get() - 1);
            self.cancel_answered(user_data & !own::CANCEL, cqe);
            return;
        }
        if user_data & own::WAKE != 0 {
            self.wake.armed.set(false);
        }
        // It has done what it is for: the core is awake.
        self.called.set(true);
    }

    /// Whether another thread's message has come since this was asked last.
    #[inline]
    pub(crate) fn take_called(&self) -> bool {
        self.called.take()
    }
}
