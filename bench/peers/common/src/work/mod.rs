//! The plain parts of the workloads: loops, clocks and checks, generic over what a runtime does.
//!
//! A runtime passes its own spawn, yield, sleep and channel as closures, which are compiled into
//! the loops. Each function warms up with a tenth of the work first, untimed, except where memory
//! is weighed or deadlines are kept.

mod cross;
mod memory;
mod tasks;
mod timers;

pub use cross::{Arrivals, RoundTrips, one_way_numbers};
pub use memory::{Idle, idle_tasks};
pub use tasks::{Local, Shared, Tally, WakeSelf, spawn_batch, spawn_each, yields};
pub use timers::{Sleeper, sleeps, timers};

/// A workload has to end within this.
pub const SECONDS_MAX: u32 = 30;

/// All workloads in process.
pub const NAMES: [&str; 10] = [
    "spawn-batch",
    "spawn-each",
    "spawn-eager",
    "yield",
    "timers-ordered",
    "timers-random",
    "sleeps",
    "idle-tasks",
    "cross-round-trip",
    "cross-one-way",
];

/// For the list of what a runtime does not have, where no task is polled before its turn.
pub const NOT_EAGER: (&str, &str) =
    ("spawn-eager", "the first poll of a task is the loop's, not that of whoever spawns it");

/// How many operations a workload times unless told otherwise.
pub fn default_count(name: &str) -> u64 {
    match name {
        "spawn-each" | "spawn-eager" => 300_000,
        "sleeps" | "idle-tasks" | "cross-round-trip" => 100_000,
        "cross-one-way" => 5_000_000,
        _ => 1_000_000,
    }
}
