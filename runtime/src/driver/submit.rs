//! Getting submissions to the kernel.
//!
//! Owns the way from an op to the submission queue: a full queue is flushed early, and what still finds no
//! room waits in order, cancels first. Nothing is refused for lack of room and nothing overtakes.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::rc::Rc;

use super::op::drop_unsent;
use super::op_slab::{Key, State, VTable};
use super::ring::{Entered, Ring};
use super::sqe::Sqe;
use super::{Driver, own};
use crate::contain::contained;
use crate::metrics::Kind;

impl Driver {
    /// Puts an op into a slot and queues its submission.
    pub(super) fn start<O>(
        self: &Rc<Self>,
        op: O,
        vtable: &'static VTable,
        put: impl FnOnce(NonNull<u8>, O),
    ) -> Result<Key, (O, i32)> {
        if self.is_closed() {
            return Err((op, libc::ECANCELED));
        }
        let mut slots = self.slots.borrow_mut();
        let Some((key, slot)) = slots.take() else {
            return Err((op, libc::ENOBUFS));
        };
        slot.state = State::Queued;
        slot.vtable = Some(vtable);
        slot.set_stamp(self.stamp.get());
        let place = slot.payload();
        put(place, op);
        drop(slots);
        let prepare = AssertUnwindSafe(|| {
            // SAFETY: `place` holds the op of this table, in its final place.
            unsafe { (vtable.prepare)(place) }
        });
        let sqe = match catch_unwind(prepare) {
            Ok(sqe) => sqe,
            Err(payload) => {
                // SAFETY: the op was not submitted, and its slot is freed right after.
                contained(|| unsafe { drop_unsent(vtable, place) });
                drop(self.slots.borrow_mut().free(key));
                resume_unwind(payload);
            }
        };
        let sqe = sqe.with_user_data(key.to_user_data());
        if let Some(slot) = self.slots.borrow_mut().get(key) {
            slot.opcode = sqe.op_code();
        }
        self.queue(key, sqe);
        Ok(key)
    }

    fn queue(&self, key: Key, sqe: Sqe) {
        self.tell_if_watched();
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() && self.push(sqe) {
            return;
        }
        if let Some(slot) = self.slots.borrow_mut().get(key) {
            slot.unsent = true;
        }
        waiting.ops.push_back((key, sqe));
    }

    /// Writes one submission, flushing the queue early if it is full.
    pub(super) fn push(&self, sqe: Sqe) -> bool {
        let mut ring = self.ring.borrow_mut();
        let Some(ring) = ring.as_mut() else { return false };
        // SAFETY: `sqe` is an op's that lies in its slot until its completion (the contract of `Op`), or
        // the driver's own, whose memory lives as long as the driver.
        if unsafe { ring.push(sqe) } {
            return true;
        }
        self.metrics.count(Kind::EarlyFlushes);
        // A ring that is dead says so again at the end of the tick.
        let _ = self.enter(ring, 0, None);
        // SAFETY: as above.
        unsafe { ring.push(sqe) }
    }

    /// Moves what waited for room into the queue, as far as it fits: cancels first.
    pub(crate) fn queue_waiting(&self) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        loop {
            let mut waiting = self.waiting.borrow_mut();
            if let Some(&target) = waiting.cancels.front() {
                if !self.push_cancel(target) {
                    return;
                }
                waiting.cancels.pop_front();
                continue;
            }
            let Some(&(key, sqe)) = waiting.ops.front() else { return };
            // One that was cancelled meanwhile ends without the kernel; see `cancel`.
            let cancelled = self.slots.borrow_mut().get(key).is_none_or(|slot| slot.cancelled);
            if !cancelled && !self.push(sqe) {
                return;
            }
            if let Some(slot) = self.slots.borrow_mut().get(key) {
                slot.unsent = cancelled;
            }
            waiting.ops.pop_front();
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

    /// Whether an enter would do anything now.
    pub(crate) fn needs_enter(&self) -> bool {
        let ring = self.ring.borrow();
        ring.as_ref().is_some_and(|r| r.unsubmitted() > 0 || r.wants_enter())
    }

    /// Whether completions lie in the queue, or the kernel says that an enter would bring some.
    pub(crate) fn has_news(&self) -> bool {
        let ring = self.ring.borrow();
        let reapable = ring.as_ref().is_some_and(|r| r.has_completions() || r.wants_enter());
        reapable || !self.waiting.borrow().never_sent.is_empty()
    }

    /// Whether a park would be woken by everything that it should be: wakes can arrive, and all that was
    /// asked for is in the queue.
    pub(crate) fn may_wait(&self) -> bool {
        self.wake.armed.get() && self.waiting.borrow().is_empty()
    }

    /// Whether anything is written or waits to be.
    pub(crate) fn has_unsubmitted(&self) -> bool {
        let ring = self.ring.borrow();
        ring.as_ref().is_some_and(|r| r.unsubmitted() > 0) || !self.waiting.borrow().is_empty()
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

    fn enter(&self, ring: &mut Ring, min_complete: u32, until: Option<u64>) -> io::Result<Entered> {
        self.metrics.count(Kind::Enters);
        let entered = ring.enter(min_complete, until)?;
        if entered == Entered::Pressed {
            self.metrics.count(Kind::EntersPressed);
        }
        if ring.overflowed() {
            self.metrics.count(Kind::CqOverflows);
        }
        Ok(entered)
    }
}
