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
use crate::metrics::{Kind, Latency};
use crate::task::report::Report;
use crate::task::table::served::SEVERAL;
use crate::task::table::{Next, UNSTAMPED};
use crate::task::{TaskInfo, Whose};

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

/// Polls between two looks at the clock, in one turn or in several, and between two at the mail.
pub(super) const POLLS_PER_LOOK: usize = 32;

/// Polls of quiet turns between two looks at completions, mail and timers. A look costs as much as a poll,
/// and a reading of the clock while any timer is set.
const QUIET_POLLS_PER_LOOK: usize = 4;

/// Tasks of a turn that are all timed. In longer turns one poll in some 32 is.
const TIMED_IN_FULL: usize = 16;

impl Core {
    /// Mail, completions, timers, run queue, submit, park. `root` polls the main future, and says whether
    /// that has ended, which ends the turn.
    pub(crate) fn tick(&self, root: Option<&mut Root<'_>>, wait: Wait) {
        let Some(root) = root else {
            if let Some(until) = self.work(None, wait) {
                self.sleep(until);
            }
            return;
        };
        let mut ended = false;
        let mut poll_root = || {
            ended = root();
            ended
        };
        match self.work(Some(&mut poll_root), wait) {
            Some(until) => self.sleep(until),
            None if ended => {}
            None => self.quiet_turns(root),
        }
    }

    /// Goes on with turns in which there is nothing to do but to poll a few tasks: nothing to submit, no
    /// completion, no mail, no timer due. Tasks that wake each other would else pay for the steps of a whole
    /// turn each time, which cost more than they do. What is to be submitted is looked for after each turn,
    /// everything else after [`QUIET_POLLS_PER_LOOK`] polls. After as many polls as lie between two looks at
    /// the clock a whole turn is taken. Who steps a loop, such as a simulation, takes turns one by one.
    fn quiet_turns(&self, root: &mut Root<'_>) {
        if self.metrics.timing() || self.slow_ns.is_some() {
            return;
        }
        let mut turn = RunTurn { root: Some(root), ready: POLLS_PER_LOOK, left: 0, ended: false };
        let mut gave_way = 0;
        self.metrics.set_busy(true);
        while let Err(payload) =
            catch_unwind(AssertUnwindSafe(|| self.poll_quietly(&mut turn, &mut gave_way)))
        {
            self.tasks.end_panicked(payload);
        }
        self.metrics.set_busy(false);
        if !self.driver.is_quiet() {
            // What was asked for in the last turn is in the kernel before the next one.
            self.submit_or_sleep(Wait::No);
        }
    }

    /// `turn.ready` counts the polls down that are left until the next look at everything.
    fn poll_quietly(&self, turn: &mut RunTurn<'_, '_>, gave_way: &mut usize) {
        // Polls since the last look. The first turn comes after one.
        let mut unlooked = QUIET_POLLS_PER_LOOK;
        while !turn.ended {
            while turn.left > 0 {
                turn.left -= 1;
                match self.tasks.pick() {
                    Some(Next::Task(picked)) => {
                        self.tasks.run(picked);
                        self.unsent.send();
                    }
                    Some(Next::Root(_)) => {
                        turn.ended = turn.root.as_mut().is_some_and(|root| root());
                        self.unsent.send();
                        if turn.ended {
                            break;
                        }
                    }
                    Some(Next::Gone) => {}
                    None => turn.left = 0,
                }
            }
            let whole = turn.left == 0 && !turn.ended;
            let (ready, waits) = self.tasks.next_turn(std::mem::take(gave_way), whole);
            let polls = ready + waits;
            if turn.ended || polls == 0 || polls > turn.ready || self.driver.has_unsubmitted() {
                return;
            }
            unlooked += polls;
            if unlooked > QUIET_POLLS_PER_LOOK {
                if !self.driver.is_quiet() || self.has_mail_or_timer() {
                    return;
                }
                // What was submitted before these turns and is not here has to be waited for.
                self.driver.pool().ways().moves_on();
                unlooked = polls;
            }
            turn.ready -= polls;
            self.metrics.count(Kind::Ticks);
            (turn.left, *gave_way) = (ready, waits);
        }
    }

    /// Whether there is mail, or a timer is due.
    #[inline]
    fn has_mail_or_timer(&self) -> bool {
        let is_due = |at| self.kernel.now_ns() >= at;
        self.has_mail() || self.timers.next_ns().is_some_and(is_due)
    }

    /// A turn without its sleep: until when it wants to sleep (`u64::MAX`: for ever), or none if it has
    /// submitted and is to go on at once.
    #[inline]
    pub(crate) fn work(&self, root: Option<&mut Root<'_>>, wait: Wait) -> Option<u64> {
        self.metrics.count(Kind::Ticks);
        let stepped = root.is_none();
        let began = self.read_clock();
        self.metrics.set_busy(true);
        let mut worked = self.take_mail();
        worked |= self.driver.reap(|waker| self.tasks.call(waker)) > 0;
        self.timers.fire(began, &self.tasks, &self.metrics);
        let (ran, ended) = self.run_ready(root, began);
        worked |= ran;
        self.metrics.set_busy(false);
        // Who steps a loop by hand wants to look at what a step did before it sleeps.
        self.submit_or_sleep(if ended || stepped && worked { Wait::No } else { wait })
    }

    /// A clock reading; wakes and submissions from here on are stamped with it.
    fn read_clock(&self) -> u64 {
        let now = self.kernel.now_ns();
        self.tasks.set_time(now);
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
        self.watches.take_due(|slot| self.tasks.wake_slot(slot));
        let syscalls = cell.take_remote_wakes();
        if syscalls > 0 {
            self.metrics.add(Kind::RemoteWakes, syscalls);
        }
        if !self.jobs.any() {
            return false;
        }
        for job in self.jobs.take() {
            let began = self.slow_ns.map(|_| self.kernel.now_ns());
            // A closure reports its own panic to its sender; one that cannot must not end the core.
            contained(job);
            if let Some(took) = began.and_then(|began| self.slow_since(began)) {
                self.tasks.reporter().tell(&Report::SlowCall { took });
            }
        }
        true
    }

    /// In debug mode: the time since `began`, if it is longer than a poll may take.
    #[cold]
    fn slow_since(&self, began: u64) -> Option<Duration> {
        let took = self.kernel.now_ns().saturating_sub(began);
        self.slow_ns.filter(|slow| took > *slow).map(|_| Duration::from_nanos(took))
    }

    pub(super) fn has_mail(&self) -> bool {
        self.tasks.lease().cell.map.any() || self.jobs.any() || self.watches.any_due()
    }

    /// Polls what was ready when the step began, as far as the quota reaches; the rest keeps its place.
    /// Whether anything ran, and whether the main future has ended: then nobody else runs any more.
    // Apart from `work`: within it, the loop over polls has fewer registers, at 3 to 4 instructions a poll.
    #[inline(never)]
    fn run_ready(&self, root: Option<&mut Root<'_>>, began: u64) -> (bool, bool) {
        let ready = self.tasks.begin_turn();
        if ready == SEVERAL {
            return self.run_queues(root, began);
        }
        let mut clock = PollClock::new(self, began, ready);
        let gave_way = self.tasks.gave_way();
        let mut turn = RunTurn { root, ready, left: ready, ended: false };
        // One catch for all polls: a task that panics is ended, and the others go on.
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
            if self.flush_ns == u64::MAX {
                self.poll_ready::<false>(&mut turn, &mut clock, began);
            } else {
                self.poll_and_flush(&mut turn, &mut clock, began);
            }
        })) {
            self.tasks.end_panicked(payload);
            clock.polled(None);
        }
        self.tasks.end_turn(gave_way, turn.left == 0 && !turn.ended);
        clock.tick_ends(began);
        (ready > 0, turn.ended)
    }

    /// As [`poll_ready`](Self::poll_ready), with `flush_interval`: looks at the clock after each poll.
    #[cold]
    fn poll_and_flush(&self, turn: &mut RunTurn<'_, '_>, clock: &mut PollClock<'_>, began: u64) {
        self.poll_ready::<true>(turn, clock, began);
    }

    fn poll_ready<const FLUSHES: bool>(
        &self,
        turn: &mut RunTurn<'_, '_>,
        clock: &mut PollClock<'_>,
        began: u64,
    ) {
        while turn.left > 0 {
            // Looked at before a poll and not after one, which may have panicked.
            if (FLUSHES || turn.left.is_multiple_of(POLLS_PER_LOOK)) && turn.left < turn.ready {
                let now = clock.now();
                if now - began >= self.tick_quota_ns {
                    return;
                }
                if FLUSHES {
                    self.flush_in_time(now, began);
                }
                // A busy core answers its mail between polls, not after all of them.
                if self.has_mail() {
                    self.take_mail();
                }
            }
            turn.left -= 1;
            let Some(next) = self.tasks.pick() else { return };
            let ended = self.poll_next(next, &mut turn.root, clock, |clock, woken| {
                clock.polled(Some(woken));
            });
            if ended {
                turn.ended = true;
                return;
            }
        }
    }

    /// Polls what was picked, and then has `polled` note it, which hears when that was woken. Whether it was
    /// the main future, and that has ended.
    #[inline(always)]
    pub(super) fn poll_next(
        &self,
        next: Next,
        root: &mut Option<&mut Root<'_>>,
        clock: &mut PollClock<'_>,
        polled: impl FnOnce(&mut PollClock<'_>, u32),
    ) -> bool {
        match next {
            Next::Task(picked) => {
                let woken = picked.stamp;
                clock.polls(|| self.tasks.whose(&picked), || self.tasks.info_of(&picked));
                self.tasks.run(picked);
                self.unsent.send();
                polled(clock, woken);
                false
            }
            Next::Gone => false,
            // Without a main future its wakes are stale ones.
            Next::Root(woken) => {
                let Some(root) = root else { return false };
                clock.polls(|| self.tasks.whose_root(), || self.tasks.root_info());
                let ended = root();
                self.unsent.send();
                polled(clock, woken);
                ended
            }
        }
    }

    /// Hands over what the turn that began then has asked for so far, if that has waited for long enough;
    /// whether it did.
    #[cold]
    pub(super) fn flush_in_time(&self, now: u64, began: u64) -> bool {
        let waited = now.saturating_sub(self.flushed.get().max(began));
        let flushes = waited >= self.flush_ns && self.driver.has_unsubmitted();
        if flushes {
            self.flushed.set(now);
            self.driver.queue_waiting();
            self.driver.submit_and_wait(0, None);
            self.metrics.count(Kind::MidTurnFlushes);
        }
        flushes
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

/// Polls a main future; whether it has ended.
pub(crate) type Root<'a> = dyn FnMut() -> bool + 'a;

/// One turn of the run queue.
struct RunTurn<'a, 'r> {
    root: Option<&'a mut Root<'r>>,
    /// How many were ready when it began, and how many of them are left.
    ready: usize,
    left: usize,
    /// The main future has.
    ended: bool,
}

/// Clock readings within a run of polls, if histograms are kept: one for each boundary, or in a long turn two
/// for each poll that was picked to be timed. While there are several task queues: one for each boundary.
pub(super) struct PollClock<'a> {
    core: &'a Core,
    /// The last reading. In a long turn that may have been long ago.
    last: u64,
    timing: bool,
    /// Some polls are timed, picked at random, not all: a reading costs more than many a poll.
    picks: bool,
    /// Polls until the next one that is timed.
    skip: u32,
    /// Whose poll is being timed.
    whose: Whose,
    /// In debug mode: what is known of that task.
    polling: Option<TaskInfo>,
}

impl<'a> PollClock<'a> {
    fn new(core: &'a Core, began: u64, ready: usize) -> Self {
        let timing = core.metrics.timing() || core.slow_ns.is_some();
        let picks = timing && ready > TIMED_IN_FULL && core.slow_ns.is_none();
        let last = if timing && !picks { core.kernel.now_ns() } else { began };
        let skip = if picks { core.next_gap() } else { 0 };
        if picks {
            core.driver.time_submissions(false);
        }
        let whose = core.tasks.whose_root();
        Self { core, last, timing, picks, skip, whose, polling: None }
    }

    /// One that is read after each poll in any case.
    pub(super) fn reading_each(core: &'a Core) -> Self {
        let last = core.kernel.now_ns();
        let whose = core.tasks.whose_root();
        Self { core, last, timing: true, picks: false, skip: 0, whose, polling: None }
    }

    /// What is done from here on is part of the next poll, and what was done since the last is not.
    pub(super) fn reads(&mut self) {
        self.last = self.core.read_clock();
    }

    /// A poll begins, of the task that `whose` names and `info` describes.
    #[inline]
    pub(super) fn polls(&mut self, whose: impl FnOnce() -> Whose, info: impl FnOnce() -> TaskInfo) {
        // Of a poll that is not timed the skip is more than 0.
        if !self.timing || self.skip > 0 {
            return;
        }
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

    #[inline]
    pub(super) fn polled(&mut self, woken: Option<u32>) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.timing {
            self.record(woken);
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
            self.skip = self.core.next_gap();
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
