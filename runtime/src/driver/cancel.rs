//! Cancels that cannot be lost.
//!
//! Owns the request for one op's end: by user data, never by descriptor. An op that the kernel has not
//! seen is ended here; for any other a cancel is submitted behind it, or waits at the head of the line if
//! the queue is full. The op's own completion says how it ended; the cancel's answer says little: ENOENT
//! (it has completed, or is about to) and EALREADY (it runs on a worker and will complete) are ordinary.

use super::op_slab::{Key, State};
use super::own;
use super::sqe::Cqe;
use super::{Detours, Driver};
use crate::planted::{self, Fault};

impl Driver {
    /// Asks for the end of an op. Asking twice, or for one that has ended, does nothing.
    pub(crate) fn cancel(&self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.cancelled.get() || slot.state.get() != State::Queued {
            return;
        }
        slot.cancelled.set(true);
        self.tell_if_watched();
        if slot.unsent.get() {
            if planted::is(Fault::LostCancel, 2) {
                return slot.cancelled.set(false); // It is sent when its turn comes.
            }
            // Its entry in the line is passed over when its turn comes.
            self.waiting.borrow_mut().never_sent.push_back(key);
            self.any_never_sent.set(true);
            return;
        }
        self.queue_cancel(key.to_user_data());
    }

    fn queue_cancel(&self, target: u64) {
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.cancels.is_empty() || !self.push_cancel(target) {
            if planted::is(Fault::LostCancel, 1) {
                return; // The op stays in the kernel, and whoever waits for its end waits for ever.
            }
            waiting.cancels.push_back(target);
            self.detours.set(Detours::WAITING, true);
        }
    }

    /// The kernel's answer to a cancel. Only a cancel that did not get through is said again.
    pub(super) fn cancel_answered(&self, target: u64, cqe: Cqe) {
        let answered = matches!(-cqe.raw_result(), i32::MIN..=0 | libc::ENOENT | libc::EALREADY);
        let gone = self.slots.get(Key::from_user_data(target)).is_none();
        if answered || gone || target & own::WAKE != 0 {
            return;
        }
        self.waiting.borrow_mut().cancels.push_back(target);
        self.detours.set(Detours::WAITING, true);
    }

    /// Asks again for the end of everything that is in flight, the wake read included.
    pub(super) fn cancel_all(&self) {
        for key in self.slots.keys() {
            let Some(slot) = self.slots.get(key) else { continue };
            // One that the kernel never saw is asked once: what ends it stands in line already.
            if !slot.unsent.get() || planted::is(Fault::CancelAgain, 1) {
                slot.cancelled.set(false);
            }
            self.cancel(key);
        }
        if self.wake.armed.get() {
            self.queue_cancel(own::WAKE);
        }
    }
}
