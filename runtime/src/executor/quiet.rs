//! Turns in which there is nothing to do but to poll a few tasks.
//!
//! Owns when such turns follow a whole one, and when they end. Tasks that wake each other would else pay for
//! the steps of a whole turn each time, which cost more than they do.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Core;
use super::tick::{POLLS_PER_LOOK, Root, Wait};
use crate::metrics::Kind;
use crate::task::table::{Begun, Next};

/// Polls of quiet turns between the first two looks at completions, mail and timers, unless a turn has
/// more. A look costs as much as a poll, and a reading of the clock while any timer is set. Where none is,
/// each that finds nothing makes the way to the next one twice as long, until a whole turn is taken.
const POLLS_TO_FIRST_LOOK: usize = 4;

/// Quiet turns that follow each other.
struct Quiet<'a, 'r> {
    root: Option<&'a mut Root<'r>>,
    /// Polls until a whole turn is taken.
    polls: usize,
    /// Polls until the next look, and from that to the one after it; a turn that has begun is finished first.
    blind: usize,
    stretch: usize,
    /// Of the present turn: who is left, and how many had given way when it began.
    left: usize,
    gave_way: usize,
}

impl Core {
    /// Goes on with turns while there is nothing to submit, no completion, no mail, no timer due. What is to
    /// be submitted is looked for after each turn, everything else after [`POLLS_TO_FIRST_LOOK`] polls and
    /// then ever more. After as many polls as lie between two looks at the clock a whole turn is taken. Who
    /// steps a loop, such as a simulation, takes turns one by one.
    pub(super) fn quiet_turns(&self, root: &mut Root<'_>) {
        // Nor where the clock is read between polls, for whatever reason.
        if self.reads_clock_between_polls() {
            return;
        }
        // The first turn comes after a look.
        let root = Some(root);
        let (polls, stretch) = (POLLS_PER_LOOK, POLLS_TO_FIRST_LOOK);
        let mut quiet = Quiet { root, polls, blind: 0, stretch, left: 0, gave_way: 0 };
        self.metrics.set_busy(true);
        while let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.poll_quietly(&mut quiet))) {
            self.tasks.end_panicked(payload);
        }
        self.metrics.set_busy(false);
        if !self.driver.is_quiet() {
            // What was asked for in the last turn is in the kernel before the next one.
            self.submit_or_sleep(Wait::No);
        }
    }

    fn poll_quietly(&self, quiet: &mut Quiet<'_, '_>) {
        let ended = loop {
            let next = if quiet.left > 0 {
                quiet.left -= 1;
                self.tasks.pick()
            } else {
                self.next_quiet_turn(quiet)
            };
            let Some(next) = next else { break false };
            if self.run(next, &mut quiet.root) {
                break true;
            }
        };
        let whole = quiet.left == 0 && !ended;
        self.tasks.end_turn(std::mem::take(&mut quiet.gave_way), whole);
    }

    /// Ends a turn and begins the next one; whom that polls first. None where a whole turn is to be taken.
    #[inline(always)]
    fn next_quiet_turn(&self, quiet: &mut Quiet<'_, '_>) -> Option<Next> {
        if self.driver.has_written() {
            return None;
        }
        if quiet.blind == 0 {
            if !self.tasks.any_ready() || !self.driver.is_quiet() || self.has_mail_or_timer() {
                return None;
            }
            // What was submitted before these turns and is not here has to be waited for.
            self.driver.pool().ways().moves_on();
            quiet.blind = quiet.stretch;
            // With a timer set the time until it is looked at counts, however long the polls are.
            if self.timers.len() == 0 {
                quiet.stretch *= 2;
            }
        }
        let Begun { first, left, gave_way } =
            self.tasks.next_turn(std::mem::take(&mut quiet.gave_way), quiet.polls)?;
        self.driver.turn_polls(1 + left);
        let polls = 1 + left + gave_way;
        quiet.blind = quiet.blind.saturating_sub(polls);
        quiet.polls -= polls;
        (quiet.left, quiet.gave_way) = (left, gave_way);
        self.metrics.count(Kind::Ticks);
        Some(first)
    }

    /// Whether there is mail, or a timer is due.
    #[inline]
    fn has_mail_or_timer(&self) -> bool {
        let is_due = |at| self.kernel.now_ns() >= at;
        self.has_mail() || self.timers.next_ns().is_some_and(is_due)
    }
}
