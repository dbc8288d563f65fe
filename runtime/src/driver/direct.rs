//! Sends that are made at once.
//!
//! Owns when a send is a system call of its own, made where it is asked for, and not one of the turn's
//! submissions. What a turn asks for goes to the kernel in one call, and what that brought is for the next
//! turn: with many tasks a turn that saves calls. With few it saves none, and each answer waits for the end
//! of the turn and for another one that tells its task. So where few are to be polled a send is tried at
//! once; what does not fit into the socket's buffer goes the ordinary way.
//!
//! Each poll sends once like this: one that goes on sending gives way as it always did.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;

use super::Driver;
use crate::metrics::Kind;

/// What the rule knows.
pub(super) struct Direct {
    /// Tasks that a turn may have for its sends to be made at once; 0 for never.
    tasks_max: Cell<u32>,
    /// Whether the present turn has no more.
    few: Cell<bool>,
    /// The poll that sent last.
    poll: Cell<u64>,
}

impl Direct {
    pub(super) fn new(tasks_max: u32) -> Self {
        Self { tasks_max: Cell::new(tasks_max), few: Cell::new(false), poll: Cell::new(0) }
    }
}

impl Driver {
    /// A turn begins that polls so many.
    #[inline]
    pub(crate) fn turn_polls(&self, tasks: usize) {
        self.direct.few.set(tasks <= self.direct.tasks_max.get() as usize);
    }

    /// Sends what `socket` has room for now, if that is due in the poll of this number; how much it was.
    /// None if the send is to be an op: also where the call said nothing that an op would not say again.
    ///
    /// # Safety
    /// `from` points at `len` bytes that are there and that nobody changes during the call.
    #[inline]
    pub(crate) unsafe fn send_at_once(
        &self,
        socket: BorrowedFd<'_>,
        from: *const u8,
        len: usize,
        poll: u64,
    ) -> Option<io::Result<usize>> {
        let due = self.direct.few.get() && !self.closed.get();
        if !due || self.direct.poll.replace(poll) == poll {
            return None;
        }
        // SAFETY: as the caller promises.
        let sent = unsafe { self.kernel.send(socket, from, len) };
        match sent {
            Ok(0) => None,
            Ok(n) => {
                self.metrics.count(Kind::DirectSends);
                Some(Ok(n))
            }
            // What broke the connection is told once: an op would not hear of it any more.
            Err(e) if is_of_connection(&e) => Some(Err(e)),
            Err(e) => {
                if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) {
                    self.give_direct_sends_up(&e);
                }
                None
            }
        }
    }
}

impl Driver {
    /// A filter forbids the call: it would cost one in vain each time.
    #[cold]
    fn give_direct_sends_up(&self, why: &io::Error) {
        self.direct.tasks_max.set(0);
        self.direct.few.set(false);
        self.say_step_down("direct_sends", &format!("asked for, off: send(2) is refused: {why}"));
    }
}

/// Whether an error is the connection's, and not of the moment, of the call, or of a filter.
fn is_of_connection(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(
            libc::EPIPE
                | libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::ETIMEDOUT
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::ENETRESET
                | libc::EHOSTDOWN
                | libc::ECONNREFUSED
                | libc::ENOTCONN
        )
    )
}
