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
    Race { a: Some(a.into_future()), b: Some(b.into_future()), polled_in: 0 }
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
    /// None once it has ended, as is the other. Both structurally pinned: never moved out.
    a: Option<A>,
    b: Option<B>,
    /// Number of the last poll in which both were pending.
    polled_in: u64,
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = Either<A::Output, B::Output>;

    /// # Panics
    /// If polled after it was ready.
    #[allow(unsafe_code)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: both are only ever pinned or dropped in place (`Pin::set`); there is no `Drop` for
        // `Race`, and it is `Unpin` only if both are. The number is `Unpin`.
        let (mut a, mut b, polled_in) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.a), Pin::new_unchecked(&mut this.b), &mut this.polled_in)
        };
        const ENDED: &str = "a Race was polled after it had ended";
        let number = current::poll_number();
        // The winner has ended: to drop it cancels nothing, whatever it still holds.
        if let Poll::Ready(value) = a.as_mut().as_pin_mut().expect(ENDED).poll(cx) {
            let lost = Lost { future: b, polled_in: *polled_in };
            a.set(None);
            drop(lost);
            return Poll::Ready(Either::First(value));
        }
        if let Poll::Ready(value) = b.as_mut().as_pin_mut().expect(ENDED).poll(cx) {
            let lost = Lost { future: a, polled_in: number };
            b.set(None);
            drop(lost);
            return Poll::Ready(Either::Second(value));
        }
        *polled_in = number;
        Poll::Pending
    }
}

/// The loser, and the poll in which it was polled last: what it awaited then, the cancel passes on to. So it
/// does if the winner's destructor panics.
struct Lost<'a, F> {
    future: Pin<&'a mut Option<F>>,
    polled_in: u64,
}

impl<F> Drop for Lost<'_, F> {
    fn drop(&mut self) {
        current::with_tasks(|tasks| {
            let _cancel = tasks.mark_cancelling(self.polled_in);
            self.future.set(None);
        });
        // Outside a loop there is nothing to pass a cancel on to.
        self.future.set(None);
    }
}
