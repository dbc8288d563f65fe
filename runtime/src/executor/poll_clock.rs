//! Clock readings around polls.
//!
//! Owns which polls of a turn are timed, and what is recorded of them: how long they took, how long
//! their tasks had waited, who was slow.

use std::time::Duration;

use super::Core;
use crate::metrics::Latency;
use crate::task::report::Report;
use crate::task::table::UNSTAMPED;
use crate::task::{TaskInfo, Whose};

/// Tasks of a turn that are all timed. In longer turns one poll in some 32 is.
const TIMED_IN_FULL: usize = 16;

/// Clock readings within a run of polls, if histograms are kept: one for each boundary, or in a long turn two
/// for each poll that was picked to be timed. While there are several task queues: one for each boundary.
pub(super) struct PollClock<'a> {
    core: &'a Core,
    /// The last reading. In a long turn that may have been long ago.
    last: u64,
    timing: bool,
    /// Some polls are timed, picked at random, not all: a reading costs more than many a poll.
    picks: bool,
    /// How many polls of the turn are left when the next one is timed.
    next: usize,
    /// A poll that is timed is under way.
    within: bool,
    /// Whose poll is being timed.
    whose: Whose,
    /// In debug mode: what is known of that task.
    polling: Option<TaskInfo>,
}

impl<'a> PollClock<'a> {
    pub(super) fn new(core: &'a Core, began: u64, ready: usize) -> Self {
        let timing = core.metrics.timing() || core.slow_ns.is_some();
        let picks = timing && ready > TIMED_IN_FULL && core.slow_ns.is_none();
        let last = if timing && !picks { core.kernel.now_ns() } else { began };
        if picks {
            core.driver.time_submissions(false);
        }
        let next = if timing { usize::MAX } else { 0 };
        let whose = core.tasks.whose_root();
        let mut clock =
            Self { core, last, timing, picks, next, within: false, whose, polling: None };
        clock.pick_next(ready);
        clock
    }

    /// One that is read after each poll in any case.
    pub(super) fn reading_each(core: &'a Core) -> Self {
        let last = core.kernel.now_ns();
        let whose = core.tasks.whose_root();
        let next = usize::MAX;
        Self { core, last, timing: true, picks: false, next, within: false, whose, polling: None }
    }

    /// How many polls are left when the next one is timed; `left` are now.
    #[inline]
    pub(super) fn next(&self, left: usize) -> usize {
        self.next.min(left)
    }

    /// Picks the next poll, while `left` are left.
    fn pick_next(&mut self, left: usize) {
        if self.picks {
            self.next = left.saturating_sub(self.core.next_gap() as usize);
        }
    }

    /// What is done from here on is part of the next poll, and what was done since the last is not.
    pub(super) fn reads(&mut self) {
        // One that is picked is timed from its own reading on.
        if !self.picks {
            self.last = self.core.read_clock();
        }
    }

    /// A poll that is timed begins, of the task that `whose` names and `info` describes.
    #[inline]
    pub(super) fn polls(&mut self, whose: impl FnOnce() -> Whose, info: impl FnOnce() -> TaskInfo) {
        self.within = true;
        self.whose = whose();
        if self.picks {
            self.begin_picked();
        } else if self.core.slow_ns.is_some() {
            self.polling = Some(info());
        }
    }

    #[cold]
    fn begin_picked(&mut self) {
        self.last = self.core.read_clock();
        self.core.driver.time_submissions(true);
    }

    /// It has ended, of a task that was woken then. While `left` are left.
    #[inline]
    pub(super) fn polled(&mut self, woken: Option<u32>, left: usize) {
        if std::mem::take(&mut self.within) {
            self.record(woken);
            self.pick_next(left);
        }
    }

    #[cold]
    fn record(&mut self, woken: Option<u32>) {
        let began = self.last;
        self.last = self.core.read_clock();
        let ended = self.last;
        self.core.metrics.took(Latency::Poll, ended - began);
        if self.core.metrics.timing() {
            let (tasks, whose) = (&self.core.tasks, self.whose);
            self.core.long_polls.polled(whose, ended - began, ended, || tasks.name_of(whose));
        }
        // One that was woken before the first turn says nothing of when.
        if let Some(woken) = woken.filter(|woken| *woken != UNSTAMPED) {
            self.core.metrics.took(Latency::WakeToPoll, since_stamp(woken, began));
        }
        if self.picks {
            self.core.driver.time_submissions(false);
        }
        if let Some(task) = self.polling.take()
            && self.core.slow_ns.is_some_and(|slow| ended - began > slow)
        {
            let took = Duration::from_nanos(ended - began);
            self.core.tasks.reporter().tell(&Report::SlowPoll { task: &task, took });
            // What the report took is nobody's poll.
            self.last = self.core.read_clock();
        }
    }

    pub(super) fn now(&self) -> u64 {
        if self.timing && !self.picks { self.last } else { self.core.kernel.now_ns() }
    }

    pub(super) fn tick_ends(self, began: u64) {
        if self.timing {
            let ended = self.now();
            self.core.metrics.took(Latency::Tick, ended.saturating_sub(began));
        }
    }
}

impl Core {
    /// Polls to skip until the next one that is timed: 0 to 63, so that no pattern of turns hides a task.
    #[inline]
    fn next_gap(&self) -> u32 {
        let mut x = self.gap_seed.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.gap_seed.set(x);
        x & 63
    }
}

/// Nanoseconds from a 4-byte wake stamp to `now`, right up to the stamp's wrap.
fn since_stamp(stamp: u32, now: u64) -> u64 {
    use crate::task::table::STAMP_UNIT_NS;
    let units = ((now / STAMP_UNIT_NS) as u32).wrapping_sub(stamp);
    // A wake stamped after the reading that the poll began with (same tick) is no delay at all.
    if units > u32::MAX / 2 { 0 } else { u64::from(units) * STAMP_UNIT_NS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::table::STAMP_UNIT_NS;

    #[test]
    fn stamps_survive_their_wrap() {
        let wrap = (1u64 << 32) * STAMP_UNIT_NS;
        let woken = wrap - 10 * STAMP_UNIT_NS;
        let stamp = (woken / STAMP_UNIT_NS) as u32;
        assert_eq!(since_stamp(stamp, wrap + 5 * STAMP_UNIT_NS), 15 * STAMP_UNIT_NS);
        assert_eq!(since_stamp(stamp, woken - STAMP_UNIT_NS), 0);
    }
}
