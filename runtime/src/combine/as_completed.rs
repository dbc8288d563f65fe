//! One after the other, as they end.
//!
//! Owns [`AsCompleted`]. Tasks are numbered when they end, so those that ended before anybody asked are still
//! given in the order in which they did; later ones come one by one, at a constant cost each. What has ended
//! is always given before anything is said to be late.

use std::error::Error;
use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use super::limit::Limit;
use super::slot::Awaited;
use super::watched::Watched;
use crate::task::current;
use crate::task::info::Note;
use crate::task::{JoinError, JoinHandle};
use crate::time::Instant;

/// Gives the results of tasks in the order in which they end.
///
/// Memory: one allocation for the set. Each task is looked at once, when the first result is asked for, and
/// says itself that it has ended; only tasks of several loops in one set are all looked at each time.
///
/// ```
/// use coreloop::combine::as_completed;
/// use coreloop::time::sleep;
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let tasks = [9, 1].map(|ms| coreloop::spawn(sleep(Duration::from_millis(ms))));
///     let mut ended = as_completed(tasks);
///     let mut order = Vec::new();
///     while let Some((input, result)) = ended.next().await {
///         result.unwrap();
///         order.push(input);
///     }
///     assert_eq!(order, [1, 0]);
/// })
/// .unwrap();
/// ```
pub fn as_completed<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> AsCompleted<T> {
    let handles: Vec<_> = handles.into_iter().map(Some).collect();
    AsCompleted {
        watched: Watched::default(),
        left: handles.len(),
        first: 0,
        handles,
        ended: Vec::new(),
        limit: None,
        over: false,
        awaited: Awaited::default(),
    }
}

/// Tasks whose results come as they end; see [`as_completed`].
///
/// # Cancel safety
/// A cancel travels inwards through awaits: if whoever awaits [`next`](Self::next) is cancelled and owns
/// this, the tasks that still run are cancelled. A drop lets go: dropped otherwise, they run on.
#[must_use = "dropping it lets the tasks run on; ask for what has ended with `next`"]
pub struct AsCompleted<T> {
    watched: Watched,
    /// None once its result was given.
    handles: Vec<Option<JoinHandle<T>>>,
    left: usize,
    /// Before it all results were given.
    first: usize,
    /// Those that had ended at a look at all: (number of its end, index), the earliest last.
    ended: Vec<(u64, usize)>,
    limit: Option<Limit>,
    over: bool,
    awaited: Awaited,
}

impl<T> AsCompleted<T> {
    /// Sets a limit for the whole, from now. Over it each task that has not ended gives
    /// [`WaitError::Elapsed`] in its turn, in the order of the inputs, and runs on uncancelled. A result
    /// that is there when it is asked for is given also after the limit.
    pub fn within(self, d: Duration) -> Self {
        self.until(Instant::now() + d)
    }

    /// Sets the point in time at which the limit is over; see [`within`](Self::within).
    pub fn until(mut self, deadline: Instant) -> Self {
        self.limit = Some(Limit::new(deadline));
        self
    }

    /// The next result, with the index of the input that it belongs to; none when all were given.
    ///
    /// # Errors
    /// Within: [`WaitError::Elapsed`] over the limit, [`WaitError::Join`] of a task that panicked or was
    /// cancelled. The others are not touched.
    ///
    /// # Panics
    /// If the result of a task was taken before it came here.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<(usize, Result<T, WaitError>)> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// How many results are still to be given.
    pub fn remaining(&self) -> usize {
        self.left
    }

    /// Cancels all tasks that still run; they then give their errors.
    pub fn cancel(&self) {
        for handle in self.handles.iter().flatten() {
            handle.cancel();
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Result<T, WaitError>)>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.ended.is_empty() && self.watched.begin(self.handles.iter().flatten()) {
            self.look(cx);
        }
        if let Some(ended) = self.pop() {
            return Poll::Ready(Some(ended));
        }
        self.watched.arm(cx.waker());
        self.over |= self.limit.as_mut().is_some_and(|limit| limit.poll_over(cx));
        // Both have run a stranger's code if the waker is one's: something may have ended in it.
        if let Some(ended) = self.pop() {
            return Poll::Ready(Some(ended));
        }
        if !self.over {
            self.awaited.now();
            current::note(Note::Tasks);
            return Poll::Pending;
        }
        let late = self.handles[self.first..].iter().position(Option::is_some);
        let index = self.first + late.expect("results are left");
        self.first = index + 1;
        // It was watched, not polled: this lets go of it.
        drop(self.give(index));
        Poll::Ready(Some((index, Err(WaitError::Elapsed))))
    }

    /// Sorts out which have ended, and watches the others.
    fn look(&mut self, cx: &mut Context<'_>) {
        for (index, handle) in self.handles.iter().enumerate() {
            match handle {
                Some(handle) if handle.is_finished() => {
                    self.ended.push((handle.ended_at(), index));
                }
                Some(handle) => self.watched.watch(handle, index, cx.waker()),
                None => {}
            }
        }
        self.ended.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// The next that has ended, with its result.
    fn pop(&mut self) -> Option<(usize, Result<T, WaitError>)> {
        let seen = self.ended.pop().map(|(_, index)| index);
        let index = seen.or_else(|| self.watched.pop())?;
        let result = self.give(index).take_ended();
        Some((index, result.map_err(WaitError::Join)))
    }

    fn give(&mut self, index: usize) -> JoinHandle<T> {
        self.left -= 1;
        self.handles[index].take().expect("given once")
    }
}

impl<T> Drop for AsCompleted<T> {
    fn drop(&mut self) {
        if self.awaited.is_cancelled() {
            self.cancel();
        }
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("remaining", &self.left).finish_non_exhaustive()
    }
}

/// Why there is no value of a task that was waited for.
#[derive(Debug)]
pub enum WaitError {
    /// The limit for the whole was over; the task runs on.
    Elapsed,
    /// The task panicked or was cancelled.
    Join(JoinError),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elapsed => f.write_str("the time limit was over"),
            Self::Join(e) => e.fmt(f),
        }
    }
}

impl Error for WaitError {}
