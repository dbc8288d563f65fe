//! Small ops: connects, shutdowns, readiness, and the count of an eventfd.
//!
//! Owns their attempts, each a few lines over what the network or the files know.

use std::net::{Shutdown, SocketAddr};

use super::{Attempt, Kind, Op, POLL_ALWAYS};
use crate::sim::errnos::Call;
use crate::sim::memory::{Span, write};
use crate::sim::net::SockId;
use crate::sim::net::socket::Phase;
use crate::sim::state::State;

impl State {
    pub(super) fn connect(&mut self, op: &mut Op, to: SocketAddr, begun: bool) -> Attempt {
        let Some(sock) = op.sock else { return Attempt::failed(libc::ENOTSOCK) };
        if !begun && let Some(errno) = self.draw_error(Call::Connect) {
            return Attempt::failed(errno);
        }
        // As `io_connect` does it: a connect that was begun and found an error is told that; any other
        // asks (again), and learns how things stand.
        let Some(socket) = self.socket(sock) else { return Attempt::failed(libc::ECONNRESET) };
        if begun && socket.error != 0 {
            return Attempt::failed(socket.take_error());
        }
        let errno = self.connect_call(sock, to);
        match errno {
            libc::EINPROGRESS => {}
            libc::ECONNABORTED if !begun => {}
            libc::EISCONN if begun => return Attempt::Done(0, 0),
            errno => return Attempt::failed(errno),
        }
        op.kind = Kind::Connect { to, begun: true };
        Attempt::Wait
    }

    /// `connect(2)` without waiting: an errno, or 0.
    fn connect_call(&mut self, sock: SockId, to: SocketAddr) -> i32 {
        let Some(socket) = self.socket(sock) else { return libc::EBADF };
        match (&socket.phase, socket.asked) {
            (Phase::Fresh, false) => match self.begin_connect(sock, to) {
                0 => libc::EINPROGRESS,
                errno => errno,
            },
            (Phase::Connecting, _) => libc::EALREADY,
            (Phase::Open, true) => {
                socket.asked = false;
                0
            }
            (Phase::Fresh | Phase::Ended, true) => {
                let errno = socket.take_error();
                self.disconnect(sock);
                if errno == 0 { libc::ECONNABORTED } else { errno }
            }
            _ => libc::EISCONN,
        }
    }

    pub(super) fn shutdown_op(&mut self, op: &Op, how: Shutdown) -> Attempt {
        match op.sock {
            Some(sock) => Attempt::failed(self.shut_down_or_fail(sock, how)),
            None => Attempt::failed(libc::ENOTSOCK),
        }
    }

    /// `shutdown(2)`: 0 or an errno. One that is to fail finds that the peer has just reset the connection.
    pub(in crate::sim) fn shut_down_or_fail(&mut self, sock: SockId, how: Shutdown) -> i32 {
        let open = self.socket(sock).is_some_and(|s| matches!(s.phase, Phase::Open));
        if open && self.draw_error(Call::Shutdown).is_some() {
            self.break_connection(sock, libc::ECONNRESET);
        }
        self.shut_down(sock, how)
    }

    pub(super) fn poll(&mut self, op: &Op, events: u32, woke: u32) -> Attempt {
        if let Some(errno) = self.draw_error(Call::Poll) {
            return Attempt::failed(errno);
        }
        match woke | self.mask_of(op) & (events | POLL_ALWAYS) {
            0 => Attempt::Wait,
            mask => Attempt::Done(mask as i32, 0),
        }
    }

    pub(super) fn read_count(&mut self, op: &mut Op, span: Span) -> Attempt {
        if let Some(errno) = self.draw_error(Call::ReadEvent) {
            return Attempt::failed(errno);
        }
        let Some(count) = op.file.and_then(|file| self.take_count(file)) else {
            return Attempt::Wait;
        };
        op.holds.clear();
        match write(span.addr, &count) {
            Ok(()) => Attempt::Done(8, 0),
            Err(_) => Attempt::failed(libc::EFAULT),
        }
    }
}
