//! How bytes travel.
//!
//! Owns the transfer from one end of a connection to the other: segments of the sender's bytes, in order,
//! as far as the receiver's window reaches; the end and the reset behind them. Invariants: what was sent
//! arrives in the order in which it was sent, whatever each packet's time; bytes on the wire and in the
//! receiver's inbox together never exceed its buffer.

use super::socket::{Phase, Socket};
use super::{Event, SockId};
use crate::sim::state::State;

/// What is sent.
#[derive(Debug)]
pub(in crate::sim) enum Packet {
    /// The last of the three that make a connection.
    Established,
    Data(Vec<u8>),
    Fin,
    Reset,
}

/// A packet on the wire, and when it arrives.
#[derive(Debug)]
pub(in crate::sim) struct Posted {
    packet: Packet,
    due_ns: u64,
    attempts: u32,
}

/// How far the end of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Fin {
    None,
    /// Behind the bytes that are still to be sent.
    Wanted,
    Sent,
    Acked,
}

/// Attempts after which a connection is given up, as `net.ipv4.tcp_retries2` has it.
const ATTEMPTS_MAX: u32 = 15;

impl State {
    /// Sends what the peer's window lets pass, and the end behind it.
    pub(in crate::sim) fn transmit(&mut self, id: SockId) {
        loop {
            let Some(socket) = self.net.socks.get(&id) else { return };
            if !matches!(socket.phase, Phase::Open) || socket.peer.is_none() {
                return;
            }
            if socket.outbox.is_empty() {
                if socket.fin == Fin::Wanted {
                    self.net.socks.get_mut(&id).expect("it was there above").fin = Fin::Sent;
                    self.put_on_wire(id, Packet::Fin);
                }
                return;
            }
            let waiting = socket.outbox.len();
            let window = self.window(socket);
            let segment = self.segment().min(waiting).min(window);
            if segment == 0 {
                return;
            }
            let socket = self.net.socks.get_mut(&id).expect("it was there above");
            let bytes: Vec<u8> = socket.outbox.drain(..segment).collect();
            socket.unacked += segment;
            socket.wire_bytes += segment;
            self.put_on_wire(id, Packet::Data(bytes));
        }
    }

    /// Bytes that the far end of a connection has room for. A peer that is gone has room: it answers.
    fn window(&self, socket: &Socket) -> usize {
        let peer = socket.peer.and_then(|peer| self.net.socks.get(&peer));
        let unread = peer.map_or(0, |peer| peer.inbox.len());
        self.faults.receive_buffer.saturating_sub(unread + socket.wire_bytes)
    }

    fn segment(&mut self) -> usize {
        let most = self.faults.segment_bytes;
        // Most segments are full; the others are cut anywhere.
        if most < 64 * 1024 && self.rng.chance(5_000) {
            self.rng.between(1, most as u64) as usize
        } else {
            most
        }
    }

    /// Puts a packet on the wire, behind those before it.
    pub(in crate::sim) fn put_on_wire(&mut self, id: SockId, packet: Packet) {
        let Some(socket) = self.net.socks.get(&id) else { return };
        let here = socket.host;
        let before = socket.wire.back().map_or(0, |posted| posted.due_ns);
        let Some(peer) = socket.peer else { return };
        let there = self.net.socks.get(&peer).map_or(here, |peer| peer.host);
        let due_ns = self.travel(here, there).max(before);
        let socket = self.net.socks.get_mut(&id).expect("it was there above");
        socket.wire.push_back(Posted { packet, due_ns, attempts: 0 });
        self.clock.at(due_ns, Event::Arrival { from: id });
    }

    /// The first packet on a socket's wire arrives, or is sent again.
    pub(in crate::sim) fn arrive(&mut self, from: SockId) {
        let now = self.now_ns();
        let Some(socket) = self.net.socks.get(&from) else { return };
        let here = socket.host;
        let Some(first) = socket.wire.front() else { return };
        if first.due_ns > now {
            return;
        }
        let peer = socket.peer.filter(|peer| self.net.socks.contains_key(peer));
        let there = peer.map_or(here, |peer| self.net.socks[&peer].host);
        if self.link(here, there).partitioned {
            return self.send_again(from);
        }
        if matches!(first.packet, Packet::Established) && !self.may_establish(peer) {
            return self.send_again(from);
        }
        let socket = self.net.socks.get_mut(&from).expect("it was there above");
        let Some(Posted { packet, .. }) = socket.wire.pop_front() else { return };
        if let Packet::Data(bytes) = &packet {
            socket.wire_bytes -= bytes.len();
        }
        self.deliver(from, peer, packet);
        self.forget_if_done(from);
    }

    fn send_again(&mut self, from: SockId) {
        let Some(first) = self.net.socks.get(&from).and_then(|s| s.wire.front()) else { return };
        if first.attempts == ATTEMPTS_MAX {
            return self.fail(from, libc::ETIMEDOUT);
        }
        let at = self.again_at(first.attempts);
        let socket = self.net.socks.get_mut(&from).expect("it was there above");
        if let Some(first) = socket.wire.front_mut() {
            first.attempts += 1;
        }
        // Those behind it wait as long, and each has an event of its own that finds it not due.
        let mut behind = 0;
        for posted in &mut socket.wire {
            posted.due_ns = posted.due_ns.max(at);
            behind += 1;
        }
        for _ in 0..behind {
            self.clock.at(at, Event::Arrival { from });
        }
    }

    fn deliver(&mut self, from: SockId, to: Option<SockId>, packet: Packet) {
        let Some(to) = to else {
            // Nobody there: bytes are answered by a reset, the end by an acknowledgement.
            let Some(here) = self.socket(from).map(|s| s.host) else { return };
            match packet {
                Packet::Data(_) | Packet::Established => {
                    self.send_event(here, here, Event::Reset { to: from })
                }
                Packet::Fin => {
                    let ack = Event::Ack { to: from, bytes: 0, fin: true };
                    self.send_event(here, here, ack);
                }
                Packet::Reset => {}
            }
            return;
        };
        let Some(socket) = self.net.socks.get_mut(&to) else { return };
        let there = socket.host;
        match packet {
            Packet::Established => self.establish(to),
            Packet::Data(bytes) => {
                // Nobody will read it: closed, or ended in both directions.
                let deaf = socket.receive_shut && socket.fin != Fin::None;
                if socket.orphan || deaf || matches!(socket.phase, Phase::Ended) {
                    self.answer(there, from, Event::Reset { to: from });
                    if socket_is_open(self, to) {
                        self.fail(to, libc::ECONNRESET);
                    }
                    return;
                }
                let n = bytes.len();
                socket.inbox.extend(bytes);
                self.note("arrive", &[i64::from(to.0), n as i64]);
                self.answer(there, from, Event::Ack { to: from, bytes: n, fin: false });
                self.touch(to);
            }
            Packet::Fin => {
                socket.ended_by_peer = true;
                socket.receive_shut = true;
                self.note("fin", &[i64::from(to.0)]);
                self.answer(there, from, Event::Ack { to: from, bytes: 0, fin: true });
                self.end_if_both(to);
                self.touch(to);
                self.forget_if_done(to);
            }
            Packet::Reset => self.reset(to),
        }
    }

    /// What the peer has taken makes room; its knowing of the end may end the connection.
    pub(in crate::sim) fn acked(&mut self, id: SockId, bytes: usize, fin: bool) {
        let Some(socket) = self.socket(id) else { return };
        socket.unacked = socket.unacked.saturating_sub(bytes);
        if fin {
            socket.fin = Fin::Acked;
            self.end_if_both(id);
        }
        self.touch(id);
        self.transmit(id);
        self.forget_if_done(id);
    }

    fn end_if_both(&mut self, id: SockId) {
        let Some(socket) = self.socket(id) else { return };
        let over = socket.ended_by_peer && socket.fin == Fin::Acked;
        if over && matches!(socket.phase, Phase::Open) {
            socket.phase = Phase::Ended;
            socket.send_shut = true;
            self.give_port_up(id);
        }
    }

    /// Bytes were read: a sender that waits for the window hears of it.
    pub(in crate::sim) fn window_opens(&mut self, id: SockId) {
        let Some(socket) = self.socket(id) else { return };
        let (here, Some(peer)) = (socket.host, socket.peer) else { return };
        if self.socket(peer).is_some_and(|peer| !peer.outbox.is_empty()) {
            self.answer(here, peer, Event::Window { to: peer });
        }
    }
}

fn socket_is_open(state: &State, id: SockId) -> bool {
    state.net.socks.get(&id).is_some_and(|s| matches!(s.phase, Phase::Open))
}
