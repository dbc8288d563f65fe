//! A connection.
//!
//! Owns [`TcpStream`]: both halves together, and the options of the socket. Closing is by drop: the
//! descriptor closes when the last op that names it has ended, at the latest a turn later.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use coreloop::buf::{IoBuf, IoBufMut};
use coreloop::op::Submitter;

use super::detach::DetachedStream;
use super::read::{Read, ReadExact, ReadHalf, Recv};
use super::write::{TornWrite, Write, WriteAll, WriteHalf, WriteMany};
use crate::sock::Sock;

/// A TCP connection of one core. `!Send`: see [`detach`](Self::detach) for moving it to another.
///
/// Dropping it cancels what is in flight and closes it; the peer sees the end after what the kernel had
/// taken. [`shutdown`](Self::shutdown) first says so at once.
///
/// ```
/// use coreloop_net::{TcpListener, TcpStream};
///
/// coreloop::run(async {
///     let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
///     let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
///     let mut server = listener.accept().await.unwrap();
///     client.write_all("hello").await.unwrap();
///     let chunk = server.recv().await.unwrap().unwrap();
///     assert_eq!(&*chunk, b"hello");
/// })
/// .unwrap();
/// ```
///
/// ```compile_fail
/// fn must_be_send<T: Send>() {}
/// must_be_send::<coreloop_net::TcpStream>();
/// ```
pub struct TcpStream {
    pub(super) read: ReadHalf,
    pub(super) write: WriteHalf,
}

impl TcpStream {
    pub(super) fn from_fd(fd: OwnedFd, submitter: &Submitter) -> Self {
        let sock = Sock::new(fd, submitter);
        Self { read: ReadHalf::new(sock.clone()), write: WriteHalf::new(sock) }
    }

    /// A connection that was made elsewhere, on the running loop from now on. Its urgent data, too, has its
    /// place among the rest then (SO_OOBINLINE).
    ///
    /// The socket is made one that blocks (O_NONBLOCK is taken off), since operations here wait in the
    /// kernel: others that share it, by `try_clone` for one, see that too.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn from_std(stream: std::net::TcpStream) -> Self {
        DetachedStream::from(stream).attach()
    }

    /// See [`ReadHalf::recv`].
    ///
    /// # Cancel safety
    /// No byte is lost by a drop: what arrives is the next receive's, as for [`ReadHalf::recv`].
    pub fn recv(&mut self) -> Recv<'_> {
        self.read.recv()
    }

    /// See [`ReadHalf::read`].
    ///
    /// # Cancel safety
    /// A drop loses the buffer and no byte of the stream, as for [`ReadHalf::read`].
    pub fn read<B: IoBufMut>(&mut self, buf: B) -> Read<'_, B> {
        self.read.read(buf)
    }

    /// See [`ReadHalf::read_exact`].
    ///
    /// # Cancel safety
    /// A drop loses the buffer with what had been read into it, as for [`ReadHalf::read_exact`].
    pub fn read_exact(&mut self, buf: Vec<u8>) -> ReadExact<'_> {
        self.read.read_exact(buf)
    }

    /// See [`WriteHalf::write`].
    ///
    /// # Cancel safety
    /// A drop cancels the send: the peer sees an exact prefix, and if that is neither nothing nor all, writes
    /// fail until [`take_torn_write`](Self::take_torn_write) was called; as for [`WriteHalf::write_all`].
    pub fn write<B: IoBuf>(&mut self, buf: B) -> Write<'_, B> {
        self.write.write(buf)
    }

    /// See [`WriteHalf::write_all`].
    ///
    /// # Cancel safety
    /// A drop cancels the send: the peer sees an exact prefix, and if that is neither nothing nor all, writes
    /// fail until [`take_torn_write`](Self::take_torn_write) was called; as for [`WriteHalf::write_all`].
    pub fn write_all<B: IoBuf>(&mut self, buf: B) -> WriteAll<'_, B> {
        self.write.write_all(buf)
    }

    /// See [`WriteHalf::write_many`].
    ///
    /// # Cancel safety
    /// As [`write_all`](Self::write_all), of all the buffers together.
    pub fn write_many<B: IoBuf>(&mut self, bufs: Vec<B>) -> WriteMany<'_, B> {
        self.write.write_many(bufs)
    }

    /// See [`WriteHalf::take_torn_write`].
    pub fn take_torn_write(&mut self) -> Option<TornWrite> {
        self.write.take_torn_write()
    }

    /// Ends one or both directions at once, whatever is in flight.
    ///
    /// # Errors
    /// As `shutdown(2)`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.read.sock.submitter().shutdown(self, how)
    }

    /// The two directions apart, each to be used on its own, in tasks of the same core.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }

    /// The two halves together again.
    ///
    /// # Errors
    /// Both, if they belong to different connections.
    pub fn reunite(read: ReadHalf, write: WriteHalf) -> Result<Self, ReuniteError> {
        if Rc::ptr_eq(&read.sock, &write.sock) {
            Ok(Self { read, write })
        } else {
            Err(ReuniteError(read, write))
        }
    }

    /// The connection's far end.
    ///
    /// # Errors
    /// As `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        peer_addr(&self.read.sock)
    }

    /// The connection's near end.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.read.sock.submitter().local_addr(self)
    }

    /// Whether small segments leave at once (TCP_NODELAY). On by default for connections that are accepted
    /// or made here.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket().tcp_nodelay()
    }

    /// Sets TCP_NODELAY.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.socket().set_tcp_nodelay(on)
    }

    /// What a close does with data not yet sent (SO_LINGER): none, the default, sends it in the
    /// background; zero resets the connection. With any other time, rounded up to seconds, the drop of the
    /// stream waits in the kernel until the peer has it all, and **all of the core with it**: a server has no
    /// use for that. To know that everything has arrived, [end the writing](WriteHalf::shutdown) and read
    /// until the peer ends.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.read.sock.submitter().set_linger(self, linger)
    }

    /// Probes an idle connection (SO_KEEPALIVE).
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn set_keepalive(&self, on: bool) -> io::Result<()> {
        self.socket().set_keepalive(on)
    }

    /// Any other option, through `socket2`.
    ///
    /// A non-blocking mode set through it makes operations fail with EAGAIN where they would have waited.
    /// Bytes that were received unasked ([`recv`](Self::recv)) are not in the kernel any more: a peek does
    /// not show them.
    pub fn socket(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(&*self.read.sock)
    }
}

pub(super) fn peer_addr(sock: &Sock) -> io::Result<SocketAddr> {
    sock.submitter().peer_addr(sock)
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream").field("sock", &self.read.sock).finish_non_exhaustive()
    }
}

/// Two halves of different connections.
#[derive(Debug)]
pub struct ReuniteError(
    /// The half that receives.
    pub ReadHalf,
    /// The half that sends.
    pub WriteHalf,
);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves belong to different connections")
    }
}

impl std::error::Error for ReuniteError {}
