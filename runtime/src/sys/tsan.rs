//! Locks that ThreadSanitizer sees: with `--cfg tsan`, in the place of `std`'s.
//!
//! Owns the same locks with two words to the sanitizer around each. `std` comes compiled without it, and a
//! lock that somebody else holds and a condition variable are settled in there: what they order would be
//! reported as races. All else is what it is in any other build.

#![expect(missing_docs, reason = "as std's")]

use std::ffi::c_void;
use std::ops::{Deref, DerefMut};
use std::sync::{self, LockResult, PoisonError, TryLockError, TryLockResult, WaitTimeoutResult};
use std::time::Duration;

unsafe extern "C" {
    fn __tsan_acquire(address: *mut c_void);
    fn __tsan_release(address: *mut c_void);
}

fn acquire<T: ?Sized>(what: &T) {
    // SAFETY: an address is all that it takes.
    unsafe { __tsan_acquire(std::ptr::from_ref(what).cast_mut().cast()) };
}

fn release<T: ?Sized>(what: &T) {
    // SAFETY: as above.
    unsafe { __tsan_release(std::ptr::from_ref(what).cast_mut().cast()) };
}

#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// None while a condition variable has it.
    guard: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        acquire(self);
        Ok(MutexGuard { lock: self, guard: Some(guard) })
    }

    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let guard = match self.0.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(TryLockError::WouldBlock),
        };
        acquire(self);
        Ok(MutexGuard { lock: self, guard: Some(guard) })
    }

    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        acquire(self);
        self.0.get_mut()
    }
}

impl<'a, T> MutexGuard<'a, T> {
    fn give(mut self) -> (&'a Mutex<T>, sync::MutexGuard<'a, T>) {
        release(self.lock);
        (self.lock, self.guard.take().expect("it is here while nobody waits with it"))
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.guard.is_some() {
            release(self.lock);
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("it is here while nobody waits with it")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("it is here while nobody waits with it")
    }
}

#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    pub const fn new() -> Self {
        Self(sync::Condvar::new())
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let (lock, guard) = guard.give();
        let guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        acquire(lock);
        Ok(MutexGuard { lock, guard: Some(guard) })
    }

    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let (lock, guard) = guard.give();
        let waited = self.0.wait_timeout(guard, limit);
        let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        acquire(lock);
        Ok((MutexGuard { lock, guard: Some(guard) }, waited))
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
