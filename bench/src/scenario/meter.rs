//! What a core did between two moments, taken on the core itself.
//!
//! Owns the way from the runtime's snapshots and the thread's CPU clock to a row of the report.

use std::cell::Cell;

use coreloop::{Core, Counters, Histograms, Snapshot};
use hdrhistogram::Histogram;

use crate::machine::ThreadMeter;
use crate::report::CoreHistogram;
use crate::report::core::{CoreUsage, LoopCounters, Role};
use crate::stats::{Summary, histogram};

thread_local! {
    /// Bytes that this thread's server tasks received. Not in the tasks: an idle one should be small.
    static RECEIVED: Cell<u64> = const { Cell::new(0) };
}

/// Counts bytes that a server task of this thread received.
pub fn received(bytes: usize) {
    RECEIVED.set(RECEIVED.get() + bytes as u64);
}

/// What one core did.
#[derive(Debug)]
pub struct Metered {
    /// Its row.
    pub usage: CoreUsage,
    /// What it recorded about itself.
    pub histograms: Vec<CoreHistogram>,
}

/// A core at the first of the two moments.
#[derive(Debug)]
pub struct CoreMeter {
    role: Role,
    before: Snapshot,
    bytes: u64,
    thread: ThreadMeter,
}

impl CoreMeter {
    /// Begins, on core `core` itself.
    pub async fn start(core: &Core, role: Role) -> CoreMeter {
        // The snapshot may copy histograms: before the clocks are read, so that it isn't metered.
        let before = snapshot(core).await;
        CoreMeter { role, before, bytes: RECEIVED.get(), thread: ThreadMeter::start() }
    }

    /// What core `core` did since.
    pub async fn stop(self, core: &Core) -> Metered {
        let mut usage = CoreUsage::new(self.role, core.cpu());
        self.thread.stop(&mut usage);
        usage.bytes = RECEIVED.get() - self.bytes;
        let after = snapshot(core).await;
        fill(&mut usage, &after.counters.since(&self.before.counters));
        let histograms = match (&self.before.histograms, &after.histograms) {
            (Some(before), Some(after)) => differences(core.cpu(), before, after),
            _ => Vec::new(),
        };
        Metered { usage, histograms }
    }
}

/// Counters that say that something was short or went wrong; reported by name if not 0.
const EVENTS: [&str; 9] = [
    "enters_pressed",
    "stray_completions",
    "cq_overflows",
    "task_panics",
    "waker_panics",
    "buffers_out",
    "chunks_copied",
    "accept_pauses",
    "ops_leaked",
];

async fn snapshot(core: &Core) -> Snapshot {
    // It is asked on the core itself, which can't be gone; its queue may be full at worst.
    core.handle().stats(core.index()).await.unwrap_or_default()
}

fn fill(usage: &mut CoreUsage, counters: &Counters) {
    usage.spun_ns = counters.spin_ns;
    usage.connections = counters.accepts;
    // A loop that ran has turned: without turns the counters are off.
    usage.loop_counters = (counters.ticks > 0).then_some(LoopCounters {
        ticks: counters.ticks,
        enters: counters.enters,
        polls: counters.polls,
        completions: counters.completions,
        parks: counters.parks,
    });
    let events = counters.iter().filter(|(name, count)| *count > 0 && EVENTS.contains(name));
    usage.events = events.map(|(name, count)| (name.to_owned(), count)).collect();
}

fn differences(cpu: usize, before: &Histograms, after: &Histograms) -> Vec<CoreHistogram> {
    let pairs = before.iter().into_iter().zip(after.iter());
    let named = pairs.map(|((name, before), (_, after))| {
        let summary = Summary::of(&difference(before, after));
        CoreHistogram { name: in_words(name).to_owned(), core: Some(cpu), summary }
    });
    named.filter(|histogram| histogram.summary.count > 0).collect()
}

fn difference(before: &coreloop::Histogram, after: &coreloop::Histogram) -> Histogram<u64> {
    let mut out = histogram();
    let mut earlier = before.buckets().peekable();
    for (value, count) in after.buckets() {
        // Both go up, and a bucket that was there stays.
        let known = earlier.next_if(|(at, _)| *at == value).map_or(0, |(_, count)| count);
        out.saturating_record_n(value, count - known);
    }
    out
}

fn in_words(name: &str) -> &str {
    match name {
        "tick" => "tick length",
        "wake_to_poll" => "wake to poll",
        "poll" => "task poll",
        "timer_late" => "timer late by",
        "op_recv" => "receive op",
        "op_send" => "send op",
        "op_connect" => "connect op",
        "op_other" => "other op",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_holds_what_came_between() {
        let mut before = coreloop::Histogram::default();
        [1_000, 2_000, 2_000].into_iter().for_each(|ns| before.record(ns));
        let mut after = before.clone();
        [500, 2_000, 9_000].into_iter().for_each(|ns| after.record(ns));
        let between = difference(&before, &after);
        assert_eq!(between.len(), 3);
        assert!(between.max().abs_diff(9_000) < 200, "{}", between.max());
        assert!(between.min().abs_diff(500) < 20, "{}", between.min());
        assert!(difference(&after, &after).is_empty());
    }

    #[test]
    fn counters_that_are_off_are_none() {
        let mut usage = CoreUsage::new(Role::Server, 0);
        fill(&mut usage, &Counters::default());
        assert_eq!(usage.loop_counters, None);
        let mut counters = Counters::default();
        (counters.ticks, counters.buffers_out, counters.timers) = (5, 2, 9);
        fill(&mut usage, &counters);
        assert_eq!(usage.loop_counters.unwrap().ticks, 5);
        assert_eq!(usage.events.into_iter().collect::<Vec<_>>(), [("buffers_out".to_owned(), 2)]);
    }
}
