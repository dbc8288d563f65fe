//! Single-shot receives from a few shared buffers: the reference form.
//!
//! A connection goes round: *armed* (a receive is in flight, no buffer is held) -> *sending* (one
//! contiguous send straight from the received buffer, continued if short) -> *armed*. If no buffer
//! is left it is *waiting* in between. The receive is armed only after the send's completion: by
//! then the next request has often come, and the receive completes without a poll. An idle
//! connection holds no buffer, so few buffers serve many connections and stay in the cache.
//!
//! Nothing else is ever in flight on a connection, so wherever a result ends it, it can be closed
//! at once.

use std::io;

use crate::options::RingServerOptions;
use crate::pool::{BufferRing, Waiters};
use crate::ring::Queue;
use crate::serve::{Form, buffer_of};

/// The form's state.
pub struct Select {
    /// Of the connections that are sending; otherwise stale.
    sends: Box<[Send]>,
    pool: BufferRing,
    waiters: Waiters,
}

#[derive(Clone, Copy, Default)]
struct Send {
    sent: u32,
    length: u32,
    buffer: u16,
}

impl Form for Select {
    const NAME: &'static str = "raw-select";

    fn new(queue: &mut Queue<'_>, options: &RingServerOptions) -> io::Result<Self> {
        Ok(Self {
            sends: vec![Send::default(); options.server.max_connections as usize].into(),
            pool: BufferRing::new(queue.submitter(), options)?,
            waiters: Waiters::default(),
        })
    }

    fn opened(&mut self, queue: &mut Queue<'_>, slot: u32) {
        self.arm(queue, slot);
    }

    #[inline]
    fn received(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32, flags: u32) {
        match buffer_of(flags) {
            Some(buffer) if result > 0 => {
                self.pool.hold();
                let length = result as u32;
                queue.counters.bytes += u64::from(length);
                self.sends[slot as usize] = Send { sent: 0, length, buffer };
                // SAFETY: the buffer is held until the whole of it is sent.
                unsafe { queue.send(slot, self.pool.address(buffer), length) };
            }
            _ => self.received_nothing(queue, slot, result, flags),
        }
    }

    #[inline]
    fn sent(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32) {
        let send = &mut self.sends[slot as usize];
        if result > 0 {
            send.sent += result as u32;
            if send.sent < send.length {
                // SAFETY: the rest of the same buffer, which is still held.
                unsafe {
                    let rest = self.pool.address(send.buffer).add(send.sent as usize);
                    queue.send(slot, rest, send.length - send.sent);
                }
                return;
            }
        }
        self.pool.release(send.buffer);
        if result > 0 {
            self.arm(queue, slot);
        } else {
            queue.close(slot);
        }
    }

    #[inline]
    fn turn_ends(&mut self, queue: &mut Queue<'_>) -> u32 {
        self.pool.publish();
        let length = self.pool.buffer_size();
        self.waiters.admit(self.pool.free(), |slot| queue.recv_select(slot, length))
    }
}

impl Select {
    #[inline]
    fn arm(&mut self, queue: &mut Queue<'_>, slot: u32) {
        if self.waiters.is_empty() {
            queue.recv_select(slot, self.pool.buffer_size());
        } else {
            self.waiters.push(slot);
        }
    }

    /// No buffer, the end, or an error.
    #[cold]
    fn received_nothing(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32, flags: u32) {
        if let Some(buffer) = buffer_of(flags) {
            self.pool.hold();
            self.pool.release(buffer);
        }
        if result == -libc::ENOBUFS {
            queue.counters.enobufs += 1;
            self.waiters.push(slot);
        } else {
            queue.close(slot);
        }
    }
}
