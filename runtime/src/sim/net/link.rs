//! What lies between two hosts.
//!
//! Owns [`Link`]: how long a packet takes, and whether it arrives at all. Knows nothing of what packets
//! hold.

use super::{Event, HostId};
use crate::sim::state::State;

/// The way between two hosts, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Time that a packet takes, from and to.
    pub(crate) latency_ns: (u64, u64),
    /// Nothing passes. What was sent is sent again until it does, or given up as TCP would.
    pub(crate) partitioned: bool,
}

/// The first pause before a packet is sent again; it doubles with each attempt.
const RETRANSMIT_NS: u64 = 200_000_000;

/// The longest such pause.
const RETRANSMIT_NS_MAX: u64 = 120_000_000_000;

impl State {
    pub(in crate::sim) fn set_link(&mut self, a: HostId, b: HostId, link: Link) {
        self.note("link", &[i64::from(a.0), i64::from(b.0), i64::from(link.partitioned)]);
        self.net.links.insert((a.min(b), a.max(b)), link);
    }

    pub(in crate::sim) fn link(&self, a: HostId, b: HostId) -> Link {
        let usual = if a == b { self.faults.loopback_ns } else { self.faults.network_ns };
        let usual = Link { latency_ns: usual, partitioned: false };
        self.net.links.get(&(a.min(b), a.max(b))).copied().unwrap_or(usual)
    }

    /// When a packet that leaves now is there.
    pub(in crate::sim) fn travel(&mut self, a: HostId, b: HostId) -> u64 {
        let (least, most) = self.link(a, b).latency_ns;
        let mut takes = self.rng.between(least, most);
        if a != b && self.rng.chance(self.faults.segment_lost) {
            takes += RETRANSMIT_NS;
        }
        self.now_ns().saturating_add(takes)
    }

    pub(in crate::sim) fn send_event(&mut self, a: HostId, b: HostId, event: Event) {
        let at = self.travel(a, b);
        self.clock.at(at, event);
    }

    /// When a packet that did not get through is tried again.
    pub(in crate::sim) fn again_at(&self, attempt: u32) -> u64 {
        let pause = RETRANSMIT_NS.saturating_mul(1 << attempt.min(20));
        self.now_ns().saturating_add(pause.min(RETRANSMIT_NS_MAX))
    }
}
