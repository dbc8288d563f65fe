//! Small ops: nothing at all, readiness, and a plain read.
//!
//! Owns [`Nop`], [`PollOnce`] and [`Read`]; what pipes, eventfds and tests need.

use std::io;
use std::os::fd::AsFd;

use super::{Cqe, Op, Sqe};
use crate::buf::{BufError, BufResult, IoBufMut};

/// Does nothing; ends with the next turn's completions.
#[derive(Debug)]
pub struct Nop;

// SAFETY: names neither memory nor descriptor.
unsafe impl Op for Nop {
    type Out = io::Result<()>;

    fn prepare(&mut self) -> Sqe {
        Sqe::nop()
    }

    unsafe fn finish(self, cqe: Cqe) -> io::Result<()> {
        cqe.result().map(|_| ())
    }
}

/// Waits until a descriptor is ready, as `poll(2)` says it; ends with the events that are there.
#[derive(Debug)]
pub struct PollOnce<H> {
    file: H,
    events: u32,
}

impl<H: AsFd + 'static> PollOnce<H> {
    /// Waits for any of the `POLL*` events.
    pub fn new(file: H, events: u32) -> Self {
        Self { file, events }
    }
}

// SAFETY: names no memory; the descriptor lives with `file`.
unsafe impl<H: AsFd + 'static> Op for PollOnce<H> {
    type Out = io::Result<u32>;

    fn prepare(&mut self) -> Sqe {
        Sqe::poll(self.file.as_fd(), self.events)
    }

    unsafe fn finish(self, cqe: Cqe) -> io::Result<u32> {
        cqe.result()
    }
}

/// A read at the file's own position, as from a pipe.
#[derive(Debug)]
pub struct Read<H, B> {
    file: H,
    buf: B,
}

impl<H: AsFd + 'static, B: IoBufMut> Read<H, B> {
    /// A read of at most the buffer's capacity.
    ///
    /// # Cancel safety
    /// What has been read goes with a handle that is dropped: cancel it and poll it to its end instead.
    pub fn new(file: H, buf: B) -> Self {
        Self { file, buf }
    }
}

// SAFETY: the buffer's memory does not move (IoBufMut) and is not used until the completion; the descriptor
// lives with `file`.
unsafe impl<H: AsFd + 'static, B: IoBufMut> Op for Read<H, B> {
    type Out = BufResult<usize, B>;

    fn prepare(&mut self) -> Sqe {
        let room = u32::try_from(self.buf.capacity()).unwrap_or(u32::MAX);
        Sqe::read(self.file.as_fd(), self.buf.as_mut_ptr(), room, u64::MAX)
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
}
