//! Waiting for more than one thing.
//!
//! Owns [`race()`]. The larger set of waiting tools builds on the same rule: what loses is dropped, and the
//! drop counts as a cancel.

mod race;

pub use race::{Either, Race, race};
