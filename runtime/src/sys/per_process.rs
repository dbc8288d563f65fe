//! What a process has one of, and a forked child one of its own.
//!
//! Owns [`PerProcess`]. A lock that another thread holds at the moment of a `fork(2)` is locked in the
//! child for ever, and threads that a list speaks of are not there. So a child uses nothing of that, not
//! even to look at it: it makes its own, and leaves its parent's where it is, undropped. A child of a bare
//! `clone(2)`, which runs no handlers, is known by its number.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::forked;

/// One `T` for each process that asks, made when it first does.
pub(crate) struct PerProcess<T> {
    make: fn() -> T,
    /// Null until the first is made. What it points to is never freed once it has been in here.
    newest: AtomicPtr<Of<T>>,
}

struct Of<T> {
    process: u64,
    value: T,
}

impl<T: Sync> PerProcess<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self { make, newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// This process's. Asks the system for the process's number.
    pub(crate) fn get(&'static self) -> &'static T {
        let process = forked::process();
        let found = self.newest.load(Ordering::Acquire);
        // SAFETY: null, or made by Box::into_raw below and never freed.
        match unsafe { found.as_ref() } {
            Some(of) if of.process == process => &of.value,
            _ => self.replace(found, process),
        }
    }

    #[cold]
    fn replace(&'static self, old: *mut Of<T>, process: u64) -> &'static T {
        let fresh = Box::into_raw(Box::new(Of { process, value: (self.make)() }));
        let won = self.newest.compare_exchange(old, fresh, Ordering::AcqRel, Ordering::Acquire);
        // SAFETY: whichever of the two is in there is never freed, and the other one nobody has seen. Who was
        // faster is a thread of this process: no other's writes come to this memory.
        unsafe {
            match won {
                Ok(_) => &(*fresh).value,
                Err(others) => {
                    drop(Box::from_raw(fresh));
                    &(*others).value
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::thread;

    use super::*;
    use crate::sys::locks::Mutex;

    #[test]
    fn all_threads_of_a_process_have_the_same_one() {
        static MADE: AtomicU32 = AtomicU32::new(0);
        static ONE: PerProcess<Mutex<u32>> = PerProcess::new(|| {
            MADE.fetch_add(1, Ordering::Relaxed);
            Mutex::new(0)
        });
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| *ONE.get().lock().unwrap() += 1));
            }
        });
        assert_eq!(*ONE.get().lock().unwrap(), 4000);
        assert!((1..=4).contains(&MADE.load(Ordering::Relaxed)));
    }
}
