//! A waker in one word, without a reference count.
//!
//! Owns the word (core id, slot, generation) and the four functions behind it. Clone is a copy, drop is
//! nothing; a wake on the task's own core is a push on its run queue, a wake from elsewhere a bit in that
//! core's map. A stale word is harmless: the generation does not match, or a stranger is polled in vain.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::current;
use crate::mailbox::cell;
use crate::spans;

const CORE_BITS: u32 = 10;
const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 30;
/// Generations go on modulo this.
pub(crate) const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

const _: () = assert!(CORE_BITS + SLOT_BITS + GENERATION_BITS == 64 && usize::BITS == 64);
const _: () = assert!(cfg!(loom) || 1 << CORE_BITS == cell::CORES_MAX);
const _: () = assert!(cfg!(loom) || 1 << SLOT_BITS == crate::mailbox::wake_map::SLOTS_MAX);

/// Names a task in the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Word(u64);

impl Word {
    pub(crate) fn new(core: u32, slot: u32, generation: u32) -> Self {
        let core = u64::from(core) << (SLOT_BITS + GENERATION_BITS);
        Self(core | u64::from(slot) << GENERATION_BITS | u64::from(generation & GENERATION_MASK))
    }

    /// The word as a number, and back.
    pub(crate) fn to_u64(self) -> u64 {
        self.0
    }

    pub(crate) fn from_u64(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn core(self) -> u32 {
        (self.0 >> (SLOT_BITS + GENERATION_BITS)) as u32
    }

    pub(crate) fn slot(self) -> u32 {
        (self.0 >> GENERATION_BITS) as u32 & ((1 << SLOT_BITS) - 1)
    }

    pub(crate) fn generation(self) -> u32 {
        self.0 as u32 & GENERATION_MASK
    }

    /// The polls of the task that this names are numbered from behind this number on, one by one: so their
    /// numbers count them, and for long tell them apart from those of all others. Where words begin is spread
    /// over all numbers of 64 bits: two of some 100,000 tasks lie 2^30 polls apart. After about 2^31 polls a
    /// task's numbers may meet those that another one had.
    #[inline]
    pub(crate) fn polls_begin_after(self) -> u64 {
        // Odd, so no two words begin alike; short, so that it lies within the instruction; and 2^34 over it
        // is a whole number beside the golden ratio, so slots lie apart.
        self.0.wrapping_mul(0x76d2_1313)
    }

    /// How many polls there were up to the one of this number, that one among them.
    pub(crate) fn polls_up_to(self, number: u64) -> u64 {
        number.wrapping_sub(self.polls_begin_after())
    }

    /// A waker that is not dropped; dropping one does nothing anyway.
    pub(crate) fn waker(self) -> ManuallyDrop<Waker> {
        // SAFETY: the functions of VTABLE take any word, from any thread, at any time; there is nothing
        // that they could use after it was freed.
        ManuallyDrop::new(unsafe { Waker::from_raw(self.raw()) })
    }

    fn raw(self) -> RawWaker {
        RawWaker::new(self.data(), &VTABLE)
    }

    /// The word of a waker, if it is one of coreloop's.
    #[inline]
    pub(crate) fn of_waker(waker: &Waker) -> Option<Self> {
        ptr::eq(waker.vtable(), &VTABLE).then(|| Self::of(waker.data()))
    }

    #[inline]
    pub(super) fn of(data: *const ()) -> Self {
        Self(data.addr() as u64)
    }

    /// What a waker of it holds.
    #[inline]
    pub(super) fn data(self) -> *const () {
        ptr::without_provenance(self.0 as usize)
    }

    pub(super) fn wake(self) {
        if current::wake_if_ours(self) {
            return;
        }
        spans::woken(self.core(), self.slot(), Some(self.generation()));
        if let Some(cell) = cell::cell(self.core()) {
            cell.wake(self.slot());
        }
    }
}

/// A [`Word`] that a signal handler may read at any moment. As cheap as a plain one.
pub(crate) struct WordCell(AtomicU64);

impl WordCell {
    pub(crate) fn new(word: Word) -> Self {
        Self(AtomicU64::new(word.0))
    }

    #[inline]
    pub(crate) fn get(&self) -> Word {
        Word(self.0.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set(&self, word: Word) {
        self.0.store(word.0, Ordering::Relaxed);
    }
}

/// Names a task: unique among those of the process that have not ended.
///
/// Its text is three numbers, as in `2.17.1`: of the task's loop, of its slot there, and a count that
/// tells it from those that had the slot before. The first one is no core's: it is one that no other
/// living loop of the process has, and loops take them in turn, so core 0 may well be loop 1. Which core
/// a task is of is said by where it is listed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId {
    core: u32,
    slot: u32,
    generation: u32,
}

impl TaskId {
    /// The id of the task that `word` names.
    pub(crate) fn of(word: Word) -> Self {
        Self { core: word.core(), slot: word.slot(), generation: word.generation() }
    }

    /// Its slot among those of its core.
    pub(crate) fn slot(self) -> u32 {
        self.slot
    }

    /// What it is printed as, a full stop between each two.
    pub(crate) fn parts(self) -> [u32; 3] {
        [self.core, self.slot, self.generation]
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.core, self.slot, self.generation)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |data| Word::of(data).raw(),
    |data| Word::of(data).wake(),
    |data| Word::of(data).wake(),
    |_| (),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_its_three_parts() {
        let w = Word::new(1023, (1 << 24) - 1, GENERATION_MASK);
        assert_eq!((w.core(), w.slot(), w.generation()), (1023, (1 << 24) - 1, GENERATION_MASK));
        let w = Word::new(3, 77, GENERATION_MASK + 6);
        assert_eq!((w.core(), w.slot(), w.generation()), (3, 77, 5));
    }

    #[test]
    fn polls_of_neighbours_have_numbers_far_apart() {
        let words = (0..64).flat_map(|slot| (0..64).map(move |g| Word::new(1, slot, g)));
        let words = words.chain((0..64).map(|core| Word::new(core, 1, 1)));
        let mut begins: Vec<u64> = words.map(Word::polls_begin_after).collect();
        begins.sort_unstable();
        begins.dedup();
        assert_eq!(begins.len(), 64 * 64 + 63, "(1, 1, 1) twice");
        let apart = begins.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
        assert!(apart >= 1 << 29, "polls until two meet: {apart}");
        let w = Word::new(3, 77, 5);
        assert_eq!(w.polls_up_to(w.polls_begin_after()), 0);
        assert_eq!(w.polls_up_to(w.polls_begin_after().wrapping_add(7)), 7);
    }

    #[test]
    fn waking_nobody_does_nothing() {
        Word::new(1000, 5, 5).waker().wake_by_ref();
    }
}
