//! The simulated network.
//!
//! Owns the books of it: [`Net`] with its hosts, links and sockets, and the [`Event`]s that are on their
//! way. Sockets are TCP: [`socket`] has their states, [`listener`] how connections come about, [`stream`]
//! how bytes travel, [`link`] how long that takes. Or they are Unix sockets between the processes of one
//! host ([`local`]). A socket is known by a number of its own that is never given out twice.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::enter::OpRef;
use super::state::State;

pub(super) mod link;
pub(super) mod listener;
pub(super) mod local;
pub(super) mod socket;
mod steer;
pub(super) mod stream;

pub(crate) use link::Link;
use socket::Socket;
use steer::Sharing;

/// A host of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostId(pub(super) u32);

/// A process of a host. The numbers of a host's count up from 0, and none comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ProcessId {
    pub(super) host: HostId,
    pub(super) number: u32,
}

/// The first one.
impl From<HostId> for ProcessId {
    fn from(host: HostId) -> Self {
        Self { host, number: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SockId(pub(super) u32);

/// What comes about by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A request for a connection arrives.
    Syn { client: SockId, attempt: u32 },
    /// Its answer arrives.
    SynAck { client: SockId, child: SockId },
    /// A connect fails.
    Refused { client: SockId, errno: i32 },
    /// The first packet that this socket has on the wire arrives.
    Arrival { from: SockId },
    /// The far end has taken so many bytes, or the end.
    Ack { to: SockId, bytes: usize, fin: bool },
    /// The far end's window may have opened.
    Window { to: SockId },
    /// Nobody knows this connection at the far end.
    Reset { to: SockId },
    /// The news of an op that can go on.
    Late(OpRef),
    /// A signal is delivered to a process.
    Signal(ProcessId),
    /// The end of an op that was running when it was cancelled.
    Interrupt(OpRef),
}

#[derive(Default)]
pub(super) struct Net {
    hosts: Vec<Host>,
    links: BTreeMap<(HostId, HostId), Link>,
    pub(super) socks: BTreeMap<SockId, Socket>,
    made: u32,
    /// Sockets by port: those that are bound, listening or connected from it.
    ports: BTreeMap<(HostId, u16), Vec<SockId>>,
    /// Where Unix sockets listen, or did when they were there.
    names: BTreeMap<(HostId, PathBuf), SockId>,
    /// Listeners that share an address.
    shared: BTreeMap<(HostId, SocketAddr), Sharing>,
}

struct Host {
    addrs: Vec<IpAddr>,
    next_port: u16,
}

/// Ports that are given to those who ask for none, as `net.ipv4.ip_local_port_range` has them.
const PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

impl State {
    pub(super) fn add_host(&mut self, addrs: Vec<IpAddr>) -> HostId {
        let id = HostId(self.net.hosts.len() as u32);
        let next_port = self.rng.between(u64::from(*PORTS.start()), u64::from(*PORTS.end()));
        self.net.hosts.push(Host { addrs, next_port: next_port as u16 });
        id
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Syn { client, attempt } => self.syn_arrives(client, attempt),
            Event::SynAck { client, child } => self.syn_answered(client, child),
            Event::Refused { client, errno } => self.connect_failed(client, errno),
            Event::Arrival { from } => self.arrive(from),
            Event::Ack { to, bytes, fin } => self.acked(to, bytes, fin),
            Event::Window { to } => self.transmit(to),
            Event::Reset { to } => self.reset(to),
            Event::Late(op) => self.news_arrive(op),
            Event::Signal(process) => self.deliver_signal(process),
            Event::Interrupt(op) => self.interrupt_worker(op),
        }
    }

    pub(super) fn add_socket(&mut self, socket: Socket) -> SockId {
        self.net.made += 1;
        let id = SockId(self.net.made);
        self.net.socks.insert(id, socket);
        id
    }

    /// Takes a socket off the books; nobody names it any more, or will find it gone.
    pub(super) fn forget(&mut self, id: SockId) {
        self.leave_sharing(id);
        if let Some(socket) = self.net.socks.remove(&id) {
            self.leave_port(id, &socket);
        }
    }

    pub(super) fn leave_port(&mut self, id: SockId, socket: &Socket) {
        let Some(local) = socket.local.filter(|_| socket.holds_port) else { return };
        let key = (socket.host, local.port());
        if let Some(users) = self.net.ports.get_mut(&key) {
            users.retain(|user| *user != id);
            if users.is_empty() {
                self.net.ports.remove(&key);
            }
        }
    }

    pub(super) fn take_port(&mut self, id: SockId, host: HostId, port: u16) {
        self.net.ports.entry((host, port)).or_default().push(id);
        if let Some(socket) = self.net.socks.get_mut(&id) {
            socket.holds_port = true;
        }
    }

    /// A port that nobody asked for by `bind(2)` is free again when its connection has ended.
    pub(super) fn give_port_up(&mut self, id: SockId) {
        let Some(mut socket) = self.net.socks.remove(&id) else { return };
        if !socket.port_asked {
            self.leave_port(id, &socket);
            socket.holds_port = false;
        }
        self.net.socks.insert(id, socket);
    }

    pub(super) fn on_port(&self, host: HostId, port: u16) -> &[SockId] {
        self.net.ports.get(&(host, port)).map_or(&[], Vec::as_slice)
    }

    /// A port that nobody on the host uses; none if all are taken.
    pub(super) fn free_port(&mut self, host: HostId) -> Option<u16> {
        for _ in PORTS {
            let next = &mut self.net.hosts[host.0 as usize].next_port;
            let port = *next;
            *next = if port == *PORTS.end() { *PORTS.start() } else { port + 1 };
            if !self.net.ports.contains_key(&(host, port)) {
                return Some(port);
            }
        }
        None
    }

    /// Whether an address is this host's own, loopback included.
    pub(super) fn is_own(&self, host: HostId, ip: IpAddr) -> bool {
        ip.is_loopback() || self.net.hosts[host.0 as usize].addrs.contains(&ip)
    }

    /// Who answers to an address, seen from `host`.
    pub(super) fn host_at(&self, host: HostId, ip: IpAddr) -> Option<HostId> {
        if self.is_own(host, ip) {
            return Some(host);
        }
        let found = self.net.hosts.iter().position(|h| h.addrs.contains(&ip));
        found.map(|at| HostId(at as u32))
    }

    /// The address that a host speaks from to `remote`.
    pub(super) fn source_for(&self, host: HostId, remote: IpAddr) -> Option<IpAddr> {
        if self.is_own(host, remote) {
            return Some(remote);
        }
        let addrs = &self.net.hosts[host.0 as usize].addrs;
        addrs.iter().copied().find(|ip| ip.is_ipv4() == remote.is_ipv4())
    }
}

/// The address that stands for all of a host's.
pub(super) fn unspecified(family: i32) -> SocketAddr {
    if family == libc::AF_INET6 {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    }
}

pub(super) fn family_of(addr: &SocketAddr) -> i32 {
    if addr.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET }
}
