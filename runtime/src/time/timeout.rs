//! A time limit around a future.
//!
//! Owns [`Timeout`]. Over the limit the future is dropped *before* the error is returned, and the drop
//! counts as a cancel: a task whose handle it was awaiting is cancelled too.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Instant, Sleep, sleep_until};
use crate::task::current;

/// Gives `future` until `d` from now.
///
/// A future that is ready at its first poll is returned whatever the limit; one that is not and has no
/// time left times out at once. An enormous `d` means no limit.
///
/// # Errors
/// [`Elapsed`] when the time is over. The future has been dropped by then, I/O of its own is being
/// cancelled, and a task whose handle it awaited is cancelled.
///
/// # Cancel safety
/// Dropping it drops the future.
///
/// ```
/// use coreloop::time::{sleep, timeout};
/// use std::time::Duration;
///
/// coreloop::run(async {
///     assert_eq!(timeout(Duration::from_secs(5), async { 7 }).await, Ok(7));
///     let late = timeout(Duration::from_millis(1), sleep(Duration::from_secs(3600))).await;
///     assert!(late.is_err());
/// })
/// .unwrap();
/// ```
pub fn timeout<F: IntoFuture>(d: Duration, future: F) -> Timeout<F::IntoFuture> {
    timeout_at(Instant::now() + d, future)
}

/// Gives `future` until `deadline`; see [`timeout`].
///
/// # Cancel safety
/// Dropping it drops the future, as for [`timeout`].
pub fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    Timeout { future: Some(future.into_future()), limit: sleep_until(deadline), begun: false }
}

/// The future of [`timeout`] and [`timeout_at`].
#[must_use = "a time limit does nothing until it is awaited"]
pub struct Timeout<F> {
    /// None once it has ended. Structurally pinned: never moved out.
    future: Option<F>,
    /// Not structurally pinned: `Sleep` is `Unpin`.
    limit: Sleep,
    /// Whether it was polled before.
    begun: bool,
}

impl<F> Timeout<F> {
    /// The time at which the limit is over.
    pub fn deadline(&self) -> Instant {
        self.limit.deadline()
    }

    /// Moves the limit, or lifts it with [`Instant::NEVER`].
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        self.parts().1.reset(deadline);
    }

    #[allow(unsafe_code)]
    fn parts(self: Pin<&mut Self>) -> (Pin<&mut Option<F>>, &mut Sleep, &mut bool) {
        // SAFETY: `future` is only ever pinned or dropped in place (`Pin::set`), there is no `Drop` for
        // `Timeout` and it is `Unpin` only if `F` is; `limit` is `Unpin`.
        unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.limit, &mut this.begun)
        }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    /// # Panics
    /// If polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut future, limit, begun) = self.parts();
        let inner = future.as_mut().as_pin_mut().expect("a Timeout was polled after it had ended");
        if let Poll::Ready(value) = inner.poll(cx) {
            future.set(None);
            return Poll::Ready(Ok(value));
        }
        // At first the clock says whether there is any time at all. Later the wheel does: it speaks only
        // after the loop has looked for completions, so what came in time beats its limit even if the
        // core was busy meanwhile. Where no loop runs there is no wheel to wait for.
        let by_clock = !std::mem::replace(begun, true) || current::with_tasks(|_| ()).is_none();
        let none_left = by_clock && limit.deadline() <= Instant::now();
        if !none_left && limit.poll_sleep(cx).is_pending() {
            return Poll::Pending;
        }
        current::with_tasks(|tasks| {
            let _cancel = tasks.mark_cancelling(current::poll_number());
            future.set(None);
        });
        // Outside a loop there is nothing to pass a cancel on to.
        future.set(None);
        Poll::Ready(Err(Elapsed(())))
    }
}

impl<F> fmt::Debug for Timeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A time limit was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl Elapsed {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit was over")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(e: Elapsed) -> Self {
        std::io::Error::new(std::io::ErrorKind::TimedOut, e)
    }
}
