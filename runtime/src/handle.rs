//! Cores as other threads see them.
//!
//! Owns [`Handle`] (posts closures, asks for the runtime's end) and [`RemoteJoinHandle`], one
//! shared cell that a task on another core fills. A core that has ended answers with an error,
//! never with silence.

mod slices;

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use crate::contain::{let_go, wake};
use crate::executor::{self, context};
use crate::mailbox::peers::Peers;
use crate::mailbox::queue::{Asks, Job, JobQueue, Question, Refused, Room};
use crate::spawn::spawn_at;
use crate::sys::shared::{Condvar, Mutex, MutexGuard};
use crate::task::info::Note;
use crate::task::report::{Report, Reporter};
use crate::task::{JoinError, JoinHandle, current};
use crate::words::Time;
pub(crate) use slices::Slices;

/// A runtime's cores, from any thread. Clones name the same ones; it may outlive them.
#[derive(Clone)]
pub struct Handle {
    peers: Peers,
}

impl Handle {
    pub(crate) fn of(peers: Peers) -> Self {
        Self { peers }
    }

    /// The loop that runs on this thread, with the other cores of its runtime if it has any: what
    /// [`EventLoop::handle`](crate::EventLoop::handle) and [`Core::handle`](crate::Core::handle)
    /// give.
    ///
    /// # Panics
    /// Outside a running loop; see [`try_current`](Self::try_current).
    ///
    /// ```
    /// use coreloop::Handle;
    /// let sum = coreloop::run(async {
    ///     let handle = Handle::current();
    ///     handle.spawn_on(0, || async { 40 + 2 }).unwrap().await
    /// });
    /// assert_eq!(sum.unwrap(), Ok(42));
    /// ```
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Ok(handle) => handle,
            Err(_) => context::no_loop("`Handle::current`"),
        }
    }

    /// As [`current`](Self::current), and an error where no loop runs.
    ///
    /// # Errors
    /// [`NoLoop`], outside a running loop.
    ///
    /// ```
    /// use coreloop::Handle;
    /// assert!(Handle::try_current().is_err());
    /// assert_eq!(coreloop::run(async { Handle::current().cores() }).unwrap(), 1);
    /// ```
    pub fn try_current() -> Result<Self, NoLoop> {
        let peers = context::with_core(|core| core.peers());
        peers.map(Self::of).ok_or(NoLoop(()))
    }

    /// The number, among the cores of [`current`](Self::current), of the one that runs on this
    /// thread.
    ///
    /// # Errors
    /// [`NoLoop`], outside a running loop.
    ///
    /// ```
    /// use coreloop::{Handle, Runtime};
    /// let runtime = Runtime::builder().build().unwrap();
    /// let same = runtime.run(|core| async move { Handle::current_core() == Ok(core.index()) });
    /// assert!(same.unwrap().into_iter().all(|same| same));
    /// ```
    pub fn current_core() -> Result<usize, NoLoop> {
        context::with_core(|core| core.index()).ok_or(NoLoop(()))
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.peers.queues.len()
    }

    /// Runs `f` on core `core`, between its tasks, from any thread: a core that is parked wakes for
    /// it. It must be short and must not block. Those of one caller run in the order of the calls;
    /// a panic in one is contained. Within a loop, for that loop, there is
    /// [`call_soon`](crate::call_soon).
    ///
    /// # Errors
    /// [`PostError`], with nothing run: no such core, it has ended, or 1,024 closures wait already.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// let mut event_loop = coreloop::EventLoop::new().unwrap();
    /// let handle = event_loop.handle();
    /// let (tx, rx) = mpsc::channel();
    /// std::thread::spawn(move || {
    ///     handle.call_soon_threadsafe(0, move || tx.send(7).unwrap()).unwrap();
    /// });
    /// while rx.try_recv().is_err() {
    ///     event_loop.turn(Some(std::time::Duration::from_millis(10)));
    /// }
    /// ```
    pub fn call_soon_threadsafe(
        &self,
        core: usize,
        f: impl FnOnce() + Send + 'static,
    ) -> Result<(), PostError> {
        self.queue(core)?.push(Box::new(f)).map_err(|refused| match refused {
            Refused::Full(_) => PostError::Full,
            Refused::Gone => PostError::CoreGone,
        })
    }

    pub(crate) fn queue(&self, core: usize) -> Result<&Arc<JobQueue>, PostError> {
        self.peers.queues.get(core).ok_or(PostError::NoSuchCore { cores: self.cores() })
    }

    /// Posts a closure once there is room.
    pub(crate) async fn post(&self, core: usize, job: Job) -> Result<(), PostError> {
        let queue = self.queue(core)?;
        let (mut job, mut room) = (job, Room::in_queue(queue));
        loop {
            job = match queue.push(job) {
                Err(Refused::Full(job)) => job,
                Ok(()) => {
                    room.taken();
                    return Ok(());
                }
                Err(Refused::Gone) => return Err(PostError::CoreGone),
            };
            current::noted(Note::CoreRoom, &mut room).await;
        }
    }

    /// Posts a closure whether there is room or not: for what there is a bounded number of. Where the core
    /// has ended it is dropped.
    pub(crate) fn post_anyway(&self, core: usize, job: Job) -> Result<(), PostError> {
        self.queue(core)?.push_anyway(job).map_err(|_| PostError::CoreGone)
    }

    /// Makes the future of `f` on core `core` and runs it there as a task. `f` goes to the core;
    /// the future never leaves it. A panic whose text nobody takes is reported as that of any task
    /// ([`Settings::on_report`](crate::Settings::on_report)), on whichever thread the handle went last.
    ///
    /// # Errors
    /// As for [`call_soon_threadsafe`](Self::call_soon_threadsafe).
    ///
    /// # Cancel safety
    /// The closure has been sent when this returns. A drop of the handle changes nothing, also as part of a
    /// cancel: the task runs on, and its value is dropped where the last of the two sides goes.
    #[track_caller]
    pub fn spawn_on<F, Fut, T>(&self, core: usize, f: F) -> Result<RemoteJoinHandle<T>, PostError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let spawned_at = Location::caller();
        let (job, handle) = spawning(f, spawned_at);
        self.call_soon_threadsafe(core, job)?;
        Ok(handle)
    }

    /// As [`spawn_on`](Self::spawn_on), and waits where 1,024 closures wait already. The core that waits goes
    /// on meanwhile, so two that are full of each other's closures do not hold each other up.
    ///
    /// # Errors
    /// [`PostError`], with nothing run: no such core, or it has ended.
    ///
    /// # Cancel safety
    /// A future that is dropped before it ends has sent nothing.
    ///
    /// ```
    /// use coreloop::Handle;
    /// coreloop::run(async {
    ///     let task = Handle::current().spawn_on_when_room(0, || async { 7 }).await.unwrap();
    ///     assert_eq!(task.await, Ok(7));
    /// })
    /// .unwrap();
    /// ```
    #[track_caller]
    pub fn spawn_on_when_room<F, Fut, T>(
        &self,
        core: usize,
        f: F,
    ) -> impl Future<Output = Result<RemoteJoinHandle<T>, PostError>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (job, handle) = spawning(f, Location::caller());
        async move {
            self.post(core, Box::new(job)).await?;
            Ok(handle)
        }
    }

    /// Asks core `core`, between two of its tasks.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        core: usize,
        f: impl FnOnce(&executor::Core) -> T + Send + 'static,
    ) -> Result<RemoteJoinHandle<T>, PostError> {
        let (promise, handle) = promise(Location::caller());
        let question = self.question(core, Asks::Once)?;
        let asks = move || {
            let _question = question;
            if Arc::strong_count(&promise.shared) == 1 {
                return; // Nobody waits for the answer any more.
            }
            // Within a loop always; else the promise is dropped, which says so.
            if let Some(answer) = context::with_core(f) {
                promise.keep(Ok(answer));
            }
        };
        self.post_anyway(core, Box::new(asks))?;
        Ok(handle)
    }

    fn question(&self, core: usize, kind: Asks) -> Result<Question, PostError> {
        self.queue(core)?.question(kind).ok_or(PostError::Full)
    }

    /// Asks every core to end: main futures are dropped, tasks cancelled, I/O awaited. A core does so when
    /// its main future is next polled: after what was ready before that, and with
    /// [task queues](crate::sched::TaskQueue) when the default queue has its turn.
    /// [`Runtime::run`](crate::Runtime::run) then gives [`RunError::Stopped`](crate::RunError). It
    /// does nothing to an [`EventLoop`](crate::EventLoop), which ends by its owner's hand.
    pub fn stop(&self) {
        self.peers.stop.ask();
    }
}

/// A closure that makes a task of the future of `f`, and the handle of that task.
pub(crate) fn spawning<F, Fut, T>(
    f: F,
    spawned_at: &'static Location<'static>,
) -> (impl FnOnce() + Send + 'static, RemoteJoinHandle<T>)
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (promise, handle) = promise(spawned_at);
    let job = move || {
        let task = spawn_at(async move { f().await }, spawned_at);
        drop(spawn_at(Tells { task, promise: Some(promise) }, spawned_at));
    };
    (job, handle)
}

/// Hands a task's value over to another thread.
struct Tells<T: 'static> {
    task: JoinHandle<T>,
    /// Until it has.
    promise: Option<Promise<T>>,
}

impl<T> Tells<T> {
    fn poll_value(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let value = ready!(Pin::new(&mut self.task).poll(cx));
        if let Some(promise) = self.promise.take() {
            let value = value.map_err(|e| promise.shared.failed(&e));
            promise.keep(value);
        }
        Poll::Ready(())
    }
}

impl<T> Future for Tells<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_value(cx)
    }
}

impl<T> Drop for Tells<T> {
    fn drop(&mut self) {
        // The core ends: what the task gave in its last turn is there, and no turn will come that tells of
        // it.
        if self.promise.is_some() && self.task.is_finished() {
            _ = self.poll_value(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// A value to come, and the handle of it.
fn promise<T>(spawned_at: &'static Location<'static>) -> (Promise<T>, RemoteJoinHandle<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Running(None)),
        ended: Condvar::new(),
        spawned_at,
        reporter: OnceLock::new(),
    });
    (Promise { shared: shared.clone() }, RemoteJoinHandle { shared })
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("cores", &self.cores()).finish_non_exhaustive()
    }
}

/// No loop runs on the calling thread.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no loop runs on this thread: call it from a future that `coreloop::run`, \
     `EventLoop::block_on` or `Runtime::run` drives"
)]
pub struct NoLoop(());

/// The same text as [`Display`](fmt::Display): an `unwrap` then says what to change.
impl fmt::Debug for NoLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a closure was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The core's queue of 1,024 closures is full, or 256 questions wait for its answer (64 for lists of
    /// tasks); try again when it has caught up.
    #[error("the core's queue is full")]
    Full,
    /// The core has ended, or is one of the process that this one was forked from.
    #[error("the core has ended")]
    CoreGone,
    /// There is no core of this number.
    #[error("no such core: there are {cores}, counted from 0")]
    NoSuchCore {
        /// How many there are.
        cores: usize,
    },
    /// The core has not answered in time: one of its tasks keeps it busy, or nobody drives it.
    #[error(
        "the core has not answered within {}: a task keeps it busy, or nobody drives it",
        Time(*.limit)
    )]
    NoAnswer {
        /// How long was waited.
        limit: Duration,
    },
}

/// Awaits the value of a task on another core, on any loop or none. Dropping it lets the task run
/// on.
pub struct RemoteJoinHandle<T> {
    shared: Arc<Shared<T>>,
}

/// Why a task on another core gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// It panicked, with this text.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// It was cancelled, or its core ended before it did.
    #[error("the task was cancelled, or its core has ended")]
    Gone,
}

impl RemoteError {
    fn of(e: &JoinError) -> Self {
        if e.is_panic() {
            Self::Panicked(e.panic_message().unwrap_or("with something else than text").to_owned())
        } else {
            Self::Gone
        }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
    spawned_at: &'static Location<'static>,
    /// Who is told of a panic that nobody takes; set when there is one.
    reporter: OnceLock<Reporter>,
}

/// Both sides are gone: a panic that is still here was taken by nobody.
impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let State::Ended(Err(RemoteError::Panicked(message))) = state
            && let Some(reporter) = self.reporter.get()
        {
            reporter.tell(&Report::RemotePanicked { spawned_at: self.spawned_at, message });
        }
    }
}

enum State<T> {
    Running(Option<Waker>),
    Ended(Result<T, RemoteError>),
    Taken,
}

/// The task's side: dropping it unkept says that the task is gone.
struct Promise<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Promise<T> {
    fn keep(self, value: Result<T, RemoteError>) {
        self.shared.end(value);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.shared.end(Err(RemoteError::Gone));
    }
}

impl<T> Shared<T> {
    /// What is told of a task that gave no value. On its own core.
    fn failed(&self, e: &JoinError) -> RemoteError {
        if e.is_panic()
            && let Some(reporter) = context::with_core(|core| core.tasks.reporter().clone())
        {
            // Set once: a task ends once.
            _ = self.reporter.set(reporter);
        }
        RemoteError::of(e)
    }

    fn end(&self, value: Result<T, RemoteError>) {
        let mut state = lock(&self.state);
        let State::Running(waker) = &mut *state else { return };
        let waker = waker.take();
        *state = State::Ended(value);
        drop(state);
        self.ended.notify_all();
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl<T> RemoteJoinHandle<T> {
    /// Whether the task has ended: awaiting it is then ready at once.
    pub fn is_finished(&self) -> bool {
        !matches!(*lock(&self.shared.state), State::Running(_))
    }

    /// As [`join`](Self::join), for at most `limit`; none if the task has not ended by then.
    pub(crate) fn join_within(self, limit: Duration) -> Option<Result<T, RemoteError>> {
        let began = Instant::now();
        let mut state = lock(&self.shared.state);
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Ended(value) => return Some(value),
                running => *state = running,
            }
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return None;
            }
            // A span that a clock can't hold is cut into pieces.
            let piece = left.min(Duration::from_secs(3600));
            let waited = self.shared.ended.wait_timeout(state, piece);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Blocks the calling thread until the task has ended. Not for use within a loop: it would
    /// stall.
    ///
    /// # Errors
    /// If the task gave no value.
    pub fn join(self) -> Result<T, RemoteError> {
        let mut state = lock(&self.shared.state);
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Ended(value) => return value,
                running => *state = running,
            }
            state = self.shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for RemoteJoinHandle<T> {
    type Output = Result<T, RemoteError>;

    /// # Panics
    /// If polled after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Cloned before the lock is taken: a foreign waker's code runs with nothing held.
        let new = cx.waker().clone();
        let mut state = lock(&self.shared.state);
        match &mut *state {
            State::Running(waker) => {
                let old = waker.replace(new);
                drop(state);
                drop(old);
                current::note(Note::RemoteTask);
                return Poll::Pending;
            }
            State::Taken => panic!("a RemoteJoinHandle was polled after it was ready"),
            State::Ended(_) => {}
        }
        match std::mem::replace(&mut *state, State::Taken) {
            State::Ended(value) => Poll::Ready(value),
            _ => unreachable!("it was Ended under this lock"),
        }
    }
}

impl<T> Drop for RemoteJoinHandle<T> {
    /// Whoever awaited it is not to be kept, nor woken, by a task that may run for long.
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        let waker = if let State::Running(waker) = &mut *state { waker.take() } else { None };
        drop(state);
        let_go(waker);
    }
}

impl<T> fmt::Debug for RemoteJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJoinHandle").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
