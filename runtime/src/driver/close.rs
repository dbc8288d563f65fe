//! Closing a ring only when it is quiet.
//!
//! Owns the drain: cancel everything, wait for every completion, unregister, unmap, close. Its steps are
//! apart from each other, so that a simulation can move its clock between them. Past the deadline the
//! memory that the kernel may still touch is leaked on purpose, and counted.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::op_slab::State;
use super::ring::Entered;
use super::{Detours, Driver};
use crate::metrics::wake_contained;
use crate::planted::{self, Fault};

/// How far a drain has come.
pub(crate) struct Drain {
    /// When it is given up, in ns of CLOCK_MONOTONIC.
    deadline: u64,
    /// When what is in flight is cancelled (again).
    next_cancel: u64,
    /// A dead ring brings no more completions.
    dead: bool,
    /// Connections that hold memory until their peer acknowledges it were reset.
    reset: bool,
}

impl Drain {
    /// One that is given up at `deadline` (ns of CLOCK_MONOTONIC).
    pub(crate) fn until(deadline: u64) -> Self {
        Self { deadline, next_cancel: 0, dead: false, reset: false }
    }
}

impl Driver {
    /// Cancels what is in flight, if it is time to; until when its end may be waited for, or none if
    /// nothing is in flight or the drain is over.
    pub(crate) fn drain_on(&self, drain: &mut Drain) -> Option<u64> {
        if drain.dead || self.busy() == 0 {
            return None;
        }
        let now = self.kernel.now_ns();
        if now >= drain.deadline {
            if drain.reset || !self.reset_unacknowledged() {
                return None;
            }
            drain.reset = true;
            drain.deadline = now + RESET_NS;
        }
        if now >= drain.next_cancel {
            self.cancel_all();
            drain.next_cancel = now + CANCEL_AGAIN_NS;
        }
        if planted::is(Fault::DrainWithoutWait, 1) {
            return None; // The cancels are asked for, and nobody waits for their end.
        }
        self.queue_waiting();
        Some(drain.next_cancel.min(drain.deadline))
    }

    /// Resets the connections of sends without copy that nobody has acknowledged: the kernel drops what
    /// it has not got rid of, and lets go of its memory. Whether there were any.
    #[cold]
    fn reset_unacknowledged(&self) -> bool {
        let slots = self.slots.keys().into_iter().filter_map(|key| self.slots.get(key));
        let mut any = false;
        for slot in slots.filter(|slot| slot.state.get() == State::Answered) {
            let Some(fd) = slot.fd() else { continue };
            // SAFETY: the op in this slot holds the socket (the contract of `Op`), so the number is its own.
            let socket = unsafe { BorrowedFd::borrow_raw(fd) };
            any |= self.kernel.reset(socket).is_ok();
        }
        any
    }

    /// Submits, waits for a completion at most until `until`, and reaps.
    pub(crate) fn drain_wait(&self, drain: &mut Drain, until: u64) {
        let Ok(entered) = self.try_submit_and_wait(1, Some(until)) else {
            drain.dead = true;
            return;
        };
        let reaped = self.reap(|waker| wake_contained(waker, &self.metrics));
        if reaped == 0 && entered == Entered::Pressed {
            // Nothing moved and the kernel is short of memory: give it a moment, within the deadline.
            self.kernel.pause(PRESSED_PAUSE);
        }
    }

    /// Closes after a drain; what is in flight still is leaked. Gives how many ops that were.
    pub(crate) fn close_drained(&self) -> u32 {
        let leaked = self.busy();
        self.close_at_once();
        leaked
    }

    /// Ops and the driver's own submissions that the kernel has not answered.
    fn busy(&self) -> u32 {
        self.ops() - self.slots.done() + self.own_in_flight.get() + u32::from(self.wake.armed.get())
    }

    /// Closes the ring now; what is in flight is leaked.
    pub(super) fn close_at_once(&self) {
        if self.is_closed() {
            return;
        }
        // First: what is woken below is told so, and makes no op that nobody would submit.
        self.closed.set(true);
        if self.busy() > 0 {
            self.slots.leak();
            self.pool.leak();
        }
        self.pool.give_all_turns();
        let ring = self.ring.borrow_mut().take();
        if let Some(ring) = &ring {
            self.pool.unregister(ring);
            self.empty_file_table(ring);
        }
        drop(ring);
        let mut waiting = self.waiting.borrow_mut();
        waiting.cancels.clear();
        waiting.ops.clear();
        waiting.never_sent.clear();
        self.detours.set(Detours::WAITING, false);
        self.any_never_sent.set(false);
    }
}

/// How long the kernel has for letting go of what a reset has freed.
const RESET_NS: u64 = 200_000_000;

/// How long an op may ignore a cancel before it is asked again.
const CANCEL_AGAIN_NS: u64 = 50_000_000;

/// Pause after an enter that the kernel turned away.
const PRESSED_PAUSE: Duration = Duration::from_micros(200);
