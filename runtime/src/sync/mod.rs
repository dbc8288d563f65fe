//! Locks, events, queues and channels between tasks of one core.
//!
//! Owns what tasks wait for each other with. Everything here is for one core: nothing is `Send`,
//! nothing is atomic, and what is not contended allocates nothing (what a channel or queue holds
//! apart).
//!
//! What all of them have in common:
//! - **Fair**: who asked first is served first, also against somebody who asks while it is served.
//! - **Right when a waiter is dropped**, at any moment: a permit, lock, item or notification that it
//!   had been handed and did not take goes to the next one.
//! - **Handed over, not raced for**: who is woken has what it waited for.
//! - **Any waker will do**: a future may be polled with another one each time, and no cell is borrowed
//!   while a waker or a destructor of the user's runs. A waker that panics when called does not keep
//!   others from being woken; its panic is contained.
//! - **Forgetting is sound**: a future or guard given to `mem::forget` keeps what it has or is handed,
//!   and whoever waits for that waits for good.
//!
//! In layers: `wait_list` is the pure order of waiters, `wait_room` lets it be used from anywhere,
//! `gate` counts permits; the primitives stand on these. Knows no driver and no timer: limits are put
//! around with [`timeout`](crate::time::timeout).

mod barrier;
pub mod broadcast;
mod condition;
mod event;
mod gate;
pub mod mpsc;
mod mutex;
mod once_cell;
pub mod oneshot;
mod queue;
mod rw_lock;
mod semaphore;
mod send_error;
mod store;
mod wait_list;
mod wait_room;
pub mod watch;

pub use barrier::{Barrier, BarrierWaitResult, BrokenBarrier};
pub use condition::Condition;
pub use event::Event;
pub use mutex::{Mutex, MutexGuard, TryLockError};
pub use once_cell::OnceCell;
pub use queue::{GetError, LifoQueue, PriorityQueue, PutError, Queue, TryGetError, TryPutError};
pub use rw_lock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{
    AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TooManyPermits, TryAcquireError,
};
pub use store::{Fifo, Lifo, Priority, Store};

// For the tokens of `cancel`, which wait in the same way.
pub(crate) use wait_list::Key as WaitKey;
pub(crate) use wait_room::WaitRoom;
