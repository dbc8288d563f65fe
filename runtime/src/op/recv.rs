//! Receiving.
//!
//! Owns [`RecvChunk`] (into whichever buffer of the core's ring is free when data is there) and [`Recv`]
//! (into a buffer of the caller's). What the second brings after its handle is gone is not lost: it goes to
//! whoever holds the descriptor. A chunk goes with the handle: whoever wants it keeps that.

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::Waker;

use super::{Cqe, InFlight, Op, Sqe, Submitter};
use crate::buf::{BufError, BufResult, Chunk, IoBufMut};
use crate::driver::pool::{GROUP, Membership, Pool};
use crate::planted::{self, Fault};

/// Who is told of a receive's end, and of what it brought after its handle was gone.
pub trait LateBytes: AsFd + 'static {
    /// The receive has ended; another may be started. Called first, also if the handle was forgotten.
    fn recv_ended(&self);

    /// These bytes were received, in order, after whatever came before.
    fn late_bytes(&self, bytes: &[u8]);

    /// The receive met this error.
    fn late_error(&self, error: io::Error);
}

/// Who hears how a receive went.
pub trait Receiver: AsFd + 'static {
    /// So many bytes arrived in a buffer; `at_once` if they came with the enter that submitted the
    /// receive, and the core did not wait: they were there before they were asked for. Whether that says
    /// anything about which way of receiving pays on this core: it does of messages that could as well
    /// have come by a [`RecvMany`](super::RecvMany). Must not wait.
    fn received(&self, bytes: u32, at_once: bool) -> bool {
        let _ = (bytes, at_once);
        false
    }

    /// What is known of the bytes of a receive that is made now. Must not wait.
    fn outlook(&self) -> Outlook {
        Outlook::Unknown
    }

    /// Bytes that were said to be [there](Outlook::There) were not. Must not wait.
    fn missed(&self) {}
}

/// What is known of the bytes of a receive before it is submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Nothing, and nobody asks.
    Unknown,
    /// Nothing, and it matters whether they have to be waited for: the loop makes sure to know, its
    /// next enter does not sleep.
    Asked,
    /// They are there, most likely. Then the receive takes a buffer along: that saves the kernel the
    /// search for one. If they aren't, it does not wait with it, but ends with EINTR.
    There,
}

/// A receive that holds no buffer while it waits for data.
///
/// Ends with the bytes, with none at the end of the stream, or with an error; ENOBUFS means that all of
/// the core's buffers were in use, EINTR that it is to be tried again.
///
/// Made by [`Submitter::recv_chunk`] alone, which sees to it that buffers and ring belong together.
pub struct RecvChunk<H> {
    socket: H,
    /// Who knows the buffers.
    pool: Rc<Pool>,
    /// What arrived; or from the start the memory that the submission names.
    chunk: Option<Chunk>,
    member: u32,
    /// When it was made, in the steps of [`Ways`](crate::driver::ways::Ways).
    asked: u32,
    /// What was said to be there was not.
    missed: bool,
}

impl<H: Receiver> RecvChunk<H> {
    /// One, and whether it matters if it has to wait.
    fn new(socket: H, member: &Membership) -> (Self, bool) {
        let outlook = socket.outlook();
        let chunk = match outlook {
            Outlook::There => member.pool().take_spare(),
            _ => None,
        };
        // One for whom there is no spare buffer is a plain one, and is asked about like those.
        let asks = outlook == Outlook::Asked || outlook == Outlook::There && chunk.is_none();
        let op = Self {
            socket,
            pool: member.pool().clone(),
            chunk,
            member: member.id(),
            asked: member.pool().ways().asks(),
            missed: false,
        };
        (op, asks && member.pool().has_ring())
    }

    /// What did not come in the kernel's buffer or in the one that was named: an error, the end of the
    /// stream, bytes for a socket that holds enough buffers, or in memory of the op's own.
    // Apart: most ops end without what this may have to drop.
    #[inline(never)]
    fn completed_otherwise(&mut self, cqe: Cqe, len: u32) {
        let Some(named) = self.chunk.take() else { return };
        let there = !named.is_copy();
        if len == 0 {
            self.missed = there && cqe.result().is_err_and(|e| is_again(&e));
        } else {
            self.chunk = Some(self.pool.received_into(named, len, self.member));
        }
        if self.missed {
            self.socket.missed();
        } else if there {
            self.received(len, true);
        }
    }

    /// So many bytes have come.
    #[inline]
    fn received(&self, bytes: u32, at_once: bool) {
        if bytes > 0 && self.socket.received(bytes, at_once) {
            self.pool.ways().received(at_once);
        }
    }
}

// SAFETY: the submission names no memory, or that of a chunk of the op's own, which does not move and which
// nobody touches until the completion; the descriptor lives with `socket`.
unsafe impl<H: Receiver> Op for RecvChunk<H> {
    type Out = io::Result<Option<Chunk>>;

    #[inline]
    fn prepare(&mut self) -> Sqe {
        let size = self.pool.buffer_size();
        let has_ring = self.pool.has_ring();
        let (address, flags) = match &self.chunk {
            Some(chunk) => (chunk.address(), libc::MSG_DONTWAIT),
            None if has_ring => return Sqe::recv_select(self.socket.as_fd(), GROUP),
            None => (self.chunk.insert(Chunk::zeroed(size)).address(), 0),
        };
        Sqe::recv(self.socket.as_fd(), address, size, flags)
    }

    #[inline]
    unsafe fn completed(&mut self, cqe: Cqe) {
        let len = cqe.result().unwrap_or(0);
        if let Some(bid) = cqe.buffer() {
            let at_once = self.pool.ways().was_there(self.asked);
            let chunk = self.pool.received(bid, len, self.member);
            let named = mem::replace(&mut self.chunk, chunk);
            debug_assert!(named.is_none(), "the kernel chooses a buffer where none was named");
            // Nothing to drop, as the compiler can't know.
            mem::forget(named);
            self.received(len, at_once);
        } else if len > 0
            && let Some(named) = &mut self.chunk
            && self.pool.keep_received(named, len, self.member)
        {
            self.received(len, true);
        } else {
            self.completed_otherwise(cqe, len);
        }
    }

    #[inline(always)]
    unsafe fn finish(self, cqe: Cqe) -> Self::Out {
        // In parts: what has a destructor that may need its address is kept apart from what is moved on.
        let Self { socket, pool, chunk, member: _, asked: _, missed } = self;
        drop((socket, pool));
        if missed {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        cqe.result()?;
        Ok(chunk)
    }
}

#[cold]
fn is_again(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::EAGAIN)
}

/// A receive into the caller's buffer, which it fills from the start.
pub struct Recv<H: LateBytes, B: IoBufMut> {
    socket: H,
    buf: B,
}

impl<H: LateBytes, B: IoBufMut> Recv<H, B> {
    /// A receive of at most the buffer's capacity. There are no `MSG_*` flags to give: some make the
    /// result differ from what was written into the buffer.
    pub fn new(socket: H, buf: B) -> Self {
        Self { socket, buf }
    }
}

// SAFETY: the buffer's memory does not move (IoBufMut) and is reached through `buf` alone, which nobody
// uses before the completion; the descriptor lives with `socket`.
unsafe impl<H: LateBytes, B: IoBufMut> Op for Recv<H, B> {
    type Out = BufResult<usize, B>;

    fn prepare(&mut self) -> Sqe {
        let room = u32::try_from(self.buf.capacity()).unwrap_or(u32::MAX);
        Sqe::recv(self.socket.as_fd(), self.buf.as_mut_ptr(), room, 0)
    }

    unsafe fn completed(&mut self, _: Cqe) {
        self.socket.recv_ended();
    }

    unsafe fn finish(mut self, cqe: Cqe) -> Self::Out {
        match cqe.result() {
            Ok(n) => {
                // SAFETY: the kernel wrote `n` bytes, at most the capacity.
                unsafe { self.buf.set_len(n as usize) };
                Ok((n as usize, self.buf))
            }
            Err(e) => Err(BufError::new(e, self.buf)),
        }
    }

    unsafe fn orphaned(mut self, cqe: Cqe) {
        match cqe.result() {
            // The bytes are dropped with their buffer, and the stream has a hole.
            Ok(_) if planted::is(Fault::DroppedReceive, 1) => {}
            Ok(n) => {
                let n = (n as usize).min(self.buf.capacity());
                // SAFETY: the kernel wrote `n` bytes, at most the capacity.
                let bytes = unsafe { std::slice::from_raw_parts(self.buf.as_mut_ptr(), n) };
                self.socket.late_bytes(bytes);
            }
            // Both only say that our cancel reached it; the second, that it had gone to a worker.
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {
                if planted::is(Fault::LateInterrupt, 1) {
                    self.socket.late_error(e);
                }
            }
            Err(e) if e.raw_os_error() == Some(libc::ECANCELED) => {}
            Err(e) => self.socket.late_error(e),
        }
    }
}

#[cold]
pub(super) fn stranger() -> io::Error {
    let why = "this membership belongs to another loop's buffers";
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

impl Submitter {
    /// A receive on `socket` as this core does it; see [`RecvChunk`].
    ///
    /// # Cancel safety
    /// A chunk that has arrived goes with a handle that is dropped, and the stream has a hole. To call a
    /// receive off, [cancel](InFlight::cancel) it and poll it to its end, or keep it for the next one, as
    /// `coreloop_net::TcpStream` does.
    ///
    /// # Errors
    /// As [`start`](Self::start), and `InvalidInput` for a membership of another loop.
    pub fn recv_chunk<H: Receiver>(
        &self,
        socket: H,
        member: &Membership,
    ) -> Result<InFlight<RecvChunk<H>>, io::Result<Option<Chunk>>> {
        if !self.has_member(member) {
            return Err(Err(stranger()));
        }
        let (op, judged) = RecvChunk::new(socket, member);
        let started = self.start(op);
        self.judge(judged);
        started
    }

    /// As [`recv_chunk`](Self::recv_chunk), with the waker of a task that waits for it from now on.
    ///
    /// # Errors
    /// As [`recv_chunk`](Self::recv_chunk).
    #[inline]
    pub fn recv_chunk_for<H: Receiver>(
        &self,
        socket: H,
        member: &Membership,
        waker: Waker,
    ) -> Result<InFlight<RecvChunk<H>>, io::Result<Option<Chunk>>> {
        if !self.has_member(member) {
            return Err(Err(stranger()));
        }
        let (op, judged) = RecvChunk::new(socket, member);
        let started = self.start_for(op, waker);
        self.judge(judged);
        started
    }

    /// Of the receive that was started just now it matters whether it has to wait. Not before it is written:
    /// a full queue may be entered for it.
    #[inline]
    fn judge(&self, judged: bool) {
        if judged {
            self.driver.pool().ways().judge();
        }
    }

    #[inline]
    pub(super) fn has_member(&self, member: &Membership) -> bool {
        Rc::ptr_eq(member.pool(), self.driver.pool())
    }
}
