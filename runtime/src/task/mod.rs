//! Tasks of one core: where they live, who may wake them, who waits for them.
//!
//! Owns the slot table (`table`) and run queue (`line`), the task queues (`queues`), the size-classed memory
//! (`blocks`), one task's life (`cell`), the handles to it (`join`, `call`), who waits for its end
//! (`joiner`), sets of tasks that are waited for together (`set`), what can be told of a task (`info`,
//! `report`), the values that travel with one (`local`) and its span (`traced`). A task is named by its slot
//! and generation; a waker is that name and the core's id in one word (`waker`), without a reference count.
//! Invariants:
//! - a slot is reused only when its task has ended *and* its join handle is gone;
//! - the generation moves on before a future is dropped, so its destructor can't wake its successor;
//! - a slot is in the run queue at most once, so the queue is bounded by the table;
//! - nothing of this is borrowed while a future is polled or dropped.
//!
//! Knows no ring, no timer and no other core.

pub(crate) mod blocks;
mod call;
pub(crate) mod cell;
pub(crate) mod current;
pub(crate) mod info;
pub(crate) mod join;
mod joiner;
mod line;
pub(crate) mod local;
pub(crate) mod queues;
pub(crate) mod report;
pub(crate) mod set;
pub(crate) mod table;
#[cfg(feature = "tracing")]
pub(crate) mod traced;
pub(crate) mod waker;

use std::sync::Arc;

pub use call::Call;
pub use info::{TaskInfo, TaskState, WaitsFor};
pub(crate) use join::Canceller;
pub use join::{JoinError, JoinHandle};
pub use local::{Inherit, NotSet, Scope, TaskLocal, inherit};
pub use report::Report;
pub(crate) use set::Set;
pub(crate) use table::{Tasks, Whose};
pub use waker::TaskId;
pub(crate) use waker::Word;

/// Id of the task that is being polled; none outside a loop. The main future has one too.
pub fn current_id() -> Option<TaskId> {
    current::with_tasks(Tasks::running_id)
}

/// Name of the task that is being polled, if it has one.
pub fn current_name() -> Option<Arc<str>> {
    current::with_tasks(Tasks::running_name).flatten()
}
