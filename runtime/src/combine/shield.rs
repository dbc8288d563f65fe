//! Awaiting without passing a cancel on.
//!
//! Owns [`Shield`]. It watches a task or an [`Awaitable`] as an await does, but is not one to whoever looks
//! for awaits when a cancel passes through.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::future::{Awaitable, FutureError};
use crate::task::{JoinError, JoinHandle};

/// Awaits a task, or an [`Awaitable`], so that a cancel of the awaiter does not reach it.
///
/// A limit, a lost race or a cancel ends the await; the task runs on. Taken by `&mut`, the handle can be
/// awaited again later. To shield a plain future, make it a task: `shield(spawn(future))`.
///
/// The shield protects from a cancel of the *awaiter*. `handle.cancel()` still cancels the task, and the
/// shield then gives its error.
///
/// # Errors
/// What the task's handle gives, or the awaitable.
///
/// # Panics
/// As awaiting the handle does.
///
/// # Cancel safety
/// A cancel travels inwards through awaits, and ends here; a drop lets go, as ever. Dropping a shield that
/// owns the handle lets go of the task.
///
/// ```
/// use coreloop::combine::shield;
/// use coreloop::time::{sleep, timeout};
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let mut task = coreloop::spawn(async {
///         sleep(Duration::from_millis(8)).await;
///         "in spite of it"
///     });
///     assert!(timeout(Duration::from_millis(1), shield(&mut task)).await.is_err());
///     assert_eq!(task.await.unwrap(), "in spite of it");
/// })
/// .unwrap();
/// ```
pub fn shield<S: Shieldable>(inner: S) -> Shield<S> {
    Shield(inner)
}

/// What [`shield`] can protect: handles and awaitables, by value or by `&mut`.
pub trait Shieldable: Unpin + sealed::Watch {}

/// The future of [`shield`].
#[must_use = "a shield does nothing until it is awaited"]
#[derive(Debug)]
pub struct Shield<S: Shieldable>(S);

impl<S: Shieldable> Shield<S> {
    /// What was shielded.
    pub fn into_inner(self) -> S {
        self.0
    }
}

impl<S: Shieldable> Future for Shield<S> {
    type Output = S::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll_unawaited(cx)
    }
}

mod sealed {
    use std::task::{Context, Poll};

    pub trait Watch {
        type Output;

        /// Polls, and leaves no trace by which a cancel would pass.
        fn poll_unawaited(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output>;
    }
}

impl<T> sealed::Watch for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll_unawaited(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut *self).poll(cx);
        self.forget_await();
        polled
    }
}

impl<T: Clone> sealed::Watch for Awaitable<T> {
    type Output = Result<T, FutureError>;

    fn poll_unawaited(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut *self).poll(cx);
        self.forget_await();
        polled
    }
}

impl<S: Shieldable> sealed::Watch for &mut S {
    type Output = S::Output;

    fn poll_unawaited(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        (**self).poll_unawaited(cx)
    }
}

impl<T> Shieldable for JoinHandle<T> {}
impl<T: Clone> Shieldable for Awaitable<T> {}
impl<S: Shieldable> Shieldable for &mut S {}
