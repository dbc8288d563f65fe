//! Which way of receiving pays, as far as that is for a core to know and not for one connection.
//!
//! Owns [`Ways`]: whether connections may be armed for many ([`RecvMany`](crate::op::RecvMany)), and whether
//! what a single receive brought was there before it was asked for. Both equilibria keep themselves up. Where
//! all are armed for many, turns are small, and whoever looks with a single receive finds nothing; where all
//! receive singly, messages gather while others are served, and are there. So the core tries: now and then it
//! lets nobody be armed for many for a while, counts how many messages are there then, and decides for all.

use std::cell::Cell;

/// Bytes of one receive that goes on.
const UNASKED_MAX: u32 = 64 << 10;

/// Receives that are counted together.
const WINDOW: u32 = 1024;

/// Windows with receives for many before the first trial, and between two.
const FIRST_TRIAL: u32 = 4;
const TRUSTED: u32 = 256;

/// Windows with waits that are let pass after one without: a pause of the peers is no reason.
const PATIENCE: u32 = 8;

/// Windows that a trial waits at most for those that are armed for many to end, as they do by themselves
/// and are not armed anew: enough for 65,000 connections with 64 messages each. Users of the ops may arm
/// what they like for ever.
const DRAINS_MAX: u32 = 4096;

pub(crate) struct Ways {
    /// Whether completions come by enters alone, so that anything can be told from when they come.
    sees: bool,
    /// Whether the kernel knows a limit of a receive that goes on; known when it refused one.
    no_limit: Cell<bool>,
    /// Reaps and waits so far.
    steps: Cell<u32>,
    /// Since the last enter, receives were asked for of which it matters whether they have to wait.
    judges: Cell<bool>,
    /// Whether connections may be armed for many.
    many: Cell<bool>,
    /// Windows until the next trial.
    left: Cell<u32>,
    /// Windows that this trial has waited for those that were armed.
    drained: Cell<u32>,
    /// Windows with waits that are still let pass.
    patience: Cell<u32>,
    /// Of this window: messages that were there, that were waited for, and that came unasked.
    at_once: Cell<u32>,
    waited: Cell<u32>,
    unasked: Cell<u32>,
}

impl Ways {
    /// Of a ring whose completions come by enters alone, or (not `sees`) whenever they like: then every
    /// message counts as waited for, and there are no trials.
    pub(super) fn new(sees: bool) -> Self {
        Self {
            sees,
            no_limit: Cell::new(false),
            steps: Cell::new(0),
            judges: Cell::new(false),
            many: Cell::new(true),
            left: Cell::new(FIRST_TRIAL),
            drained: Cell::new(0),
            patience: Cell::new(0),
            at_once: Cell::new(0),
            waited: Cell::new(0),
            unasked: Cell::new(0),
        }
    }

    /// An enter was made. What one brings that may have waited was waited for, as far as can be told.
    #[inline]
    pub(super) fn entered(&self, may_wait: bool) {
        self.judges.set(false);
        if may_wait {
            self.moves_on();
        }
    }

    /// A reap begins; or the core has nothing else to do than to wait: what comes now was not there.
    #[inline]
    pub(crate) fn moves_on(&self) {
        self.steps.set(self.steps.get().wrapping_add(1));
    }

    /// A receive is made now: what to tell [`was_there`](Self::was_there).
    #[inline]
    pub(crate) fn asks(&self) -> u32 {
        self.steps.get().wrapping_add(1)
    }

    /// Whether a completion that is being reaped came without a wait since then.
    #[inline]
    pub(crate) fn was_there(&self, asked: u32) -> bool {
        self.sees && self.steps.get() == asked
    }

    /// Of a receive that the next enter submits it matters whether it has to wait.
    #[inline]
    pub(crate) fn judge(&self) {
        self.judges.set(self.sees);
    }

    /// Whether the next enter is to be one that does not wait.
    #[inline]
    pub(crate) fn is_judging(&self) -> bool {
        self.judges.get()
    }

    /// Whether connections may be armed for many now.
    #[inline]
    pub(crate) fn many(&self) -> bool {
        self.many.get()
    }

    /// A single receive brought a message, which was there before it was asked for, or not.
    #[inline]
    pub(crate) fn received(&self, at_once: bool) {
        let count = if at_once { &self.at_once } else { &self.waited };
        count.set(count.get() + 1);
        self.counted();
    }

    /// A receive for many brought a message.
    #[inline]
    pub(crate) fn received_unasked(&self) {
        self.unasked.set(self.unasked.get() + 1);
        self.counted();
    }

    #[inline]
    fn counted(&self) {
        if self.at_once.get() + self.waited.get() + self.unasked.get() >= WINDOW {
            self.end_window();
        }
    }

    #[cold]
    fn end_window(&self) {
        let (at_once, waited) = (self.at_once.take(), self.waited.take());
        let unasked = self.unasked.take();
        let (left, drained) = (self.left.get(), self.drained.get());
        if !self.sees {
            return;
        }
        if self.many.get() {
            self.many.set(left > 0);
            self.left.set(left.saturating_sub(1));
        } else if unasked > WINDOW / 8 && drained < DRAINS_MAX {
            // Those that were armed before the trial still set the pace.
            self.drained.set(drained + 1);
        } else if unasked <= WINDOW / 8 && at_once * 3 >= waited {
            self.drained.set(0);
            self.patience.set(PATIENCE);
        } else if self.patience.get() > 0 {
            self.patience.set(self.patience.get() - 1);
        } else {
            self.many.set(true);
            // A trial among many connections takes long: the time between two is more than that.
            self.left.set(TRUSTED.max(drained * 3));
            self.drained.set(0);
        }
    }

    /// Bytes after which the kernel is to end a receive that goes on, so that a reader who does not keep up
    /// has no more than so many, and a buffer's, brought unasked; 0 where it can't be told.
    pub(crate) fn receive_limit(&self) -> u32 {
        if self.no_limit.get() { 0 } else { UNASKED_MAX }
    }

    /// Notes that the kernel knows no such limit.
    pub(crate) fn receive_without_limit(&self) {
        self.no_limit.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(ways: &Ways, n: u32, one: impl Fn(&Ways, u32)) {
        for i in 0..n * WINDOW {
            one(ways, i);
        }
    }

    #[test]
    fn what_the_next_reap_brings_was_there_unless_somebody_waited() {
        let ways = Ways::new(true);
        let reaped = |between: &dyn Fn(&Ways)| {
            let asked = ways.asks();
            between(&ways);
            ways.moves_on();
            ways.was_there(asked)
        };
        assert!(reaped(&|ways| ways.entered(false)));
        assert!(reaped(&|ways| (0..4).for_each(|_| ways.entered(false))), "also of early flushes");
        assert!(!reaped(&|ways| ways.entered(true)), "a sleep");
        assert!(!reaped(&Ways::moves_on), "a spin, or the reap after the next");
    }

    #[test]
    fn a_core_tries_whether_single_receives_find_something() {
        let ways = Ways::new(true);
        windows(&ways, FIRST_TRIAL, |w, _| w.received_unasked());
        assert!(ways.many());
        windows(&ways, 1, |w, _| w.received_unasked());
        assert!(!ways.many(), "the trial begins");
        windows(&ways, 10, |w, _| w.received_unasked());
        assert!(!ways.many(), "and waits for those that are still armed");
        windows(&ways, 1, |w, i| w.received(i % 4 == 0));
        assert!(!ways.many(), "a quarter is there: it is kept");
        windows(&ways, 1_000, |w, _| w.received(true));
        assert!(!ways.many());
        windows(&ways, PATIENCE, |w, _| w.received(false));
        assert!(!ways.many(), "that may have been a pause");
        windows(&ways, 1, |w, _| w.received(false));
        assert!(ways.many());
    }

    #[test]
    fn where_they_wait_connections_are_armed_for_many_until_the_next_trial() {
        let ways = Ways::new(true);
        windows(&ways, FIRST_TRIAL + 1, |w, _| w.received(false));
        assert!(!ways.many());
        windows(&ways, 1, |w, i| w.received(i % 5 == 0));
        assert!(ways.many(), "a fifth is too few");
        windows(&ways, TRUSTED, |w, _| w.received_unasked());
        assert!(ways.many());
        windows(&ways, 1, |w, _| w.received_unasked());
        assert!(!ways.many());
    }

    #[test]
    fn a_trial_lasts_until_those_that_were_armed_have_ended() {
        let ways = Ways::new(true);
        windows(&ways, FIRST_TRIAL + 1, |w, _| w.received_unasked());
        windows(
            &ways,
            200,
            |w, i| if i % 4 == 0 { w.received(true) } else { w.received_unasked() },
        );
        assert!(!ways.many(), "whatever some say by then");
        windows(&ways, 1, |w, _| w.received(false));
        assert!(ways.many());
        windows(&ways, 600, |w, _| w.received_unasked());
        assert!(ways.many(), "the next one comes after three times as long");
        windows(&ways, 1, |w, _| w.received_unasked());
        assert!(!ways.many());
    }

    #[test]
    fn a_trial_that_shows_nothing_ends() {
        let ways = Ways::new(true);
        windows(&ways, FIRST_TRIAL + 1 + DRAINS_MAX, |w, _| w.received_unasked());
        assert!(!ways.many());
        windows(&ways, 1, |w, _| w.received_unasked());
        assert!(ways.many(), "nobody found anything");
    }

    #[test]
    fn a_few_that_were_there_do_not_speak_for_all() {
        let ways = Ways::new(true);
        windows(&ways, FIRST_TRIAL + 1, |w, _| w.received_unasked());
        windows(&ways, 1, |w, i| w.received(i % 4 == 3 && i < 1000));
        assert!(ways.many(), "250 of 1,024 are less than a quarter");
    }

    #[test]
    fn where_nothing_can_be_told_nothing_is_tried() {
        let ways = Ways::new(false);
        windows(&ways, 1_000, |w, _| w.received_unasked());
        assert!(ways.many());
        let asked = ways.asks();
        ways.judge();
        ways.moves_on();
        assert!(!ways.is_judging() && !ways.was_there(asked));
    }
}
