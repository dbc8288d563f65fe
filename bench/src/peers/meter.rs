//! Who used the CPUs during a run: the contender, the generator, or somebody else.
//!
//! Owns the reading of /proc and the rules by which a run counts as disturbed. *Foreign* is what the kernel
//! counted as busy on a core (or as taken by the host) beyond what the measured processes used there;
//! the kernel's own softirq threads work for the run's packets and count as part of it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use crate::sys::process;

/// Share of the time that a process may wait for its core.
const WAITED_MAX: f64 = 0.04;

/// Share of the cores' time that others may use. /proc/stat counts in ticks of 10 ms, and is as exact.
const FOREIGN_MAX: f64 = 0.06;

/// A thread that ran less than this share of the time doesn't make others wait.
const BUSY_MIN: f64 = 0.01;

/// Run and wait time of each thread of a process, in ns, by its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Threads(BTreeMap<u32, (u64, u64)>);

/// What stood in /proc when a run began.
#[derive(Debug)]
pub struct Meter {
    cores: Vec<usize>,
    began: Instant,
    busy_ticks: Option<u64>,
    softirq_ns: u64,
    children_ns: u64,
    own_ns: u64,
}

/// What a run used, and what others did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time of the contender.
    pub cpu_ns: u64,
    /// What was wrong, in words.
    pub marks: Vec<String>,
    /// How wrong it was: the larger the worse.
    pub disturbance: f64,
    /// What the contender itself failed at: answers that never came, a rate that it did not reach. It would
    /// fail at that again, so that it is no reason to repeat the run, and none to prefer another one.
    pub faults: Vec<String>,
}

impl Threads {
    /// Of a process that is there; empty of one that is not.
    pub fn of(pid: u32) -> Threads {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let thread = |entry: fs::DirEntry| {
            let tid = entry.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(entry.path().join("schedstat")).ok()?;
            Some((tid, parse_schedstat(&text)?))
        };
        Threads(tasks.filter_map(thread).collect())
    }

    /// Whether there are none: the process has ended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// CPU time since `before`, threads that are new included.
    pub fn cpu_ns_since(&self, before: &Threads) -> u64 {
        self.grown(before).map(|(run, _)| run).sum()
    }

    /// Share of `wall_ns` that its threads waited for a core; 0 if more than one of them was busy, since then
    /// they waited for each other.
    pub fn waited_since(&self, before: &Threads, wall_ns: u64) -> f64 {
        let share = |ns: u64| ns as f64 / wall_ns.max(1) as f64;
        let busy = self.grown(before).filter(|(run, _)| share(*run) > BUSY_MIN).count();
        match busy {
            0 | 1 => share(self.grown(before).map(|(_, wait)| wait).sum()),
            _ => 0.0,
        }
    }

    fn grown<'a>(&'a self, before: &'a Threads) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.0.iter().map(|(tid, (run, wait))| {
            let then = before.0.get(tid).copied().unwrap_or((0, 0));
            (run.saturating_sub(then.0), wait.saturating_sub(then.1))
        })
    }
}

impl Meter {
    /// Begins to watch these cores.
    pub fn start(cores: &[usize]) -> Meter {
        Meter {
            cores: cores.to_vec(),
            began: Instant::now(),
            busy_ticks: busy_ticks(cores),
            softirq_ns: softirq_ns(cores),
            children_ns: process::ended_children_cpu_ns(),
            own_ns: own_ns(),
        }
    }

    /// Nanoseconds since it began.
    pub fn wall_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Ends the watch. `alive_ns` is what processes used that were not waited for yet.
    pub fn foreign_share(&self, alive_ns: u64) -> f64 {
        let (Some(before), Some(now)) = (self.busy_ticks, busy_ticks(&self.cores)) else {
            return 0.0;
        };
        let tick_ns = 1e9 / process::ticks_per_second() as f64;
        let busy_ns = now.saturating_sub(before) as f64 * tick_ns;
        let ours_ns = alive_ns
            + process::ended_children_cpu_ns().saturating_sub(self.children_ns)
            + softirq_ns(&self.cores).saturating_sub(self.softirq_ns)
            + own_ns().saturating_sub(self.own_ns);
        let all_ns = self.wall_ns() as f64 * self.cores.len() as f64;
        // A core's counter is up to a tick behind at either end, which is much of a short run.
        let unsure_ns = 2.0 * tick_ns * self.cores.len() as f64;
        ((busy_ns - ours_ns as f64 - unsure_ns) / all_ns).max(0.0)
    }
}

impl Usage {
    /// Takes in a share of waiting.
    pub fn waited(&mut self, who: &str, share: f64) {
        self.judge(share, WAITED_MAX, || {
            format!("{who} waited for its core {:.0} % of the time", share * 100.0)
        });
    }

    /// Takes in the share of the cores that others used.
    pub fn foreign(&mut self, share: f64) {
        self.judge(share, FOREIGN_MAX, || {
            format!("others used {:.0} % of the cores", share * 100.0)
        });
    }

    /// Takes in what the generator says of itself.
    pub fn generator(&mut self, reason: &str) {
        self.disturbance += 1.0;
        self.marks.push(format!("generator: {reason}"));
    }

    fn judge(&mut self, share: f64, max: f64, words: impl Fn() -> String) {
        self.disturbance += share;
        if share > max {
            self.marks.push(words());
        }
    }
}

pub(super) fn parse_schedstat(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Ticks in which these cores were not idle, and that the host took from them.
fn busy_ticks(cores: &[usize]) -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    cores.iter().map(|core| parse_busy(&stat, *core)).sum()
}

pub(super) fn parse_busy(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is contained in the first two.
    let counted = [0, 1, 2, 5, 6, 7];
    Some(counted.iter().filter_map(|i| ticks.get(*i)).fold(0, |all, n| all.saturating_add(*n)))
}

/// CPU time of the kernel's softirq threads of these cores.
fn softirq_ns(cores: &[usize]) -> u64 {
    let of_core = |core: &usize| {
        // Found once: their numbers never change.
        static PIDS: std::sync::OnceLock<BTreeMap<String, u32>> = std::sync::OnceLock::new();
        let pids = PIDS.get_or_init(softirq_threads);
        let pid = pids.get(&format!("ksoftirqd/{core}"))?;
        parse_schedstat(&fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?)
    };
    cores.iter().filter_map(of_core).map(|(run, _)| run).sum()
}

fn softirq_threads() -> BTreeMap<String, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let thread = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        name.starts_with("ksoftirqd/").then(|| (name.trim().to_owned(), pid))
    };
    entries.filter_map(thread).collect()
}

fn own_ns() -> u64 {
    Threads::of(std::process::id()).cpu_ns_since(&Threads::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(all: &[(u32, u64, u64)]) -> Threads {
        Threads(all.iter().map(|(tid, run, wait)| (*tid, (*run, *wait))).collect())
    }

    #[test]
    fn cpu_time_is_the_growth_of_all_threads() {
        let before = threads(&[(1, 100, 10), (2, 50, 0)]);
        let after = threads(&[(1, 400, 40), (2, 50, 0), (3, 7, 1)]);
        assert_eq!(after.cpu_ns_since(&before), 307);
    }

    #[test]
    fn waiting_counts_unless_a_process_keeps_itself_waiting() {
        let before = threads(&[(1, 0, 0), (2, 0, 0)]);
        let one = threads(&[(1, 500, 100), (2, 1, 0)]);
        assert_eq!(one.waited_since(&before, 1_000), 0.1);
        let two = threads(&[(1, 400, 300), (2, 300, 400)]);
        assert_eq!(two.waited_since(&before, 1_000), 0.0);
    }

    #[test]
    fn a_run_is_marked_by_what_is_above_the_bounds() {
        let mut usage = Usage::default();
        usage.waited("the server", 0.01);
        usage.foreign(0.02);
        assert!(usage.marks.is_empty());
        usage.waited("the server", 0.31);
        usage.foreign(0.12);
        assert_eq!(
            usage.marks,
            ["the server waited for its core 31 % of the time", "others used 12 % of the cores"]
        );
        assert!(usage.disturbance > 0.4);
    }

    #[test]
    fn busy_ticks_are_those_that_were_not_idle() {
        let stat = "cpu  9 9 9 9\ncpu0 10 1 20 500 7 2 3 4 0 0\ncpu1 1 0 0 9 0 0 0 0 0 0\n";
        assert_eq!(parse_busy(stat, 0), Some(40));
        assert_eq!(parse_busy(stat, 1), Some(1));
        assert_eq!(parse_busy(stat, 2), None);
    }

    #[test]
    fn work_of_others_is_seen_and_work_of_ours_is_not() {
        let cores = coreloop::placement::allowed_cpus();
        let meter = Meter::start(&cores);
        let threads = Threads::of(std::process::id());
        assert!(!threads.is_empty());
        let until = Instant::now() + std::time::Duration::from_millis(60);
        let mut sum = 0u64;
        while Instant::now() < until {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let used = Threads::of(std::process::id()).cpu_ns_since(&threads);
        assert!(used > 1_000_000, "{used}");
        // Whatever else ran here, a share is a share.
        assert!((0.0..=1.05).contains(&meter.foreign_share(0)));
    }
}
