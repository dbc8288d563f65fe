//! The orderly end of a loop.
//!
//! Owns the order: refuse mail, end the tasks (their destructors run, their ops are cancelled),
//! forget the timers, wait for the kernel, close, wait for blocking work. Nothing that the kernel
//! may still write to is freed. [`Core::close`] is all of it in one go; a simulation takes the same
//! steps one by one, since other cores and the clock must move on while this one waits.

use std::time::Duration;

use super::Core;
use crate::contain::contained;
use crate::driver::close::Drain;
use crate::metrics::Kind;
use crate::task::report::Report;

use super::context;

/// What closing a loop came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Tasks that had not ended and were cancelled.
    pub tasks_cancelled: u32,
    /// Ops that the kernel did not give back within the grace; their memory and descriptors are
    /// leaked on purpose, since it may still use them.
    pub ops_leaked: u32,
    /// Closures of [`spawn_blocking`](crate::spawn_blocking) that still ran after the grace; their
    /// threads are left behind and end with them.
    pub blocking_left: u32,
}

/// A close under way.
pub(crate) struct Closing {
    tasks_cancelled: u32,
    drain: Drain,
    /// Until when the end may be waited for, in ns.
    deadline: u64,
}

impl Core {
    /// Ends the loop; waits at most `grace` for the kernel. A second call does nothing.
    pub(crate) fn close(&self, grace: Duration) -> ShutdownReport {
        let Some(mut closing) = self.begin_close(grace) else { return ShutdownReport::default() };
        while let Some(until) = self.drain_on(&mut closing) {
            self.drain_wait(&mut closing, until);
        }
        self.end_close(closing)
    }

    /// First step: no more mail, tasks or timers. None if the loop is closed already.
    pub(crate) fn begin_close(&self, grace: Duration) -> Option<Closing> {
        if self.driver.is_closed() {
            return None;
        }
        let grace_ns = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        context::enter(self, || {
            self.tasks.poll_no_newborn();
            for job in self.jobs.close() {
                contained(|| drop(job));
            }
            // Before the tasks end, which may free a thread for what others have queued.
            self.blocking.stop();
            let tasks_cancelled = self.tasks.live();
            if self.slow_ns.is_some() {
                self.report_unfinished();
            }
            contained(|| self.tasks.cancel_all());
            // After the tasks that use them; their destructors still find the loop.
            self.kept.close();
            self.timers.close();
            let deadline = self.kernel.now_ns().saturating_add(grace_ns);
            Some(Closing { tasks_cancelled, drain: Drain::until(deadline), deadline })
        })
    }

    /// In debug mode, names the tasks that are about to be cancelled.
    #[cold]
    fn report_unfinished(&self) {
        for task in self.all_tasks().iter().filter(|task| task.spawned_at.is_some()) {
            self.tasks.reporter().tell(&Report::Unfinished { task });
        }
    }

    /// Asks the kernel for what it still has; until when its answer may be waited for, or none if there is
    /// nothing to wait for any more.
    pub(crate) fn drain_on(&self, closing: &mut Closing) -> Option<u64> {
        context::enter(self, || self.driver.drain_on(&mut closing.drain))
    }

    /// Waits for that answer, and takes it.
    pub(crate) fn drain_wait(&self, closing: &mut Closing, until: u64) {
        context::enter(self, || self.driver.drain_wait(&mut closing.drain, until));
    }

    /// Last step: closes the ring, whatever the kernel has kept, and waits for what blocks on
    /// threads.
    pub(crate) fn end_close(&self, closing: Closing) -> ShutdownReport {
        self.tasks.lease().close_ring();
        let ops_leaked = context::enter(self, || {
            let leaked = self.driver.close_drained();
            // Destructors of wakers and of what ops held may have made tasks.
            contained(|| self.tasks.end_spawned());
            self.watches.clear();
            leaked
        });
        // In this order: nobody writes to the eventfd once its number is withdrawn.
        self.tasks.lease().close();
        self.driver.close_wake();
        self.metrics.add(Kind::OpsLeaked, u64::from(ops_leaked));
        let grace = closing.deadline.saturating_sub(self.kernel.now_ns());
        let blocking_left = self.blocking.close(Duration::from_nanos(grace));
        self.say_gauges();
        self.metrics.end();
        ShutdownReport { tasks_cancelled: closing.tasks_cancelled, ops_leaked, blocking_left }
    }
}
