//! Receiving for a busy connection.
//!
//! Owns [`RecvMany`]: one submission, a chunk for each arrival (6.0). The chunks wait in the op until
//! somebody asks; past a limit the op ends itself, so that a slow reader pushes back on its peer.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::rc::Rc;

use super::recv::stranger;
use super::{Cqe, Series, SeriesOp, Sqe, Submitter};
use crate::buf::Chunk;
use crate::driver::pool::{GROUP, Membership, Pool};
use crate::planted::{self, Fault};

/// Chunks that may wait for their reader before the op asks for its own end. What the kernel brings before
/// it sees that comes still: 32 at a time (`MULTISHOT_MAX_RETRY`), several times in one enter, up to the
/// limit that it was told (6.17), else at most what lay in the socket or what buffers were in the ring.
/// Beyond a socket's quota they are copies.
const WAITING_MAX: usize = 4;

/// Receives that go on until the stream ends, an error, a cancel, a reader that does not keep up, as many
/// chunks as were asked for, or 64 KiB (6.17).
///
/// Holds no buffer while nothing arrives.
///
/// Made by [`Submitter::recv_many`] alone, which sees to it that buffers and ring belong together.
pub struct RecvMany<H> {
    socket: H,
    /// Who knows the buffers.
    pool: Rc<Pool>,
    /// The oldest.
    first: Option<Chunk>,
    /// Those behind it, copies among them. Allocated when the reader first falls behind; boxed, since the op
    /// is to fit into its slot.
    #[expect(clippy::box_collection)]
    rest: Option<Box<VecDeque<Chunk>>>,
    member: u32,
    /// Bytes until the kernel ends it, or 0.
    limit: u32,
    /// Chunks until it ends itself.
    left: u16,
    /// Its reader did not keep up.
    behind: bool,
}

/// How a [`RecvMany`] ended, after all its chunks.
#[derive(Debug)]
pub struct RecvManyEnd {
    /// What the last completion brought: 0 bytes at the end of the stream; more, which came as a chunk, if
    /// the kernel only wants to be asked again; ECANCELED if the op was cancelled, by itself or others.
    pub result: io::Result<u32>,
    /// It ended itself because chunks lay there that nobody asked for.
    pub behind: bool,
}

// SAFETY: the submission names no memory; the descriptor lives with `socket`. The hooks move chunks about,
// which are the driver's own.
unsafe impl<H: AsFd + 'static> SeriesOp for RecvMany<H> {
    type Item = Chunk;
    type End = RecvManyEnd;

    fn prepare(&mut self) -> Sqe {
        Sqe::recv_multi(self.socket.as_fd(), GROUP, self.limit)
    }

    #[inline]
    unsafe fn completed(&mut self, cqe: Cqe) -> ControlFlow<()> {
        let Some(bid) = cqe.buffer() else { return ControlFlow::Continue(()) };
        let len = cqe.result().unwrap_or(0);
        if len > 0 {
            self.pool.ways().received_unasked();
        }
        let chunk = self.pool.received(bid, len, self.member);
        if self.first.is_none() && self.rest.as_ref().is_none_or(|rest| rest.is_empty()) {
            self.first = chunk;
        } else if let Some(chunk) = chunk {
            self.line_up(chunk);
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    #[inline]
    fn next(&mut self) -> Option<Chunk> {
        // With one in `first`, the others are younger.
        self.first.take().or_else(|| self.rest.as_mut()?.pop_front())
    }

    unsafe fn finish(self, cqe: Cqe) -> Self::End {
        let mut result = cqe.result();
        if self.limit > 0 && matches!(&result, Err(e) if e.raw_os_error() == Some(libc::EINVAL)) {
            // An older kernel, which knows no limit: the next one goes without.
            self.pool.ways().receive_without_limit();
            result = Ok(1);
        }
        RecvManyEnd { result, behind: self.behind }
    }
}

impl<H> RecvMany<H> {
    #[cold]
    fn line_up(&mut self, chunk: Chunk) {
        if planted::is(Fault::DroppedReceive, 3) {
            return drop(chunk);
        }
        let rest = self.rest.get_or_insert_default();
        rest.push_back(chunk);
        if rest.len() >= WAITING_MAX {
            self.behind = true;
            self.left = 0;
        }
    }
}

impl Submitter {
    /// Receives on `socket` until told otherwise; see [`RecvMany`]. Only where
    /// [`Feature::MultishotRecv`](crate::Feature::MultishotRecv) is in force. After `shots` chunks (0
    /// is 1) it ends itself, so that whoever armed it looks again whether it pays.
    ///
    /// # Cancel safety
    /// As for [`recv_chunk`](Self::recv_chunk).
    ///
    /// # Errors
    /// As [`start`](Self::start); `InvalidInput` for a membership of another loop.
    pub fn recv_many<H: AsFd + 'static>(
        &self,
        socket: H,
        member: &Membership,
        shots: u16,
    ) -> io::Result<Series<RecvMany<H>>> {
        if !self.has_member(member) {
            return Err(stranger());
        }
        let (pool, member) = (member.pool().clone(), member.id());
        let limit = pool.ways().receive_limit();
        let (first, rest, left, behind) = (None, None, shots, false);
        let op = RecvMany { socket, pool, first, rest, member, limit, left, behind };
        self.start_series(op).map_err(|end| match end.result {
            Ok(_) => io::Error::from_raw_os_error(libc::ECANCELED),
            Err(e) => e,
        })
    }
}
