//! The sending direction.
//!
//! Owns [`WriteHalf`] and the futures of its writes. One send is in flight per socket: two in one submit
//! would interleave their bytes. A write that is dropped is cancelled, the next one waits for its end; if
//! it had been half done, the stream is torn, and writing is refused until somebody has looked at how far
//! it came.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use coreloop::buf::{BufError, BufResult, IoBuf};
use coreloop::cancel::{Interrupted, Interruptible, Settle};
use coreloop::op::{InFlight, Op, Send, SendMany};
use coreloop::planted::{self, Fault};

use crate::sock::{Held, Sock};

/// The half of a [`TcpStream`](crate::TcpStream) that sends.
///
/// Dropping both halves closes the connection; dropping this one alone leaves the direction open: use
/// [`shutdown`](Self::shutdown) to tell the peer that no more comes.
pub struct WriteHalf {
    pub(super) sock: Rc<Sock>,
}

/// How far a write had come that was dropped or forgotten half way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TornWrite {
    /// Bytes that were sent, an exact prefix; above 0 and below `len`.
    pub sent: usize,
    /// Bytes that were to be sent.
    pub len: usize,
}

impl WriteHalf {
    pub(super) fn new(sock: Rc<Sock>) -> Self {
        Self { sock }
    }

    /// Sends bytes of `buf`, as many as the kernel takes at once; gives how many with the buffer. It may be
    /// ready in its first poll, as [`write_all`](Self::write_all).
    ///
    /// # Cancel safety
    /// As for [`write_all`](Self::write_all).
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    pub fn write<B: IoBuf>(&mut self, buf: B) -> Write<'_, B> {
        Write(Writing::new(self, buf, false))
    }

    /// Sends all of `buf` and gives it back.
    ///
    /// Where few tasks share the turn, the first poll may send at once what the socket's buffer has room
    /// for, and be ready (setting `direct_sends`); else it is submitted at the end of the turn.
    ///
    /// # Cancel safety
    /// Dropping it cancels the send; the peer sees an exact prefix. The next write waits until that is
    /// settled. If it had been half done, writes fail until [`take_torn_write`](Self::take_torn_write)
    /// was called. A forgotten one (`mem::forget`) ends with what the socket took at once, and counts as
    /// dropped then.
    ///
    /// Called off by a token or a deadline ([`Interruptible`]) it waits until the kernel lets go, and gives
    /// the buffer back with how much of it was sent ([`BufError::transferred`]): the next write may go on
    /// exactly there, nothing is torn.
    ///
    /// # Errors
    /// As `send(2)`, with the buffer and how much of it was sent; ECANCELED once the loop is closed.
    /// SIGPIPE is never raised.
    pub fn write_all<B: IoBuf>(&mut self, buf: B) -> WriteAll<'_, B> {
        WriteAll(Writing::new(self, buf, true))
    }

    /// Sends all of several buffers, in order, with as few calls as they take (1,024 buffers each).
    ///
    /// # Cancel safety
    /// As for [`write_all`](Self::write_all).
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    pub fn write_many<B: IoBuf>(&mut self, bufs: Vec<B>) -> WriteMany<'_, B> {
        WriteMany(Writing::new(self, bufs, true))
    }

    /// How far the last write had come, if it was dropped or forgotten half way; the stream is usable again.
    /// None while the kernel still has a part of it, as right after the drop: an empty write (`write("")`)
    /// waits until that is known, and fails if the stream is torn.
    pub fn take_torn_write(&mut self) -> Option<TornWrite> {
        if self.sock.is_sending() {
            return None;
        }
        self.sock.take_torn()
    }

    /// Ends this direction: the peer reads the end of the stream after what was sent.
    ///
    /// # Errors
    /// As `shutdown(2)`.
    pub fn shutdown(&self) -> io::Result<()> {
        self.sock.submitter().shutdown(&*self.sock, Shutdown::Write)
    }

    pub(super) async fn quiesce(&mut self) {
        std::future::poll_fn(|cx| self.sock.poll_send_quiet(cx)).await;
    }
}

impl AsFd for WriteHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
}

impl fmt::Debug for WriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteHalf").field("sock", &self.sock).finish_non_exhaustive()
    }
}

/// How a write is submitted: one buffer, or several.
trait Form {
    type Buf: 'static;
    type Op: Op<Out = BufResult<usize, Self::Buf>>;
    /// Whether it can be sent without a copy.
    const UNCOPIED: bool;

    fn bytes(buf: &Self::Buf) -> usize;
    /// Sends at once what there is room for, if that is due.
    fn send_at_once(sock: &Sock, buf: &Self::Buf) -> Option<io::Result<usize>>;
    fn op(socket: Held, buf: Self::Buf, offset: usize, how: How) -> Self::Op;
}

/// What an op is told beside its bytes.
struct How {
    flags: i32,
    zero_copy: bool,
}

struct One<B>(PhantomData<B>);
struct Many<B>(PhantomData<B>);

impl<B: IoBuf> Form for One<B> {
    type Buf = B;
    type Op = Send<Held, B>;
    const UNCOPIED: bool = true;

    fn bytes(buf: &B) -> usize {
        buf.len()
    }

    #[inline]
    fn send_at_once(sock: &Sock, buf: &B) -> Option<io::Result<usize>> {
        sock.submitter().send_at_once(sock, buf)
    }

    #[inline]
    fn op(socket: Held, buf: B, offset: usize, how: How) -> Self::Op {
        Send::new(socket, buf, offset, how.flags).zero_copy(how.zero_copy)
    }
}

impl<B: IoBuf> Form for Many<B> {
    type Buf = Vec<B>;
    type Op = SendMany<Held, B>;
    const UNCOPIED: bool = false;

    fn bytes(bufs: &Vec<B>) -> usize {
        bufs.iter().map(IoBuf::len).sum()
    }

    /// Never: several buffers are for the ring, which takes them as they are.
    fn send_at_once(_: &Sock, _: &Vec<B>) -> Option<io::Result<usize>> {
        None
    }

    fn op(socket: Held, bufs: Vec<B>, offset: usize, how: How) -> Self::Op {
        SendMany::new(socket, bufs, offset, how.flags)
    }
}

/// One write under way: not begun while it has its buffer, flying while it has an op, and then ended.
struct Writing<'a, F: Form> {
    half: &'a mut WriteHalf,
    buf: Option<F::Buf>,
    op: Option<InFlight<F::Op>>,
    sent: usize,
    len: usize,
    all: bool,
    /// The op, or the last one, was a send without copy.
    uncopied: bool,
}

impl<'a, F: Form> Writing<'a, F> {
    fn new(half: &'a mut WriteHalf, buf: F::Buf, all: bool) -> Self {
        let len = F::bytes(&buf);
        Self { half, buf: Some(buf), op: None, sent: 0, len, all, uncopied: false }
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BufResult<usize, F::Buf>> {
        let Some(op) = &mut self.op else { return self.begin(cx) };
        let out = ready!(op.poll(cx));
        self.op = None;
        self.half.sock.send_is_heard_of();
        match out {
            Ok((n, buf)) => {
                self.sent += n;
                if !self.all || self.sent >= self.len {
                    return Poll::Ready(Ok((self.sent, buf)));
                }
                self.go_on(n, buf, cx)
            }
            Err(e) => self.failed(e, cx),
        }
    }

    #[inline]
    fn begin(&mut self, cx: &mut Context<'_>) -> Poll<BufResult<usize, F::Buf>> {
        if self.half.sock.has_earlier_send() && !planted::is(Fault::TwoSends, 1) {
            ready!(self.half.sock.poll_send_quiet(cx));
            if let Some(torn) = self.half.sock.torn() {
                return Poll::Ready(Err(BufError::new(torn_error(torn), self.take_buf())));
            }
        }
        if self.len == 0 {
            return Poll::Ready(Ok((0, self.take_buf())));
        }
        if self.half.sock.submitter().may_send_at_once() {
            return self.begin_at_once(cx);
        }
        let waker = cx.waker().clone();
        let buf = self.take_buf();
        let zero_copy = self.is_large(0);
        self.send(buf, 0, waker, zero_copy)
    }

    /// Sends at once what there is room for, if that is due, and leaves the rest to an op.
    // Apart from `begin`, which most turns of a busy core go through without it.
    #[inline(never)]
    fn begin_at_once(&mut self, cx: &mut Context<'_>) -> Poll<BufResult<usize, F::Buf>> {
        // Before anything is sent: cloning one of a stranger's may panic.
        let waker = cx.waker().clone();
        let buf = self.take_buf();
        let zero_copy = self.is_large(0);
        let sent = if zero_copy { None } else { F::send_at_once(&self.half.sock, &buf) };
        match sent {
            None => self.send(buf, 0, waker, zero_copy),
            Some(Err(e)) => Poll::Ready(Err(BufError::new(e, buf))),
            Some(Ok(n)) => {
                self.sent = n;
                if self.all && n < self.len {
                    return self.send_rest(buf, waker);
                }
                Poll::Ready(Ok((n, buf)))
            }
        }
    }

    /// The buffer of a write that has not begun.
    #[inline]
    fn take_buf(&mut self) -> F::Buf {
        self.buf.take().expect("a write is not polled after it has ended")
    }

    /// The kernel took `n` bytes and there are more.
    #[cold]
    fn go_on(
        &mut self,
        n: usize,
        buf: F::Buf,
        cx: &mut Context<'_>,
    ) -> Poll<BufResult<usize, F::Buf>> {
        if n == 0 {
            let e = io::Error::from(io::ErrorKind::WriteZero);
            return Poll::Ready(Err(BufError::after(self.sent, e, buf)));
        }
        let waker = self.waker_of(cx);
        self.send_rest(buf, waker)
    }

    /// Cloned in the middle of a write: a stranger's may panic, and the write is torn then.
    #[cold]
    fn waker_of(&mut self, cx: &Context<'_>) -> Waker {
        struct Torn<'a>(&'a Sock, TornWrite);
        impl Drop for Torn<'_> {
            fn drop(&mut self) {
                if self.1.sent > 0 {
                    self.0.note_torn(self.1);
                }
            }
        }
        let torn = Torn(&self.half.sock, TornWrite { sent: self.sent, len: self.len });
        let waker = cx.waker().clone();
        std::mem::forget(torn);
        waker
    }

    #[cold]
    fn failed(
        &mut self,
        e: BufError<F::Buf>,
        cx: &mut Context<'_>,
    ) -> Poll<BufResult<usize, F::Buf>> {
        if e.error().raw_os_error() == Some(libc::EINTR) {
            let waker = self.waker_of(cx);
            return self.send_rest(e.into_buf(), waker);
        }
        let no_zero_copy =
            matches!(e.error().raw_os_error(), Some(libc::ENOMEM | libc::EOPNOTSUPP));
        // With a copy then: what fails so, too, has failed.
        if no_zero_copy && self.uncopied {
            let waker = self.waker_of(cx);
            return self.send(e.into_buf(), self.sent, waker, false);
        }
        Poll::Ready(Err(self.sent_before(e)))
    }

    /// Ends the write: what the kernel has of it is cancelled and waited for.
    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        why: Interrupted,
    ) -> Poll<BufResult<usize, F::Buf>> {
        let Some(op) = &mut self.op else {
            return Poll::Ready(Err(BufError::new(why.into(), self.take_buf())));
        };
        op.cancel();
        let out = ready!(op.poll(cx));
        self.op = None;
        self.half.sock.send_is_heard_of();
        Poll::Ready(match out {
            Ok((n, buf)) => {
                self.sent += n;
                if !self.all || self.sent >= self.len {
                    Ok((self.sent, buf))
                } else {
                    Err(BufError::after(self.sent, why.into(), buf))
                }
            }
            Err(e) => Err(self.sent_before(e)).settle(why),
        })
    }

    #[cold]
    fn send_rest(&mut self, buf: F::Buf, waker: Waker) -> Poll<BufResult<usize, F::Buf>> {
        let zero_copy = self.is_large(self.sent);
        self.send(buf, self.sent, waker, zero_copy)
    }

    /// Whether what is left from `offset` on is to go without a copy.
    #[inline]
    fn is_large(&self, offset: usize) -> bool {
        F::UNCOPIED && self.len - offset >= self.half.sock.submitter().zero_copy_from()
    }

    /// Starts a send of what is left, from `offset` on. No other is under way.
    #[inline(always)]
    fn send(
        &mut self,
        buf: F::Buf,
        offset: usize,
        waker: Waker,
        zero_copy: bool,
    ) -> Poll<BufResult<usize, F::Buf>> {
        debug_assert!(self.op.is_none() && offset == self.sent);
        // MSG_WAITALL would have the kernel go on with a short send by itself (5.19). But when a socket has
        // been full for the 127th time (`APOLL_MAX_RETRY`) it leaves the op to a worker thread, which sleeps
        // in it: a thread for each slow reader. So only where each part would wait until the peer has
        // acknowledged it.
        let flags = if self.all && zero_copy { libc::MSG_WAITALL } else { 0 };
        self.uncopied = zero_copy;
        let how = How { flags, zero_copy };
        let op = F::op(Held::of(&self.half.sock), buf, offset, how);
        match self.half.sock.submitter().start_for(op, waker) {
            Ok(op) => {
                self.op = Some(op);
                // Until the op's end, also if this future is dropped or forgotten.
                self.half.sock.send_begins(TornWrite { sent: self.sent, len: self.len });
                Poll::Pending
            }
            Err(out) => Poll::Ready(out.map_err(|e| self.sent_before(e))),
        }
    }
}

impl<F: Form> Writing<'_, F> {
    /// The error of an op, with what the ops before it had sent.
    fn sent_before(&self, e: BufError<F::Buf>) -> BufError<F::Buf> {
        let (e, buf) = e.into_parts();
        BufError::after(self.sent, e, buf)
    }
}

impl<F: Form> Drop for Writing<'_, F> {
    #[inline]
    fn drop(&mut self) {
        if self.op.is_some() {
            // What the op itself sends is added at its end; see `late_send`.
            self.half.sock.note_torn(TornWrite { sent: self.sent, len: self.len });
        }
    }
}

fn torn_error(torn: TornWrite) -> io::Error {
    let TornWrite { sent, len } = torn;
    io::Error::other(format!(
        "an earlier write was dropped or forgotten after {sent} of {len} bytes; `take_torn_write` clears this"
    ))
}

/// The future of [`WriteHalf::write`].
#[must_use = "a write does nothing until it is awaited"]
pub struct Write<'a, B: IoBuf>(Writing<'a, One<B>>);

/// The future of [`WriteHalf::write_all`].
#[must_use = "a write does nothing until it is awaited"]
pub struct WriteAll<'a, B: IoBuf>(Writing<'a, One<B>>);

/// The future of [`WriteHalf::write_many`].
#[must_use = "a write does nothing until it is awaited"]
pub struct WriteMany<'a, B: IoBuf>(Writing<'a, Many<B>>);

// The buffers' own addresses are never handed out; what they point at does not move.
impl<B: IoBuf> Unpin for Write<'_, B> {}
impl<B: IoBuf> Unpin for WriteAll<'_, B> {}
impl<B: IoBuf> Unpin for WriteMany<'_, B> {}

impl<B: IoBuf> Future for Write<'_, B> {
    type Output = BufResult<usize, B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl<B: IoBuf> Future for WriteAll<'_, B> {
    type Output = BufResult<usize, B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl<B: IoBuf> Future for WriteMany<'_, B> {
    type Output = BufResult<usize, Vec<B>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl<B: IoBuf> Interruptible for Write<'_, B> {
    fn poll_end(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        why: Interrupted,
    ) -> Poll<Self::Output> {
        self.0.poll_end(cx, why)
    }
}

impl<B: IoBuf> Interruptible for WriteAll<'_, B> {
    fn poll_end(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        why: Interrupted,
    ) -> Poll<Self::Output> {
        self.0.poll_end(cx, why)
    }
}

impl<B: IoBuf> Interruptible for WriteMany<'_, B> {
    fn poll_end(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        why: Interrupted,
    ) -> Poll<Self::Output> {
        self.0.poll_end(cx, why)
    }
}
