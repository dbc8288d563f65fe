//! Permits in a number, taken in the order of asking.
//!
//! Owns [`Gate`], on which the mutex, the rw-lock, the semaphore and the queues are built: a number of
//! free permits and the line of those who wait for some. Invariants:
//! - free permits plus permits held plus permits handed to waiters is a constant that only
//!   [`release`](Gate::release) and [`Held::forget`] change;
//! - whoever asks goes behind those who wait, even if there is enough for it and not enough for the
//!   first of them. So nobody starves, whatever the others ask for;
//! - after each step the first in line asks for more than is free, or nobody waits;
//! - a waiter that goes away gives back what it had been handed, and its place, at once.
//!
//! Does not know what a permit stands for.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::wait_list::Key;
use super::wait_room::WaitRoom;
use crate::contain::let_go;
use crate::task::info::Note;

/// The most permits that a gate can have.
pub(super) const MAX_PERMITS: usize = usize::MAX >> 3;

/// Nobody gets through any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// Why a permit can't be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// There are too few, or others wait.
    Taken,
    /// Nobody gets through any more.
    Closed,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Gate {
    free: Cell<usize>,
    closed: Cell<bool>,
    room: WaitRoom<usize, Result<(), Closed>>,
}

impl Gate {
    /// # Panics
    /// Above [`MAX_PERMITS`].
    pub(super) const fn new(permits: usize, note: Note) -> Self {
        assert!(permits <= MAX_PERMITS, "more permits than MAX_PERMITS");
        Self { free: Cell::new(permits), closed: Cell::new(false), room: WaitRoom::new(note) }
    }

    /// Permits that nobody has and that nobody was handed.
    pub(super) fn free(&self) -> usize {
        self.free.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn waiting(&self) -> usize {
        self.room.waiting()
    }

    #[inline]
    pub(super) fn try_acquire(&self, need: usize) -> Result<Held<'_>, NotNow> {
        if self.closed.get() {
            return Err(NotNow::Closed);
        }
        let free = self.free.get();
        if free < need || self.room.waiting() > 0 {
            return Err(NotNow::Taken);
        }
        self.free.set(free - need);
        Ok(Held { gate: self, permits: need })
    }

    /// Waits for `need` permits.
    #[inline]
    pub(super) fn acquire(&self, need: usize) -> Acquire<'_> {
        Acquire { gate: self, need, key: None }
    }

    /// Adds permits, and wakes those who get them. Never above [`MAX_PERMITS`]: who makes permits out
    /// of nothing looks first.
    #[inline]
    pub(super) fn release(&self, permits: usize) {
        self.free.set(self.free.get() + permits);
        self.serve();
    }

    /// Nobody gets through from now on; who waits is told. What was handed over already stays so.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.room.release_all(Err(Closed));
    }

    /// Hands what is free to those who wait for it, in turn.
    #[inline]
    fn serve(&self) {
        if self.room.waiting() > 0 {
            self.serve_line();
        }
    }

    #[cold]
    fn serve_line(&self) {
        while let Some(need) = self.room.front() {
            let Some(left) = self.free.get().checked_sub(need) else { break };
            self.free.set(left);
            let handed = self.room.hand(Ok(()));
            debug_assert!(handed.is_ok(), "somebody is in front");
        }
        self.room.wake();
    }
}

/// Permits of a gate, given back at the drop.
#[derive(Debug)]
pub(super) struct Held<'a> {
    gate: &'a Gate,
    permits: usize,
}

impl Held<'_> {
    /// Never gives them back.
    pub(super) fn forget(mut self) {
        self.permits = 0;
    }

    /// Gives all but `keep` back.
    pub(super) fn shrink(&mut self, keep: usize) {
        let excess = self.permits - keep;
        self.permits = keep;
        self.gate.release(excess);
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.permits > 0 {
            self.gate.release(self.permits);
        }
    }
}

/// The future of [`Gate::acquire`]. Not to be polled again after its end.
#[derive(Debug)]
pub(super) struct Acquire<'a> {
    gate: &'a Gate,
    need: usize,
    /// Its place in line.
    key: Option<Key>,
}

impl<'a> Future for Acquire<'a> {
    type Output = Result<Held<'a>, Closed>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let gate = this.gate;
        let Some(key) = this.key else {
            return match gate.try_acquire(this.need) {
                Ok(held) => Poll::Ready(Ok(held)),
                Err(NotNow::Closed) => Poll::Ready(Err(Closed)),
                Err(NotNow::Taken) => this.enter(cx),
            };
        };
        let handed = gate.room.poll(key, cx);
        if handed.is_ready() {
            this.key = None;
        }
        handed.map(|granted| granted.map(|()| Held { gate, permits: this.need }))
    }
}

impl<'a> Acquire<'a> {
    #[cold]
    fn enter(&mut self, cx: &mut Context<'_>) -> Poll<Result<Held<'a>, Closed>> {
        let waker = cx.waker().clone();
        // The clone was foreign code: what was taken may be free again.
        let ready = match self.gate.try_acquire(self.need) {
            Ok(held) => Ok(held),
            Err(NotNow::Closed) => Err(Closed),
            Err(NotNow::Taken) => {
                self.key = Some(self.gate.room.enter(waker, self.need));
                return Poll::Pending;
            }
        };
        let_go(waker);
        Poll::Ready(ready)
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        match self.gate.room.leave(key) {
            Some(Ok(())) => self.gate.release(self.need),
            Some(Err(Closed)) => {}
            // It may have been in the way of somebody who asks for less.
            None => self.gate.serve(),
        }
    }
}
