//! A connection on its way to another core.
//!
//! Owns [`DetachedStream`]: the plain descriptor and the bytes that had been received but not taken. All
//! ops have ended by then, so nothing of it is known to the ring that it leaves; and [`Undelivered`], what
//! comes back when the core that it was sent to has ended.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};

use coreloop::op::Submitter;
use coreloop::{Handle, PostError};

use super::read::have_urgent_inline;
use super::stream::TcpStream;
use crate::locks::Mutex;
use crate::sock::Sock;

/// A connection without a core. `Send`; [`attach`](Self::attach) puts it on the running loop.
#[derive(Debug)]
pub struct DetachedStream {
    fd: OwnedFd,
    unread: Vec<u8>,
}

impl TcpStream {
    /// Takes the connection off this core: waits until its operations have ended, and keeps what they
    /// brought.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    /// What a receive in flight ended with; a write that was dropped half way is an error too.
    pub async fn detach(mut self) -> io::Result<DetachedStream> {
        self.write.quiesce().await;
        if let Some(torn) = self.take_torn_write() {
            let (sent, len) = (torn.sent, torn.len);
            return Err(io::Error::other(format!(
                "a write was dropped after {sent} of {len} bytes"
            )));
        }
        let unread = self.read.quiesce().await?;
        let TcpStream { read, write } = self;
        drop(write);
        let sock = read.sock.clone();
        drop(read);
        match Rc::try_unwrap(sock).map(Sock::into_fd) {
            Ok(fd) => Ok(DetachedStream { fd, unread }),
            // The op's own end dropped its share before we were woken, so this would be a bug of ours.
            Err(_) => Err(io::Error::other("the connection is still in use")),
        }
    }
}

impl DetachedStream {
    /// One that no loop has used yet.
    pub(super) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd, unread: Vec::new() }
    }

    /// Puts the connection on the running loop; what had not been read comes first.
    ///
    /// # Panics
    /// Outside a running loop.
    #[track_caller]
    pub fn attach(self) -> TcpStream {
        let mut stream = TcpStream::from_fd(self.fd, &Submitter::current());
        stream.read.put_back(&self.unread);
        stream
    }

    /// Sends the connection to core `core` and spawns `serve` with it there; ready once it has arrived, so a
    /// core that ends before it has is answered, and not met with silence. Waits where 1,024 closures wait
    /// for that core. One closure and one message back for each call: meant for a move now and then, not for
    /// every connection ([`spread::dealer`](crate::spread::dealer) is).
    ///
    /// # Errors
    /// [`Undelivered`], with the connection: the core has ended, or there is none of this number.
    ///
    /// # Cancel safety
    /// If the future is dropped the connection arrives, or is closed.
    ///
    /// ```
    /// use coreloop::Handle;
    /// use coreloop_net::{TcpListener, TcpStream};
    ///
    /// coreloop::run(async {
    ///     let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ///     let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    ///     let server = listener.accept().await.unwrap().detach().await.unwrap();
    ///     let here = Handle::current();
    ///     let says = async |mut stream: TcpStream| {
    ///         stream.write_all("from there").await.unwrap();
    ///     };
    ///     let undelivered = server.serve_on(&here, 7, says).await.unwrap_err();
    ///     undelivered.stream.serve_on(&here, 0, says).await.unwrap();
    ///     let chunk = client.recv().await.unwrap().unwrap();
    ///     assert_eq!(&*chunk, b"from there");
    /// })
    /// .unwrap();
    /// ```
    pub async fn serve_on<F>(
        self,
        handle: &Handle,
        core: usize,
        serve: F,
    ) -> Result<(), Undelivered>
    where
        F: AsyncFnOnce(TcpStream) + Send + 'static,
    {
        // Taken out by whoever comes first: the other core, or we, when it will not come any more.
        let parcel = Arc::new(Mutex::new(Some(self)));
        let take = |parcel: &Mutex<Option<Self>>| {
            parcel.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        let theirs = parcel.clone();
        let arrives = move || async move {
            if let Some(stream) = take(&theirs) {
                drop(coreloop::spawn(async move { serve(stream.attach()).await }));
            }
        };
        let why = match handle.spawn_on_when_room(core, arrives).await {
            Ok(arrived) => match arrived.await {
                Ok(()) => return Ok(()),
                Err(_) => PostError::CoreGone,
            },
            Err(why) => why,
        };
        match take(&parcel) {
            Some(stream) => Err(Undelivered { why, stream }),
            // It arrived, and was that core's when the core ended.
            None => Ok(()),
        }
    }

    /// Bytes that were received and not taken.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// The plain descriptor and those bytes.
    pub fn into_parts(self) -> (OwnedFd, Vec<u8>) {
        (self.fd, self.unread)
    }
}

/// A connection that did not get to the core to which it was sent.
#[derive(Debug)]
pub struct Undelivered {
    /// What was in the way.
    pub why: PostError,
    /// The connection; it may be attached here, or sent elsewhere.
    pub stream: DetachedStream,
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection was not delivered: {}", self.why)
    }
}

impl std::error::Error for Undelivered {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.why)
    }
}

impl From<std::net::TcpStream> for DetachedStream {
    fn from(stream: std::net::TcpStream) -> Self {
        // A socket that can't is none that has urgent data.
        have_urgent_inline(&stream).ok();
        // Else the kernel answers EAGAIN where operations are to wait. It is so for all that share the
        // socket.
        stream.set_nonblocking(false).ok();
        Self::from_fd(stream.into())
    }
}
