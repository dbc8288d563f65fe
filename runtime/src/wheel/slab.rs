//! The timers themselves: a slab of entries, and their keys.
//!
//! Invariants:
//! - an entry is live (has a value and a place in the lists), free (in the free list) or retired;
//! - an entry's generation goes on by one whenever its timer ends, and never comes back to an
//!   earlier figure: at the last generation the entry is retired instead of freed. That abandons
//!   32 bytes after four billion timers in one entry, and no stale key is ever mistaken for a live
//!   one;
//! - the free list is last-in first-out, so that a reused entry is likely still in cache, and the
//!   slab grows only when every entry is live or retired.
//!
//! It does not know what a place stands for, nor the order of deadlines.

use super::chain::{CHUNKS_MAX, NIL, Place};
use super::table::Table;
use crate::sys::prefetch::prefetch;

/// Names one timer of one wheel, for good: the key of an ended timer never names another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerKey {
    index: u32,
    generation: u32,
}

impl TimerKey {
    /// Packs the key, for whoever carries it through a word of user data.
    #[cfg(test)]
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// Unpacks what [`to_u64`](Self::to_u64) gave. Any other figure yields a key that names no
    /// timer or, by chance, a live one; never anything unsound.
    #[cfg(test)]
    pub(crate) fn from_u64(packed: u64) -> Self {
        Self { index: packed as u32, generation: (packed >> 32) as u32 }
    }

    /// Names no timer: a mark for whoever has a place for a key and none to put there.
    pub(crate) const fn mark(number: u32) -> Self {
        Self { index: NIL, generation: number }
    }

    #[cfg(test)]
    pub(super) fn index(self) -> u32 {
        self.index
    }
}

/// The entries of all timers, live or past.
pub(super) struct Slab<T> {
    entries: Table<Entry<T>>,
    /// The entry freed last; the others follow by `place`.
    free: u32,
    live: usize,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { entries: Table::new(), free: NIL, live: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// Entries, live or not.
    pub(super) fn places(&self) -> u32 {
        self.entries.len()
    }

    /// The deadline and the value of an entry, if it is live.
    pub(super) fn at(&self, index: u32) -> Option<(u64, &T)> {
        let entry = self.entries.get(index)?;
        Some((entry.deadline, entry.value.as_ref()?))
    }

    /// The entry that the next timer gets.
    ///
    /// # Panics
    /// If there are no more.
    #[inline]
    pub(super) fn next_index(&self) -> u32 {
        if self.free != NIL {
            return self.free;
        }
        let index = self.entries.len();
        assert!(index < TIMERS_MAX, "a wheel holds at most {TIMERS_MAX} timers");
        index
    }

    /// Makes the [next](Self::next_index) entry live; the caller has put it in a list, at `place`.
    #[inline]
    pub(super) fn insert(&mut self, deadline: u64, value: T, place: Place) -> TimerKey {
        self.live += 1;
        let (index, place) = (self.free, place.to_u32());
        if let Some(entry) = self.entries.get_mut(index) {
            self.free = entry.place;
            entry.deadline = deadline;
            entry.value = Some(value);
            entry.place = place;
            return TimerKey { index, generation: entry.generation };
        }
        let index = self.entries.len();
        self.entries.push(Entry { deadline, value: Some(value), place, generation: 0 });
        TimerKey { index, generation: 0 }
    }

    /// Ends the timer of an entry that was in a list.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> (u64, T) {
        let generation = self.entries[index].generation;
        let ended = self.take(TimerKey { index, generation });
        let (deadline, _, value) = ended.expect("only a live entry is in a list");
        (deadline, value)
    }

    /// Ends the key's timer, if it is live: its deadline, where it is, and its value. The caller takes it
    /// out of its list.
    #[inline]
    pub(super) fn take(&mut self, key: TimerKey) -> Option<(u64, Place, T)> {
        let entry = self.entries.get_mut(key.index)?;
        if entry.generation != key.generation {
            return None;
        }
        let place = Place::from_u32(entry.place);
        // A retired entry keeps its generation, so that alone is not proof of life.
        let value = entry.value.take()?;
        let deadline = entry.deadline;
        if let Some(generation) = entry.generation.checked_add(1) {
            entry.generation = generation;
            entry.place = self.free;
            self.free = key.index;
        }
        self.live -= 1;
        Some((deadline, place, value))
    }

    /// The value of the key's timer, if that timer is live.
    pub(super) fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// The deadline of an entry found in a list.
    pub(super) fn deadline_at(&self, index: u32) -> u64 {
        self.entries[index].deadline
    }

    /// Says where a live entry is now.
    pub(super) fn set_place(&mut self, index: u32, place: Place) {
        self.entries[index].place = place.to_u32();
    }

    /// Asks for the memory of an entry.
    pub(super) fn prefetch(&self, index: u32) {
        if let Some(entry) = self.entries.get(index) {
            prefetch(entry);
        }
    }
}

#[cfg(test)]
impl<T> Slab<T> {
    pub(super) const ENTRY_BYTES: usize = size_of::<Entry<T>>();

    pub(super) fn allocated(&self) -> u32 {
        self.entries.len()
    }

    pub(super) fn place_at(&self, index: u32) -> Option<Place> {
        let entry = &self.entries[index];
        entry.value.is_some().then_some(Place::from_u32(entry.place))
    }

    pub(super) fn set_generation(&mut self, index: u32, generation: u32) {
        self.entries[index].generation = generation;
    }
}

/// One timer: 32 bytes with a 16-byte value that has a niche, such as a `Waker`. It lies in one cache line.
#[repr(align(32))]
struct Entry<T> {
    deadline: u64,
    /// `None` while the entry is free or retired.
    value: Option<T>,
    /// Of a live entry: a [`Place`]. Of a free one: the next free one.
    place: u32,
    generation: u32,
}

/// Timers that can be stored.
const TIMERS_MAX: u32 = CHUNKS_MAX - 1;
