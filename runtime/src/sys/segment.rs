//! Room for elements that never move.
//!
//! Owns [`Segment`]: a vector whose room is fixed when it is made. A large one begins at a huge page and
//! asks the kernel for such pages, at the price that [`huge`](super::huge) tells. Invariant: the first `len`
//! elements are there, and `len <= room`.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::slice;

use super::huge::{HUGE, ask_for_huge_pages};

/// Bytes from which on huge pages are asked for. Who fills such a segment part of the way holds most of one
/// huge page too much: less than half of the segment.
const HUGE_FROM: usize = 2 * HUGE;

/// A vector of fixed room.
pub(crate) struct Segment<E> {
    start: NonNull<E>,
    room: usize,
    len: usize,
}

impl<E> Segment<E> {
    /// One without room. Allocates nothing.
    pub(crate) const EMPTY: Self = Self { start: NonNull::dangling(), room: 0, len: 0 };

    /// An empty one with room for so many.
    pub(crate) fn with_room(room: usize) -> Self {
        let layout = Self::layout(room);
        assert!(layout.size() > 0, "room for nothing");
        // SAFETY: the layout's size is not 0.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        if layout.size() >= HUGE_FROM {
            ask_for_huge_pages(start, layout.size());
        }
        Self { start: start.cast(), room, len: 0 }
    }

    /// How many have room.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Adds one at the end.
    ///
    /// # Panics
    /// If there is no room.
    #[inline]
    pub(crate) fn push(&mut self, element: E) {
        assert!(self.len < self.room, "no room");
        // SAFETY: behind those that are there and within the room, so nobody refers to the place.
        unsafe { self.start.add(self.len).write(element) };
        self.len += 1;
    }

    fn layout(room: usize) -> Layout {
        let layout = Layout::array::<E>(room).expect("no more than there are addresses");
        let align = if layout.size() >= HUGE_FROM { HUGE } else { 1 };
        layout.align_to(align).expect("a power of two")
    }
}

impl<E> Deref for Segment<E> {
    type Target = [E];

    #[inline]
    fn deref(&self) -> &[E] {
        // SAFETY: the first `len` elements are there, borrowed as the segment is.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<E> DerefMut for Segment<E> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [E] {
        // SAFETY: as in `deref`, and nobody else has them.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<E> Drop for Segment<E> {
    fn drop(&mut self) {
        struct Room<'a, E>(&'a Segment<E>);
        impl<E> Drop for Room<'_, E> {
            fn drop(&mut self) {
                if self.0.room > 0 {
                    // SAFETY: allocated with this layout, and its elements are gone.
                    unsafe {
                        dealloc(self.0.start.as_ptr().cast(), Segment::<E>::layout(self.0.room));
                    }
                }
            }
        }
        let elements = ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
        // Given back also if an element's destructor panics.
        let _room = Room(self);
        // SAFETY: the first `len` elements are there, and nobody uses them any more.
        unsafe { ptr::drop_in_place(elements) };
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn elements_stay_where_they_are_and_are_dropped_once() {
        let counted = Rc::new(());
        let mut segment = Segment::with_room(3);
        segment.push(counted.clone());
        let first = &raw const segment[0];
        segment.push(counted.clone());
        assert_eq!((segment.len(), segment.room()), (2, 3));
        assert_eq!(&raw const segment[0], first);
        segment[1] = Rc::new(());
        assert_eq!(Rc::strong_count(&counted), 2);
        drop(segment);
        assert_eq!(Rc::strong_count(&counted), 1);
        assert!(Segment::<u64>::EMPTY.is_empty());
    }

    #[test]
    #[should_panic(expected = "no room")]
    fn there_is_no_more_room_than_was_asked_for() {
        let mut segment = Segment::with_room(1);
        segment.push(1);
        segment.push(2);
    }

    #[test]
    fn a_large_one_begins_at_a_huge_page() {
        let mut segment = Segment::with_room(HUGE_FROM / 8);
        segment.push(7_u64);
        assert_eq!((segment.as_ptr().addr() % HUGE, segment[0]), (0, 7));
    }
}
