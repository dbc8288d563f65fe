//! All of several, or the first error.
//!
//! Owns [`TryGather`]. It listens to all its tasks, which say themselves that they have ended; at the first
//! error it lets go of the others.

use std::error::Error;
use std::fmt;
use std::future::IntoFuture;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::slot::{Awaited, Slot};
use super::watched::Watched;
use crate::spawn::spawn_at;
use crate::task::current;
use crate::task::info::Note;
use crate::task::{JoinError, JoinHandle};

/// Runs many fallible futures at once, each as a task of its own, and gives all values in order, or the
/// first error at once.
///
/// After an error the other tasks are *not* cancelled: they run on, and nobody takes their results. Where
/// they should end with the first that fails, use a [`group`](super::group()). Apart from that as
/// [`gather`](super::gather()): made by the call, empty is ready at once, one allocation for the set.
///
/// # Errors
/// [`TryGatherError`] as soon as one task returns an error, panics, or is cancelled; it says which one. Of
/// several that ended in the same turn it is the first in the order of the inputs.
///
/// # Panics
/// Outside a running loop. The future panics if it is polled after it was ready.
///
/// # Cancel safety
/// A cancel travels inwards through awaits: if whoever awaits this is cancelled, all tasks that still run
/// are. A drop lets go: dropped otherwise, they run on.
///
/// ```
/// use coreloop::combine::try_gather;
///
/// coreloop::run(async {
///     let all = try_gather(["1", "2"].map(|s| async move { s.parse::<u8>() })).await;
///     assert_eq!(all.unwrap(), [1, 2]);
///     let failed = try_gather(["1", "x"].map(|s| async move { s.parse::<u8>() })).await;
///     assert_eq!(failed.unwrap_err().index(), 1);
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn try_gather<I, T, E>(futures: I) -> TryGather<T, E>
where
    I: IntoIterator<Item: IntoFuture<Output = Result<T, E>, IntoFuture: 'static>>,
{
    let at = Location::caller();
    try_gather_handles(futures.into_iter().map(|f| spawn_at(f.into_future(), at)))
}

/// As [`try_gather`], of tasks that were spawned already.
///
/// # Panics
/// The future panics if the result of one was taken already.
///
/// # Cancel safety
/// As for [`try_gather`]: a cancel of whoever awaits this cancels the tasks that still run, a drop lets them
/// run on. What had been given by those that have ended is dropped.
pub fn try_gather_handles<T, E>(
    handles: impl IntoIterator<Item = JoinHandle<Result<T, E>>>,
) -> TryGather<T, E> {
    let slots: Vec<_> = handles.into_iter().map(Slot::Waiting).collect();
    let (watched, awaited) = (Watched::default(), Awaited::default());
    TryGather { watched, left: slots.len(), slots, ended: false, awaited }
}

/// The future of [`try_gather`].
#[must_use = "dropping it lets the tasks run on; await it to have their results"]
pub struct TryGather<T, E> {
    watched: Watched,
    slots: Vec<Slot<Result<T, E>, T>>,
    /// How many have not given their value.
    left: usize,
    ended: bool,
    awaited: Awaited,
}

// Handles hold no `T` in place, and values are only moved.
impl<T, E> Unpin for TryGather<T, E> {}

impl<T, E> TryGather<T, E> {
    /// Cancels all tasks that still run.
    pub fn cancel(&self) {
        self.slots.iter().for_each(Slot::cancel);
    }

    /// Nothing is waited for any more.
    fn end(&mut self) -> Vec<Slot<Result<T, E>, T>> {
        self.ended = true;
        self.watched = Watched::default();
        std::mem::take(&mut self.slots)
    }

    /// Takes the value of a task that has ended. At an error the set is over: the others are let go of here,
    /// not cancelled.
    fn take_ended(&mut self, index: usize) -> Result<(), TryGatherError<E>> {
        match self.slots[index].take_value() {
            Ok(()) => {
                self.left -= 1;
                Ok(())
            }
            Err(failure) => {
                drop(self.end());
                Err(TryGatherError::new(index, failure))
            }
        }
    }
}

impl<T, E> Future for TryGather<T, E> {
    type Output = Result<Vec<T>, TryGatherError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        assert!(!this.ended, "a TryGather was polled after it was ready");
        this.awaited.now();
        if this.watched.begin(this.slots.iter().filter_map(Slot::handle)) {
            for index in 0..this.slots.len() {
                match &this.slots[index] {
                    Slot::Waiting(handle) if !handle.is_finished() => {
                        this.watched.watch(handle, index, cx.waker());
                    }
                    Slot::Waiting(_) => this.take_ended(index)?,
                    Slot::Done(_) => {}
                }
            }
        }
        if this.left > 0 {
            this.watched.arm(cx.waker());
            // Of those that fail in the same turn the first in the order of the inputs counts.
            let mut failed: Option<usize> = None;
            while let Some(index) = this.watched.pop() {
                match this.slots[index].has_failed() {
                    true => failed = Some(failed.map_or(index, |first| first.min(index))),
                    false => this.take_ended(index)?,
                }
            }
            if let Some(index) = failed {
                this.take_ended(index)?;
            }
        }
        if this.left > 0 {
            current::note(Note::Tasks);
            return Poll::Pending;
        }
        let slots = this.end();
        Poll::Ready(Ok(slots.into_iter().map(Slot::into_value).collect()))
    }
}

impl<T, E> Drop for TryGather<T, E> {
    fn drop(&mut self) {
        if self.awaited.is_cancelled() {
            self.cancel();
        }
    }
}

impl<T, E> fmt::Debug for TryGather<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryGather").field("tasks", &self.slots.len()).finish_non_exhaustive()
    }
}

/// The first error of a failing gather.
#[derive(Debug)]
pub struct TryGatherError<E> {
    index: usize,
    reason: TaskFailure<E>,
}

/// How a task of a failing gather, or a child of a group, ended without a value.
#[derive(Debug)]
pub enum TaskFailure<E> {
    /// It returned this error.
    Error(E),
    /// It panicked or was cancelled.
    Join(JoinError),
}

impl<E> TryGatherError<E> {
    pub(super) fn new(index: usize, reason: TaskFailure<E>) -> Self {
        Self { index, reason }
    }

    /// Which of the inputs it was, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How it ended.
    pub fn reason(&self) -> &TaskFailure<E> {
        &self.reason
    }

    /// How it ended, by value.
    pub fn into_reason(self) -> TaskFailure<E> {
        self.reason
    }
}

impl<E: fmt::Display> fmt::Display for TryGatherError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input {}: {}", self.index, self.reason)
    }
}

impl<E: fmt::Display> fmt::Display for TaskFailure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(e) => e.fmt(f),
            Self::Join(e) => e.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for TryGatherError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.reason.as_error())
    }
}

impl<E: Error + 'static> TaskFailure<E> {
    pub(super) fn as_error(&self) -> &(dyn Error + 'static) {
        match self {
            Self::Error(e) => e,
            Self::Join(e) => e,
        }
    }
}
