//! Locks of what no model is about: those of `std`, and with `--cfg tsan` those that ThreadSanitizer sees.
//!
//! Owns nothing: names. What threads share and loom is to see passes through [`shared`](super::shared).

#[cfg(not(tsan))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(tsan)]
pub(crate) use super::tsan::{Condvar, Mutex, MutexGuard};
