//! Sockets of both ends, with the options that decide what is measured, and pinning.
//!
//! Options are set on the listener before it listens: accepted sockets inherit them, so that
//! accepting costs no further system calls.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Long enough for a thousand connections that come at once.
const LISTEN_BACKLOG: i32 = 4096;

/// A listening TCP socket.
pub fn listen(addr: SocketAddr, congestion: &str) -> io::Result<Socket> {
    let socket = new_socket(addr, congestion)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket)
}

/// Tells where a server listens, on stderr: stdout is for the report.
pub fn announce(listener: &Socket) -> io::Result<()> {
    let addr = listener.local_addr()?.as_socket();
    let addr = addr.ok_or_else(|| io::Error::other("not an internet address"))?;
    eprintln!("listening on {addr}");
    Ok(())
}

/// A connected TCP socket that resets when it is closed: a generator that is run over and over
/// would otherwise use up its ports in `TIME_WAIT`.
pub fn connect(addr: SocketAddr, congestion: &str) -> io::Result<Socket> {
    let socket = new_socket(addr, congestion)?;
    socket.set_linger(Some(std::time::Duration::ZERO))?;
    socket.connect(&addr.into())?;
    Ok(socket)
}

/// Pins the calling thread.
pub fn pin(core: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(io::Error::other(format!("cannot pin to core {core}")))
    }
}

fn new_socket(addr: SocketAddr, congestion: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_congestion(congestion.as_bytes()).map_err(|error| {
        io::Error::new(error.kind(), format!("congestion control {congestion}: {error}"))
    })?;
    Ok(socket)
}
