//! What the binaries `peer-<runtime>` share, so that each has only the runtime's own code.
//!
//! A binary fills in a [`Peer`] and calls [`main`]. Command line, pinning, listener, JSON and exit
//! codes are here, and the plain parts of the workloads in [`work`]: what is timed, how much is
//! warmed up and how the figures are made of it is thereby the same for every runtime.
//!
//! Knows no runtime. Allocations go through [`memory`]'s allocator in every binary.

mod cli;
mod figures;
pub mod measure;
pub mod memory;
pub mod net;
pub mod process;
pub mod testing;
pub mod work;

pub use cli::main;
pub use figures::Figures;

/// Why a server or a workload ended without a result: told on stderr, exit code 3.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A runtime as the harness sees it.
pub struct Peer {
    /// The name in the results; the crate of this name is the runtime.
    pub runtime: &'static str,
    /// The runtime's version, as the lock file has it (the tests compare).
    pub version: &'static str,
    /// Ways of configuring the runtime.
    pub variants: &'static [&'static str],
    /// Whether it is built on io_uring.
    pub ring: bool,
    /// Those of the variants that spin instead of sleeping.
    pub spins: &'static [&'static str],
    /// The echo server; it returns only if it fails.
    pub echo: fn(&Echo) -> Result<(), Failure>,
    /// The workloads that it can do.
    pub workloads: &'static [Workload],
    /// The workloads that it can't do, with the reason; `echo` too, if it has no server.
    pub unsupported: &'static [(&'static str, &'static str)],
}

/// A workload by its name in the protocol.
pub struct Workload {
    /// One of [`work::NAMES`].
    pub name: &'static str,
    /// Runs one round, on a runtime of its own.
    pub run: fn(&Work) -> Result<Figures, Failure>,
}

/// What an echo server is told. The process is pinned to its core already.
pub struct Echo {
    /// One of the peer's variants.
    pub variant: String,
    /// Where to listen.
    pub addr: std::net::SocketAddr,
    /// The core that the whole process is pinned to.
    pub core: usize,
    /// The receive buffer of a connection: 4,096 bytes or the largest request.
    pub buffer_size: usize,
    /// How many connections there will be, if it has to be known.
    pub connections: usize,
}

/// What a workload is told. The calling thread is pinned to the first core already.
pub struct Work {
    /// One of the peer's variants.
    pub variant: String,
    /// The core that the calling thread is pinned to, and threads that it starts.
    pub core: usize,
    /// The core of the other runtime, where there are two.
    pub second_core: usize,
    /// How many operations to time.
    pub count: u64,
}
