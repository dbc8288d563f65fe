//! A socket's descriptor and what its ops leave behind.
//!
//! Owns [`Sock`]: the descriptor, closed when the last op that names it has completed, and the notes of
//! ops whose futures were dropped: bytes that a receive brought too late, a send that was half done. Most
//! sockets never have either; the notes are on the heap only then.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use coreloop::Feature;
use coreloop::buf::Chunk;
use coreloop::op::{
    BufferTurn, FixedFile, LateBytes, LateSend, Membership, Outlook, Receiver, Submitter,
};

use crate::tcp::{Pace, Receive, TornWrite};

pub(crate) struct Sock {
    file: FixedFile,
    sending: Cell<Sending>,
    /// How far the write is, or was, of which that is.
    written: Cell<TornWrite>,
    /// A receive into a caller's buffer is in flight: one per socket, also if its future was dropped or
    /// forgotten.
    pub(crate) receiving: Cell<bool>,
    pub(crate) membership: Membership,
    /// The one receive that is armed. In here and not in its half, so that a stream is one word: a future
    /// that takes a stream by value holds it twice. Only the reading half looks at it.
    pub(crate) armed: RefCell<Receive>,
    /// How it is armed next. The reading half's too.
    pub(crate) pace: Cell<Pace>,
    late: Cell<Option<Box<Late>>>,
}

/// The socket's last send. There is one at a time, also if its future was dropped or forgotten.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Sending {
    /// Has ended, and its future has heard how.
    #[default]
    Nothing,
    InFlight,
    /// Has ended, and its future has not heard of it. It never does if it was forgotten.
    Unheard,
}

#[derive(Debug, Default)]
struct Late {
    /// What is left of a chunk that a read into a small buffer consumed in part.
    kept: Option<Chunk>,
    bytes: Vec<u8>,
    error: Option<io::Error>,
    torn: Option<TornWrite>,
    recv_waker: Option<Waker>,
    send_waker: Option<Waker>,
}

impl Sock {
    pub(crate) fn new(fd: OwnedFd, submitter: &Submitter) -> Rc<Self> {
        Rc::new(Self {
            file: submitter.file(fd),
            sending: Cell::default(),
            written: Cell::default(),
            receiving: Cell::new(false),
            membership: submitter.join_buffers(),
            armed: RefCell::default(),
            pace: Cell::default(),
            late: Cell::new(None),
        })
    }

    #[inline]
    pub(crate) fn submitter(&self) -> &Submitter {
        self.file.submitter()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.file.into_fd()
    }

    /// Whether what an earlier receive left, or one that is under way into a caller's buffer, comes before
    /// the next chunk. `false` for most sockets at all times.
    #[inline]
    pub(crate) fn has_earlier_receive(&self) -> bool {
        self.receiving.get() || self.has_notes()
    }

    /// Whether an earlier send is under way or may have left a note. `false` for most sockets.
    #[inline]
    pub(crate) fn has_earlier_send(&self) -> bool {
        self.sending.get() != Sending::Nothing || self.has_notes()
    }

    #[inline]
    pub(crate) fn is_sending(&self) -> bool {
        self.sending.get() == Sending::InFlight
    }

    /// A send is under way, of a write that has come so far.
    #[inline]
    pub(crate) fn send_begins(&self, written: TornWrite) {
        self.sending.set(Sending::InFlight);
        self.written.set(written);
    }

    /// The future of a send that has ended knows how.
    #[inline]
    pub(crate) fn send_is_heard_of(&self) {
        self.sending.set(Sending::Nothing);
    }

    #[inline]
    fn has_notes(&self) -> bool {
        let late = self.late.take();
        let any = late.is_some();
        self.late.set(late);
        any
    }

    /// Ready when no receive into a caller's buffer is under way any more.
    pub(crate) fn poll_recv_quiet(&self, cx: &mut Context<'_>) -> Poll<()> {
        let quiet = || !self.receiving.get() || self.submitter().is_closed();
        if quiet() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        // Cloning a foreign waker runs its code, which may have driven the loop.
        if quiet() {
            return Poll::Ready(());
        }
        let old = self.with_late(|late| late.recv_waker.replace(waker));
        drop(old);
        self.submitter().note_earlier_op();
        Poll::Pending
    }

    /// Ready when it is this socket's turn to take a buffer: behind others that ran out before it, in order.
    #[cold]
    pub(crate) fn poll_turn(
        &self,
        cx: &mut Context<'_>,
        turn: &mut Option<BufferTurn>,
    ) -> Poll<()> {
        let waiting = turn.get_or_insert_with(|| self.submitter().wait_for_buffer());
        ready!(waiting.poll(cx));
        *turn = None;
        Poll::Ready(())
    }

    /// The error of a receive, unless it only means that it is to be tried again, in its turn.
    #[cold]
    pub(crate) fn lasting(
        &self,
        e: io::Error,
        many: bool,
        turn: &mut Option<BufferTurn>,
    ) -> Option<io::Error> {
        match e.raw_os_error() {
            // Its own, and its pace is set. If it was the loop's end, the next one is told.
            Some(libc::ECANCELED) if many => {}
            Some(libc::EINVAL) if many => self.pace.set(self.pace.get().never_many()),
            Some(libc::ENOBUFS) => *turn = Some(self.submitter().wait_for_buffer()),
            Some(libc::EINTR) => {}
            _ => return Some(e),
        }
        None
    }

    /// Whether this core's ring does that.
    #[inline]
    pub(crate) fn can_receive_many(&self) -> bool {
        self.submitter().has(Feature::MultishotRecv)
    }

    /// Ready when no send is under way any more.
    pub(crate) fn poll_send_quiet(&self, cx: &mut Context<'_>) -> Poll<()> {
        let quiet = || !self.is_sending() || self.submitter().is_closed();
        if quiet() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        // Cloning a foreign waker runs its code, which may have driven the loop.
        if quiet() {
            return Poll::Ready(());
        }
        let old = self.with_late(|late| late.send_waker.replace(waker));
        drop(old);
        self.submitter().note_earlier_op();
        Poll::Pending
    }

    /// Bytes that came after their receive was dropped; they precede what is yet to come.
    pub(crate) fn take_late_bytes(&self) -> Option<Vec<u8>> {
        let bytes = self.if_late(|late| std::mem::take(&mut late.bytes))?;
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Whether a chunk was kept, or a dropped receive left bytes or an error.
    pub(crate) fn has_late_receive(&self) -> bool {
        let any =
            |late: &mut Late| late.kept.is_some() || !late.bytes.is_empty() || late.error.is_some();
        self.if_late(any).unwrap_or(false)
    }

    /// Keeps a chunk for the next receive.
    pub(crate) fn keep(&self, chunk: Chunk) {
        let old = self.with_late(|late| late.kept.replace(chunk));
        debug_assert!(old.is_none(), "a chunk is kept only when none was");
    }

    /// The chunk that was kept; it precedes everything else.
    pub(crate) fn take_kept(&self) -> Option<Chunk> {
        self.if_late(|late| late.kept.take())?
    }

    /// The error with which a dropped receive ended.
    pub(crate) fn take_late_error(&self) -> Option<io::Error> {
        self.if_late(|late| late.error.take())?
    }

    /// What an earlier write has left undone; no send is under way.
    pub(crate) fn torn(&self) -> Option<TornWrite> {
        self.forgotten().or_else(|| self.if_late(|late| late.torn)?)
    }

    pub(crate) fn take_torn(&self) -> Option<TornWrite> {
        let forgotten = self.forgotten();
        self.send_is_heard_of();
        forgotten.or_else(|| self.if_late(|late| late.torn.take())?)
    }

    /// A write that was forgotten half way. One that was all done, or had not begun, left the stream whole.
    fn forgotten(&self) -> Option<TornWrite> {
        let written = self.written.get();
        let torn = self.sending.get() == Sending::Unheard
            && 0 < written.sent
            && written.sent < written.len;
        torn.then_some(written)
    }

    /// Notes that so many bytes of a write that was dropped had been sent before its current op.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_torn(&self, torn: TornWrite) {
        self.with_late(|late| late.torn = Some(torn));
    }

    /// A write that waits for the end of the one before it may begin.
    #[cold]
    #[inline(never)]
    fn wake_next_writer(&self) {
        if let Some(waker) = self.if_late(|late| late.send_waker.take()).flatten() {
            self.submitter().wake_soon(waker);
        }
    }

    /// `f` runs no code of a user's, so it does not come back here.
    fn with_late<R>(&self, f: impl FnOnce(&mut Late) -> R) -> R {
        let mut late = self.late.take().unwrap_or_default();
        let result = f(&mut late);
        self.late.set(Some(late));
        result
    }

    fn if_late<R>(&self, f: impl FnOnce(&mut Late) -> R) -> Option<R> {
        let mut late = self.late.take()?;
        let result = f(&mut late);
        self.late.set(Some(late));
        Some(result)
    }
}

impl fmt::Debug for Sock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sock").field("fd", &self.file.as_fd()).finish_non_exhaustive()
    }
}

impl AsFd for Sock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The socket as an op holds it: the descriptor stays open until the op's completion.
#[derive(Clone, Debug)]
pub(crate) struct Held(Rc<Sock>);

impl Held {
    /// For one op.
    #[inline]
    pub(crate) fn of(sock: &Rc<Sock>) -> Self {
        sock.file.note_op();
        Self(sock.clone())
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Receiver for Held {
    #[inline]
    fn received(&self, bytes: u32, at_once: bool) -> bool {
        let pace = self.0.pace.get();
        self.0.pace.set(pace.after(bytes as usize, at_once));
        pace.may_be_many(bytes as usize)
    }

    #[inline]
    fn outlook(&self) -> Outlook {
        self.0.pace.get().outlook(self.0.can_receive_many())
    }

    #[cold]
    fn missed(&self) {
        self.0.pace.set(self.0.pace.get().after_miss());
    }
}

impl LateBytes for Held {
    fn recv_ended(&self) {
        self.0.receiving.set(false);
        if let Some(waker) = self.0.if_late(|late| late.recv_waker.take()).flatten() {
            self.0.submitter().wake_soon(waker);
        }
    }

    fn late_bytes(&self, bytes: &[u8]) {
        self.0.with_late(|late| late.bytes.extend_from_slice(bytes));
    }

    fn late_error(&self, error: io::Error) {
        self.0.with_late(|late| late.error = Some(error));
    }
}

impl LateSend for Held {
    fn send_ended(&self, sent: usize) {
        self.0.sending.set(Sending::Unheard);
        let TornWrite { sent: before, len } = self.0.written.get();
        self.0.written.set(TornWrite { sent: before + sent, len });
        if self.0.has_notes() {
            self.0.wake_next_writer();
        }
    }

    fn late_send(&self, sent: io::Result<usize>, asked: usize) {
        let sent = sent.unwrap_or(0);
        self.0.send_is_heard_of();
        self.0.with_late(|late| {
            // The write noted what its earlier ops had sent; this op's share is added. A write that was
            // all done, or had not begun, leaves the stream whole.
            if let Some(torn) = &mut late.torn {
                torn.sent += sent;
                if torn.sent == 0 || torn.sent == torn.len {
                    late.torn = None;
                }
            }
            debug_assert!(sent <= asked);
        });
    }
}
