//! All of several, errors in their places.
//!
//! Owns [`Gather`]. It waits for its tasks in their order, one at a time: all must end, so nothing is missed,
//! each is looked at once, and those that end meanwhile wake nobody.

use std::fmt;
use std::future::IntoFuture;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::slot::{Awaited, ResultSlot, Slot};
use crate::spawn::spawn_at;
use crate::task::{JoinError, JoinHandle};

/// Runs many futures at once, each as a task of its own, and gives all results in the order in which the
/// futures were passed.
///
/// The tasks are made by this call, not by the first poll, and first run at the next turn. An empty gather
/// is ready at once. The set takes one allocation, if the iterator knows how many there are; what a task gave
/// stays where the task was until all have ended. Futures of different types go to
/// [`gather_tuple`](super::gather_tuple()).
///
/// # Errors
/// Each in its place: a task that panicked or was cancelled is a [`JoinError`], the others are not touched.
///
/// # Panics
/// Outside a running loop, as [`spawn`](crate::spawn()) does. The future panics if it is polled after it
/// was ready.
///
/// # Cancel safety
/// A cancel travels inwards through awaits: if whoever awaits this is cancelled, all tasks that still run
/// are. A drop lets go: dropped otherwise, they run on.
///
/// ```
/// use coreloop::combine::gather;
///
/// coreloop::run(async {
///     let squares = gather((1..4).map(|n| async move { n * n })).await;
///     let squares: Vec<i32> = squares.into_iter().map(Result::unwrap).collect();
///     assert_eq!(squares, [1, 4, 9]);
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn gather<I>(futures: I) -> Gather<<I::Item as IntoFuture>::Output>
where
    I: IntoIterator<Item: IntoFuture<IntoFuture: 'static>>,
{
    let at = Location::caller();
    gather_handles(futures.into_iter().map(|f| spawn_at(f.into_future(), at)))
}

/// As [`gather`], of tasks that were spawned already.
///
/// # Panics
/// The future panics if the result of one was taken already.
///
/// # Cancel safety
/// As for [`gather`]: a cancel of whoever awaits this cancels the tasks that still run, a drop lets them run
/// on. What had been given by those that have ended is dropped, and a panic among it reported.
///
/// ```
/// use coreloop::combine::gather_handles;
///
/// coreloop::run(async {
///     let named = coreloop::spawn_named("left", async { 1 });
///     let results = gather_handles([named, coreloop::spawn(async { 2 })]).await;
///     assert_eq!(results.len(), 2);
/// })
/// .unwrap();
/// ```
pub fn gather_handles<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Gather<T> {
    Gather {
        slots: handles.into_iter().map(Slot::Waiting).collect(),
        at: 0,
        ended: false,
        awaited: Awaited::default(),
    }
}

/// The future of [`gather`].
#[must_use = "dropping it lets the tasks run on; await it to have their results"]
pub struct Gather<T> {
    slots: Vec<ResultSlot<T>>,
    /// The first that may still run.
    at: usize,
    ended: bool,
    awaited: Awaited,
}

// Handles hold no `T` in place, and results are only moved.
impl<T> Unpin for Gather<T> {}

impl<T> Gather<T> {
    /// Cancels all tasks that still run; the gather then gives their errors.
    pub fn cancel(&self) {
        self.slots.iter().for_each(Slot::cancel);
    }
}

impl<T> Future for Gather<T> {
    type Output = Vec<Result<T, JoinError>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        assert!(!this.ended, "a Gather was polled after it was ready");
        this.awaited.now();
        while let Some(slot) = this.slots.get_mut(this.at) {
            if !slot.poll_done(cx) {
                return Poll::Pending;
            }
            this.at += 1;
        }
        this.ended = true;
        let slots = std::mem::take(&mut this.slots);
        Poll::Ready(slots.into_iter().map(Slot::into_result).collect())
    }
}

impl<T> Drop for Gather<T> {
    fn drop(&mut self) {
        if self.awaited.is_cancelled() {
            self.cancel();
        }
    }
}

impl<T> fmt::Debug for Gather<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = self.slots.len();
        f.debug_struct("Gather").field("tasks", &tasks).field("done", &self.at).finish()
    }
}
