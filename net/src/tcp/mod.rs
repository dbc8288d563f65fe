//! TCP: listeners, streams, their halves.
//!
//! A stream's two directions share nothing but the descriptor, so splitting it costs nothing and needs no
//! lock. One receive and one send are in flight per socket; `&mut` keeps it so.

mod connect;
mod detach;
mod listener;
mod pace;
mod read;
mod stream;
mod write;

pub(crate) use pace::{Pace, Receive};

pub use connect::Connect;
pub use detach::{DetachedStream, Undelivered};
pub use listener::{Accept, AcceptDetached, ListenOptions, Stopped, TcpListener};
pub use read::{Read, ReadExact, ReadHalf, Recv};
pub use stream::{ReuniteError, TcpStream};
pub use write::{TornWrite, Write, WriteAll, WriteHalf, WriteMany};
