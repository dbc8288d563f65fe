//! One turn of the loop.
//!
//! Owns the order of its steps and the budget of its run queue. Reasons for the order: mail first, since it
//! only marks tasks; completions before timers, so that what arrived in time beats its own deadline; both
//! before the run queue, so that no self-waking task keeps I/O or timers out; one enter at the end, which
//! submits what the tasks asked for and, if nothing is left to do, parks. A turn comes in two parts, all that
//! is done and the sleep, so that whoever steps many cores can stop between them; [`Core::tick`] is both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Core;
use crate::contain::contained;
use crate::metrics::Kind;

/// How long a turn may wait when it finds nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until something happens, at the latest at this time (ns of CLOCK_MONOTONIC).
    Until(u64),
    /// Until something happens.
    Ever,
}

/// Polls between two looks at the clock and the mail, in one turn or in several.
const POLLS_PER_LOOK: usize = 32;

impl Core {
    /// Mail, completions, timers, run queue, submit, park. `root` polls the main future.
    pub(crate) fn tick(&self, root: Option<&mut dyn FnMut()>, wait: Wait) {
        let stepped = root.is_none();
        match self.work(root, wait) {
            Some(until) => self.sleep(until),
            None if !stepped => self.quiet_turns(),
            None => {}
        }
    }

    /// Goes on with turns in which there is nothing to do but to poll tasks: no completion, nothing to
    /// submit, no main future. Few tasks that wake each other would else pay for a look at everything each
    /// time. Clock, timers and mail are looked at again after as many polls as in a turn of many tasks.
    fn quiet_turns(&self) {
        if self.metrics.timing() {
            return;
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.poll_quietly())) {
            self.tasks.end_panicked(payload);
            self.submit_or_sleep(Wait::No);
        }
    }

    fn poll_quietly(&self) {
        if !self.driver.is_quiet() {
            return;
        }
        let mut left = POLLS_PER_LOOK;
        loop {
            let ready = self.tasks.ready();
            if ready == 0 || ready > left || self.tasks.root_woken() {
                return;
            }
            left -= ready;
            self.metrics.count(Kind::Ticks);
            for _ in 0..ready {
                let Some(picked) = self.tasks.pick() else { break };
                self.tasks.run(picked);
            }
            if !self.driver.is_quiet() {
                // What was asked for in this turn is in the kernel before the next one.
                self.submit_or_sleep(Wait::No);
                return;
            }
        }
    }

    /// A turn without its sleep: until when it wants to sleep (`u64::MAX`: for ever), or none if it has
    /// submitted and is to go on at once.
    #[inline]
    pub(crate) fn work(&self, root: Option<&mut dyn FnMut()>, wait: Wait) -> Option<u64> {
        let began = self.read_clock();
        self.metrics.count(Kind::Ticks);
        let stepped = root.is_none();
        let mut worked = self.take_mail();
        worked |= self.driver.reap(|waker| self.tasks.call(waker)) > 0;
        self.timers.fire(began, &self.metrics);
        worked |= self.run_ready(root, began);
        // Who steps a loop by hand wants to look at what a step did before it sleeps.
        self.submit_or_sleep(if stepped && worked { Wait::No } else { wait })
    }

    /// A clock reading; wakes and submissions from here on are stamped with it.
    fn read_clock(&self) -> u64 {
        let now = self.kernel.now_ns();
        if self.metrics.timing() {
            self.tasks.set_stamp(now);
            self.driver.set_stamp(now);
        }
        now
    }

    /// Wakes and closures from other threads; whether closures ran.
    pub(super) fn take_mail(&self) -> bool {
        let cell = self.tasks.lease().cell;
        if cell.map.any() {
            cell.map.drain(|slot| self.tasks.wake_slot(slot));
        }
        let syscalls = cell.take_remote_wakes();
        if syscalls > 0 {
            self.metrics.add(Kind::RemoteWakes, syscalls);
        }
        if !self.jobs.any() {
            return false;
        }
        for job in self.jobs.take() {
            // A closure reports its own panic to its sender; one that cannot must not end the core.
            contained(job);
        }
        true
    }

    pub(super) fn has_mail(&self) -> bool {
        self.tasks.lease().cell.map.any() || self.jobs.any()
    }

    /// Polls what was ready when the step began, as far as the quota reaches; the rest keeps its place.
    /// Whether anything ran.
    fn run_ready(&self, root: Option<&mut dyn FnMut()>, began: u64) -> bool {
        let mut clock = PollClock::new(self, began);
        // Without a main future its wakes are stale ones, taken all the same: they must not keep the loop up.
        if self.tasks.take_root_woken()
            && let Some(root) = root
        {
            root();
            clock.polled(None);
        }
        let ready = self.tasks.ready();
        let mut left = ready;
        // One catch for all polls: a task that panics is ended, and the others go on.
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
            self.poll_ready(ready, &mut left, &mut clock, began);
        })) {
            self.tasks.end_panicked(payload);
            clock.polled(None);
        }
        clock.tick_ends(began);
        ready > 0
    }

    fn poll_ready(&self, ready: usize, left: &mut usize, clock: &mut PollClock<'_>, began: u64) {
        while *left > 0 {
            // Looked at before a poll and not after one, which may have panicked.
            if left.is_multiple_of(POLLS_PER_LOOK) && *left < ready {
                if clock.now() - began >= self.tick_quota_ns {
                    return;
                }
                // A busy core answers its mail between polls, not after all of them.
                if self.has_mail() {
                    self.take_mail();
                }
            }
            let Some(picked) = self.tasks.pick() else { return };
            *left -= 1;
            let woken = picked.stamp;
            self.tasks.run(picked);
            clock.polled(Some(woken));
        }
    }

    /// Converts a limit into a [`Wait`].
    pub(crate) fn wait_of(&self, limit: Option<Duration>) -> Wait {
        match limit {
            None => Wait::Ever,
            Some(Duration::ZERO) => Wait::No,
            Some(d) => {
                let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
                Wait::Until(self.kernel.now_ns().saturating_add(ns))
            }
        }
    }
}

/// Clock readings within a run of polls: one for each boundary if histograms are kept, none otherwise.
struct PollClock<'a> {
    core: &'a Core,
    last: u64,
    timing: bool,
}

impl<'a> PollClock<'a> {
    fn new(core: &'a Core, began: u64) -> Self {
        let timing = core.metrics.timing();
        let last = if timing { core.kernel.now_ns() } else { began };
        Self { core, last, timing }
    }

    fn polled(&mut self, woken: Option<u32>) {
        if !self.timing {
            return;
        }
        let began = self.last;
        self.last = self.core.read_clock();
        self.core.metrics.record(|h| {
            h.poll.record(self.last - began);
            if let Some(woken) = woken {
                h.wake_to_poll.record(since_stamp(woken, began));
            }
        });
    }

    fn now(&self) -> u64 {
        if self.timing { self.last } else { self.core.kernel.now_ns() }
    }

    fn tick_ends(self, began: u64) {
        if self.timing {
            self.core.metrics.record(|h| h.tick.record(self.last - began));
        }
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
