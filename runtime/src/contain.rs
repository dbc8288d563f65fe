//! Keeping panics where they belong.
//!
//! Owns [`contained`], [`wake`], [`let_go`], [`discard`] and [`tell`]. A panic that was caught has a
//! payload, and that payload has a destructor which may panic again: so the payload of a contained panic is
//! dropped contained too, and what comes of that is forgotten. What is told people goes out by [`tell`],
//! since `eprintln!` panics where nobody reads standard error any more, and that ends the process
//! when it happens in a destructor.

use std::any::Any;
use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs `f`; none if it panicked.
pub(crate) fn contained<R>(f: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) => {
            discard(payload);
            None
        }
    }
}

/// Wakes whoever `waker` is of. It may be a stranger's, whose panic is no affair of the one who tells it.
#[inline]
pub(crate) fn wake(waker: Waker) {
    contained(|| waker.wake());
}

/// Drops a waker, if there is one: its destructor may be a stranger's code too.
#[inline]
pub(crate) fn let_go(waker: impl Into<Option<Waker>>) {
    contained(|| drop(waker));
}

/// Drops what a contained panic carried.
#[cold]
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

/// A line on standard error, as one write. Nobody may be there to read it: that is no error of the
/// teller's.
#[cold]
pub(crate) fn tell(line: fmt::Arguments<'_>) {
    let _unread = io::stderr().write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained_too() {
        assert_eq!(contained(|| std::panic::panic_any(Bomb)), None::<()>);
        assert_eq!(contained(|| 7), Some(7));
    }
}
