//! Tasks that are waited for together, and which of them have ended.
//!
//! Owns [`Set`] and the places in it. Where its joiner would be, a task of a set keeps its *place*: one
//! word (set and number), so it takes no room of its own. When the task ends it is linked to its set's list,
//! through the same field of its header, and the set's one waker is called. So a set learns of each end
//! in constant time, and is told nothing twice.
//!
//! ```text
//!   joiner: nobody ──Set::watch──► place ──the task ends──► link in the set's list ──pop──► nobody
//!                                    └──Set::unwatch, or another waker──► not of this set any more
//! ```
//!
//! Invariants:
//! - a linked task has ended and is kept by a handle that the set's owner holds, and lets go of only after
//!   the task was popped or when the set goes: so slots in the list name the tasks that were linked;
//! - a set that is gone, also one whose owner was forgotten, is linked to at most by numbers that nobody
//!   reads: its entry's generation has moved on, or its list is never taken;
//! - entries are not borrowed while a waker is cloned, called or dropped.
//!
//! Entries are reused, and a core keeps as many as it had sets at once.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::Waker;

use super::cell::Header;
use super::join::JoinHandle;
use super::joiner::Joiner;
use super::table::Tasks;
use crate::contain::{contained, let_go};

/// Several tasks of one loop that are waited for together.
pub(crate) struct Set {
    tasks: Rc<Tasks>,
    index: u32,
    generation: u16,
}

impl Set {
    /// An empty one on the loop of `handle`'s task.
    pub(crate) fn on_loop_of<T>(handle: &JoinHandle<T>) -> Self {
        let tasks = handle.share();
        let (index, generation) = tasks.sets.add();
        Self { tasks, index, generation }
    }

    /// Gives a task of this loop the place `number`, instead of whoever waited for it before. One that has
    /// ended is not watched.
    pub(crate) fn watch<T>(&self, handle: &JoinHandle<T>, number: usize) {
        debug_assert!(Rc::ptr_eq(&handle.share(), &self.tasks), "a set is of one loop");
        let place = Place::new(self.index, self.generation, number as u32);
        handle.set_joiner(Joiner::Place(place));
    }

    /// Takes a task's place away that it has had in this set.
    pub(crate) fn unwatch<T>(&self, handle: &JoinHandle<T>) {
        handle.clear_place_if(|place| {
            place.set() == self.index && place.generation() == self.generation
        });
    }

    /// Has `waker` called at the next end. A task may have ended since the last [`pop`](Self::pop), also
    /// while the waker was cloned: the caller looks once more.
    pub(crate) fn arm(&self, waker: &Waker) {
        if !self.tasks.sets.is_armed_with(self.index, waker) {
            let new = waker.clone();
            let old = self.tasks.sets.replace_waker(self.index, Some(new));
            let_go(old);
        }
    }

    /// The place of the next task that has ended, in the order in which they did.
    pub(crate) fn pop(&self) -> Option<usize> {
        self.tasks.sets.pop(self.index, |slot| self.tasks.task_in(slot))
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let waker = self.tasks.sets.remove(self.index);
        contained(|| drop(waker));
    }
}

/// The sets of one core.
#[derive(Default)]
pub(super) struct Sets(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Entry {
    waker: Option<Waker>,
    /// Slot of the task that ended last; the one before it follows by its link.
    newest: u32,
    /// Slot of the task to be popped next; the one after it follows by its link. What is here ended before
    /// what hangs on `newest`.
    oldest: u32,
    generation: u16,
}

impl Sets {
    fn add(&self) -> (u32, u16) {
        let mut inner = self.0.borrow_mut();
        let index = inner.free.pop().unwrap_or_else(|| {
            assert!(inner.entries.len() < SETS_MAX, "more than {SETS_MAX} sets on one core");
            inner.entries.push(Entry::default());
            (inner.entries.len() - 1) as u32
        });
        (index, inner.entries[index as usize].generation)
    }

    fn remove(&self, index: u32) -> Option<Waker> {
        let mut inner = self.0.borrow_mut();
        let entry = &mut inner.entries[index as usize];
        let waker = entry.waker.take();
        (entry.newest, entry.oldest) = (NONE, NONE);
        entry.generation = entry.generation.wrapping_add(1);
        inner.free.push(index);
        waker
    }

    fn is_armed_with(&self, index: u32, waker: &Waker) -> bool {
        let inner = self.0.borrow();
        inner.entries[index as usize].waker.as_ref().is_some_and(|known| known.will_wake(waker))
    }

    fn replace_waker(&self, index: u32, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut self.0.borrow_mut().entries[index as usize].waker, waker)
    }

    /// Links a task that has just ended and was in `place`. Gives whom to wake: the set's waker.
    pub(super) fn ended(&self, header: &Header, place: Place) -> Option<Waker> {
        let mut inner = self.0.borrow_mut();
        let entry = inner.entries.get_mut(place.set() as usize)?;
        if entry.generation != place.generation() {
            return None;
        }
        link(header, place.linked(entry.newest));
        entry.newest = header.word.slot();
        entry.waker.take()
    }

    /// Unlinks the oldest; `header_of` gives the task in a slot.
    fn pop(&self, index: u32, task_in: impl Fn(u32) -> Option<NonNull<Header>>) -> Option<usize> {
        let mut inner = self.0.borrow_mut();
        let entry = &mut inner.entries[index as usize];
        if entry.oldest == NONE {
            // Each task is turned round once, when those before it are gone.
            let mut newest = std::mem::replace(&mut entry.newest, NONE);
            while newest != NONE {
                let task = task_in(newest);
                let place = unlink(task)?;
                // SAFETY: a task in the table is live, and nothing is freed within `Sets::pop`.
                task.iter().for_each(|t| link(unsafe { t.as_ref() }, place.linked(entry.oldest)));
                (entry.oldest, newest) = (newest, place.next());
            }
        }
        if entry.oldest == NONE {
            return None;
        }
        let place = unlink(task_in(entry.oldest))?;
        entry.oldest = place.next();
        Some(place.number() as usize)
    }
}

/// Takes the link out of a task in a set's list.
fn unlink(task: Option<NonNull<Header>>) -> Option<Place> {
    // SAFETY: as for `link`.
    let link = task.and_then(|task| unsafe { task.as_ref() }.take_joiner());
    let Some(Joiner::Place(place)) = link else {
        debug_assert!(false, "a task in a set's list was let go of");
        return None;
    };
    Some(place)
}

fn link(task: &Header, place: Place) {
    let before = task.replace_joiner(Some(Joiner::Place(place)));
    debug_assert!(before.is_none(), "a task is linked once it was unlinked");
}

/// A place in a set in one word: the number of the place (24 bits), and of the set (24) with its generation
/// (16); once the task is linked, the slot of the next one instead of the set.
#[derive(Clone, Copy)]
pub(super) struct Place(pub(super) u64);

impl Place {
    fn new(set: u32, generation: u16, number: u32) -> Self {
        debug_assert!(number < 1 << BITS, "a set is not larger than a core's table");
        Self(u64::from(generation) << (2 * BITS) | u64::from(set) << BITS | u64::from(number))
    }

    fn number(self) -> u32 {
        self.0 as u32 & MASK
    }

    fn set(self) -> u32 {
        (self.0 >> BITS) as u32 & MASK
    }

    fn generation(self) -> u16 {
        (self.0 >> (2 * BITS)) as u16
    }

    fn linked(self, next: u32) -> Self {
        Self::new(next, 0, self.number())
    }

    fn next(self) -> u32 {
        self.set()
    }
}

/// Bits of a slot, of a set's index and of a place's number.
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;
/// Sets of one core at once.
const SETS_MAX: usize = 1 << BITS;
/// The end of a list: the main future's slot, which no handle names.
const NONE: u32 = super::table::ROOT;

// A model has fewer.
const _: () = assert!(cfg!(loom) || crate::mailbox::wake_map::SLOTS_MAX == 1 << BITS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_its_parts_and_a_link_its_number() {
        let place = Place::new(MASK, u16::MAX, MASK - 1);
        assert_eq!((place.set(), place.generation(), place.number()), (MASK, u16::MAX, MASK - 1));
        let link = place.linked(7);
        assert_eq!((link.next(), link.number()), (7, MASK - 1));
    }
}
