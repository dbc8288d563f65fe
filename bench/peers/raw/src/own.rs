//! Single-shot receives into a buffer per connection.
//!
//! The same round as [`select`](crate::select), without shared buffers: *armed* -> *sending* ->
//! *armed*. The buffer of a slot is found by multiplication; pages of slots that were never used
//! cost nothing, but every connection that ever received keeps its pages.

use std::io;

use crate::memory::Region;
use crate::options::RingServerOptions;
use crate::ring::Queue;
use crate::serve::Form;

/// The form's state.
pub struct Own {
    /// Of the connections that are sending; otherwise stale.
    sends: Box<[Send]>,
    buffers: Region,
    buffer_size: u32,
    stride: usize,
}

#[derive(Clone, Copy, Default)]
struct Send {
    sent: u32,
    length: u32,
}

impl Form for Own {
    const NAME: &'static str = "raw-own";

    fn new(_queue: &mut Queue<'_>, options: &RingServerOptions) -> io::Result<Self> {
        let max_connections = options.server.max_connections as usize;
        let buffer_size = options.server.buffer_size;
        let stride = buffer_size as usize + options.stride_pad as usize;
        Ok(Self {
            sends: vec![Send::default(); max_connections].into(),
            buffers: Region::new(max_connections * stride, options.huge)?,
            buffer_size,
            stride,
        })
    }

    fn opened(&mut self, queue: &mut Queue<'_>, slot: u32) {
        self.arm(queue, slot);
    }

    #[inline]
    fn received(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32, _flags: u32) {
        if result > 0 {
            let length = result as u32;
            queue.counters.bytes += u64::from(length);
            self.sends[slot as usize] = Send { sent: 0, length };
            // SAFETY: the slot's buffer, which is received into only after the send.
            unsafe { queue.send(slot, self.address(slot), length) };
        } else {
            queue.close(slot);
        }
    }

    #[inline]
    fn sent(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32) {
        if result <= 0 {
            queue.close(slot);
            return;
        }
        let send = &mut self.sends[slot as usize];
        send.sent += result as u32;
        let Send { sent, length } = *send;
        if sent == length {
            self.arm(queue, slot);
        } else {
            // SAFETY: the rest of the same buffer.
            unsafe { queue.send(slot, self.address(slot).add(sent as usize), length - sent) };
        }
    }

    #[inline]
    fn turn_ends(&mut self, _queue: &mut Queue<'_>) -> u32 {
        1
    }
}

impl Own {
    #[inline]
    fn arm(&mut self, queue: &mut Queue<'_>, slot: u32) {
        // SAFETY: the slot's buffer, sent from only after the receive.
        unsafe { queue.recv_into(slot, self.address(slot), self.buffer_size) };
    }

    #[inline]
    fn address(&self, slot: u32) -> *mut u8 {
        debug_assert!((slot as usize) < self.sends.len());
        // SAFETY: the region has a stride for every slot below `max_connections`.
        unsafe { self.buffers.start().as_ptr().add(slot as usize * self.stride) }
    }
}
