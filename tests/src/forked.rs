//! Children that share what a fork shares.
//!
//! Owns [`fork`] and [`Forked`]. Between the fork and its end such a child is the only thread of a copy of a
//! process that had others: it must not take locks or allocate what they might have held, unless the test
//! knows that there are none.

use std::io;

/// A forked child; it is waited for when dropped.
#[derive(Debug)]
pub struct Forked {
    pid: libc::pid_t,
    ended: Option<Ended>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// A child that hangs is ended after so many seconds, by SIGALRM: nobody else may be left to do it.
const HANGS: u32 = 50;

/// Runs `child` in a fork of this process, which ends with the status that it gives, without destructors.
///
/// # Panics
/// If the system makes no more processes.
pub fn fork(child: impl FnOnce() -> i32) -> Forked {
    // SAFETY: the child calls what is below and `_exit` only, and does not return into this process's code.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "no more processes: {}", io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: it sets a timer of this process.
        unsafe { libc::alarm(HANGS) };
        let status = child();
        // SAFETY: ends the process.
        unsafe { libc::_exit(status) }
    }
    Forked { pid, ended: None }
}

/// Ends this process with all that `exit(3)` does: handlers, and destructors of thread-locals.
pub fn exit_with_handlers(status: i32) -> ! {
    // SAFETY: a plain call; handlers are the process's own.
    unsafe { libc::exit(status) }
}

/// Touches a page that nobody has.
pub fn fault() -> i32 {
    // SAFETY: it is not: page 0 is never mapped, and the process ends by this.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(8).write_volatile(1) };
    0
}

impl Forked {
    /// How it ended; waits for that.
    ///
    /// # Panics
    /// If somebody else has waited for it.
    pub fn wait(&mut self) -> Ended {
        if let Some(ended) = self.ended {
            return ended;
        }
        let mut status = 0;
        // SAFETY: a live integer that the call fills.
        let rc = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!(rc, self.pid, "waitpid: {}", io::Error::last_os_error());
        let ended = if libc::WIFSIGNALED(status) {
            Ended::Signal(libc::WTERMSIG(status))
        } else {
            Ended::Exit(libc::WEXITSTATUS(status))
        };
        self.ended = Some(ended);
        ended
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if self.ended.is_none() {
            crate::process::kill(self.pid, libc::SIGKILL);
            let mut status = 0;
            // SAFETY: as in `wait`; a child that is gone is an error that does not matter.
            unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        }
    }
}
