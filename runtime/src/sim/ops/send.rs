//! Sending, as `tcp_sendmsg` and `io_send` do it.
//!
//! Owns what a send takes: as much as the send buffer has room for, the rest later with MSG_WAITALL; the
//! error of the connection first, then EPIPE.

use super::{Attempt, Going, Kind, Op};
use crate::sim::errnos::Call;
use crate::sim::memory::{Fault, Span, copy_in};
use crate::sim::net::SockId;
use crate::sim::net::socket::Phase;
use crate::sim::state::State;

impl State {
    /// What a call of `send(2)` that does not wait takes.
    pub(in crate::sim) fn send_now(&mut self, sock: SockId, from: Span) -> Result<usize, i32> {
        let flags = libc::MSG_DONTWAIT;
        let kind = Kind::Send { from: vec![from], flags };
        let mut op = Op {
            user_data: 0,
            file: None,
            sock: Some(sock),
            kind,
            holds: Vec::new(),
            done: 0,
            going: Going::Waiting,
            cancelled: None,
        };
        self.check_send(op.sock);
        match self.send(&mut op, &[from], flags) {
            Attempt::Done(n, _) => usize::try_from(n).map_err(|_| -n),
            Attempt::Wait => Err(libc::EAGAIN),
        }
    }

    pub(super) fn send(&mut self, op: &mut Op, from: &[Span], flags: i32) -> Attempt {
        let Some(sock) = op.sock else { return Attempt::failed(libc::ENOTSOCK) };
        if let Some(errno) = self.stream_error(sock, Call::Send) {
            let done = op.done as i32;
            return Attempt::Done(if done > 0 { done } else { -errno }, 0);
        }
        let asked: usize = from.iter().map(|span| span.len).sum();
        let all = flags & libc::MSG_WAITALL != 0;
        loop {
            if self.is_connecting(op) {
                return wait_or(flags, op.done);
            }
            let limit = self.faults.send_buffer;
            let Some(socket) = self.socket(sock) else { return Attempt::failed(libc::EPIPE) };
            if socket.error != 0 || socket.send_shut || !matches!(socket.phase, Phase::Open) {
                if op.done > 0 {
                    return Attempt::Done(op.done as i32, 0);
                }
                let errno = socket.take_error();
                return Attempt::failed(if errno == 0 { libc::EPIPE } else { errno });
            }
            let left = asked - op.done;
            let room = limit.saturating_sub(socket.unsent());
            if left > 0 && room == 0 {
                return wait_or(flags, op.done);
            }
            let mut n = left.min(room);
            if n > 1 && self.rng.chance(self.faults.short_write) {
                n = self.rng.between(1, n as u64) as usize;
            }
            let Ok(bytes) = gather(from, op.done, n) else { return Attempt::failed(libc::EFAULT) };
            self.note("sent", &[i64::from(sock.0), n as i64]);
            if let Some(socket) = self.socket(sock) {
                socket.outbox.extend(bytes);
            }
            op.done += n;
            self.transmit(sock);
            if !all || op.done == asked {
                return Attempt::Done(op.done as i32, 0);
            }
            self.settle();
        }
    }
}

fn wait_or(flags: i32, done: usize) -> Attempt {
    if flags & libc::MSG_DONTWAIT == 0 {
        Attempt::Wait
    } else if done > 0 {
        Attempt::Done(done as i32, 0)
    } else {
        Attempt::failed(libc::EAGAIN)
    }
}

/// `n` bytes from position `skip` of several stretches.
fn gather(from: &[Span], skip: usize, n: usize) -> Result<Vec<u8>, Fault> {
    let (mut skip, mut bytes) = (skip, Vec::with_capacity(n));
    for span in from {
        let passed = skip.min(span.len);
        skip -= passed;
        let len = (span.len - passed).min(n - bytes.len());
        if len > 0 {
            bytes.extend(copy_in(Span { addr: span.addr + passed as u64, len })?);
        }
    }
    Ok(bytes)
}
