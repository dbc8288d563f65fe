//! A latency histogram: HdrHistogram with the bounds that this project uses.
//!
//! Owns the bounds (1 ns to 60 s at two significant digits, larger values counted at the top) so that all
//! of them can be merged, and [`Track`], the counts that a core adds to while others read them. The crate
//! behind it appears in no public signature.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram as Hdr;

/// Latencies in nanoseconds, from 1 ns to 60 s at two significant digits (1 %).
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>"))]
pub struct Histogram {
    hdr: Hdr<u64>,
}

/// Highest latency told apart, in ns.
const NS_MAX: u64 = 60_000_000_000;

/// Buckets of one width: 256 for two significant digits, of which the lower half is told apart by the next
/// finer width already.
const SUB_BITS: u32 = 8;
const SUB_HALF: usize = 1 << (SUB_BITS - 1);

/// Buckets in all.
const BUCKETS: usize = bucket_of(NS_MAX) + 1;

/// Buckets that are looked at together.
const CHUNK: usize = 32;

/// The counts of one histogram of one core, who alone adds to them; others may read at any time.
pub(super) struct Track {
    counts: Box<[AtomicU64; BUCKETS]>,
}

impl Track {
    pub(super) fn new() -> Self {
        let counts: Box<[AtomicU64]> = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { counts: counts.try_into().expect("collected to this length") }
    }

    /// Counts one latency; one above 60 s counts as 60 s, one of 0 as 1 ns.
    #[inline]
    pub(super) fn record(&self, ns: u64) {
        let count = &self.counts[bucket_of(ns.clamp(1, NS_MAX))];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// What was counted up to now. The core goes on meanwhile: of what it records during the read some is
    /// in, and some not.
    pub(super) fn read(&self) -> Histogram {
        let mut read = Histogram::default();
        for (at, chunk) in self.counts.chunks(CHUNK).enumerate() {
            // Most are empty: a look at all of a chunk together costs an instruction for each.
            if chunk.iter().fold(0, |all, count| all | count.load(Ordering::Relaxed)) == 0 {
                continue;
            }
            for (bucket, count) in (at * CHUNK..).zip(chunk) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    read.record_n(lowest_of(bucket), count);
                }
            }
        }
        read
    }

    /// Memory of one, in bytes.
    pub(super) const BYTES: usize = BUCKETS * size_of::<AtomicU64>();
}

/// The bucket that a latency falls into.
#[inline]
const fn bucket_of(ns: u64) -> usize {
    let width_bits = u64::BITS - (ns | ((1 << SUB_BITS) - 1)).leading_zeros() - SUB_BITS;
    (width_bits as usize) * SUB_HALF + (ns >> width_bits) as usize
}

/// The least latency that falls into a bucket.
const fn lowest_of(bucket: usize) -> u64 {
    if bucket < 2 * SUB_HALF {
        return bucket as u64;
    }
    let width_bits = bucket / SUB_HALF - 1;
    ((bucket - width_bits * SUB_HALF) as u64) << width_bits
}

impl Histogram {
    /// Counts one latency; one above 60 s counts as 60 s, one of 0 as 1 ns.
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    fn record_n(&mut self, ns: u64, n: u64) {
        self.hdr.saturating_record_n(ns.clamp(1, NS_MAX), n);
    }

    /// As the crate behind it has it.
    #[cfg(feature = "hlog")]
    pub(crate) fn hdr(&self) -> &Hdr<u64> {
        &self.hdr
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.hdr.len()
    }

    /// The latency that a share of `q` (0 to 1) did not exceed, in ns; 0 if nothing was recorded.
    pub fn quantile_ns(&self, q: f64) -> u64 {
        self.hdr.value_at_quantile(q)
    }

    /// How many were at most `ns`, to the width of a bucket (1 %).
    pub fn count_up_to(&self, ns: u64) -> u64 {
        self.hdr.count_between(0, ns.min(NS_MAX))
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

    /// What was recorded since `earlier`, which is an earlier state of the same one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.buckets().map(|(ns, count)| {
            let before = earlier.hdr.count_at(ns);
            (ns, count.saturating_sub(before))
        });
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        let hdr =
            Hdr::new_with_bounds(1, NS_MAX, 2).expect("the bounds are constants and in range");
        Self { hdr }
    }
}

/// Latencies in ns, each with how often it is counted.
impl FromIterator<(u64, u64)> for Histogram {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(counts: I) -> Self {
        let mut histogram = Self::default();
        counts.into_iter().for_each(|(ns, n)| histogram.record_n(ns, n));
        histogram
    }
}

impl From<Vec<(u64, u64)>> for Histogram {
    fn from(counts: Vec<(u64, u64)>) -> Self {
        counts.into_iter().collect()
    }
}

/// What [`buckets`](Histogram::buckets) gives.
impl From<Histogram> for Vec<(u64, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.buckets().collect()
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

    /// Latencies about every edge: powers of two and their neighbours, and some between.
    fn edges() -> Vec<u64> {
        let powers = (0..64).map(|bits| 1u64 << bits);
        let around = powers.flat_map(|p| [p - 1, p, p + 1, p + p / 3, p | (p >> 1)]);
        around.chain([NS_MAX - 1, NS_MAX, NS_MAX + 1, u64::MAX]).collect()
    }

    #[test]
    fn a_track_counts_as_a_histogram_does() {
        let (track, mut plain) = (Track::new(), Histogram::default());
        for (i, ns) in edges().into_iter().enumerate() {
            (0..i % 3 + 1).for_each(|_| {
                track.record(ns);
                plain.record(ns);
            });
        }
        assert_eq!(track.read(), plain);
        let buckets = |h: &Histogram| h.buckets().collect::<Vec<_>>();
        assert_eq!(buckets(&track.read()), buckets(&plain));
    }

    #[test]
    fn a_difference_holds_what_came_between() {
        let (mut early, mut between) = (Histogram::default(), Histogram::default());
        edges().iter().for_each(|ns| early.record(*ns));
        let mut late = early.clone();
        for ns in [5, 5, 1_000_000, u64::MAX] {
            late.record(ns);
            between.record(ns);
        }
        assert_eq!(late.since(&early), between);
        assert_eq!(early.since(&early).count(), 0);
    }

    #[test]
    fn buckets_make_the_same_histogram_again() {
        let mut h = Histogram::default();
        edges().iter().for_each(|ns| h.record(*ns));
        assert_eq!(Histogram::from(Vec::from(h.clone())), h);
    }

    #[test]
    fn counts_up_to_a_latency_grow_to_all() {
        let mut h = Histogram::default();
        (1..=100).for_each(|i| h.record(i * 1000));
        assert_eq!((h.count_up_to(0), h.count_up_to(u64::MAX)), (0, 100));
        assert!(h.count_up_to(50_000).abs_diff(50) <= 1);
    }
}
