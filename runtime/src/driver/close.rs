//! Closing a ring only when it is quiet.
//!
//! Owns the drain: cancel everything, wait for every completion, unregister, unmap, close. Past the
//! deadline the memory that the kernel may still touch is leaked on purpose, and counted.

use std::time::Duration;

use super::Driver;
use super::ring::Entered;

impl Driver {
    /// Waits until nothing is in flight, at most until `deadline` (ns of CLOCK_MONOTONIC), then closes.
    /// Gives how many ops had to be leaked.
    pub(crate) fn drain_and_close(&self, deadline: u64) -> u32 {
        if self.is_closed() {
            return 0;
        }
        let mut next_cancel = 0;
        while self.busy() > 0 {
            let now = self.kernel.now_ns();
            if now >= deadline {
                break;
            }
            if now >= next_cancel {
                self.cancel_all();
                next_cancel = now + CANCEL_AGAIN_NS;
            }
            self.queue_waiting();
            let until = next_cancel.min(deadline);
            // A dead ring brings no more completions: what it had is leaked.
            let Ok(entered) = self.try_submit_and_wait(1, Some(until)) else { break };
            if self.reap() == 0 && entered == Entered::Pressed {
                // Nothing moved and the kernel is short of memory: give it a moment, within the deadline.
                self.kernel.pause(PRESSED_PAUSE);
            }
        }
        let leaked = self.busy();
        self.close_at_once();
        leaked
    }

    /// Ops and the driver's own submissions that the kernel has not answered.
    fn busy(&self) -> u32 {
        let done = self.slots.borrow().done();
        self.ops() - done + self.own_in_flight.get() + u32::from(self.wake.armed.get())
    }

    /// Closes the ring now; what is in flight is leaked.
    pub(super) fn close_at_once(&self) {
        if self.is_closed() {
            return;
        }
        if self.busy() > 0 {
            self.slots.borrow_mut().leak();
            self.pool.leak();
        }
        self.pool.give_all_turns();
        let ring = self.ring.borrow_mut().take();
        if let Some(ring) = &ring {
            self.pool.unregister(ring);
        }
        drop(ring);
        let mut waiting = self.waiting.borrow_mut();
        waiting.cancels.clear();
        waiting.ops.clear();
        waiting.never_sent.clear();
    }
}

/// How long an op may ignore a cancel before it is asked again.
const CANCEL_AGAIN_NS: u64 = 50_000_000;

/// Pause after an enter that the kernel turned away.
const PRESSED_PAUSE: Duration = Duration::from_micros(200);
