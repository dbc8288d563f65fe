//! How other threads reach a core.
//!
//! Owns the process-global table of core cells ([`cell`]), the wake bits in them ([`wake_map`]) and
//! the bounded queue of closures ([`queue`]), and which cores belong together ([`peers`]). A wake
//! can neither fail nor wait; a closure can be refused. Values go through a queue from one thread to
//! one other ([`ring`]), whose ends wait ([`waiter`]) and are watched for by their cores ([`watch`]),
//! which also send what their tasks put there ([`unsent`]).
//! Knows slots by number only, and nothing of tasks.

pub(crate) mod cell;
pub(crate) mod peers;
pub(crate) mod queue;
pub(crate) mod ring;
pub(crate) mod unsent;
pub(crate) mod waiter;
pub(crate) mod wake_map;
pub(crate) mod watch;

#[cfg(all(test, loom))]
mod park_loom_tests;
#[cfg(all(test, loom))]
mod ring_loom_tests;
