//! A hierarchical timer wheel: which deadlines have been reached, and when to look again.
//!
//! The wheel counts in ticks and is told the present tick; it knows no clock, no waker and no
//! thread. What a tick lasts is the caller's choice, down to a microsecond or less.
//!
//! **Levels.** Eleven levels of 64 slots read a `u64` six bits at a time, so every deadline has a
//! slot (11 * 6 = 66 bits, the top level uses 16 slots) and there is no overflow list to rescan.
//! `sleep(MAX)` is an ordinary entry of the top level that nobody touches before the tick comes.
//!
//! **Where a timer is.** With `current` the tick the wheel has reached:
//! - `deadline <= current`: in the `due` list;
//! - otherwise at the level of the highest bit in which `deadline` and `current` differ, in the
//!   slot named by the six bits of `deadline` there.
//!
//! This place depends on nothing else, hence is not stored. It stays true while `current` grows
//! because `current` enters a slot only when that slot is emptied (see [`Wheel::pop_due`]). Two
//! things follow. The lowest occupied slot of the lowest occupied level holds the next timers, so
//! finding them costs two bit scans, however long the empty span. And timers of one deadline are
//! always in one list, so they keep their order through every cascade.
//!
//! **Life of a timer.** inserted (slot or due) -> cascaded to a lower level, at most ten times ->
//! due -> popped; or cancelled from any of these. Its key is dead after either end.

mod chain;
mod level;
mod slab;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use slab::TimerKey;

use chain::{Chunk, Chunks, List, Place};
use level::{Levels, Position};
use slab::Slab;

/// Timers ordered by deadline, each carrying a `T`.
pub(crate) struct Wheel<T> {
    /// The tick reached. Never goes back, and stands still while `due` has entries.
    current: u64,
    /// Timers whose deadline is reached, in the order in which they fire.
    due: List,
    levels: Levels,
    /// What the lists of `due` and `levels` are made of.
    chunks: Chunks,
    slab: Slab<T>,
}

impl<T> Wheel<T> {
    /// An empty wheel standing at tick `now`. Allocates nothing until a timer is inserted.
    pub(crate) fn new(now: u64) -> Self {
        Self {
            current: now,
            due: List::EMPTY,
            levels: Levels::new(),
            chunks: Chunks::new(),
            slab: Slab::new(),
        }
    }

    /// Adds a timer in constant time; what is there stays where it is when memory grows.
    ///
    /// A deadline that the wheel has already reached is due at once: the next
    /// [`pop_due`](Self::pop_due) may return it.
    ///
    /// # Panics
    ///
    /// If 2^28 - 1 timers are already stored.
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> TimerKey {
        let place = self.place(self.slab.next_index(), deadline);
        self.slab.insert(deadline, value, place)
    }

    /// Removes a timer in constant time and gives its value back, or `None` if the key's timer has
    /// fired or was cancelled before.
    #[inline]
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let (deadline, place, value) = self.slab.take(key)?;
        if self.chunks.clear(place) {
            self.unlink(deadline, place.chunk());
        }
        Some(value)
    }

    /// The value of a timer that has neither fired nor been cancelled.
    pub(crate) fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        self.slab.get_mut(key)
    }

    /// Removes one timer whose deadline is at or before `now`, and returns its deadline and value;
    /// `None` if there is none left.
    ///
    /// A caller that fires everything calls this until `None`, and may insert and cancel between
    /// the calls. A `now` before a tick already reached counts as that tick.
    ///
    /// # Order
    ///
    /// Timers fire in the order of their deadlines, and those of one deadline in the order of
    /// insertion. A timer inserted with a deadline already reached counts as having the tick
    /// reached for its deadline: it fires after all that are due at that tick and before all later
    /// ones. The tick reached is `now` after `None`, else the place in this order of the timer
    /// popped last.
    ///
    /// # Cost
    ///
    /// At most two slots are opened per call. The first may be opened for a timer that was
    /// cancelled since; what it held is then spread over slots whose `earliest` is exact, so that
    /// the second brings a due timer, or none is due. Opening a slot touches each of its timers
    /// once, except at the lowest level, where the list is taken over whole. This is the one step
    /// that grows with the number of timers: spread over a timer's life it is at most ten moves, but
    /// a single call may pay for a whole crowded slot.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<(u64, T)> {
        let now = now.max(self.current);
        let mut opened = 0;
        loop {
            if let Some((index, last)) = self.chunks.pop_front(&mut self.due) {
                if last {
                    self.prefetch(self.chunks.second(self.due));
                }
                return Some(self.slab.remove(index));
            }
            let next = self.levels.first().filter(|first| first.start(self.current) <= now);
            let Some(position) = next else {
                self.current = now;
                return None;
            };
            self.open(position, now);
            opened += 1;
            debug_assert!(opened <= SLOTS_OPENED_PER_POP_MAX, "a cascade that gets nowhere");
        }
    }

    /// A tick before which nothing fires, and at which [`pop_due`](Self::pop_due) fires a timer or
    /// moves at least one down a level; `None` if the wheel is empty.
    ///
    /// It is the next deadline itself, unless that timer's predecessor in its slot was cancelled:
    /// then it may be the deadline of the cancelled one, and waking then makes the answer exact.
    /// Every cancelled timer costs at most one such idle wake-up. Within the 64 ticks of the lowest
    /// level the answer is always exact.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        if !self.due.is_empty() {
            return Some(self.current);
        }
        self.levels.first().map(|position| self.levels.slot(position).earliest)
    }

    /// Places of timers, used or free.
    pub(crate) fn places(&self) -> u32 {
        self.slab.places()
    }

    /// The timer in `place`, if one is there that has neither fired nor been cancelled.
    pub(crate) fn at(&self, place: u32) -> Option<(u64, &T)> {
        self.slab.at(place)
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.slab.bytes() + self.chunks.bytes()
    }

    /// How many timers are neither fired nor cancelled.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Empties the first occupied slot, whose start is at or before `now`, and advances `current`
    /// into it: as far as its timers and `now` allow, so that they sink as deep as they can.
    ///
    /// All lower levels and `due` are empty here, so nothing can be overtaken.
    fn open(&mut self, position: Position, now: u64) {
        let mut slot = self.levels.take(position);
        debug_assert!(self.due.is_empty() && slot.earliest > self.current);
        self.current = slot.earliest.min(now);
        self.prefetch(self.chunks.first(slot.list));
        if position.is_lowest() {
            self.due = slot.list;
            self.prefetch(self.chunks.second(self.due));
            return;
        }
        while let Some(chunk) = self.chunks.pop_chunk(&mut slot.list) {
            self.prefetch(self.chunks.first(slot.list));
            for index in chunk.timers() {
                let place = self.place(index, self.slab.deadline_at(index));
                self.slab.set_place(index, place);
            }
        }
    }

    /// Asks for the memory of a chunk's timers. They may have been untouched for long, and lie wherever
    /// their entries do: one after the other they would be waited for.
    fn prefetch(&self, chunk: Option<&Chunk>) {
        for index in chunk.into_iter().flat_map(Chunk::timers) {
            self.slab.prefetch(index);
        }
    }

    /// Puts an entry at the end of the list where its deadline belongs; its place there.
    #[inline]
    fn place(&mut self, index: u32, deadline: u64) -> Place {
        let list = if deadline <= self.current {
            &mut self.due
        } else {
            &mut self.levels.occupy(Position::of(deadline, self.current), deadline).list
        };
        self.chunks.push_back(list, index)
    }

    /// Takes a chunk without timers out of the list where the last one of this deadline was.
    fn unlink(&mut self, deadline: u64, chunk: u32) {
        if deadline <= self.current {
            self.chunks.unlink(&mut self.due, chunk);
            return;
        }
        let position = Position::of(deadline, self.current);
        let slot = self.levels.slot_mut(position);
        self.chunks.unlink(&mut slot.list, chunk);
        // Otherwise `slot.earliest` may now be too low. That is allowed: raising it would mean a walk through
        // the list, while leaving it costs at most one idle wake-up.
        if slot.list.is_empty() {
            self.levels.vacate(position);
        }
    }
}

/// Why two suffice is told at [`Wheel::pop_due`]; more would mean that the geometry is broken.
const SLOTS_OPENED_PER_POP_MAX: u32 = 2;
