//! Getting submissions to the kernel.
//!
//! Owns the way from an op to the submission queue: a full queue is flushed early, and what still finds no
//! room waits in order, cancels first. Nothing is refused for lack of room and nothing overtakes.

use std::io;
use std::mem;

use super::features::Feature;
use super::op::drop_unsent;
use super::op_slab::{Key, Slot, VTable};
use super::ring::{Entered, Ring};
use super::sqe::Sqe;
use super::{Detours, Driver, Waiting, own};
use crate::contain::{contained, let_go};
use crate::metrics::Kind;

impl Driver {
    /// A slot for an op of `vtable`, which the caller puts there at once.
    #[inline]
    pub(super) fn reserve(&self, vtable: &'static VTable) -> Result<(Key, &Slot), i32> {
        if self.closed.get() {
            return Err(libc::ECANCELED);
        }
        let (key, slot) = self.slots.take(vtable).ok_or(libc::ENOBUFS)?;
        slot.set_stamp(self.submit_stamp.get());
        Ok((key, slot))
    }

    /// Queues the submission of the op in `slot`, which `prepare` makes. If that panics the op is dropped.
    // The submission is built where it is to lie: put together on the stack, in small pieces, and copied
    // from there it stalls the processor (no store forwarding).
    #[inline(always)]
    pub(super) fn submit(&self, key: Key, slot: &Slot, prepare: impl FnOnce() -> Sqe) {
        let unprepared = Unprepared { driver: self, key };
        let mut sqe = prepare().with_user_data(key.to_user_data());
        mem::forget(unprepared);
        slot.set_submission(sqe.op_code(), sqe.fd());
        if self.files.has(sqe.fd()) {
            // What holds the descriptor for the op holds its place in the table as well.
            sqe = sqe.on_fixed_file();
        }
        if self.detours.none()
            && let Some(ring) = &mut *self.ring.borrow_mut()
            && ring.has_room()
        {
            self.wrote.set(true);
            // SAFETY: as in `push`.
            return unsafe { ring.write(&sqe) };
        }
        self.submit_otherwise(key, slot, sqe);
    }

    /// Where the queue is full, or there is a reason for a [detour](Detours).
    #[inline(never)]
    fn submit_otherwise(&self, key: Key, slot: &Slot, sqe: Sqe) {
        self.tell_if_watched();
        if self.detours.has(Detours::WAITING) || !self.push(sqe) {
            slot.unsent.set(true);
            self.waiting.borrow_mut().ops.push_back((key, sqe));
            self.detours.set(Detours::WAITING, true);
        }
    }

    /// Writes one submission, flushing the queue early if it is full; `false` if there is still no room.
    pub(super) fn push(&self, sqe: Sqe) -> bool {
        let mut ring = self.ring.borrow_mut();
        let Some(ring) = ring.as_mut() else { return false };
        if !ring.has_room() {
            self.metrics.count(Kind::EarlyFlushes);
            // A ring that is dead says so again at the end of the tick.
            let _ = self.enter(ring, 0, None);
            if !ring.has_room() {
                return false;
            }
        }
        self.wrote.set(true);
        // SAFETY: `sqe` is an op's that lies in its slot until its completion (the contract of `Op`), or
        // the driver's own, whose memory lives as long as the driver.
        unsafe { ring.write(&sqe) };
        true
    }

    /// Moves what waited for room into the queue, as far as it fits: cancels first.
    #[inline]
    pub(crate) fn queue_waiting(&self) {
        if self.detours.has(Detours::WAITING) {
            self.queue_all_waiting();
        }
    }

    #[cold]
    fn queue_all_waiting(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(&target) = waiting.cancels.front() {
            if !self.push_cancel(target) {
                self.sweep(&mut waiting);
                return;
            }
            waiting.cancels.pop_front();
        }
        while let Some(&(key, sqe)) = waiting.ops.front() {
            // One that was cancelled meanwhile ends without the kernel; see `cancel`.
            let slot = self.slots.get(key);
            let cancelled = slot.is_none_or(|slot| slot.cancelled.get());
            if !cancelled && !self.push(sqe) {
                self.sweep(&mut waiting);
                return;
            }
            if let Some(slot) = slot {
                slot.unsent.set(cancelled);
            }
            waiting.ops.pop_front();
        }
        self.detours.set(Detours::WAITING, false);
    }

    /// Takes out of the line what has ended without the kernel, once that is most of it: behind one that
    /// finds no room nothing would be passed over.
    fn sweep(&self, waiting: &mut Waiting) {
        if waiting.ops.len() > 2 * self.slots.live() as usize {
            let waits = |key| self.slots.get(key).is_some_and(|slot| !slot.cancelled.get());
            waiting.ops.retain(|(key, _)| waits(*key));
        }
    }

    pub(super) fn push_cancel(&self, target: u64) -> bool {
        let sqe = Sqe::cancel(target).with_user_data(target | own::CANCEL);
        let pushed = self.push(sqe);
        if pushed {
            self.own_in_flight.set(self.own_in_flight.get() + 1);
        }
        pushed
    }

    /// Arms the read through which other threads wake this core, if it is not.
    pub(crate) fn arm_wake(&self) {
        if self.wake.armed.get() {
            return;
        }
        if let Some(sqe) = self.wake.submission()
            && self.push(sqe.with_user_data(own::WAKE))
        {
            self.wake.armed.set(true);
        }
    }

    #[cold]
    fn count_unusual(&self, entered: Entered) {
        if entered == Entered::Pressed {
            self.metrics.count(Kind::Enters);
            self.metrics.count(Kind::EntersPressed);
        }
    }

    /// Whether shared memory shows that there are completions, or that an enter would bring some.
    pub(crate) fn sees_completions(&self) -> bool {
        self.report.in_force.has_any(Feature::TaskrunFlag, Feature::SqPoll)
    }

    /// Whether an enter would do anything now.
    pub(crate) fn needs_enter(&self) -> bool {
        let ring = self.ring.borrow();
        ring.as_ref().is_some_and(|r| r.unsubmitted() > 0 || r.wants_enter())
    }

    /// Whether the end of a turn would find nothing to submit and nobody to give a buffer to, and the next
    /// turn no completion.
    pub(crate) fn is_quiet(&self) -> bool {
        let ring = self.ring.borrow();
        let nothing = |r: &Ring| r.unsubmitted() == 0 && !r.has_completions() && !r.wants_enter();
        // Without TASKRUN_FLAG only an enter shows whether completions are pending.
        ring.as_ref().is_some_and(nothing)
            && self.sees_completions()
            && !self.detours.has(Detours::WAITING)
            && !self.any_never_sent.get()
            && !self.pool.has_waiters()
    }

    /// Lets receives that wait for a buffer try, as many as would find one. Turns that nobody takes any more
    /// are passed on before the core rests: see [`owes_turns`](Self::owes_turns).
    #[inline]
    pub(crate) fn give_turns(&self) {
        if !self.pool.has_waiters() {
            self.owes_turns.set(false);
            return;
        }
        // Asked with the ring borrowed; a turn may wake a stranger.
        let most = self.ring.borrow().as_ref().map_or(0, |ring| self.pool.to_be_found(ring));
        let given = self.pool.give_turns(most);
        self.owes_turns.set(given);
    }

    /// Whether turns were given: they may be of nobody any more, while others wait for one, or of a
    /// stranger, who leaves no task to run, and whom whoever steps the loop wants to see to.
    #[inline]
    pub(crate) fn owes_turns(&self) -> bool {
        self.owes_turns.get()
    }

    /// Whether completions lie in the queue, or the kernel says that an enter would bring some.
    pub(crate) fn has_news(&self) -> bool {
        let ring = self.ring.borrow();
        let reapable = ring.as_ref().is_some_and(|r| r.has_completions() || r.wants_enter());
        reapable || self.any_never_sent.get()
    }

    /// Whether a park would be woken by everything that it should be: wakes can arrive, and all that was
    /// asked for is in the queue.
    pub(crate) fn may_wait(&self) -> bool {
        self.wake.armed.get() && !self.detours.has(Detours::WAITING)
    }

    /// Whether anything is written or waits to be.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        let ring = self.ring.borrow();
        ring.as_ref().is_some_and(|r| r.unsubmitted() > 0) || self.detours.has(Detours::WAITING)
    }

    /// Whether anything was written since the last enter, or waits to be. Without a look at the kernel's
    /// side of the queue: what an enter left there by itself shows in
    /// [`has_unsubmitted`](Self::has_unsubmitted) alone.
    #[inline]
    pub(crate) fn has_written(&self) -> bool {
        self.wrote.get() || self.detours.has(Detours::WAITING)
    }

    /// The enter of a tick: submits all, and with `min_complete` above 0 parks until then or `until`.
    ///
    /// # Panics
    /// If the ring is dead: somebody else closed its descriptor, or unmapped its memory.
    pub(crate) fn submit_and_wait(&self, min_complete: u32, until: Option<u64>) -> Entered {
        match self.try_submit_and_wait(min_complete, until) {
            Ok(entered) => entered,
            Err(e) => panic!("io_uring_enter failed and this core cannot go on: {e}"),
        }
    }

    /// As [`submit_and_wait`](Self::submit_and_wait), for those who go on without a ring.
    pub(super) fn try_submit_and_wait(
        &self,
        min_complete: u32,
        until: Option<u64>,
    ) -> io::Result<Entered> {
        let mut ring = self.ring.borrow_mut();
        let Some(ring) = ring.as_mut() else { return Ok(Entered::Fine) };
        self.enter(ring, min_complete, until)
    }

    #[inline]
    fn enter(&self, ring: &mut Ring, min_complete: u32, until: Option<u64>) -> io::Result<Entered> {
        let entered = ring.enter(min_complete, until)?;
        // What the kernel turned away is there to be submitted still.
        self.wrote.set(entered == Entered::Pressed);
        self.pool.ways().entered(min_complete > 0);
        if entered != Entered::Fine {
            self.count_unusual(entered);
        } else {
            self.metrics.count(Kind::Enters);
        }
        if ring.overflowed() {
            self.metrics.count(Kind::CqOverflows);
        }
        Ok(entered)
    }
}

/// An op in its slot that has no submission yet: frees both if making one panics.
struct Unprepared<'a> {
    driver: &'a Driver,
    key: Key,
}

impl Drop for Unprepared<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.driver.slots.get(self.key) else { return };
        // SAFETY: the op was put there first of all, was not submitted, and its slot is freed right after.
        contained(|| unsafe { drop_unsent(slot.vtable.get(), slot.payload()) });
        let_go(self.driver.slots.free(self.key));
    }
}
