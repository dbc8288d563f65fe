//! Keeping panics where they belong.
//!
//! Owns [`contained`] and [`discard`]. A panic that was caught has a payload, and that payload has a
//! destructor which may panic again: so the payload of a contained panic is dropped contained too, and what
//! comes of that is forgotten.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// Drops what a contained panic carried.
#[cold]
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
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
