//! The queue between a loop and the threads that do its blocking work.
//!
//! Owns [`Pool`], one loop's, and [`Submission`], one closure's way into it. Places in the queue
//! are given in the order in which they were asked for: a place that becomes free is promised to
//! the one that waits longest, and a promise that nobody wants any more goes to the next.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Job;
use crate::contain::{contained, let_go, wake};
use crate::sys::shared::{Condvar, Mutex, MutexGuard};

/// How much of a pool there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) threads: u32,
    pub(crate) queue: u32,
}

/// One loop's pool. Dropping it lets its threads end.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    /// CPUs that the threads may use; empty for those of the loop's own thread.
    cpus: RefCell<Vec<usize>>,
    started: Cell<u64>,
}

pub(super) struct Shared {
    pub(super) limits: Limits,
    state: Mutex<State>,
    work: Condvar,
    ended: Condvar,
}

pub(super) struct State {
    next: u64,
    /// Closures that no thread has taken, and wakers of those that wait for room; both by the order
    /// of asking.
    queue: BTreeMap<u64, Job>,
    waiting: BTreeMap<u64, Waker>,
    /// Places that were promised to some that waited, and not taken yet.
    promised: u32,
    threads: u32,
    idle: u32,
    pub(super) running: u32,
    pub(super) closed: bool,
    /// loom has no time.
    #[cfg(all(test, loom))]
    impatient: bool,
}

/// What became of a closure that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    /// Somebody serves the queue.
    Served,
    /// One more worker is to be started; it is counted already.
    WantsWorker,
}

impl Pool {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            next: 0,
            queue: BTreeMap::new(),
            waiting: BTreeMap::new(),
            promised: 0,
            threads: 0,
            idle: 0,
            running: 0,
            closed: false,
            #[cfg(all(test, loom))]
            impatient: false,
        };
        let (state, work, ended) = (Mutex::new(state), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { limits, state, work, ended });
        Self { shared, cpus: RefCell::default(), started: Cell::new(0) }
    }

    /// CPUs that threads started from now on may use, instead of those of the loop's thread.
    pub(crate) fn run_on(&self, cpus: Vec<usize>) {
        self.cpus.replace(cpus);
    }

    pub(super) fn cpus(&self) -> Vec<usize> {
        self.cpus.borrow().clone()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.started.replace(self.started.get() + 1)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A closure that is to be queued.
    pub(crate) fn submit(&self, job: Job) -> Submission {
        Submission { shared: self.shared.clone(), ticket: None, job: Some(job) }
    }

    /// Its threads, and the closures that wait for one.
    pub(crate) fn in_use(&self) -> (u32, usize) {
        let state = self.shared.lock();
        (state.threads, state.queue.len())
    }

    /// From now on nothing that is queued is begun; what runs goes on.
    pub(crate) fn stop(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }

    /// Ends the pool: what is queued is dropped, threads end after what they run, and are waited
    /// for at most so long. How many closures still run then; they are left behind.
    pub(crate) fn close(&self, grace: Duration) -> u32 {
        let mut state = self.shared.end();
        let began = Instant::now();
        while state.threads > 0 {
            let left = grace.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            // A span that a clock can't hold is cut into pieces.
            let piece = left.min(Duration::from_secs(3600));
            let waited = self.shared.ended.wait_timeout(state, piece);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.running
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.shared.end());
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.closed = true;
        let jobs = std::mem::take(&mut state.queue);
        drop(state);
        self.work.notify_all();
        for (_, job) in jobs {
            contained(move || drop(job));
        }
        self.lock()
    }

    /// A worker ends that was not to be had; how many are left.
    pub(super) fn one_less(&self) -> u32 {
        self.leave(self.lock())
    }

    /// A worker ends, by what it has seen under this lock; how many are left.
    pub(super) fn leave(&self, mut state: MutexGuard<'_, State>) -> u32 {
        state.threads -= 1;
        let left = state.threads;
        drop(state);
        self.ended.notify_all();
        left
    }

    /// Has those that wait for work do so in vain.
    #[cfg(all(test, loom))]
    pub(super) fn lose_patience(&self) {
        self.lock().impatient = true;
        self.work.notify_all();
    }

    /// Waits for work; whether it waited so long in vain.
    pub(super) fn wait_for_work<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        limit: Duration,
    ) -> (MutexGuard<'a, State>, bool) {
        state.idle += 1;
        let waited = self.work.wait_timeout(state, limit);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        #[cfg(all(test, loom))]
        let waited_in_vain = state.impatient;
        #[cfg(not(all(test, loom)))]
        let waited_in_vain = waited.timed_out();
        (state, waited_in_vain)
    }
}

impl State {
    /// The closure that waits longest, for a worker, with the waker of whoever gets its place.
    pub(super) fn take(&mut self, limits: Limits) -> Option<(Job, Option<Waker>)> {
        if self.closed {
            return None;
        }
        let (_, job) = self.queue.pop_first()?;
        self.running += 1;
        Some((job, self.promise(limits)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn has_room(&self, limits: Limits) -> bool {
        self.queue.len() + (self.promised as usize) < limits.queue as usize
    }

    /// Promises a free place to the one that waits longest.
    fn promise(&mut self, limits: Limits) -> Option<Waker> {
        if !self.has_room(limits) {
            return None;
        }
        let (_, waker) = self.waiting.pop_first()?;
        self.promised += 1;
        Some(waker)
    }

    fn push(&mut self, ticket: u64, job: Job, limits: Limits) -> Handed {
        self.queue.insert(ticket, job);
        // Idle threads have been told of one closure each; a further one takes a further thread.
        if self.queue.len() > self.idle as usize && self.threads < limits.threads {
            self.threads += 1;
            return Handed::WantsWorker;
        }
        Handed::Served
    }
}

/// A closure on its way into the queue. Dropped before a worker took the closure, it takes it back:
/// the closure is dropped unrun.
pub(crate) struct Submission {
    shared: Arc<Shared>,
    /// Its place in the order, once it was polled.
    ticket: Option<u64>,
    /// None once it is queued.
    job: Option<Job>,
}

impl Future for &mut Submission {
    type Output = Handed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Handed> {
        self.poll_handed(cx.waker())
    }
}

impl Submission {
    fn poll_handed(&mut self, waker: &Waker) -> Poll<Handed> {
        let limits = self.shared.limits;
        let waker = waker.clone();
        let mut state = self.shared.lock();
        let ticket = match self.ticket {
            Some(ticket) => {
                if let Some(known) = state.waiting.get_mut(&ticket) {
                    let old = std::mem::replace(known, waker);
                    drop(state);
                    drop(old);
                    return Poll::Pending;
                }
                state.promised -= 1;
                ticket
            }
            None => {
                let ticket = state.next;
                state.next += 1;
                self.ticket = Some(ticket);
                if !state.has_room(limits) || !state.waiting.is_empty() {
                    state.waiting.insert(ticket, waker);
                    return Poll::Pending;
                }
                ticket
            }
        };
        let job = self.job.take().expect("it is polled to its end only once");
        let handed = state.push(ticket, job, limits);
        drop(state);
        if handed == Handed::Served {
            self.shared.work.notify_one();
        }
        Poll::Ready(handed)
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.shared.lock();
        let waker = state.waiting.remove(&ticket);
        let job = state.queue.remove(&ticket);
        if waker.is_none() && self.job.is_some() {
            // It was promised a place.
            state.promised -= 1;
        }
        let next = state.promise(self.shared.limits);
        drop(state);
        next.into_iter().for_each(wake);
        // Maybe while a panic unwinds: that no thread was to be had.
        contained(move || drop(job));
        let_go(waker);
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
