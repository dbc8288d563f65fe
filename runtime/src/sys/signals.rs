//! What happens in a signal handler.
//!
//! Owns [`Inbox`]: which signals came since somebody looked, one bit each, and the eventfd that says so. The
//! handler (signal-hook's, which keeps errno) does two things that may be done there: it sets a bit and
//! writes to the eventfd. The bit is set first, so whoever is told by the descriptor finds it.
//!
//! A process that forks shares the descriptor with its child but not the bits: a signal that hits the child
//! before its exec is at worst a look in vain.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use signal_hook::SigId;

use super::Kernel;
use super::linux::Linux;

/// Signals that came: number `n` is bit `n - 1`.
#[derive(Debug)]
pub(crate) struct Inbox {
    came: AtomicU64,
    event: File,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let event = File::from(Linux.eventfd()?);
        Ok(Arc::new(Self { came: AtomicU64::new(0), event }))
    }

    /// The lowest signal of those that came, taken out; none if none did.
    pub(crate) fn take(&self) -> Option<i32> {
        let came = self.came.load(Ordering::Acquire);
        if came == 0 {
            return None;
        }
        let lowest = came.trailing_zeros();
        self.came.fetch_and(!(1 << lowest), Ordering::AcqRel);
        Some(lowest as i32 + 1)
    }

    /// Makes the descriptor unreadable until the next signal. To be followed by a [`take`](Self::take).
    pub(crate) fn hush(&self) {
        use std::io::Read;
        // It does not block; nothing to read is what is wanted.
        let _ = (&self.event).read(&mut [0; 8]);
    }

    fn deliver(&self, signal: i32) {
        self.came.fetch_or(1 << (signal - 1), Ordering::AcqRel);
        let one = 1u64;
        // SAFETY: 8 live bytes, and a descriptor that `self` keeps open; write(2) may be called in a handler.
        // It does not block, and a full count is readable anyway.
        unsafe { libc::write(self.event.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Has `signal` (1 to 64) delivered to `inbox` too from now on.
///
/// # Panics
/// For a signal that signal-hook forbids.
pub(crate) fn deliver_to(inbox: &Arc<Inbox>, signal: i32) -> io::Result<SigId> {
    let inbox = inbox.clone();
    // SAFETY: the action takes no lock and allocates nothing: an atomic operation and a write(2). Its own
    // destructor runs outside of the handler.
    unsafe { signal_hook::low_level::register(signal, move || inbox.deliver(signal)) }
}

/// The numbers of real-time signals that the C library leaves to programs.
pub(crate) fn real_time_range() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}
