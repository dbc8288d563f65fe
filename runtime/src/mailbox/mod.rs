//! How other threads reach a core.
//!
//! Owns the process-global table of core cells ([`cell`]), the wake bits in them ([`wake_map`]) and
//! the bounded queue of closures ([`queue`]), and which cores belong together ([`peers`]). A wake
//! can neither fail nor wait; a closure can be refused. Knows slots by number only, and nothing of
//! tasks.

pub(crate) mod cell;
pub(crate) mod peers;
pub(crate) mod queue;
pub(crate) mod wake_map;
