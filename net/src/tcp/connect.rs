//! Making connections.
//!
//! Owns the connect: a socket with the usual options, and the op. Its address lies in the op's slot; a
//! connect that is dropped is cancelled, and its socket closed when the kernel lets go.

use std::io;
use std::time::Duration;

use coreloop::op::{Connect, Submitter, submit};

use super::stream::TcpStream;
use crate::addr::ToAddr;

impl TcpStream {
    /// Connects to `addr`, with TCP_NODELAY set.
    ///
    /// The kernel gives up after some two minutes (`tcp_syn_retries`); see
    /// [`connect_timeout`](Self::connect_timeout).
    ///
    /// # Cancel safety
    /// Dropping it gives the attempt up; the socket is closed.
    ///
    /// # Errors
    /// As `socket(2)` and `connect(2)`; `InvalidInput` for text that is no literal address.
    ///
    /// # Panics
    /// Outside a running loop.
    pub async fn connect(addr: impl ToAddr) -> io::Result<Self> {
        let addr = addr.to_addr()?;
        let submitter = Submitter::current();
        let socket = submitter.stream_socket(&addr)?;
        socket2::SockRef::from(&socket).set_tcp_nodelay(true)?;
        let fd = submit(Connect::new(socket, addr)).await?;
        Ok(Self::from_fd(fd, &submitter))
    }

    /// As [`connect`](Self::connect), for at most `limit`.
    ///
    /// # Errors
    /// `TimedOut` after `limit`; else as [`connect`](Self::connect).
    pub async fn connect_timeout(addr: impl ToAddr, limit: Duration) -> io::Result<Self> {
        coreloop::time::timeout(limit, Self::connect(addr)).await?
    }
}
