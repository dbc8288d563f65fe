//! One core's loop.
//!
//! Owns the `Core`: its tasks, its driver, its timers, its mail, and the clock reading that they share in
//! a tick. The tick itself is in [`tick`], those with nothing to do but a few polls in [`quiet`], the
//! decision how to wait in [`park`] and [`dial`], the orderly end in [`close`]. Knows nothing of sockets or
//! threads: it runs wherever it is called.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::blocking::pool::{Limits, Pool};
use crate::driver::asked::Asked;
use crate::driver::features::{FeatureSet, RingReport};
use crate::driver::pool::PoolConfig;
use crate::driver::setup::{RingConfig, StartError};
use crate::driver::{Driver, DriverConfig};
use crate::mailbox::cell::{CORES_MAX, Lease};
use crate::mailbox::peers::Peers;
use crate::mailbox::queue::JobQueue;
use crate::mailbox::unsent::Unsent;
use crate::mailbox::watch::Watches;
use crate::metrics::{CoreState, Gauges, Recorder, Snapshot, StatsLevel};
use crate::sys::Kernel;
use crate::sys::linux::Linux;
use crate::task::Tasks;
use crate::task::report::Reporter;

pub(crate) mod close;
pub(crate) mod context;
pub(crate) mod dial;
pub(crate) mod kept;
pub(crate) mod list;
mod long_polls;
pub(crate) mod park;
mod poll_clock;
mod queues;
mod quiet;
pub(crate) mod tick;
pub(crate) mod timers;

use self::dial::{Dial, Spin};
use self::kept::Kept;
use self::long_polls::LongPolls;
use self::queues::CpuCheck;
use self::timers::Timers;

/// What one core is set to.
#[derive(Clone, Debug)]
pub(crate) struct CoreConfig {
    pub(crate) ring_entries: u32,
    pub(crate) cq_entries: u32,
    pub(crate) mask: FeatureSet,
    pub(crate) asked: Asked,
    pub(crate) buffers: u32,
    pub(crate) buffer_size: u32,
    pub(crate) chunk_quota: u32,
    pub(crate) timer_resolution: Duration,
    pub(crate) tick_quota: Duration,
    pub(crate) flush_interval: Option<Duration>,
    pub(crate) direct_sends: u32,
    pub(crate) spin: Spin,
    pub(crate) stats: StatsLevel,
    pub(crate) debug: bool,
    pub(crate) slow_poll: Duration,
    pub(crate) reporter: Reporter,
    pub(crate) blocking: Limits,
}

pub(crate) struct Core {
    /// Its name among all loops that this process ever had: a core's id is that of the next loop too.
    pub(crate) number: u64,
    pub(crate) tasks: Rc<Tasks>,
    pub(crate) driver: Rc<Driver>,
    pub(crate) timers: Rc<Timers>,
    pub(crate) jobs: Arc<JobQueue>,
    /// Ends of channels that it looks at for its tasks.
    pub(crate) watches: Watches,
    /// Channels to other cores in which its tasks have put something.
    pub(crate) unsent: Unsent,
    /// When the last sleep or spin ended, for the turn that follows it at once.
    woke: Cell<Option<u64>>,
    pub(crate) metrics: Arc<Recorder>,
    /// What lives on it for others.
    pub(crate) kept: Kept,
    kernel: Rc<dyn Kernel>,
    dial: Dial,
    tick_quota_ns: u64,
    cpu_check: CpuCheck,
    /// Turns so far, and the one in which the last slice of a long question was answered.
    turns: Cell<u64>,
    sliced: Cell<u64>,
    long_polls: LongPolls,
    /// State of the picking of polls that are timed; never 0.
    gap_seed: Cell<u32>,
    /// How long a turn's submissions may wait for its end, in ns.
    flush_ns: u64,
    /// When a turn was last submitted before its end; ns.
    flushed: Cell<u64>,
    /// In debug mode: the longest that one poll may take, in ns.
    slow_ns: Option<u64>,
    /// Place in the runtime, and CPU, for reports.
    place: Cell<(usize, Option<usize>)>,
    peers: RefCell<Peers>,
    /// Threads for its tasks' blocking work.
    pub(crate) blocking: Rc<Pool>,
}

/// The number of the next loop.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Core {
    pub(crate) fn new(kernel: Rc<dyn Kernel>, config: &CoreConfig) -> Result<Rc<Self>, StartError> {
        let metrics = Arc::new(Recorder::new(config.stats, kernel.now_ns()));
        metrics.runs_on(kernel.thread_number());
        let driver_config = DriverConfig {
            ring: RingConfig {
                sq_entries: config.ring_entries,
                cq_entries: config.cq_entries,
                mask: config.mask,
                asked: config.asked.clone(),
            },
            pool: PoolConfig {
                count: config.buffers,
                size: config.buffer_size,
                quota: config.chunk_quota,
            },
            direct_sends: config.direct_sends,
        };
        let driver = Driver::new(kernel.clone(), &driver_config, metrics.clone())?;
        driver.report().step_downs().for_each(|(what, why)| metrics.step_down(what, &why));
        let lease = Lease::take().ok_or(StartError::TooManyLoops { limit: CORES_MAX })?;
        lease.open(driver.wake_fd(), driver.message_fd());
        let jobs = Arc::new(JobQueue::new(lease.cell, metrics.clone(), kernel.shared_clock()));
        Ok(Rc::new(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            tasks: Tasks::new(lease, metrics.clone(), config.reporter.clone(), kernel.now_ns()),
            timers: Timers::new(kernel.clone(), config.timer_resolution),
            dial: Dial::new(config.spin),
            tick_quota_ns: config.tick_quota.as_nanos() as u64,
            cpu_check: CpuCheck::default(),
            turns: Cell::new(0),
            sliced: Cell::new(0),
            long_polls: LongPolls::default(),
            gap_seed: Cell::new(0x9e37_79b9),
            flush_ns: config.flush_interval.map_or(u64::MAX, |d| d.as_nanos() as u64),
            flushed: Cell::new(0),
            slow_ns: config
                .debug
                .then(|| u64::try_from(config.slow_poll.as_nanos()).unwrap_or(u64::MAX)),
            place: Cell::new((0, None)),
            blocking: Rc::new(Pool::new(config.blocking)),
            peers: RefCell::new(Peers::alone(jobs.clone())),
            driver,
            jobs,
            watches: Watches::default(),
            unsent: Unsent::default(),
            woke: Cell::new(None),
            kept: Kept::default(),
            metrics,
            kernel,
        }))
    }

    /// Whether tasks stand in for threads here, and what the next piece of blocking work takes.
    pub(crate) fn stand_in_ns(&self) -> Option<u64> {
        self.kernel.stand_in_ns()
    }

    /// All cores of its runtime, this one among them.
    pub(crate) fn peers(&self) -> Peers {
        self.peers.borrow().clone()
    }

    /// Makes it one of several.
    pub(crate) fn join_peers(&self, peers: Peers) {
        self.peers.replace(peers);
    }

    /// Its number in its runtime.
    pub(crate) fn index(&self) -> usize {
        self.place.get().0
    }

    /// Says which number it has, and which CPU it is pinned to.
    pub(crate) fn set_place(&self, index: usize, cpu: Option<usize>) {
        self.place.set((index, cpu));
        self.metrics.place(index, cpu);
    }

    /// What it did so far, all of it as of now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.say_gauges();
        self.metrics.read(self.kernel.now_ns(), CoreState::Running)
    }

    /// Enters what the core has now into its book.
    pub(crate) fn say_gauges(&self) {
        self.count_remote_wakes();
        let pool = self.driver.pool();
        let (blocking_threads, blocking_queued) = self.blocking.in_use();
        let gauges = Gauges {
            tasks: u64::from(self.tasks.live()),
            tasks_ready: self.tasks.ready() as u64,
            timers: self.timers.len() as u64,
            ops: u64::from(self.driver.ops()),
            buffers: u64::from(pool.count()),
            buffers_free: u64::from(pool.free()),
            blocking_threads: u64::from(blocking_threads),
            blocking_queued: blocking_queued as u64,
            bytes_tasks: self.tasks.bytes() as u64,
            bytes_timers: self.timers.bytes() as u64,
            bytes_ops: self.driver.slots.bytes() as u64,
            bytes_buffers: pool.bytes() as u64,
            bytes_stats: self.metrics.bytes(),
            ..Gauges::default()
        };
        let cpu_time = Duration::from_nanos(self.kernel.thread_cpu_ns());
        let now_ns = self.kernel.now_ns();
        self.metrics.say(gauges, cpu_time, now_ns);
        self.metrics.say_tasks(self.tasks.queue_stats(), self.long_polls.read(now_ns));
    }

    /// What its clock says.
    pub(crate) fn now_ns(&self) -> u64 {
        self.kernel.now_ns()
    }
}

/// What a ring of this configuration comes to here. The ring is closed again.
pub(crate) fn try_out(config: &CoreConfig) -> Result<RingReport, StartError> {
    let core = Core::new(Rc::new(Linux), config)?;
    let report = core.driver.report().clone();
    core.close(Duration::ZERO);
    Ok(report)
}
