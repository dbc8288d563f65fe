//! Accepting.
//!
//! Owns the hand-over of a connection to a descriptor, once or many times. A connection for which there is
//! no descriptor goes back to the head of its queue.

use std::os::fd::{AsRawFd, IntoRawFd};

use super::{Attempt, Op};
use crate::sim::enter::OpRef;
use crate::sim::errnos::Call;
use crate::sim::files::{FileKind, option, placeholder, set_option};
use crate::sim::net::SockId;
use crate::sim::state::State;
use crate::sys::abi::cqe_flags;

/// Completions that one attempt of a multishot op gives, `MULTISHOT_MAX_RETRY`.
pub(super) const SHOTS_MAX: usize = 32;

impl State {
    pub(super) fn accept(&mut self, at: OpRef, op: &Op, multishot: bool) -> Attempt {
        let Some(listener) = op.sock else { return Attempt::failed(libc::ENOTSOCK) };
        let mut shots = 0;
        loop {
            let fd = match self.accept_one(listener, op) {
                Ok(fd) => fd,
                Err(libc::EAGAIN) => return Attempt::Wait,
                Err(errno) => return Attempt::failed(errno),
            };
            if !multishot || self.rng.chance(self.faults.multishot_ended) {
                return Attempt::Done(fd, 0);
            }
            // One that does not fit into the queue is the last.
            if self.has_backlog(at.ring) {
                return Attempt::Done(fd, 0);
            }
            self.post(at.ring, op.user_data, fd, cqe_flags::MORE);
            shots += 1;
            if shots == SHOTS_MAX {
                // What is left is found when the op is looked at again, as it is at once.
                return Attempt::Wait;
            }
        }
    }

    fn accept_one(&mut self, listener: SockId, op: &Op) -> Result<i32, i32> {
        let child = self.take_connection(listener)?;
        if let Some(errno) = self.draw_error(Call::Accept) {
            if Call::leaves_queue(errno) {
                self.return_connection(listener, child);
            } else {
                self.give_up(child);
            }
            return Err(errno);
        }
        match self.descriptor_for(child, listener, op) {
            Ok(fd) => {
                self.note("accepted", &[i64::from(listener.0), i64::from(child.0)]);
                Ok(fd)
            }
            Err(e) => {
                self.return_connection(listener, child);
                Err(e.raw_os_error().unwrap_or(libc::ENOMEM))
            }
        }
    }

    fn descriptor_for(&mut self, child: SockId, listener: SockId, op: &Op) -> std::io::Result<i32> {
        let (family, host) = match self.socket(listener) {
            Some(socket) => (socket.family, socket.host),
            None => return Err(std::io::Error::from_raw_os_error(libc::EBADF)),
        };
        let fd = self.owned(placeholder(family))?;
        // Options are inherited from the listening socket; this is the one that matters.
        if let Some(of) = op.file.and_then(|file| self.descriptor_of(file)) {
            let nodelay = option(of, libc::IPPROTO_TCP, libc::TCP_NODELAY);
            set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, nodelay);
        }
        self.install(&fd, host, FileKind::Socket(child), None)?;
        // From here on the number belongs to whoever reaps the completion.
        Ok(fd.into_raw_fd())
    }

    /// A connection that was accepted and that nobody gets.
    fn give_up(&mut self, child: SockId) {
        if let Some(socket) = self.socket(child) {
            socket.orphan = true;
        }
        self.abort(child);
    }
}
