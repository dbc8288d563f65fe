//! Cores that talk to each other.
//!
//! Owns [`channel`], values from one core to one other, with a bound; and [`Sharded`], a value for each core,
//! used where it lives. Closures and futures go to a core by
//! its [`Handle`](crate::Handle); everything in here is built on that and on the queues of `mailbox`.
//!
//! What crosses is `Send`, what stays on a core need not be. An end of a channel may be moved to where it is
//! used, and is then used by that one task. A core that runs, or spins, sees what comes for it without a
//! system call on either side; one that sleeps is woken.

mod channel;
mod sharded;
mod waiting;

pub use crate::sync::mpsc::SendError;
pub use channel::{Receiver, Receiving, Sender, Sending, TryRecvError, TrySendError, channel};
pub use sharded::{Local, ShardError, Sharded};
