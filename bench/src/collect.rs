//! The collecting side of a run: takes the intervals of every load core, and watches the time.
//!
//! Owns the merging: into one total, and into intervals over all cores for the interval log and
//! the progress bar. Runs on the main thread, which otherwise sleeps; it must stay light, since
//! on a small machine it shares a CPU with what is measured.
//!
//! It ends when every core has, or when the grace after the window is over: a core that hangs
//! costs its figures (and the run its validity), never the run's end.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::progress::Progress;
use crate::recorder::{INTERVAL_NS, Interval, Message, Recorder, Window};
use crate::report::core::CoreUsage;
use crate::report::hlog::HlogWriter;
use crate::report::write::WriteError;
use crate::stats::{LatencySet, Second};
use crate::sys;

/// How long after the window a core may take to drain and report.
const GRACE_NS: u64 = 10_000_000_000;

/// Intervals that wait for slower cores. Past it the oldest is taken as complete; what comes for
/// it later becomes an entry of its own, which readers of the log add up.
const PENDING_MAX: usize = 8;

/// Histogram sets each core has in reserve, beside the one it records into.
const SPARE_SETS: usize = 2;

/// Seconds whose figures are kept one by one; later ones are in the total only.
const SECONDS_MAX: usize = 3_600;

/// What came of a run's load side.
#[derive(Debug)]
pub struct Collected {
    /// All that was recorded within the window.
    pub total: LatencySet,
    /// One per core that ended, by core.
    pub usages: Vec<CoreUsage>,
    /// Cores that did not end in time, or went without a word.
    pub missing: Vec<usize>,
    /// Its seconds one by one, those that were whole: what noise is judged from.
    pub seconds: Vec<Second>,
}

/// Collects what the [`Recorder`]s of a run give away.
#[derive(Debug)]
pub struct Collector {
    messages: Receiver<Message>,
    give_back: BTreeMap<usize, Sender<LatencySet>>,
    open_loop: bool,
}

/// A collector and one recorder per core, in the order of `cores`.
pub fn channel(cores: &[usize], open_loop: bool) -> (Collector, Vec<Recorder>) {
    let (out, messages) = mpsc::channel();
    let mut give_back = BTreeMap::new();
    let recorders = cores
        .iter()
        .map(|&core| {
            let (back, spare) = mpsc::channel();
            for _ in 0..SPARE_SETS {
                back.send(LatencySet::new(open_loop)).expect("the receiver is at hand");
            }
            give_back.insert(core, back);
            Recorder::new(core, open_loop, out.clone(), spare)
        })
        .collect();
    (Collector { messages, give_back, open_loop }, recorders)
}

impl Collector {
    /// Collects until every core is done, or the grace after `window` is over.
    pub fn run(
        self,
        window: Window,
        progress: &mut Progress,
        mut hlog: Option<&mut HlogWriter>,
    ) -> Result<Collected, WriteError> {
        let mut merge = Merge::new(self.give_back.keys().copied(), self.open_loop);
        let deadline_ns = window.end_ns + GRACE_NS;
        let mut seconds = Vec::new();
        loop {
            let now_ns = sys::monotonic_ns();
            progress.update(now_ns);
            if merge.awaited() == 0 || now_ns >= deadline_ns {
                break;
            }
            let wait_ns = progress.pause_ns().min(deadline_ns - now_ns);
            match self.messages.recv_timeout(Duration::from_nanos(wait_ns)) {
                Ok(Message::Done(usage)) => merge.done(usage),
                Ok(Message::Interval(interval)) => {
                    let core = interval.core;
                    let emptied = merge.interval(interval);
                    // The core may have ended meanwhile, and needs its memory no more.
                    let _ = self.give_back[&core].send(emptied);
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            }
            for (index, merged) in merge.complete() {
                progress.interval(&merged.set);
                keep_second(&mut seconds, index, &merged);
                write_interval(&mut hlog, index, &merged)?;
            }
        }
        for (index, merged) in std::mem::take(&mut merge.pending) {
            keep_second(&mut seconds, index, &merged);
            write_interval(&mut hlog, index, &merged)?;
        }
        progress.finish();
        Ok(Collected { seconds, ..merge.into_collected() })
    }
}

/// Keeps the figures of an interval that was whole, and not told already.
fn keep_second(seconds: &mut Vec<Second>, index: u64, merged: &Merged) {
    let whole = merged.length_ns == INTERVAL_NS;
    let told = seconds.last().is_some_and(|last| last.index >= index);
    if whole && !told && seconds.len() < SECONDS_MAX {
        seconds.push(Second::of(index, &merged.set));
    }
}

fn write_interval(
    hlog: &mut Option<&mut HlogWriter>,
    index: u64,
    merged: &Merged,
) -> Result<(), WriteError> {
    // What begins where the window was cut holds nothing.
    let Some(hlog) = hlog.as_mut().filter(|_| merged.length_ns > 0) else { return Ok(()) };
    let (start_ns, length_ns) = (index * INTERVAL_NS, merged.length_ns);
    hlog.interval(Duration::from_nanos(start_ns), Duration::from_nanos(length_ns), &merged.set)
}

/// The merging by itself: no channel, no clock.
#[derive(Debug)]
struct Merge {
    total: LatencySet,
    /// Per core still running, the number of the first interval it may yet give.
    next_index: BTreeMap<usize, u64>,
    pending: BTreeMap<u64, Merged>,
    usages: BTreeMap<usize, CoreUsage>,
}

/// An interval over all cores.
#[derive(Debug)]
struct Merged {
    set: LatencySet,
    /// That of the core for which it was longest, as with the window itself: a core that lost its connections
    /// or heard of the end first has less.
    length_ns: u64,
}

impl Merge {
    fn new(cores: impl Iterator<Item = usize>, open_loop: bool) -> Merge {
        Merge {
            total: LatencySet::new(open_loop),
            next_index: cores.map(|core| (core, 0)).collect(),
            pending: BTreeMap::new(),
            usages: BTreeMap::new(),
        }
    }

    fn awaited(&self) -> usize {
        self.next_index.len()
    }

    /// Takes one core's interval in, and gives its histograms back emptied.
    fn interval(&mut self, interval: Interval) -> LatencySet {
        let Interval { core, index, length_ns, mut set } = interval;
        self.total.merge(&set);
        if let Some(next) = self.next_index.get_mut(&core) {
            *next = (*next).max(index + 1);
        }
        match self.pending.get_mut(&index) {
            Some(merged) => {
                merged.set.merge(&set);
                merged.length_ns = merged.length_ns.max(length_ns);
            }
            None => {
                self.pending.insert(index, Merged { set: set.clone(), length_ns });
            }
        }
        set.clear();
        set
    }

    fn done(&mut self, usage: CoreUsage) {
        self.next_index.remove(&usage.core);
        self.usages.insert(usage.core, usage);
    }

    /// Takes out the intervals that no core can add to any more, in order.
    fn complete(&mut self) -> Vec<(u64, Merged)> {
        let reached = self.next_index.values().copied().min().unwrap_or(u64::MAX);
        let mut out = Vec::new();
        while let Some((&first, _)) = self.pending.first_key_value() {
            if first >= reached && self.pending.len() <= PENDING_MAX {
                break;
            }
            out.extend(self.pending.pop_first());
        }
        out
    }

    fn into_collected(self) -> Collected {
        Collected {
            total: self.total,
            usages: self.usages.into_values().collect(),
            missing: self.next_index.into_keys().collect(),
            seconds: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::core::Role;
    use crate::stats::Moments;

    fn interval(core: usize, index: u64, requests: u64) -> Interval {
        let mut set = LatencySet::new(false);
        (0..requests).for_each(|_| set.record(Moments::closed(0, 1_000), 1));
        Interval { core, index, length_ns: INTERVAL_NS, set }
    }

    fn indexes(merge: &mut Merge) -> Vec<(u64, u64)> {
        merge.complete().iter().map(|(index, merged)| (*index, merged.set.requests())).collect()
    }

    #[test]
    fn an_interval_is_complete_when_every_core_is_past_it() {
        let mut merge = Merge::new([1, 2].into_iter(), false);
        merge.interval(interval(1, 0, 3));
        assert_eq!(indexes(&mut merge), []);
        merge.interval(interval(2, 0, 4));
        assert_eq!(indexes(&mut merge), [(0, 7)]);
        merge.interval(interval(1, 1, 1));
        merge.interval(interval(2, 3, 1));
        assert_eq!(indexes(&mut merge), [(1, 1)], "core 2 has skipped interval 1");
        assert_eq!(merge.total.requests(), 9);
    }

    #[test]
    fn a_core_that_is_done_holds_nothing_up() {
        let mut merge = Merge::new([1, 2].into_iter(), false);
        merge.interval(interval(1, 0, 3));
        merge.done(CoreUsage::new(Role::Load, 2));
        assert_eq!(indexes(&mut merge), [(0, 3)]);
        assert_eq!(merge.awaited(), 1);
        let collected = merge.into_collected();
        assert_eq!(collected.missing, [1]);
        assert_eq!(collected.usages.len(), 1);
    }

    #[test]
    fn a_stalled_core_cannot_make_intervals_pile_up() {
        let mut merge = Merge::new([1, 2].into_iter(), false);
        let mut taken = 0;
        for index in 0..100 {
            merge.interval(interval(1, index, 1));
            taken += indexes(&mut merge).len();
            assert!(merge.pending.len() <= PENDING_MAX);
        }
        assert_eq!(taken, 100 - PENDING_MAX);
    }

    #[test]
    fn whole_seconds_are_kept_once_each() {
        let mut set = LatencySet::new(false);
        set.record(Moments::closed(0, 1_000), 7);
        let mut merged = Merged { set, length_ns: INTERVAL_NS };
        let mut seconds = Vec::new();
        for index in [0, 1, 0, 1] {
            keep_second(&mut seconds, index, &merged);
        }
        merged.length_ns /= 2;
        keep_second(&mut seconds, 2, &merged);
        let told: Vec<(u64, u64)> = seconds.iter().map(|s| (s.index, s.requests)).collect();
        assert_eq!(told, [(0, 7), (1, 7)], "the third is only half a second");
        assert_eq!(seconds[0].p99_ns, 1_000);
    }

    /// The log's entries, start and length, and the whole seconds of a run of two cores.
    fn told(planned_ns: u64, cut_ns: Option<u64>) -> (Vec<String>, Vec<u64>) {
        let (collector, recorders) = channel(&[4, 5], false);
        let start_ns = sys::monotonic_ns();
        let window = Window { start_ns, end_ns: start_ns + planned_ns };
        for (mut recorder, earlier_ns) in recorders.into_iter().zip([0, 1_000]) {
            recorder.open_window(window);
            recorder.record(Moments::closed(start_ns, start_ns + 10), 1);
            match cut_ns {
                Some(cut_ns) => recorder.cut_window(start_ns + cut_ns - earlier_ns),
                None => {
                    recorder.tick(start_ns + INTERVAL_NS);
                    recorder.tick(start_ns + planned_ns);
                }
            }
            let core = recorder.core();
            recorder.finish(CoreUsage::new(Role::Load, core));
        }
        let name = format!("told-{}-{planned_ns}.hlog", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut hlog = HlogWriter::create(&path, std::time::UNIX_EPOCH, "test").unwrap();
        let collected = collector.run(window, &mut Progress::hidden(), Some(&mut hlog)).unwrap();
        let log = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let entries = log.lines().filter_map(|line| line.strip_prefix("Tag=latency,"));
        let times = entries.map(|line| line.split(',').take(2).collect::<Vec<_>>().join("+"));
        (times.collect(), collected.seconds.iter().map(|second| second.index).collect())
    }

    #[test]
    fn an_interval_is_as_long_as_the_window_was_and_none_is_empty() {
        const HALF: u64 = INTERVAL_NS / 2;
        let entries = |times: &[&str]| times.iter().map(|t| t.to_string()).collect::<Vec<_>>();
        let whole = told(2 * INTERVAL_NS, None);
        assert_eq!(whole, (entries(&["0.000+1.000", "1.000+1.000"]), vec![0, 1]));
        let planned = told(INTERVAL_NS + HALF, None);
        assert_eq!(planned, (entries(&["0.000+1.000", "1.000+0.500"]), vec![0]));
        let cut = told(9 * INTERVAL_NS, Some(HALF));
        assert_eq!(cut, (entries(&["0.000+0.500"]), vec![]));
    }

    #[test]
    fn emptied_histograms_go_back_empty() {
        let mut merge = Merge::new([1].into_iter(), false);
        assert_eq!(merge.interval(interval(1, 0, 5)).requests(), 0);
    }

    #[test]
    fn a_run_ends_when_its_cores_do_also_without_a_word() {
        let (collector, recorders) = channel(&[4, 5], false);
        let start_ns = sys::monotonic_ns();
        let window = Window { start_ns, end_ns: start_ns + 1_000_000_000 };
        let threads: Vec<_> = recorders
            .into_iter()
            .map(|mut recorder| {
                std::thread::spawn(move || {
                    recorder.open_window(window);
                    recorder.record(Moments::closed(start_ns, start_ns + 10), 1);
                    if recorder.core() == 4 {
                        recorder.finish(CoreUsage::new(Role::Load, 4));
                    }
                })
            })
            .collect();
        let collected = collector.run(window, &mut Progress::hidden(), None).unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(collected.total.requests(), 1, "what a core never gave away is lost");
        assert_eq!((collected.usages.len(), collected.missing), (1, vec![5]));
        assert_eq!(collected.usages[0].requests, 1);
        assert_eq!(collected.usages[0].wall_ns, 1_000_000_000);
    }
}
