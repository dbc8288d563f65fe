//! Waiting for a point in time.
//!
//! Owns [`Sleep`]. It enters the wheel at its first pending poll and leaves it when dropped.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Instant;
use crate::executor::context;
use crate::executor::timers::Timers;
use crate::planted::{self, Fault};
use crate::spans::{self, Wait};
use crate::task::current;
use crate::task::info::Note;
use crate::wheel::TimerKey;

/// Completes after `d`: never before, and at most one timer resolution (1 ms by default) later on an idle
/// core. The time counts from this call, not from the first poll: a task that is to sleep for so long from
/// when it runs calls it itself. `sleep(Duration::ZERO)` gives way for one turn; `sleep(Duration::MAX)` never
/// completes.
///
/// # Cancel safety
/// Dropping it takes the timer out.
///
/// # Panics
/// The future panics if it is polled outside a loop.
///
/// ```
/// use std::time::Duration;
/// coreloop::run(coreloop::time::sleep(Duration::from_millis(2))).unwrap();
/// ```
pub fn sleep(d: Duration) -> Sleep {
    sleep_until(Instant::now() + d)
}

/// Completes at `deadline`, as [`sleep`] does.
///
/// # Cancel safety
/// Dropping it takes the timer out; there is nothing to lose.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timers: None, key: NEW }
}

/// The future of [`sleep`] and [`sleep_until`]. `!Send`: its timer belongs to its core.
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep {
    deadline: Instant,
    /// While its timer is set: the loop's.
    timers: Option<Rc<Timers>>,
    /// While it is not: one of the three marks.
    key: TimerKey,
}

/// Not polled yet.
const NEW: TimerKey = TimerKey::mark(0);
/// It never completes.
const NEVER: TimerKey = TimerKey::mark(1);
/// It has completed.
const DONE: TimerKey = TimerKey::mark(2);

impl Sleep {
    /// When it completes.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Moves the deadline; also starts a completed one anew.
    pub fn reset(&mut self, deadline: Instant) {
        self.leave();
        self.deadline = deadline;
    }

    fn leave(&mut self) {
        let key = std::mem::replace(&mut self.key, NEW);
        if let Some(timers) = self.timers.take() {
            timers.cancel(key);
        }
    }

    #[inline]
    pub(crate) fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timers) = &self.timers {
            if timers.rewake(self.key, cx.waker()) {
                spans::pends(|| Wait::Timer);
                return Poll::Pending;
            }
            let believed = planted::is(Fault::EarlyTimer, 1) || planted::is(Fault::EarlyTimer, 2);
            let over = timers.has_come(self.deadline.ns()) || believed;
            self.timers = None;
            if over {
                self.key = DONE;
                return Poll::Ready(());
            }
            // Its loop was closed or left, not its time come: it goes on in the one that polls it now.
            self.key = NEW;
        }
        match self.key {
            DONE => return Poll::Ready(()),
            NEVER => return never(),
            _ => {}
        }
        let timers = context::timers();
        let early = if planted::is(Fault::EarlyTimer, 3) { 1_000_000 } else { 0 };
        let deadline = self.deadline.ns();
        if !timers.was_far(deadline) && deadline <= timers.now_ns() + early {
            // Due already: one turn is given way, without the wheel's rounding up.
            self.key = DONE;
            current::give_way(cx.waker());
            return Poll::Pending;
        }
        match timers.insert(deadline, cx.waker().clone()) {
            Some(key) => (self.timers, self.key) = (Some(timers), key),
            // A loop that closes takes no timers: another one may.
            None if deadline < u64::MAX => {}
            None => {
                self.key = NEVER;
                return never();
            }
        }
        spans::pends(|| Wait::Timer);
        Poll::Pending
    }
}

/// The end of a poll of a sleep without an end.
#[cold]
fn never() -> Poll<()> {
    current::note_least(Note::Never);
    Poll::Pending
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_sleep(cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
