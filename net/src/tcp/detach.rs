//! A connection on its way to another core.
//!
//! Owns [`DetachedStream`]: the plain descriptor and the bytes that had been received but not taken. All
//! ops have ended by then, so nothing of it is known to the ring that it leaves.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use coreloop::op::Submitter;

use super::stream::TcpStream;
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

    /// Bytes that were received and not taken.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// The plain descriptor and those bytes.
    pub fn into_parts(self) -> (OwnedFd, Vec<u8>) {
        (self.fd, self.unread)
    }
}
