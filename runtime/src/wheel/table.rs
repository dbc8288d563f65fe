//! A table that grows and never moves.
//!
//! Owns segments, each twice as large as the one before: growing takes no copy of what is there, which of a
//! million timers would keep the core for milliseconds, and whoever is aligned to cache lines stays so.

use crate::sys::segment::Segment;

/// Elements by index, from 0.
pub(super) struct Table<E> {
    /// All full up to the last one that has any.
    segments: [Segment<E>; SEGMENTS],
    len: u32,
}

impl<E> Table<E> {
    /// An empty one. Allocates nothing.
    pub(super) fn new() -> Self {
        Self { segments: [const { Segment::EMPTY }; SEGMENTS], len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Bytes of its segments.
    pub(super) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.room() * size_of::<E>()).sum()
    }

    /// Adds an element, whose index is the length so far.
    #[inline]
    pub(super) fn push(&mut self, element: E) {
        let (number, at) = locate(self.len);
        if at == 0 {
            self.add_segment(number);
        }
        self.segments[number].push(element);
        self.len += 1;
    }

    #[cold]
    #[inline(never)]
    fn add_segment(&mut self, number: usize) {
        self.segments[number] = Segment::with_room(FIRST << number);
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&E> {
        let (segment, at) = locate(index);
        self.segments[segment].get(at)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut E> {
        let (segment, at) = locate(index);
        self.segments[segment].get_mut(at)
    }
}

impl<E> std::ops::Index<u32> for Table<E> {
    type Output = E;

    #[inline]
    fn index(&self, index: u32) -> &E {
        let (segment, at) = locate(index);
        &self.segments[segment][at]
    }
}

impl<E> std::ops::IndexMut<u32> for Table<E> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut E {
        let (segment, at) = locate(index);
        &mut self.segments[segment][at]
    }
}

/// The segment of an index, and the place in it.
#[inline]
fn locate(index: u32) -> (usize, usize) {
    // The segments end at FIRST, 3 FIRST, 7 FIRST ...: with FIRST more, at powers of two.
    let n = index as usize + FIRST;
    let top = n.ilog2();
    ((top - FIRST.ilog2()) as usize, n ^ (1 << top))
}

/// Elements of the first segment: a power of two.
const FIRST: usize = 64;

/// Enough for all indices.
const SEGMENTS: usize = (u32::BITS + 1 - FIRST.ilog2()) as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_where_they_are_and_are_found_by_their_index() {
        let mut table = Table::new();
        table.push(0);
        let first = &raw const table[0];
        (1..10_000).for_each(|i| table.push(i));
        assert_eq!(&raw const table[0], first);
        assert!((0..10_000).all(|i| table[i] == i && table.get(i) == Some(&i)));
        assert_eq!((table.get(10_000), table.get(u32::MAX), table.len()), (None, None, 10_000));
        table[63] = 7;
        *table.get_mut(64).unwrap() = 8;
        assert_eq!((table[62], table[63], table[64], table[65]), (62, 7, 8, 65));
        assert!(table.bytes() < 10_000 * 4 * 2);
    }
}
