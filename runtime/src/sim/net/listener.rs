//! How connections come about.
//!
//! Owns binding, listening, the three packets of a connect, and the queue of a listener. A request finds
//! the listeners of its address and port, one of them by chance if they share the port (SO_REUSEPORT); a
//! full queue drops the request, and the client asks again.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::socket::{Phase, Socket};
use super::stream::Packet;
use super::{Event, HostId, SockId, family_of, unspecified};
use crate::sim::state::State;

pub(in crate::sim) struct Listener {
    pub(in crate::sim) backlog: usize,
    /// Established and not yet accepted.
    pub(in crate::sim) ready: VecDeque<SockId>,
    /// Asked for and not yet established.
    pub(in crate::sim) embryos: Vec<SockId>,
}

/// What the system caps a backlog at, `net.core.somaxconn`.
const BACKLOG_MAX: usize = 4096;

/// Requests for one connection, as `net.ipv4.tcp_syn_retries` has it.
const SYN_MAX: u32 = 6;

/// Pause before the second of them; it doubles.
const SYN_AGAIN_NS: u64 = 1_000_000_000;

impl State {
    /// `bind(2)`: 0 or an errno.
    pub(in crate::sim) fn bind_to(
        &mut self,
        id: SockId,
        addr: SocketAddr,
        reuse: (bool, bool),
    ) -> i32 {
        let Some(socket) = self.net.socks.get(&id) else { return libc::EBADF };
        let host = socket.host;
        if socket.holds_port || !matches!(socket.phase, Phase::Fresh | Phase::Ended) {
            return libc::EINVAL;
        }
        if family_of(&addr) != socket.family {
            return if addr.is_ipv6() { libc::EAFNOSUPPORT } else { libc::EINVAL };
        }
        if !addr.ip().is_unspecified() && !self.is_own(host, addr.ip()) {
            return libc::EADDRNOTAVAIL;
        }
        let mut addr = addr;
        let asked = addr.port() != 0;
        if !asked {
            let Some(port) = self.free_port(host) else { return libc::EADDRINUSE };
            addr.set_port(port);
        } else if self.is_taken(host, &addr, reuse) {
            return libc::EADDRINUSE;
        }
        self.note("bind", &[i64::from(id.0), i64::from(addr.port())]);
        self.take_port(id, host, addr.port());
        let socket = self.net.socks.get_mut(&id).expect("it was there above");
        socket.local = Some(addr);
        socket.port_asked = asked;
        (socket.reuse_addr, socket.reuse_port) = reuse;
        0
    }

    /// Whether somebody's use of the port stands in the way of a bind.
    fn is_taken(
        &self,
        host: HostId,
        addr: &SocketAddr,
        (reuse_addr, reuse_port): (bool, bool),
    ) -> bool {
        self.on_port(host, addr.port()).iter().any(|other| {
            let Some(other) = self.net.socks.get(other) else { return false };
            let Some(local) = other.local else { return false };
            let (here, there) = (addr.ip(), local.ip());
            let meet = here.is_ipv4() == there.is_ipv4()
                && (here == there || here.is_unspecified() || there.is_unspecified());
            let listening = matches!(other.phase, Phase::Listening(_));
            let both_addr = reuse_addr && other.reuse_addr && !listening;
            meet && !both_addr && !(reuse_port && other.reuse_port)
        })
    }

    /// `listen(2)`: 0 or an errno.
    pub(in crate::sim) fn listen_on(&mut self, id: SockId, backlog: i32) -> i32 {
        let Some(socket) = self.net.socks.get(&id) else { return libc::EBADF };
        // A negative backlog is a huge one, as the kernel compares it unsigned.
        let backlog = usize::try_from(backlog).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX);
        let family = socket.family;
        let host = socket.host;
        match &socket.phase {
            Phase::Fresh if !socket.asked => {}
            Phase::Listening(_) => {
                let socket = self.net.socks.get_mut(&id).expect("it was there above");
                if let Phase::Listening(listener) = &mut socket.phase {
                    listener.backlog = backlog;
                }
                return 0;
            }
            _ => return libc::EINVAL,
        }
        match socket.local.filter(|_| socket.holds_port) {
            None => {
                let reuse = (socket.reuse_addr, socket.reuse_port);
                let errno = self.bind_to(id, unspecified(family), reuse);
                if errno != 0 {
                    return errno;
                }
            }
            Some(local) if self.is_heard(host, id, &local) => return libc::EADDRINUSE,
            Some(_) => {}
        }
        self.note("listen", &[i64::from(id.0), backlog as i64]);
        let socket = self.net.socks.get_mut(&id).expect("it was there above");
        let listener = Listener { backlog, ready: VecDeque::new(), embryos: Vec::new() };
        socket.phase = Phase::Listening(listener);
        self.join_sharing(id);
        0
    }

    /// Whether somebody else listens there who does not share.
    fn is_heard(&self, host: HostId, id: SockId, addr: &SocketAddr) -> bool {
        let shares = self.net.socks[&id].reuse_port;
        self.on_port(host, addr.port()).iter().any(|other| {
            let Some(socket) = self.net.socks.get(other) else { return false };
            let there = socket.local.map(|local| local.ip());
            let meet = there.is_some_and(|ip| {
                ip.is_ipv4() == addr.is_ipv4()
                    && (ip == addr.ip() || ip.is_unspecified() || addr.ip().is_unspecified())
            });
            let listening = matches!(socket.phase, Phase::Listening(_));
            *other != id && listening && meet && !(shares && socket.reuse_port)
        })
    }

    /// A connect of a socket that is not connected: an errno, or 0 with the request on its way.
    pub(in crate::sim) fn begin_connect(&mut self, id: SockId, to: SocketAddr) -> i32 {
        let Some(socket) = self.net.socks.get(&id) else { return libc::EBADF };
        let host = socket.host;
        if family_of(&to) != socket.family {
            return if to.is_ipv6() { libc::EAFNOSUPPORT } else { libc::EINVAL };
        }
        let mut to = to;
        if to.ip().is_unspecified() {
            let own: IpAddr = if to.is_ipv6() {
                std::net::Ipv6Addr::LOCALHOST.into()
            } else {
                std::net::Ipv4Addr::LOCALHOST.into()
            };
            to.set_ip(own);
        }
        let Some(source) = self.source_for(host, to.ip()) else { return libc::ENETUNREACH };
        let bound = socket.local.filter(|_| socket.holds_port);
        let local = match bound {
            Some(local) => {
                let ip = if local.ip().is_unspecified() { source } else { local.ip() };
                SocketAddr::new(ip, local.port())
            }
            None => {
                let Some(port) = self.free_port(host) else { return libc::EADDRNOTAVAIL };
                self.take_port(id, host, port);
                SocketAddr::new(source, port)
            }
        };
        self.note("syn", &[i64::from(id.0), i64::from(to.port())]);
        let socket = self.net.socks.get_mut(&id).expect("it was there above");
        socket.local = Some(local);
        socket.remote = Some(to);
        socket.phase = Phase::Connecting;
        socket.asked = true;
        let there = self.host_at(host, to.ip()).unwrap_or(host);
        self.send_event(host, there, Event::Syn { client: id, attempt: 0 });
        0
    }

    pub(super) fn syn_arrives(&mut self, client: SockId, attempt: u32) {
        let Some(socket) = self.net.socks.get(&client) else { return };
        let (here, Some(to)) = (socket.host, socket.remote) else { return };
        if !matches!(socket.phase, Phase::Connecting) {
            return;
        }
        let (local, family) = (socket.local, socket.family);
        // Nobody has the address, or nothing gets there: silence, and the client asks again.
        let there =
            self.host_at(here, to.ip()).filter(|there| !self.link(here, *there).partitioned);
        let Some(there) = there else { return self.ask_again(client, attempt) };
        let Some(listener) = self.listener_for(there, &to, local) else {
            let refused = Event::Refused { client, errno: libc::ECONNREFUSED };
            return self.send_event(there, here, refused);
        };
        let full = match &self.net.socks[&listener].phase {
            Phase::Listening(l) => l.ready.len() > l.backlog,
            _ => true,
        };
        if full {
            self.note("dropped", &[i64::from(listener.0)]);
            return self.ask_again(client, attempt);
        }
        let mut child = Socket::new(there, family);
        child.local = Some(to);
        child.remote = local;
        child.phase = Phase::Embryo(listener);
        child.peer = Some(client);
        let socket = &self.net.socks[&listener];
        (child.reuse_addr, child.reuse_port) = (socket.reuse_addr, socket.reuse_port);
        child.linger = socket.linger;
        let child = self.add_socket(child);
        self.take_port(child, there, to.port());
        if let Phase::Listening(l) = &mut self.net.socks.get_mut(&listener).expect("found").phase {
            l.embryos.push(child);
        }
        self.send_event(there, here, Event::SynAck { client, child });
    }

    fn ask_again(&mut self, client: SockId, attempt: u32) {
        let pause = SYN_AGAIN_NS << attempt.min(SYN_MAX);
        let at = self.now_ns().saturating_add(pause);
        let next = if attempt == SYN_MAX {
            Event::Refused { client, errno: libc::ETIMEDOUT }
        } else {
            Event::Syn { client, attempt: attempt + 1 }
        };
        self.clock.at(at, next);
    }

    /// A listener for this address: one that is bound to it, else one that is bound to all.
    fn listener_for(
        &mut self,
        host: HostId,
        to: &SocketAddr,
        from: Option<SocketAddr>,
    ) -> Option<SockId> {
        let mut exact = Vec::new();
        let mut any = Vec::new();
        for &id in self.on_port(host, to.port()) {
            let Some(socket) = self.net.socks.get(&id) else { continue };
            let (Phase::Listening(_), Some(local)) = (&socket.phase, socket.local) else {
                continue;
            };
            if local.ip() == to.ip() {
                exact.push(id);
            } else if local.ip().is_unspecified() && local.is_ipv4() == to.is_ipv4() {
                any.push(id);
            }
        }
        let found = if exact.is_empty() { any } else { exact };
        if let Some(steered) = self.steered(&found, from) {
            return Some(steered);
        }
        if found.is_empty() { None } else { Some(self.rng.pick(&found)) }
    }

    pub(super) fn syn_answered(&mut self, client: SockId, child: SockId) {
        let connecting =
            self.net.socks.get(&client).is_some_and(|s| matches!(s.phase, Phase::Connecting));
        if !connecting {
            self.reset(child);
            return;
        }
        let socket = self.net.socks.get_mut(&client).expect("it is connecting");
        socket.phase = Phase::Open;
        socket.peer = Some(child);
        self.note("connected", &[i64::from(client.0), i64::from(child.0)]);
        self.put_on_wire(client, Packet::Established);
        self.touch(client);
        self.transmit(client);
    }

    pub(super) fn connect_failed(&mut self, client: SockId, errno: i32) {
        let Some(socket) = self.socket(client) else { return };
        if !matches!(socket.phase, Phase::Connecting) {
            return;
        }
        socket.phase = Phase::Fresh;
        socket.error = errno;
        socket.send_shut = true;
        socket.receive_shut = true;
        self.note("refused", &[i64::from(client.0), i64::from(errno)]);
        self.give_port_up(client);
        self.touch(client);
    }

    /// Whether the listener of an embryo has room for it; an embryo without one is let through to fail.
    pub(super) fn may_establish(&self, child: Option<SockId>) -> bool {
        let phase = child.and_then(|child| self.net.socks.get(&child)).map(|s| &s.phase);
        let Some(Phase::Embryo(listener)) = phase else { return true };
        match self.net.socks.get(listener).map(|s| &s.phase) {
            Some(Phase::Listening(l)) => l.ready.len() <= l.backlog,
            _ => true,
        }
    }

    pub(super) fn establish(&mut self, child: SockId) {
        let Some(socket) = self.net.socks.get_mut(&child) else { return };
        let Phase::Embryo(listener) = socket.phase else { return };
        socket.phase = Phase::Open;
        let Some(socket) = self.net.socks.get_mut(&listener) else { return };
        let Phase::Listening(l) = &mut socket.phase else { return };
        l.embryos.retain(|embryo| *embryo != child);
        l.ready.push_back(child);
        self.touch(listener);
    }

    /// An embryo has come to nothing.
    pub(super) fn forget_embryo(&mut self, listener: SockId, child: SockId) {
        if let Some(socket) = self.socket(listener)
            && let Phase::Listening(l) = &mut socket.phase
        {
            l.embryos.retain(|embryo| *embryo != child);
        }
        self.forget(child);
    }

    /// The listener is gone: those who waited in it are reset.
    pub(super) fn drop_queued(&mut self, listener: Listener) {
        for child in listener.embryos.into_iter().chain(listener.ready) {
            if let Some(socket) = self.socket(child) {
                socket.orphan = true;
                socket.phase = Phase::Open;
            }
            self.abort(child);
        }
    }

    /// The next connection of a listener: an errno if there is none now (EAGAIN) or never will be.
    pub(in crate::sim) fn take_connection(&mut self, listener: SockId) -> Result<SockId, i32> {
        let Some(socket) = self.socket(listener) else { return Err(libc::EBADF) };
        let Phase::Listening(l) = &mut socket.phase else { return Err(libc::EINVAL) };
        l.ready.pop_front().ok_or(libc::EAGAIN)
    }

    /// Puts a connection back that could not be handed over.
    pub(in crate::sim) fn return_connection(&mut self, listener: SockId, child: SockId) {
        if let Some(socket) = self.socket(listener)
            && let Phase::Listening(l) = &mut socket.phase
        {
            l.ready.push_front(child);
        }
    }
}
