//! Cores as other threads see them.
//!
//! Owns [`Handle`] (posts closures, asks for the runtime's end) and [`RemoteJoinHandle`], one shared cell
//! that a task on another core fills. A core that has ended answers with an error, never with silence.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::mailbox::queue::{JobQueue, Refused};
use crate::metrics::Snapshot;
use crate::task::JoinError;

/// A runtime's cores, from any thread. Clones name the same ones; it may outlive them.
#[derive(Clone)]
pub struct Handle {
    cores: Arc<[Arc<JobQueue>]>,
    stop: Arc<Stop>,
}

/// The request to end, and how to make cores look at it.
#[derive(Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    mains: Mutex<Vec<Waker>>,
}

impl Stop {
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        for waker in std::mem::take(&mut *lock(&self.mains)) {
            waker.wake();
        }
    }

    pub(crate) fn wake_when_asked(&self, waker: &Waker) {
        lock(&self.mains).push(waker.clone());
    }
}

impl Handle {
    pub(crate) fn of(cores: Vec<Arc<JobQueue>>) -> Self {
        Self { cores: cores.into(), stop: Arc::default() }
    }

    pub(crate) fn with_stop(cores: Vec<Arc<JobQueue>>, stop: Arc<Stop>) -> Self {
        Self { cores: cores.into(), stop }
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Runs `f` on core `core`, between its tasks: it must be short and must not block. A panic in it is
    /// contained.
    ///
    /// # Errors
    /// [`PostError`], with nothing run: no such core, it has ended, or 1,024 closures wait already.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// let mut event_loop = coreloop::EventLoop::new().unwrap();
    /// let handle = event_loop.handle();
    /// let (tx, rx) = mpsc::channel();
    /// std::thread::spawn(move || handle.post(0, move || tx.send(7).unwrap()).unwrap());
    /// while rx.try_recv().is_err() {
    ///     event_loop.turn(Some(std::time::Duration::from_millis(10)));
    /// }
    /// ```
    pub fn post(&self, core: usize, f: impl FnOnce() + Send + 'static) -> Result<(), PostError> {
        let queue =
            self.cores.get(core).ok_or(PostError::NoSuchCore { cores: self.cores.len() })?;
        queue.push(Box::new(f)).map_err(|refused| match refused {
            Refused::Full => PostError::Full,
            Refused::Gone => PostError::CoreGone,
        })
    }

    /// Makes the future of `f` on core `core` and runs it there as a task. `f` goes to the core; the
    /// future never leaves it.
    ///
    /// # Errors
    /// As for [`post`](Self::post).
    pub fn spawn_on<F, Fut, T>(&self, core: usize, f: F) -> Result<RemoteJoinHandle<T>, PostError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let shared =
            Arc::new(Shared { state: Mutex::new(State::Running(None)), ended: Condvar::new() });
        let promise = Promise { shared: shared.clone() };
        self.post(core, move || {
            drop(crate::spawn(async move {
                let value = match crate::spawn(async move { f().await }).await {
                    Ok(value) => Ok(value),
                    Err(e) => Err(RemoteError::of(&e)),
                };
                promise.keep(value);
            }));
        })?;
        Ok(RemoteJoinHandle { shared })
    }

    /// What core `core` did so far; asks it, and waits for the answer.
    ///
    /// # Errors
    /// As for [`post`](Self::post), and if the core ends before it has answered.
    pub async fn stats(&self, core: usize) -> Result<Snapshot, PostError> {
        let ask = || async { crate::executor::context::with_core(|c| c.snapshot()) };
        match self.spawn_on(core, ask)?.await {
            Ok(Some(snapshot)) => Ok(snapshot),
            _ => Err(PostError::CoreGone),
        }
    }

    /// Asks every core to end: main futures are dropped, tasks cancelled, I/O awaited.
    /// [`Runtime::run`](crate::Runtime::run) then gives [`RunError::Stopped`](crate::RunError). It does
    /// nothing to an [`EventLoop`](crate::EventLoop), which ends by its owner's hand.
    pub fn stop(&self) {
        self.stop.ask();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("cores", &self.cores.len()).finish_non_exhaustive()
    }
}

/// Why a closure was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The core's queue of 1,024 closures is full; try again when it has caught up.
    #[error("the core's queue is full")]
    Full,
    /// The core has ended.
    #[error("the core has ended")]
    CoreGone,
    /// There is no core of this number.
    #[error("no such core: there are {cores}, counted from 0")]
    NoSuchCore {
        /// How many there are.
        cores: usize,
    },
}

/// Awaits the value of a task on another core, on any loop or none. Dropping it lets the task run on.
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
    fn end(&self, value: Result<T, RemoteError>) {
        let mut state = lock(&self.state);
        let State::Running(waker) = &mut *state else { return };
        let waker = waker.take();
        *state = State::Ended(value);
        drop(state);
        self.ended.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> RemoteJoinHandle<T> {
    /// Blocks the calling thread until the task has ended. Not for use within a loop: it would stall.
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

impl<T> fmt::Debug for RemoteJoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJoinHandle").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of these is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
