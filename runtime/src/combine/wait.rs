//! A look at which of several tasks have ended.
//!
//! Owns [`wait()`]. It watches handles that stay the caller's: it takes no result, fails for nothing and
//! cancels nothing, also when it is dropped by a cancel.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::limit::Limit;
use super::watched::Watched;
use crate::task::JoinHandle;
use crate::task::current;
use crate::task::info::Note;
use crate::time::Instant;

/// What [`wait`] waits for. With nothing to wait for each of them holds at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All have ended, however.
    AllCompleted,
    /// One has.
    FirstCompleted,
    /// One has failed, or all have ended. A cancel is no failure.
    FirstError,
}

/// The handles by what became of them, each by its index in the slice, in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Those that have ended.
    pub done: Vec<usize>,
    /// Those that run on: wait for them again, or cancel them.
    pub pending: Vec<usize>,
}

/// Waits until `until` holds, at the longest for `limit`, and says which tasks have ended.
///
/// A task fails if it panics; where tasks return a `Result`, [`try_wait`] counts an `Err` too. A task whose
/// result was taken already is done.
///
/// # Panics
/// The future panics if it has to wait for a limit outside a loop.
///
/// # Cancel safety
/// A cancel travels inwards through awaits, and this awaits nothing on behalf of its caller: it looks.
/// Neither its drop nor a cancel of its awaiter reaches the tasks.
///
/// ```
/// use coreloop::combine::{When, wait};
/// use coreloop::time::sleep;
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let mut tasks = [3600, 0].map(|s| coreloop::spawn(sleep(Duration::from_secs(s))));
///     let waited = wait(&mut tasks, When::FirstCompleted, None).await;
///     assert_eq!((waited.done, waited.pending), (vec![1], vec![0]));
/// })
/// .unwrap();
/// ```
pub async fn wait<T>(
    handles: &mut [JoinHandle<T>],
    until: When,
    limit: Option<Duration>,
) -> Waited {
    Wait::new(handles, until, limit, JoinHandle::has_panicked).await
}

/// As [`wait`], of tasks that return a `Result`: under [`When::FirstError`] an `Err` is a failure too.
///
/// # Cancel safety
/// As [`wait`].
///
/// ```
/// use coreloop::combine::{When, try_wait};
///
/// coreloop::run(async {
///     let mut tasks = ["1", "x"].map(|s| coreloop::spawn(async move { s.parse::<u8>() }));
///     let waited = try_wait(&mut tasks, When::FirstError, None).await;
///     assert!(waited.done.contains(&1));
/// })
/// .unwrap();
/// ```
pub async fn try_wait<T, E>(
    handles: &mut [JoinHandle<Result<T, E>>],
    until: When,
    limit: Option<Duration>,
) -> Waited {
    let failed =
        |h: &JoinHandle<_>| h.has_panicked() || matches!(h.result_unseen(), Some(Ok(Err(_))));
    Wait::new(handles, until, limit, failed).await
}

struct Wait<'a, T, F> {
    watched: Watched,
    handles: &'a mut [JoinHandle<T>],
    until: When,
    limit: Option<Limit>,
    failed: F,
    /// How many were seen to have ended, and whether one of them had failed.
    ended: usize,
    one_failed: bool,
}

impl<'a, T, F: Fn(&JoinHandle<T>) -> bool> Wait<'a, T, F> {
    fn new(
        handles: &'a mut [JoinHandle<T>],
        until: When,
        limit: Option<Duration>,
        failed: F,
    ) -> Self {
        let limit = limit.map(|d| Limit::new(Instant::now() + d));
        let watched = Watched::default();
        Self { watched, handles, until, limit, failed, ended: 0, one_failed: false }
    }

    fn note_end(&mut self, index: usize) {
        self.ended += 1;
        self.one_failed |= (self.failed)(&self.handles[index]);
    }

    /// Counts those that have ended, and watches the others.
    fn look(&mut self, cx: &mut Context<'_>) {
        (self.ended, self.one_failed) = (0, false);
        for index in 0..self.handles.len() {
            if self.handles[index].is_finished() {
                self.note_end(index);
            } else {
                self.watched.watch(&self.handles[index], index, cx.waker());
            }
        }
    }
}

impl<T, F> Unpin for Wait<'_, T, F> {}

impl<T, F: Fn(&JoinHandle<T>) -> bool> Future for Wait<'_, T, F> {
    type Output = Waited;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Waited> {
        let this = self.get_mut();
        if this.watched.begin(this.handles.iter()) {
            this.look(cx);
        }
        this.watched.arm(cx.waker());
        while let Some(index) = this.watched.pop() {
            this.note_end(index);
        }
        let holds = match this.until {
            When::AllCompleted => false,
            When::FirstCompleted => this.ended > 0,
            When::FirstError => this.one_failed,
        };
        let over = |limit: &mut Limit| limit.poll_over(cx);
        if !holds && this.ended < this.handles.len() && !this.limit.as_mut().is_some_and(over) {
            current::note(Note::Tasks);
            return Poll::Pending;
        }
        let mut waited = Waited {
            done: Vec::with_capacity(this.ended),
            pending: Vec::with_capacity(this.handles.len() - this.ended),
        };
        for (index, handle) in this.handles.iter().enumerate() {
            // Not what was counted: a task may have ended since, while the limit took a stranger's waker.
            let ended = handle.is_finished();
            if ended { &mut waited.done } else { &mut waited.pending }.push(index);
        }
        Poll::Ready(waited)
    }
}

impl<T, F> Drop for Wait<'_, T, F> {
    fn drop(&mut self) {
        // The handles are the caller's: nothing of this stays with them.
        self.handles.iter().for_each(|handle| self.watched.unwatch(handle));
    }
}
