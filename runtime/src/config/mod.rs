//! Settings of a core: one table of them, and where their values come from.
//!
//! Owns [`Settings`] and the rows of the table; `table` makes builder, keys, variables and flags of them,
//! `sources` puts profiles, files, the environment and flags above each other.

mod error;
#[cfg(feature = "toml")]
mod file;
mod profile;
mod sources;
#[cfg(test)]
mod sources_tests;
mod table;
mod value;

use std::time::Duration;

use crate::blocking::pool::Limits;
use crate::driver::features::{Feature, FeatureSet};
use crate::driver::setup::StartError;
use crate::executor::CoreConfig;
use crate::executor::dial::Spin;
use crate::metrics::StatsLevel;
use crate::stall::{Stall, StallHook};
use crate::task::Report;
use crate::task::report::Reporter;

pub use error::SettingError;
pub use profile::Profile;
pub use sources::{Origin, Resolved, Sources};
pub use table::Field;

use table::settings;
use value::Value;

/// Settings of one core. [`Settings::default`] suits a server; every setter says its range.
///
/// ```
/// use coreloop::{EventLoop, Settings, Spin};
/// let settings = Settings::default().spin(Spin::Off).buffers(64, 4096);
/// let mut event_loop = EventLoop::with(settings).unwrap();
/// assert_eq!(event_loop.block_on(async { 7 }), 7);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: Values,
    reporter: Reporter,
    stall_hook: StallHook,
}

settings! {
    /// Entries of the submission queue. A full one is flushed early, so more of them save calls only in very
    /// busy ticks. If memory that may be locked is short, fewer are taken.
    ring_entries(): u32 = 1024, in 8 => 32_768,
        who "servers with thousands of answers a turn", shows "`enters` in the report";
    /// Entries of the completion queue. More completions than that at a time go to the kernel's backlog:
    /// nothing is lost, and the counter `cq_overflows` says so.
    cq_entries(): u32 = 4096, in 16 => 65_536,
        who "servers whose report shows `cq_overflows`", shows "`cq_overflows`";
    /// Receive buffers of the core. Idle connections hold none. 128 of them circulate at first, more only
    /// while those run low; memory is touched only when used.
    buffers(own): u32 = 1024, in 1 => 32_768,
        who "servers that hold many chunks at a time", shows "`buffer_shortages`, memory";
    /// Bytes in each receive buffer: the most that one receive can bring.
    buffer_size(own): u32 = 16 * 1024, in 64 => 16 << 20,
        who "servers of large or only of small messages", shows "rate at 16 KiB, memory";
    /// Receive buffers that the chunks of one socket may hold; above, it gets copies.
    chunk_quota(): u32 = 8, in 0 => 32_768,
        who "servers that keep chunks", shows "`chunks_copied`";
    /// Resolution of timers. A timer fires at most so much late on an idle core, and never early.
    timer_resolution(): Duration = Duration::from_millis(1),
        in Duration::from_micros(1) => Duration::from_secs(1),
        who "load generators, pacing", shows "timer lateness";
    /// Time that the tasks of one turn may take together before I/O and timers get a look. It is checked
    /// every 32 polls; a single poll is never interrupted.
    tick_quota(): Duration = Duration::from_micros(500),
        in Duration::from_micros(1) => Duration::from_secs(1),
        who "servers with long batches of tasks", shows "tick length, p99 of I/O beside a busy task";
    /// What to do before sleeping: nothing (`off`), learn whether a spin pays (`dial`), or spin for a time
    /// whatever it brings. A core that always spins uses a whole CPU. At most 1 s.
    spin(): Spin = Spin::Dial,
        who "latency on few connections; off where CPUs are shared", shows "`docs/MEASURING.md`, the gaps";
    /// What to record: each level costs more than the one before.
    stats(): StatsLevel = StatsLevel::Counters,
        who "whoever wants histograms", shows "the report itself";
    /// Debug mode: a poll of a task, or a closure from another thread, that keeps its core for longer than
    /// `slow_poll` is reported, with the task's name and where it was spawned; and when the loop ends, so is
    /// each task that had not ended, with what it waits for. The environment variable `CORELOOP_DEBUG` (`1`
    /// or `0`) counts more than this. Off, it costs one comparison a turn; on, a clock reading for each poll.
    ///
    /// Using something of a loop's on another thread does not compile, so there is nothing to report.
    debug(): bool = false,
        who "developers", shows "lines on standard error";
    /// The longest that a poll may take before debug mode reports it.
    slow_poll(): Duration = Duration::from_millis(100),
        in Duration::from_micros(1) => Duration::MAX,
        who "developers", shows "lines on standard error";
    /// The longest that a poll, or whatever else is done between two, may keep its core before it is reported
    /// as a [`Stall`] *while it does*: the task, where it was spawned, and a backtrace. 25 ms suit a server;
    /// `never` looks at nothing. At most five a minute and core are told, the others are counted.
    ///
    /// While it is on, one thread of the process looks at the counters of its cores five times within the
    /// threshold, and a loop counts also at the stats level `off`. The backtrace takes a real-time signal
    /// that nobody handles (the first one from `SIGRTMIN + 1` on), whose handler stays: a stalled thread
    /// that waits in a system call may find that call interrupted (`EINTR`), as by any signal.
    stall_threshold(): Duration = Duration::MAX,
        in Duration::from_millis(1) => Duration::MAX,
        who "servers, to find what keeps their cores", shows "lines on standard error, `stalls`";
    /// Features of io_uring to do without, as if the kernel did not have them. The environment variable
    /// `CORELOOP_MASK` does the same for a whole process.
    mask(own): FeatureSet = FeatureSet::none(),
        who "tests of step-downs; a way round a kernel's bug", shows "`doctor`, the report of the ring";
    /// How long a closing loop waits for the kernel to give back what it holds, and for closures of
    /// [`spawn_blocking`](crate::spawn_blocking) to end.
    grace(): Duration = Duration::from_secs(5),
        who "servers with a deadline for their end", shows "the report of the shutdown";
    /// Threads that may do the blocking work of this core at a time: see
    /// [`spawn_blocking`](crate::spawn_blocking). They are started when needed. What blocks mostly waits, so
    /// they may well outnumber the CPUs; but each core has its own, and each takes a stack.
    blocking_threads(): u32 = 16, in 1 => 1024,
        who "users of `spawn_blocking`", shows "threads of the process";
    /// Closures that may be queued for those threads. Where the queue is full the tasks that stand for
    /// further ones wait for room, in turn.
    blocking_queue(): u32 = 1024, in 1 => 1 << 20,
        who "users of `spawn_blocking`", shows "memory under load";
}

/// What [`Settings::on_stall`] sets.
const STALL_THRESHOLD: Duration = Duration::from_millis(25);

impl Settings {
    /// Receive buffers of the core (1,024, 1 to 32,768) and bytes in each (16,384, 64 to 16 MiB). Idle
    /// connections hold none. 128 of them circulate at first, more only while those run low; memory is
    /// touched only when used.
    #[must_use]
    pub fn buffers(mut self, count: u32, size: u32) -> Self {
        self.values.buffers = count;
        self.values.buffer_size = size;
        self
    }

    /// Who is told what no awaiter hears of ([`Report`]): panics and errors of tasks
    /// whose result nobody took, and what debug mode finds. By default each is a line on standard error.
    /// The closure is called between polls or while a handle is dropped, on the core's thread (for a remote
    /// task on the thread that lets go of its handle); a panic of it is contained.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use coreloop::{EventLoop, Settings, spawn, yield_now};
    ///
    /// let heard = Arc::new(Mutex::new(Vec::new()));
    /// let log = heard.clone();
    /// let settings = Settings::default().on_report(move |r| log.lock().unwrap().push(r.to_string()));
    /// EventLoop::with(settings).unwrap().block_on(async {
    ///     drop(spawn(async { panic!("nobody waits for me") }));
    ///     yield_now().await;
    /// });
    /// assert!(heard.lock().unwrap()[0].ends_with("nobody took its result: nobody waits for me"));
    /// ```
    #[must_use]
    pub fn on_report(mut self, hook: impl Fn(&Report<'_>) + Send + Sync + 'static) -> Self {
        self.reporter = Reporter::new(hook);
        self
    }

    /// Who is told of stalls; by default each is written to standard error. Called on a thread of its own
    /// while the stall lasts; a panic of it is contained. Unless
    /// [`stall_threshold`](Self::stall_threshold) says otherwise, that is 25 ms then.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use std::time::Duration;
    /// use coreloop::{EventLoop, Settings};
    ///
    /// let found = Arc::new(Mutex::new(None));
    /// let told = found.clone();
    /// let settings = Settings::default().on_stall(move |stall| {
    ///     told.lock().unwrap().get_or_insert(stall.stalled);
    /// });
    /// EventLoop::with(settings).unwrap().block_on(async {
    ///     std::thread::sleep(Duration::from_millis(200)); // Blocks the core, as nothing should.
    /// });
    /// assert!(found.lock().unwrap().unwrap() >= Duration::from_millis(25));
    /// ```
    #[must_use]
    pub fn on_stall(mut self, hook: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        self.stall_hook = StallHook::new(hook);
        if self.values.stall_threshold == Duration::MAX {
            self.values.stall_threshold = STALL_THRESHOLD;
        }
        self
    }

    /// How long a poll may keep its core, if anybody wants to know, and whom to tell.
    pub(crate) fn stalls(&self) -> Option<(Duration, StallHook)> {
        let threshold = self.values.stall_threshold;
        (threshold != Duration::MAX).then(|| (threshold, self.stall_hook.clone()))
    }

    /// Whom the settings name for that.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Does without a feature of io_uring, as if the kernel did not have it. The environment variable
    /// `CORELOOP_MASK` (names parted by commas) does the same for a whole process.
    #[must_use]
    pub fn mask(mut self, feature: Feature) -> Self {
        self.values.mask.insert(feature);
        self
    }

    pub(crate) fn grace_period(&self) -> Duration {
        self.values.grace
    }

    pub(crate) fn spin_setting(&self) -> Spin {
        self.values.spin
    }

    /// The settings as a core takes them, if each is in its range.
    pub(crate) fn checked(&self) -> Result<CoreConfig, StartError> {
        for field in FIELDS {
            (field.check)(self).map_err(|why| StartError::BadSetting { name: field.name, why })?;
        }
        let v = &self.values;
        if let Spin::Fixed(d) = v.spin
            && d > value::SPIN_MAX
        {
            let why = format!("a spin of {d:?} is longer than 1 s");
            return Err(StartError::BadSetting { name: "spin", why });
        }
        Ok(CoreConfig {
            ring_entries: v.ring_entries,
            cq_entries: v.cq_entries,
            mask: v.mask,
            buffers: v.buffers,
            buffer_size: v.buffer_size,
            chunk_quota: v.chunk_quota,
            timer_resolution: v.timer_resolution,
            tick_quota: v.tick_quota,
            spin: v.spin,
            stats: match v.stats {
                // Its watcher looks at counters.
                StatsLevel::Off if self.stalls().is_some() => StatsLevel::Counters,
                level => level,
            },
            debug: v.debug,
            slow_poll: v.slow_poll,
            reporter: self.reporter.clone(),
            blocking: Limits { threads: v.blocking_threads, queue: v.blocking_queue },
        })
    }
}
