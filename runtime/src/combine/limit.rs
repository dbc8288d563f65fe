//! A time limit on a task, which waits until the task is gone.
//!
//! Owns [`JoinTimeout`], the future of [`JoinHandle::timeout`]. Over the limit the task is cancelled, and the
//! error is returned only when its destructors have run. Owns also [`Limit`], by which
//! the sets measure.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::task::{JoinError, JoinHandle};
use crate::time::{Elapsed, Instant, Sleep, sleep_until};

impl<T> JoinHandle<T> {
    /// Gives the task until `d` from now; over that it is cancelled, and waited for.
    ///
    /// A task that has ended is returned whatever the limit. One that ends by itself before the cancel
    /// reaches it is returned too. An enormous `d` means no limit. The handle stays: after the error it
    /// says [`is_cancelled`](Self::is_cancelled), and awaiting it gives the task's own error.
    ///
    /// The free [`timeout`](crate::time::timeout) differs in that it does not wait for the task's end; to
    /// let the task run on after the limit say `timeout(d, shield(&mut handle))`.
    ///
    /// # Errors
    /// [`Elapsed`] when the time is over *and* the task has ended. A panic or cancel of the task is the
    /// [`JoinError`] within.
    ///
    /// # Panics
    /// The future panics if it is polled outside a loop, or if the result was taken already.
    ///
    /// # Cancel safety
    /// A cancel travels inwards through awaits, a drop lets go: this borrows the handle, so dropping it
    /// leaves the task alone, unless the limit was over already. If whoever owns the handle is cancelled
    /// while it awaits this, the task is cancelled too.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// coreloop::run(async {
    ///     let mut task = coreloop::spawn(std::future::pending::<()>());
    ///     assert!(task.timeout(Duration::from_millis(1)).await.is_err());
    ///     assert!(task.is_cancelled());
    /// })
    /// .unwrap();
    /// ```
    pub fn timeout(&mut self, d: Duration) -> JoinTimeout<'_, T> {
        self.timeout_at(Instant::now() + d)
    }

    /// Gives the task until `deadline`; see [`timeout`](Self::timeout).
    ///
    /// # Cancel safety
    /// As for [`timeout`](Self::timeout): a drop leaves the task alone, unless the limit was over already.
    pub fn timeout_at(&mut self, deadline: Instant) -> JoinTimeout<'_, T> {
        JoinTimeout { handle: self, limit: Limit::new(deadline), over: false }
    }
}

/// The future of [`JoinHandle::timeout`] and [`JoinHandle::timeout_at`].
#[must_use = "a time limit does nothing until it is awaited"]
pub struct JoinTimeout<'a, T> {
    handle: &'a mut JoinHandle<T>,
    limit: Limit,
    /// The limit was over: the task is to end.
    over: bool,
}

impl<T> JoinTimeout<'_, T> {
    /// The time at which the limit is over.
    pub fn deadline(&self) -> Instant {
        self.limit.0.deadline()
    }

    /// Moves the limit, or lifts it with [`Instant::NEVER`]. Once it was over this changes nothing.
    pub fn reset(&mut self, deadline: Instant) {
        self.limit.reset(deadline);
    }
}

impl<T> Future for JoinTimeout<'_, T> {
    type Output = Result<Result<T, JoinError>, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.over && this.handle.is_cancelled() {
            return Poll::Ready(Err(Elapsed::new()));
        }
        // Also one that panicked in its destructor, or that ended before the cancel reached it.
        if let Poll::Ready(result) = Pin::new(&mut *this.handle).poll(cx) {
            return Poll::Ready(Ok(result));
        }
        if !this.over && this.limit.poll_over(cx) {
            this.over = true;
            this.handle.cancel();
        }
        Poll::Pending
    }
}

impl<T> fmt::Debug for JoinTimeout<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTimeout")
            .field("handle", &self.handle)
            .field("limit", &self.limit.0)
            .finish_non_exhaustive()
    }
}

/// A limit that is asked beside something else.
#[derive(Debug)]
pub(super) struct Limit(Sleep, Asked);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    Never,
    /// Before the time was over.
    Before,
    /// Once after it: whoever was due by then has had a turn at the next time.
    After,
}

impl Limit {
    pub(super) fn new(deadline: Instant) -> Self {
        Self(sleep_until(deadline), Asked::Never)
    }

    /// Whether the time is over. At first the clock says whether there is any; later the wheel does, and
    /// then it takes one more turn: a task that was due in time, while the core was busy, fires with the
    /// limit and may stand behind the one who asks. So what came in time beats its limit.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> bool {
        match self.1 {
            Asked::After => true,
            Asked::Never if self.0.deadline() <= Instant::now() => true,
            _ => {
                self.1 = Asked::Before;
                if self.0.poll_sleep(cx).is_ready() {
                    self.1 = Asked::After;
                    cx.waker().wake_by_ref();
                }
                false
            }
        }
    }

    /// Moves it.
    fn reset(&mut self, deadline: Instant) {
        self.0.reset(deadline);
        if self.1 == Asked::After {
            self.1 = Asked::Before;
        }
    }
}
