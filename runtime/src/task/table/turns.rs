//! Turns of the run queue: where one begins and ends, and who gives way to it.
//!
//! Owns the order between those that are ready and those that gave way. Which tasks there are, and what a
//! poll does, is the table's.

use super::served::SEVERAL;
use super::{Inner, Tasks};
use crate::task::waker::Word;

impl Tasks {
    /// Schedules the task that a waker names behind the next turn. `false` if it is none of these.
    pub(crate) fn give_way(&self, word: Word) -> bool {
        if word.core() != self.lease.id {
            return false;
        }
        let inner = &mut *self.inner.borrow_mut();
        let Some(entry) = inner.table.get_mut(word.slot() as usize) else { return false };
        let ours = entry.is_live(word);
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

    /// [`end_turn`](Self::end_turn), [`begin_turn`](Self::begin_turn) and [`gave_way`](Self::gave_way)
    /// in one. A turn that was begun like this and not taken may be begun again.
    #[inline]
    pub(crate) fn next_turn(&self, n: usize, whole: bool) -> (usize, usize) {
        let inner = &mut *self.inner.borrow_mut();
        if n > 0 {
            inner.end_turn(n, whole);
        }
        (inner.begin_turn(), inner.gave_way.len())
    }
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
