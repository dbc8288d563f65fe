//! Sockets for the `coreloop` runtime.
//!
//! [`TcpListener`] and [`TcpStream`] stay on the core on which they were made; a [`DetachedStream`] is a
//! connection on its way to another one. Every operation can be called off by a token or a deadline and then
//! gives its buffer back: see [`coreloop::cancel::Interruptible`]. Built on the public API of `coreloop`
//! alone.
//!
//! [`spread`] is how connections come to be served by several cores, [`handover`] how a process lets its
//! successor have its listeners.

pub mod handover;
#[cfg(feature = "ops")]
pub mod ops;
pub mod spread;
pub mod tcp;

mod addr;
mod locks;
mod sock;

pub use addr::ToAddr;
pub use tcp::{
    DetachedStream, ListenOptions, ReadHalf, ReuniteError, TcpListener, TcpStream, TornWrite,
    WriteHalf,
};
