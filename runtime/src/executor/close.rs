//! The orderly end of a loop.
//!
//! Owns the order: refuse mail, end the tasks (their destructors run, their ops are cancelled), forget the
//! timers, wait for the kernel, close. Nothing that the kernel may still write to is freed.

use std::time::Duration;

use super::Core;
use crate::contain::contained;
use crate::metrics::Kind;
use crate::task::current;

/// What closing a loop came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Tasks that had not ended and were cancelled.
    pub tasks_cancelled: u32,
    /// Ops that the kernel did not give back within the grace; their memory and descriptors are leaked on
    /// purpose, since it may still use them.
    pub ops_leaked: u32,
}

impl Core {
    /// Ends the loop; waits at most `grace` for the kernel. A second call does nothing.
    pub(crate) fn close(&self, grace: Duration) -> ShutdownReport {
        if self.driver.is_closed() {
            return ShutdownReport::default();
        }
        let grace_ns = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
        let report = current::enter(&self.tasks, std::ptr::from_ref(self).cast(), || {
            for job in self.jobs.close() {
                contained(|| drop(job));
            }
            let tasks_cancelled = self.tasks.live();
            contained(|| self.tasks.cancel_all());
            self.timers.close();
            let deadline = self.kernel.now_ns().saturating_add(grace_ns);
            let ops_leaked = self.driver.drain_and_close(deadline);
            // Destructors of wakers and of what ops held may have made tasks.
            contained(|| self.tasks.end_spawned());
            ShutdownReport { tasks_cancelled, ops_leaked }
        });
        // In this order: nobody writes to the eventfd once its number is withdrawn.
        self.tasks.lease().close();
        self.driver.close_wake();
        self.metrics.add(Kind::OpsLeaked, u64::from(report.ops_leaked));
        report
    }
}
