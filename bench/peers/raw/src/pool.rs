//! The shared buffers, as a ring that the kernel takes from, and the connections that wait for
//! one.
//!
//! A buffer is in the ring, or held (between the completion that brings it and
//! [`BufferRing::release`]). Releases become visible to the kernel at the turn's end: it looks
//! only during an enter.
//!
//! The count of free buffers is an upper bound: completions that are not yet seen hold some. So
//! an armed receive may still find none; it then waits in line again.

use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::memory::Region;
use crate::options::RingServerOptions;
use crate::ring::BUFFER_GROUP;

/// Buffers of one size, provided to the kernel in the order of their return.
pub struct BufferRing {
    entries: NonNull<BufRingEntry>,
    /// The kernel's view of `tail`.
    published_tail: NonNull<AtomicU16>,
    tail: u16,
    mask: u16,
    buffers: Region,
    buffer_size: u32,
    stride: usize,
    count: u32,
    held: u32,
}

impl BufferRing {
    /// Maps the buffers and hands all of them to the kernel.
    pub fn new(submitter: &Submitter<'_>, options: &RingServerOptions) -> io::Result<Self> {
        let count = options.buffers;
        let entry_count = count.next_power_of_two();
        let buffer_size = options.server.buffer_size;
        let stride = buffer_size as usize + options.stride_pad as usize;
        let entries = Region::new(usize::from(entry_count) * size_of::<BufRingEntry>(), false)?
            .start()
            .cast::<BufRingEntry>();
        // SAFETY: the region is zeroed, page-aligned, long enough, and never unmapped.
        let published_tail = unsafe {
            submitter.register_buf_ring_with_flags(
                entries.as_ptr() as u64,
                entry_count,
                BUFFER_GROUP,
                0,
            )?;
            NonNull::new_unchecked(BufRingEntry::tail(entries.as_ptr()).cast_mut()).cast()
        };
        let mut ring = Self {
            entries,
            published_tail,
            tail: 0,
            mask: entry_count - 1,
            buffers: Region::new(usize::from(count) * stride, options.huge)?,
            buffer_size,
            stride,
            count: u32::from(count),
            held: u32::from(count),
        };
        for id in 0..count {
            ring.release(id);
        }
        ring.publish();
        Ok(ring)
    }

    /// Bytes of one buffer.
    #[inline]
    pub fn buffer_size(&self) -> u32 {
        self.buffer_size
    }

    /// Where a buffer begins.
    #[inline]
    pub fn address(&self, id: u16) -> *mut u8 {
        debug_assert!(u32::from(id) < self.count);
        // SAFETY: the kernel answers with the ids it was given, all of them below `count`.
        unsafe { self.buffers.start().as_ptr().add(usize::from(id) * self.stride) }
    }

    /// Notes that a completion brought a buffer.
    #[inline]
    pub fn hold(&mut self) {
        self.held += 1;
        debug_assert!(self.held <= self.count);
    }

    /// Gives a held buffer back, from the next [`publish`](Self::publish) on.
    #[inline]
    pub fn release(&mut self, id: u16) {
        debug_assert!(self.held > 0);
        let address = self.address(id);
        // SAFETY: the mask keeps the index inside the ring. This place is free: the ring has as
        // many as there are buffers, and this one was held. Field by field, since the first
        // entry also has the tail in it.
        unsafe {
            let entry = self.entries.add(usize::from(self.tail & self.mask)).as_mut();
            entry.set_addr(address as u64);
            entry.set_len(self.buffer_size);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.held -= 1;
    }

    /// Shows the kernel what has been released.
    #[inline]
    pub fn publish(&mut self) {
        // SAFETY: lies in the registered ring, which is never unmapped; only ever accessed as an
        // atomic by us.
        unsafe { self.published_tail.as_ref() }.store(self.tail, Ordering::Release);
    }

    /// At most so many buffers are in the ring.
    #[inline]
    pub fn free(&self) -> u32 {
        self.count - self.held
    }
}

/// Connections that found no buffer, first come, first served. A slot stands here at most once.
#[derive(Default)]
pub struct Waiters(VecDeque<u32>);

impl Waiters {
    /// Whether someone waits; newcomers then have to line up too.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lines a connection up.
    pub fn push(&mut self, slot: u32) {
        self.0.push_back(slot);
    }

    /// Calls `arm` for as many connections as there can be buffers for. Returns how many
    /// completions the enter may wait for: a connection that was armed may have nothing to
    /// receive and leave its buffer to the next in line, whom no completion would wake.
    #[inline]
    pub fn admit(&mut self, free: u32, mut arm: impl FnMut(u32)) -> u32 {
        if self.0.is_empty() {
            return 1;
        }
        for _ in 0..free {
            let Some(slot) = self.0.pop_front() else { break };
            arm(slot);
        }
        u32::from(free == 0 || self.0.is_empty())
    }
}
