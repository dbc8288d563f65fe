//! The line of receives that wait for a buffer.
//!
//! Owns the order in which they try again, and how many may at a time: as many as the kernel has buffers for.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{GROUP, Pool};
use crate::driver::ring::Ring;
use crate::metrics::{Recorder, wake_contained};
use crate::sys::abi::{self, BufStatus};

impl Pool {
    /// Buffers that a receive would find. A receive that was woken for nothing again and again waits in one
    /// of the kernel's worker threads, and has taken its buffer beforehand: no completion tells of that, and
    /// turns given for such buffers would go round and round. (Before 6.8 the kernel does not say; then it
    /// is as many as completions tell.) Where there are none, spare ones are put in.
    pub(crate) fn to_be_found(&self, ring: &Ring) -> u32 {
        self.found_or_more(|| self.in_ring(ring))
    }

    fn found_or_more(&self, in_ring: impl Fn() -> Option<u32>) -> u32 {
        let found = || in_ring().unwrap_or_else(|| self.available.get());
        match found() {
            0 if self.double() => found(),
            found => found,
        }
    }

    fn in_ring(&self, ring: &Ring) -> Option<u32> {
        let tail = self.ring.as_ref()?.tail.get();
        let mut status = BufStatus { buf_group: GROUP.into(), ..BufStatus::default() };
        let op = abi::register::PBUF_STATUS;
        // SAFETY: one live buf_status that names our own group, which the kernel fills in.
        unsafe { ring.register(op, ptr::from_mut(&mut status).cast(), 1) }.ok()?;
        Some(u32::from(tail.wrapping_sub(status.head as u16)))
    }

    /// Lets the next receives try, as many as may find one of `most` buffers. Called once a tick, so that a
    /// turn given to a socket without data does not hold up those behind it. Whether any was given.
    pub(crate) fn give_turns(&self, most: u32) -> bool {
        let turns = self.available.get().min(most);
        for _ in 0..turns {
            let Some(turn) = self.waiters.borrow_mut().pop_front() else { break };
            turn.give(&self.metrics);
        }
        turns > 0
    }

    /// Lets every waiting receive go on: the loop ends, and it will be told so.
    pub(crate) fn give_all_turns(&self) {
        self.open.set(false);
        loop {
            let Some(turn) = self.waiters.borrow_mut().pop_front() else { return };
            turn.give(&self.metrics);
        }
    }

    /// Whether receives wait for a buffer.
    pub(crate) fn has_waiters(&self) -> bool {
        !self.waiters.borrow().is_empty()
    }
}

pub(super) struct Turn {
    given: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    fn give(&self, metrics: &Recorder) {
        self.given.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            wake_contained(waker, metrics);
        }
    }
}

/// A place in the line for a buffer. Dropping it leaves the line.
pub struct BufferTurn {
    pool: Rc<Pool>,
    turn: Rc<Turn>,
}

impl BufferTurn {
    /// Joins the end of the line.
    pub(crate) fn wait(pool: &Rc<Pool>) -> Self {
        pool.double();
        let given = Cell::new(!pool.open.get());
        let turn = Rc::new(Turn { given, waker: RefCell::new(None) });
        if turn.given.get() {
            return Self { pool: pool.clone(), turn };
        }
        pool.waiters.borrow_mut().push_back(turn.clone());
        Self { pool: pool.clone(), turn }
    }

    /// Ready when it is this one's turn to try again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.turn.given.get() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        // Cloning a foreign waker runs its code, which may have driven the loop.
        if self.turn.given.get() {
            return Poll::Ready(());
        }
        let old = self.turn.waker.borrow_mut().replace(waker);
        drop(old);
        Poll::Pending
    }
}

impl Drop for BufferTurn {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        if !self.turn.given.get() {
            self.pool.waiters.borrow_mut().retain(|t| !Rc::ptr_eq(t, &self.turn));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::event_loop::EventLoop;

    /// Whether the kernel says how many it has, or does not (before 6.8).
    #[test]
    fn spare_buffers_are_put_in_where_none_is_left() {
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.turn(Some(std::time::Duration::ZERO));
        let core = event_loop.core().clone();
        let pool = core.driver.pool();
        for says in [true, false] {
            pool.available.set(0);
            let (spare, left) = (pool.spare.borrow().len(), Cell::new(0));
            assert!(spare > 0);
            let found = pool.found_or_more(|| says.then(|| left.replace(1)));
            assert!(found > 0 && pool.spare.borrow().len() < spare, "says: {says}, {found}");
        }
    }

    /// One buffer and two in line, the first of whom has gone without a word: before the core rests the other
    /// has its turn.
    #[test]
    fn a_turn_of_nobody_is_passed_on_before_the_core_rests() {
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.turn(Some(std::time::Duration::ZERO));
        let core = event_loop.core().clone();
        let (driver, pool) = (&core.driver, core.driver.pool());
        let _of_nobody = BufferTurn::wait(pool);
        let mut waits = BufferTurn::wait(pool);
        let mut cx = Context::from_waker(Waker::noop());
        pool.available.set(1);
        driver.give_turns();
        assert!(waits.poll(&mut cx).is_pending() && core.has_work(), "there is more to give");
        driver.give_turns();
        assert!(waits.poll(&mut cx).is_ready());
        driver.give_turns();
        assert!(!driver.owes_turns(), "nobody waits");
    }

    /// A stranger's waker leaves no task to run: a step by hand that called one does not sleep.
    #[test]
    fn a_step_that_tells_a_stranger_of_a_buffer_does_not_sleep() {
        struct Told(AtomicU32);
        impl Wake for Told {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.turn(Some(std::time::Duration::ZERO));
        let core = event_loop.core().clone();
        let mut waits = BufferTurn::wait(core.driver.pool());
        let told = Arc::new(Told(AtomicU32::new(0)));
        let waker = told.clone().into();
        let mut cx = Context::from_waker(&waker);
        assert!(waits.poll(&mut cx).is_pending());
        let parks = event_loop.stats().counters.parks;
        let turn = event_loop.turn(Some(std::time::Duration::from_secs(2)));
        assert_eq!((told.0.load(Ordering::Relaxed), turn.ready), (1, true));
        assert_eq!(event_loop.stats().counters.parks, parks);
        assert!(waits.poll(&mut cx).is_ready());
        assert!(!event_loop.turn(Some(std::time::Duration::ZERO)).ready, "that is all");
    }
}
