//! Lists of timers, in chunks of a cache line.
//!
//! Owns the lists' memory. A list names its timers by their entries' indices, 13 in a chunk, and an entry
//! knows its place: chunk and place within. So a timer is put at an end, or taken out from anywhere, without
//! a look at its neighbours' entries, and whoever walks a list knows the next entries soon enough to ask for
//! their memory.
//!
//! Invariants:
//! - a chunk is in exactly one list and has at least one timer, or it is free and has none;
//! - `timers[first..end]` of a chunk holds its timers in order, and [`NIL`] where one was taken out.
//!
//! Hence a list takes at most one chunk a timer, and a list without timers has no chunk.

use super::table::Table;

/// Both ends of a list: chunks.
#[derive(Clone, Copy)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { head: NIL, tail: NIL };

    pub(super) fn is_empty(self) -> bool {
        self.head == NIL
    }
}

/// Where a timer is in the lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(u32);

impl Place {
    fn new(chunk: u32, at: u8) -> Self {
        Self(chunk << PLACE_BITS | u32::from(at))
    }

    pub(super) fn chunk(self) -> u32 {
        self.0 >> PLACE_BITS
    }

    fn at(self) -> usize {
        (self.0 & ((1 << PLACE_BITS) - 1)) as usize
    }

    /// As a number, and back.
    pub(super) fn to_u32(self) -> u32 {
        self.0
    }

    pub(super) fn from_u32(number: u32) -> Self {
        Self(number)
    }
}

/// Timers of a list that follow each other.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Chunk {
    timers: [u32; ROOM],
    /// The one before it in its list; says nothing in the first.
    prev: u32,
    /// The next in its list, or among the free ones.
    next: u32,
    first: u8,
    end: u8,
    /// How many of the places from `first` to `end` hold a timer.
    count: u8,
}

const _: () = assert!(size_of::<Chunk>() == 64, "a cache line");

impl Chunk {
    const FREE: Self =
        Self { timers: [NIL; ROOM], prev: NIL, next: NIL, first: 0, end: 0, count: 0 };

    /// Its timers, in order.
    pub(super) fn timers(&self) -> impl Iterator<Item = u32> {
        let held = &self.timers[usize::from(self.first)..usize::from(self.end)];
        held.iter().copied().filter(|timer| *timer != NIL)
    }
}

/// The chunks of all lists.
pub(super) struct Chunks {
    chunks: Table<Chunk>,
    /// The one freed last; the others follow by `next`.
    free: u32,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { chunks: Table::new(), free: NIL }
    }

    pub(super) fn bytes(&self) -> usize {
        self.chunks.bytes()
    }

    /// Puts a timer at the end of a list; its place.
    #[inline]
    pub(super) fn push_back(&mut self, list: &mut List, timer: u32) -> Place {
        if let Some(chunk) = self.chunks.get_mut(list.tail)
            && let Some(free) = chunk.timers.get_mut(usize::from(chunk.end))
        {
            *free = timer;
            let place = Place::new(list.tail, chunk.end);
            chunk.end += 1;
            chunk.count += 1;
            return place;
        }
        self.extend(list, timer)
    }

    /// Takes the timer at this place out. Whether its chunk has none left: then it is to be
    /// [unlinked](Self::unlink).
    #[inline]
    #[must_use]
    pub(super) fn clear(&mut self, place: Place) -> bool {
        let chunk = &mut self.chunks[place.chunk()];
        chunk.timers[place.at()] = NIL;
        // The last place is used again: who sets a limit and calls it off needs no more.
        chunk.end -= u8::from(place.at() + 1 == usize::from(chunk.end));
        chunk.count -= 1;
        chunk.count == 0
    }

    /// Takes the first timer out of a list; whether it was the last of its chunk.
    #[inline]
    pub(super) fn pop_front(&mut self, list: &mut List) -> Option<(u32, bool)> {
        if list.is_empty() {
            return None;
        }
        let chunk = &mut self.chunks[list.head];
        let mut first = usize::from(chunk.first);
        while chunk.timers[first] == NIL {
            first += 1;
        }
        let timer = std::mem::replace(&mut chunk.timers[first], NIL);
        chunk.first = first as u8 + 1;
        chunk.count -= 1;
        let last = chunk.count == 0;
        if last {
            self.unlink(list, list.head);
        }
        Some((timer, last))
    }

    /// Takes the first chunk out of a list; its timers are in no list then.
    pub(super) fn pop_chunk(&mut self, list: &mut List) -> Option<Chunk> {
        if list.is_empty() {
            return None;
        }
        let chunk = self.chunks[list.head];
        self.unlink(list, list.head);
        Some(chunk)
    }

    /// The first chunk of a list.
    pub(super) fn first(&self, list: List) -> Option<&Chunk> {
        self.chunks.get(list.head)
    }

    /// The second one.
    pub(super) fn second(&self, list: List) -> Option<&Chunk> {
        self.chunks.get(self.first(list)?.next)
    }

    /// Takes a chunk, whose timers are gone, out of its list, and frees it.
    pub(super) fn unlink(&mut self, list: &mut List, chunk: u32) {
        let Chunk { prev, next, .. } = self.chunks[chunk];
        if chunk == list.head {
            list.head = next;
        } else {
            self.chunks[prev].next = next;
        }
        if chunk == list.tail {
            list.tail = if list.head == NIL { NIL } else { prev };
        } else {
            self.chunks[next].prev = prev;
        }
        self.chunks[chunk].next = self.free;
        self.free = chunk;
    }

    /// Puts a chunk with this timer at the end of a list; its place.
    // Apart from `push_back`, which is called for each timer and needs few registers without it.
    #[inline(never)]
    fn extend(&mut self, list: &mut List, timer: u32) -> Place {
        let mut fresh = Chunk { prev: list.tail, end: 1, count: 1, ..Chunk::FREE };
        fresh.timers[0] = timer;
        let index = self.free;
        let index = if index == NIL {
            // Fewer than there are timers, which `Slab::insert` bounds.
            self.chunks.push(fresh);
            self.chunks.len() - 1
        } else {
            let place = &mut self.chunks[index];
            self.free = place.next;
            *place = fresh;
            index
        };
        if list.tail == NIL {
            list.head = index;
        } else {
            self.chunks[list.tail].next = index;
        }
        list.tail = index;
        Place::new(index, 0)
    }
}

#[cfg(test)]
impl Chunks {
    /// The timers of a list with their places, from first to last; the links back are checked on the way.
    pub(super) fn walk(&self, list: List) -> Vec<(u32, Place)> {
        let mut found = Vec::new();
        let (mut index, mut prev) = (list.head, NIL);
        while index != NIL {
            let chunk = &self.chunks[index];
            assert!(index == list.head || chunk.prev == prev);
            assert_eq!(chunk.timers().count(), usize::from(chunk.count));
            assert!(chunk.count > 0);
            for at in chunk.first..chunk.end {
                let timer = chunk.timers[usize::from(at)];
                if timer != NIL {
                    found.push((timer, Place::new(index, at)));
                }
            }
            (prev, index) = (index, chunk.next);
        }
        assert_eq!(list.tail, prev);
        found
    }

    pub(super) fn allocated(&self) -> u32 {
        self.chunks.len()
    }
}

/// Timers of a chunk.
const ROOM: usize = 13;

/// Bits that name a place within a chunk.
const PLACE_BITS: u32 = 4;

const _: () = assert!(ROOM <= 1 << PLACE_BITS);

/// Chunks that a [`Place`] can name, and so timers that can be stored: each may have a chunk to itself.
pub(super) const CHUNKS_MAX: u32 = 1 << (u32::BITS - PLACE_BITS);

/// No timer, no chunk.
pub(super) const NIL: u32 = u32::MAX;
