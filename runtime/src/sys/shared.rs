//! What everything is built of that threads share.
//!
//! Owns nothing: names of `std`, the store that no later look overtakes, and a place for one value. All of
//! them pass through here, so that with `--cfg loom` a model checker's stand in their place
//! (`docs/TESTING.md`). With `--cfg tsan` the locks are those that ThreadSanitizer sees.
//!
//! loom knows sequentially consistent fences, and takes such loads and stores for acquires and releases. So
//! each [`publish`] is a store and a fence there: the protocols are checked, each of which is a store and a
//! look on either side. That the cheaper store is enough for them here is an argument made where it is used.
//! Nor does loom put a store behind the read-modify-writes of other threads that it comes after: to
//! words that have both, stores go by [`store_bool`], [`store_u32`] and [`store_u64`], which are swaps there.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(not(any(loom, tsan)))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(tsan)]
pub(crate) use super::tsan::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use super::model::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{
        AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    },
};

/// The order of a look that no earlier [`publish`] of the same thread comes after.
pub(crate) const LOOK: Ordering = Ordering::SeqCst;

/// Stores so that a later look (with [`LOOK`]) of this thread is not made before. One locked instruction
/// on x86, where a fence takes several times as long.
#[inline]
pub(crate) fn publish(at: &AtomicUsize, value: usize) {
    at.store(value, Ordering::SeqCst);
    settle();
}

/// As [`publish`].
#[inline]
pub(crate) fn publish_u64(at: &AtomicU64, value: u64) {
    at.store(value, Ordering::SeqCst);
    settle();
}

/// As [`publish`], to a word that other threads swap.
#[inline]
pub(crate) fn publish_u32(at: &AtomicU32, value: u32) {
    store_u32(at, value, Ordering::SeqCst);
    settle();
}

/// As [`publish`].
#[inline]
pub(crate) fn publish_i32(at: &AtomicI32, value: i32) {
    at.store(value, Ordering::SeqCst);
    settle();
}

/// As [`publish`].
#[inline]
pub(crate) fn publish_bool(at: &AtomicBool, value: bool) {
    store_bool(at, value, Ordering::SeqCst);
    settle();
}

/// As [`publish`], to a word that several threads set: who takes what the last of them has stored sees what
/// all of them wrote before.
#[inline]
pub(crate) fn publish_among(at: &AtomicBool, value: bool) {
    at.swap(value, Ordering::SeqCst);
    settle();
}

/// Counts one more, as [`publish`] stores.
#[inline]
pub(crate) fn publish_one_more(at: &AtomicU32) {
    at.fetch_add(1, Ordering::SeqCst);
    settle();
}

/// Stores to a word that other threads swap.
#[inline]
pub(crate) fn store_bool(at: &AtomicBool, value: bool, order: Ordering) {
    #[cfg(not(loom))]
    at.store(value, order);
    #[cfg(loom)]
    at.swap(value, order);
}

/// Stores to a word that other threads swap.
#[inline]
pub(crate) fn store_u32(at: &AtomicU32, value: u32, order: Ordering) {
    #[cfg(not(loom))]
    at.store(value, order);
    #[cfg(loom)]
    at.swap(value, order);
}

/// Stores to a word that other threads swap.
#[inline]
pub(crate) fn store_u64(at: &AtomicU64, value: u64, order: Ordering) {
    #[cfg(not(loom))]
    at.store(value, order);
    #[cfg(loom)]
    at.swap(value, order);
}

/// What stands between a store and a later look for loom.
#[inline]
fn settle() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

/// Lets whoever holds a short lock get on.
pub(crate) fn spin() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    super::model::thread::yield_now();
}

/// As [`spin`], where it may take a system call's time.
pub(crate) fn give_way() {
    #[cfg(not(loom))]
    std::thread::yield_now();
    #[cfg(loom)]
    super::model::thread::yield_now();
}

pub(crate) use place::Place;

#[cfg(not(loom))]
mod place {
    use std::cell::UnsafeCell;
    use std::mem::MaybeUninit;

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
}

/// The same, which notices when it is used wrongly.
#[cfg(loom)]
mod place {
    use crate::sys::model::cell::UnsafeCell;

    pub(crate) struct Place<T>(UnsafeCell<Option<T>>);

    // SAFETY: as for the other; and loom reports two that use it at a time.
    unsafe impl<T: Send> Sync for Place<T> {}

    impl<T> Place<T> {
        pub(crate) fn new() -> Self {
            Self(UnsafeCell::new(None))
        }

        /// # Safety
        /// As of the other.
        pub(crate) unsafe fn put(&self, value: T) {
            // SAFETY: the caller is the only one here.
            let old = self.0.with_mut(|place| unsafe { (*place).replace(value) });
            assert!(old.is_none(), "a value was overwritten");
        }

        /// # Safety
        /// As of the other.
        pub(crate) unsafe fn take(&self) -> T {
            // SAFETY: the caller is the only one here.
            let value = self.0.with_mut(|place| unsafe { (*place).take() });
            value.expect("a value was taken twice")
        }
    }
}
