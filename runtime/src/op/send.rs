//! Sending.
//!
//! Owns [`Send`] (one buffer) and [`SendMany`] (several in one call). A send that is cancelled may have
//! been half done: the count goes to whoever holds the descriptor, so that the next send can know.

use std::io;
use std::os::fd::AsFd;

use super::{Cqe, Op, Sqe};
use crate::buf::{BufError, BufResult, IoBuf};
use crate::sys::abi::opcode;

/// Who is told of a send's end, and how it ended if its handle was gone.
pub trait LateSend: AsFd + 'static {
    /// The send has ended, after so many bytes; another may be started. Called first, also if the handle was
    /// forgotten.
    fn send_ended(&self, sent: usize);

    /// Of `asked` bytes so many were sent, or none for this reason.
    fn late_send(&self, sent: io::Result<usize>, asked: usize);
}

/// A send of a buffer's bytes from `offset` on.
pub struct Send<H: LateSend, B: IoBuf> {
    socket: H,
    buf: B,
    offset: usize,
    flags: i32,
    opcode: u8,
}

impl<H: LateSend, B: IoBuf> Send<H, B> {
    /// A send with `MSG_*` flags: MSG_NOSIGNAL is always added, and of the others MSG_WAITALL, MSG_MORE and
    /// MSG_DONTWAIT count. (MSG_ZEROCOPY, for one, would let the kernel read on after the completion.)
    ///
    /// # Panics
    /// If `offset` lies behind the end of the buffer.
    pub fn new(socket: H, buf: B, offset: usize, flags: i32) -> Self {
        assert!(offset <= buf.len(), "a send from {offset} of {} bytes", buf.len());
        Self { socket, buf, offset, flags, opcode: opcode::SEND }
    }

    /// Has the kernel send from the buffer itself, without a copy, if it can (Linux 6.0,
    /// [`Feature::SendZc`](crate::Feature::SendZc)). The op then ends when the peer has acknowledged all
    /// of it; ENOMEM says that the kernel could not, and EOPNOTSUPP that this kind of socket can't.
    #[must_use]
    #[inline]
    pub fn zero_copy(mut self, on: bool) -> Self {
        self.opcode = if on { opcode::SEND_ZC } else { opcode::SEND };
        self
    }

    fn asked(&self) -> usize {
        self.buf.len().saturating_sub(self.offset)
    }
}

// SAFETY: the buffer's memory does not move and holds its bytes (IoBuf) until the completion; the
// descriptor lives with `socket`.
unsafe impl<H: LateSend, B: IoBuf> Op for Send<H, B> {
    type Out = BufResult<usize, B>;

    fn prepare(&mut self) -> Sqe {
        let len = self.asked().min(MOST) as u32;
        let from = self.buf.as_ptr().wrapping_add(self.offset);
        Sqe::send(self.socket.as_fd(), from, len, allowed(self.flags)).with_op_code(self.opcode)
    }

    unsafe fn completed(&mut self, cqe: Cqe) {
        self.socket.send_ended(cqe.raw_result().max(0) as usize);
    }

    #[inline(always)]
    unsafe fn finish(self, cqe: Cqe) -> Self::Out {
        // In parts: what has a destructor that may need its address is kept apart from what is moved on.
        let Self { socket, buf, .. } = self;
        drop(socket);
        match cqe.result() {
            Ok(n) => Ok((n as usize, buf)),
            Err(e) => Err(BufError::new(e, buf)),
        }
    }

    unsafe fn orphaned(self, cqe: Cqe) {
        self.socket.late_send(cqe.result().map(|n| n as usize), self.asked());
    }
}

/// Bytes of a send at most: what the kernel takes at a time (MAX_RW_COUNT). With MSG_WAITALL kernels
/// before 6.10 go on beyond it, and their count, of 32 bits, comes out as an error.
const MOST: usize = 0x7fff_f000;

fn allowed(flags: i32) -> i32 {
    flags & (libc::MSG_WAITALL | libc::MSG_MORE | libc::MSG_DONTWAIT) | libc::MSG_NOSIGNAL
}

/// One `sendmsg(2)` of several buffers, from `offset` bytes into them on.
pub struct SendMany<H: LateSend, B: IoBuf> {
    socket: H,
    bufs: Vec<B>,
    offset: usize,
    flags: i32,
    /// The kernel reads both until the completion: heap memory, touched by nobody meanwhile.
    vectors: Vec<libc::iovec>,
    message: Vec<libc::msghdr>,
}

/// Buffers that one call takes, `UIO_MAXIOV` of `sendmsg(2)`; the rest is for the next call.
pub(crate) const VECTORS_MAX: usize = 1024;

impl<H: LateSend, B: IoBuf> SendMany<H, B> {
    /// A send of at most 1,024 of these buffers, with `MSG_*` flags as for [`Send::new`].
    pub fn new(socket: H, bufs: Vec<B>, offset: usize, flags: i32) -> Self {
        Self { socket, bufs, offset, flags, vectors: Vec::new(), message: Vec::new() }
    }

    fn asked(&self) -> usize {
        self.vectors.iter().map(|v| v.iov_len).sum()
    }
}

// SAFETY: the buffers' memory does not move and holds its bytes (IoBuf); the vectors and the header lie on
// the heap and are not touched between `prepare` and the completion; the descriptor lives with `socket`.
unsafe impl<H: LateSend, B: IoBuf> Op for SendMany<H, B> {
    type Out = BufResult<usize, Vec<B>>;

    fn prepare(&mut self) -> Sqe {
        let mut skip = self.offset;
        self.vectors.reserve_exact(self.bufs.len().min(VECTORS_MAX));
        for buf in &self.bufs {
            let len = buf.len();
            if skip >= len {
                skip -= len;
                continue;
            }
            if self.vectors.len() == VECTORS_MAX {
                break;
            }
            let base = buf.as_ptr().wrapping_add(skip).cast_mut().cast();
            self.vectors.push(libc::iovec { iov_base: base, iov_len: len - skip });
            skip = 0;
        }
        // SAFETY: all-zero bytes are a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = self.vectors.as_mut_ptr();
        message.msg_iovlen = self.vectors.len();
        self.message = vec![message];
        Sqe::sendmsg(self.socket.as_fd(), self.message.as_ptr(), allowed(self.flags))
    }

    unsafe fn completed(&mut self, cqe: Cqe) {
        self.socket.send_ended(cqe.raw_result().max(0) as usize);
    }

    unsafe fn finish(self, cqe: Cqe) -> Self::Out {
        match cqe.result() {
            Ok(n) => Ok((n as usize, self.bufs)),
            Err(e) => Err(BufError::new(e, self.bufs)),
        }
    }

    unsafe fn orphaned(self, cqe: Cqe) {
        self.socket.late_send(cqe.result().map(|n| n as usize), self.asked());
    }
}
