//! What a core did: counters and latency histograms.
//!
//! Owns the [`Recorder`] that one core writes (plain loads and stores: nobody else writes) and that any
//! thread reads while the core goes on, and the plain data that a snapshot is. Three levels: off, counters,
//! histograms; the last one costs clock readings, the other two none. Knows nothing of
//! what is measured.

use std::sync::PoisonError;
use std::task::Waker;
use std::time::Duration;

use crate::contain::contained;
use crate::sys::abi::opcode;
use crate::sys::locks::{Mutex, MutexGuard};
use crate::sys::shared::{AtomicBool, AtomicU64, Ordering, fence};

mod counters;
mod histogram;
mod histograms;
mod snapshot;

pub use counters::Counters;
pub(crate) use counters::Kind;
pub use histogram::Histogram;
pub use histograms::Histograms;
pub(crate) use histograms::Latency;
pub(crate) use snapshot::LongPollSaid;
pub use snapshot::{CoreState, Gauges, LongPoll, QueueStats, Snapshot, StepDown};

use counters::COUNTERS;
use histogram::Track;
use histograms::LATENCIES;

/// How much a core records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum StatsLevel {
    /// Nothing.
    Off,
    /// Counters: an addition each, and two clock readings for each park.
    #[default]
    Counters,
    /// Counters and histograms: a clock reading for each task poll, about 360 KiB a core. In a turn of more
    /// than 16 tasks one poll in some 32, picked at random, is timed, with the operations that it begins;
    /// in shorter ones all are.
    Histograms,
}

/// Step-downs that a core remembers.
const STEP_DOWNS_MAX: usize = 64;

/// One core's book. Its core alone writes counts and latencies; whoever has it may read them at any time,
/// without a word to the core.
pub(crate) struct Recorder {
    level: StatsLevel,
    cells: [AtomicU64; COUNTERS],
    histograms: Option<Box<[Track; LATENCIES]>>,
    /// When the core started, in ns of its clock.
    started_ns: u64,
    ended: AtomicBool,
    /// Whether the core is within its tasks, or what else a turn does for them.
    busy: AtomicBool,
    /// When the park began that the core is in; 0 if it is in none, or nobody counts.
    parked_at: AtomicU64,
    said: Mutex<Said>,
}

/// What the core said of itself last.
#[derive(Clone, Default)]
struct Said {
    core: usize,
    cpu: Option<usize>,
    thread: Option<u32>,
    gauges: Gauges,
    cpu_time: Duration,
    at_ns: u64,
    step_downs: Vec<StepDown>,
    queues: Vec<QueueStats>,
    long_polls: Vec<LongPollSaid>,
}

/// Tells a waker, and contains and counts its panic: a stranger's waker must not take the core down.
pub(crate) fn wake_contained(waker: Waker, metrics: &Recorder) {
    if contained(|| waker.wake()).is_none() {
        metrics.count(Kind::WakerPanics);
    }
}

impl Recorder {
    /// Runs what an op does at its end, and contains and counts its panic.
    pub(crate) fn hook(&self, end: impl FnOnce()) {
        if contained(end).is_none() {
            self.count(Kind::HookPanics);
        }
    }

    pub(crate) fn new(level: StatsLevel, now_ns: u64) -> Self {
        let wanted = level == StatsLevel::Histograms;
        Self {
            level,
            cells: std::array::from_fn(|_| AtomicU64::new(0)),
            histograms: wanted.then(|| Box::new(std::array::from_fn(|_| Track::new()))),
            started_ns: now_ns,
            ended: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            parked_at: AtomicU64::new(0),
            said: Mutex::new(Said { at_ns: now_ns, ..Said::default() }),
        }
    }

    pub(crate) fn timing(&self) -> bool {
        self.histograms.is_some()
    }

    #[inline]
    pub(crate) fn count(&self, kind: Kind) {
        self.add(kind, 1);
    }

    #[inline]
    pub(crate) fn add(&self, kind: Kind, n: u64) {
        if self.level > StatsLevel::Off {
            let cell = &self.cells[kind as usize];
            // By the core alone, so nothing is lost between the two.
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// One counter.
    pub(crate) fn get(&self, kind: Kind) -> u64 {
        self.cells[kind as usize].load(Ordering::Relaxed)
    }

    /// The core begins or ends what others may do on it: what can keep it.
    #[inline]
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether anything is counted.
    pub(crate) fn counting(&self) -> bool {
        self.level > StatsLevel::Off
    }

    /// The core parks at `now_ns`.
    pub(crate) fn parks(&self, now_ns: u64) {
        self.parked_at.store(now_ns, Ordering::Relaxed);
    }

    /// The park has ended.
    pub(crate) fn parked(&self, now_ns: u64) {
        let began = self.parked_at.load(Ordering::Relaxed);
        // In this order, and the other way round in `counters_at`: who reads between the two sees too little
        // of it, and not some of it twice.
        self.parked_at.store(0, Ordering::Relaxed);
        if self.counting() {
            let cell = &self.cells[Kind::ParkNs as usize];
            let before = cell.load(Ordering::Relaxed);
            let took = now_ns.saturating_sub(began);
            cell.store(before.wrapping_add(took), Ordering::Release);
        }
    }

    /// Counts, with the park that the core is in up to `now_ns`.
    fn counters_at(&self, now_ns: u64) -> Counters {
        let mut counters = Counters::read(&self.cells);
        // With the count of a park comes that it has ended.
        fence(Ordering::Acquire);
        let parked_at = self.parked_at.load(Ordering::Relaxed);
        if parked_at > 0 && !self.has_ended() {
            counters.park_ns += now_ns.saturating_sub(parked_at);
        }
        counters
    }

    /// The core's number in its runtime.
    pub(crate) fn core(&self) -> usize {
        self.said().core
    }

    /// Records a latency, if they are kept.
    #[inline]
    pub(crate) fn took(&self, what: Latency, ns: u64) {
        if let Some(tracks) = &self.histograms {
            tracks[what as usize].record(ns);
        }
    }

    #[cold]
    pub(crate) fn op_took(&self, code: u8, ns: u64) {
        let what = match code {
            opcode::RECV => Latency::OpRecv,
            opcode::SEND | opcode::SEND_ZC | opcode::SENDMSG => Latency::OpSend,
            opcode::CONNECT => Latency::OpConnect,
            opcode::ACCEPT => Latency::OpAccept,
            opcode::READ => Latency::OpRead,
            opcode::WRITE => Latency::OpWrite,
            _ => Latency::OpOther,
        };
        self.took(what, ns);
    }

    /// The core says where it is.
    pub(crate) fn place(&self, core: usize, cpu: Option<usize>) {
        let mut said = self.said();
        (said.core, said.cpu) = (core, cpu);
    }

    /// The core says which thread is its own.
    pub(crate) fn runs_on(&self, thread: Option<u32>) {
        self.said().thread = thread;
    }

    /// The core says what it has now.
    pub(crate) fn say(&self, gauges: Gauges, cpu_time: Duration, now_ns: u64) {
        let mut said = self.said();
        (said.gauges, said.cpu_time, said.at_ns) = (gauges, cpu_time, now_ns);
    }

    /// What its task queues have done, and which tasks had the longest polls.
    pub(crate) fn say_tasks(&self, queues: Vec<QueueStats>, long_polls: Vec<LongPollSaid>) {
        let mut said = self.said();
        (said.queues, said.long_polls) = (queues, long_polls);
    }

    /// The core can't have what was asked for.
    pub(crate) fn step_down(&self, what: &str, why: &str) {
        let step = StepDown { what: what.to_owned(), why: why.to_owned() };
        let mut said = self.said();
        if said.step_downs.len() < STEP_DOWNS_MAX && !said.step_downs.contains(&step) {
            said.step_downs.push(step);
        }
    }

    /// The core has ended.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// What is in the book, read at `now_ns` of the core's clock; `state` is the core's if it has not ended.
    /// From any thread; the core is not asked. To read histograms takes some 540,000 instructions.
    pub(crate) fn read(&self, now_ns: u64, state: CoreState) -> Snapshot {
        let histograms = self.histograms.as_ref().map(|tracks| Histograms::read(tracks));
        Snapshot { histograms, ..self.read_in_brief(now_ns, state) }
    }

    /// As [`read`](Self::read), without histograms.
    pub(crate) fn read_in_brief(&self, now_ns: u64, state: CoreState) -> Snapshot {
        let ended = self.has_ended();
        let said = self.said().clone();
        let age = Duration::from_nanos(now_ns.saturating_sub(said.at_ns));
        let until = if ended { said.at_ns } else { now_ns };
        Snapshot {
            core: Some(said.core),
            cores: 1,
            level: self.level,
            cpu: said.cpu,
            thread: said.thread,
            state: if ended { CoreState::Ended } else { state },
            uptime: Duration::from_nanos(until.saturating_sub(self.started_ns)),
            counters: self.counters_at(now_ns),
            histograms: None,
            gauges: Gauges { age, ..said.gauges },
            cpu_time: said.cpu_time,
            step_downs: said.step_downs,
            queues: said.queues,
            long_polls: said.long_polls.iter().map(|poll| poll.told(said.at_ns)).collect(),
        }
    }

    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn counters(&self) -> Counters {
        Counters::read(&self.cells)
    }

    /// Memory of the book, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let tracks = if self.timing() { LATENCIES * Track::BYTES } else { 0 };
        (size_of::<Self>() + tracks) as u64
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // Nothing panics while it is held, and the core holds it for a few stores.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::sync::Arc;

    use super::{Recorder, StatsLevel};
    use crate::sys::model::{check, thread};

    /// A core that parks for 4 ns and for 3 ns, and one that reads its book at ns 3, at the earliest: what of
    /// a park is in the sum already is not in what is added for the park that goes on.
    #[test]
    fn loom_metrics_no_park_is_counted_twice() {
        check(3, || {
            let book = Arc::new(Recorder::new(StatsLevel::Counters, 0));
            let core = book.clone();
            let core = thread::spawn(move || {
                core.parks(1);
                core.parked(5);
                core.parks(6);
                core.parked(9);
            });
            let read = book.counters_at(3).park_ns;
            // The part of the first one, the first, both; little where the reader came between.
            assert!([0, 2, 4, 7].contains(&read), "{read} ns of parks");
            core.join().unwrap();
            assert_eq!(book.counters_at(12).park_ns, 7);
        });
    }
}
