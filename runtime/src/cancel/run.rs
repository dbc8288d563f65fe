//! Any future, until a token is cancelled.
//!
//! Owns [`Run`]. The future is dropped *before* the error is returned, and the drop counts as a cancel: a
//! task whose handle it was awaiting is cancelled too.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::reason::Cancelled;
use super::token::{Token, WaitCancelled};
use crate::task::current;

impl Token {
    /// Runs `future` until the token is cancelled.
    ///
    /// If the token was cancelled before, the future is never polled. After that, what is ready in the same
    /// poll in which the cancel is seen still counts.
    ///
    /// For single operations there is [`cancel_on`](super::Interruptible::cancel_on), which gives buffers
    /// back; this drops what it ran.
    ///
    /// # Errors
    /// [`Cancelled`]. The future has been dropped by then, I/O of its own is being cancelled, and a task
    /// whose handle it awaited is cancelled.
    ///
    /// # Cancel safety
    /// Dropping it drops the future.
    ///
    /// ```
    /// use coreloop::cancel::Token;
    ///
    /// coreloop::run(async {
    ///     let token = Token::new();
    ///     assert_eq!(token.run(async { 7 }).await, Ok(7));
    ///     token.cancel();
    ///     assert!(token.run(async { 7 }).await.is_err());
    /// })
    /// .unwrap();
    /// ```
    pub fn run<F: IntoFuture>(&self, future: F) -> Run<F::IntoFuture> {
        Run { future: Some(future.into_future()), wait: self.cancelled(), begun: false }
    }
}

/// The future of [`Token::run`].
#[must_use = "it does nothing until it is awaited"]
pub struct Run<F> {
    /// None once it has ended. Structurally pinned: never moved out.
    future: Option<F>,
    /// Not structurally pinned: it is `Unpin`.
    wait: WaitCancelled,
    /// Whether the future was polled.
    begun: bool,
}

impl<F> Run<F> {
    #[allow(unsafe_code)]
    fn parts(self: Pin<&mut Self>) -> (Pin<&mut Option<F>>, &mut WaitCancelled, &mut bool) {
        // SAFETY: `future` is only ever pinned or dropped in place (`Pin::set`), there is no `Drop` for
        // `Run` and it is `Unpin` only if `F` is; `wait` is `Unpin`.
        unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.wait, &mut this.begun)
        }
    }
}

impl<F: Future> Future for Run<F> {
    type Output = Result<F::Output, Cancelled>;

    /// # Panics
    /// If polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mut future, wait, begun) = self.parts();
        let inner = future.as_mut().as_pin_mut().expect("a Run was polled after it had ended");
        if std::mem::replace(begun, true) || !wait.is_over() {
            if let Poll::Ready(value) = inner.poll(cx) {
                future.set(None);
                return Poll::Ready(Ok(value));
            }
            if Pin::new(wait).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        current::with_tasks(|tasks| {
            let _cancel = tasks.mark_cancelling(current::poll_number());
            future.set(None);
        });
        // Outside a loop there is nothing to pass a cancel on to.
        future.set(None);
        Poll::Ready(Err(Cancelled::new()))
    }
}

impl<F> fmt::Debug for Run<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("on", &self.wait).finish_non_exhaustive()
    }
}
