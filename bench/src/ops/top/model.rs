//! From two looks at a server to what one frame shows.
//!
//! Owns the arithmetic: rates, shares of time, quantiles of the time between the looks, sums over queues.
//! Pure: knows neither the terminal nor the network.

use std::collections::BTreeMap;

use coreloop::{CoreState, LongPoll, QueueStats, Snapshot, StatsLevel};
use coreloop_net::ops::doc::{Cores, Process};
use serde::Serialize;

use crate::cli::ops::SortBy;

/// What the cores did between two looks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct View {
    /// Where the server's ops listener is.
    pub url: String,
    /// Whether it wants new work.
    pub ready: bool,
    /// The process, as of the second look.
    pub process: Process,
    /// CPU time that the process used per second.
    pub process_cpu: f64,
    /// Each core.
    pub cores: Vec<CoreView>,
    /// Task queues of all cores by their name, if any core has others than the default one.
    pub queues: Vec<QueueView>,
    /// Tasks with the longest polls of the last 10 to 20 s, the longest first, by core.
    pub long_polls: Vec<LongPollView>,
    /// Whether the server keeps latencies; without them no poll is timed.
    pub timed: bool,
}

/// The task queues of one name. Shares are of one core, not of the sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueueView {
    /// Their name.
    pub name: String,
    /// The shares of one of them.
    pub shares: u32,
    /// Cores that have it.
    pub cores: usize,
    /// Their tasks that have not ended.
    pub tasks: u64,
    /// Polls per second of all of them.
    pub polls: f64,
    /// What these took per second: of 1 for each core.
    pub cpu_use: f64,
}

/// A task with a long poll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LongPollView {
    /// Its core.
    pub core: usize,
    /// The task's id.
    pub task: String,
    /// Its name.
    pub name: Option<String>,
    /// Where it was spawned; none for a main future.
    pub spawned_at: Option<String>,
    /// How long its longest poll took.
    pub took_ns: u64,
}

/// What one core did. Shares are of 1.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CoreView {
    /// Its number.
    pub core: usize,
    /// The CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// `running`, `parked` or `ended`.
    pub state: CoreState,
    /// Seconds between the looks, by its own clock.
    pub seconds: f64,
    /// Share of the time that it worked; none if the server counts nothing.
    pub busy: Option<f64>,
    /// Share of the time that it spun, waiting.
    pub spinning: f64,
    /// Share of the time that it slept.
    pub parked: f64,
    /// CPU time per second.
    pub cpu_use: f64,
    /// Each counter, per second; none if the server counts nothing.
    pub rates: BTreeMap<&'static str, f64>,
    /// Each latency of that time; none if the server keeps none.
    pub latencies: Option<BTreeMap<&'static str, Latency>>,
    /// Each gauge, as of the second look.
    pub gauges: BTreeMap<&'static str, u64>,
    /// Age of the gauges in seconds: more than a moment if the core did not answer.
    pub answered_s: f64,
}

/// One latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// The median.
    pub p50_ns: u64,
    /// What 99 of 100 did not exceed.
    pub p99_ns: u64,
    /// The greatest.
    pub max_ns: u64,
}

impl View {
    /// What happened between two looks at the same process; from its start if `earlier` is of another one.
    pub fn between(url: &str, earlier: Option<&Cores>, now: &Cores) -> View {
        let same = |c: &&Cores| {
            c.process.pid == now.process.pid
                && c.process.started_unix_ns == now.process.started_unix_ns
        };
        let earlier = earlier.filter(same);
        let cores = now.cores.iter().enumerate().map(|(at, core)| {
            let before = earlier.and_then(|c| c.cores.get(at));
            CoreView::of(at, &before.map_or_else(|| core.clone(), |before| core.since(before)))
        });
        let (before_cpu, before_age) =
            earlier.map_or((0, 0), |c| (c.process.cpu_ns, c.process.age_ns));
        let elapsed = now.process.age_ns.saturating_sub(before_age);
        View {
            url: url.to_owned(),
            ready: now.ready,
            process: now.process.clone(),
            process_cpu: share(now.process.cpu_ns.saturating_sub(before_cpu), elapsed),
            cores: cores.collect(),
            queues: queues(earlier, now),
            long_polls: long_polls(&now.cores),
            timed: now.cores.iter().any(|core| core.level >= StatsLevel::Histograms),
        }
    }

    /// Puts the cores in order: the greatest first, but their numbers from 0.
    pub fn sort(&mut self, by: SortBy, reverse: bool) {
        let key = |core: &CoreView| match by {
            SortBy::Core => -(core.core as f64),
            SortBy::Busy => core.busy.unwrap_or_default(),
            SortBy::Polls => core.rate("polls"),
            SortBy::P99 => core.latency("wake_to_poll").map_or(0.0, |l| l.p99_ns as f64),
            SortBy::Tasks => core.gauge("tasks") as f64,
        };
        // Stable: equals stay in the order of their numbers.
        self.cores.sort_by(|a, b| key(b).total_cmp(&key(a)));
        if reverse {
            self.cores.reverse();
        }
    }

    /// The sum of a rate over all cores; none if no core counts.
    pub fn rate(&self, name: &str) -> Option<f64> {
        let counted: Vec<f64> =
            self.cores.iter().filter(|core| core.counts()).map(|core| core.rate(name)).collect();
        (!counted.is_empty()).then(|| counted.iter().sum())
    }

    /// The mean share of the time that the cores which run worked; none if no core counts.
    pub fn busy(&self) -> Option<f64> {
        if !self.cores.iter().any(CoreView::counts) {
            return None;
        }
        let running = self.cores.iter().filter(|c| c.state != CoreState::Ended);
        let running: Vec<f64> = running.filter_map(|core| core.busy).collect();
        let sum: f64 = running.iter().sum();
        Some(if running.is_empty() { 0.0 } else { sum / running.len() as f64 })
    }
}

impl CoreView {
    fn of(at: usize, between: &Snapshot) -> CoreView {
        let elapsed = ns(between.uptime);
        // Both are written at the end of a park: they may belong to the time before.
        let parked = share(between.counters.park_ns, elapsed).min(1.0);
        let spinning = share(between.counters.spin_ns, elapsed).min(1.0 - parked);
        // A core that has ended neither works nor waits.
        let ended = between.state == CoreState::Ended;
        let counted = between.level > StatsLevel::Off;
        let busy = if ended { 0.0 } else { (1.0 - parked - spinning).max(0.0) };
        let rates = between.counters.iter().filter(|_| counted);
        let seconds = elapsed as f64 / 1e9;
        let per_second = |n: u64| if elapsed == 0 { 0.0 } else { n as f64 / seconds };
        let latencies = between.histograms.as_ref().map(|all| {
            let all = all.iter().into_iter();
            all.map(|(name, h)| {
                let latency = Latency {
                    count: h.count(),
                    p50_ns: h.quantile_ns(0.5),
                    p99_ns: h.quantile_ns(0.99),
                    max_ns: h.max_ns(),
                };
                (name, latency)
            })
            .collect()
        });
        CoreView {
            core: between.core.unwrap_or(at),
            cpu: between.cpu,
            state: between.state,
            seconds,
            busy: counted.then_some(busy),
            spinning,
            parked,
            cpu_use: share(ns(between.cpu_time), elapsed),
            rates: rates.map(|(name, n)| (name, per_second(n))).collect(),
            latencies,
            gauges: between.gauges.iter().collect(),
            answered_s: between.gauges.age.as_secs_f64(),
        }
    }

    /// Whether it counts anything.
    pub fn counts(&self) -> bool {
        self.busy.is_some()
    }

    /// A counter per second.
    pub fn rate(&self, name: &str) -> f64 {
        self.rates.get(name).copied().unwrap_or_default()
    }

    /// A gauge.
    pub fn gauge(&self, name: &str) -> u64 {
        self.gauges.get(name).copied().unwrap_or_default()
    }

    /// A latency; none if there was not a single one.
    pub fn latency(&self, name: &str) -> Option<Latency> {
        self.latencies.as_ref()?.get(name).copied().filter(|latency| latency.count > 0)
    }
}

/// The task queues by name, with what they did between two looks.
fn queues(earlier: Option<&Cores>, now: &Cores) -> Vec<QueueView> {
    let mut all: Vec<QueueView> = Vec::new();
    for (at, core) in now.cores.iter().enumerate() {
        let before = earlier.and_then(|c| c.cores.get(at));
        let elapsed =
            core.uptime.saturating_sub(before.map_or_else(Default::default, |b| b.uptime));
        let seconds = elapsed.as_secs_f64();
        for name in names(&core.queues) {
            let sum = |of: &[QueueStats]| {
                let of = of.iter().filter(|queue| queue.name == name);
                of.fold((0, 0), |(polls, ns), one| (polls + one.polls, ns + self::ns(one.cpu_time)))
            };
            let (polls, cpu) = sum(&core.queues);
            let (polls_before, cpu_before) = before.map_or((0, 0), |before| sum(&before.queues));
            // One that is made again under its name begins from nothing.
            let since = |n: u64, before: u64| n.checked_sub(before).unwrap_or(n) as f64;
            let per_second = |n: f64| if seconds > 0.0 { n / seconds } else { 0.0 };
            let mut mine = core.queues.iter().filter(|queue| queue.name == name).peekable();
            let shares = mine.peek().map_or(0, |queue| queue.shares);
            let at = all.iter().position(|view| view.name == name).unwrap_or_else(|| {
                all.push(QueueView { name: name.to_owned(), shares, ..QueueView::default() });
                all.len() - 1
            });
            let view = &mut all[at];
            view.cores += 1;
            view.tasks += mine.map(|queue| u64::from(queue.tasks)).sum::<u64>();
            view.polls += per_second(since(polls, polls_before));
            view.cpu_use += per_second(since(cpu, cpu_before) / 1e9);
        }
    }
    all
}

/// Each name once, in the order of the queues.
fn names(queues: &[QueueStats]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for queue in queues {
        if !names.contains(&queue.name.as_str()) {
            names.push(&queue.name);
        }
    }
    names
}

fn long_polls(cores: &[Snapshot]) -> Vec<LongPollView> {
    let of_core = |(at, core): (usize, &Snapshot)| {
        let core_number = core.core.unwrap_or(at);
        let view = move |poll: &LongPoll| LongPollView {
            core: core_number,
            task: poll.task.clone(),
            name: poll.name.clone(),
            spawned_at: poll.spawned_at.clone(),
            took_ns: ns(poll.took),
        };
        core.long_polls.iter().map(view).collect::<Vec<_>>()
    };
    let mut all: Vec<LongPollView> = cores.iter().enumerate().flat_map(of_core).collect();
    all.sort_by_key(|poll| std::cmp::Reverse(poll.took_ns));
    all
}

fn ns(d: std::time::Duration) -> u64 {
    d.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::top::samples;

    #[test]
    fn a_view_is_of_the_time_between() {
        let (early, late) = samples::cores();
        let view = View::between("http://a", Some(&early), &late);
        let core = &view.cores[0];
        assert_eq!((core.core, core.cpu, core.seconds), (0, Some(2), 2.0));
        assert_eq!((core.parked, core.spinning), (0.5, 0.1));
        assert!((core.busy.unwrap() - 0.4).abs() < 1e-9, "{core:?}");
        assert_eq!(core.rate("polls"), 1000.0);
        let wake = core.latency("wake_to_poll").unwrap();
        assert_eq!(wake.count, 100);
        assert!((90_000..=110_000).contains(&wake.p99_ns), "{wake:?}");
        assert_eq!(core.latency("op_connect"), None, "there was none");
        assert_eq!(view.cores[1].busy, Some(0.0), "it has ended");
        assert!((view.process_cpu - 0.5).abs() < 1e-9, "{}", view.process_cpu);
        assert!((view.busy().unwrap() - 0.4).abs() < 1e-9, "of those that run");
        assert_eq!(view.rate("polls"), Some(1000.0));
        assert!(view.timed);
        assert_eq!(view.long_polls[0].took_ns, 3_000_000);
    }

    #[test]
    fn where_nothing_is_counted_nothing_is_said() {
        let (mut early, mut late) = samples::cores();
        for core in early.cores.iter_mut().chain(&mut late.cores) {
            core.level = StatsLevel::Off;
        }
        let view = View::between("http://a", Some(&early), &late);
        assert_eq!((view.cores[0].busy, view.busy(), view.rate("polls")), (None, None, None));
        assert!(view.cores[0].rates.is_empty() && !view.timed);
        assert_eq!(view.cores[0].cpu_use, 0.5, "the system's own count");
    }

    #[test]
    fn queues_of_one_name_are_one_with_what_they_did_between() {
        let (early, late) = samples::cores();
        let view = View::between("http://a", Some(&early), &late);
        let [default, batch] = &view.queues[..] else { panic!("{:?}", view.queues) };
        assert_eq!((default.name.as_str(), default.shares, default.tasks), ("default", 1000, 60));
        assert_eq!((batch.name.as_str(), batch.shares, batch.tasks), ("batch", 10, 4));
        assert_eq!((batch.polls, batch.cores), (50.0, 1));
        assert!((batch.cpu_use - 0.1).abs() < 1e-9, "{batch:?}");
    }

    #[test]
    fn another_process_is_looked_at_from_its_start() {
        let (mut early, late) = samples::cores();
        early.process.pid += 1;
        let view = View::between("http://a", Some(&early), &late);
        assert_eq!(view.cores[0].seconds, 12.0);
    }

    #[test]
    fn cores_are_sorted_by_what_is_asked() {
        let (early, late) = samples::cores();
        let mut view = View::between("http://a", Some(&early), &late);
        let order = |view: &View| view.cores.iter().map(|core| core.core).collect::<Vec<_>>();
        for (by, reverse, expected) in [
            (SortBy::Core, false, [0, 1]),
            (SortBy::Core, true, [1, 0]),
            (SortBy::Busy, false, [0, 1]),
            (SortBy::Tasks, false, [0, 1]),
            (SortBy::Tasks, true, [1, 0]),
        ] {
            view.sort(by, reverse);
            assert_eq!(order(&view), expected, "{by:?} {reverse}");
        }
    }
}
