//! What happens in a signal handler.
//!
//! Owns [`Inbox`]: which signals came since somebody looked, one bit each, and the eventfd that says so. The
//! handler (signal-hook's, which keeps errno) does two things that may be done there: it sets a bit and
//! writes to the eventfd. The bit is set first, so whoever is told by the descriptor finds it. Who has which
//! signal caught, and which descriptor it is, is the [`Kernel`]'s to say.
//!
//! A process that forks shares the descriptor with its child but not the bits: a signal that hits the child
//! before its exec is at worst a look in vain.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use signal_hook::SigId;
use signal_hook::low_level::unregister;

use super::Kernel;
use super::linux;
use super::shared::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Inbox {
    came: Came,
    event: OwnedFd,
}

impl Inbox {
    pub(crate) fn new(kernel: &dyn Kernel) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { came: Came::default(), event: kernel.eventfd()? }))
    }

    /// The lowest signal of those that came, taken out; none if none did.
    pub(crate) fn take(&self) -> Option<i32> {
        self.came.take()
    }

    /// What a handler does. It may be called in one.
    pub(crate) fn deliver(&self, signal: i32) {
        self.came.add(signal);
        // A descriptor that `self` keeps open; write(2) may be called in a handler.
        linux::write_event(self.event.as_raw_fd());
    }
}

/// Signals that came: number `n` is bit `n - 1`.
#[derive(Debug, Default)]
struct Came(AtomicU64);

impl Came {
    fn add(&self, signal: i32) {
        self.0.fetch_or(1 << (signal - 1), Ordering::AcqRel);
    }

    fn take(&self) -> Option<i32> {
        let came = self.0.load(Ordering::Acquire);
        if came == 0 {
            return None;
        }
        let lowest = came.trailing_zeros();
        self.0.fetch_and(!(1 << lowest), Ordering::AcqRel);
        Some(lowest as i32 + 1)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A signal that goes to an inbox; dropping this ends that. It stays caught.
#[derive(Debug)]
pub(crate) struct Caught(Option<SigId>);

impl Caught {
    /// For a kernel that goes by the inbox: what holds no inbox any more gets none.
    #[cfg_attr(
        not(any(test, feature = "sim")),
        expect(dead_code, reason = "for the simulated kernel")
    )]
    pub(crate) fn as_long_as_the_inbox() -> Self {
        Self(None)
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        if let Some(id) = self.0.take() {
            unregister(id);
        }
    }
}

/// [`Kernel::catch`] of the system.
///
/// # Panics
/// For a signal that signal-hook forbids.
pub(super) fn catch(signal: i32, inbox: &Arc<Inbox>) -> io::Result<Caught> {
    let inbox = inbox.clone();
    // SAFETY: the action takes no lock and allocates nothing: an atomic operation and a write(2). Its own
    // destructor runs outside of the handler.
    let id = unsafe { signal_hook::low_level::register(signal, move || inbox.deliver(signal)) }?;
    Ok(Caught(Some(id)))
}

/// The numbers of real-time signals that the C library leaves to programs.
pub(crate) fn real_time_range() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::Came;
    use crate::sys::model::thread;
    use crate::sys::modelled;

    /// What [`Inbox::deliver`](super::Inbox::deliver) and a wait for it do, with a descriptor of the model's.
    #[test]
    fn loom_signals_none_is_lost_between_a_look_and_a_wait() {
        modelled::check(4, || {
            modelled::boot();
            let came = Arc::new(Came::default());
            let handler = |signal| {
                let came = came.clone();
                thread::spawn(move || {
                    came.add(signal);
                    modelled::write_event(0);
                })
            };
            let handlers = [handler(1), handler(15)];
            let mut taken = Vec::new();
            while taken.len() < 2 {
                match came.take() {
                    Some(signal) => taken.push(signal),
                    // Waits until it is readable, then makes it unreadable, then looks.
                    None => modelled::sleep(),
                }
            }
            taken.sort_unstable();
            assert_eq!(taken, [1, 15]);
            handlers.into_iter().for_each(|handler| handler.join().unwrap());
        });
    }
}
