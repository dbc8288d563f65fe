//! The locks of what cores share: those of `std`, and with `--cfg tsan` those that ThreadSanitizer sees.
//!
//! Owns nothing: names (`docs/TESTING.md`, "Sanitizers").

#[cfg(tsan)]
pub(crate) use coreloop::__tsan::{Mutex, MutexGuard};
#[cfg(not(tsan))]
pub(crate) use std::sync::{Mutex, MutexGuard};
