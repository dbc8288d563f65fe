//! The receiving direction.
//!
//! Owns [`ReadHalf`]: the one receive in flight and what it brought before anybody asked. Receiving belongs
//! to the socket, not to the future:
//! ```text
//! Idle --recv--> Armed (kernel picks a buffer when data is there) --> chunk, end or error
//!      --recv of a busy connection--> Armed for many --> chunks; ended, it is as if it had not been
//!      --read into a buffer--> Direct (dropped: cancelled, late bytes are kept)
//! ```
//! A dropped `recv` leaves its receive armed, and the next one takes it over: nothing is lost, nothing is
//! cancelled. Once armed in one mode, the other waits for the end of that op.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use coreloop::buf::{self, BufError, BufResult, Chunk, IoBufMut};
use coreloop::cancel::{Interrupted, Interruptible, Settle};
use coreloop::op::{self, BufferTurn, InFlight, Next, RecvManyEnd};

use super::pace::{Receive, SHOTS, is_large};
use crate::sock::{Held, Sock};

/// The half of a [`TcpStream`](crate::TcpStream) that receives.
///
/// Dropping both halves closes the connection; dropping this one alone lets the other go on.
pub struct ReadHalf {
    pub(super) sock: Rc<Sock>,
}

/// Has urgent data come in its place among the rest. An urgent byte apart from it wakes a receive for
/// nothing, and one that was woken 127 times for nothing (`APOLL_MAX_RETRY`) is left to a worker thread of
/// the kernel's, which takes a buffer and sleeps with it.
pub(super) fn have_urgent_inline(socket: &impl AsFd) -> io::Result<()> {
    socket2::SockRef::from(socket).set_out_of_band_inline(true)
}

impl ReadHalf {
    pub(super) fn new(sock: Rc<Sock>) -> Self {
        Self { sock }
    }

    /// Receives what is there: a chunk of at least one byte, or none at the end of the stream.
    ///
    /// The connection holds no buffer while it waits. The chunk goes back to its core when dropped; hold
    /// it no longer than needed.
    ///
    /// Where small messages have to be waited for again and again, the kernel is told to go on receiving
    /// (6.0): what comes then is here before it is asked for. A reader that falls 5 chunks behind ends that;
    /// until the kernel knows, what lay in the socket may come too, and is copied above the quota of
    /// buffers. It is all given in order, here and by the reads, and moves with
    /// [`detach`](crate::TcpStream::detach). Urgent data (RFC 6093) has its place among the rest.
    ///
    /// # Cancel safety
    /// Nothing is lost: what arrives after the future was dropped, or called off by a token or a deadline
    /// ([`Interruptible`]), goes to the next receive. Calling it off needs no word with the kernel.
    ///
    /// # Errors
    /// As `recv(2)`: a reset connection and the like; ECANCELED once the loop is closed.
    pub fn recv(&mut self) -> Recv<'_> {
        Recv { half: self, turn: None }
    }

    /// Reads into `buf` from its start, up to its capacity: at least one byte, or 0 at the end of the
    /// stream. What the buffer held is overwritten, and its length becomes the count.
    ///
    /// # Cancel safety
    /// No byte of the stream is lost when the future is dropped; the buffer is. (One that is forgotten,
    /// with `mem::forget`, takes with it what it reads, also after that.) Called off by a token or a
    /// deadline ([`Interruptible`]) it waits until the kernel lets go of the buffer and gives it back, with
    /// the bytes if some had arrived by then.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), with the buffer; a buffer without capacity is refused with EINVAL.
    pub fn read<B: IoBufMut>(&mut self, buf: B) -> Read<'_, B> {
        Read { half: self, step: Step::Begin(buf) }
    }

    /// Reads as many bytes as `buf` is long, over what it held: `read_exact(vec![0; 16])`.
    ///
    /// # Cancel safety
    /// What was read into `buf` before a drop is lost with it: call it off by a token or a deadline
    /// ([`Interruptible`]) where that matters, or use [`recv`](Self::recv).
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends before; else as [`recv`](Self::recv). The buffer comes back
    /// with what it got, cut to that.
    pub fn read_exact(&mut self, buf: Vec<u8>) -> ReadExact<'_> {
        ReadExact { half: self, turn: None, buf, got: 0 }
    }

    fn keep_after(&mut self, mut chunk: Chunk, consumed: usize) {
        chunk.advance(consumed);
        if !chunk.is_empty() {
            self.sock.keep(chunk);
        }
    }

    /// The connection's far end.
    ///
    /// # Errors
    /// As `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        super::stream::peer_addr(&self.sock)
    }

    /// Tells the peer's data to go nowhere: later receives end with the end of the stream.
    ///
    /// # Errors
    /// As `shutdown(2)`.
    pub fn shutdown(&self) -> io::Result<()> {
        self.sock.submitter().shutdown(&*self.sock, Shutdown::Read)
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        turn: &mut Option<BufferTurn>,
    ) -> Poll<io::Result<Option<Chunk>>> {
        let sock = &*self.sock;
        if sock.has_earlier_receive()
            && let Some(out) = ready!(self.poll_earlier(cx))
        {
            return Poll::Ready(out);
        }
        // Held across the poll of the op: nobody but this half looks at it.
        let mut armed = sock.armed.borrow_mut();
        loop {
            if turn.is_some() || armed.is_nothing() && sock.submitter().buffers_awaited() {
                ready!(sock.poll_turn(cx, turn));
            }
            let ended = match &mut *armed {
                Receive::Nothing if sock.pace.get().is_busy() && sock.submitter().many_pay() => {
                    let held = Held::of(&self.sock);
                    match sock.submitter().recv_many(held, &sock.membership, SHOTS) {
                        Ok(series) => *armed = Receive::Many(series),
                        Err(e) => return Poll::Ready(Err(e)),
                    }
                    continue;
                }
                Receive::Nothing => {
                    let waker = cx.waker().clone();
                    let held = Held::of(&self.sock);
                    return match sock.submitter().recv_chunk_for(held, &sock.membership, waker) {
                        Ok(op) => {
                            armed.arm_one(op);
                            Poll::Pending
                        }
                        Err(out) => Poll::Ready(out),
                    };
                }
                Receive::One(op) => match ready!(op.poll(cx)) {
                    Ok(chunk) => {
                        armed.ended();
                        return Poll::Ready(Ok(chunk));
                    }
                    Err(e) => Err(e),
                },
                Receive::Many(series) => match ready!(series.poll_next(cx)) {
                    Next::Item(chunk) => {
                        if is_large(chunk.len()) {
                            sock.pace.set(sock.pace.get().after(chunk.len(), false));
                            series.cancel();
                        }
                        return Poll::Ready(Ok(Some(chunk)));
                    }
                    Next::End(end) => {
                        sock.pace.set(sock.pace.get().after_many(end.behind));
                        end.result
                    }
                },
            };
            let many = matches!(*armed, Receive::Many(_));
            armed.ended();
            match ended {
                Ok(0) => return Poll::Ready(Ok(None)),
                // The last chunk was taken; the kernel wants to be asked again.
                Ok(_) => {}
                Err(e) => {
                    if let Some(e) = sock.lasting(e, many, turn) {
                        return Poll::Ready(Err(e));
                    }
                }
            }
        }
    }

    /// What earlier receives left; none if they left nothing.
    #[cold]
    fn poll_earlier(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Option<Chunk>>>> {
        if let Some(chunk) = self.sock.take_kept() {
            return Poll::Ready(Some(Ok(Some(chunk))));
        }
        ready!(self.sock.poll_recv_quiet(cx));
        if let Some(bytes) = self.sock.take_late_bytes() {
            return Poll::Ready(Some(Ok(Some(Chunk::copy_of(&bytes)))));
        }
        Poll::Ready(self.sock.take_late_error().map(Err))
    }

    /// Ends what is armed and gives all bytes that it and its predecessors brought.
    pub(super) async fn quiesce(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let armed = self.sock.armed.take();
        if let Some(chunk) = self.sock.take_kept() {
            bytes.extend_from_slice(&chunk);
        }
        poll_fn(|cx| self.sock.poll_recv_quiet(cx)).await;
        bytes.extend(self.sock.take_late_bytes().unwrap_or_default());
        if let Some(e) = self.sock.take_late_error() {
            return Err(e);
        }
        let ended = match armed {
            Receive::Nothing => return Ok(bytes),
            Receive::One(mut op) => {
                op.cancel();
                poll_fn(|cx| op.poll(cx)).await.map(|chunk| {
                    bytes.extend_from_slice(chunk.as_deref().unwrap_or_default());
                })
            }
            Receive::Many(mut series) => {
                series.cancel();
                loop {
                    match poll_fn(|cx| series.poll_next(cx)).await {
                        Next::Item(chunk) => bytes.extend_from_slice(&chunk),
                        // That it does not do this says nothing of the connection.
                        Next::End(RecvManyEnd { result: Err(e), .. })
                            if e.raw_os_error() == Some(libc::EINVAL) =>
                        {
                            break Ok(());
                        }
                        Next::End(end) => break end.result.map(drop),
                    }
                }
            }
        };
        match ended {
            Err(e) if !is_passing(&e) => Err(e),
            _ => Ok(bytes),
        }
    }

    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.sock.keep(Chunk::copy_of(bytes));
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        // The op holds the socket, so this is what ends both.
        let armed = self.sock.armed.take();
        drop(armed);
        drop(self.sock.take_kept());
    }
}

/// Ends of a receive that say nothing of the connection.
fn is_passing(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ECANCELED | libc::ENOBUFS | libc::EINTR))
}

impl AsFd for ReadHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
}

impl fmt::Debug for ReadHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadHalf").field("sock", &self.sock).finish_non_exhaustive()
    }
}

/// The future of [`ReadHalf::recv`].
#[must_use = "a receive does nothing until it is awaited"]
pub struct Recv<'a> {
    half: &'a mut ReadHalf,
    /// A place in the line for a buffer, given up when this is dropped.
    turn: Option<BufferTurn>,
}

impl Future for Recv<'_> {
    type Output = io::Result<Option<Chunk>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { half, turn } = &mut *self;
        half.poll_recv(cx, turn)
    }
}

#[cfg(feature = "planted")]
impl Drop for Recv<'_> {
    fn drop(&mut self) {
        use coreloop::planted::{Fault, is};

        if is(Fault::DroppedReceive, 2) {
            // The op goes with its future, and what it brings with the op.
            let armed = self.half.sock.armed.take();
            drop(armed);
        }
    }
}

impl Interruptible for Recv<'_> {
    fn poll_end(self: Pin<&mut Self>, _: &mut Context<'_>, why: Interrupted) -> Poll<Self::Output> {
        // The receive stays armed: what it brings is for the next one.
        Poll::Ready(Err(why.into()))
    }
}

/// The future of [`ReadHalf::read_exact`].
#[must_use = "a read does nothing until it is awaited"]
pub struct ReadExact<'a> {
    half: &'a mut ReadHalf,
    turn: Option<BufferTurn>,
    buf: Vec<u8>,
    got: usize,
}

impl ReadExact<'_> {
    /// The buffer's end, with what it got and no more.
    fn fail(&mut self, e: io::Error) -> Poll<BufResult<usize, Vec<u8>>> {
        let mut buf = std::mem::take(&mut self.buf);
        buf.truncate(self.got);
        Poll::Ready(Err(BufError::after(self.got, e, buf)))
    }
}

impl Future for ReadExact<'_> {
    type Output = BufResult<usize, Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let want = this.buf.len();
        while this.got < want {
            let (half, got) = (&mut *this.half, this.got);
            match ready!(half.poll_recv(cx, &mut this.turn)) {
                Ok(Some(chunk)) => {
                    let n = chunk.len().min(want - got);
                    this.buf[got..got + n].copy_from_slice(&chunk[..n]);
                    this.got += n;
                    half.keep_after(chunk, n);
                }
                Ok(None) => {
                    let why = format!("the stream ended after {got} of {want} bytes");
                    return this.fail(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                Err(e) => return this.fail(e),
            }
        }
        Poll::Ready(Ok((want, std::mem::take(&mut this.buf))))
    }
}

impl Interruptible for ReadExact<'_> {
    fn poll_end(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        why: Interrupted,
    ) -> Poll<Self::Output> {
        self.fail(why.into())
    }
}

/// The future of [`ReadHalf::read`].
#[must_use = "a read does nothing until it is awaited"]
pub struct Read<'a, B: IoBufMut> {
    half: &'a mut ReadHalf,
    step: Step<B>,
}

enum Step<B: IoBufMut> {
    Begin(B),
    /// An armed receive has to end first; what it brings is copied.
    Chunk(B, Option<BufferTurn>),
    Direct(InFlight<op::Recv<Held, B>>),
    Ended,
}

// The buffer's own address is never handed out; what it points at does not move.
impl<B: IoBufMut> Unpin for Read<'_, B> {}

impl<B: IoBufMut> Future for Read<'_, B> {
    type Output = BufResult<usize, B>;

    /// # Panics
    /// If polled after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match std::mem::replace(&mut this.step, Step::Ended) {
                Step::Begin(buf) => {
                    if buf.capacity() == 0 {
                        let e = io::Error::from_raw_os_error(libc::EINVAL);
                        return Poll::Ready(Err(BufError::new(e, buf)));
                    }
                    let sock = &this.half.sock;
                    sock.pace.set(sock.pace.get().after_read());
                    if let Receive::Many(series) = &*sock.armed.borrow() {
                        // What it has received and will have comes first; then reads go to their buffers.
                        series.cancel();
                    }
                    let by_chunk = !sock.armed.borrow().is_nothing()
                        || sock.receiving.get()
                        || sock.has_late_receive();
                    this.step = if by_chunk {
                        Step::Chunk(buf, None)
                    } else {
                        let held = Held::of(sock);
                        match sock.submitter().start(op::Recv::new(held, buf)) {
                            Ok(op) => {
                                // Until the op's end, also if this future is dropped or forgotten.
                                sock.receiving.set(true);
                                Step::Direct(op)
                            }
                            Err(out) => return Poll::Ready(out),
                        }
                    };
                }
                Step::Chunk(buf, mut turn) => {
                    let got = this.half.poll_recv(cx, &mut turn);
                    let Poll::Ready(got) = got else {
                        this.step = Step::Chunk(buf, turn);
                        return Poll::Pending;
                    };
                    return Poll::Ready(match got {
                        Ok(chunk) => Ok(this.half.copy_to(chunk, buf)),
                        Err(e) => Err(BufError::new(e, buf)),
                    });
                }
                Step::Direct(mut op) => {
                    let Poll::Ready(out) = op.poll(cx) else {
                        this.step = Step::Direct(op);
                        return Poll::Pending;
                    };
                    match out {
                        Err(e) if e.error().raw_os_error() == Some(libc::EINTR) => {
                            this.step = Step::Begin(e.into_buf());
                        }
                        out => return Poll::Ready(out),
                    }
                }
                Step::Ended => panic!("a Read was polled after it had ended"),
            }
        }
    }
}

impl<B: IoBufMut> Interruptible for Read<'_, B> {
    /// # Panics
    /// If polled after it was ready.
    fn poll_end(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        why: Interrupted,
    ) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.step, Step::Ended) {
            // Not begun, or waiting for a receive that belongs to the socket and stays armed.
            Step::Begin(buf) | Step::Chunk(buf, _) => {
                Poll::Ready(Err(BufError::new(why.into(), buf)))
            }
            Step::Direct(mut op) => {
                op.cancel();
                let Poll::Ready(out) = op.poll(cx) else {
                    self.step = Step::Direct(op);
                    return Poll::Pending;
                };
                Poll::Ready(out.settle(why))
            }
            Step::Ended => panic!("a Read was polled after it had ended"),
        }
    }
}

impl ReadHalf {
    fn copy_to<B: IoBufMut>(&mut self, chunk: Option<Chunk>, mut buf: B) -> (usize, B) {
        let Some(chunk) = chunk else {
            buf::fill(&mut buf, &[]);
            return (0, buf);
        };
        let n = chunk.len().min(buf.capacity());
        buf::fill(&mut buf, &chunk[..n]);
        self.keep_after(chunk, n);
        (n, buf)
    }
}
