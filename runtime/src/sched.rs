//! Shares of a core's time: task queues.
//!
//! Owns [`TaskQueue`], the handle of a queue, and its [`Builder`]. A core has one queue to begin with, and
//! nothing is measured. With more, the one that has used the least CPU time for its shares is served first,
//! and one turn of the loop takes no longer than the most urgent of them lets it. What a turn gives to whom
//! is the loop's; this knows the task table alone.

use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::executor::context;
use crate::metrics::QueueStats;
use crate::task::cell::AnyValue;
use crate::task::queues::{DEFAULT, QUEUES_MAX, SHARES_DEFAULT, Terms};
use crate::task::{JoinHandle, Tasks, current};
use crate::words::Time;

/// A queue of tasks that share a part of their core's time. It is a handle: clones are the same queue.
///
/// Every task belongs to one queue, for its whole life: the one that it was spawned in, which is the
/// spawner's where nothing else was said. The main future is the default queue's; closures from other
/// threads are nobody's, and neither charged nor limited. While several queues have something to do, each
/// gets CPU time in proportion to its shares; one that has nothing to do leaves its part to the others, and
/// earns nothing by it. Within a queue tasks run in the order that they would have without others.
///
/// A queue is there as long as it has handles or tasks that have not ended; then its place is free for
/// another, and what it owes is forgotten: keep a handle instead of making a queue for each job. It is
/// `!Send`, as tasks are: each core has its own.
///
/// A handle that is kept when its loop has ended keeps that loop's place among the 1,024 of a process.
///
/// Shares are of CPU time, by the clock, poll by poll: a task that computes for long without an `.await` is
/// not interrupted, but its queue pays for it afterwards; one that blocks is not interrupted either, and
/// nobody pays. A core with the default queue alone measures
/// nothing; with others it reads the clock after each poll.
///
/// ```
/// use coreloop::sched::TaskQueue;
///
/// coreloop::run(async {
///     let background = TaskQueue::builder("background").shares(10).build().unwrap();
///     let sum = background.spawn(async {
///         assert_eq!(&*TaskQueue::current().name(), "background");
///         coreloop::spawn(async { 40 + 2 }).await.unwrap() // in the background, too
///     });
///     assert_eq!(sum.await.unwrap(), 42);
///     assert_eq!(background.stats().polls, 3);
/// })
/// .unwrap();
/// ```
///
/// ```compile_fail
/// fn must_be_send<T: Send>() {}
/// must_be_send::<coreloop::sched::TaskQueue>();
/// ```
pub struct TaskQueue {
    tasks: Rc<Tasks>,
    id: u8,
}

/// What a queue is to be: see [`TaskQueue::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes no queue until it is told to `build`"]
pub struct Builder {
    name: Arc<str>,
    shares: u32,
    latency: Option<Duration>,
}

/// Why a queue could not be made, or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueError {
    /// No loop is running on this thread: make queues in a future that one drives.
    NoLoop,
    /// The core has as many queues as it may have ([`TaskQueue::COUNT_MAX`]): let some go, with their
    /// tasks.
    TooMany,
    /// Shares are from 1 to [`TaskQueue::SHARES_MAX`].
    Shares {
        /// What was asked for.
        asked: u32,
    },
    /// A latency goal is from [`TaskQueue::LATENCY_MIN`] to [`TaskQueue::LATENCY_MAX`].
    Latency {
        /// What was asked for.
        asked: Duration,
    },
}

impl TaskQueue {
    /// Queues that a core can have at a time, the default one among them.
    pub const COUNT_MAX: usize = QUEUES_MAX;

    /// The most shares that a queue can have; the default is 1,000.
    pub const SHARES_MAX: u32 = 10_000;

    /// The shortest latency goal.
    pub const LATENCY_MIN: Duration = Duration::from_micros(10);

    /// The longest latency goal.
    pub const LATENCY_MAX: Duration = Duration::from_secs(1);

    /// A queue of this name to be; lists of tasks and statistics show the name, and it need not be unique.
    pub fn builder(name: impl Into<Arc<str>>) -> Builder {
        Builder { name: name.into(), shares: SHARES_DEFAULT, latency: None }
    }

    /// The queue of the task that is being polled.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn current() -> Self {
        Self::of_loop("`TaskQueue::current`", Tasks::current_queue)
    }

    /// The default queue: the main future's, and that of all tasks where there is no other.
    ///
    /// # Panics
    /// Outside a running loop.
    ///
    /// ```
    /// use coreloop::sched::TaskQueue;
    ///
    /// coreloop::run(async {
    ///     assert_eq!(TaskQueue::current(), TaskQueue::of_main());
    ///     TaskQueue::of_main().set_shares(200).unwrap();
    /// })
    /// .unwrap();
    /// ```
    #[track_caller]
    pub fn of_main() -> Self {
        Self::of_loop("`TaskQueue::of_main`", |_| DEFAULT)
    }

    #[track_caller]
    fn of_loop(what: &str, id: impl FnOnce(&Tasks) -> u8) -> Self {
        match context::with_core(|core| core.tasks.clone()) {
            Some(tasks) => {
                let id = id(&tasks);
                tasks.keep_queue(id);
                Self { tasks, id }
            }
            None => context::no_loop(what),
        }
    }

    /// As [`coreloop::spawn`](crate::spawn()), in this queue.
    ///
    /// # Panics
    /// If the queue's loop is not the one that runs on this thread; see [`try_spawn`](Self::try_spawn).
    ///
    /// # Cancel safety
    /// Dropping the handle lets the task run on; if whoever awaits it is cancelled, the task is too.
    #[track_caller]
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        match self.try_spawn(future) {
            Ok(handle) => handle,
            Err(_) => context::no_loop("a spawn in a task queue"),
        }
    }

    /// As [`spawn`](Self::spawn), under a name that reports show.
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    ///
    /// # Cancel safety
    /// As for [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_named<F: Future + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        future: F,
    ) -> JoinHandle<F::Output> {
        let name = name.into();
        match self.spawn_at(future, Some(&name), Location::caller()) {
            Ok(handle) => {
                handle.rename(name);
                handle
            }
            Err(_) => context::no_loop("a spawn in a task queue"),
        }
    }

    /// As [`spawn`](Self::spawn), and gives the future back where the queue's loop is not running.
    ///
    /// # Errors
    /// The future, if the queue's loop is not the one that runs on this thread.
    ///
    /// # Cancel safety
    /// As for [`spawn`](Self::spawn).
    #[track_caller]
    pub fn try_spawn<F: Future + 'static>(&self, future: F) -> Result<JoinHandle<F::Output>, F> {
        self.spawn_at(future, None, Location::caller())
    }

    /// `name` is what the task's span says; the task itself is not named by it.
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "spans alone use it"))]
    fn spawn_at<F: Future + 'static>(
        &self,
        future: F,
        name: Option<&str>,
        at: &'static Location<'static>,
    ) -> Result<JoinHandle<F::Output>, F> {
        if !current::is_running(&self.tasks) {
            return Err(future);
        }
        #[cfg(feature = "tracing")]
        let future = crate::task::traced::traced(future, name, at);
        let tasks = self.tasks.clone();
        Ok(self.tasks.in_queue(self.id, || tasks.spawn_judged::<_, AnyValue>(future, at)))
    }

    /// Its name: `default` for the default one.
    pub fn name(&self) -> Arc<str> {
        self.tasks.queue_name(self.id).unwrap_or_else(|| "default".into())
    }

    /// Its shares.
    pub fn shares(&self) -> u32 {
        self.tasks.terms(self.id).shares
    }

    /// Gives it other shares from now on; what it used so far counts as it did.
    ///
    /// # Errors
    /// [`QueueError::Shares`]; then nothing changes.
    pub fn set_shares(&self, shares: u32) -> Result<(), QueueError> {
        let shares = shares_of(shares)?;
        self.tasks.set_terms(self.id, Terms { shares, ..self.tasks.terms(self.id) });
        Ok(())
    }

    /// Its latency goal, if it has one: see [`Builder::latency`].
    pub fn latency(&self) -> Option<Duration> {
        let ns = self.tasks.terms(self.id).latency_ns;
        (ns != u64::MAX).then(|| Duration::from_nanos(ns))
    }

    /// Gives it another latency goal from the next turn on, or none.
    ///
    /// # Errors
    /// [`QueueError::Latency`]; then nothing changes.
    pub fn set_latency(&self, goal: Option<Duration>) -> Result<(), QueueError> {
        let latency_ns = latency_ns_of(goal)?;
        self.tasks.set_terms(self.id, Terms { latency_ns, ..self.tasks.terms(self.id) });
        Ok(())
    }

    /// What its tasks have done so far. The default queue counts while there are others.
    pub fn stats(&self) -> QueueStats {
        self.tasks.queue_stats_of(self.id).unwrap_or_else(|| QueueStats {
            name: self.name().to_string(),
            shares: self.shares(),
            tasks: self.tasks.live(),
            ..QueueStats::default()
        })
    }
}

impl Builder {
    /// Its shares, 1 to [`TaskQueue::SHARES_MAX`]; 1,000 unless said. A queue of 1,000 shares gets a
    /// hundred times the CPU time of one of 10, while both have something to do.
    pub fn shares(mut self, shares: u32) -> Self {
        self.shares = shares;
        self
    }

    /// A latency goal: one turn of the loop takes no longer than this and one poll. So whoever wakes in
    /// this queue waits about that long, whatever the other queues do, as long as the queue stays within
    /// its share. All queues pay for it with more, shorter turns. None unless said.
    pub fn latency(mut self, goal: Duration) -> Self {
        self.latency = Some(goal);
        self
    }

    /// Makes the queue on the running loop.
    ///
    /// # Errors
    /// [`QueueError`]; it says what to change.
    ///
    /// ```
    /// use coreloop::sched::{QueueError, TaskQueue};
    ///
    /// let outside = TaskQueue::builder("batch").build();
    /// assert_eq!(outside.unwrap_err(), QueueError::NoLoop);
    /// coreloop::run(async {
    ///     let none = TaskQueue::builder("batch").shares(0).build();
    ///     assert_eq!(none.unwrap_err().to_string(), "0 shares: a queue has from 1 to 10000");
    /// })
    /// .unwrap();
    /// ```
    pub fn build(self) -> Result<TaskQueue, QueueError> {
        let shares = shares_of(self.shares)?;
        let terms = Terms { shares, latency_ns: latency_ns_of(self.latency)? };
        let tasks = context::with_core(|core| core.tasks.clone()).ok_or(QueueError::NoLoop)?;
        let id = tasks.add_queue(self.name, terms).ok_or(QueueError::TooMany)?;
        Ok(TaskQueue { tasks, id })
    }
}

fn shares_of(asked: u32) -> Result<u32, QueueError> {
    let range = 1..=TaskQueue::SHARES_MAX;
    if range.contains(&asked) { Ok(asked) } else { Err(QueueError::Shares { asked }) }
}

fn latency_ns_of(goal: Option<Duration>) -> Result<u64, QueueError> {
    let Some(asked) = goal else { return Ok(u64::MAX) };
    let range = TaskQueue::LATENCY_MIN..=TaskQueue::LATENCY_MAX;
    let fits = range.contains(&asked);
    if fits { Ok(asked.as_nanos() as u64) } else { Err(QueueError::Latency { asked }) }
}

impl Clone for TaskQueue {
    fn clone(&self) -> Self {
        self.tasks.keep_queue(self.id);
        Self { tasks: self.tasks.clone(), id: self.id }
    }
}

impl Drop for TaskQueue {
    fn drop(&mut self) {
        self.tasks.let_queue_go(self.id);
    }
}

/// Whether both are the same queue.
impl PartialEq for TaskQueue {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.tasks, &other.tasks) && self.id == other.id
    }
}

impl Eq for TaskQueue {}

impl fmt::Debug for TaskQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskQueue")
            .field("name", &self.name())
            .field("shares", &self.shares())
            .field("latency", &self.latency())
            .finish()
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLoop => f.write_str(
                "a task queue needs a running loop: make it in a future that `coreloop::run`, \
                 `EventLoop::block_on` or `Runtime::run` drives",
            ),
            Self::TooMany => write!(
                f,
                "the core has {} task queues, as many as it may have: drop handles of those whose tasks have \
                 ended",
                TaskQueue::COUNT_MAX
            ),
            Self::Shares { asked } => {
                write!(f, "{asked} shares: a queue has from 1 to {}", TaskQueue::SHARES_MAX)
            }
            Self::Latency { asked } => write!(
                f,
                "a latency goal of {}: it is from {} to {}",
                Time(*asked),
                Time(TaskQueue::LATENCY_MIN),
                Time(TaskQueue::LATENCY_MAX)
            ),
        }
    }
}

impl std::error::Error for QueueError {}
