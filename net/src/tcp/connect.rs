//! Making connections.
//!
//! Owns the connect: a socket with the usual options, and the op. Its address lies in the op's slot; a
//! connect that is dropped is cancelled, and its socket closed when the kernel lets go.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use coreloop::cancel::{Interrupted, Interruptible, Settle};
use coreloop::op::{self, InFlight, Submitter};

use super::read::have_urgent_inline;
use super::stream::TcpStream;
use crate::addr::ToAddr;

impl TcpStream {
    /// Connects to `addr`, with TCP_NODELAY set.
    ///
    /// The kernel gives up after some two minutes (`tcp_syn_retries`); see
    /// [`connect_timeout`](Self::connect_timeout).
    ///
    /// # Cancel safety
    /// Dropping it gives the attempt up; the socket is closed. Called off by a token or a deadline
    /// ([`Interruptible`]) it ends when the kernel has let go, the socket being closed, or with the
    /// connection if that was faster.
    ///
    /// # Errors
    /// As `socket(2)` and `connect(2)`; `InvalidInput` for text that is no literal address.
    ///
    /// # Panics
    /// The future panics if it is first polled outside a running loop.
    pub fn connect(addr: impl ToAddr) -> Connect {
        Connect { step: Step::Begin(addr.to_addr()) }
    }

    /// As [`connect`](Self::connect), for at most `limit`.
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    ///
    /// # Errors
    /// `TimedOut` after `limit`; else as [`connect`](Self::connect).
    pub async fn connect_timeout(addr: impl ToAddr, limit: Duration) -> io::Result<Self> {
        coreloop::time::timeout(limit, Self::connect(addr)).await?
    }
}

/// The future of [`TcpStream::connect`].
#[must_use = "a connect does nothing until it is awaited"]
pub struct Connect {
    step: Step,
}

enum Step {
    Begin(io::Result<SocketAddr>),
    Flying(InFlight<op::Connect<OwnedFd>>, Submitter),
    Ended,
}

impl Connect {
    fn begin(&mut self, addr: io::Result<SocketAddr>) -> io::Result<()> {
        let addr = addr?;
        let submitter = Submitter::current();
        let socket = submitter.stream_socket(&addr)?;
        socket2::SockRef::from(&socket).set_tcp_nodelay(true)?;
        have_urgent_inline(&socket)?;
        match submitter.start(op::Connect::new(socket, addr)) {
            Ok(op) => self.step = Step::Flying(op, submitter),
            // It was not sent, so this is an error.
            Err(refused) => drop(refused?),
        }
        Ok(())
    }

    fn poll_flying(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let Step::Flying(op, submitter) = &mut self.step else {
            panic!("a Connect was polled after it had ended");
        };
        let connected = ready!(op.poll(cx)).map(|fd| TcpStream::from_fd(fd, submitter));
        self.step = Step::Ended;
        Poll::Ready(connected)
    }
}

impl Future for Connect {
    type Output = io::Result<TcpStream>;

    /// # Panics
    /// If polled after it was ready, or first polled outside a loop.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.step, Step::Begin(_))
            && let Step::Begin(addr) = std::mem::replace(&mut self.step, Step::Ended)
        {
            self.begin(addr)?;
        }
        self.poll_flying(cx)
    }
}

impl Interruptible for Connect {
    fn poll_end(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        why: Interrupted,
    ) -> Poll<Self::Output> {
        match &self.step {
            Step::Begin(_) => {
                self.step = Step::Ended;
                return Poll::Ready(Err(why.into()));
            }
            Step::Flying(op, _) => op.cancel(),
            Step::Ended => {}
        }
        self.poll_flying(cx).map(|connected| connected.settle(why))
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}
