//! Turns of the run queue: where one begins and ends, and who gives way to it.
//!
//! Owns the order between those that are ready and those that gave way. Which tasks there are, and what a
//! poll does, is the table's.

use super::served::SEVERAL;
use super::{Inner, Next, ROOT, Tasks};
use crate::spans;
use crate::task::waker::Word;

impl Tasks {
    /// Schedules the task that a waker names behind the next turn. `false` if it is none of these.
    #[inline]
    pub(crate) fn give_way(&self, word: Word) -> bool {
        // Commonly it is who is being polled, and so one of these. Or who has just ended, and whose slot is
        // free already, or has gone to another, who is polled in vain.
        let running = self.running.get() == word;
        if !running && word.core() != self.lease.id {
            return false;
        }
        spans::woken(word.core(), word.slot(), Some(word.generation()));
        let inner = &mut *self.inner.borrow_mut();
        let Some(entry) = inner.table.get_mut(word.slot() as usize) else { return false };
        let ours = entry.task.is_some() && (running || entry.is_of(word)) || word.slot() == ROOT;
        if ours && entry.scheduled == 0 {
            entry.scheduled = self.stamp.get();
            inner.gave_way.push(word.slot());
        }
        ours
    }

    /// How many have given way so far: for [`end_turn`](Self::end_turn).
    #[inline]
    pub(crate) fn gave_way(&self) -> usize {
        self.inner.borrow().gave_way.len()
    }

    /// Begins a turn of the run queue; how many are to be polled in it. Where nobody else is ready there is
    /// nobody to give way to, and those that did are. While there are several queues no turn begins, and
    /// [`SEVERAL`] comes back: [`begin_queues`](Self::begin_queues) is the way then.
    #[inline]
    pub(crate) fn begin_turn(&self) -> usize {
        self.inner.borrow_mut().begin_turn()
    }

    /// Ends a turn: the first `n` of those that gave way have done so. After a whole turn they go on before
    /// all that became ready in it; if it was cut short, after all that it left, or they would keep it out.
    #[inline]
    pub(crate) fn end_turn(&self, n: usize, whole: bool) {
        if n > 0 {
            self.inner.borrow_mut().end_turn(n, whole);
        }
    }

    /// [`end_turn`](Self::end_turn) after a whole turn, [`begin_turn`](Self::begin_turn), and the first pick
    /// of it, in one. None where nobody is ready, or more are than `most` with those who gave way: then the
    /// turn has not begun.
    #[inline]
    pub(crate) fn next_turn(&self, gave_way: usize, most: usize) -> Option<Begun> {
        let inner = &mut *self.inner.borrow_mut();
        if gave_way > 0 {
            inner.end_turn(gave_way, true);
        }
        let (ready, gave_way) = (inner.begin_turn(), inner.gave_way.len());
        if ready + gave_way > most {
            return None;
        }
        Some(Begun { first: inner.pick()?, left: ready.saturating_sub(1), gave_way })
    }
}

/// A turn.
pub(crate) struct Begun {
    /// Who is polled first.
    pub(crate) first: Next,
    /// How many are polled after that one.
    pub(crate) left: usize,
    /// For [`end_turn`](Tasks::end_turn).
    pub(crate) gave_way: usize,
}

impl Inner {
    #[inline]
    fn begin_turn(&mut self) -> usize {
        if self.queues.is_some() {
            return SEVERAL;
        }
        if self.ready.is_empty() {
            std::mem::swap(&mut self.ready, &mut self.gave_way);
        }
        self.ready.len()
    }

    #[cold]
    fn end_turn(&mut self, n: usize, whole: bool) {
        let n = n.min(self.gave_way.len());
        if whole {
            self.ready.take_in_front(&mut self.gave_way, n);
        } else {
            self.ready.take_behind(&mut self.gave_way, n);
        }
    }
}
