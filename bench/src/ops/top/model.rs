//! From two looks at a server to what one frame shows.
//!
//! Owns the arithmetic: rates, shares of time, quantiles of the time between the looks, groups of tasks.
//! Pure: knows neither the terminal nor the network.

use std::collections::BTreeMap;

use coreloop::{CoreState, Snapshot};
use coreloop_net::ops::doc::{Cores, Process, Task, Tasks};
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
    /// Share of the time that it worked.
    pub busy: f64,
    /// Share of the time that it spun, waiting.
    pub spinning: f64,
    /// Share of the time that it slept.
    pub parked: f64,
    /// CPU time per second.
    pub cpu_use: f64,
    /// Each counter, per second.
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
        }
    }

    /// Puts the cores in order: the greatest first, but their numbers from 0.
    pub fn sort(&mut self, by: SortBy, reverse: bool) {
        let key = |core: &CoreView| match by {
            SortBy::Core => -(core.core as f64),
            SortBy::Busy => core.busy,
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

    /// The sum of a rate over all cores.
    pub fn rate(&self, name: &str) -> f64 {
        self.cores.iter().map(|core| core.rate(name)).sum()
    }

    /// The mean share of the time that the cores which run worked.
    pub fn busy(&self) -> f64 {
        let running: Vec<f64> =
            self.cores.iter().filter(|c| c.state != CoreState::Ended).map(|c| c.busy).collect();
        if running.is_empty() { 0.0 } else { running.iter().sum::<f64>() / running.len() as f64 }
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
        let busy = if ended { 0.0 } else { (1.0 - parked - spinning).max(0.0) };
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
            busy,
            spinning,
            parked,
            cpu_use: share(ns(between.cpu_time), elapsed),
            rates: between.counters.iter().map(|(name, n)| (name, per_second(n))).collect(),
            latencies,
            gauges: between.gauges.iter().collect(),
            answered_s: between.gauges.age.as_secs_f64(),
        }
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

/// Tasks that were spawned at the same place under the same name, or one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// How many.
    pub count: usize,
    /// The age of the oldest.
    pub oldest_ns: u64,
    /// Its name, or its id where it stands alone without one.
    pub name: String,
    /// Where it was spawned.
    pub place: String,
    /// What most of them wait for.
    pub wait: String,
}

/// The tasks of all cores, the oldest first, without the main futures; in groups or one by one.
pub fn task_rows(tasks: &Tasks, grouped: bool) -> Vec<TaskRow> {
    let all = tasks.cores.iter().flat_map(|core| &core.tasks);
    let all = all.filter(|task| task.spawned_at.is_some());
    let mut groups: BTreeMap<(String, &str, &str), Vec<&Task>> = BTreeMap::new();
    for task in all {
        let place = task.spawned_at.as_deref().unwrap_or_default();
        let name = task.name.as_deref().unwrap_or_default();
        let own = if grouped { String::new() } else { task.id.clone() };
        groups.entry((own, place, name)).or_default().push(task);
    }
    let mut rows: Vec<TaskRow> = groups
        .into_iter()
        .map(|((own, place, name), tasks)| TaskRow {
            count: tasks.len(),
            oldest_ns: tasks.iter().map(|task| task.age_ns).max().unwrap_or_default(),
            name: match (name, own.as_str()) {
                ("", "") => "·".to_owned(),
                ("", id) => id.to_owned(),
                (name, _) => name.to_owned(),
            },
            place: place.to_owned(),
            wait: most_common_wait(&tasks),
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.oldest_ns));
    rows
}

fn most_common_wait(tasks: &[&Task]) -> String {
    let mut waits: BTreeMap<String, usize> = BTreeMap::new();
    for task in tasks {
        let what = match (task.waits_for.first(), tasks.len()) {
            (None, _) => task.state.clone(),
            // Of one its very descriptor or timer; of many the kind.
            (Some(wait), 1) => wait.text.clone(),
            (Some(wait), _) => match (&wait.op, wait.left_ns, &wait.task) {
                (Some(op), ..) => op.clone(),
                (None, Some(_), _) => "a timer".to_owned(),
                (None, None, Some(_)) => "a task".to_owned(),
                (None, None, None) => wait.text.clone(),
            },
        };
        *waits.entry(what).or_default() += 1;
    }
    let kinds = waits.len();
    let most = waits.into_iter().max_by_key(|(_, n)| *n);
    match most {
        Some((what, n)) if kinds > 1 => format!("{what} ({n})"),
        Some((what, _)) => what,
        None => String::new(),
    }
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
        assert!((core.busy - 0.4).abs() < 1e-9, "{core:?}");
        assert_eq!(core.rate("polls"), 1000.0);
        let wake = core.latency("wake_to_poll").unwrap();
        assert_eq!(wake.count, 100);
        assert!((90_000..=110_000).contains(&wake.p99_ns), "{wake:?}");
        assert_eq!(core.latency("op_connect"), None, "there was none");
        assert_eq!(view.cores[1].busy, 0.0, "it has ended");
        assert!((view.process_cpu - 0.5).abs() < 1e-9, "{}", view.process_cpu);
        assert!((view.busy() - 0.4).abs() < 1e-9, "of those that run");
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

    #[test]
    fn tasks_of_one_place_are_one_row() {
        let tasks = samples::tasks();
        let rows = task_rows(&tasks, true);
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!((rows[0].count, rows[0].oldest_ns), (3, 90_000_000_000));
        assert_eq!((rows[0].name.as_str(), rows[0].wait.as_str()), ("echo", "recv (2)"));
        assert_eq!(rows[1].wait, "a timer in 3.0s");
        let single = task_rows(&tasks, false);
        assert_eq!(single.len(), 4);
        assert_eq!(single[0].wait, "recv on descriptor 9");
    }
}
