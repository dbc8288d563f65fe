//! Raw system calls and the kernel's own layouts.
//!
//! Owns the numbers and structures of `io_uring(7)` ([`abi`]), the seam through which the loop
//! talks to the system ([`kernel`]), its one real implementation ([`linux`]), where threads beside
//! a loop run ([`threads`]), what signal handlers do ([`signals`], [`sample`]), descriptors that
//! cross processes ([`descriptors`]) and the sockets that they cross by ([`local`]), what forked
//! children see of rings ([`forked`]) and have of their own ([`per_process`]), where std's clock
//! stands ([`std_clock`]), memory for what never moves ([`segment`]), huge pages ([`huge`]), and what
//! threads share memory by ([`shared`], [`locks`]). Knows nothing of ops, tasks or cores: everything
//! here could be replaced by a simulated kernel without the layers above noticing.

pub(crate) mod abi;
pub(crate) mod descriptors;
mod forked;
pub(crate) mod huge;
pub(crate) mod kernel;
pub(crate) mod linux;
pub(crate) mod local;
pub(crate) mod locks;
#[cfg(loom)]
pub(crate) mod model;
#[cfg(loom)]
pub(crate) mod modelled;
pub(crate) mod per_process;
pub(crate) mod prefetch;
pub(crate) mod sample;
pub(crate) mod segment;
pub(crate) mod shared;
pub(crate) mod signals;
mod std_clock;
pub(crate) mod steering;
pub(crate) mod threads;
#[cfg(tsan)]
pub(crate) mod tsan;

pub(crate) use forked::forks;
pub(crate) use kernel::{Kernel, RingMemory, WaitArg};
