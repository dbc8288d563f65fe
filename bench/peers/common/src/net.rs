//! The listener of every peer.
//!
//! Options are set before it listens: accepted sockets inherit them, so that no runtime pays
//! system calls for them on accepting, and all have the same.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Long enough for a thousand connections that come at once.
const LISTEN_BACKLOG: i32 = 4096;

/// Not BBR, which is the default on some systems and paces.
const CONGESTION: &[u8] = b"reno";

/// A listening socket without TCP's delays, in blocking mode. Tells its address on stderr, which
/// is the sign for the harness: connections wait in the backlog until the runtime accepts.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_congestion(CONGESTION)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    let listener = TcpListener::from(socket);
    eprintln!("listening on {}", listener.local_addr()?);
    Ok(listener)
}
