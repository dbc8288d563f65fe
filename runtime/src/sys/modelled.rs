//! The system as far as loom's models need it, instead of [`linux`](super::linux).
//!
//! Owns, for each run of a model: a few descriptors, which are open until they are closed, and how often a
//! core was woken through them. Whoever uses one while another thread closes it, or afterwards, is found: a
//! descriptor is a cell that a use reads and a close writes.

use std::os::fd::RawFd;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use super::model::cell::UnsafeCell;
use super::model::sync::{Condvar, Mutex};
use super::model::{Notify, lazy_static};

pub(crate) use super::model::check;

/// Descriptors that there are, from 0.
const DESCRIPTORS: usize = 4;

lazy_static! {
    static ref SYSTEM: System = System {
        open: std::array::from_fn(|_| UnsafeCell::new(true)),
        told: Mutex::new(0),
        news: Condvar::new(),
    };
}

struct System {
    open: [UnsafeCell<bool>; DESCRIPTORS],
    told: Mutex<u32>,
    news: Condvar,
}

/// Makes the system before there are threads.
pub(crate) fn boot() {
    drop(SYSTEM.told.lock());
}

/// As the real one.
pub(crate) fn send_message(ring: RawFd) -> bool {
    write_event(ring);
    true
}

/// As the real one.
pub(crate) fn write_event(fd: RawFd) {
    // SAFETY: loom reports a close at the same time.
    SYSTEM.open[fd as usize].with(|open| assert!(unsafe { *open }, "{fd} has been closed"));
    *SYSTEM.told.lock().unwrap() += 1;
    SYSTEM.news.notify_one();
}

/// Closes a descriptor.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: loom reports a use at the same time.
    SYSTEM.open[fd as usize].with_mut(|open| unsafe { *open = false });
}

/// Sleeps until one of the descriptors was written to, as an enter does.
pub(crate) fn sleep() {
    let mut told = SYSTEM.told.lock().unwrap();
    while *told == 0 {
        told = SYSTEM.news.wait(told).unwrap();
    }
    *told = 0;
}

/// A waker, and who waits for it.
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

/// Drives a future on a thread of a model that has nothing else to do.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let bell = Arc::new(Bell(Notify::new()));
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        bell.0.wait();
    }
}
