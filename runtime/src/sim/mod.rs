//! Servers and clients on simulated machines, in one thread, decided by one seed.
//!
//! [`Sim`] runs programs unchanged: add them with [`Sim::host`] and [`Sim::client`], and let [`Sim::run`]
//! judge, or [`check`](fn@check) for many seeds. Time is that of [`coreloop::time`](crate::time) and jumps to
//! what is due next; sockets are those of `coreloop-net`. The guide is `docs/guide/simulation.md`. Only with
//! the feature `sim`.
//!
//! ```
//! use coreloop::sim::Sim;
//! use std::time::Duration;
//!
//! let sim = Sim::builder().seed(7).build();
//! sim.host("server", 2, |core| async move {
//!     let other = (core.index() + 1) % core.count();
//!     let answer = core.handle().spawn_on(other, || async { 42 }).unwrap();
//!     assert_eq!(answer.await.unwrap(), 42);
//!     coreloop::time::sleep(Duration::MAX).await;
//! });
//! sim.client("client", || coreloop::time::sleep(Duration::from_secs(3600)));
//! assert!(sim.run().unwrap().elapsed >= Duration::from_secs(3600));
//! ```
//!
//! # Inside
//!
//! Two halves. The upper one (`builder`, `control`, `hosts`, `cores`, `panics`, `run`, `report`,
//! `seeds`) steps real loops; it knows cores, and of the lower one only `World` and `SimKernel`. The
//! lower one, all the rest, is a kernel behind the seam of `sys`: a world of hosts, links and sockets
//! in memory, and one kernel per core, with virtual time and seeded faults. It knows nothing of ops'
//! owners, tasks or loops: it sees submissions, as the kernel does. Invariants of both: everything that
//! happens is decided by one seeded source of numbers, so that the same seed gives the same trace;
//! nothing blocks; no user code runs while the world or the list of hosts is borrowed. Descriptor
//! numbers, addresses and real time decide nothing.

mod buffers;
pub(crate) mod check;
mod clock;
mod enter;
mod errnos;
pub(crate) mod faults;
pub(crate) mod files;
mod fixed;
pub(crate) mod kernel;
mod local_calls;
mod memory;
pub(crate) mod net;
mod ops;
mod quarantine;
mod register;
mod ring;
pub(crate) mod rng;
mod shape;
mod signals;
mod state;
pub(crate) mod trace;
pub(crate) mod world;

mod builder;
mod control;
mod cores;
mod hosts;
mod panics;
mod report;
mod run;
mod seeds;

pub use builder::{Builder, Faults};
pub use control::{Outcome, Process, Sim};
pub use errnos::Call;
pub use quarantine::Quarantine;
pub use report::{Failure, Report, SimError};
pub use seeds::check;

#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod local_tests;
#[cfg(test)]
mod loop_tests;
