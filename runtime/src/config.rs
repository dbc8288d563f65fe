//! Settings of a core, and the checks on them.
//!
//! Owns [`Settings`]: what each setting means, its range and default. Knows nothing of where a value came
//! from.

use std::time::Duration;

use crate::blocking::pool::Limits;
use crate::driver::features::{Feature, FeatureSet};
use crate::driver::setup::StartError;
use crate::executor::CoreConfig;
use crate::executor::dial::Spin;
use crate::metrics::StatsLevel;
use crate::task::Report;
use crate::task::report::Reporter;

/// Settings of one core. [`Settings::default`] suits a server; every setter says its range.
///
/// ```
/// use coreloop::{EventLoop, Settings, Spin};
/// let settings = Settings::default().spin(Spin::Off).buffers(64, 4096);
/// let mut event_loop = EventLoop::with(settings).unwrap();
/// assert_eq!(event_loop.block_on(async { 7 }), 7);
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    config: CoreConfig,
    grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: CoreConfig {
                ring_entries: 1024,
                cq_entries: 4096,
                mask: FeatureSet::none(),
                buffers: 1024,
                buffer_size: 16 * 1024,
                chunk_quota: 8,
                timer_resolution: Duration::from_millis(1),
                tick_quota: Duration::from_micros(500),
                spin: Spin::Dial,
                stats: StatsLevel::Counters,
                debug: false,
                slow_poll: Duration::from_millis(100),
                reporter: Reporter::default(),
                blocking: Limits { threads: 16, queue: 1024 },
            },
            grace: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// Entries of the submission queue, 8 to 32,768 (1,024). A full one is flushed early, so more of them
    /// save calls only in very busy ticks. If memory that may be locked is short, fewer are taken.
    #[must_use]
    pub fn ring_entries(mut self, n: u32) -> Self {
        self.config.ring_entries = n;
        self
    }

    /// Entries of the completion queue, 16 to 65,536 (4,096). More completions than that at a time go to
    /// the kernel's backlog: nothing is lost, and the counter `cq_overflows` says so.
    #[must_use]
    pub fn cq_entries(mut self, n: u32) -> Self {
        self.config.cq_entries = n;
        self
    }

    /// Receive buffers of the core (1,024, 1 to 32,768) and bytes in each (16,384, 64 to 16 MiB). Idle
    /// connections hold none. 128 of them circulate at first, more only while those run low; memory is
    /// touched only when used.
    #[must_use]
    pub fn buffers(mut self, count: u32, size: u32) -> Self {
        self.config.buffers = count;
        self.config.buffer_size = size;
        self
    }

    /// Receive buffers that the chunks of one socket may hold (8, 0 to 32,768); above, it gets copies.
    #[must_use]
    pub fn chunk_quota(mut self, n: u32) -> Self {
        self.config.chunk_quota = n;
        self
    }

    /// Resolution of timers (1 ms; 1 µs to 1 s). A timer fires at most so much late on an idle core, and
    /// never early.
    #[must_use]
    pub fn timer_resolution(mut self, resolution: Duration) -> Self {
        self.config.timer_resolution = resolution;
        self
    }

    /// Time that the tasks of one turn may take together (500 µs; 1 µs to 1 s) before I/O and timers get
    /// a look. It is checked every 32 polls; a single poll is never interrupted.
    #[must_use]
    pub fn tick_quota(mut self, quota: Duration) -> Self {
        self.config.tick_quota = quota;
        self
    }

    /// What to do before sleeping ([`Spin::Dial`]).
    #[must_use]
    pub fn spin(mut self, spin: Spin) -> Self {
        self.config.spin = spin;
        self
    }

    /// What to record ([`StatsLevel::Counters`]).
    #[must_use]
    pub fn stats(mut self, level: StatsLevel) -> Self {
        self.config.stats = level;
        self
    }

    /// Debug mode (off): a poll of a task, or a closure from another thread, that keeps its core for longer
    /// than [`slow_poll`](Self::slow_poll) is reported, with the task's name and where it was spawned; and
    /// when the loop ends, so is each task that had not ended, with what it waits for. The environment
    /// variable `CORELOOP_DEBUG` (`1` or `0`) counts more than this. Off, it costs one comparison a turn;
    /// on, a clock reading for each poll.
    ///
    /// Using something of a loop's on another thread does not compile, so there is nothing to report.
    #[must_use]
    pub fn debug(mut self, on: bool) -> Self {
        self.config.debug = on;
        self
    }

    /// The longest that a poll may take before debug mode reports it (100 ms; from 1 µs).
    #[must_use]
    pub fn slow_poll(mut self, limit: Duration) -> Self {
        self.config.slow_poll = limit;
        self
    }

    /// Who is told what no awaiter hears of ([`Report`](crate::task::Report)): panics and errors of tasks
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
        self.config.reporter = Reporter::new(hook);
        self
    }

    /// Whom the settings name for that.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn reporter(&self) -> Reporter {
        self.config.reporter.clone()
    }

    /// Does without a feature of io_uring, as if the kernel did not have it. The environment variable
    /// `CORELOOP_MASK` (names parted by commas) does the same for a whole process.
    #[must_use]
    pub fn mask(mut self, feature: Feature) -> Self {
        self.config.mask.insert(feature);
        self
    }

    /// How long a closing loop waits for the kernel to give back what it holds, and for closures of
    /// [`spawn_blocking`](crate::spawn_blocking) to end (5 s).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Threads that may do the blocking work of this core at a time (16; 1 to 1,024): see
    /// [`spawn_blocking`](crate::spawn_blocking). They are started when needed. What blocks mostly waits, so
    /// they may well outnumber the CPUs; but each core has its own, and each takes a stack.
    #[must_use]
    pub fn blocking_threads(mut self, n: u32) -> Self {
        self.config.blocking.threads = n;
        self
    }

    /// Closures that may be queued for those threads (1,024; 1 to 1,048,576). Where the queue is full the
    /// tasks that stand for further ones wait for room, in turn.
    #[must_use]
    pub fn blocking_queue(mut self, n: u32) -> Self {
        self.config.blocking.queue = n;
        self
    }

    pub(crate) fn grace_period(&self) -> Duration {
        self.grace
    }

    pub(crate) fn spin_setting(&self) -> Spin {
        self.config.spin
    }

    /// The settings, if each is in its range.
    pub(crate) fn checked(&self) -> Result<&CoreConfig, StartError> {
        let c = &self.config;
        in_range("ring_entries", c.ring_entries, 8, 32_768)?;
        in_range("cq_entries", c.cq_entries, 16, 65_536)?;
        in_range("buffers (count)", c.buffers, 1, 32_768)?;
        in_range("buffers (size)", c.buffer_size, 64, 16 << 20)?;
        in_range("chunk_quota", c.chunk_quota, 0, 32_768)?;
        in_range("blocking_threads", c.blocking.threads, 1, 1024)?;
        in_range("blocking_queue", c.blocking.queue, 1, 1 << 20)?;
        for (name, d) in [("timer_resolution", c.timer_resolution), ("tick_quota", c.tick_quota)] {
            if d < Duration::from_micros(1) || d > Duration::from_secs(1) {
                let why = format!("{d:?} is not between 1 µs and 1 s");
                return Err(StartError::BadSetting { name, why });
            }
        }
        if c.slow_poll < Duration::from_micros(1) {
            let why = format!("{:?} is shorter than 1 µs", c.slow_poll);
            return Err(StartError::BadSetting { name: "slow_poll", why });
        }
        if let Spin::Fixed(d) = c.spin
            && d > Duration::from_secs(1)
        {
            let why = format!("a spin of {d:?} is longer than 1 s");
            return Err(StartError::BadSetting { name: "spin", why });
        }
        Ok(c)
    }
}

fn in_range(name: &'static str, value: u32, least: u32, most: u32) -> Result<(), StartError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let why = format!("{value} is not between {least} and {most}");
    Err(StartError::BadSetting { name, why })
}
