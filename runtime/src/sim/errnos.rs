//! Which errors the calls may answer with.
//!
//! Owns the table: for each [`Call`] those errnos of its manual page that can happen to the arguments that
//! this library passes. [`Call::errnos`] are drawn from the seed, all of them, each as often as the others;
//! [`Call::own_errnos`] come about by what simulated machines do, such as a connection that its peer reset.
//! Left out is what only a wrong argument brings (EBADF, EFAULT, EINVAL, ENOTSOCK), what a ring never
//! answers because it waits instead (EINPROGRESS; EAGAIN but of a connect, where it is want of local ports),
//! EINTR of calls that never wait,
//! what belongs to other families of sockets, and the one after which no loop can go on: EBADR, completions
//! that the kernel has lost. Setting SO_LINGER has no error left then, and so is not in the table.
//!
//! Nor are calls that this library makes beside the seam, on descriptors and memory that are real here too:
//! - write(2) and read(2) of an eventfd of a loop's own, 8 bytes and non-blocking. EAGAIN alone can happen,
//!   of a count that is full or empty, and means that what was to be done has been done.
//! - close(2), which on Linux lets go of the descriptor whatever it answers; std's `OwnedFd` looks at none.
//! - setsockopt(2) and getsockopt(2) of options of TCP and SOL_SOCKET, on a socket that is open: beyond wrong
//!   arguments their pages list ENOPROTOOPT, of an option that this kernel does not know.
//! - mmap(2) and its like, when a loop is set up: the simulated set-up hands out memory itself, and its
//!   ENOMEM is that of [`Call::Setup`] and [`Call::Register`]; what the pool of buffers maps is real.
//!
//! Knows nothing of when they are drawn; see `State::draw_error`.

use std::fmt;

/// A call, or an operation of a ring, with errors of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Call {
    /// Accepting: an operation.
    Accept,
    /// Connecting: an operation.
    Connect,
    /// Receiving: an operation, `IORING_OP_RECV` or `IORING_OP_READ`.
    Receive,
    /// Sending: an operation, `IORING_OP_SEND`, `IORING_OP_SENDMSG` or `IORING_OP_WRITE`, and a plain call.
    Send,
    /// Ending one direction: an operation, and a plain call.
    Shutdown,
    /// Waiting for readiness: an operation.
    Poll,
    /// Reading the count of an eventfd, by which cores wake each other: an operation.
    ReadEvent,
    /// Making a socket.
    Socket,
    /// Giving it an address.
    Bind,
    /// Having it listen.
    Listen,
    /// Attaching the program that chooses among those that share its port.
    Steer,
    /// Asking for its own address.
    LocalAddr,
    /// Asking for the peer's.
    PeerAddr,
    /// A second descriptor.
    Duplicate,
    /// Connecting a Unix socket, once it is made.
    ConnectLocal,
    /// Giving one a path.
    BindLocal,
    /// Accepting on one, without waiting.
    AcceptLocal,
    /// Removing its path.
    Unlink,
    /// Sending a message with descriptors, without waiting.
    SendMessage,
    /// Receiving one, without waiting.
    ReceiveMessage,
    /// Making an eventfd, when a loop starts.
    EventFd,
    /// Making a ring, when a loop starts.
    Setup,
    /// Making known what a ring is to use, when a loop starts.
    Register,
    /// Submitting and waiting.
    Enter,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Accept,
        Self::Connect,
        Self::Receive,
        Self::Send,
        Self::Shutdown,
        Self::Poll,
        Self::ReadEvent,
        Self::Socket,
        Self::Bind,
        Self::Listen,
        Self::Steer,
        Self::LocalAddr,
        Self::PeerAddr,
        Self::Duplicate,
        Self::ConnectLocal,
        Self::BindLocal,
        Self::AcceptLocal,
        Self::Unlink,
        Self::SendMessage,
        Self::ReceiveMessage,
        Self::EventFd,
        Self::Setup,
        Self::Register,
        Self::Enter,
    ];

    /// The manual pages that list the errors.
    pub fn pages(self) -> &'static str {
        match self {
            Self::Accept => "accept(2)",
            Self::Connect => "connect(2), ip(7)",
            Self::Receive => "recv(2), tcp(7), ip(7)",
            Self::Send => "send(2), tcp(7), ip(7)",
            Self::Shutdown => "shutdown(2)",
            Self::Poll => "poll(2)",
            Self::ReadEvent => "read(2)",
            Self::Socket => "socket(2)",
            Self::Bind => "bind(2)",
            Self::Listen => "listen(2)",
            Self::Steer => "setsockopt(2), bpf(2)",
            Self::LocalAddr => "getsockname(2)",
            Self::PeerAddr => "getpeername(2)",
            Self::Duplicate => "fcntl(2)",
            Self::ConnectLocal => "connect(2), unix(7)",
            Self::BindLocal => "bind(2)",
            Self::AcceptLocal => "accept(2)",
            Self::Unlink => "unlink(2)",
            Self::SendMessage => "sendmsg(2), unix(7)",
            Self::ReceiveMessage => "recvmsg(2), unix(7)",
            Self::EventFd => "eventfd(2)",
            Self::Setup => "io_uring_setup(2)",
            Self::Register => "io_uring_register(2)",
            Self::Enter => "io_uring_enter(2)",
        }
    }

    /// Errnos that are drawn from the seed.
    pub fn errnos(self) -> &'static [i32] {
        match self {
            Self::Accept => &[
                libc::ECONNABORTED,
                libc::EINTR,
                libc::EMFILE,
                libc::ENFILE,
                libc::ENOBUFS,
                libc::ENOMEM,
                libc::EPERM,
                // Errors of the new connection, which Linux passes on.
                libc::ENETDOWN,
                libc::EPROTO,
                libc::ENOPROTOOPT,
                libc::EHOSTDOWN,
                libc::ENONET,
                libc::EHOSTUNREACH,
                libc::EOPNOTSUPP,
                libc::ENETUNREACH,
                // "Various Linux kernels can return other errors such as".
                libc::ENOSR,
                libc::ESOCKTNOSUPPORT,
                libc::EPROTONOSUPPORT,
                libc::ETIMEDOUT,
            ],
            Self::Connect => &[
                libc::EACCES,
                libc::EPERM,
                libc::EADDRINUSE,
                libc::EADDRNOTAVAIL,
                // "No more free local ports or insufficient entries in the routing cache".
                libc::EAGAIN,
                libc::ECONNREFUSED,
                libc::EINTR,
                libc::ENETUNREACH,
                libc::ETIMEDOUT,
                libc::EHOSTUNREACH,
                libc::ENOBUFS,
                libc::ENOMEM,
            ],
            Self::Receive => &[
                libc::EINTR,
                libc::ENOMEM,
                libc::ECONNREFUSED,
                libc::ECONNRESET,
                libc::ETIMEDOUT,
                libc::EHOSTUNREACH,
                libc::ENETUNREACH,
            ],
            Self::Send => &[
                libc::EINTR,
                libc::ENOMEM,
                libc::ENOBUFS,
                libc::EPIPE,
                libc::ECONNRESET,
                libc::ETIMEDOUT,
                libc::EHOSTUNREACH,
                libc::ENETUNREACH,
            ],
            Self::Shutdown => &[libc::ENOTCONN],
            Self::Poll => &[libc::EINTR, libc::ENOMEM],
            Self::ReadEvent => &[libc::EINTR],
            Self::Socket => &[
                libc::EACCES,
                libc::EAFNOSUPPORT,
                libc::EMFILE,
                libc::ENFILE,
                libc::ENOBUFS,
                libc::ENOMEM,
                libc::EPROTONOSUPPORT,
            ],
            Self::Bind => &[libc::EACCES, libc::EADDRINUSE, libc::EADDRNOTAVAIL],
            Self::Listen => &[libc::EADDRINUSE],
            // Memory for the program, within `net.core.optmem_max`; a socket whose filters are locked.
            Self::Steer => &[libc::ENOMEM, libc::EPERM],
            Self::LocalAddr => &[libc::ENOBUFS],
            Self::PeerAddr => &[libc::ENOBUFS, libc::ENOTCONN],
            Self::Duplicate => &[libc::EMFILE],
            Self::ConnectLocal => &[libc::EACCES, libc::EPERM, libc::ENOMEM],
            Self::BindLocal => &[libc::EACCES, libc::ENOMEM, libc::EROFS],
            Self::AcceptLocal => &[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM],
            Self::Unlink => &[libc::EACCES, libc::EBUSY, libc::EIO, libc::ENOMEM, libc::EROFS],
            // The last: more descriptors on their way than this process may have open.
            Self::SendMessage => &[libc::ENOMEM, libc::ENOBUFS, libc::ETOOMANYREFS],
            // The last: of descriptors that came and could not be had, which is the end of that message.
            Self::ReceiveMessage => &[libc::ENOMEM, libc::EMFILE],
            Self::EventFd => &[libc::EMFILE, libc::ENFILE, libc::ENODEV, libc::ENOMEM],
            Self::Setup => &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EPERM],
            Self::Register => &[libc::ENOMEM],
            Self::Enter => &[libc::EAGAIN, libc::EBUSY, libc::ENOMEM, libc::EINTR],
        }
    }

    /// Errnos that come about without being drawn.
    pub fn own_errnos(self) -> &'static [i32] {
        match self {
            Self::Connect => &[
                libc::ECONNREFUSED,
                libc::ETIMEDOUT,
                libc::ECONNRESET,
                libc::EADDRNOTAVAIL,
                libc::ENETUNREACH,
            ],
            Self::Receive => &[libc::ECONNRESET, libc::ETIMEDOUT, libc::ENOTCONN],
            Self::Send => &[libc::ECONNRESET, libc::EPIPE, libc::ETIMEDOUT, libc::ENOTCONN],
            Self::Shutdown | Self::PeerAddr => &[libc::ENOTCONN],
            Self::Bind | Self::Listen | Self::BindLocal => &[libc::EADDRINUSE],
            Self::ConnectLocal => &[libc::EAGAIN, libc::ECONNREFUSED, libc::ENOENT],
            Self::AcceptLocal => &[libc::EAGAIN],
            Self::Unlink => &[libc::ENOENT],
            Self::SendMessage => &[libc::EAGAIN, libc::ECONNRESET, libc::EPIPE],
            Self::ReceiveMessage => &[libc::EAGAIN, libc::ECONNRESET],
            _ => &[],
        }
    }

    /// Whether an error of this kind leaves the connection as it is; all others of a receive or a send are
    /// the connection's own, and end it.
    pub(super) fn leaves_connection(errno: i32) -> bool {
        matches!(errno, libc::EINTR | libc::ENOMEM | libc::ENOBUFS)
    }

    /// Whether an accept's error says something of the call and nothing of the connection, which stays in
    /// the queue; with any other it is gone.
    pub(super) fn leaves_queue(errno: i32) -> bool {
        matches!(errno, libc::EINTR | libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pages())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sim_errnos_are_listed_once_and_none_is_of_a_wrong_argument() {
        let wrong = [libc::EBADF, libc::EFAULT, libc::EINVAL, libc::ENOTSOCK, libc::ECANCELED];
        for call in Call::ALL {
            let errnos = call.errnos();
            assert_eq!(errnos.iter().collect::<BTreeSet<_>>().len(), errnos.len(), "{call:?}");
            assert!(!errnos.is_empty(), "{call:?}");
            let has_no_wait = [Call::Connect, Call::Enter].contains(&call);
            assert!(has_no_wait || !errnos.contains(&libc::EAGAIN), "{call:?} waits instead");
            for errno in errnos.iter().chain(call.own_errnos()) {
                assert!(!wrong.contains(errno), "{call:?}: {errno}");
            }
        }
    }

    #[test]
    fn sim_errnos_of_a_receive_are_its_own() {
        for errnos in [Call::Receive.errnos(), Call::Receive.own_errnos()] {
            assert!(!errnos.contains(&libc::EPIPE), "EPIPE is an answer to who sends");
        }
        assert!(Call::Send.own_errnos().contains(&libc::EPIPE));
    }
}
