//! What a seed's workload looks like.
//!
//! Owns [`Shape`]: hosts, cores, settings and which faults. Rings, queues and buffer pools are so small that
//! each of them is full now and then.

use std::fmt;
use std::time::Duration;

use coreloop::Settings;
use coreloop::sim::{Builder, Faults, Sim};

use crate::drive::Rng;

pub(super) struct Shape {
    pub(super) builder: Builder,
    /// Cores of each server.
    pub(super) servers: Vec<usize>,
    pub(super) clients: usize,
    /// Conversations of each client.
    pub(super) conversations: u64,
    /// Machines crash, links break.
    pub(super) chaos: bool,
    /// Calls may answer with errors.
    pub(super) errors: bool,
}

impl Shape {
    pub(super) fn drawn(seed: u64) -> Self {
        // Another stream of numbers than the simulation's own.
        let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED);
        let mut pick = |from: &[u32]| from[rng.below(from.len() as u64) as usize];
        let faults = match pick(&[0, 1, 1, 1, 1, 2, 2, 2, 2, 2]) {
            0 => Faults::none(),
            1 => Faults::hidden(),
            _ => Faults::all(),
        };
        let ring = pick(&[8, 8, 16, 64]);
        let micros = |n: u32| Duration::from_micros(u64::from(n));
        let settings = Settings::default()
            .ring_entries(ring)
            .cq_entries(ring * 2)
            .buffers(pick(&[2, 3, 8, 160, 32]), pick(&[64, 200, 2048]))
            .chunk_quota(pick(&[0, 1, 3, 8]))
            .timer_resolution(micros(pick(&[20, 100, 1_000, 1_000])))
            .tick_quota(micros(pick(&[1, 50, 500])));
        let servers = (0..pick(&[1, 1, 2])).map(|_| pick(&[1, 2, 2, 3]) as usize).collect();
        let clients = pick(&[1, 2, 2, 3]) as usize;
        let conversations = u64::from(pick(&[3, 5, 6]));
        let chaos = pick(&[0, 0, 0, 0, 1]) == 1;
        // Some have no table of files, some one that has a place for a part of the descriptors.
        let settings = settings.fixed_files(pick(&[0, 24, 24, 4096, 4096]));
        // All sends by the ring, some of them, or nearly none.
        let settings = settings.direct_sends(pick(&[0, 0, 4, 1_000]));
        let builder = Sim::builder()
            .seed(seed)
            .faults(faults)
            .settings(settings)
            .steps_max(500_000)
            .time_max(Duration::from_secs(3600));
        Self { builder, servers, clients, conversations, chaos, errors: faults == Faults::all() }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers, clients, conversations, chaos, errors, builder } = self;
        write!(
            f,
            "servers with {servers:?} cores, {clients} clients with {conversations} conversations each, \
             chaos: {chaos}, errors: {errors}\n{builder:?}"
        )
    }
}
