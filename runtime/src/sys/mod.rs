//! Raw system calls and the kernel's own layouts.
//!
//! Owns the numbers and structures of `io_uring(7)` ([`abi`]), the seam through which the loop talks to
//! the system ([`kernel`]), its one real implementation ([`linux`]), where threads beside a loop run
//! ([`threads`]), what signal handlers do ([`signals`], [`sample`]), and descriptors that cross processes
//! ([`descriptors`]). Knows nothing of ops, tasks or cores: everything here could be replaced by a simulated
//! kernel without the layers above noticing.

pub(crate) mod abi;
pub(crate) mod descriptors;
pub(crate) mod kernel;
pub(crate) mod linux;
pub(crate) mod prefetch;
pub(crate) mod sample;
pub(crate) mod signals;
pub(crate) mod threads;

pub(crate) use kernel::{Kernel, RingMemory, WaitArg};
