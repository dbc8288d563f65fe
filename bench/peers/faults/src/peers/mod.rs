//! The runtimes, in the table's order.

mod compio;
mod coreloop;
mod glommio;
mod kimojio;
mod monoio;
mod ringline;
mod smol;
mod tokio;
mod tokio_uring;

use crate::cases::{Case, Seen};
use crate::peer::Peer;

/// What the table has to know of a runtime.
pub struct Entry {
    pub name: &'static str,
    pub version: &'static str,
    pub ring: bool,
    pub cannot: &'static [(Case, &'static str)],
    run: fn(Case) -> Result<Seen, String>,
}

impl Entry {
    /// Runs a case in this process.
    pub fn run(&self, case: Case) -> Result<Seen, String> {
        (self.run)(case)
    }

    /// Why a case isn't run with it.
    pub fn why_not(&self, case: Case) -> Option<&'static str> {
        let of_ring = matches!(case, Case::EnterEnomem | Case::EnterEagain | Case::RingForbidden);
        if of_ring && !self.ring {
            return Some("it uses epoll");
        }
        self.cannot.iter().find(|(cannot, _)| *cannot == case).map(|(_, why)| *why)
    }
}

const fn entry<P: Peer>() -> Entry {
    Entry {
        name: P::NAME,
        version: P::VERSION,
        ring: P::RING,
        cannot: P::CANNOT,
        run: |case| case.run::<P>(),
    }
}

/// All of them.
pub const ALL: &[Entry] = &[
    entry::<coreloop::Coreloop>(),
    entry::<tokio_uring::TokioUring>(),
    entry::<monoio::Monoio>(),
    entry::<compio::Compio>(),
    entry::<glommio::Glommio>(),
    entry::<kimojio::Kimojio>(),
    entry::<ringline::Ringline>(),
    entry::<tokio::Tokio>(),
    entry::<smol::Smol>(),
];
