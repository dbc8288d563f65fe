//! The loop: accepts, dispatches completions, enters once per turn, answers signals.
//!
//! A turn takes every completion that is there, lets the form queue what follows from them, and
//! enters: submit all, wait for one. The loop never looks at bytes.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::cqueue;
use socket2::Socket;

use crate::options::RingServerOptions;
use crate::ring::{self, Queue, kind};
use crate::signals::{Request, Signals};

/// What is done with received bytes. Slots are below `max_connections`.
pub trait Form: Sized {
    /// The server's name in reports.
    const NAME: &'static str;

    /// Allocates everything; the ring exists, no connection does.
    fn new(queue: &mut Queue<'_>, options: &RingServerOptions) -> io::Result<Self>;

    /// A connection was accepted.
    fn opened(&mut self, queue: &mut Queue<'_>, slot: u32);

    /// A receive completed.
    fn received(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32, flags: u32);

    /// A send completed.
    fn sent(&mut self, queue: &mut Queue<'_>, slot: u32, result: i32);

    /// The turn is over; returns how many completions the enter may wait for.
    fn turn_ends(&mut self, queue: &mut Queue<'_>) -> u32;
}

/// Serves until told to stop, then prints the counters.
pub fn serve<F: Form>(
    options: &RingServerOptions,
    listener: &Socket,
    signals: &Signals,
) -> io::Result<()> {
    let mut ring = ring::build(options)?;
    let (submitter, sq, mut cq) = ring.split();
    let mut queue = Queue::new(submitter, sq, options)?;
    let form = F::new(&mut queue, options)?;
    let mut turn = Turn {
        form,
        listener,
        signals,
        max_connections: options.server.max_connections,
        refused_at: None,
        stopped: false,
    };
    queue.accept(listener.as_raw_fd());
    queue.poll_signals(signals.as_raw_fd());
    while !turn.stopped {
        let want = turn.form.turn_ends(&mut queue);
        queue.enter(want)?;
        cq.sync();
        for completion in &mut cq {
            turn.dispatch(&mut queue, &completion)?;
        }
        if turn.refused_at.is_some_and(|open| queue.open < open) {
            turn.refused_at = None;
            queue.accept(listener.as_raw_fd());
        }
        // Tells the kernel what was consumed: it would not wait while it sees completions.
        cq.sync();
    }
    queue.counters.print(F::NAME)
}

struct Turn<'a, F> {
    form: F,
    listener: &'a Socket,
    signals: &'a Signals,
    max_connections: u32,
    /// How many connections were open when accepting ended for want of a descriptor: only a
    /// close makes it worth trying again. Otherwise accepting is armed.
    refused_at: Option<u32>,
    stopped: bool,
}

impl<F: Form> Turn<'_, F> {
    #[inline]
    fn dispatch(&mut self, queue: &mut Queue<'_>, completion: &cqueue::Entry) -> io::Result<()> {
        let (user_data, result) = (completion.user_data(), completion.result());
        let slot = user_data as u32;
        match (user_data >> 32) as u32 {
            kind::RECV => {
                queue.counters.recv_completions += 1;
                self.form.received(queue, slot, result, completion.flags());
            }
            kind::SEND => {
                queue.counters.send_completions += 1;
                self.form.sent(queue, slot, result);
            }
            kind::ACCEPT => return self.accepted(queue, result, completion.flags()),
            kind::SIGNAL => return self.signalled(queue),
            _ => {}
        }
        Ok(())
    }

    fn accepted(&mut self, queue: &mut Queue<'_>, result: i32, flags: u32) -> io::Result<()> {
        if result >= 0 {
            let slot = result as u32;
            queue.open += 1;
            if slot < self.max_connections {
                self.form.opened(queue, slot);
            } else {
                queue.close(slot);
            }
        }
        if !cqueue::more(flags) {
            match -result {
                libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM if queue.open > 0 => {
                    self.refused_at = Some(queue.open);
                }
                // One connection was gone before it was accepted, or the kernel ended the
                // multishot for reasons of its own: neither says anything about the next one.
                libc::ECONNABORTED | libc::ECANCELED | libc::EINTR | ..=0 => {
                    queue.accept(self.listener.as_raw_fd());
                }
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(())
    }

    fn signalled(&mut self, queue: &mut Queue<'_>) -> io::Result<()> {
        while let Some(request) = self.signals.take() {
            match request {
                Request::Report => queue.counters.print(F::NAME)?,
                Request::Stop => self.stopped = true,
            }
        }
        queue.poll_signals(self.signals.as_raw_fd());
        Ok(())
    }
}

/// The buffer that a completion brought, if any.
#[inline]
pub fn buffer_of(flags: u32) -> Option<u16> {
    cqueue::buffer_select(flags)
}
