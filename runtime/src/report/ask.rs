//! Asking cores.
//!
//! Owns the reports of [`Handle`]: what can be read at once, what a core has to be asked for, and both for
//! all cores within a time. A core that has ended, or that is kept busy, costs the asker that time at most.

use std::time::{Duration, Instant};

use crate::executor::list::Look;
use crate::executor::{Core, context};
use crate::handle::{Handle, PostError, RemoteError, RemoteJoinHandle, Slices};
use crate::metrics::Snapshot;
use crate::spawn::yield_now;
use crate::sys::linux::monotonic_ns;
use crate::task::TaskInfo;
use crate::time::timeout;

/// The tasks of one core.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TaskList {
    /// The core's number in its runtime.
    pub core: usize,
    /// Its tasks that have not ended, the main future first, then in the order of their slots.
    pub tasks: Vec<TaskInfo>,
    /// Tasks that were left out, because no more were asked for.
    pub left_out: usize,
    /// Where these go on, for [`Handle::tasks_from`]; none if no task was left out.
    pub rest: Option<TaskPlace>,
}

/// A place in a core's list of tasks: the beginning by default, others are in [`TaskList::rest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskPlace(u32);

impl Handle {
    /// What core `core` did so far, from any thread, at once: the core is not asked, and not held up. What
    /// it has at a moment ([`Snapshot::gauges`]) is as old as it says; [`stats`](Self::stats) asks for that.
    /// Of a core that has ended these are the last figures.
    ///
    /// # Errors
    /// No such core.
    ///
    /// ```
    /// use coreloop::{Handle, spawn, yield_now};
    /// let spawns = coreloop::run(async {
    ///     drop(spawn(async {}));
    ///     yield_now().await;
    ///     Handle::current().snapshot(0).unwrap().counters.spawns
    /// });
    /// assert_eq!(spawns.unwrap(), 1);
    /// ```
    pub fn snapshot(&self, core: usize) -> Result<Snapshot, PostError> {
        Ok(self.queue(core)?.read_book(now_ns()))
    }

    /// As [`snapshot`](Self::snapshot), of every core, in their order.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        (0..self.cores()).filter_map(|core| self.snapshot(core).ok()).collect()
    }

    /// As [`snapshots`](Self::snapshots), without histograms: a few hundred loads a core, where those take
    /// some 540,000 instructions and 360 KiB.
    ///
    /// ```
    /// use coreloop::{EventLoop, Settings, StatsLevel};
    /// let settings = Settings::default().stats(StatsLevel::Histograms);
    /// let event_loop = EventLoop::with(settings).unwrap();
    /// let brief = event_loop.handle().snapshots_in_brief();
    /// assert!(brief[0].histograms.is_none());
    /// ```
    pub fn snapshots_in_brief(&self) -> Vec<Snapshot> {
        let now_ns = now_ns();
        let queues = (0..self.cores()).filter_map(|core| self.queue(core).ok());
        queues.map(|queue| queue.read_book_in_brief(now_ns)).collect()
    }

    /// What core `core` did so far and what it has now; asks it, and waits for the answer. On any loop, or
    /// on none.
    ///
    /// # Cancel safety
    /// Nothing is lost: a core that was asked answers, and its answer is dropped.
    ///
    /// # Errors
    /// As for [`call_soon_threadsafe`](Self::call_soon_threadsafe), and if the core ends before it
    /// has answered.
    pub async fn stats(&self, core: usize) -> Result<Snapshot, PostError> {
        // The core says what it has, some loads and stores; all that is long is read here.
        self.ask(core, |core| core.say_gauges())?.await.map_err(gone)?;
        self.snapshot(core)
    }

    /// What every core did so far and what it has now; waits for the answers for `limit` at most. A core
    /// that does not answer in time, since a task keeps it or it has ended, is reported all the same; only
    /// its [gauges](Snapshot::gauges) are older.
    ///
    /// # Cancel safety
    /// Nothing is lost: a core that was asked answers, and its answer is dropped.
    ///
    /// # Panics
    /// Outside a running loop; there is [`all_stats_blocking`](Self::all_stats_blocking).
    ///
    /// ```
    /// use std::time::Duration;
    /// use coreloop::Handle;
    /// let all = coreloop::run(async {
    ///     Handle::current().all_stats(Duration::from_secs(1)).await
    /// });
    /// assert_eq!(all.unwrap()[0].cores, 1);
    /// ```
    pub async fn all_stats(&self, limit: Duration) -> Vec<Snapshot> {
        self.all_say(limit).await;
        let mut all = Vec::with_capacity(self.cores());
        for core in 0..self.cores() {
            all.extend(self.snapshot(core));
            // To read one core's histograms takes some 540,000 instructions: others' turns lie between.
            yield_now().await;
        }
        all
    }

    /// As [`all_stats`](Self::all_stats), without histograms: cheap enough for a probe each second.
    ///
    /// # Cancel safety
    /// As there.
    ///
    /// # Panics
    /// As there.
    ///
    /// ```
    /// use std::time::Duration;
    /// use coreloop::Handle;
    /// let all = coreloop::run(async {
    ///     Handle::current().all_stats_in_brief(Duration::from_secs(1)).await
    /// });
    /// assert!(all.unwrap()[0].gauges.age < Duration::from_secs(1));
    /// ```
    pub async fn all_stats_in_brief(&self, limit: Duration) -> Vec<Snapshot> {
        self.all_say(limit).await;
        self.snapshots_in_brief()
    }

    /// Has all cores say what they have now, those that do so within `limit`.
    async fn all_say(&self, limit: Duration) {
        let asked = self.ask_all(|core| core.say_gauges());
        let answers = async {
            for answer in asked.into_iter().flatten() {
                // One that gives none is seen by the age of its gauges.
                _ = answer.await;
            }
        };
        _ = timeout(limit, answers).await;
    }

    /// As [`all_stats`](Self::all_stats), and blocks the calling thread meanwhile.
    ///
    /// # Panics
    /// Within a running loop, which it would hold up.
    ///
    /// ```
    /// use std::time::Duration;
    /// use coreloop::EventLoop;
    /// let event_loop = EventLoop::new().unwrap();
    /// // Nobody drives it now, so it can't answer.
    /// let all = event_loop.handle().all_stats_blocking(Duration::from_millis(1));
    /// assert_eq!(all[0].counters.ticks, 0);
    /// ```
    pub fn all_stats_blocking(&self, limit: Duration) -> Vec<Snapshot> {
        no_loop_here("all_stats_blocking");
        let until = Deadline::after(limit);
        for answer in self.ask_all(|core| core.say_gauges()).into_iter().flatten() {
            _ = answer.join_within(until.left());
        }
        self.snapshots()
    }

    /// The tasks of core `core`, at most `max` of them: asks it, and waits for the answer. On any loop, or on
    /// none. The core reads all its tasks, operations and timers for it: for a look by a person. It does so
    /// in slices of at most some 50 µs, one a turn for all who look, and runs its tasks between them, so that
    /// these come and go meanwhile:
    /// one that is there all the while is listed once, and a list of several slices may show a wait of a
    /// task that has gone on since.
    ///
    /// # Cancel safety
    /// Nothing is lost: a core that was asked answers, and its answer is dropped.
    ///
    /// # Errors
    /// As for [`stats`](Self::stats).
    ///
    /// ```
    /// use coreloop::{Handle, spawn_named, time::sleep};
    /// use std::time::Duration;
    /// coreloop::run(async {
    ///     let _nap = spawn_named("nap", sleep(Duration::from_secs(3600)));
    ///     let list = Handle::current().tasks(0, 100).await.unwrap();
    ///     assert_eq!(list.tasks[1].name.as_deref(), Some("nap"));
    ///     assert_eq!(list.tasks[1].parent, Some(list.tasks[0].id));
    /// })
    /// .unwrap();
    /// ```
    pub async fn tasks(&self, core: usize, max: usize) -> Result<TaskList, PostError> {
        self.tasks_from(core, TaskPlace::default(), max).await
    }

    /// As [`tasks`](Self::tasks), from a place on: very many tasks are read page by page, in little memory. A
    /// task that is there from the first page to the last is on one of them.
    ///
    /// # Cancel safety
    /// As there.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// use coreloop::{Handle, TaskPlace, spawn, time::sleep};
    /// use std::time::Duration;
    /// coreloop::run(async {
    ///     let _naps: Vec<_> = (0..25).map(|_| spawn(sleep(Duration::from_secs(3600)))).collect();
    ///     let (handle, mut tasks) = (Handle::current(), 0);
    ///     let mut place = Some(TaskPlace::default());
    ///     while let Some(from) = place {
    ///         let page = handle.tasks_from(0, from, 10).await.unwrap();
    ///         assert!(page.tasks.len() <= 10);
    ///         tasks += page.tasks.len();
    ///         place = page.rest;
    ///     }
    ///     assert_eq!(tasks, 26);
    /// })
    /// .unwrap();
    /// ```
    pub async fn tasks_from(
        &self,
        core: usize,
        from: TaskPlace,
        max: usize,
    ) -> Result<TaskList, PostError> {
        self.ask_in_slices(core, Look::new(from.0, max))?.await.map_err(gone)
    }

    /// The tasks of every core, at most `max` of each; waits for the answers for `limit` at most.
    ///
    /// # Cancel safety
    /// Nothing is lost: a core that was asked answers, and its answer is dropped.
    ///
    /// # Errors
    /// By core: [`PostError::CoreGone`] if it has ended, [`PostError::NoAnswer`] if it took too long.
    ///
    /// # Panics
    /// Outside a running loop; there is [`all_tasks_blocking`](Self::all_tasks_blocking).
    pub async fn all_tasks(&self, max: usize, limit: Duration) -> Vec<Result<TaskList, PostError>> {
        let asked = self.ask_all_for_tasks(max);
        let until = Deadline::after(limit);
        let mut lists = Vec::with_capacity(asked.len());
        for answer in asked {
            lists.push(match answer {
                Err(e) => Err(e),
                Ok(answer) => match timeout(until.left(), answer).await {
                    Ok(answer) => answer.map_err(gone),
                    Err(_) => Err(PostError::NoAnswer { limit }),
                },
            });
        }
        lists
    }

    /// As [`all_tasks`](Self::all_tasks), and blocks the calling thread meanwhile.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Within a running loop, which it would hold up.
    pub fn all_tasks_blocking(
        &self,
        max: usize,
        limit: Duration,
    ) -> Vec<Result<TaskList, PostError>> {
        no_loop_here("all_tasks_blocking");
        let until = Deadline::after(limit);
        let asked = self.ask_all_for_tasks(max).into_iter();
        asked
            .map(|answer| match answer?.join_within(until.left()) {
                Some(answer) => answer.map_err(gone),
                None => Err(PostError::NoAnswer { limit }),
            })
            .collect()
    }

    fn ask_all<T: Send + 'static>(
        &self,
        f: impl Fn(&crate::executor::Core) -> T + Clone + Send + 'static,
    ) -> Vec<Result<RemoteJoinHandle<T>, PostError>> {
        (0..self.cores()).map(|core| self.ask(core, f.clone())).collect()
    }

    fn ask_all_for_tasks(&self, max: usize) -> Vec<Result<RemoteJoinHandle<TaskList>, PostError>> {
        let each = 0..self.cores();
        each.map(|core| self.ask_in_slices(core, Look::new(0, max))).collect()
    }
}

/// By the clock that the cores of this thread go by, which may be a simulated one.
fn now_ns() -> u64 {
    context::with_core(|core| core.now_ns()).unwrap_or_else(monotonic_ns)
}

/// The closures of this file don't panic: one that gave no answer was dropped unrun, as its core ended.
fn gone(_: RemoteError) -> PostError {
    PostError::CoreGone
}

impl Slices for Look {
    type Answer = TaskList;

    fn slice(&mut self, core: &Core) -> Option<TaskList> {
        Look::slice(self, core).then(|| TaskList {
            core: core.index(),
            rest: self.rest().map(TaskPlace),
            left_out: self.left_out,
            tasks: std::mem::take(&mut self.found),
        })
    }

    fn let_go(&mut self) -> bool {
        self.found.truncate(self.found.len().saturating_sub(LET_GO));
        self.found.is_empty()
    }
}

/// Tasks of a list that are dropped at a time, if nobody waits for it any more.
const LET_GO: usize = 256;

/// Until when the answers of several cores are waited for.
struct Deadline {
    began: Instant,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self { began: Instant::now(), limit }
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }
}

#[track_caller]
fn no_loop_here(what: &str) {
    let here = context::with_core(|_| ()).is_some();
    assert!(!here, "`{what}` would hold up the loop that runs on this thread: await the other one");
}
