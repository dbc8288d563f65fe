//! What one core did and used while it was measured, and the figures that follow from it.
//!
//! Owns the arithmetic from counters to rates and shares. Knows no thread and no kernel: whoever
//! ran the core fills in the counters.

use std::collections::BTreeMap;

use serde::Serialize;

/// On which side of the wire a core works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It answers.
    Server,
    /// It asks.
    Load,
}

/// Counters of a loop within the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoopCounters {
    /// Turns of the loop.
    pub ticks: u64,
    /// `io_uring_enter` calls.
    pub enters: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Completion entries reaped.
    pub completions: u64,
    /// Times the loop slept.
    pub parks: u64,
}

/// One core's counters within the window, as measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CoreUsage {
    /// Its side.
    pub role: Role,
    /// The CPU it was pinned to.
    pub core: usize,
    /// Requests answered (server) or answers received (load).
    pub requests: u64,
    /// Answers over the whole run, warm-up and drain included (load).
    pub answers_all: u64,
    /// Payload bytes received within the window (server).
    pub bytes: u64,
    /// Connections accepted within the window (server).
    pub connections: u64,
    /// Failed requests and connections.
    pub errors: u64,
    /// Requests sent, or due by the schedule, that were not answered when the drain after the window
    /// ended.
    pub unanswered: u64,
    /// Length of the window.
    pub wall_ns: u64,
    /// CPU time of its thread, spinning included.
    pub cpu_ns: u64,
    /// The part of `cpu_ns` it spun in, waiting for work.
    pub spun_ns: u64,
    /// Time its thread was ready and waited for the CPU, since something else ran on it.
    pub run_delay_ns: Option<u64>,
    /// The loop's counters, unless they are off.
    #[serde(rename = "loop")]
    pub loop_counters: Option<LoopCounters>,
    /// Rarer events by name (`cq_overflows`, `buffer_exhaustions` …); only printed if not 0.
    pub events: BTreeMap<String, u64>,
}

/// [`CoreUsage`] with what follows from it; a row of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CoreRow {
    /// As measured.
    #[serde(flatten)]
    pub usage: CoreUsage,
    /// Requests per second.
    pub requests_per_s: f64,
    /// Share of the window its thread worked; spinning is not work.
    pub cpu_percent: f64,
    /// Share of the window it spun.
    pub spun_percent: f64,
    /// Share of the window it waited for the CPU.
    pub run_delay_percent: Option<f64>,
    /// CPU time per request without spinning, 0 if there was none.
    pub cpu_ns_per_request: f64,
}

impl CoreUsage {
    /// All counters zero.
    pub fn new(role: Role, core: usize) -> CoreUsage {
        CoreUsage {
            role,
            core,
            requests: 0,
            answers_all: 0,
            bytes: 0,
            connections: 0,
            errors: 0,
            unanswered: 0,
            wall_ns: 0,
            cpu_ns: 0,
            spun_ns: 0,
            run_delay_ns: None,
            loop_counters: None,
            events: BTreeMap::new(),
        }
    }
}

impl From<CoreUsage> for CoreRow {
    fn from(usage: CoreUsage) -> CoreRow {
        let work_ns = usage.cpu_ns.saturating_sub(usage.spun_ns);
        let share = |part_ns: u64| 100.0 * per(part_ns, usage.wall_ns);
        CoreRow {
            requests_per_s: 1e9 * per(usage.requests, usage.wall_ns),
            cpu_percent: share(work_ns),
            spun_percent: share(usage.spun_ns),
            run_delay_percent: usage.run_delay_ns.map(share),
            cpu_ns_per_request: per(work_ns, usage.requests),
            usage,
        }
    }
}

/// `part / whole`, and 0 rather than NaN where there is no whole.
pub fn per(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_is_reported_apart_from_work() {
        let mut usage = CoreUsage::new(Role::Server, 0);
        usage.requests = 1_000;
        usage.wall_ns = 1_000_000_000;
        usage.cpu_ns = 900_000_000;
        usage.spun_ns = 400_000_000;
        usage.run_delay_ns = Some(50_000_000);
        let row = CoreRow::from(usage);
        assert_eq!(row.requests_per_s, 1_000.0);
        assert_eq!(row.cpu_percent, 50.0);
        assert_eq!(row.spun_percent, 40.0);
        assert_eq!(row.run_delay_percent, Some(5.0));
        assert_eq!(row.cpu_ns_per_request, 500_000.0);
    }

    #[test]
    fn a_core_that_did_nothing_has_zeros_and_no_nan() {
        let row = CoreRow::from(CoreUsage::new(Role::Load, 1));
        assert_eq!((row.requests_per_s, row.cpu_percent, row.cpu_ns_per_request), (0.0, 0.0, 0.0));
    }
}
