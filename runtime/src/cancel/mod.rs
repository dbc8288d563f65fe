//! Cancelling in good order: tokens, operations that listen to them, scopes with an awaited end.
//!
//! Owns the cooperative cancel. `JoinHandle::cancel` is the hard one: the task's future is dropped at its
//! next turn, and destructors can't wait. What is here asks first:
//! - a [`Token`] says that something is to end; whoever holds one can look at it or wait for it;
//! - an operation [listens](Interruptible) to a token or a deadline: its future *resolves*, and gives its
//!   buffer back with what had been transferred;
//! - [`Token::run`] has any future listen, by dropping it;
//! - [`scope()`] and [`JoinHandle::cancel_by`](crate::task::JoinHandle::cancel_by) give what was asked to end
//!   some grace, and cancel hard after it;
//! - [`with`] runs a closing step, with awaits, however its body ended.
//!
//! A task may finish in spite of a cooperative cancel, never in spite of a hard one.
//!
//! In layers: `children` is the pure list of a token's children, `token` adds who waits, everything else
//! stands on that. Invariant: nothing is borrowed while a waker or a destructor runs. Knows no socket and
//! no driver: how an operation is called off is the operation's own matter.
//!
//! ```
//! use coreloop::cancel::Token;
//! use coreloop::time::sleep;
//! use std::time::Duration;
//!
//! coreloop::run(async {
//!     let token = Token::new();
//!     let listening = token.child();
//!     let task = coreloop::spawn(async move {
//!         let ended = listening.run(sleep(Duration::from_secs(3600))).await;
//!         assert!(ended.is_err());
//!         sleep(Duration::from_millis(1)).await; // A goodbye, with an await.
//!         "in good order"
//!     });
//!     coreloop::yield_now().await;
//!     token.cancel();
//!     assert_eq!(task.await.unwrap(), "in good order");
//! })
//! .unwrap();
//! ```

mod children;
mod interrupt;
mod reason;
mod run;
mod scope;
mod token;
mod with;

pub use interrupt::{CancelOn, Interruptible, Until};
pub use reason::{Cancelled, Interrupted, Settle};
pub use run::Run;
pub use scope::{CancelBy, scope};
pub use token::{DropGuard, Token, WaitCancelled};
pub use with::{Closed, How, With, with};
