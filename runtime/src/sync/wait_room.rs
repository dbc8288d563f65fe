//! A wait list that may be used from anywhere on the core.
//!
//! Owns [`WaitRoom`], which puts a [`WaitList`] behind a cell, and [`Wait`], a stay in it. Handing
//! something to waiters and waking them are two steps: the first changes the state in one go, the
//! second calls one waker after the other.
//!
//! Invariants:
//! - the list is not borrowed while a waker is cloned, called or dropped. Such code may use the same
//!   primitive, so whoever clones a waker looks at the state again before it enters;
//! - a panic of a foreign waker's call or destructor is contained: it can't keep the others from being
//!   woken;
//! - a room is not `Send`, and so nothing that has one is.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::wait_list::{Key, Left, WaitList};
use crate::contain::{let_go, wake};
use crate::task::current;
use crate::task::info::Note;

/// Waiters that ask for an `R` each and are handed a `G`.
pub(crate) struct WaitRoom<R, G> {
    list: RefCell<WaitList<R, G>>,
    /// What lists of tasks say of those who wait here.
    note: Note,
    one_core: PhantomData<*const ()>,
}

impl<R: Copy, G> WaitRoom<R, G> {
    pub(crate) const fn new(note: Note) -> Self {
        Self { list: RefCell::new(WaitList::new()), note, one_core: PhantomData }
    }

    /// How many wait and were not handed anything yet.
    pub(crate) fn waiting(&self) -> usize {
        self.list.borrow().waiting()
    }

    /// What the first in the queue asks for.
    pub(super) fn front(&self) -> Option<R> {
        self.list.borrow().front()
    }

    /// Takes the last place in the queue. Between the clone of the waker and this call the caller looks
    /// whether it still has to wait.
    pub(crate) fn enter(&self, waker: Waker, request: R) -> Key {
        current::note(self.note);
        self.list.borrow_mut().push_back(waker, request)
    }

    /// Hands `grant` to the first in the queue, without waking it yet; gives it back if nobody waits.
    pub(super) fn hand(&self, grant: G) -> Result<(), G> {
        self.list.borrow_mut().hand_front(grant)
    }

    /// Hands something to everyone who waits, without waking them yet.
    pub(crate) fn hand_all(&self, mut grant: impl FnMut() -> G) {
        let mut list = self.list.borrow_mut();
        while list.waiting() > 0 && list.hand_front(grant()).is_ok() {}
    }

    /// Wakes all who were handed something, in the order in which they were.
    pub(crate) fn wake(&self) {
        loop {
            let next = self.list.borrow_mut().next_to_wake();
            match next {
                Some(waker) => wake(waker),
                None => return,
            }
        }
    }

    /// Hands something to everyone who waits, and wakes them.
    pub(super) fn release_all(&self, grant: G)
    where
        G: Copy,
    {
        self.hand_all(|| grant);
        self.wake();
    }

    /// What the waiter was handed, which ends it; else it waits on, with the waker of this poll.
    pub(crate) fn poll(&self, key: Key, cx: &mut Context<'_>) -> Poll<G> {
        if let Some(grant) = self.collect(key) {
            return Poll::Ready(grant);
        }
        if !self.list.borrow().is_woken_by(key, cx.waker()) {
            let new = cx.waker().clone();
            let old = self.list.borrow_mut().replace_waker(key, new);
            let_go(old);
            // The clone and the drop were foreign code, which may have handed us something.
            if let Some(grant) = self.collect(key) {
                return Poll::Ready(grant);
            }
        }
        current::note(self.note);
        Poll::Pending
    }

    fn collect(&self, key: Key) -> Option<G> {
        let collected = self.list.borrow_mut().collect(key);
        let (grant, waker) = collected?;
        if let Some(waker) = waker {
            let_go(waker);
        }
        Some(grant)
    }

    /// Ends a waiter; gives what it had been handed.
    pub(crate) fn leave(&self, key: Key) -> Option<G> {
        let left = self.list.borrow_mut().remove(key);
        match left {
            Left::Waiting(waker) => {
                let_go(waker);
                None
            }
            Left::Handed(grant, waker) => {
                if let Some(waker) = waker {
                    let_go(waker);
                }
                Some(grant)
            }
        }
    }
}

impl<G> WaitRoom<(), G> {
    /// Waits until `ready` gives something, or until something is handed over. `ready` is asked when
    /// the stay begins, not again later.
    pub(super) fn wait<F: FnMut() -> Option<G> + Unpin>(&self, ready: F) -> Wait<'_, G, F> {
        Wait { room: self, key: None, ready }
    }
}

impl<R: Copy, G> fmt::Debug for WaitRoom<R, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitRoom").field("waiting", &self.waiting()).finish()
    }
}

/// The future of [`WaitRoom::wait`]. Dropped, it lets go of what it was handed.
pub(super) struct Wait<'a, G, F> {
    room: &'a WaitRoom<(), G>,
    key: Option<Key>,
    ready: F,
}

impl<G, F: FnMut() -> Option<G> + Unpin> Future for Wait<'_, G, F> {
    type Output = G;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<G> {
        let this = self.get_mut();
        if let Some(key) = this.key {
            let handed = this.room.poll(key, cx);
            if handed.is_ready() {
                this.key = None;
            }
            return handed;
        }
        if let Some(grant) = (this.ready)() {
            return Poll::Ready(grant);
        }
        let waker = cx.waker().clone();
        // The clone was foreign code.
        if let Some(grant) = (this.ready)() {
            let_go(waker);
            return Poll::Ready(grant);
        }
        this.key = Some(this.room.enter(waker, ()));
        Poll::Pending
    }
}

impl<G, F> Drop for Wait<'_, G, F> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.room.leave(key);
        }
    }
}
