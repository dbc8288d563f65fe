//! Descriptors from and to other processes, and what they need besides.
//!
//! Owns the public face of four things: descriptors that the process was started with (`sd_listen_fds(3)`),
//! conversations between processes of one machine (Unix sockets of whole messages, SOCK_SEQPACKET),
//! descriptors in such messages, and which of the sockets that share a port takes a connection. The unsafe
//! half lies in `sys`. Nothing here waits or submits; wait for a socket with
//! [`PollOnce`](crate::op::PollOnce).
//!
//! Within a loop, calls go to the kernel that the loop runs on, which may be a simulated one; on any other
//! thread to the system's. A simulated one knows no file system: paths of its
//! Unix sockets are names of a host.
//!
//! ```
//! use coreloop::fds;
//!
//! # let path = std::env::temp_dir().join(format!("coreloop-doc-fds-{}", std::process::id()));
//! let listener = fds::listen_local(&path, 8).unwrap();
//! let theirs = fds::connect_local(&path).unwrap();
//! let ours = fds::accept_local(&listener).unwrap();
//! fds::send(&theirs, b"hello", &[]).unwrap();
//! let mut bytes = [0; 16];
//! assert_eq!(fds::recv(&ours, &mut bytes).unwrap().0, 5);
//! drop(listener);
//! assert!(fds::connect_local(&path).is_err()); // The path is left, and nobody is there.
//! fds::unlink_local(&path).unwrap();
//! ```

use std::env;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use crate::executor::context::with_kernel;
use crate::sys::descriptors;

/// Descriptors that one [`send`] may carry.
pub const PER_MESSAGE_MAX: usize = descriptors::PER_MESSAGE_MAX;

/// The descriptors that a service manager has started this process with, in their order, each with its name
/// (LISTEN_FDNAMES) or an empty one. None without LISTEN_FDS, if they were meant for another process
/// (LISTEN_PID), and from the second call on: whoever takes them owns them. They are close-on-exec
/// afterwards. The variables stay. They say nothing to a child that was forked, whose id is another; what
/// this process becomes by an exec in place has the same id, and none of the descriptors: remove the
/// variables before it, or it is refused here.
///
/// What came through an exec is not close-on-exec, and all that std and coreloop open is, so none of theirs
/// is taken, whatever the variables say. What a C library has opened without the flag looks as if it had
/// been handed in: call this before such a one is at work.
///
/// # Errors
/// `InvalidData` for variables that make no sense; EBADF if one of the descriptors is not open, or was not
/// handed in, since it is close-on-exec: none is taken then.
///
/// ```
/// // What systemd starts with `ListenStream=7000`, this example is not.
/// assert!(coreloop::fds::inherited().unwrap().is_empty());
/// ```
pub fn inherited() -> io::Result<Vec<(String, OwnedFd)>> {
    let variable = |name| env::var(name).ok();
    let (Some(count), Some(pid)) = (variable("LISTEN_FDS"), variable("LISTEN_PID")) else {
        return Ok(Vec::new());
    };
    let number = |text: &str| {
        let why = || io::Error::new(io::ErrorKind::InvalidData, format!("no number: {text:?}"));
        text.trim().parse::<u32>().map_err(|_| why())
    };
    if number(&pid)? != std::process::id() {
        return Ok(Vec::new());
    }
    let count = RawFd::try_from(number(&count)?).map_err(|_| io::ErrorKind::InvalidData)?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    Ok(names.zip(descriptors::take_inherited(count)?).collect())
}

/// A second descriptor of the same file, close-on-exec (F_DUPFD_CLOEXEC). The file stays open until both are
/// closed.
///
/// # Errors
/// As `fcntl(2)`.
pub fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    with_kernel(|kernel| kernel.duplicate(fd.as_fd()))
}

/// A socket that is connected to the one that listens at `path`. It does not wait: whoever listens may
/// accept later, and what is sent until then reaches it.
///
/// # Errors
/// As `socket(2)` and `connect(2)`: ENOENT if there is no such path, ECONNREFUSED if whoever listened there
/// has gone, `WouldBlock` if its queue is full. `InvalidInput` for a path that is too long (108 bytes).
pub fn connect_local(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    with_kernel(|kernel| kernel.connect_local(path.as_ref()))
}

/// A socket that listens at `path`, which must not exist; up to `backlog` may wait to be accepted, and one.
/// The path stays when the socket is closed: [`unlink_local`].
///
/// # Errors
/// As `socket(2)`, `bind(2)` and `listen(2)`: EADDRINUSE if there is such a path.
pub fn listen_local(path: impl AsRef<Path>, backlog: i32) -> io::Result<OwnedFd> {
    with_kernel(|kernel| kernel.listen_local(path.as_ref(), backlog))
}

/// The next that has connected to such a listener.
///
/// # Errors
/// As `accept4(2)`; `WouldBlock` if nobody has.
pub fn accept_local(listener: impl AsFd) -> io::Result<OwnedFd> {
    with_kernel(|kernel| kernel.accept_local(listener.as_fd()))
}

/// Removes the path of a socket, and of nothing else.
///
/// # Errors
/// As `unlink(2)`; `AlreadyExists` for something else than a socket, which stays.
pub fn unlink_local(path: impl AsRef<Path>) -> io::Result<()> {
    with_kernel(|kernel| kernel.unlink_local(path.as_ref()))
}

/// Ends one or both directions of a conversation. What was sent before can be received.
///
/// # Errors
/// As `shutdown(2)`.
pub fn shut_down(socket: impl AsFd, how: Shutdown) -> io::Result<()> {
    with_kernel(|kernel| kernel.shutdown(socket.as_fd(), how))
}

/// Sends one message of at least one byte with so many descriptors, at most [`PER_MESSAGE_MAX`], over a Unix
/// socket. The far end gets duplicates.
///
/// # Errors
/// As `sendmsg(2)`; `WouldBlock` instead of waiting. `WriteZero` if a stream had room for a part only,
/// which has gone with the descriptors: the conversation is of no use any more. Sockets of messages
/// (SEQPACKET) take all or nothing.
///
/// ```
/// use coreloop::fds;
/// use std::os::fd::AsFd;
/// use std::os::unix::net::UnixStream;
///
/// let (ours, theirs) = UnixStream::pair().unwrap();
/// fds::send(&ours, b"yours", &[ours.as_fd()]).unwrap();
/// let mut bytes = [0; 16];
/// let (n, came) = fds::recv(&theirs, &mut bytes).unwrap();
/// assert_eq!((&bytes[..n], came.len()), (&b"yours"[..], 1));
/// ```
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    with_kernel(|kernel| kernel.send_message(socket.as_fd(), bytes, fds))
}

/// Receives one message with its descriptors, which are close-on-exec. No bytes are the end.
///
/// # Errors
/// As `recvmsg(2)`; `WouldBlock` instead of waiting; `InvalidInput` if `bytes` has no room at all, with
/// nothing received; `InvalidData` for a message that does not fit, and EMFILE for one whose descriptors
/// this process may not have (RLIMIT_NOFILE): what came of it is closed.
pub fn recv(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    with_kernel(|kernel| kernel.recv_message(socket.as_fd(), bytes))
}

/// The process and the user at the far end of a connected Unix socket, at the time at which it connected.
///
/// # Errors
/// As `getsockopt(2)`.
pub fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let (pid, uid) = with_kernel(|kernel| kernel.credentials(socket.as_fd()))?;
    Ok(Peer { pid, uid })
}

/// Who is at the far end. See [`peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The process.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

impl Peer {
    /// Whether it acts as the same user as this process, or as root.
    pub fn is_trusted(&self) -> bool {
        self.uid == 0 || self.uid == descriptors::user()
    }
}

/// Has the CPU that a connection arrives on choose, among the listeners that share a port by SO_REUSEPORT,
/// the one that takes it (SO_ATTACH_REUSEPORT_CBPF): `table` says which position in their group a CPU's
/// connections go to. Connections of CPUs that are not in it are spread over the positions that are. The
/// order of `listen` calls makes the positions; when a listener closes, the last one moves into its place.
/// A position that there is not falls back to the kernel's own choice. An empty table takes the program away
/// again (SO_DETACH_REUSEPORT_BPF, Linux 5.3): the kernel's own hash chooses then.
///
/// The program belongs to the group: one call, on any of its sockets, replaces that of all.
///
/// # Errors
/// As `setsockopt(2)`; `InvalidInput` for more than 1,000 CPUs.
///
/// ```
/// let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// // Not one that shares its port.
/// assert!(coreloop::fds::steer_by_cpu(&listener, &[(0, 0)]).is_err());
/// ```
pub fn steer_by_cpu(socket: impl AsFd, table: &[(usize, u32)]) -> io::Result<()> {
    with_kernel(|kernel| kernel.steer(socket.as_fd(), table))
}
