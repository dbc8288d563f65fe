//! Gathering a fixed number of futures of different types.
//!
//! Owns [`gather_tuple()`] and [`try_gather_tuple()`], for two to eight. Tuples have no common shape, so a
//! macro writes each; what it writes is as short as can be: a place per task, in order, and no
//! allocation. The failing form looks at all of them on each wake, which are eight at most.

use std::fmt;
use std::future::IntoFuture;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::slot::{Awaited, ResultSlot, Slot};
use super::try_gather::TryGatherError;
use crate::spawn::spawn_at;
use crate::task::JoinError;

/// As [`gather`](super::gather()), of two to eight futures of different types; takes no allocation.
///
/// # Errors
/// Each in its place.
///
/// # Panics
/// Outside a running loop. The future panics if it is polled after it was ready.
///
/// # Cancel safety
/// A cancel travels inwards through awaits: if whoever awaits this is cancelled, all tasks that still run
/// are. A drop lets go: dropped otherwise, they run on.
///
/// ```
/// use coreloop::combine::gather_tuple;
///
/// coreloop::run(async {
///     let (word, number) = gather_tuple((async { "seven" }, async { 7 })).await;
///     assert_eq!((word.unwrap(), number.unwrap()), ("seven", 7));
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn gather_tuple<T: Tuple>(futures: T) -> GatherTuple<T> {
    GatherTuple { slots: Some(futures.start(Location::caller())), awaited: Awaited::default() }
}

/// As [`try_gather`](super::try_gather()), of two to eight futures whose errors have one type.
///
/// # Errors
/// [`TryGatherError`] as soon as one fails; the others run on.
///
/// # Panics
/// Outside a running loop. The future panics if it is polled after it was ready.
///
/// # Cancel safety
/// As [`gather_tuple`].
///
/// ```
/// use coreloop::combine::try_gather_tuple;
///
/// coreloop::run(async {
///     let both = try_gather_tuple((async { "7".parse::<u8>() }, async { Ok("text") })).await;
///     assert_eq!(both.unwrap(), (7, "text"));
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn try_gather_tuple<T: TryTuple<E>, E>(futures: T) -> TryGatherTuple<T, E> {
    TryGatherTuple { slots: Some(futures.start(Location::caller())), awaited: Awaited::default() }
}

/// Tuples of two to eight futures.
pub trait Tuple: sealed::Set {}

/// Tuples of two to eight futures that end in a `Result` with the same error.
pub trait TryTuple<E>: sealed::TrySet<E> {}

/// The future of [`gather_tuple`].
#[must_use = "dropping it lets the tasks run on; await it to have their results"]
pub struct GatherTuple<T: Tuple> {
    /// None once it has ended.
    slots: Option<T::Slots>,
    awaited: Awaited,
}

/// The future of [`try_gather_tuple`].
#[must_use = "dropping it lets the tasks run on; await it to have their results"]
pub struct TryGatherTuple<T: TryTuple<E>, E> {
    /// None once it has ended.
    slots: Option<T::Slots>,
    awaited: Awaited,
}

// Handles hold no value in place, and values are only moved.
impl<T: Tuple> Unpin for GatherTuple<T> {}
impl<T: TryTuple<E>, E> Unpin for TryGatherTuple<T, E> {}

impl<T: Tuple> Future for GatherTuple<T> {
    type Output = T::Results;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let slots = this.slots.as_mut().expect("a GatherTuple was polled after it was ready");
        this.awaited.now();
        if !T::poll_all(slots, cx) {
            return Poll::Pending;
        }
        let slots = this.slots.take().expect("seen above");
        Poll::Ready(T::results(slots))
    }
}

impl<T: TryTuple<E>, E> Future for TryGatherTuple<T, E> {
    type Output = Result<T::Values, TryGatherError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let slots = this.slots.as_mut().expect("a TryGatherTuple was polled after it was ready");
        this.awaited.now();
        match T::poll_all(slots, cx) {
            Ok(false) => Poll::Pending,
            Ok(true) => {
                let slots = this.slots.take().expect("seen above");
                Poll::Ready(Ok(T::values(slots)))
            }
            Err(e) => {
                // The others are let go of here, not cancelled.
                this.slots = None;
                Poll::Ready(Err(e))
            }
        }
    }
}

impl<T: Tuple> Drop for GatherTuple<T> {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.as_ref().filter(|_| self.awaited.is_cancelled()) {
            T::cancel(slots);
        }
    }
}

impl<T: TryTuple<E>, E> Drop for TryGatherTuple<T, E> {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.as_ref().filter(|_| self.awaited.is_cancelled()) {
            T::cancel(slots);
        }
    }
}

impl<T: Tuple> fmt::Debug for GatherTuple<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatherTuple").finish_non_exhaustive()
    }
}

impl<T: TryTuple<E>, E> fmt::Debug for TryGatherTuple<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryGatherTuple").finish_non_exhaustive()
    }
}

mod sealed {
    use std::panic::Location;
    use std::task::Context;

    use super::TryGatherError;

    pub trait Set: Sized {
        type Slots;
        type Results;

        fn start(self, at: &'static Location<'static>) -> Self::Slots;
        fn poll_all(slots: &mut Self::Slots, cx: &mut Context<'_>) -> bool;
        fn results(slots: Self::Slots) -> Self::Results;
        fn cancel(slots: &Self::Slots);
    }

    pub trait TrySet<E>: Sized {
        type Slots;
        type Values;

        fn start(self, at: &'static Location<'static>) -> Self::Slots;
        fn poll_all(
            slots: &mut Self::Slots,
            cx: &mut Context<'_>,
        ) -> Result<bool, TryGatherError<E>>;
        fn values(slots: Self::Slots) -> Self::Values;
        fn cancel(slots: &Self::Slots);
    }
}

macro_rules! tuples {
    ($(($($F:ident $T:ident $n:tt),*))*) => {$(
        impl<$($F),*> sealed::Set for ($($F,)*)
        where
            $($F: IntoFuture<IntoFuture: 'static>),*
        {
            type Slots = ($(ResultSlot<$F::Output>,)*);
            type Results = ($(Result<$F::Output, JoinError>,)*);

            fn start(self, at: &'static Location<'static>) -> Self::Slots {
                ($(Slot::Waiting(spawn_at(self.$n.into_future(), at)),)*)
            }

            fn poll_all(slots: &mut Self::Slots, cx: &mut Context<'_>) -> bool {
                // In order, one at a time: all must end, and those that do meanwhile wake nobody.
                $(slots.$n.poll_done(cx))&&*
            }

            fn results(slots: Self::Slots) -> Self::Results {
                ($(slots.$n.into_result(),)*)
            }

            fn cancel(slots: &Self::Slots) {
                $(slots.$n.cancel();)*
            }
        }

        impl<$($F),*> Tuple for ($($F,)*) where $($F: IntoFuture<IntoFuture: 'static>),* {}

        impl<E, $($F, $T),*> sealed::TrySet<E> for ($($F,)*)
        where
            $($F: IntoFuture<Output = Result<$T, E>, IntoFuture: 'static>),*
        {
            type Slots = ($(Slot<Result<$T, E>, $T>,)*);
            type Values = ($($T,)*);

            fn start(self, at: &'static Location<'static>) -> Self::Slots {
                ($(Slot::Waiting(spawn_at(self.$n.into_future(), at)),)*)
            }

            fn poll_all(
                slots: &mut Self::Slots,
                cx: &mut Context<'_>,
            ) -> Result<bool, TryGatherError<E>> {
                let mut all = true;
                $(all &= slots.$n.poll_value(cx).map_err(|e| TryGatherError::new($n, e))?;)*
                Ok(all)
            }

            fn values(slots: Self::Slots) -> Self::Values {
                ($(slots.$n.into_value(),)*)
            }

            fn cancel(slots: &Self::Slots) {
                $(slots.$n.cancel();)*
            }
        }

        impl<E, $($F, $T),*> TryTuple<E> for ($($F,)*)
        where
            $($F: IntoFuture<Output = Result<$T, E>, IntoFuture: 'static>),*
        {}
    )*};
}

tuples! {
    (A Va 0, B Vb 1)
    (A Va 0, B Vb 1, C Vc 2)
    (A Va 0, B Vb 1, C Vc 2, D Vd 3)
    (A Va 0, B Vb 1, C Vc 2, D Vd 3, F Vf 4)
    (A Va 0, B Vb 1, C Vc 2, D Vd 3, F Vf 4, G Vg 5)
    (A Va 0, B Vb 1, C Vc 2, D Vd 3, F Vf 4, G Vg 5, H Vh 6)
    (A Va 0, B Vb 1, C Vc 2, D Vd 3, F Vf 4, G Vg 5, H Vh 6, I Vi 7)
}
