//! Multishot receives from shared buffers, plain sends.
//!
//! Receiving and sending go on independently. Received buffers line up behind the one that is
//! being sent (two sends in flight could interleave their bytes); the line is linked through the
//! buffers, each of which stands in one line at most.
//!
//! A connection is *armed*, *waiting* for a buffer, or *ended* (end of stream or error seen); on
//! top of that it may be *failed* (a send was refused), which drops the line and cancels the
//! receive. It is closed once nothing is in flight: neither armed nor
//! waiting, line empty, and ended or failed.

use std::io;

use io_uring::cqueue;

use crate::options::RingServerOptions;
use crate::pool::{BufferRing, Waiters};
use crate::ring::Queue;
use crate::serve::{Form, buffer_of};

/// No buffer: ids are at most 32767.
const NONE: u16 = u16::MAX;

/// The form's state.
pub struct Multishot {
    connections: Box<[Connection]>,
    /// By buffer id.
    links: Box<[Link]>,
    pool: BufferRing,
    waiters: Waiters,
}

#[derive(Clone, Copy)]
struct Connection {
    /// The buffer that is being sent.
    first: u16,
    last: u16,
    /// How much of the first is sent.
    sent: u32,
    receive: Receive,
    failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Receive {
    Armed,
    Waiting,
    Ended,
}

#[derive(Clone, Copy)]
struct Link {
    length: u32,
    next: u16,
}

impl Form for Multishot {
    const NAME: &'static str = "raw-multishot";

    fn new(queue: &mut Queue<'_>, options: &RingServerOptions) -> io::Result<Self> {
        let max_connections = options.server.max_connections as usize;
        let buffers = usize::from(options.buffers);
        Ok(Self {
            connections: vec![Connection::NEW; max_connections].into(),
            links: vec![Link { length: 0, next: NONE }; buffers].into(),
            pool: BufferRing::new(queue.submitter(), options)?,
            waiters: Waiters::default(),
        })
    }

    fn opened(&mut self, queue: &mut Queue<'_>, slot: u32) {
        self.connections[slot as usize] = Connection::NEW;
        self.arm(queue, slot);
    }

    #[inline]
    fn received(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32, flags: u32) {
        if let Some(buffer) = buffer_of(flags) {
            self.pool.hold();
            if result > 0 && !self.connections[slot as usize].failed {
                queue.counters.bytes += result as u64;
                self.line_up(queue, slot, buffer, result as u32);
            } else {
                self.pool.release(buffer);
            }
        }
        if !cqueue::more(flags) {
            self.receive_ended(queue, slot, result);
        }
    }

    #[inline]
    fn sent(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32) {
        if result <= 0 {
            self.fail(queue, slot);
            return;
        }
        let connection = &mut self.connections[slot as usize];
        connection.sent += result as u32;
        let Link { length, next } = self.links[usize::from(connection.first)];
        if connection.sent == length {
            self.pool.release(connection.first);
            connection.first = next;
            connection.sent = 0;
        }
        self.send_first(queue, slot);
    }

    #[inline]
    fn turn_ends(&mut self, queue: &mut Queue<'_>) -> u32 {
        self.pool.publish();
        let connections = &mut self.connections;
        self.waiters.admit(self.pool.free(), |slot| {
            connections[slot as usize].receive = Receive::Armed;
            // One that failed has a dead socket: the receive completes at once and ends it.
            queue.recv_multishot(slot);
        })
    }
}

impl Connection {
    const NEW: Self =
        Self { first: NONE, last: NONE, sent: 0, receive: Receive::Armed, failed: false };
}

impl Multishot {
    fn arm(&mut self, queue: &mut Queue<'_>, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if self.waiters.is_empty() {
            connection.receive = Receive::Armed;
            queue.recv_multishot(slot);
        } else {
            connection.receive = Receive::Waiting;
            self.waiters.push(slot);
        }
    }

    #[inline]
    fn line_up(&mut self, queue: &mut Queue<'_>, slot: u32, buffer: u16, length: u32) {
        let connection = &mut self.connections[slot as usize];
        self.links[usize::from(buffer)] = Link { length, next: NONE };
        let idle = connection.first == NONE;
        if idle {
            connection.first = buffer;
        } else {
            self.links[usize::from(connection.last)].next = buffer;
        }
        connection.last = buffer;
        if idle {
            self.send_first(queue, slot);
        }
    }

    /// Sends what is left of the line's first buffer, or finds that the line is empty.
    #[inline]
    fn send_first(&mut self, queue: &mut Queue<'_>, slot: u32) {
        let Connection { first, sent, receive, .. } = self.connections[slot as usize];
        if first != NONE {
            let length = self.links[usize::from(first)].length;
            // SAFETY: the buffer is held until the whole of it is sent.
            unsafe {
                queue.send(slot, self.pool.address(first).add(sent as usize), length - sent);
            }
        } else if receive == Receive::Ended {
            queue.close(slot);
        }
    }

    /// The multishot receive is over; `result` says why.
    #[cold]
    fn receive_ended(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32) {
        let connection = &mut self.connections[slot as usize];
        if result > 0 {
            self.arm(queue, slot);
        } else if result == -libc::ENOBUFS {
            queue.counters.enobufs += 1;
            connection.receive = Receive::Waiting;
            self.waiters.push(slot);
        } else {
            connection.receive = Receive::Ended;
            if connection.first == NONE {
                queue.close(slot);
            }
        }
    }

    /// A send was refused: nothing is in flight but perhaps the receive.
    #[cold]
    fn fail(&mut self, queue: &mut Queue<'_>, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.failed = true;
        while connection.first != NONE {
            self.pool.release(connection.first);
            connection.first = self.links[usize::from(connection.first)].next;
        }
        if connection.receive == Receive::Ended {
            queue.close(slot);
        } else {
            queue.cancel_recv(slot);
        }
    }
}
