//! Listening.
//!
//! Owns [`TcpListener`]: one submission that goes on accepting, and the queue it fills. Accepting belongs to
//! the listener, not to a future: a connection that arrives when nobody waits goes to the next accept, and
//! is closed when the listener goes. The queue has a cap, above which accepting pauses and the kernel's
//! backlog fills. Without descriptors or memory accepting pauses too, instead of spinning, and where errors
//! that are passed over are all that comes: a security module refuses before the queue is looked at.
//! ```text
//! Armed --F_MORE gone--> Idle --accept--> Armed
//! Armed --EMFILE and the like, or the second of others in a row--> Paused --50 ms--> Idle
//! ```

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use coreloop::Feature;
use coreloop::cancel::{Interrupted, Interruptible};
use coreloop::op::{AcceptMany, AcceptOne, AcceptQueue, Armed, Submitter};
use coreloop::time::{Sleep, sleep};

use super::detach::DetachedStream;
use super::read::have_urgent_inline;
use super::stream::TcpStream;
use crate::addr::ToAddr;

/// Connections that may wait in one listener before accepting pauses.
const QUEUED_MAX: usize = 256;

/// Pause after accepting failed for want of descriptors or memory, or again and again.
const PAUSE: Duration = Duration::from_millis(50);

/// What a listening socket is to be like.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    backlog: i32,
    reuse_port: bool,
    nodelay: bool,
    congestion: Option<String>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_port: true, nodelay: true, congestion: None }
    }
}

impl ListenOptions {
    /// Connections that the kernel may hold for us (4,096); `net.core.somaxconn` caps it.
    #[must_use]
    pub fn backlog(mut self, n: i32) -> Self {
        self.backlog = n;
        self
    }

    /// SO_REUSEPORT (on): each core binds a listener of its own to the same address, and the kernel
    /// spreads connections over them. It also lets another process of the same user bind the address.
    #[must_use]
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// TCP_NODELAY of accepted connections (on).
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        self.nodelay = on;
        self
    }

    /// TCP congestion control of accepted connections (the system's), such as `cubic`.
    #[must_use]
    pub fn congestion(mut self, name: impl Into<String>) -> Self {
        self.congestion = Some(name.into());
        self
    }

    /// Binds and listens, on the running loop.
    ///
    /// # Errors
    /// As `socket(2)`, `setsockopt(2)`, `bind(2)` and `listen(2)`; `InvalidInput` for text that is no
    /// literal address.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn bind(&self, addr: impl ToAddr) -> io::Result<TcpListener> {
        let socket = self.bound(&addr.to_addr()?)?;
        self.listen(socket)
    }

    /// A socket with these options, bound and not yet listening.
    #[track_caller]
    pub(crate) fn bound(&self, addr: &SocketAddr) -> io::Result<OwnedFd> {
        let submitter = Submitter::current();
        let socket = submitter.stream_socket(addr)?;
        let options = socket2::SockRef::from(&socket);
        options.set_reuse_address(true)?;
        if self.reuse_port {
            options.set_reuse_port(true)?;
        }
        // Accepted sockets inherit these from the listening one: no call per connection.
        options.set_tcp_nodelay(self.nodelay)?;
        have_urgent_inline(&socket)?;
        if let Some(name) = &self.congestion {
            options.set_tcp_congestion(name.as_bytes())?;
        }
        submitter.bind(&socket, addr)?;
        Ok(socket)
    }

    /// Has a bound socket listen.
    #[track_caller]
    pub(crate) fn listen(&self, socket: OwnedFd) -> io::Result<TcpListener> {
        let submitter = Submitter::current();
        submitter.listen(&socket, self.backlog)?;
        Ok(TcpListener::of(socket, submitter))
    }
}

/// A listening socket of one core.
///
/// `bind` on every core with the same address spreads connections over the cores (SO_REUSEPORT).
pub struct TcpListener {
    sock: Rc<Listening>,
    submitter: Submitter,
    queue: Rc<AcceptQueue>,
    armed: Option<Armed>,
    paused: Option<Sleep>,
    /// The last that came was an error that was passed over.
    passed_over: bool,
}

/// The listening descriptor; closed when the last op that names it has ended.
struct Listening(OwnedFd);

/// The listener as its op holds it.
struct Held(Rc<Listening>);

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl TcpListener {
    /// Binds and listens with the default options: a backlog of 4,096, SO_REUSEPORT, TCP_NODELAY.
    ///
    /// # Errors
    /// As [`ListenOptions::bind`].
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn bind(addr: impl ToAddr) -> io::Result<Self> {
        ListenOptions::default().bind(addr)
    }

    /// A socket that listens already, on the running loop from now on: one that a service manager has handed
    /// in ([`coreloop::fds::inherited`]), or another process, as [`handover`](crate::handover) does it. Its
    /// options stay as they are, but for a non-blocking mode, which is turned off, for whoever shares it too.
    ///
    /// # Errors
    /// `InvalidInput` if it does not listen; as `getsockopt(2)` and `fcntl(2)`.
    ///
    /// # Panics
    /// Outside a running loop.
    ///
    /// ```
    /// use coreloop_net::TcpListener;
    ///
    /// let systems = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    /// let addr = systems.local_addr().unwrap();
    /// coreloop::run(async move {
    ///     let mut listener = TcpListener::from_fd(systems).unwrap();
    ///     let client = std::net::TcpStream::connect(addr).unwrap();
    ///     let server = listener.accept().await.unwrap();
    ///     assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
    /// })
    /// .unwrap();
    /// ```
    #[track_caller]
    pub fn from_fd(socket: impl Into<OwnedFd>) -> io::Result<Self> {
        let submitter = Submitter::current();
        let socket = socket.into();
        if !submitter.is_listener(&socket)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        socket2::SockRef::from(&socket).set_nonblocking(false)?;
        have_urgent_inline(&socket)?;
        Ok(Self::of(socket, submitter))
    }

    /// That of its loop.
    pub(crate) fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    fn of(socket: OwnedFd, submitter: Submitter) -> Self {
        Self {
            sock: Rc::new(Listening(socket)),
            queue: AcceptQueue::new(&submitter),
            submitter,
            armed: None,
            paused: None,
            passed_over: false,
        }
    }

    /// The next connection.
    ///
    /// Without descriptors or memory for one (EMFILE, ENFILE, ENOMEM, ENOBUFS) it pauses for 50 ms and
    /// tries again: the connections wait in the kernel's backlog meanwhile. So it does from the second error
    /// in a row on that it passes over.
    ///
    /// # Cancel safety
    /// No connection is lost: the next call gets it. That holds for a drop and for an accept that was
    /// called off by a token or a deadline ([`Interruptible`]), which ends at once.
    ///
    /// # Errors
    /// As `accept4(2)`, but for those above and for connections that failed while they waited, which are
    /// passed over (ECONNABORTED, EPERM, EPROTO, ENETDOWN and the like, as that page advises). Where
    /// accepting itself is refused so, by a security module, it goes on to try every 50 ms, and the counter
    /// `accept_pauses` tells.
    pub fn accept(&mut self) -> Accept<'_> {
        Accept { listener: self }
    }

    /// The next connection, in a form that may go to another core: what a core does that accepts for others.
    ///
    /// # Cancel safety
    /// As [`accept`](Self::accept).
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_detached(&mut self) -> AcceptDetached<'_> {
        AcceptDetached { listener: self }
    }

    /// Stops accepting, and gives the socket, which goes on listening, with the connections that had been
    /// accepted and not asked for. What waits in the kernel's backlog stays there: for whoever shares the
    /// socket ([`handover`](crate::handover)), or for [`from_fd`](Self::from_fd). May submit; waits for the
    /// kernel's word that nothing more will be accepted here.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener and those connections.
    ///
    /// # Errors
    /// If an accept could not be ended, which takes a loop that is closed.
    ///
    /// ```
    /// use coreloop_net::{TcpListener, TcpStream};
    ///
    /// coreloop::run(async {
    ///     let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ///     let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    ///     let _first = listener.accept().await.unwrap();
    ///     let stopped = listener.stop().await.unwrap();
    ///     assert!(stopped.accepted.is_empty());
    ///     drop((client, stopped.socket)); // And now it is closed.
    /// })
    /// .unwrap();
    /// ```
    pub async fn stop(mut self) -> io::Result<Stopped> {
        let accepted = self.pause().await;
        let sock = self.sock.clone();
        drop(self);
        match Rc::try_unwrap(sock) {
            Ok(Listening(socket)) => Ok(Stopped { socket, accepted }),
            Err(_) => Err(io::Error::other("the loop is closed, and an accept had not ended")),
        }
    }

    /// As [`stop`](Self::stop), and the listener can go on: the next accept begins anew. Gives the
    /// connections that had been accepted and not asked for.
    ///
    /// # Cancel safety
    /// Dropping the future loses none: the next accept gets them.
    pub async fn pause(&mut self) -> Vec<DetachedStream> {
        if let Some(armed) = &self.armed {
            armed.cancel();
        }
        poll_fn(|cx| {
            let ended = !self.armed.as_ref().is_some_and(Armed::is_armed);
            if ended || self.submitter.is_closed() {
                return Poll::Ready(());
            }
            // With connections in the queue this looks again in each of the few turns that a cancel takes.
            self.queue.wake_on_arrival(cx);
            Poll::Pending
        })
        .await;
        self.armed = None;
        let mut accepted = Vec::with_capacity(self.queue.len());
        while let Some(one) = self.queue.pop() {
            // Errors are of connections that are gone, or will be met again by the next accept.
            if let Ok(fd) = one {
                self.submitter.count_accept();
                accepted.push(DetachedStream::from_fd(fd));
            }
        }
        accepted
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        loop {
            match self.queue.pop() {
                Some(Ok(fd)) => {
                    self.passed_over = false;
                    self.submitter.count_accept();
                    return Poll::Ready(Ok(fd));
                }
                Some(Err(e)) => match e.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
                        self.pause_a_while();
                    }
                    // Errors of the connection and not of the listener: accept(2) says to go on. One after
                    // the other may be of accepting itself, and would come for ever.
                    Some(
                        libc::ECONNABORTED
                        | libc::EINTR
                        | libc::EPERM
                        | libc::ENETDOWN
                        | libc::EPROTO
                        | libc::ENOPROTOOPT
                        | libc::EHOSTDOWN
                        | libc::ENONET
                        | libc::EHOSTUNREACH
                        | libc::EOPNOTSUPP
                        | libc::ENETUNREACH,
                    ) => {
                        if mem::replace(&mut self.passed_over, true) {
                            self.pause_a_while();
                        }
                    }
                    _ => return Poll::Ready(Err(e)),
                },
                None => {
                    if let Some(pause) = &mut self.paused {
                        ready!(Pin::new(pause).poll(cx));
                        self.paused = None;
                    }
                    self.queue.wake_on_arrival(cx);
                    if !self.armed.as_ref().is_some_and(Armed::is_armed) {
                        // Let go of at once: a key that is kept long after its op could come to name another.
                        self.armed = None;
                        self.arm()?;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    #[cold]
    fn pause_a_while(&mut self) {
        self.submitter.count_accept_pause();
        self.paused = Some(sleep(PAUSE));
    }

    fn arm(&mut self) -> io::Result<()> {
        let (held, queue) = (Held(self.sock.clone()), self.queue.clone());
        let armed = if self.submitter.has(Feature::MultishotAccept) {
            self.submitter.arm(AcceptMany::new(held, queue, QUEUED_MAX)).map_err(|(_, e)| e)
        } else {
            self.submitter.arm(AcceptOne::new(held, queue)).map_err(|(_, e)| e)
        };
        self.armed = Some(armed.map_err(io::Error::from_raw_os_error)?);
        Ok(())
    }

    /// The address that it listens on; with its port, if 0 was asked for.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.submitter.local_addr(self)
    }

    /// Any other option, through `socket2`.
    pub fn socket(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(&self.sock.0)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.0.as_fd()
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("fd", &self.sock.0).finish_non_exhaustive()
    }
}

/// A listener that accepts no more. See [`TcpListener::stop`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Stopped {
    /// The socket, which listens.
    pub socket: OwnedFd,
    /// Connections that had been accepted already.
    pub accepted: Vec<DetachedStream>,
}

/// The future of [`TcpListener::accept`].
#[must_use = "an accept does nothing until it is awaited"]
#[derive(Debug)]
pub struct Accept<'a> {
    listener: &'a mut TcpListener,
}

impl Future for Accept<'_> {
    type Output = io::Result<TcpStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let accepted = ready!(self.listener.poll_accept(cx));
        Poll::Ready(accepted.map(|fd| TcpStream::from_fd(fd, &self.listener.submitter)))
    }
}

impl Interruptible for Accept<'_> {
    fn poll_end(self: Pin<&mut Self>, _: &mut Context<'_>, why: Interrupted) -> Poll<Self::Output> {
        // The listener goes on accepting; what arrives is for the next call.
        Poll::Ready(Err(why.into()))
    }
}

/// The future of [`TcpListener::accept_detached`].
#[must_use = "an accept does nothing until it is awaited"]
#[derive(Debug)]
pub struct AcceptDetached<'a> {
    listener: &'a mut TcpListener,
}

impl Future for AcceptDetached<'_> {
    type Output = io::Result<DetachedStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.listener.poll_accept(cx).map_ok(DetachedStream::from_fd)
    }
}

impl Interruptible for AcceptDetached<'_> {
    fn poll_end(self: Pin<&mut Self>, _: &mut Context<'_>, why: Interrupted) -> Poll<Self::Output> {
        // As above.
        Poll::Ready(Err(why.into()))
    }
}
