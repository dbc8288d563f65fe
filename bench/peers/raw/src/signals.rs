//! Signals as a descriptor: no handler runs, so none can come between a check and a sleep.
//!
//! `--seconds` is an alarm, which arrives the same way as the signal that ends the process early.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGUSR1: print the counters and go on.
    Report,
    /// SIGTERM, SIGINT or the alarm: print the counters and exit.
    Stop,
}

/// The descriptor that signals arrive on; readable when [`Signals::take`] has something to give.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals for this thread and opens the descriptor; the alarm is set if `seconds`
    /// says so. To be called before another thread exists.
    pub fn open(seconds: Option<u32>) -> io::Result<Self> {
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initializes the mask before the others read it; the descriptor is
        // checked before it becomes owned, and nobody else has it.
        unsafe {
            libc::sigemptyset(mask.as_mut_ptr());
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGALRM] {
                libc::sigaddset(mask.as_mut_ptr(), signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, mask.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, mask.as_ptr(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            if let Some(seconds) = seconds {
                libc::alarm(seconds.max(1));
            }
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// The next signal that has arrived, if any.
    pub fn take(&self) -> Option<Request> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes, which is what `info` has.
        let count = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if count != size as isize {
            return None;
        }
        // SAFETY: the kernel has written all of it.
        let signal = unsafe { info.assume_init() }.ssi_signo as i32;
        Some(if signal == libc::SIGUSR1 { Request::Report } else { Request::Stop })
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
