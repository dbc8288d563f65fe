//! A simulated kernel: the same loop over an in-memory world with virtual time and seeded faults.
//!
//! Owns what lies behind the seam of [`sys`](crate::sys) in a simulation: a [`World`](world::World) of
//! hosts, links and sockets, and one [`SimKernel`](kernel::SimKernel) per core. Invariants: everything that
//! happens is decided by one seeded source of numbers, so that the same seed gives the same trace; nothing
//! blocks; no user code runs while the world is borrowed. Descriptor numbers, addresses and real time decide
//! nothing. Knows nothing of ops' owners, tasks or loops: it sees submissions, as the kernel does.

mod buffers;
pub(crate) mod check;
mod clock;
mod enter;
pub(crate) mod faults;
pub(crate) mod files;
pub(crate) mod kernel;
mod memory;
pub(crate) mod net;
mod ops;
mod register;
mod ring;
pub(crate) mod rng;
mod shape;
mod state;
pub(crate) mod trace;
pub(crate) mod world;

#[cfg(test)]
mod loop_tests;

#[cfg(test)]
mod differential_tests;
