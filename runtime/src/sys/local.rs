//! Conversations between processes of one machine.
//!
//! Owns the making of Unix sockets that keep messages whole (SOCK_SEQPACKET, `unix(7)`): connected to a
//! path, listening at one, accepted. All are close-on-exec, and none of these waits in a call. What is said
//! over them lies in `descriptors`.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// A socket that is connected to the one that listens at `path`.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let addr = SockAddr::unix(path)?;
    let socket = new_socket()?;
    socket.connect(&addr)?;
    Ok(socket.into())
}

/// A socket that listens at `path`, which it makes.
pub(crate) fn listen(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let addr = SockAddr::unix(path)?;
    let socket = new_socket()?;
    socket.bind(&addr)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// The next that has connected; `WouldBlock` if none has.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let (socket, _) = SockRef::from(&listener).accept()?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Removes the name of a socket, and of nothing else.
pub(crate) fn unlink(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let why = format!("{} is something else than a socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    fs::remove_file(path)
}

fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
