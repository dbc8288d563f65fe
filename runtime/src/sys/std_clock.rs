//! Where a point of std's clock lies on CLOCK_MONOTONIC.
//!
//! Owns the one moment of the process that was read from both. std's clock is CLOCK_MONOTONIC as well, but
//! does not tell its value; their distance never changes, so a point of std is the same here whenever it is
//! asked for, and which of two is the earlier one does not depend on when that was.

use std::sync::OnceLock;
use std::time::Instant;

use super::linux::monotonic_ns;

/// A moment, on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) std: Instant,
    pub(super) ns: u64,
}

/// Readings of which the closest pair is taken: any one may be torn apart by an interrupt.
const READINGS: usize = 8;

impl Moment {
    /// The present one. CLOCK_MONOTONIC's part of it is late by as long as it takes to read the clocks, some
    /// tens of nanoseconds: a deadline must not come early.
    fn read() -> Self {
        let pairs = (0..READINGS).map(|_| {
            let before = monotonic_ns();
            let std = Instant::now();
            let ns = monotonic_ns();
            (ns - before, Self { std, ns })
        });
        let closest = pairs.min_by_key(|(apart, _)| *apart);
        closest.expect("there is more than one reading").1
    }

    /// `at` on the clock whose `ns` this moment has.
    pub(super) fn ns_of(self, at: Instant) -> u64 {
        let distance = |later: Instant, earlier| {
            u64::try_from(later.saturating_duration_since(earlier).as_nanos()).unwrap_or(u64::MAX)
        };
        self.ns.saturating_add(distance(at, self.std)).saturating_sub(distance(self.std, at))
    }
}

/// CLOCK_MONOTONIC at `at`, in ns.
pub(super) fn ns_of(at: Instant) -> u64 {
    static MOMENT: OnceLock<Moment> = OnceLock::new();
    MOMENT.get_or_init(Moment::read).ns_of(at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_point_is_the_same_whenever_it_is_asked_for_and_never_early() {
        let before = monotonic_ns();
        let at = Instant::now();
        let asked = ns_of(at);
        assert!(asked >= before, "{asked} before {before}");
        for ns in (0..100).chain([1_000_000_000, 3_600_000_000_000]) {
            assert_eq!(ns_of(at + Duration::from_nanos(ns)), asked + ns);
            assert_eq!(ns_of(at - Duration::from_nanos(ns % 1_000)), asked - ns % 1_000);
        }
        // Several moments: the closest pair of each is no further off than two readings of clocks.
        let others: Vec<u64> = (0..100).map(|_| Moment::read().ns_of(at)).collect();
        let (least, most) = (others.iter().min().unwrap(), others.iter().max().unwrap());
        assert!(most - least < 1_000_000, "{least} to {most}");
        assert!(*least >= before);
    }

    #[test]
    fn what_does_not_fit_is_the_first_or_the_last_point() {
        let std = Instant::now();
        let moment = Moment { std, ns: 1_000 };
        assert_eq!(moment.ns_of(std - Duration::from_nanos(400)), 600);
        assert_eq!(moment.ns_of(std - Duration::from_micros(2)), 0);
        let moment = Moment { std, ns: u64::MAX - 1_000 };
        assert_eq!(moment.ns_of(std + Duration::from_micros(2)), u64::MAX);
    }
}
