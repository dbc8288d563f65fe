//! Receiving, as `tcp_recvmsg` and `io_recv` do it.
//!
//! Owns the order in which a receive looks at a socket: bytes, the peer's end, an error, its own shutdown,
//! and only then waiting.

use super::accept::SHOTS_MAX;
use super::{Attempt, Into, Kind, Op};
use crate::sim::enter::OpRef;
use crate::sim::errnos::Call;
use crate::sim::memory::{Fault, Span, copy_out};
use crate::sim::net::SockId;
use crate::sim::net::socket::Phase;
use crate::sim::state::State;
use crate::sys::abi::cqe_flags;

impl State {
    pub(super) fn recv(&mut self, at: OpRef, op: &mut Op, into: Into, flags: i32) -> Attempt {
        let Some(sock) = op.sock else { return Attempt::failed(libc::ENOTSOCK) };
        if let Some(errno) = self.stream_error(sock, Call::Receive) {
            let done = op.done as i32;
            return Attempt::Done(if done > 0 { done } else { -errno }, 0);
        }
        match into {
            Into::Own(span) => self.recv_own(sock, op, span, flags),
            Into::Group(group, most) => self.recv_select(at, sock, group, most, flags),
        }
    }

    /// Receives until nothing is left; each chunk but the last gives a completion with MORE.
    pub(super) fn recv_many(
        &mut self,
        at: OpRef,
        op: &mut Op,
        group: u16,
        flags: i32,
        mut left: usize,
    ) -> Attempt {
        let Some(sock) = op.sock else { return Attempt::failed(libc::ENOTSOCK) };
        let asked = flags;
        for _ in 0..SHOTS_MAX {
            if let Some(errno) = self.stream_error(sock, Call::Receive) {
                return Attempt::failed(errno);
            }
            let (n, flags) = match self.recv_select(at, sock, group, 0, asked) {
                Attempt::Done(n @ 1.., flags) => (n, flags),
                ended_or_empty => return ended_or_empty,
            };
            left = left.saturating_sub(n as usize);
            op.kind = Kind::RecvMany { group, flags: asked, left };
            // One that does not fit into the queue is the last.
            let ends = left == 0 || self.rng.chance(self.faults.multishot_ended);
            if ends || self.has_backlog(at.ring) {
                return Attempt::Done(n, flags);
            }
            self.post(at.ring, op.user_data, n, flags | cqe_flags::MORE);
        }
        // What is left is found when the op is looked at again, as it is at once.
        Attempt::Wait
    }

    fn recv_own(&mut self, sock: SockId, op: &mut Op, span: Span, flags: i32) -> Attempt {
        let all = flags & libc::MSG_WAITALL != 0;
        loop {
            let left = Span { addr: span.addr + op.done as u64, len: span.len - op.done };
            match self.recv_now(sock, left, flags) {
                Ok(0) if left.len > 0 || span.len == 0 => return Attempt::Done(op.done as i32, 0),
                Ok(n) => {
                    op.done += n;
                    if !all || op.done == span.len {
                        op.holds.clear();
                        return Attempt::Done(op.done as i32, 0);
                    }
                    // What was written is the kernel's own doing.
                    if op.holds.iter_mut().any(|hold| hold.renew().is_err()) {
                        return Attempt::failed(libc::EFAULT);
                    }
                    self.settle();
                }
                Err(libc::EAGAIN) if flags & libc::MSG_DONTWAIT == 0 => return Attempt::Wait,
                Err(_) if op.done > 0 => return Attempt::Done(op.done as i32, 0),
                Err(errno) => return Attempt::failed(errno),
            }
        }
    }

    fn recv_select(
        &mut self,
        at: OpRef,
        sock: SockId,
        group: u16,
        most: usize,
        flags: i32,
    ) -> Attempt {
        // The kernel takes a buffer before it looks at the socket, and puts it back.
        let chosen = match self.choose_buffer(at.ring, group) {
            Ok(chosen) => chosen,
            Err(errno) => return Attempt::failed(errno),
        };
        let len = if most == 0 { chosen.span.len } else { most.min(chosen.span.len) };
        if self.ready_bytes(sock) > 0
            && let Err(errno) = self.commit_buffer(at.ring, group, chosen)
        {
            return Attempt::failed(errno);
        }
        match self.recv_now(sock, Span { len, ..chosen.span }, flags) {
            Ok(0) => Attempt::Done(0, 0),
            Ok(n) => {
                let flags = cqe_flags::BUFFER | u32::from(chosen.bid) << cqe_flags::BUFFER_SHIFT;
                Attempt::Done(n as i32, flags)
            }
            Err(libc::EAGAIN) if flags & libc::MSG_DONTWAIT == 0 => Attempt::Wait,
            Err(errno) => Attempt::failed(errno),
        }
    }

    fn ready_bytes(&mut self, sock: SockId) -> usize {
        self.socket(sock).map_or(0, |socket| socket.inbox.len())
    }

    /// Moves what is there; 0 is the end, EAGAIN that there is nothing yet.
    fn recv_now(&mut self, sock: SockId, into: Span, flags: i32) -> Result<usize, i32> {
        let Some(socket) = self.net.socks.get_mut(&sock) else { return Err(libc::ECONNRESET) };
        if matches!(socket.phase, Phase::Listening(_)) {
            return Err(libc::ENOTCONN);
        }
        let there = socket.inbox.len();
        if there == 0 {
            return match socket.take_or_end() {
                0 => Ok(0),
                errno => Err(errno),
            };
        }
        let mut n = there.min(into.len);
        if n > 1 && self.rng.chance(self.faults.short_read) {
            n = self.rng.between(1, n as u64) as usize;
        }
        let socket = self.net.socks.get_mut(&sock).expect("it was there above");
        let bytes: Vec<u8> = if flags & libc::MSG_PEEK != 0 {
            socket.inbox.iter().take(n).copied().collect()
        } else {
            socket.inbox.drain(..n).collect()
        };
        copy_out(into.addr, &bytes).map_err(|Fault| libc::EFAULT)?;
        self.note("received", &[i64::from(sock.0), n as i64]);
        self.window_opens(sock);
        Ok(n)
    }

    /// A receive or a send meets an error, if it is to: one of the call's, which it ends with, or one of the
    /// connection's, which breaks and tells whoever asks it next.
    pub(super) fn stream_error(&mut self, sock: SockId, call: Call) -> Option<i32> {
        let open = self.net.socks.get(&sock).is_some_and(|s| matches!(s.phase, Phase::Open));
        let errno = self.draw_error(call).filter(|_| open)?;
        if Call::leaves_connection(errno) {
            return Some(errno);
        }
        self.break_connection(sock, errno);
        None
    }

    /// A connection breaks, as both ends will find.
    pub(in crate::sim) fn break_connection(&mut self, sock: SockId, errno: i32) {
        let Some(socket) = self.net.socks.get(&sock) else { return };
        if !matches!(socket.phase, Phase::Open) {
            return;
        }
        let peer = socket.peer;
        self.fail(sock, errno);
        if let Some(peer) = peer {
            self.reset(peer);
        }
    }
}

impl crate::sim::net::socket::Socket {
    /// Without bytes: 0 at the end, else an errno.
    fn take_or_end(&mut self) -> i32 {
        if self.ended_by_peer {
            return 0;
        }
        match self.take_error() {
            0 if self.receive_shut => 0,
            0 if matches!(self.phase, Phase::Fresh | Phase::Ended) => libc::ENOTCONN,
            0 => libc::EAGAIN,
            errno => errno,
        }
    }
}
