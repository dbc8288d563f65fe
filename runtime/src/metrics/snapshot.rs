//! What a core did, as plain data.
//!
//! Owns [`Snapshot`] and its parts, their sums and differences. Nothing in here is shared with a core.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::{Counters, Histograms, StatsLevel};

/// What one core did since it started, or several together, as plain data.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct Snapshot {
    /// The core's place in its runtime, 0 for a loop by itself; none of several together.
    pub core: Option<usize>,
    /// How many cores this is the sum of; 1 for that of one.
    pub cores: usize,
    /// What is recorded: with [`StatsLevel::Off`] the counters are zero whatever the core did. Of several
    /// the least.
    pub level: StatsLevel,
    /// The CPU that the core is pinned to, if it is.
    pub cpu: Option<usize>,
    /// The number of its thread, by which `top -H`, `/proc` and traces call it; none in a simulation.
    pub thread: Option<u32>,
    /// What it did when this was taken; of several the liveliest.
    pub state: CoreState,
    /// Time since it started; of several the longest.
    pub uptime: Duration,
    /// Counts.
    pub counters: Counters,
    /// Latencies; none below [`StatsLevel::Histograms`](super::StatsLevel::Histograms).
    pub histograms: Option<Histograms>,
    /// What there was at a moment.
    pub gauges: Gauges,
    /// CPU time of the core's thread, as of the same moment.
    pub cpu_time: Duration,
    /// What was asked for and could not be had here.
    pub step_downs: Vec<StepDown>,
    /// Task queues, as of the same moment, the default one first; none while that is the only one. Of
    /// several cores one after the other.
    pub queues: Vec<QueueStats>,
    /// Tasks with the longest polls of the last 10 to 20 s, the longest first, at most 16 of a core, as of
    /// the same moment; none below [`StatsLevel::Histograms`], and in turns of more than 16 tasks only of
    /// the polls that are timed, one in some 32.
    pub long_polls: Vec<LongPoll>,
}

/// A task and the longest of its polls of late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct LongPoll {
    /// The task's id, as [`TaskId`](crate::task::TaskId) prints it. It may have ended.
    pub task: String,
    /// Its name, if it was given one and did not end in that very poll.
    pub name: Option<String>,
    /// Where it was spawned, as `file:line:column`; none for a main future.
    pub spawned_at: Option<String>,
    /// How long that poll took.
    pub took: Duration,
    /// Time from its end to this snapshot's gauges.
    pub ago: Duration,
}

/// The same as a core says it: without a word of text, which whoever reads it makes.
#[derive(Clone, Debug)]
pub(crate) struct LongPollSaid {
    pub(crate) task: [u32; 3],
    pub(crate) name: Option<Arc<str>>,
    pub(crate) spawned_at: Option<&'static Location<'static>>,
    pub(crate) took_ns: u64,
    pub(crate) ended_ns: u64,
}

impl LongPollSaid {
    /// In words, as of `now_ns`.
    pub(super) fn told(&self, now_ns: u64) -> LongPoll {
        let [core, slot, generation] = self.task;
        LongPoll {
            task: format!("{core}.{slot}.{generation}"),
            name: self.name.as_ref().map(ToString::to_string),
            spawned_at: self.spawned_at.map(ToString::to_string),
            took: Duration::from_nanos(self.took_ns),
            ago: Duration::from_nanos(now_ns.saturating_sub(self.ended_ns)),
        }
    }
}

/// What one task queue did since it was made; the default one: since it was the only one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// Its shares now.
    pub shares: u32,
    /// Its tasks that have not ended.
    pub tasks: u32,
    /// Polls of its tasks, without those that [`spawn_eager`](crate::spawn_eager) made.
    pub polls: u64,
    /// What these took, by the clock.
    pub cpu_time: Duration,
}

/// What a core does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum CoreState {
    /// Nothing any more: its loop has ended.
    #[default]
    Ended,
    /// It ends: it takes no closures any more, and waits for the kernel and for threads that block.
    Closing,
    /// It sleeps until something happens.
    Parked,
    /// It runs.
    Running,
}

impl CoreState {
    /// Whether a core in this state may still answer a question: it parks or runs.
    ///
    /// ```
    /// use coreloop::CoreState;
    /// assert!(CoreState::Parked.answers() && !CoreState::Closing.answers());
    /// ```
    pub fn answers(self) -> bool {
        matches!(self, Self::Parked | Self::Running)
    }
}

impl fmt::Display for CoreState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "ended",
            Self::Closing => "closing",
            Self::Parked => "parked",
            Self::Running => "running",
        })
    }
}

/// A feature or a setting that a core does without.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StepDown {
    /// Its name.
    pub what: String,
    /// Why.
    pub why: String,
}

macro_rules! gauges {
    ($($(#[doc = $doc:literal])* $field:ident,)*) => {
        /// What a core had at a moment. The core itself says so when it is asked.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
        #[non_exhaustive]
        pub struct Gauges {
            $($(#[doc = $doc])* pub $field: u64,)*
            /// Age of these numbers: zero if the core answered for this snapshot.
            pub age: Duration,
        }

        impl Gauges {
            /// What each gauge says, by its name, in the order of [`iter`](Self::iter).
            pub const DOCS: &[(&str, &str)] =
                &[$((stringify!($field), concat!($($doc, "\n"),*)),)*];

            /// Every gauge with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }

            fn merge(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                self.age = self.age.max(other.age);
            }
        }
    };
}

gauges! {
    /// Tasks that have not ended, main futures not counted.
    tasks,
    /// Tasks that are to be polled in the next turn.
    tasks_ready,
    /// Timers that are set.
    timers,
    /// Operations that have not ended.
    ops,
    /// Receive buffers of the core.
    buffers,
    /// Of those, the ones that the kernel has or that are spare: no chunk holds them.
    buffers_free,
    /// Threads of the pool for blocking work.
    blocking_threads,
    /// Closures that wait for one of those.
    blocking_queued,
    /// Bytes of the memory and tables of tasks.
    bytes_tasks,
    /// Bytes of the table of timers.
    bytes_timers,
    /// Bytes of the slots of operations.
    bytes_ops,
    /// Bytes mapped for receive buffers; only those that were used take memory.
    bytes_buffers,
    /// Bytes of counters and histograms.
    bytes_stats,
}

impl Gauges {
    /// Bytes of all the core's tables together; receive buffers are not among them, since what is mapped
    /// for those says little of the memory that they take.
    pub fn bytes_tables(&self) -> u64 {
        self.bytes_tasks + self.bytes_timers + self.bytes_ops + self.bytes_stats
    }
}

impl Snapshot {
    /// Several cores together.
    ///
    /// ```
    /// use coreloop::{Handle, Snapshot};
    /// let sum = coreloop::run(async { Snapshot::sum(&Handle::current().snapshots()) }).unwrap();
    /// assert_eq!((sum.core, sum.cores), (None, 1));
    /// assert!(sum.counters.polls > 0);
    /// ```
    pub fn sum<'a>(parts: impl IntoIterator<Item = &'a Snapshot>) -> Self {
        let mut sum = Self::default();
        parts.into_iter().for_each(|part| sum.merge(part));
        sum
    }

    /// Adds another core's numbers to these. What is of one core alone, its number, CPU and thread, is no
    /// more.
    pub fn merge(&mut self, other: &Self) {
        self.core = None;
        self.cpu = None;
        self.thread = None;
        self.level = if self.cores == 0 { other.level } else { self.level.min(other.level) };
        self.cores += other.cores;
        self.state = self.state.max(other.state);
        self.uptime = self.uptime.max(other.uptime);
        self.counters.merge(&other.counters);
        match (&mut self.histograms, &other.histograms) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            (_, None) => {}
        }
        self.gauges.merge(&other.gauges);
        self.cpu_time += other.cpu_time;
        self.queues.extend(other.queues.iter().cloned());
        self.long_polls.extend(other.long_polls.iter().cloned());
        self.long_polls.sort_by_key(|poll| std::cmp::Reverse(poll.took));
        for step in &other.step_downs {
            if !self.step_downs.contains(step) {
                self.step_downs.push(step.clone());
            }
        }
    }

    /// What happened since `earlier`, an earlier snapshot of the same core or cores: counts, latencies, CPU
    /// time and `uptime` are those of the time between, everything else is as of now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let histograms = match (&self.histograms, &earlier.histograms) {
            (Some(now), Some(before)) => Some(now.since(before)),
            (now, _) => now.clone(),
        };
        Self {
            uptime: self.uptime.saturating_sub(earlier.uptime),
            counters: self.counters.since(&earlier.counters),
            histograms,
            cpu_time: self.cpu_time.saturating_sub(earlier.cpu_time),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(core: usize, polls: u64, ns: u64) -> Snapshot {
        let mut histograms = Histograms::default();
        histograms.poll.record(ns);
        Snapshot {
            core: Some(core),
            cores: 1,
            state: if core == 0 { CoreState::Parked } else { CoreState::Running },
            uptime: Duration::from_secs(core as u64 + 1),
            counters: Counters { polls, ..Counters::default() },
            histograms: Some(histograms),
            gauges: Gauges { tasks: polls, ..Gauges::default() },
            cpu_time: Duration::from_millis(polls),
            step_downs: vec![StepDown { what: "abs_timer".into(), why: "masked".into() }],
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_sum_adds_what_can_be_added() {
        let sum = Snapshot::sum(&[of(0, 3, 10), of(1, 4, 20)]);
        assert_eq!((sum.core, sum.cores, sum.state), (None, 2, CoreState::Running));
        assert_eq!((sum.counters.polls, sum.gauges.tasks), (7, 7));
        assert_eq!((sum.uptime, sum.cpu_time), (Duration::from_secs(2), Duration::from_millis(7)));
        assert_eq!(sum.histograms.unwrap().poll.count(), 2);
        assert_eq!(sum.step_downs.len(), 1);
    }

    #[test]
    fn a_difference_is_of_the_time_between() {
        let early = of(1, 3, 10);
        let mut late = early.clone();
        late.uptime += Duration::from_secs(5);
        late.counters.polls += 9;
        late.cpu_time += Duration::from_millis(1);
        late.histograms.as_mut().unwrap().poll.record(77);
        let between = late.since(&early);
        assert_eq!(between.uptime, Duration::from_secs(5));
        assert_eq!((between.counters.polls, between.gauges.tasks), (9, 3));
        assert_eq!(between.cpu_time, Duration::from_millis(1));
        let poll = between.histograms.unwrap().poll;
        assert_eq!((poll.count(), poll.max_ns()), (1, 77));
    }
}
