//! Ticks at a steady pace.
//!
//! Owns [`Interval`] and what it does with ticks that were missed.

use std::time::Duration;

use super::{Instant, Sleep, sleep_until};

/// What an interval does when ticks were missed because nobody asked in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedTicks {
    /// Gives them all at once until it has caught up.
    #[default]
    Burst,
    /// Gives one, and goes on a period after it.
    Delay,
    /// Gives one, and goes on at the next point of the original pace.
    Skip,
}

/// Ticks every `period`, the first time at once.
///
/// # Panics
/// With a period of zero.
///
/// ```
/// use std::time::Duration;
/// coreloop::run(async {
///     let mut ticks = coreloop::time::interval(Duration::from_millis(1));
///     let first = ticks.tick().await;
///     let second = ticks.tick().await;
///     assert_eq!(second - first, Duration::from_millis(1));
/// })
/// .unwrap();
/// ```
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks every `period`, the first time at `start`.
///
/// # Panics
/// With a period of zero.
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period above zero");
    Interval { next: sleep_until(start), period, missed: MissedTicks::default() }
}

/// See [`interval`].
#[derive(Debug)]
pub struct Interval {
    next: Sleep,
    period: Duration,
    missed: MissedTicks,
}

impl Interval {
    /// Sets what to do with ticks that were missed.
    pub fn missed_ticks(mut self, missed: MissedTicks) -> Self {
        self.missed = missed;
        self
    }

    /// Waits for the next tick and gives the time for which it was due.
    ///
    /// # Cancel safety
    /// A tick that was not given is given next time.
    pub async fn tick(&mut self) -> Instant {
        std::future::poll_fn(|cx| self.next.poll_sleep(cx)).await;
        let due = self.next.deadline();
        let now = Instant::now();
        let mut next = due + self.period;
        if next < now {
            match self.missed {
                MissedTicks::Burst => {}
                MissedTicks::Delay => next = now + self.period,
                MissedTicks::Skip => {
                    let behind = (now - due).as_nanos() / self.period.as_nanos();
                    let periods = u32::try_from(behind).unwrap_or(u32::MAX);
                    next = due + self.period.saturating_mul(periods) + self.period;
                }
            }
        }
        self.next.reset(next);
        due
    }

    /// The period.
    pub fn period(&self) -> Duration {
        self.period
    }
}
