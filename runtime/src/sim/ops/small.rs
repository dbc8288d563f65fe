//! Small ops: connects, shutdowns, readiness, and the count of an eventfd.
//!
//! Owns their attempts, each a few lines over what the network or the files know.

use std::net::{Shutdown, SocketAddr};

use super::{Attempt, Kind, Op};
use crate::sim::memory::{Span, write};
use crate::sim::net::socket::Phase;
use crate::sim::state::State;

impl State {
    pub(super) fn connect(&mut self, op: &mut Op, to: SocketAddr, begun: bool) -> Attempt {
        let Some(sock) = op.sock else { return Attempt::failed(libc::ENOTSOCK) };
        if !begun {
            if self.rng.chance(self.faults.connect_fails) {
                let errnos =
                    [libc::ENETUNREACH, libc::EADDRNOTAVAIL, libc::EHOSTUNREACH, libc::ENOBUFS];
                return Attempt::failed(self.rng.pick(&errnos));
            }
            let errno = self.begin_connect(sock, to);
            if errno != 0 {
                return Attempt::failed(errno);
            }
            op.kind = Kind::Connect { to, begun: true };
            return Attempt::Wait;
        }
        let Some(socket) = self.socket(sock) else { return Attempt::failed(libc::ECONNRESET) };
        match socket.phase {
            Phase::Connecting => Attempt::Wait,
            _ => Attempt::failed(socket.take_error()),
        }
    }

    pub(super) fn shutdown_op(&mut self, op: &Op, how: Shutdown) -> Attempt {
        match op.sock {
            Some(sock) => Attempt::failed(self.shut_down(sock, how)),
            None => Attempt::failed(libc::ENOTSOCK),
        }
    }

    pub(super) fn poll(&mut self, op: &Op, events: u32) -> Attempt {
        let always = (libc::POLLERR | libc::POLLHUP) as u32;
        match self.mask_of(op) & (events | always) {
            0 => Attempt::Wait,
            mask => Attempt::Done(mask as i32, 0),
        }
    }

    pub(super) fn read_count(&mut self, op: &mut Op, span: Span) -> Attempt {
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
