//! Who serves a pool's queue.
//!
//! Owns the threads: their start, their work, their end. Those of a pinned loop run on CPUs that no loop is
//! pinned to, or on all where there are none such: work that blocks would otherwise sit on the loop's own
//! CPU alone. Their signal mask is the loop's, since processes that they start inherit it. Also the same
//! service by one step at a time, for a simulation, where a task stands in for a thread.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::pool::{Pool, Shared};
use crate::contain::{contained, wake};
use crate::sys::threads;

/// How long a thread without work stays.
pub(crate) const IDLE: Duration = Duration::from_secs(10);

impl Pool {
    /// Starts the thread that [`Handed`](super::pool::Handed) asked for.
    ///
    /// # Errors
    /// If the system refuses and no other thread serves the queue. While one does, it is a thread
    /// less and no error.
    pub(crate) fn start_thread(&self) -> io::Result<()> {
        let (number, cpus) = (self.next_number(), self.cpus());
        let shared = self.shared().clone();
        let name = format!("coreloop-block-{number}");
        let started = thread::Builder::new().name(name).spawn(move || serve(&shared, &cpus));
        match started {
            Ok(_detached) => Ok(()),
            Err(e) if self.shared().one_less() == 0 => Err(e),
            Err(_) => Ok(()),
        }
    }

    /// A worker's step without its thread: the next closure, to be run by [`Served::run`]. None
    /// when the queue is empty.
    pub(crate) fn serve_one(&self) -> Option<Served> {
        let (job, woken) = self.shared().lock().take(self.shared().limits)?;
        woken.into_iter().for_each(wake);
        Some(Served { shared: self.shared().clone(), job: Some(job) })
    }

    /// A place in the pool's count of workers, given back when dropped.
    pub(crate) fn stand_in(&self) -> StandIn {
        StandIn(self.shared().clone())
    }
}

/// A closure that was taken out of the queue.
pub(crate) struct Served {
    shared: Arc<Shared>,
    job: Option<super::Job>,
}

impl Served {
    pub(crate) fn run(mut self) {
        if let Some(job) = self.job.take() {
            contained(job);
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let job = self.job.take();
        self.shared.lock().running -= 1;
        contained(move || drop(job));
    }
}

/// See [`Pool::stand_in`].
pub(crate) struct StandIn(Arc<Shared>);

impl Drop for StandIn {
    fn drop(&mut self) {
        self.0.one_less();
    }
}

pub(super) fn serve(shared: &Arc<Shared>, cpus: &[usize]) {
    if !cpus.is_empty() {
        // A refusal leaves it where the loop is: slower, and no harm.
        threads::run_on(cpus);
    }
    let mut state = shared.lock();
    loop {
        if let Some((job, woken)) = state.take(shared.limits) {
            drop(state);
            woken.into_iter().for_each(wake);
            Served { shared: shared.clone(), job: Some(job) }.run();
            state = shared.lock();
        } else if state.closed {
            break;
        } else {
            let waited_in_vain;
            (state, waited_in_vain) = shared.wait_for_work(state, IDLE);
            if waited_in_vain && state.is_empty() {
                break;
            }
        }
    }
    // Not looked at again in between: who queues a closure counts on the threads that are counted.
    shared.leave(state);
}
