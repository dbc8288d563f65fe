//! One socket.
//!
//! Owns [`Socket`] and its [`Phase`]s, what `poll(2)` says of it, its shutdown and its close. A Unix socket
//! is in one phase for ever, and `local` knows it; the others are TCP's:
//! ```text
//! Fresh --listen--> Listening --close--> gone
//! Fresh --connect--> Connecting --answer--> Open      (refused: Fresh again, with an error)
//! (a connection to a listener) Embryo --established--> Open
//! Open --both ends said, or a reset--> Ended --close--> gone
//! Open --close--> orphan: sends what is left, then its end --acknowledged--> gone
//! ```

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use super::listener::Listener;
use super::local::Local;
use super::stream::{Fin, Packet, Posted};
use super::{Event, HostId, SockId};
use crate::sim::enter::OpRef;
use crate::sim::state::State;

pub(in crate::sim) struct Socket {
    pub(in crate::sim) host: HostId,
    pub(in crate::sim) family: i32,
    pub(in crate::sim) local: Option<SocketAddr>,
    pub(in crate::sim) remote: Option<SocketAddr>,
    pub(in crate::sim) phase: Phase,
    /// It is on the books of its port; one that was not asked for by `bind(2)` is given up when the
    /// connection ends.
    pub(in crate::sim) holds_port: bool,
    pub(in crate::sim) port_asked: bool,
    /// SO_REUSEADDR and SO_REUSEPORT, as they were at the bind.
    pub(in crate::sim) reuse_addr: bool,
    pub(in crate::sim) reuse_port: bool,
    pub(in crate::sim) linger: Option<Duration>,
    /// A connect has been begun, and no call has been told how it ended.
    pub(in crate::sim) asked: bool,
    /// The errno that the next call is told, once.
    pub(in crate::sim) error: i32,
    /// Ops that may wait for something here.
    pub(in crate::sim) waiters: Vec<OpRef>,
    /// No descriptor names it any more.
    pub(in crate::sim) orphan: bool,

    pub(in crate::sim) peer: Option<SockId>,
    /// Taken from the user, not yet sent.
    pub(in crate::sim) outbox: VecDeque<u8>,
    /// Sent, not yet acknowledged.
    pub(in crate::sim) unacked: usize,
    pub(in crate::sim) fin: Fin,
    /// On the way to the peer.
    pub(in crate::sim) wire: VecDeque<Posted>,
    pub(in crate::sim) wire_bytes: usize,
    /// Arrived, not yet read.
    pub(in crate::sim) inbox: VecDeque<u8>,
    /// The peer's end has arrived.
    pub(in crate::sim) ended_by_peer: bool,
    pub(in crate::sim) send_shut: bool,
    pub(in crate::sim) receive_shut: bool,
}

pub(in crate::sim) enum Phase {
    Fresh,
    Listening(Listener),
    Connecting,
    /// The listener's end of a connection that is not established; with its listener.
    Embryo(SockId),
    Open,
    Ended,
    Local(Box<Local>),
}

impl Socket {
    pub(in crate::sim) fn new(host: HostId, family: i32) -> Self {
        Self {
            host,
            family,
            local: None,
            remote: None,
            phase: Phase::Fresh,
            holds_port: false,
            port_asked: false,
            reuse_addr: false,
            reuse_port: false,
            linger: None,
            asked: false,
            error: 0,
            waiters: Vec::new(),
            orphan: false,
            peer: None,
            outbox: VecDeque::new(),
            unacked: 0,
            fin: Fin::None,
            wire: VecDeque::new(),
            wire_bytes: 0,
            inbox: VecDeque::new(),
            ended_by_peer: false,
            send_shut: false,
            receive_shut: false,
        }
    }

    /// Bytes that count against the send buffer.
    pub(in crate::sim) fn unsent(&self) -> usize {
        self.outbox.len() + self.unacked
    }

    pub(in crate::sim) fn is_listener(&self) -> bool {
        match &self.phase {
            Phase::Local(local) => local.is_listener(),
            phase => matches!(phase, Phase::Listening(_)),
        }
    }

    /// The pending error, once; 0 for none.
    pub(in crate::sim) fn take_error(&mut self) -> i32 {
        std::mem::take(&mut self.error)
    }

    /// The `POLL*` events, as `tcp_poll` has them.
    pub(in crate::sim) fn poll_mask(&self, send_buffer: usize) -> u32 {
        let (input, output) = (libc::POLLIN | libc::POLLRDNORM, libc::POLLOUT | libc::POLLWRNORM);
        let mut mask = 0;
        match &self.phase {
            Phase::Listening(listener) => {
                return if listener.ready.is_empty() { 0 } else { input as u32 };
            }
            Phase::Local(local) => return local.poll_mask(self, send_buffer),
            Phase::Fresh | Phase::Ended => mask |= libc::POLLHUP,
            _ if self.send_shut && self.receive_shut => mask |= libc::POLLHUP,
            _ => {}
        }
        if self.receive_shut {
            mask |= input | libc::POLLRDHUP;
        }
        if !matches!(self.phase, Phase::Connecting | Phase::Embryo(_)) {
            if !self.inbox.is_empty() {
                mask |= input;
            }
            let free = send_buffer.saturating_sub(self.unsent());
            if self.send_shut || free * 2 >= self.unsent() {
                mask |= output;
            }
        }
        if self.error != 0 {
            mask |= libc::POLLERR;
        }
        mask as u16 as u32
    }
}

impl State {
    pub(in crate::sim) fn socket(&mut self, id: SockId) -> Option<&mut Socket> {
        self.net.socks.get_mut(&id)
    }

    /// `shutdown(2)`: 0 or an errno.
    pub(in crate::sim) fn shut_down(&mut self, id: SockId, how: Shutdown) -> i32 {
        self.note("shutdown", &[i64::from(id.0), how as i64]);
        let Some(socket) = self.socket(id) else { return libc::EBADF };
        let (receive, send) = (how != Shutdown::Write, how != Shutdown::Read);
        match socket.phase {
            Phase::Fresh | Phase::Ended => {
                // Refused, and remembered all the same.
                socket.receive_shut |= receive;
                socket.send_shut |= send;
                self.touch(id);
                return libc::ENOTCONN;
            }
            Phase::Listening(_) | Phase::Connecting => {
                if matches!(socket.phase, Phase::Connecting) || how != Shutdown::Write {
                    self.disconnect(id);
                }
                return 0;
            }
            Phase::Local(_) => return self.shut_down_local(id, how),
            Phase::Open | Phase::Embryo(_) => {}
        }
        socket.receive_shut |= receive;
        socket.send_shut |= send;
        if send && socket.fin == Fin::None {
            socket.fin = Fin::Wanted;
            self.transmit(id);
        }
        self.touch(id);
        0
    }

    /// A listener or a connect is ended, as `tcp_disconnect` does it: the socket is as good as new.
    pub(in crate::sim) fn disconnect(&mut self, id: SockId) {
        self.leave_sharing(id);
        let Some(socket) = self.socket(id) else { return };
        let phase = std::mem::replace(&mut socket.phase, Phase::Fresh);
        socket.send_shut = false;
        socket.receive_shut = false;
        socket.ended_by_peer = false;
        socket.asked = false;
        socket.remote = None;
        match phase {
            Phase::Listening(listener) => self.drop_queued(listener),
            Phase::Connecting => socket.error = libc::ECONNRESET,
            _ => {}
        }
        self.give_port_up(id);
        self.touch(id);
    }

    /// Nothing names the socket any more.
    pub(in crate::sim) fn close_socket(&mut self, id: SockId) {
        self.leave_sharing(id);
        let Some(socket) = self.socket(id) else { return };
        socket.orphan = true;
        let unread = !socket.inbox.is_empty();
        let abort = unread || socket.linger == Some(Duration::ZERO);
        self.note("end", &[i64::from(id.0), i64::from(unread)]);
        let Some(socket) = self.net.socks.get_mut(&id) else { return };
        match std::mem::replace(&mut socket.phase, Phase::Open) {
            Phase::Listening(listener) => {
                self.forget(id);
                self.drop_queued(listener);
            }
            Phase::Fresh | Phase::Connecting => self.forget(id),
            Phase::Local(local) => self.close_local(id, *local, false),
            Phase::Ended => {
                socket.phase = Phase::Ended;
                self.forget_if_done(id);
            }
            Phase::Open | Phase::Embryo(_) if abort => self.abort(id),
            Phase::Open | Phase::Embryo(_) => {
                socket.receive_shut = true;
                socket.send_shut = true;
                if socket.fin == Fin::None {
                    socket.fin = Fin::Wanted;
                    self.transmit(id);
                }
                self.forget_if_done(id);
            }
        }
    }

    /// Ends a connection by a reset: what was not sent is thrown away.
    pub(in crate::sim) fn abort(&mut self, id: SockId) {
        let Some(socket) = self.socket(id) else { return };
        socket.outbox.clear();
        socket.inbox.clear();
        socket.phase = Phase::Ended;
        socket.send_shut = true;
        socket.receive_shut = true;
        self.put_on_wire(id, Packet::Reset);
        self.give_port_up(id);
        self.touch(id);
    }

    /// A reset has arrived.
    pub(in crate::sim) fn reset(&mut self, id: SockId) {
        let Some(socket) = self.socket(id) else { return };
        let errno = match socket.phase {
            Phase::Open | Phase::Embryo(_) if socket.ended_by_peer && !socket.send_shut => {
                libc::EPIPE
            }
            Phase::Open | Phase::Embryo(_) => libc::ECONNRESET,
            _ => return,
        };
        self.fail(id, errno);
    }

    /// The connection is over with an error.
    pub(in crate::sim) fn fail(&mut self, id: SockId, errno: i32) {
        self.note("fail", &[i64::from(id.0), i64::from(errno)]);
        let Some(socket) = self.net.socks.get_mut(&id) else { return };
        let waiting = match socket.phase {
            Phase::Embryo(listener) => Some(listener),
            _ => None,
        };
        socket.error = errno;
        socket.phase = Phase::Ended;
        socket.send_shut = true;
        socket.receive_shut = true;
        socket.outbox.clear();
        socket.wire.clear();
        socket.wire_bytes = 0;
        socket.unacked = 0;
        if let Some(listener) = waiting {
            self.forget_embryo(listener, id);
            return;
        }
        self.give_port_up(id);
        self.touch(id);
        self.forget_if_done(id);
    }

    /// An orphan goes when nothing of it is on the way and its end is known, or will never be.
    pub(in crate::sim) fn forget_if_done(&mut self, id: SockId) {
        let Some(socket) = self.socket(id) else { return };
        let over = matches!(socket.phase, Phase::Ended) || socket.fin == Fin::Acked;
        if socket.orphan && over && socket.wire.is_empty() {
            self.forget(id);
        }
    }

    /// Resets all connections between two hosts, at both ends at once.
    pub(in crate::sim) fn reset_connections(&mut self, a: HostId, b: HostId) {
        self.note("resets", &[i64::from(a.0), i64::from(b.0)]);
        let between = |state: &Self, socket: &Socket| {
            let there = socket.peer.and_then(|peer| state.net.socks.get(&peer)).map(|p| p.host);
            let ends = (socket.host, there);
            ends == (a, Some(b)) || ends == (b, Some(a))
        };
        let hit: Vec<SockId> =
            self.net.socks.iter().filter(|(_, s)| between(self, s)).map(|(id, _)| *id).collect();
        for id in hit {
            self.reset(id);
        }
        self.settle();
        self.run_unasked();
    }

    /// All sockets of a host are gone, and nobody is told: peers find out when they send.
    pub(in crate::sim) fn crash(&mut self, host: HostId) {
        self.note("crash", &[i64::from(host.0)]);
        let own: Vec<SockId> =
            self.net.socks.iter().filter(|(_, s)| s.host == host).map(|(id, _)| *id).collect();
        for id in own {
            let Some(mut socket) = self.net.socks.remove(&id) else { continue };
            self.leave_port(id, &socket);
            if let Phase::Local(local) = &mut socket.phase {
                local.take_inbox().into_iter().for_each(|message| self.drop_message(message));
            }
            // What is left of it fails whatever its own ops ask for, until they let go of it.
            let mut husk = Socket::new(host, socket.family);
            husk.phase = Phase::Ended;
            husk.send_shut = true;
            husk.receive_shut = true;
            husk.error = libc::ECONNRESET;
            husk.waiters = socket.waiters;
            husk.orphan = socket.orphan;
            self.net.socks.insert(id, husk);
            self.touch(id);
            self.forget_if_done(id);
        }
        self.settle();
        self.run_unasked();
    }

    /// Something has changed: ops that wait for it are told.
    pub(in crate::sim) fn touch(&mut self, id: SockId) {
        let Some(socket) = self.socket(id) else { return };
        let waiters = socket.waiters.clone();
        for op in waiters {
            self.tell(op);
        }
    }

    /// The far end of a socket learns something after a packet's time.
    pub(in crate::sim) fn answer(&mut self, from: HostId, to: SockId, event: Event) {
        let Some(there) = self.socket(to).map(|s| s.host) else { return };
        self.send_event(from, there, event);
    }
}
