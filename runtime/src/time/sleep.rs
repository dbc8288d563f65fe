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
use crate::task::current;
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
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, state: State::New }
}

/// The future of [`sleep`] and [`sleep_until`]. `!Send`: its timer belongs to its core.
#[must_use = "a sleep does nothing until it is awaited"]
pub struct Sleep {
    deadline: Instant,
    state: State,
}

enum State {
    New,
    Waiting(Rc<Timers>, TimerKey),
    Never,
    Done,
}

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
        if let State::Waiting(timers, key) = std::mem::replace(&mut self.state, State::New) {
            timers.cancel(key);
        }
    }

    pub(crate) fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::Done => return Poll::Ready(()),
            State::Never => return Poll::Pending,
            State::Waiting(timers, key) => {
                if timers.rewake(*key, cx.waker()) {
                    return Poll::Pending;
                }
                let believed =
                    planted::is(Fault::EarlyTimer, 1) || planted::is(Fault::EarlyTimer, 2);
                if timers.now_ns() >= self.deadline.ns() || believed {
                    self.state = State::Done;
                    return Poll::Ready(());
                }
                // Its loop was closed, not its time come: it goes on in the one that polls it now.
                self.state = State::New;
            }
            State::New => {}
        }
        let timers = context::timers();
        let early = if planted::is(Fault::EarlyTimer, 3) { 1_000_000 } else { 0 };
        if self.deadline.ns() <= timers.now_ns() + early {
            // Due already: one turn is given way, without the wheel's rounding up.
            self.state = State::Done;
            current::give_way(cx.waker());
            return Poll::Pending;
        }
        match timers.insert(self.deadline.ns(), cx.waker().clone()) {
            Some(key) => self.state = State::Waiting(timers, key),
            None => self.state = State::Never,
        }
        Poll::Pending
    }
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
