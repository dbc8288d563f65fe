//! Instants, sleeps, intervals and time limits.
//!
//! Owns the futures over the core's timer wheel. A deadline is made with a fresh reading of
//! CLOCK_MONOTONIC, so changes of the wall clock have no effect; nothing fires early, and by default at
//! most 1 ms (the wheel's resolution) late, plus what the core is busy with.

mod instant;
mod interval;
mod sleep;
mod timed;
mod timeout;

pub use instant::Instant;
pub use interval::{Interval, MissedTicks, interval, interval_at};
pub use sleep::{Sleep, sleep, sleep_until};
pub use timed::{Ended, Timed, Timing, TimingSink, timed, try_timed};
pub use timeout::{Elapsed, Timeout, timeout, timeout_at};
