//! Asking for the memory of tasks before their turn.
//!
//! Owns the order in which what a task consists of is asked for: its slot, which says where it is, then its
//! header and the begin of its future. A task that has waited for long lies in no cache any more, and who
//! wakes many of those at a time would wait for each, one after the other.

use std::task::Waker;

use super::{Inner, Tasks};
use crate::sys::prefetch::prefetch;
use crate::task::waker::Word;

impl Tasks {
    /// Asks for the slot of the task that a waker names, if it is one of these.
    #[inline]
    pub(crate) fn prefetch_slot(&self, waker: &Waker) {
        if let Some(word) = Word::of_waker(waker)
            && let Some(entry) = self.inner.borrow().table.get(word.slot() as usize)
        {
            prefetch(entry);
        }
    }

    /// As [`call`](Self::call), and asks for the memory of the task.
    #[inline]
    pub(crate) fn call_ahead(&self, waker: Waker) {
        match Word::of_waker(&waker) {
            Some(word) if word.core() == self.lease.id => {
                self.wake(word);
                self.inner.borrow().prefetch(word.slot());
            }
            _ => self.call(waker),
        }
    }
}

impl Inner {
    /// Asks for the memory of the task in `slot`: its header and the begin of its future.
    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        if let Some(task) = self.table.get(slot as usize).and_then(|entry| entry.task) {
            let first = task.as_ptr().cast::<u8>().cast_const();
            prefetch(first);
            prefetch(first.wrapping_add(64));
            prefetch(first.wrapping_add(128));
        }
    }
}
