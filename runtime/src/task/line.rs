//! A queue of slots: the run queue, and who gave way.
//!
//! Owns a ring of 4 bytes a slot whose room is a power of two. A slot is in it at most once, so it is never
//! longer than the table of tasks.

/// Slots in order.
pub(super) struct Line {
    ring: Box<[u32]>,
    /// Its length less one: that is a power of two.
    mask: u32,
    /// Where the first slot lies, and the place behind the last; both modulo the ring's length, and never
    /// further apart than that.
    first: u32,
    end: u32,
}

impl Line {
    /// An empty one with room for `room` slots, a power of two.
    pub(super) fn new(room: usize) -> Self {
        assert!(room.is_power_of_two() && room <= 1 << 31);
        Self { ring: vec![0; room].into(), mask: room as u32 - 1, first: 0, end: 0 }
    }

    /// Bytes of its places.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.ring)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.end.wrapping_sub(self.first) as usize
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first == self.end
    }

    #[inline]
    fn get(&self, place: u32) -> u32 {
        let at = (place & self.mask) as usize;
        // SAFETY: the mask is the ring's length less one, from `new` on: a masked place is below the length.
        unsafe { *self.ring.get_unchecked(at) }
    }

    #[inline]
    fn put(&mut self, place: u32, slot: u32) {
        let at = (place & self.mask) as usize;
        // SAFETY: as in `get`.
        unsafe { *self.ring.get_unchecked_mut(at) = slot };
    }

    #[inline]
    pub(super) fn push(&mut self, slot: u32) {
        if !self.push_if_room(slot) {
            self.push_and_grow(slot);
        }
    }

    /// As [`push`](Self::push), where there is room for it: `false` if there is none.
    #[inline]
    pub(super) fn push_if_room(&mut self, slot: u32) -> bool {
        let has_room = self.end.wrapping_sub(self.first) <= self.mask;
        if has_room {
            self.put(self.end, slot);
            self.end = self.end.wrapping_add(1);
        }
        has_room
    }

    #[cold]
    fn push_and_grow(&mut self, slot: u32) {
        self.grow();
        self.push_if_room(slot);
    }

    pub(super) fn push_front(&mut self, slot: u32) {
        if self.len() == self.ring.len() {
            self.grow();
        }
        self.first = self.first.wrapping_sub(1);
        self.put(self.first, slot);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let slot = self.get(self.first);
        self.first = self.first.wrapping_add(1);
        Some(slot)
    }

    /// The slot `places` behind the first, if there is one.
    #[inline]
    pub(super) fn ahead(&self, places: u32) -> Option<u32> {
        (self.end.wrapping_sub(self.first) > places)
            .then(|| self.get(self.first.wrapping_add(places)))
    }

    pub(super) fn pop_last(&mut self) -> Option<u32> {
        let slot = self.last()?;
        self.end = self.end.wrapping_sub(1);
        Some(slot)
    }

    pub(super) fn last(&self) -> Option<u32> {
        (!self.is_empty()).then(|| self.get(self.end.wrapping_sub(1)))
    }

    /// Takes `slot` out, wherever it is.
    pub(super) fn remove(&mut self, slot: u32) {
        for _ in 0..self.len() {
            match self.pop() {
                Some(other) if other != slot => self.push(other),
                _ => {}
            }
        }
    }

    /// Puts the first `n` of `other`, which has so many, in front of all that are here, in their order.
    pub(super) fn take_in_front(&mut self, other: &mut Self, n: usize) {
        let rest = other.len() - n;
        if self.is_empty() && rest <= n {
            // The shorter part is moved.
            std::mem::swap(self, other);
            for _ in 0..rest {
                if let Some(slot) = self.pop_last() {
                    other.push_front(slot);
                }
            }
            return;
        }
        let from = other.first;
        other.first = from.wrapping_add(n as u32);
        for i in (0..n as u32).rev() {
            self.push_front(other.get(from.wrapping_add(i)));
        }
    }

    /// Puts the first `n` of `other` behind all that are here, in their order.
    pub(super) fn take_behind(&mut self, other: &mut Self, n: usize) {
        (0..n).map_while(|_| other.pop()).for_each(|slot| self.push(slot));
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Self::new(self.ring.len() * 2);
        while let Some(slot) = self.pop() {
            larger.push(slot);
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &mut Line) -> Vec<u32> {
        std::iter::from_fn(|| line.pop()).collect()
    }

    fn line_of(slots: impl IntoIterator<Item = u32>) -> Line {
        let mut line = Line::new(2);
        slots.into_iter().for_each(|slot| line.push(slot));
        line
    }

    #[test]
    fn slots_come_out_in_the_order_in_which_they_went_in_also_past_the_end_and_while_it_grows() {
        let mut line = Line::new(4);
        (line.first, line.end) = (u32::MAX - 1, u32::MAX - 1);
        let mut next = 0;
        for i in 0..100 {
            line.push(i);
            if i % 3 == 0 {
                assert_eq!(line.pop(), Some(next));
                next += 1;
            }
        }
        assert_eq!(line.len(), 66);
        assert_eq!(all(&mut line), (next..100).collect::<Vec<_>>());
        assert!(line.is_empty() && line.pop().is_none() && line.last().is_none());
    }

    #[test]
    fn one_line_goes_in_front_of_another_or_behind_it() {
        let (mut a, mut b) = (line_of([1, 2, 3]), line_of([4, 5, 6]));
        a.take_in_front(&mut b, 2);
        assert_eq!((all(&mut a), all(&mut b)), (vec![4, 5, 1, 2, 3], vec![6]));
        let (mut a, mut b) = (line_of([1, 2, 3]), line_of([4, 5, 6]));
        a.take_behind(&mut b, 2);
        assert_eq!((all(&mut a), all(&mut b)), (vec![1, 2, 3, 4, 5], vec![6]));
        for n in 0..=3 {
            let (mut a, mut b) = (line_of([]), line_of([4, 5, 6]));
            a.take_in_front(&mut b, n);
            let (front, rest) = [4, 5, 6].split_at(n);
            assert_eq!((all(&mut a), all(&mut b)), (front.to_vec(), rest.to_vec()), "{n}");
        }
    }

    #[test]
    fn a_slot_is_taken_out_of_the_middle_and_of_the_end() {
        let mut line = line_of([1, 2, 3, 4]);
        line.remove(2);
        assert_eq!((line.last(), line.pop_last()), (Some(4), Some(4)));
        assert_eq!(all(&mut line), [1, 3]);
    }
}
