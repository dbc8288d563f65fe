//! One turn of the loop.
//!
//! Owns the order of its steps and the budget of its run queue. Reasons for the order: mail first, since it
//! only marks tasks; completions before timers, so that what arrived in time beats its own deadline; both
//! before the run queue, so that no self-waking task keeps I/O or timers out; one enter at the end, which
//! submits what the tasks asked for and, if nothing is left to do, parks, or leaves that to one of its own
//! ([`park`](super::park)). A turn comes in two parts, all that is done and the sleep, so that whoever steps
//! many cores can stop between them; [`Core::tick`] is both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Core;
use super::poll_clock::PollClock;
use crate::contain::contained;
use crate::metrics::Kind;
use crate::spans;
use crate::task::Tasks;
use crate::task::report::Report;
use crate::task::table::Next;
use crate::task::table::served::SEVERAL;

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

impl Core {
    /// Mail, completions, timers, run queue, submit, park. `root` polls the main future, and says whether
    /// that has ended, which ends the turn.
    pub(crate) fn tick(&self, root: Option<&mut Root<'_>>, wait: Wait) {
        let Some(root) = root else {
            if let Some(until) = self.work(None, wait) {
                self.sleep(until);
            }
            // Nobody knows when the next turn comes.
            self.woke.set(None);
            return;
        };
        let mut ended = false;
        let mut poll_root = || {
            ended = root();
            ended
        };
        match self.work(Some(&mut poll_root), wait) {
            Some(until) => self.woke.set(self.sleep(until)),
            None if ended || !self.tasks.any_ready() => {}
            None => self.quiet_turns(root),
        }
    }

    /// A turn without its sleep: until when it wants to sleep (`u64::MAX`: for ever), or none if it has
    /// submitted and is to go on at once.
    #[inline]
    pub(crate) fn work(&self, root: Option<&mut Root<'_>>, wait: Wait) -> Option<u64> {
        self.metrics.count(Kind::Ticks);
        self.turns.set(self.turns.get() + 1);
        let stepped = root.is_none();
        // What was read at the end of a sleep or a spin has just been read, where the next turn follows it.
        let began = match self.woke.take() {
            Some(woke) => self.stamp_with(woke),
            None => self.read_clock(),
        };
        self.metrics.set_busy(true);
        let mut worked = self.take_mail();
        let reaped = self.driver.reap(|waker| self.tasks.call(waker));
        self.dial.reaped(reaped);
        worked |= reaped > 0;
        // Whom it woke may be a stranger, who leaves no task to run.
        worked |= self.timers.fire(began, &self.tasks, &self.metrics);
        let (ran, ended) = self.run_ready(root, began);
        worked |= ran;
        self.metrics.set_busy(false);
        // Who steps a loop by hand wants to look at what a step did before it sleeps.
        self.submit_or_sleep(if ended || stepped && worked { Wait::No } else { wait })
    }

    /// A clock reading; wakes and submissions from here on are stamped with it.
    pub(crate) fn read_clock(&self) -> u64 {
        self.stamp_with(self.kernel.now_ns())
    }

    #[inline]
    fn stamp_with(&self, now: u64) -> u64 {
        self.tasks.set_time(now);
        if self.metrics.timing() {
            self.tasks.set_stamp(now);
            self.driver.set_stamp(now);
        }
        now
    }

    /// Wakes and closures from other threads; whether closures ran.
    #[inline(always)]
    pub(super) fn take_mail(&self) -> bool {
        let cell = self.tasks.lease().cell;
        let posted = cell.take_post();
        if posted {
            self.take_wakes();
        }
        if self.watches.any() {
            self.take_due();
        }
        posted && self.run_jobs()
    }

    /// Schedules the tasks that other threads have woken.
    #[inline(never)]
    fn take_wakes(&self) {
        self.tasks.lease().cell.map.drain(|slot| self.tasks.wake_slot(slot));
    }

    /// Enters in the book what senders have counted: where nobody waits for the cache line that they count
    /// in, and before anybody is told.
    #[inline]
    pub(super) fn count_remote_wakes(&self) {
        let syscalls = self.tasks.lease().cell.take_remote_wakes();
        if syscalls > 0 {
            self.metrics.add(Kind::RemoteWakes, syscalls);
        }
    }

    /// Wakes who waits for another core's message that has come.
    #[inline(never)]
    fn take_due(&self) {
        self.watches.take_due(|slot| {
            spans::woken(self.tasks.core_id(), slot, None);
            self.tasks.wake_slot(slot);
        });
    }

    /// Runs the closures that other threads have left; whether there were any.
    #[cold]
    fn run_jobs(&self) -> bool {
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

    #[inline]
    pub(super) fn has_mail(&self) -> bool {
        self.tasks.lease().cell.has_post() || self.watches.any_due()
    }

    /// Polls what was ready when the step began, as far as the quota reaches; the rest keeps its place.
    /// Whether anything ran, and whether the main future has ended: then nobody else runs any more.
    // Apart from `work`: within it, the loop over polls has fewer registers, at 3 to 4 instructions a poll.
    #[inline(never)]
    fn run_ready(&self, root: Option<&mut Root<'_>>, began: u64) -> (bool, bool) {
        let ready = self.tasks.begin_turn();
        self.driver.turn_polls(ready);
        if ready == SEVERAL {
            return self.run_queues(root, began);
        }
        let gave_way = self.tasks.gave_way();
        let mut turn = RunTurn { root, ready, left: ready, ended: false };
        if self.reads_clock_between_polls() {
            self.run_with_clock(&mut turn, began);
        } else {
            // One catch for all polls: a task that panics is ended, and the others go on.
            while let Err(payload) =
                catch_unwind(AssertUnwindSafe(|| self.poll_ready(&mut turn, began)))
            {
                self.tasks.end_panicked(payload);
            }
        }
        self.tasks.end_turn(gave_way, turn.left == 0 && !turn.ended);
        (ready > 0, turn.ended)
    }

    /// Whether somebody asks how long polls take, or how long submissions wait for them.
    #[inline]
    pub(super) fn reads_clock_between_polls(&self) -> bool {
        self.metrics.timing() || self.slow_ns.is_some() || self.flush_ns != u64::MAX
    }

    #[inline]
    fn poll_ready(&self, turn: &mut RunTurn<'_, '_>, began: u64) {
        // Stays at hand: it could else be another after each poll, as far as the compiler knows.
        let tasks = &*self.tasks;
        while turn.left > 0 {
            if turn.is_look_due() && !self.look(self.kernel.now_ns(), began) {
                return;
            }
            // Up to where the next look is due.
            for _ in 0..(turn.left - 1) % POLLS_PER_LOOK + 1 {
                if !self.poll_plainly(tasks, turn) {
                    return;
                }
            }
        }
    }

    /// The polls of a turn, as [`run_ready`](Self::run_ready), with the clock.
    #[inline(never)]
    fn run_with_clock(&self, turn: &mut RunTurn<'_, '_>, began: u64) {
        let mut clock = PollClock::new(self, began, turn.ready);
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| {
            if self.flush_ns == u64::MAX {
                self.poll_with_clock(turn, &mut clock, began);
            } else {
                self.poll_and_flush(turn, &mut clock, began);
            }
        })) {
            self.tasks.end_panicked(payload);
            clock.polled(None, turn.left);
        }
        clock.tick_ends(began);
    }

    fn poll_with_clock(&self, turn: &mut RunTurn<'_, '_>, clock: &mut PollClock<'_>, began: u64) {
        loop {
            // Those ahead of the next that is timed.
            let next = clock.next(turn.left);
            while turn.left > next {
                if turn.is_look_due() && !self.look(self.kernel.now_ns(), began) {
                    return;
                }
                if !self.poll_plainly(&self.tasks, turn) {
                    return;
                }
            }
            if turn.left == 0 || !self.poll_timed(turn, clock, began) {
                return;
            }
        }
    }

    /// Polls one without the clock; whether the turn goes on.
    #[inline(always)]
    fn poll_plainly(&self, tasks: &Tasks, turn: &mut RunTurn<'_, '_>) -> bool {
        turn.left -= 1;
        match tasks.pick() {
            // By far the most, and they end no turn.
            Some(Next::Task(picked)) => {
                tasks.run(picked);
                self.unsent.send();
                true
            }
            Some(next) => self.poll_other(next, turn),
            None => false,
        }
    }

    /// As [`poll_plainly`](Self::poll_plainly), the main future.
    #[inline(never)]
    fn poll_other(&self, next: Next, turn: &mut RunTurn<'_, '_>) -> bool {
        turn.ended = self.run(next, &mut turn.root);
        !turn.ended
    }

    /// Polls one with the clock; whether the turn goes on.
    #[inline(never)]
    fn poll_timed(
        &self,
        turn: &mut RunTurn<'_, '_>,
        clock: &mut PollClock<'_>,
        began: u64,
    ) -> bool {
        if turn.is_look_due() && !self.look_beside(clock, clock.now(), began) {
            return false;
        }
        turn.left -= 1;
        let Some(next) = self.tasks.pick() else { return false };
        turn.ended = self.poll_next(next, &mut turn.root, clock, |clock, woken| {
            clock.polled(Some(woken), turn.left);
        });
        !turn.ended
    }

    /// As [`poll_with_clock`](Self::poll_with_clock), with `flush_interval`: looks at it after each poll.
    #[cold]
    fn poll_and_flush(&self, turn: &mut RunTurn<'_, '_>, clock: &mut PollClock<'_>, began: u64) {
        while turn.left > 0 {
            if turn.left < turn.ready {
                let now = clock.now();
                if !self.look_beside(clock, now, began) {
                    return;
                }
                if self.flush_in_time(now, began) {
                    clock.reads();
                }
            }
            let timed = turn.left == clock.next(turn.left);
            let goes_on = if timed {
                self.poll_timed(turn, clock, began)
            } else {
                self.poll_plainly(&self.tasks, turn)
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Between polls: whether the turn has time for more. Answers the mail then: a busy core does that
    /// between polls, not after all of them.
    #[inline]
    fn look(&self, now: u64, began: u64) -> bool {
        let has_time = now - began < self.tick_quota_ns;
        if has_time && self.has_mail() {
            self.take_mail();
        }
        has_time
    }

    /// As [`look`](Self::look); the time that mail takes is of no poll.
    fn look_beside(&self, clock: &mut PollClock<'_>, now: u64, began: u64) -> bool {
        let mail = self.has_mail();
        let goes_on = self.look(now, began);
        if mail {
            clock.reads();
        }
        goes_on
    }

    /// Polls what was picked; whether it was the main future, and that has ended.
    #[inline(always)]
    pub(super) fn run(&self, next: Next, root: &mut Option<&mut Root<'_>>) -> bool {
        let ended = match next {
            Next::Task(picked) => {
                self.tasks.run(picked);
                false
            }
            Next::Gone => return false,
            // Without a main future its wakes are stale ones.
            Next::Root(_) => root.as_mut().is_some_and(|root| root()),
        };
        self.unsent.send();
        ended
    }

    /// As [`run`](Self::run), and then has `polled` note it, which hears when that was woken.
    #[inline(always)]
    pub(super) fn poll_next(
        &self,
        next: Next,
        root: &mut Option<&mut Root<'_>>,
        clock: &mut PollClock<'_>,
        polled: impl FnOnce(&mut PollClock<'_>, u32),
    ) -> bool {
        let (woken, ended) = match next {
            Next::Task(picked) => {
                let woken = picked.stamp;
                clock.polls(|| self.tasks.whose(&picked), || self.tasks.info_of(&picked));
                self.tasks.run(picked);
                (woken, false)
            }
            Next::Root(woken) => {
                let Some(root) = root else { return false };
                clock.polls(|| self.tasks.whose_root(), || self.tasks.root_info());
                (woken, root())
            }
            Next::Gone => return false,
        };
        self.unsent.send();
        polled(clock, woken);
        ended
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

impl RunTurn<'_, '_> {
    /// Whether to look at the clock and at the mail: before a poll and not after one, which may have
    /// panicked.
    #[inline]
    fn is_look_due(&self) -> bool {
        self.left.is_multiple_of(POLLS_PER_LOOK) && self.left < self.ready
    }
}
