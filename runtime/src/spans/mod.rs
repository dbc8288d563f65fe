//! What is told with `tracing` of tasks beyond their spans: wakes, and what each waits for (feature
//! `tracing`).
//!
//! Owns where that is told, for every layer that knows of it. Without the feature what stands here is empty,
//! and is no code. Knows a task by its core, slot and generation.

#[cfg(feature = "tracing")]
mod book;
#[cfg(feature = "tracing")]
mod site;
#[cfg(feature = "tracing")]
mod waits;

#[cfg(feature = "tracing")]
pub(crate) use book::{Entry, woken};
#[cfg(feature = "tracing")]
pub(crate) use site::{ended, known};
#[cfg(feature = "tracing")]
pub(crate) use waits::{Gathered, Open, pends};

/// What the future that is being polled waits for: a poll that ends pending says it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "nobody is told"))]
pub(crate) enum Wait {
    /// An operation that the kernel has, by the name of its system call.
    Op(&'static str),
    Timer,
    /// The end of another task.
    Task,
    /// Something of the loop's own, in words.
    Other(&'static str),
}

/// The task in this slot is about to be woken, whatever its generation if that is not known. Runs a
/// subscriber's code: nothing is borrowed or locked, and nothing half done.
#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn woken(_core: u32, _slot: u32, _generation: Option<u32>) {}

/// A future that is being polled waits for this. Runs nobody's code.
#[cfg(not(feature = "tracing"))]
#[inline(always)]
pub(crate) fn pends(_wait: impl FnOnce() -> Wait) {}
