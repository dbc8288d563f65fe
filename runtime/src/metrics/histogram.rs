//! A latency histogram: HdrHistogram with the bounds that this project uses.
//!
//! Owns the bounds (1 ns to 60 s at two significant digits, larger values counted at the top) so that all
//! of them can be merged. The crate behind it appears in no public signature.

use std::fmt;

use hdrhistogram::Histogram as Hdr;

/// Latencies in nanoseconds, from 1 ns to 60 s at two significant digits (1 %).
#[derive(Clone)]
pub struct Histogram {
    hdr: Hdr<u64>,
}

/// Highest latency told apart, in ns.
const NS_MAX: u64 = 60_000_000_000;

impl Histogram {
    /// Counts one latency; one above 60 s counts as 60 s, one of 0 as 1 ns.
    pub fn record(&mut self, ns: u64) {
        self.hdr.saturating_record(ns.clamp(1, NS_MAX));
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.hdr.len()
    }

    /// The latency that a share of `q` (0 to 1) did not exceed, in ns; 0 if nothing was recorded.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        self.hdr.value_at_quantile(q)
    }

    /// The smallest, in ns; 0 if nothing was recorded.
    pub fn min_ns(&self) -> u64 {
        if self.hdr.is_empty() { 0 } else { self.hdr.min() }
    }

    /// The greatest, in ns; 0 if nothing was recorded.
    pub fn max_ns(&self) -> u64 {
        self.hdr.max()
    }

    /// The mean, in ns; 0 if nothing was recorded.
    pub fn mean_ns(&self) -> f64 {
        self.hdr.mean()
    }

    /// The recorded latencies: greatest value of each bucket in ns, and how many are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.hdr.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value()))
    }

    /// Adds another histogram's latencies to these.
    pub fn merge(&mut self, other: &Self) {
        self.hdr.add(&other.hdr).expect("all histograms have the same bounds");
    }
}

impl Default for Histogram {
    fn default() -> Self {
        let hdr =
            Hdr::new_with_bounds(1, NS_MAX, 2).expect("the bounds are constants and in range");
        Self { hdr }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50_ns", &self.quantile_ns(0.5))
            .field("p99_ns", &self.quantile_ns(0.99))
            .field("max_ns", &self.max_ns())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_counted_and_not_refused() {
        let mut h = Histogram::default();
        assert_eq!((h.count(), h.min_ns(), h.max_ns(), h.quantile_ns(0.5)), (0, 0, 0, 0));
        h.record(0);
        h.record(u64::MAX);
        assert_eq!(h.count(), 2);
        assert_eq!(h.min_ns(), 1);
        assert!(h.max_ns() >= NS_MAX);
    }

    #[test]
    fn merging_adds_counts() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        (1..=100).for_each(|i| a.record(i * 1000));
        (101..=200).for_each(|i| b.record(i * 1000));
        a.merge(&b);
        assert_eq!(a.count(), 200);
        let p50 = a.quantile_ns(0.5) as f64;
        assert!((p50 / 100_000.0 - 1.0).abs() < 0.02, "{p50}");
    }
}
