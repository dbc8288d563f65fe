//! How a set learns which of its tasks have ended.
//!
//! Owns [`Watched`]. Tasks of one loop are told their places once, and then say themselves that they have
//! ended ([`Set`]): each is looked at once, whatever the number of wakes. Where tasks of several loops come
//! together there is no such list, and all are looked at on each wake.

use std::task::Waker;

use crate::task::{JoinHandle, Set};

/// What a set watches its tasks with.
#[derive(Default)]
pub(super) enum Watched {
    /// The first look is still to come.
    #[default]
    NotYet,
    /// Nothing runs any more, or all that does has its place.
    Places(Option<Set>),
    /// Tasks of several loops.
    Looks,
}

impl Watched {
    /// Whether all tasks are to be looked at now, each with [`watch`](Self::watch) if it still runs. Given
    /// are those that are waited for.
    pub(super) fn begin<'a, T: 'a>(
        &mut self,
        mut handles: impl Iterator<Item = &'a JoinHandle<T>>,
    ) -> bool {
        if let Self::NotYet = self {
            *self = match handles.next() {
                None => Self::Places(None),
                Some(first) if handles.all(|h| h.is_on_loop_of(first)) => {
                    Self::Places(Some(Set::on_loop_of(first)))
                }
                Some(_) => Self::Looks,
            };
            return true;
        }
        matches!(self, Self::Looks)
    }

    /// Watches a task that still runs, and has the place `number` in the set.
    pub(super) fn watch<T>(&self, handle: &JoinHandle<T>, number: usize, waker: &Waker) {
        match self {
            Self::Places(Some(set)) => set.watch(handle, number),
            Self::Places(None) | Self::NotYet | Self::Looks => handle.watch(waker),
        }
    }

    /// Watches it no more.
    pub(super) fn unwatch<T>(&self, handle: &JoinHandle<T>) {
        if let Self::Places(Some(set)) = self {
            set.unwatch(handle);
        }
    }

    /// Has `waker` called at the next end; one that came meanwhile is there to be popped.
    pub(super) fn arm(&self, waker: &Waker) {
        if let Self::Places(Some(set)) = self {
            set.arm(waker);
        }
    }

    /// The next that has ended since it was watched, in the order in which they did.
    pub(super) fn pop(&self) -> Option<usize> {
        match self {
            Self::Places(Some(set)) => set.pop(),
            Self::Places(None) | Self::NotYet | Self::Looks => None,
        }
    }
}
