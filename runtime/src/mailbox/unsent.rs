//! What a core has promised to send.
//!
//! Owns [`Unsent`], one core's list of queues to other cores in which lie values that were put and not sent.
//! They are sent when the poll ends in which they were put. So whoever sends many values in one poll pays
//! for the news of them once in a while, not each time, and what is sent does not wait for more of it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::contain::contained;

/// A queue with something unsent.
pub(crate) trait SendLater {
    /// Sends it.
    fn send_now(&self);
}

#[derive(Default)]
pub(crate) struct Unsent {
    any: Cell<bool>,
    list: RefCell<Vec<Arc<dyn SendLater>>>,
    sent: Cell<u64>,
}

impl Unsent {
    /// Has the queue sent at the next [`send`](Self::send).
    pub(crate) fn add(&self, queue: Arc<dyn SendLater>) {
        self.list.borrow_mut().push(queue);
        self.any.set(true);
    }

    /// How often it has sent: what was added at this count is in the list still.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.sent.get()
    }

    /// Whether there is something to send.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.get()
    }

    /// Sends what was promised.
    #[inline]
    pub(crate) fn send(&self) {
        if self.any.get() {
            self.send_all();
        }
    }

    #[cold]
    fn send_all(&self) {
        self.sent.set(self.sent.get() + 1);
        self.any.set(false);
        // A waker that is called in here may add more; that is for the next time.
        let mut list = self.list.take();
        for queue in list.drain(..) {
            contained(|| {
                queue.send_now();
                drop(queue);
            });
        }
        let mut added = self.list.borrow_mut();
        if added.is_empty() {
            // Its memory is used again.
            *added = list;
        }
    }
}
