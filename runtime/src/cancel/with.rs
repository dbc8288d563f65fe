//! A scope with an awaited exit.
//!
//! Owns [`With`], what `async with` is elsewhere: a resource, a body that borrows it, and a closing step that
//! gets it, with awaits, however the body ended.
//! ```text
//! body --returns, also an error--> closing(Returned)  --ends----------> Closed
//!      --token cancelled---------> closing(Cancelled) --over its limit-> dropped, Closed says so
//!      --panics------------------> closing(Panicked)  --> the panic goes on
//! dropped (a hard cancel): body or closing step is dropped, then the resource; nothing waits
//! ```

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::reason::Cancelled;
use super::token::Token;
use crate::contain;
use crate::time::{Elapsed, timeout};

/// Time that a closing step has unless [`With::closing_within`] says otherwise.
const CLOSING_LIMIT: Duration = Duration::from_secs(10);

/// Lends `resource` to `body`, and hands it to `close` when the body has ended: by return, error, panic, or
/// a cancelled [token](With::cancel_on). [`run`](With::run) does it.
///
/// ```
/// use coreloop::cancel::{self, How, Token};
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let token = Token::new();
///     let closed = cancel::with(
///         Vec::new(),
///         async |log| {
///             log.push("work");
///             token.cancel();
///             std::future::pending::<()>().await;
///         },
///         async |mut log, how| {
///             assert!(matches!(how, How::Cancelled));
///             coreloop::time::sleep(Duration::from_millis(1)).await;
///             log.push("goodbye");
///             log
///         },
///     )
///     .cancel_on(&token)
///     .closing_within(Duration::from_secs(1))
///     .run()
///     .await;
///     assert!(closed.body.is_err());
///     assert_eq!(closed.close.unwrap(), ["work", "goodbye"]);
/// })
/// .unwrap();
/// ```
pub fn with<R, B, C, T, U>(resource: R, body: B, close: C) -> With<R, B, C, T, U>
where
    B: AsyncFnOnce(&mut R) -> T,
    C: AsyncFnOnce(R, How<'_, T>) -> U,
{
    let types = PhantomData;
    With { resource, body, close, token: None, closing_limit: CLOSING_LIMIT, types }
}

/// A scope that has not begun; see [`with`].
#[must_use = "it does nothing until `run` is awaited"]
pub struct With<R, B, C, T, U> {
    resource: R,
    body: B,
    close: C,
    token: Option<Token>,
    closing_limit: Duration,
    types: PhantomData<fn() -> (T, U)>,
}

/// How the body of a [`with`] ended, for its closing step.
#[derive(Debug)]
pub enum How<'a, T> {
    /// It returned this.
    Returned(&'a T),
    /// The token was cancelled, and the body dropped where it waited.
    Cancelled,
    /// It panicked. The panic goes on after the closing step.
    Panicked,
}

impl<T> Clone for How<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for How<'_, T> {}

/// What came of a [`with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed<T, U> {
    /// The body's value, or that it was cancelled by its token.
    pub body: Result<T, Cancelled>,
    /// The closing step's value, or that its time was over and it was dropped, with the resource.
    pub close: Result<U, Elapsed>,
}

impl<T, V, E> Closed<Result<T, E>, Result<V, E>>
where
    E: From<Cancelled> + From<Elapsed>,
{
    /// The body's value if both went well; else the first error, the body's before the closing step's.
    ///
    /// # Errors
    /// That one. `std::io::Error` takes all of them.
    pub fn into_result(self) -> Result<T, E> {
        let value = self.body??;
        self.close??;
        Ok(value)
    }
}

impl<R, B, C, T, U> With<R, B, C, T, U>
where
    B: AsyncFnOnce(&mut R) -> T,
    C: AsyncFnOnce(R, How<'_, T>) -> U,
{
    /// Ends the body when `token` is cancelled: it is dropped where it waits, as [`Token::run`] does it, and
    /// never begins if the token was cancelled before. The closing step runs all the same, and does not
    /// listen to the token.
    pub fn cancel_on(mut self, token: &Token) -> Self {
        self.token = Some(token.clone());
        self
    }

    /// Time that the closing step has (10 s). `Duration::MAX` is no limit, zero lets it do what needs no
    /// waiting.
    pub fn closing_within(mut self, limit: Duration) -> Self {
        self.closing_limit = limit;
        self
    }

    /// Runs the body, then the closing step.
    ///
    /// # Panics
    /// A panic of the body goes on when the closing step has ended; one of the closing step goes through,
    /// but the body's comes first. The future panics if it is polled outside a loop.
    ///
    /// # Cancel safety
    /// A drop, as by a hard cancel, can't wait: what runs of the two is dropped, then the resource, whose
    /// destructor does what it can at once. A task that has to close in good order is cancelled by its
    /// token, or by [`cancel_by`](crate::task::JoinHandle::cancel_by).
    pub async fn run(self) -> Closed<T, U> {
        let Self { mut resource, body, close, token, closing_limit, .. } = self;
        let lent = &mut resource;
        let ended = caught(pin!(async move {
            match token {
                // An async block of its own: a token that was cancelled before keeps it from beginning.
                Some(token) => token.run(async { body(lent).await }).await,
                None => Ok(body(lent).await),
            }
        }))
        .await;
        let how = match &ended {
            Ok(Ok(value)) => How::Returned(value),
            Ok(Err(_)) => How::Cancelled,
            Err(_) => How::Panicked,
        };
        let closed = {
            let closing = pin!(timeout(closing_limit, async { close(resource, how).await }));
            caught(closing).await
        };
        match (ended, closed) {
            (Ok(body), Ok(close)) => Closed { body, close },
            (Err(panic), closed) => {
                match closed {
                    Ok(close) => drop(contain::contained(|| drop(close))),
                    Err(second) => contain::discard(second),
                }
                resume_unwind(panic)
            }
            (Ok(body), Err(panic)) => {
                contain::contained(|| drop(body));
                resume_unwind(panic)
            }
        }
    }
}

/// The value of `future`, or what it panicked with.
async fn caught<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Box<dyn Any + Send>> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

impl<R, B, C, T, U> fmt::Debug for With<R, B, C, T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("With")
            .field("token", &self.token)
            .field("closing_limit", &self.closing_limit)
            .finish_non_exhaustive()
    }
}
