//! Operations that can be called off, and then say what came of them.
//!
//! Owns [`Interruptible`], what an operation does when it is to end, and [`CancelOn`] and [`Until`], which
//! decide when. Both are wrappers: an operation that listens to nothing is no larger and does no more. They
//! nest in any order; what was the reason first stays the reason:
//! ```text
//! begun --op ready-------------------> its result (also if the token or deadline came in the same turn)
//!       --token or deadline--> ending --> its result, which may still be a success
//! ```

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::reason::{Interrupted, Settle};
use super::token::{Token, WaitCancelled};
use crate::op::{Op, Submit};
use crate::time::{Instant, Sleep, sleep_until};

/// An operation that can be called off by a token or a deadline, and whose future then *resolves*.
///
/// Dropping an operation's future lets go of it, buffer and all. Calling it off ends it: the buffer comes
/// back, with what had been transferred. If the result was there in the same turn, the result wins; if the
/// kernel has to be asked to end the operation, its answer is waited for, and says how it ended.
///
/// A token that was cancelled *before* the operation began keeps it from beginning, so a loop of operations
/// ends with the next one, however much data is there. A deadline that was over before does not: as with
/// [`timeout`](crate::time::timeout), what is ready at the first poll is still returned.
///
/// ```
/// use coreloop::cancel::{Interrupted, Interruptible, Token};
/// use coreloop::op::{PollOnce, submit};
/// use coreloop::time::Instant;
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let (ours, _theirs) = UnixStream::pair().unwrap();
///     let token = Token::new();
///     let limit = Instant::now() + Duration::from_millis(1);
///     let readable = PollOnce::new(ours, libc::POLLIN as u32);
///     let error = submit(readable).cancel_on(&token).until(limit).await.unwrap_err();
///     assert_eq!(Interrupted::of(&error), Some(Interrupted::TimedOut));
/// })
/// .unwrap();
/// ```
pub trait Interruptible: Future + Unpin {
    /// Ends the operation: called instead of `poll` from the moment at which it is called off until it is
    /// ready. The first call asks for the end, also if the operation has not begun, which it then does not.
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>, why: Interrupted)
    -> Poll<Self::Output>;

    /// Calls the operation off when `token` is cancelled.
    ///
    /// # Cancel safety
    /// That of the operation, whose future this holds: also after the token was cancelled, while the
    /// operation ends. Dropped then, what it would have given back is dropped with it.
    fn cancel_on(self, token: &Token) -> CancelOn<Self>
    where
        Self: Sized,
    {
        CancelOn { op: self, wait: token.cancelled(), ending: None, begun: false }
    }

    /// Calls the operation off at `deadline`.
    ///
    /// # Cancel safety
    /// As for [`cancel_on`](Self::cancel_on).
    fn until(self, deadline: Instant) -> Until<Self>
    where
        Self: Sized,
    {
        Until { op: self, limit: sleep_until(deadline), ending: None, begun: false }
    }
}

/// The future of [`Interruptible::cancel_on`].
///
/// # Cancel safety
/// That of the operation; also when it was being called off already.
#[must_use = "an operation does nothing until it is awaited"]
pub struct CancelOn<F> {
    op: F,
    wait: WaitCancelled,
    ending: Option<Interrupted>,
    begun: bool,
}

impl<F: Interruptible> Future for CancelOn<F> {
    type Output = F::Output;

    /// # Panics
    /// As the operation does, also if polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if this.ending.is_none() {
            if std::mem::replace(&mut this.begun, true) || !this.wait.is_over() {
                let polled = Pin::new(&mut this.op).poll(cx);
                if polled.is_ready() || Pin::new(&mut this.wait).poll(cx).is_pending() {
                    return polled;
                }
            }
            this.ending = Some(Interrupted::Cancelled);
        }
        Pin::new(this).poll_end(cx, Interrupted::Cancelled)
    }
}

impl<F: Interruptible> Interruptible for CancelOn<F> {
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>, why: Interrupted) -> Poll<F::Output> {
        let this = self.get_mut();
        let first = *this.ending.get_or_insert(why);
        Pin::new(&mut this.op).poll_end(cx, first)
    }
}

/// The future of [`Interruptible::until`].
///
/// # Cancel safety
/// That of the operation; also when it was being called off already.
#[must_use = "an operation does nothing until it is awaited"]
pub struct Until<F> {
    op: F,
    limit: Sleep,
    ending: Option<Interrupted>,
    begun: bool,
}

impl<F> Until<F> {
    /// When the operation is called off.
    pub fn deadline(&self) -> Instant {
        self.limit.deadline()
    }

    /// Moves the deadline, or lifts it with [`Instant::NEVER`]. Once it was over this changes nothing.
    pub fn reset(&mut self, deadline: Instant) {
        self.limit.reset(deadline);
    }
}

impl<F: Interruptible> Future for Until<F> {
    type Output = F::Output;

    /// # Panics
    /// As the operation does, also if polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if this.ending.is_none() {
            let polled = Pin::new(&mut this.op).poll(cx);
            if polled.is_ready() {
                return polled;
            }
            // At first the clock says whether there is any time at all. Later the wheel does, which speaks
            // only after the loop has looked for completions: what came in time beats its limit.
            let first = !std::mem::replace(&mut this.begun, true);
            let none_left = first && this.limit.deadline() <= Instant::now();
            if !none_left && this.limit.poll_sleep(cx).is_pending() {
                return Poll::Pending;
            }
            this.ending = Some(Interrupted::TimedOut);
        }
        Pin::new(this).poll_end(cx, Interrupted::TimedOut)
    }
}

impl<F: Interruptible> Interruptible for Until<F> {
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>, why: Interrupted) -> Poll<F::Output> {
        let this = self.get_mut();
        let first = *this.ending.get_or_insert(why);
        Pin::new(&mut this.op).poll_end(cx, first)
    }
}

impl<O: Op + Unpin> Interruptible for Submit<O>
where
    O::Out: Settle,
{
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>, why: Interrupted) -> Poll<O::Out> {
        self.get_mut().poll_cancelled(cx).map(|out| out.settle(why))
    }
}

impl<F> fmt::Debug for CancelOn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelOn")
            .field("on", &self.wait)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for Until<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Until")
            .field("limit", &self.limit)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}
