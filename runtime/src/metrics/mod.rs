//! What a core did: counters and latency histograms.
//!
//! Owns the [`Recorder`] that one core writes (no atomics: nobody else looks) and the plain data that a
//! snapshot is. Three levels: off, counters, histograms; the last one costs a clock reading for each task
//! poll, the other two none. Knows nothing of what is measured.

use std::cell::{Cell, RefCell};
use std::task::Waker;
use std::time::Duration;

use crate::contain::contained;
use crate::sys::abi::opcode;

mod histogram;

pub use histogram::Histogram;

/// How much a core records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatsLevel {
    /// Nothing.
    Off,
    /// Counters: an addition each.
    #[default]
    Counters,
    /// Counters and histograms: a clock reading for each task poll, about 250 KiB a core.
    Histograms,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident => $field:ident,)*) => {
        /// Index of a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($variant),* }

        const COUNTERS: usize = [$(Kind::$variant),*].len();

        /// What one core counted since it started.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Counters {
            fn read(cells: &[Cell<u64>; COUNTERS]) -> Self {
                Self { $($field: cells[Kind::$variant as usize].get(),)* }
            }

            /// Adds another core's counts to these.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// What was counted since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: self.$field.saturating_sub(earlier.$field),)* }
            }

            /// Every counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    Ticks => ticks,
    /// Calls of `io_uring_enter(2)`.
    Enters => enters,
    /// Of those, the ones that the kernel turned away for now (EAGAIN, EBUSY, ENOMEM).
    EntersPressed => enters_pressed,
    /// Enters in the middle of a tick because the submission queue was full.
    EarlyFlushes => early_flushes,
    /// Sends without copy of which the kernel has let go.
    ZeroCopies => zero_copies,
    /// Submissions in the middle of a turn, because of `flush_interval`.
    MidTurnFlushes => mid_turn_flushes,
    /// Completions reaped.
    Completions => completions,
    /// Completions that belonged to no op; always 0 unless something is broken.
    StrayCompletions => stray_completions,
    /// Enters after which the completion queue had overflowed into the kernel's backlog.
    CqOverflows => cq_overflows,
    /// Task polls.
    Polls => polls,
    /// Tasks spawned.
    Spawns => spawns,
    /// Tasks that panicked.
    TaskPanics => task_panics,
    /// Wakers that panicked.
    WakerPanics => waker_panics,
    /// Panics in what an operation does at its end (a holder's destructor and the like).
    HookPanics => hook_panics,
    /// Wakes that came from other threads.
    RemoteWakes => remote_wakes,
    /// Timers fired.
    Timers => timers,
    /// Parks: enters that may sleep.
    Parks => parks,
    /// Nanoseconds in parks.
    ParkNs => park_ns,
    /// Spins before a park that were rewarded by an event.
    SpinsWon => spins_won,
    /// Spins that ended in a park.
    SpinsLost => spins_lost,
    /// Nanoseconds spun.
    SpinNs => spin_ns,
    /// Receives that found the buffer ring empty (ENOBUFS) and waited their turn.
    BuffersOut => buffers_out,
    /// Received chunks that were copied out because buffers ran low or a socket held many.
    ChunksCopied => chunks_copied,
    /// Connections accepted.
    Accepts => accepts,
    /// Times that accepting paused for want of descriptors or memory.
    AcceptPauses => accept_pauses,
    /// Ops leaked at shutdown because the kernel did not let go in time.
    OpsLeaked => ops_leaked,
}

/// One core's own book. Not shared: snapshots are taken on the core itself.
pub(crate) struct Recorder {
    level: StatsLevel,
    cells: [Cell<u64>; COUNTERS],
    histograms: Option<Box<RefCell<Histograms>>>,
}

/// One core's latencies, in nanoseconds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Histograms {
    /// A turn of the loop from its first step to its submit.
    pub tick: Histogram,
    /// From a wake to the poll; quantised to the tick's clock reading.
    pub wake_to_poll: Histogram,
    /// One task poll.
    pub poll: Histogram,
    /// How late a timer fired.
    pub timer_late: Histogram,
    /// From queueing a receive to its completion, the peer's silence included.
    pub op_recv: Histogram,
    /// From queueing a send to its completion.
    pub op_send: Histogram,
    /// From queueing a connect to its completion.
    pub op_connect: Histogram,
    /// The same for every other op.
    pub op_other: Histogram,
}

impl Histograms {
    /// Adds another core's latencies to these.
    pub fn merge(&mut self, other: &Self) {
        for ((_, mine), (_, theirs)) in self.iter_mut().into_iter().zip(other.iter()) {
            mine.merge(theirs);
        }
    }

    /// Every histogram with its name.
    pub fn iter(&self) -> [(&'static str, &Histogram); 8] {
        [
            ("tick", &self.tick),
            ("wake_to_poll", &self.wake_to_poll),
            ("poll", &self.poll),
            ("timer_late", &self.timer_late),
            ("op_recv", &self.op_recv),
            ("op_send", &self.op_send),
            ("op_connect", &self.op_connect),
            ("op_other", &self.op_other),
        ]
    }

    fn iter_mut(&mut self) -> [(&'static str, &mut Histogram); 8] {
        [
            ("tick", &mut self.tick),
            ("wake_to_poll", &mut self.wake_to_poll),
            ("poll", &mut self.poll),
            ("timer_late", &mut self.timer_late),
            ("op_recv", &mut self.op_recv),
            ("op_send", &mut self.op_send),
            ("op_connect", &mut self.op_connect),
            ("op_other", &mut self.op_other),
        ]
    }
}

/// What one core did since it started, as plain data.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// The core's place in its runtime, 0 for a loop by itself.
    pub core: usize,
    /// The CPU that it is pinned to, if it is.
    pub cpu: Option<usize>,
    /// Counts.
    pub counters: Counters,
    /// Latencies; none below [`StatsLevel::Histograms`].
    pub histograms: Option<Histograms>,
    /// CPU time of the core's thread.
    pub cpu_time: Duration,
}

/// Tells a waker, and contains and counts its panic: a stranger's waker must not take the core down.
pub(crate) fn wake_contained(waker: Waker, metrics: &Recorder) {
    if contained(|| waker.wake()).is_none() {
        metrics.count(Kind::WakerPanics);
    }
}

impl Recorder {
    pub(crate) fn new(level: StatsLevel) -> Self {
        let wanted = level == StatsLevel::Histograms;
        Self {
            level,
            cells: std::array::from_fn(|_| Cell::new(0)),
            histograms: wanted.then(|| Box::new(RefCell::new(Histograms::default()))),
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
            cell.set(cell.get() + n);
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters::read(&self.cells)
    }

    pub(crate) fn histograms(&self) -> Option<Histograms> {
        Some(self.histograms.as_ref()?.borrow().clone())
    }

    /// Records into the histograms, if they are kept.
    #[inline]
    pub(crate) fn record(&self, f: impl FnOnce(&mut Histograms)) {
        if let Some(h) = &self.histograms {
            f(&mut h.borrow_mut());
        }
    }

    pub(crate) fn op_took(&self, code: u8, ns: u64) {
        self.record(|h| match code {
            opcode::RECV => h.op_recv.record(ns),
            opcode::SEND | opcode::SEND_ZC | opcode::SENDMSG => h.op_send.record(ns),
            opcode::CONNECT => h.op_connect.record(ns),
            _ => h.op_other.record(ns),
        });
    }
}
