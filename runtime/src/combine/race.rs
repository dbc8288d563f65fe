//! The first of two futures.
//!
//! Owns [`Race`]. The loser is dropped before the winner's value is returned, under the cancel mark: a
//! task whose handle it awaited is cancelled.

use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::task::current;

/// Runs two futures until one of them ends. If both could end in the same poll, the first one wins.
///
/// # Cancel safety
/// A cancel travels inwards through awaits, and losing is one: a task whose handle the loser awaited is
/// cancelled, unless it is [shielded](super::shield()). What else a drop means is the loser's matter:
/// receives and accepts lose nothing.
///
/// ```
/// use coreloop::combine::{Either, race};
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let slow = coreloop::time::sleep(Duration::from_secs(3600));
///     match race(async { "fast" }, slow).await {
///         Either::First(word) => assert_eq!(word, "fast"),
///         Either::Second(()) => unreachable!(),
///     }
/// })
/// .unwrap();
/// ```
pub fn race<A: IntoFuture, B: IntoFuture>(a: A, b: B) -> Race<A::IntoFuture, B::IntoFuture> {
    Race { futures: Some((a.into_future(), b.into_future())), polled_in: 0 }
}

/// Which of two futures ended first, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    First(A),
    /// The second one.
    Second(B),
}

/// The future of [`race()`].
#[must_use = "a race does nothing until it is awaited"]
#[derive(Debug)]
pub struct Race<A, B> {
    /// None once it has ended. Structurally pinned: never moved out.
    futures: Option<(A, B)>,
    /// Number of the last poll in which both were pending.
    polled_in: u64,
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = Either<A::Output, B::Output>;

    /// # Panics
    /// If polled after it was ready.
    #[allow(unsafe_code)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the pair is only ever pinned or dropped in place (`Pin::set`); there is no `Drop` for
        // `Race`, and it is `Unpin` only if both are. The number is `Unpin`.
        let (mut futures, polled_in) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.futures), &mut this.polled_in)
        };
        let pair = futures.as_mut().as_pin_mut().expect("a Race was polled after it had ended");
        // SAFETY: a pair's parts are pinned when the pair is.
        let (a, b) = unsafe {
            let (a, b) = pair.get_unchecked_mut();
            (Pin::new_unchecked(a), Pin::new_unchecked(b))
        };
        let number = current::poll_number();
        // The poll in which the loser was last polled: what it awaited then, the cancel passes on to.
        let (won, loser_polled_in) = match a.poll(cx) {
            Poll::Ready(value) => (Either::First(value), *polled_in),
            Poll::Pending => match b.poll(cx) {
                Poll::Ready(value) => (Either::Second(value), number),
                Poll::Pending => {
                    *polled_in = number;
                    return Poll::Pending;
                }
            },
        };
        current::with_tasks(|tasks| {
            let _cancel = tasks.mark_cancelling(loser_polled_in);
            futures.set(None);
        });
        // Outside a loop there is nothing to pass a cancel on to.
        futures.set(None);
        Poll::Ready(won)
    }
}
