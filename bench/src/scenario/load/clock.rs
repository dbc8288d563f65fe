//! The time base of latencies as deadlines of the loop.
//!
//! Owns the pair of readings that ties them together; both are CLOCK_MONOTONIC.

use std::time::Duration;

use coreloop::time::Instant;

use crate::sys;

/// Converts; made on the loop that uses it.
#[derive(Clone, Copy, Debug)]
pub struct LoopClock {
    origin_ns: u64,
    origin: Instant,
}

impl LoopClock {
    /// Reads both clocks.
    pub fn new() -> LoopClock {
        // In this order: a deadline is then late by what lies between, never early.
        let origin_ns = sys::monotonic_ns();
        LoopClock { origin_ns, origin: Instant::now() }
    }

    /// The loop's deadline for `ns`.
    pub fn at(self, ns: u64) -> Instant {
        match ns.checked_sub(self.origin_ns) {
            Some(ahead) => self.origin + Duration::from_nanos(ahead),
            None => self.origin - Duration::from_nanos(self.origin_ns - ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_keep_their_distances() {
        let clock = LoopClock::new();
        let (a, b) = (clock.at(clock.origin_ns + 1_500), clock.at(clock.origin_ns - 500));
        assert_eq!(a - b, Duration::from_nanos(2_000));
        assert_eq!(clock.at(clock.origin_ns), clock.origin);
    }
}
