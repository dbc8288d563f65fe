//! Closures that other threads hand to a core.
//!
//! Owns one core's bounded queue. A full queue refuses, a core that has ended refuses and drops what was
//! still queued; which of the two happens to a closure is settled under the queue's lock, so none hangs.
//! The lock is held for a push or a swap only; a wake takes no lock (see `wake_map`).

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cell::CoreCell;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Closures that may wait for one core.
pub(crate) const JOBS_MAX: usize = 1024;

pub(crate) struct JobQueue {
    cell: &'static CoreCell,
    /// None once the core has ended.
    jobs: Mutex<Option<VecDeque<Job>>>,
    any: AtomicBool,
}

/// Why a closure was not taken; it has been dropped.
pub(crate) enum Refused {
    Full,
    Gone,
}

impl JobQueue {
    pub(crate) fn new(cell: &'static CoreCell) -> Self {
        Self { cell, jobs: Mutex::new(Some(VecDeque::new())), any: AtomicBool::new(false) }
    }

    /// Queues a closure and wakes the core.
    pub(crate) fn push(&self, job: Job) -> Result<(), Refused> {
        // Declared before the lock, so that a refused closure's destructor runs after its release.
        let job = job;
        let mut jobs = self.lock();
        match &mut *jobs {
            None => return Err(Refused::Gone),
            Some(queue) if queue.len() >= JOBS_MAX => return Err(Refused::Full),
            Some(queue) => queue.push_back(job),
        }
        self.any.store(true, Ordering::Release);
        drop(jobs);
        self.cell.unpark();
        Ok(())
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes all that is queued. The owning core only.
    pub(crate) fn take(&self) -> VecDeque<Job> {
        let mut jobs = self.lock();
        self.any.store(false, Ordering::Relaxed);
        jobs.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Refuses from now on; what was queued is dropped by the caller.
    pub(crate) fn close(&self) -> VecDeque<Job> {
        let mut jobs = self.lock();
        self.any.store(false, Ordering::Relaxed);
        jobs.take().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<VecDeque<Job>>> {
        self.jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
