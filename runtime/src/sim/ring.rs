//! The memory of one ring's queues, from the kernel's side.
//!
//! Owns [`Queues`]: submission and completion ring in one allocation, in the kernel's own layout, and the
//! kernel's half of the head and tail protocol. Invariants: the memory lives until both the user's mapping
//! and the kernel's ring are gone; a submission that was consumed is overwritten at once, so that what is
//! left in its place is seen to be none.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::ops::RawSqe;
use crate::sys::abi::{CqOffsets, RawCqe, SqOffsets};

/// Where things lie, as `struct io_rings` has them.
const SQ_HEAD: usize = 0;
const SQ_TAIL: usize = 4;
const CQ_HEAD: usize = 8;
const CQ_TAIL: usize = 12;
const SQ_MASK: usize = 16;
const CQ_MASK: usize = 20;
const SQ_ENTRIES: usize = 24;
const CQ_ENTRIES: usize = 28;
const SQ_DROPPED: usize = 32;
const SQ_FLAGS: usize = 36;
const CQ_FLAGS: usize = 40;
const CQ_OVERFLOW: usize = 44;
const CQES: usize = 64;

/// Stands in a submission that has been consumed, in the place of its opcode.
const CONSUMED: u8 = 0xFF;

pub(super) struct Queues {
    rings: Block,
    sqes: Block,
    pub(super) sq_entries: u32,
    pub(super) cq_entries: u32,
    array: Option<usize>,
}

impl Queues {
    /// Queues of so many entries, both powers of two.
    pub(super) fn new(sq_entries: u32, cq_entries: u32, with_array: bool) -> Self {
        let cqes = CQES + cq_entries as usize * size_of::<RawCqe>();
        let len = cqes + if with_array { sq_entries as usize * 4 } else { 0 };
        let this = Self {
            rings: Block::zeroed(len),
            sqes: Block::zeroed(sq_entries as usize * size_of::<RawSqe>()),
            sq_entries,
            cq_entries,
            array: with_array.then_some(cqes),
        };
        for (at, value) in [
            (SQ_MASK, sq_entries - 1),
            (CQ_MASK, cq_entries - 1),
            (SQ_ENTRIES, sq_entries),
            (CQ_ENTRIES, cq_entries),
        ] {
            this.word(at).store(value, Ordering::Relaxed);
        }
        for at in 0..sq_entries {
            this.consume(at);
        }
        this
    }

    pub(super) fn offsets(&self) -> (SqOffsets, CqOffsets) {
        let sq = SqOffsets {
            head: SQ_HEAD as u32,
            tail: SQ_TAIL as u32,
            ring_mask: SQ_MASK as u32,
            ring_entries: SQ_ENTRIES as u32,
            flags: SQ_FLAGS as u32,
            dropped: SQ_DROPPED as u32,
            array: self.array.unwrap_or(0) as u32,
            ..SqOffsets::default()
        };
        let cq = CqOffsets {
            head: CQ_HEAD as u32,
            tail: CQ_TAIL as u32,
            ring_mask: CQ_MASK as u32,
            ring_entries: CQ_ENTRIES as u32,
            overflow: CQ_OVERFLOW as u32,
            cqes: CQES as u32,
            flags: CQ_FLAGS as u32,
            ..CqOffsets::default()
        };
        (sq, cq)
    }

    pub(super) fn rings(&self) -> NonNull<u8> {
        self.rings.addr
    }

    pub(super) fn sqes(&self) -> NonNull<u8> {
        self.sqes.addr
    }

    /// Submissions that were published and not consumed. More than the queue holds is a broken tail.
    pub(super) fn published(&self) -> u32 {
        let tail = self.word(SQ_TAIL).load(Ordering::Acquire);
        tail.wrapping_sub(self.word(SQ_HEAD).load(Ordering::Relaxed))
    }

    /// Takes the next submission that was published; none if its index is out of range.
    pub(super) fn take_submission(&self) -> Option<RawSqe> {
        let head = self.word(SQ_HEAD).load(Ordering::Relaxed);
        let at = self.place(head);
        self.word(SQ_HEAD).store(head.wrapping_add(1), Ordering::Release);
        if at >= self.sq_entries {
            self.word(SQ_DROPPED).fetch_add(1, Ordering::Relaxed);
            return None;
        }
        // SAFETY: `at` is below the number of entries; the user published it and leaves it alone until
        // the head says that it was consumed, which on this one thread it can see after we return.
        let sqe = unsafe { self.sqe(at).read() };
        self.consume(at);
        Some(sqe)
    }

    /// Submissions that were written and not consumed, published or not.
    pub(super) fn written(&self) -> impl Iterator<Item = RawSqe> + '_ {
        let head = self.word(SQ_HEAD).load(Ordering::Relaxed);
        (0..self.sq_entries)
            .map(move |n| self.place(head.wrapping_add(n)))
            .take_while(|at| *at < self.sq_entries)
            // SAFETY: below the number of entries; nobody writes while we read, on this one thread.
            .map(|at| unsafe { self.sqe(at).read() })
            .take_while(|sqe| sqe.opcode != CONSUMED)
    }

    fn place(&self, position: u32) -> u32 {
        let at = position & (self.sq_entries - 1);
        match self.array {
            Some(array) => self.word(array + at as usize * 4).load(Ordering::Relaxed),
            None => at,
        }
    }

    fn consume(&self, at: u32) {
        // SAFETY: below the number of entries, and the kernel's until the user writes the next one there.
        unsafe { (&raw mut (*self.sqe(at)).opcode).write(CONSUMED) };
    }

    fn sqe(&self, at: u32) -> *mut RawSqe {
        self.sqes.addr.as_ptr().cast::<RawSqe>().wrapping_add(at as usize)
    }

    /// Completions that lie in the queue.
    pub(super) fn unread(&self) -> u32 {
        let tail = self.word(CQ_TAIL).load(Ordering::Relaxed);
        tail.wrapping_sub(self.word(CQ_HEAD).load(Ordering::Acquire))
    }

    /// Puts a completion into the queue; `false` if it is full.
    pub(super) fn complete(&self, cqe: RawCqe) -> bool {
        if self.unread() >= self.cq_entries {
            return false;
        }
        let tail = self.word(CQ_TAIL).load(Ordering::Relaxed);
        let at = (tail & (self.cq_entries - 1)) as usize;
        // SAFETY: `at` is below the number of entries, and the user has read what stood there: the queue is
        // not full.
        unsafe { self.rings.addr.as_ptr().add(CQES).cast::<RawCqe>().add(at).write(cqe) };
        self.word(CQ_TAIL).store(tail.wrapping_add(1), Ordering::Release);
        true
    }

    pub(super) fn set_flag(&self, flag: u32, on: bool) {
        if on {
            self.word(SQ_FLAGS).fetch_or(flag, Ordering::Release);
        } else {
            self.word(SQ_FLAGS).fetch_and(!flag, Ordering::Release);
        }
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        debug_assert!(at + 4 <= self.rings.layout.size());
        // SAFETY: `at` is a multiple of 4 within the block; both sides use these words as atomics.
        unsafe { AtomicU32::from_ptr(self.rings.addr.as_ptr().add(at).cast()) }
    }
}

/// A page-aligned allocation.
struct Block {
    addr: NonNull<u8>,
    layout: Layout,
}

impl Block {
    fn zeroed(len: usize) -> Self {
        let layout =
            Layout::from_size_align(len.max(1), 4096).expect("queues are a few MiB at most");
        // SAFETY: the layout has a size above 0.
        let addr = unsafe { alloc_zeroed(layout) };
        let addr = NonNull::new(addr).unwrap_or_else(|| handle_alloc_error(layout));
        Self { addr, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this layout; the last owner goes.
        unsafe { dealloc(self.addr.as_ptr(), self.layout) };
    }
}
