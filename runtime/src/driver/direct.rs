//! Sends that are made at once.
//!
//! Owns when a send is a system call of its own, made where it is asked for, and not one of the turn's
//! submissions. What a turn asks for goes to the kernel in one call, and what that brought is for the next
//! turn: with many tasks a turn that saves calls. With few it saves none, and each answer waits for the end
//! of the turn and for another one that tells its task. So where few are to be polled a send is tried at
//! once; what does not fit into the socket's buffer goes the ordinary way.
//!
//! A turn makes as many as it may have tasks, and each poll one: who goes on sending gives way as ever.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;

use super::Driver;
use super::ring::Ring;
use crate::metrics::Kind;

/// Sends of more bytes than this are ops: they seldom fit, and are copied at length either way.
const BYTES_MAX: usize = 64 * 1024;

/// What the rule knows.
pub(super) struct Direct {
    /// Tasks that a turn may have for its sends to be made at once; 0 for never.
    tasks_max: Cell<u32>,
    /// Tasks of the present turn in the lower half, sends that it has made at once in the upper one: one
    /// word, which each turn writes.
    turn: Cell<u64>,
    /// The poll that sent last.
    poll: Cell<u64>,
}

/// A send that a turn has made.
const MADE: u64 = 1 << 32;

impl Direct {
    pub(super) fn new(tasks_max: u32) -> Self {
        Self { tasks_max: Cell::new(tasks_max), turn: Cell::new(0), poll: Cell::new(0) }
    }

    /// Whether the next one is due, in the poll of this number: then it counts.
    fn is_due(&self, poll: u64) -> bool {
        let due = self.turn.get() / MADE < u64::from(self.tasks_max.get())
            && self.poll.replace(poll) != poll;
        if due {
            self.turn.set(self.turn.get() + MADE);
        }
        due
    }
}

impl Driver {
    /// A turn begins that polls so many.
    #[inline]
    pub(crate) fn turn_polls(&self, tasks: usize) {
        self.direct.turn.set(u64::from(tasks as u32));
    }

    /// Whether the turn has so few tasks that a send may be made at once.
    #[inline]
    pub(crate) fn has_few_tasks(&self) -> bool {
        self.direct.turn.get() as u32 <= self.direct.tasks_max.get()
    }

    /// Sends what `socket` has room for now, if that is due in the poll of this number; how much it was.
    /// None if the send is to be an op: also where the call said nothing that an op would not say again.
    ///
    /// # Safety
    /// `from` points at `len` bytes that are there and that nobody changes during the call.
    pub(crate) unsafe fn send_at_once(
        &self,
        socket: BorrowedFd<'_>,
        from: *const u8,
        len: usize,
        poll: u64,
    ) -> Option<io::Result<usize>> {
        let fits = len > 0 && len <= BYTES_MAX;
        if !self.has_few_tasks() || !fits || !self.direct.is_due(poll) || !self.may_use_ring() {
            return None;
        }
        // SAFETY: as the caller promises.
        match unsafe { self.kernel.send(socket, from, len) } {
            Ok(n) => {
                self.metrics.count(Kind::DirectSends);
                Some(Ok(n))
            }
            Err(e) => self.not_sent(e),
        }
    }

    /// Whether the loop is open and this process's. A forked child has not got the ring's memory: it ends
    /// here, by the fault that it is told of, before it has written to its parent's connection.
    fn may_use_ring(&self) -> bool {
        !self.closed.get() && self.ring.borrow().as_ref().is_some_and(Ring::has_room)
    }

    /// What a call that sent nothing says: nothing that lasts, or the connection's error, of which the
    /// kernel tells once.
    #[cold]
    fn not_sent(&self, e: io::Error) -> Option<io::Result<usize>> {
        match e.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::ENOBUFS) => None,
            _ => match self.kernel.refuses_to_send() {
                None => Some(Err(e)),
                Some(why) => {
                    // It would cost a call in vain each time.
                    self.direct.tasks_max.set(0);
                    self.say_step_down("direct_sends", &format!("off: send(2) is refused: {why}"));
                    None
                }
            },
        }
    }
}
