//! Waiting for more than one thing, and for things in other ways than to their end.
//!
//! Owns the sets: races ([`race()`], [`select!`](crate::select)), all of several ([`gather()`],
//! [`try_gather()`]), one after the other as they end ([`as_completed()`]), a look at which have
//! ([`wait()`]), a scope that nothing leaves ([`group()`]). Owns also what stands between a waiter and a
//! task: a limit that waits for the task's end (`JoinHandle::timeout`), a shield ([`shield()`]), and a
//! future that somebody else completes ([`future()`]).
//!
//! All keep one rule: a cancel travels inwards through awaits, a drop lets go. A set that is dropped by a
//! cancel of whoever awaits it, by a limit or by a lost race cancels its tasks; dropped otherwise it lets
//! them run on. Knows no ring and no core: tasks, timers and wakers are enough.

mod as_completed;
mod future;
mod gather;
mod group;
mod limit;
mod race;
mod select;
mod shield;
mod slot;
mod try_gather;
mod tuple;
mod wait;
mod watched;

pub use as_completed::{AsCompleted, WaitError, as_completed};
pub use future::{Awaitable, CompleteError, Completer, FutureError, future};
pub use gather::{Gather, gather, gather_handles};
pub use group::{Child, ChildFailed, GroupError, GroupFailure, TaskGroup, group};
pub use limit::JoinTimeout;
pub use race::{Either, Race, race};
pub use shield::{Shield, Shieldable, shield};
pub use try_gather::{TaskFailure, TryGather, TryGatherError, try_gather, try_gather_handles};
pub use tuple::{GatherTuple, TryGatherTuple, TryTuple, Tuple, gather_tuple, try_gather_tuple};
pub use wait::{Waited, When, try_wait, wait};
