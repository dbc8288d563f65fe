//! What the lock-free parts of this module are built of.
//!
//! Owns nothing: names of `std`, the store that no later look overtakes, and a place for one value. All of
//! them pass through here, so that a model checker's atomics can stand in their place.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence,
};

/// The order of a look that no earlier [`publish`] of the same thread comes after.
pub(crate) const LOOK: Ordering = Ordering::SeqCst;

/// Stores so that a later look (with [`LOOK`]) of this thread is not made before. One locked instruction
/// on x86, where a fence takes several times as long.
#[inline]
pub(crate) fn publish(at: &AtomicUsize, value: usize) {
    at.store(value, Ordering::SeqCst);
}

/// As [`publish`].
#[inline]
pub(crate) fn publish_u64(at: &AtomicU64, value: u64) {
    at.store(value, Ordering::SeqCst);
}

/// Lets whoever holds a short lock get on.
pub(crate) fn spin() {
    std::hint::spin_loop();
}

/// Room for a value that one thread puts there and one takes.
pub(crate) struct Place<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: whoever calls its functions answers for only one doing so at a time, in whatever thread.
unsafe impl<T: Send> Sync for Place<T> {}

impl<T> Place<T> {
    pub(crate) fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// # Safety
    /// Nobody else uses the place meanwhile, and it holds no value, which would be lost.
    #[inline]
    pub(crate) unsafe fn put(&self, value: T) {
        // SAFETY: the caller is the only one here.
        unsafe { (*self.0.get()).write(value) };
    }

    /// # Safety
    /// Nobody else uses the place meanwhile, it holds a value, and that is not taken again.
    #[inline]
    pub(crate) unsafe fn take(&self) -> T {
        // SAFETY: the caller is the only one here, and there is a value.
        unsafe { (*self.0.get()).assume_init_read() }
    }
}
