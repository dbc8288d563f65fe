//! Asking first, and then not asking any more.
//!
//! Owns [`CancelBy`], the future of `JoinHandle::cancel_by`, and [`scope()`]: a token says that a task or a
//! body is to end, it has some grace for that, and after it a hard cancel ends it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::token::Token;
use crate::combine::{Either, JoinTimeout, race};
use crate::task::{JoinError, JoinHandle};
use crate::time::{Elapsed, sleep};

impl<T> JoinHandle<T> {
    /// Cancels `token`, gives the task `grace` to end by itself, and cancels it hard after that; ready when
    /// the task is gone, its destructors having run.
    ///
    /// The token is cancelled at the first poll; `grace` counts from now. The handle stays: after the error
    /// it says [`is_cancelled`](Self::is_cancelled).
    ///
    /// # Errors
    /// [`Elapsed`] if it was cancelled hard. `Ok` is the task's own end, its [`JoinError`] within: it may
    /// have finished in spite of the token, also with an ordinary value.
    ///
    /// # Panics
    /// The future panics if it is polled outside a loop, or if the result was taken already.
    ///
    /// # Cancel safety
    /// As of [`timeout`](Self::timeout): dropping it leaves the task alone, unless the grace was over. The
    /// token stays cancelled.
    ///
    /// ```
    /// use coreloop::cancel::Token;
    /// use std::time::Duration;
    ///
    /// coreloop::run(async {
    ///     let token = Token::new();
    ///     let asked = token.clone();
    ///     let mut polite = coreloop::spawn(async move {
    ///         asked.cancelled().await;
    ///         "bye"
    ///     });
    ///     let ended = polite.cancel_by(&token, Duration::from_secs(5)).await;
    ///     assert_eq!(ended.unwrap().unwrap(), "bye");
    ///
    ///     let mut deaf = coreloop::spawn(std::future::pending::<()>());
    ///     assert!(deaf.cancel_by(&token, Duration::from_millis(2)).await.is_err());
    ///     assert!(deaf.is_cancelled());
    /// })
    /// .unwrap();
    /// ```
    pub fn cancel_by(&mut self, token: &Token, grace: Duration) -> CancelBy<'_, T> {
        CancelBy { ask: Some(token.clone()), limit: self.timeout(grace) }
    }
}

/// The future of [`JoinHandle::cancel_by`].
#[must_use = "nobody is asked until this is awaited"]
pub struct CancelBy<'a, T> {
    /// None once it was cancelled.
    ask: Option<Token>,
    limit: JoinTimeout<'a, T>,
}

impl<T> Future for CancelBy<'_, T> {
    type Output = Result<Result<T, JoinError>, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(token) = this.ask.take() {
            token.cancel();
        }
        Pin::new(&mut this.limit).poll(cx)
    }
}

impl<T> fmt::Debug for CancelBy<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelBy")
            .field("asked", &self.ask.is_none())
            .field("limit", &self.limit)
            .finish()
    }
}

/// Runs `body` with a token of its own, a child of `outer`. From the moment at which that is cancelled (by
/// `outer`, or by the body itself) the body has `grace` to end by itself; after that it is dropped, as by a
/// cancel.
///
/// The body listens to its token where it can stop in good order, and does the rest of its work, awaits
/// included, within the grace. A body that begins when `outer` was cancelled already has the grace too. To
/// give it no say at all, use [`Token::run`].
///
/// # Errors
/// [`Elapsed`] if the grace was over: the body has been dropped by then, and a task whose handle it awaited
/// is cancelled. `Ok` does not say that nobody asked: look at the token for that.
///
/// # Panics
/// A panic of the body goes through. The future panics if it is polled outside a loop.
///
/// # Cancel safety
/// Dropping it drops the body.
///
/// ```
/// use coreloop::cancel::{self, Token};
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let server = Token::new();
///     let asked = server.clone();
///     drop(coreloop::spawn(async move { asked.cancel() }));
///     let goodbye = cancel::scope(&server, Duration::from_secs(5), async |token| {
///         token.cancelled().await;
///         "bye"
///     });
///     assert_eq!(goodbye.await, Ok("bye"));
/// })
/// .unwrap();
/// ```
pub async fn scope<R>(
    outer: &Token,
    grace: Duration,
    body: impl AsyncFnOnce(&Token) -> R,
) -> Result<R, Elapsed> {
    let token = outer.child();
    let over = async {
        token.cancelled().await;
        sleep(grace).await;
    };
    match race(body(&token), over).await {
        Either::First(value) => Ok(value),
        Either::Second(()) => Err(Elapsed::new()),
    }
}
