//! Latency histograms: what one interval, one core or a whole run recorded.
//!
//! Owns the bounds of every histogram (1 ns to 60 s, three significant digits) and what happens
//! outside of them: a longer latency counts as 60 s, and is counted apart so that the report can
//! say so. Knows no clock, no thread and no file.
//!
//! An open loop keeps three histograms, recorded directly: hdr's own `record_correct` guesses at
//! the requests that a stalled generator left out, while ours knows each one's intended time.
//!
//! - corrected: from the intended send time, what a client on that schedule would have waited;
//! - uncorrected: from the actual send time, what a careless benchmark would report;
//! - lag: how late the generator itself sent, after it could have.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency told apart: 60 s.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;

const SIGNIFICANT_DIGITS: u8 = 3;

/// A histogram with the bounds that all of this crate's have, so that any two can be merged.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS)
        .expect("1 < 60e9 and three digits are within hdrhistogram's limits")
}

/// The moments of one request, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moments {
    /// When the schedule wanted it sent; a closed loop has no schedule and puts `sent_ns`.
    pub intended_ns: u64,
    /// When its connection had room for it. A request held back by unanswered ones before it is
    /// the server's delay, not the generator's, and must not count as lag.
    pub room_ns: u64,
    /// When it was handed to the runtime for sending.
    pub sent_ns: u64,
    /// When its whole answer was there.
    pub done_ns: u64,
}

impl Moments {
    /// A request without a schedule: it was sent as soon as it could be.
    #[cfg(test)]
    pub fn closed(sent_ns: u64, done_ns: u64) -> Moments {
        Moments { intended_ns: sent_ns, room_ns: sent_ns, sent_ns, done_ns }
    }
}

/// What an open loop records beside the plain latency.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// Latency from the intended send time.
    pub corrected: Histogram<u64>,
    /// Actual send time less the earliest possible one.
    pub lag: Histogram<u64>,
}

/// The histograms of one interval, core or run.
#[derive(Clone, Debug)]
pub struct LatencySet {
    /// Latency from the actual send time; in a closed loop the only one.
    pub uncorrected: Histogram<u64>,
    /// Only in an open loop.
    pub open: Option<OpenLoop>,
    /// Latencies above [`LATENCY_NS_MAX`], recorded as that.
    pub clipped: u64,
    /// Answers that came in this time. In an open loop these are not the requests whose latencies are here:
    /// see `recorder`.
    pub answered: u64,
}

impl LatencySet {
    /// Empty histograms, their memory touched: the first record must not pay for page faults.
    pub fn new(open_loop: bool) -> LatencySet {
        let open = open_loop.then(|| OpenLoop { corrected: histogram(), lag: histogram() });
        let mut set = LatencySet { uncorrected: histogram(), open, clipped: 0, answered: 0 };
        set.clear();
        set
    }

    /// Records `count` requests with the same moments, and counts their answers.
    #[cfg(test)]
    pub fn record(&mut self, at: Moments, count: u64) {
        self.latency(at, count);
        self.answered += count;
    }

    /// Records the latencies of `count` requests with the same moments.
    pub fn latency(&mut self, at: Moments, count: u64) {
        let uncorrected_ns = at.done_ns.saturating_sub(at.sent_ns);
        let mut longest_ns = uncorrected_ns;
        self.uncorrected.saturating_record_n(uncorrected_ns.min(LATENCY_NS_MAX), count);
        if let Some(open) = &mut self.open {
            longest_ns = at.done_ns.saturating_sub(at.intended_ns);
            let lag_ns = at.sent_ns.saturating_sub(at.intended_ns.max(at.room_ns));
            open.corrected.saturating_record_n(longest_ns.min(LATENCY_NS_MAX), count);
            open.lag.saturating_record_n(lag_ns.min(LATENCY_NS_MAX), count);
        }
        if longest_ns > LATENCY_NS_MAX {
            self.clipped += count;
        }
    }

    /// Adds what `other` recorded.
    ///
    /// # Panics
    /// If one is of an open loop and the other isn't: they can't be of the same run.
    pub fn merge(&mut self, other: &LatencySet) {
        const SAME: &str = "every histogram of this crate has the same bounds";
        self.uncorrected.add(&other.uncorrected).expect(SAME);
        self.clipped += other.clipped;
        self.answered += other.answered;
        match (&mut self.open, &other.open) {
            (Some(mine), Some(theirs)) => {
                mine.corrected.add(&theirs.corrected).expect(SAME);
                mine.lag.add(&theirs.lag).expect(SAME);
            }
            (None, None) => {}
            _ => panic!("an open loop's histograms merged with a closed loop's"),
        }
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.uncorrected.reset();
        if let Some(open) = &mut self.open {
            open.corrected.reset();
            open.lag.reset();
        }
        (self.clipped, self.answered) = (0, 0);
    }

    /// Answers that came in this time.
    pub fn requests(&self) -> u64 {
        self.answered
    }

    /// The latency that a user of the server would see: corrected where there is a schedule.
    pub fn headline(&self) -> &Histogram<u64> {
        self.open.as_ref().map_or(&self.uncorrected, |open| &open.corrected)
    }
}

/// A histogram in figures, all but the count in nanoseconds; all zero if nothing was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Recorded values.
    pub count: u64,
    /// Their least.
    pub min_ns: u64,
    /// Their arithmetic mean.
    pub mean_ns: f64,
    /// Half of them are at most this.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
    /// 99.99 %.
    pub p9999_ns: u64,
    /// All of them.
    pub max_ns: u64,
}

/// A second of a run, in figures: one of the samples that tell how much a run's own figures move.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Second {
    /// Which one of the window, from 0.
    pub index: u64,
    /// Answers in it.
    pub requests: u64,
    /// Half of the latencies are at most this.
    pub p50_ns: u64,
    /// 90 %.
    pub p90_ns: u64,
    /// 99 %.
    pub p99_ns: u64,
    /// 99.9 %.
    pub p999_ns: u64,
}

impl Second {
    /// Of what was recorded in it; the corrected latencies, if it is of an open loop.
    pub fn of(index: u64, set: &LatencySet) -> Second {
        let all = Summary::of(set.headline());
        let (p50_ns, p90_ns, p99_ns, p999_ns) = (all.p50_ns, all.p90_ns, all.p99_ns, all.p999_ns);
        Second { index, requests: set.requests(), p50_ns, p90_ns, p99_ns, p999_ns }
    }
}

impl Summary {
    /// The figures of `histogram`.
    pub fn of(histogram: &Histogram<u64>) -> Summary {
        if histogram.is_empty() {
            return Summary::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile).min(histogram.max());
        Summary {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: at(0.5),
            p90_ns: at(0.9),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            p9999_ns: at(0.9999),
            max_ns: histogram.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(intended_ns: u64, room_ns: u64, sent_ns: u64, done_ns: u64) -> Moments {
        Moments { intended_ns, room_ns, sent_ns, done_ns }
    }

    #[test]
    fn an_open_loop_counts_from_the_schedule() {
        let mut set = LatencySet::new(true);
        set.record(moments(1_000, 0, 1_500, 4_000), 1);
        let open = set.open.as_ref().unwrap();
        assert_eq!(set.uncorrected.max(), 2_500 | 1, "three digits round up within a step of 2");
        assert!(open.corrected.max().abs_diff(3_000) <= 1);
        assert_eq!(open.lag.max(), 500);
        assert_eq!(set.headline().len(), 1);
    }

    #[test]
    fn waiting_for_room_is_the_servers_delay_and_not_lag() {
        let mut set = LatencySet::new(true);
        set.record(moments(1_000, 9_000, 9_010, 10_000), 1);
        let open = set.open.as_ref().unwrap();
        assert_eq!(open.lag.max(), 10);
        assert!(open.corrected.max() >= 9_000);
    }

    #[test]
    fn a_closed_loop_keeps_one_histogram() {
        let mut set = LatencySet::new(false);
        set.record(Moments::closed(5, 105), 1);
        assert!(set.open.is_none());
        assert_eq!(set.headline().max(), 100);
    }

    #[test]
    fn values_out_of_bounds_are_kept_at_the_bound_and_counted() {
        let mut set = LatencySet::new(false);
        set.record(Moments::closed(0, LATENCY_NS_MAX + 1), 1);
        set.record(Moments::closed(10, 0), 1);
        assert_eq!((set.requests(), set.clipped), (2, 1));
        assert_eq!(set.uncorrected.min(), 0);
        assert!(set.uncorrected.max() >= LATENCY_NS_MAX);
    }

    #[test]
    fn merge_adds_and_clear_forgets() {
        let mut total = LatencySet::new(true);
        let mut part = LatencySet::new(true);
        part.record(moments(0, 0, 1, 10), 1);
        total.merge(&part);
        total.merge(&part);
        assert_eq!((total.requests(), total.uncorrected.len()), (2, 2));
        assert_eq!(total.open.as_ref().unwrap().lag.len(), 2);
        total.clear();
        assert_eq!(total.requests(), 0);
        assert_eq!(Summary::of(&total.uncorrected), Summary::default());
    }

    #[test]
    fn a_summary_never_exceeds_its_maximum() {
        let mut values = histogram();
        (1..=10_000u64).for_each(|v| values.saturating_record(v * 1_000));
        let summary = Summary::of(&values);
        assert_eq!(summary.count, 10_000);
        assert!(summary.p50_ns.abs_diff(5_000_000) < 5_000);
        assert!(summary.p99_ns.abs_diff(9_900_000) < 9_900);
        assert!(summary.p9999_ns <= summary.max_ns);
        assert!((summary.mean_ns - 5_000_500.0).abs() < 5_000.0);
    }
}
