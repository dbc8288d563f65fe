//! Accepting.
//!
//! Owns [`AcceptMany`] (one submission, many connections, 5.19) and [`AcceptOne`] (its step down), which
//! both deliver into an [`AcceptQueue`]: accepting belongs to the listener, not to a future. A connection
//! that arrives when the listener is gone is closed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::{Cqe, MultishotOp, Sqe, Submitter};
use crate::planted::{self, Fault};
use crate::task::current;
use crate::task::info::Note;

/// Where accepted connections wait for whoever asks.
#[derive(Debug)]
pub struct AcceptQueue {
    submitter: Submitter,
    ready: RefCell<VecDeque<io::Result<OwnedFd>>>,
    waker: RefCell<Option<Waker>>,
    /// The listener is gone: what still comes is closed.
    closed: Cell<bool>,
}

impl AcceptQueue {
    /// An empty queue, for accepts on this loop.
    pub fn new(submitter: &Submitter) -> Rc<Self> {
        Rc::new(Self {
            submitter: submitter.clone(),
            ready: RefCell::default(),
            waker: RefCell::default(),
            closed: Cell::new(false),
        })
    }

    /// The next connection, or the error that ended accepting.
    pub fn pop(&self) -> Option<io::Result<OwnedFd>> {
        self.ready.borrow_mut().pop_front()
    }

    /// Connections that wait.
    pub fn len(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes what waits and what is yet to come.
    pub fn close(&self) {
        self.closed.set(true);
        let ready = self.ready.take();
        if planted::is(Fault::AcceptNotClosed, 2) {
            return std::mem::forget(ready);
        }
        drop(ready);
    }

    /// Has the context's waker called at the next arrival.
    pub fn wake_on_arrival(&self, cx: &Context<'_>) {
        current::note(Note::Connection);
        if self.waker.borrow().as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            return;
        }
        let new = cx.waker().clone();
        let old = self.waker.replace(Some(new));
        drop(old);
        // Cloning a foreign waker runs its code, which may have driven the loop: it came meanwhile.
        if !self.is_empty()
            && let Some(waker) = self.waker.take()
        {
            self.submitter.wake_soon(waker);
        }
    }

    fn deliver(&self, cqe: Cqe) {
        let arrived = cqe.result().map(|fd| {
            // SAFETY: the kernel has just made this descriptor for us, and the completion is taken once.
            unsafe { OwnedFd::from_raw_fd(fd as i32) }
        });
        if self.closed.get() {
            if planted::is(Fault::AcceptNotClosed, 1) {
                std::mem::forget(arrived); // Nobody knows the descriptor any more, and it stays open.
                return;
            }
            return drop(arrived);
        }
        if matches!(&arrived, Err(e) if e.raw_os_error() == Some(libc::ECANCELED)) {
            // Our own cancel, because of the queue's cap or the listener's end.
        } else {
            self.ready.borrow_mut().push_back(arrived);
        }
        let waker = self.waker.take();
        if let Some(waker) = waker {
            self.submitter.wake_soon(waker);
        }
    }
}

/// Accepts until cancelled, until an error ends it, or until so many connections wait in the queue.
pub struct AcceptMany<H> {
    listener: H,
    queue: Rc<AcceptQueue>,
    most: usize,
}

impl<H: AsFd + 'static> AcceptMany<H> {
    /// Accepts on `listener`, whose descriptor stays open as long as the value lives.
    pub fn new(listener: H, queue: Rc<AcceptQueue>, most: usize) -> Self {
        Self { listener, queue, most }
    }
}

// SAFETY: the submission names no memory; the descriptor lives with `listener`.
unsafe impl<H: AsFd + 'static> MultishotOp for AcceptMany<H> {
    fn prepare(&mut self) -> Sqe {
        Sqe::accept_multi(self.listener.as_fd(), libc::SOCK_CLOEXEC)
    }

    unsafe fn completed(&mut self, cqe: Cqe) -> ControlFlow<()> {
        self.queue.deliver(cqe);
        if self.queue.len() < self.most {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// Accepts one connection.
pub struct AcceptOne<H> {
    listener: H,
    queue: Rc<AcceptQueue>,
}

impl<H: AsFd + 'static> AcceptOne<H> {
    /// Accepts on `listener`, whose descriptor stays open as long as the value lives.
    pub fn new(listener: H, queue: Rc<AcceptQueue>) -> Self {
        Self { listener, queue }
    }
}

// SAFETY: the submission names no memory; the descriptor lives with `listener`.
unsafe impl<H: AsFd + 'static> MultishotOp for AcceptOne<H> {
    fn prepare(&mut self) -> Sqe {
        Sqe::accept(self.listener.as_fd(), libc::SOCK_CLOEXEC)
    }

    unsafe fn completed(&mut self, cqe: Cqe) -> ControlFlow<()> {
        self.queue.deliver(cqe);
        ControlFlow::Continue(())
    }
}
