//! Settings of a core: one table of them, and where their values come from.
//!
//! Owns [`Settings`] and the rows of the table; `table` makes builder, keys, variables and flags of them,
//! `sources` puts profiles, files, the environment and flags above each other.

mod accept;
mod environment;
mod error;
#[cfg(feature = "toml")]
mod file;
mod profile;
mod sources;
#[cfg(test)]
mod sources_tests;
mod table;
mod together;
mod value;

use std::time::Duration;

use crate::blocking::pool::Limits;
use crate::driver::asked::{Asked, FIXED_FILES, TaskWork};
use crate::driver::features::{Feature, FeatureSet};
use crate::driver::setup::StartError;
use crate::executor::CoreConfig;
use crate::executor::dial::Spin;
use crate::metrics::StatsLevel;
use crate::stall::{Stall, StallHook};
use crate::task::Report;
use crate::task::report::Reporter;

pub use crate::driver::workers::WorkerCpus;
pub use accept::AcceptSpread;
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
    /// Whether the values have in them what the environment says, so that a loop does not ask it again.
    has_environment: bool,
}

settings! {
    /// Entries of the submission queue. A full one is flushed early, so more of them save calls only in
    /// very busy ticks. If memory that may be locked is short, fewer are taken.
    ///
    /// Counted: 256 connections that are written to and answered in one turn took 118 enters in the middle
    /// of turns with 8 entries, 12 with 64, none with 1,024.
    ring_entries(): u32 = 1024, in 8 => 32_768,
        who "servers with thousands of answers a turn", shows "`enters` in the report";
    /// Entries of the completion queue. More completions than that at a time go to the kernel's backlog:
    /// nothing is lost, and the counter `cq_overflows` says so. Fewer than `ring_entries` are an error: the
    /// kernel refuses such a ring.
    ///
    /// Counted: 256 such connections overflowed 16 entries at 255 enters, 4,096 at none.
    cq_entries(): u32 = 4096, in 16 => 65_536,
        who "servers whose report shows `cq_overflows`", shows "`cq_overflows`";
    /// Receive buffers of the core. Idle connections hold none. 128 of them circulate at first, more only
    /// while those run low; memory is touched only when used.
    ///
    /// Counted: of 128 chunks that were received and kept 116 were copied or had to wait with 16 buffers,
    /// none with 1,024.
    buffers(own): u32 = 1024, in 1 => 32_768,
        who "servers that hold many chunks at a time", shows "`buffers_out`, `chunks_copied`, memory";
    /// Bytes in each receive buffer: the most that one receive can bring.
    ///
    /// Counted: a message of 256 KiB took 65 receives of 4 KiB, 17 of 16 KiB, 5 of 64 KiB.
    buffer_size(own): u32 = 16 * 1024, in 64 => 16 << 20,
        who "servers of large or only of small messages", shows "rate at 16 KiB, memory";
    /// Receive buffers that the chunks of one socket may hold; above, it gets copies: so many chunks cost
    /// no copy, each further one its bytes, counted in `chunks_copied`.
    ///
    /// Counted: of 64 chunks that one connection kept 64 were copied with a quota of 0, 56 with 8, none
    /// with 64.
    chunk_quota(): u32 = 8, in 0 => 32_768,
        who "servers that keep chunks", shows "`chunks_copied`";
    /// Resolution of timers. A timer fires at most so much late on an idle core, and never early.
    ///
    /// Counted: for 1,000 sleeps that end 50 us apart the core slept and woke 418 times at 10us, 30 times
    /// at 1ms, 6 times at 10ms (a loaded machine, on which many had ended by the time that the core woke).
    timer_resolution(): Duration = Duration::from_millis(1),
        in Duration::from_micros(1) => Duration::from_secs(1),
        who "load generators, pacing", shows "timer lateness";
    /// Time that the tasks of one turn may take together before I/O and timers get a look. It is checked
    /// every 32 polls; a single poll is never interrupted.
    ///
    /// Counted: 1,000 tasks that compute for 20 us each took 8 turns at 5ms and 32 at 500us; 33 at 125us,
    /// since 32 such polls take longer than either.
    tick_quota(): Duration = Duration::from_micros(500),
        in Duration::from_micros(1) => Duration::from_secs(1),
        who "servers with long batches of tasks", shows "tick length, p99 of I/O beside a busy task";
    /// How long what a task asked of the kernel may wait for the end of its turn: a turn that runs longer
    /// submits in between. Set, the clock is read after every poll. Shorter than `tick_quota`, which ends
    /// the turn, or it does nothing.
    ///
    /// In a test, 64 polls of 50 us in one turn are submitted more than 10 times at 100us, and once
    /// without.
    flush_interval(): Option<Duration> = None,
        in None => Some(Duration::from_secs(1)),
        who "servers whose turns are long, on fast networks", shows "`mid_turn_flushes`, `enters`";
    /// How long a sleep goes on, from its beginning, though completions are there, to gather
    /// `min_wait_completions` of them: fewer wake-ups under load from many connections, against so much
    /// latency. After that the first completion ends it: a core that has slept longer wakes at once. No
    /// timer is late by it; but wakes and closures from other cores wait as well, at most so long. Needs
    /// Linux 6.12.
    ///
    /// Seen at 20,000 echoes/s from 64 connections, without spins, with 500us and 64 completions: 0.08
    /// parks for each, before 1.97; 7 to 9 µs of CPU, before 15.1; the median 0.33 ms, before 0.03.
    min_wait(): Option<Duration> = None,
        in None => Some(Duration::from_millis(10)),
        who "servers that may trade latency for CPU", shows "`parks` for each completion, CPU per request";
    /// So many completions end a sleep that gathers them (`min_wait`).
    min_wait_completions(): u32 = 32, in 1 => 65_536,
        who "whoever sets `min_wait`", shows "`parks` for each completion";
    /// A thread of the kernel takes submissions, so that the loop submits without a system call; it sleeps
    /// after so long without any (rounded up to 1 ms) and is woken when there are some. Each core has one,
    /// and while awake it uses a CPU of its own: of no use where there are no more CPUs than cores. The
    /// ring then does without deferred and cooperative task work, which the kernel does not do with it.
    ///
    /// Seen at 20,000 echoes/s from 64 connections, without spins: 5.7 µs of the core's CPU for each,
    /// before 15.1 (the kernel's thread not counted); the median 16 µs, before 33. On two CPUs, which
    /// server, load and that thread shared, the 99th percentile was 2.9 ms, before 0.2.
    sqpoll(): Option<Duration> = None,
        in None => Some(Duration::from_secs(60)),
        who "those with CPUs to spare", shows "`enters`, latency";
    /// The CPU that the kernel's submitting thread is to run on. Without `sqpoll` it does nothing. Unless it
    /// is named here, that of a pinned core has a CPU that no core is pinned to, where there is one.
    sqpoll_cpu(): Option<u32> = None, in None => Some(8191),
        who "whoever sets `sqpoll`", shows "`taskset -p` of the thread `iou-sqp-…`";
    /// When the kernel does what completes an op: as late as it can (`auto`), when the loop enters it
    /// (`deferred`), or at any system call of the core's thread (`cooperative`). With `sqpoll` its thread
    /// does it, so that `deferred` and `cooperative` are errors there.
    task_work(): TaskWork = TaskWork::Auto,
        who "trials; a way round a kernel's bug", shows "the features in `doctor`, CPU per request";
    /// Limit on the kernel's workers for work that ends, such as reading files, for each NUMA node. 0: the
    /// kernel's own, at most four times the CPUs. It counts for the core's thread. (A test reads it back
    /// from the kernel.)
    bounded_workers(): u32 = 0, in 0 => 65_536,
        who "servers that read many files", shows "threads `iou-wrk-…` of the process";
    /// The same for work that may never end, such as reading a terminal. 0: the kernel's own, the limit on
    /// processes.
    unbounded_workers(): u32 = 0, in 0 => 65_536,
        who "servers that read many devices", shows "threads `iou-wrk-…` of the process";
    /// The CPUs that these workers may run on: beside the pinned cores where there are others (`auto`), as
    /// the kernel likes (`kernel`: up to Linux 6.1 any that the process may use, later those of the core's
    /// thread), or those that are named. After 6.1 Linux narrows these to those of the core's thread, if it
    /// has one of them: name the core's own CPU alone, or not at all. What is set stays with the thread, for
    /// its later loops too, unless they say otherwise. (A test reads it back from the workers.)
    worker_cpus(): WorkerCpus = WorkerCpus::Auto,
        who "servers that read files, on CPUs set apart", shows "`taskset -p` of the threads `iou-wrk-…`";
    /// For how long a sleep polls the network card's queue itself before it waits for an interrupt (in
    /// whole µs, rounded up). Needs Linux 6.9, a card with NAPI, and connections that it has brought
    /// packets for; on loopback it does nothing. (A test reads it back from the kernel.)
    napi(): Option<Duration> = None,
        in None => Some(Duration::from_millis(10)),
        who "latency on a real network card", shows "latency; CPU";
    /// Whether the card's queue is left to the core's polling as long as that goes on
    /// (`prefer_busy_poll`). Without `napi` it does nothing.
    napi_prefer(): bool = false,
        who "whoever sets `napi`", shows "interrupts of the card";
    /// Writes of one buffer of at least so many bytes are sent from that buffer itself, without a copy;
    /// they end when the peer has acknowledged them, a round trip later. Meant for large writes through a
    /// network card; on loopback the kernel copies all the same. Needs Linux 6.0. (Counted: 100 writes of
    /// 64 KiB are 100 sends without copy at 16k, and none at 1M.) A connection that is dropped before stays
    /// open until then. When a loop closes, connections whose
    /// peer does not acknowledge within `grace` are reset.
    zero_copy_threshold(): Option<u32> = None, in None => Some(1 << 30),
        who "servers of large answers on fast networks", shows "`zero_copies`, CPU per byte";
    /// Tasks that a turn may have to poll for a send of one of them to be made at once, by a system call of
    /// its own: so few save no calls by submitting together, and an answer is on its way sooner. What does
    /// not fit into the socket's buffer, and what the same poll sends after it, goes the ordinary way. `0`:
    /// all sends do.
    ///
    /// Counted: for 500 messages, one each 200 us, that are answered the loop takes 510 turns, and 1,003
    /// at 0. None are made at once of more than 64 KiB, while there are several task queues, or with
    /// `sqpoll`; where a filter forbids `sendto(2)` that ends it, which is told. They do not count as
    /// operations for `fixed_files`.
    direct_sends(): u32 = 4, in 0 => 65_536,
        who "latency and CPU on few connections", shows "`direct_sends`, `ticks` for each answer";
    /// Places of the ring's table of files. A connection whose descriptor is a smaller number is entered in
    /// it by its 32nd operation and taken out when it goes, a system call each; its receives and sends name
    /// it there from then on, which spares the kernel a look-up and two atomic operations for each. `0`: no
    /// table. No more places than RLIMIT_NOFILE allows descriptors when the loop starts; 8 bytes of kernel
    /// memory a place. Needs Linux 6.13: before, a closed connection stayed open until older operations of
    /// its ring had ended. (A test reads the table back from the kernel.)
    fixed_files(): u32 = FIXED_FILES, in 0 => 1 << 20,
        who "servers of more connections than places", shows "CPU per request";
    /// How the cores of a server come by their connections, where it listens through
    /// `coreloop_net::spread::Acceptors`: a listener for each core and the kernel's hash (`reuseport`),
    /// or the one of the CPU that a connection arrives on (`cpu`), or the first core accepts and deals them
    /// out, in turn (`round-robin`) or to whoever has the fewest (`least-connections`). It is the process's:
    /// the first core's counts. Where the kernel takes no program for `cpu`, it is `reuseport`, and says so.
    ///
    /// Two CPUs can't rank them: each does what it says by its test; "Cores and placement" argues when which
    /// is meant to win.
    accept_spread(): AcceptSpread = AcceptSpread::ReusePort,
        who "servers whose cores are unequally busy", shows "connections of each core";
    /// What to do before sleeping: nothing (`off`), learn whether a spin pays (`dial`), or spin for a time
    /// whatever it brings. A core that always spins uses a whole CPU. The dial spins where events come soon
    /// and few at a time. At most 1 s.
    ///
    /// Counted: for 500 messages, one each 200 us, the core slept 1,002 times without spins and 14 times
    /// with spins of 2ms. On a loaded machine the dial had learnt that they did not pay: 995 times.
    spin(): Spin = Spin::Dial,
        who "latency on few connections; off where CPUs are shared", shows "`docs/MEASURING.md`, the gaps";
    /// What to record: each level costs more than the one before.
    ///
    /// Counted: 1,253 instructions for an echo with nothing, 1,257 with counters (+0.3 %), 1,292 with
    /// histograms (+3.1 %), user space alone; 0.5 KiB a core for the first two, 357 KiB for the third.
    stats(): StatsLevel = StatsLevel::Counters,
        who "whoever wants histograms", shows "the report itself";
    /// Debug mode: a poll of a task, or a closure from another thread, that keeps its core for longer than
    /// `slow_poll` is reported, with the task's name and where it was spawned; and when the loop ends, so
    /// is each task that had not ended, with what it waits for. The environment variable `CORELOOP_DEBUG`
    /// (`1` or `0`) counts more than what a program or a file says, less than a flag. Off, it costs one
    /// comparison a turn; on, a clock reading for each poll.
    ///
    /// Using something of a loop's on another thread does not compile, so there is nothing to report.
    debug(): bool = false,
        who "developers", shows "lines on standard error";
    /// The longest that a poll may take before debug mode reports it.
    slow_poll(): Duration = Duration::from_millis(100),
        in Duration::from_micros(1) => Duration::MAX,
        who "developers", shows "lines on standard error";
    /// The longest that a poll, or whatever else is done between two, may keep its core before it is
    /// reported as a [`Stall`] *while it does*: the task, where it was spawned, and a backtrace. 25 ms suit
    /// a server; `never` looks at nothing. At most five a minute and core are told, and no more while eight
    /// wait for who is told of another; the others are counted.
    ///
    /// While it is on, one thread of the process looks at the counters of its cores five times within the
    /// threshold, and a loop counts also at the stats level `off`. The backtrace takes a real-time signal
    /// that nobody handles (the first one from `SIGRTMIN + 1` on), whose handler stays: a stalled thread
    /// that waits in a system call may find that call interrupted (`EINTR`), as by any signal.
    stall_threshold(): Duration = Duration::MAX,
        in Duration::from_millis(1) => Duration::MAX,
        who "servers, to find what keeps their cores", shows "lines on standard error, `stalls`";
    /// Features of io_uring to do without, as if the kernel did not have them. The environment variable
    /// `CORELOOP_MASK` does the same for a whole process; it adds to what a builder call masks, and counts
    /// more than a file and less than a flag.
    mask(own): FeatureSet = FeatureSet::none(),
        who "tests of step-downs; a way round a kernel's bug", shows "`doctor`, the report of the ring";
    /// How long a closing loop waits for the kernel to give back what it holds, and for closures of
    /// [`spawn_blocking`](crate::spawn_blocking) to end.
    grace(): Duration = Duration::from_secs(5),
        who "servers with a deadline for their end", shows "the report of the shutdown";
    /// Threads that may do the blocking work of this core at a time: see
    /// [`spawn_blocking`](crate::spawn_blocking). They are started when needed. What blocks mostly waits,
    /// so they may well outnumber the CPUs; but each core has its own, and each takes a stack.
    ///
    /// Counted: 64 closures that sleep ran on 1, 4 and 16 threads, as many as were allowed.
    blocking_threads(): u32 = 16, in 1 => 1024,
        who "users of `spawn_blocking`", shows "threads of the process";
    /// Closures that may be queued for those threads. Where the queue is full the tasks that stand for
    /// further ones wait for room, in turn.
    ///
    /// Counted: of 64 closures for one thread 4 were queued where the queue had 4 places, and the others'
    /// tasks waited; all 64 with 1,024.
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

    /// Who is told what no awaiter hears of ([`Report`]): panics and errors of tasks whose result nobody
    /// took, or whose group could not tell any more, and what debug mode finds. By default each is a line
    /// on standard error. The closure is called between polls, or within one while a handle or a group is
    /// dropped, on the core's thread (for a remote task on the thread that lets go of its handle); a
    /// panic of it is contained.
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

    /// Who is told of stalls; by default each is written to standard error. Called on a thread of its own,
    /// one stall after the other, the first while it lasts. It may take its time: the cores are looked at
    /// meanwhile, and what they do is counted. A panic of it is contained. Unless
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

    /// Whether the kernel's workers are to run beside the pinned cores.
    pub(crate) fn workers_beside(&self) -> bool {
        self.values.worker_cpus == WorkerCpus::Auto
    }

    pub(crate) fn spin_setting(&self) -> Spin {
        self.values.spin
    }

    /// Sends a thread of the kernel's that submits to this CPU, unless the user named one. Left to itself it
    /// stays where the core's thread is pinned (Linux 6.2 and later), and the two keep each other waiting.
    pub(crate) fn submitting_on(mut self, cpu: usize) -> Self {
        if self.values.sqpoll.is_some() {
            let named = self.values.sqpoll_cpu;
            self.values.sqpoll_cpu = named.or(u32::try_from(cpu).ok());
        }
        self
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
        if v.worker_cpus == WorkerCpus::These(Vec::new()) {
            let why = "no CPU is named: use auto or kernel".to_owned();
            return Err(StartError::BadSetting { name: "worker_cpus", why });
        }
        if let Some(clash) = self.clashes().next() {
            return Err(StartError::BadSetting { name: clash.name, why: clash.why });
        }
        let (debug, mask) = match self.has_environment {
            true => (None, FeatureSet::none()),
            false => environment::switches()?,
        };
        Ok(CoreConfig {
            ring_entries: v.ring_entries,
            cq_entries: v.cq_entries,
            mask: v.mask.union(mask),
            buffers: v.buffers,
            buffer_size: v.buffer_size,
            chunk_quota: v.chunk_quota,
            timer_resolution: v.timer_resolution,
            tick_quota: v.tick_quota,
            flush_interval: v.flush_interval,
            direct_sends: v.direct_sends,
            asked: Asked {
                task_work: v.task_work,
                sqpoll: v.sqpoll,
                sqpoll_cpu: v.sqpoll_cpu,
                min_wait: v.min_wait,
                min_wait_completions: v.min_wait_completions,
                workers: [v.bounded_workers, v.unbounded_workers],
                worker_cpus: v.worker_cpus.clone(),
                napi: v.napi,
                napi_prefer: v.napi_prefer,
                zero_copy_threshold: v.zero_copy_threshold,
                fixed_files: v.fixed_files,
            },
            spin: v.spin,
            stats: match v.stats {
                // Its watcher looks at counters.
                StatsLevel::Off if self.stalls().is_some() => StatsLevel::Counters,
                level => level,
            },
            debug: debug.unwrap_or(v.debug),
            slow_poll: v.slow_poll,
            reporter: self.reporter.clone(),
            blocking: Limits { threads: v.blocking_threads, queue: v.blocking_queue },
        })
    }
}
