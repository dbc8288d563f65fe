//! What a core looks at by itself for its tasks: ends of channels from other cores.
//!
//! Owns [`Watches`], a short list that belongs to one core. A task that waits for another core's message
//! has an entry in it; the core looks at all of them whenever it looks for mail. So a message to a core that
//! runs or spins is a store by its sender and a load here, with no word in between that both write to.
//! Beyond [`WATCHES_MAX`] entries a task waits by its waker instead, which costs its sender more.
//!
//! A look is a load each; it runs nobody's code. An entry keeps alive what it looks at: one that was
//! forgotten costs its place until it is due or the core ends, and wakes a task in vain.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::contain::contained;

/// Tasks of one core that can be watched for at a time.
pub(crate) const WATCHES_MAX: usize = 64;

/// Something that one core watches and others change.
pub(crate) trait Watched: Send + Sync {
    /// Whether what `end` waits for is there, counted by `at`. A look in the order
    /// [`LOOK`](crate::sys::shared::LOOK): it is a core's last one before it sleeps.
    fn is_due(&self, end: End, at: usize) -> bool;
}

/// Which of two ends waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Sender,
    Receiver,
}

#[derive(Default)]
pub(crate) struct Watches {
    any: Cell<bool>,
    list: RefCell<Vec<Watch>>,
    next_id: Cell<u64>,
}

struct Watch {
    id: u64,
    slot: u32,
    what: Arc<dyn Watched>,
    end: End,
    at: usize,
}

impl Watches {
    /// Wakes `slot` once `what` is due; gives the entry's name, or none if the list is full.
    pub(crate) fn add(
        &self,
        slot: u32,
        what: Arc<dyn Watched>,
        end: End,
        at: usize,
    ) -> Option<u64> {
        let mut list = self.list.borrow_mut();
        if list.len() >= WATCHES_MAX {
            drop(list);
            // It may be the last one who holds it.
            contained(|| drop(what));
            return None;
        }
        let id = self.next_id.get() + 1;
        self.next_id.set(id);
        list.push(Watch { id, slot, what, end, at });
        self.any.set(true);
        Some(id)
    }

    /// Whether the entry is still there; one that was due is not.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.list.borrow().iter().any(|watch| watch.id == id)
    }

    /// Takes an entry out, if it is there.
    pub(crate) fn remove(&self, id: u64) {
        let found = {
            let mut list = self.list.borrow_mut();
            let at = list.iter().rposition(|watch| watch.id == id);
            let found = at.map(|at| list.swap_remove(at));
            self.any.set(!list.is_empty());
            found
        };
        // It may be the last one who holds what it watched.
        contained(|| drop(found));
    }

    /// Whether there are entries.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.get()
    }

    /// Whether any entry is due.
    #[inline]
    pub(crate) fn any_due(&self) -> bool {
        self.any() && self.is_one_due()
    }

    #[inline(never)]
    fn is_one_due(&self) -> bool {
        self.list.borrow().iter().any(Watch::is_due)
    }

    /// Takes out what is due, and gives each one's slot to `wake`.
    #[inline]
    pub(crate) fn take_due(&self, wake: impl FnMut(u32)) {
        self.take(Watch::is_due, wake);
    }

    /// Takes out everything.
    pub(crate) fn clear(&self) {
        self.take(|_| true, |_| ());
    }

    fn take(&self, which: impl Fn(&Watch) -> bool, mut wake: impl FnMut(u32)) {
        loop {
            let found = {
                let mut list = self.list.borrow_mut();
                let at = list.iter().position(&which);
                let found = at.map(|at| list.swap_remove(at));
                self.any.set(!list.is_empty());
                found
            };
            let Some(found) = found else { return };
            wake(found.slot);
            contained(|| drop(found));
        }
    }
}

impl Watch {
    fn is_due(&self) -> bool {
        self.what.is_due(self.end, self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sys::shared::LOOK;

    impl Watched for AtomicUsize {
        fn is_due(&self, _: End, at: usize) -> bool {
            self.load(LOOK) >= at
        }
    }

    #[test]
    fn each_entry_is_due_once_and_a_full_list_refuses() {
        let count = Arc::new(AtomicUsize::new(0));
        let watches = Watches::default();
        for slot in 0..WATCHES_MAX {
            assert!(watches.add(slot as u32, count.clone(), End::Receiver, slot + 1).is_some());
        }
        assert_eq!(watches.add(0, count.clone(), End::Receiver, 0), None);
        assert!(!watches.any_due());
        count.store(3, Ordering::Relaxed);
        assert!(watches.any_due());
        let mut woken = Vec::new();
        watches.take_due(|slot| woken.push(slot));
        woken.sort_unstable();
        assert_eq!(woken, [0, 1, 2]);
        assert!(!watches.any_due());
        watches.clear();
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[test]
    fn a_removed_entry_wakes_nobody() {
        let count = Arc::new(AtomicUsize::new(0));
        let watches = Watches::default();
        let id = watches.add(7, count.clone(), End::Sender, 1).unwrap();
        assert!(watches.has(id));
        watches.remove(id);
        watches.remove(id);
        count.store(1, Ordering::Relaxed);
        watches.take_due(|slot| panic!("slot {slot} was woken"));
        assert!(!watches.has(id) && !watches.any_due());
    }
}
