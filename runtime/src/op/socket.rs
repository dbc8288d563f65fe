//! Making sockets, and what is asked of them without a submission.
//!
//! Owns the plain calls that go through the seam like every submission does, so that sockets and the ops on
//! them are the same kernel's: Linux's or a simulated one's. All of these answer at once and none blocks.
//! Plain options (TCP_NODELAY, SO_KEEPALIVE and the like) are set on the descriptor itself.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::Submitter;

impl Submitter {
    /// A close-on-exec TCP socket of the family of `addr`, neither bound nor connected.
    ///
    /// # Errors
    /// As `socket(2)`.
    ///
    /// ```
    /// use coreloop::op::{Connect, Submitter, submit};
    ///
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    /// let addr = listener.local_addr().unwrap();
    /// coreloop::run(async move {
    ///     let submitter = Submitter::current();
    ///     let socket = submitter.stream_socket(&addr).unwrap();
    ///     let socket = submit(Connect::new(socket, addr)).await.unwrap();
    ///     assert_eq!(submitter.peer_addr(&socket).unwrap(), addr);
    /// })
    /// .unwrap();
    /// ```
    pub fn stream_socket(&self, addr: &SocketAddr) -> io::Result<OwnedFd> {
        let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        self.driver.kernel().stream_socket(family)
    }

    /// Gives a socket its own address; port 0 has the kernel choose one.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub fn bind(&self, socket: impl AsFd, addr: &SocketAddr) -> io::Result<()> {
        self.driver.kernel().bind(socket.as_fd(), addr)
    }

    /// Makes a bound socket take connections, of which the kernel may hold `backlog`.
    ///
    /// # Errors
    /// As `listen(2)`.
    pub fn listen(&self, socket: impl AsFd, backlog: i32) -> io::Result<()> {
        self.driver.kernel().listen(socket.as_fd(), backlog)
    }

    /// Has the CPU that a connection arrives on choose who takes it, among the listeners that share the
    /// socket's port: as [`fds::steer_by_cpu`](crate::fds::steer_by_cpu), which says how, on the kernel that
    /// this loop runs on. In a simulation a connection arrives on the CPU `client's port % 16`.
    ///
    /// # Errors
    /// As [`fds::steer_by_cpu`](crate::fds::steer_by_cpu).
    pub fn steer_by_cpu(&self, socket: impl AsFd, table: &[(usize, u32)]) -> io::Result<()> {
        self.driver.kernel().steer(socket.as_fd(), table)
    }

    /// A socket's own address.
    ///
    /// # Errors
    /// As `getsockname(2)`; `InvalidData` for an address that is neither IPv4 nor IPv6.
    pub fn local_addr(&self, socket: impl AsFd) -> io::Result<SocketAddr> {
        self.driver.kernel().local_addr(socket.as_fd())
    }

    /// The address of a connection's far end.
    ///
    /// # Errors
    /// As `getpeername(2)`; `InvalidData` for an address that is neither IPv4 nor IPv6.
    pub fn peer_addr(&self, socket: impl AsFd) -> io::Result<SocketAddr> {
        self.driver.kernel().peer_addr(socket.as_fd())
    }

    /// Ends one or both directions of a connection at once, whatever is in flight.
    ///
    /// # Errors
    /// As `shutdown(2)`.
    pub fn shutdown(&self, socket: impl AsFd, how: Shutdown) -> io::Result<()> {
        self.driver.kernel().shutdown(socket.as_fd(), how)
    }

    /// Whether a socket listens: SO_ACCEPTCONN, which a simulated kernel alone knows of its own.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn is_listener(&self, socket: impl AsFd) -> io::Result<bool> {
        self.driver.kernel().is_listener(socket.as_fd())
    }

    /// SO_LINGER: what a close does with data not yet sent. Zero resets the connection; any other time is
    /// rounded up to seconds, for which the close, and its core with it, waits at most.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_linger(&self, socket: impl AsFd, linger: Option<Duration>) -> io::Result<()> {
        // The option has whole seconds, and less than one is no reset.
        let seconds = |d: Duration| d.as_secs().saturating_add(u64::from(d.subsec_nanos() > 0));
        let linger = linger.map(|d| Duration::from_secs(seconds(d).min(i32::MAX as u64)));
        self.driver.kernel().set_linger(socket.as_fd(), linger)
    }
}
