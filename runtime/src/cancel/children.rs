//! The children of one token, in the order in which they were made.
//!
//! Owns [`Children`]: a slab with one list threaded through it by index, so that a child leaves in constant
//! time wherever it stands. Invariants: an entry that holds a child is in the list, any other is in the list
//! of free ones; the slab grows only when every entry is in use, and a large one gives its memory back when
//! the last child has left. As long as there are children: they are its bound. Runs nobody's code.

/// A list of children, each named by the place that [`insert`](Self::insert) gave.
#[derive(Debug)]
pub(super) struct Children<T> {
    entries: Vec<Entry<T>>,
    /// The entry freed last; the others follow by `next`.
    free: u32,
    head: u32,
    tail: u32,
    live: usize,
}

#[derive(Debug)]
struct Entry<T> {
    child: Option<T>,
    prev: u32,
    next: u32,
}

impl<T> Children<T> {
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), free: NIL, head: NIL, tail: NIL, live: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Adds a child at the end; gives its place.
    pub(super) fn insert(&mut self, child: T) -> u32 {
        let entry = Entry { child: Some(child), prev: self.tail, next: NIL };
        let place = if self.free == NIL {
            assert!(self.entries.len() < NIL as usize, "a token has at most u32::MAX children");
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let place = self.free;
            self.free = std::mem::replace(&mut self.entries[place as usize], entry).next;
            place
        };
        match self.tail {
            NIL => self.head = place,
            tail => self.entries[tail as usize].next = place,
        }
        self.tail = place;
        self.live += 1;
        place
    }

    /// Takes a child out.
    ///
    /// # Panics
    /// If there is none in this place: each child leaves once.
    pub(super) fn remove(&mut self, place: u32) -> T {
        let entry = &mut self.entries[place as usize];
        let child = entry.child.take().expect("a child leaves its parent once");
        let (prev, next) = (entry.prev, std::mem::replace(&mut entry.next, self.free));
        self.free = place;
        match prev {
            NIL => self.head = next,
            prev => self.entries[prev as usize].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => self.entries[next as usize].prev = prev,
        }
        self.live -= 1;
        if self.live == 0 && self.entries.capacity() > KEPT_MAX {
            *self = Self::new();
        }
        child
    }

    /// Takes all out, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        let Self { mut entries, mut head, .. } = std::mem::replace(self, Self::new());
        std::iter::from_fn(move || {
            let entry = entries.get_mut(head as usize)?;
            head = entry.next;
            entry.child.take()
        })
    }
}

/// No entry: the end of a list.
const NIL: u32 = u32::MAX;

/// Places that an empty list keeps.
const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_random_operations_against_a_model() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move |n: usize| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
        };
        for _ in 0..50 {
            let mut children = Children::new();
            let mut model: Vec<(u32, usize)> = Vec::new();
            let mut most = 0;
            for step in 0..500 {
                if model.is_empty() || random(5) < 2 + step / 250 {
                    model.push((children.insert(step), step));
                } else {
                    let (place, child) = model.remove(random(model.len()));
                    assert_eq!(children.remove(place), child);
                }
                most = most.max(model.len());
                assert_eq!(children.len(), model.len());
                assert!(children.entries.len() <= most, "it grows only when all are in use");
            }
            let left: Vec<_> = children.drain().collect();
            assert_eq!(left, model.iter().map(|(_, child)| *child).collect::<Vec<_>>());
            assert_eq!(children.len(), 0);
        }
    }

    #[test]
    fn children_a_large_list_gives_its_memory_back_when_empty() {
        let mut children = Children::new();
        let places: Vec<_> = (0..10_000).map(|i| children.insert(i)).collect();
        for (place, child) in places.into_iter().zip(0..) {
            assert_eq!(children.remove(place), child);
        }
        assert_eq!(children.entries.capacity(), 0);
        let one = children.insert(1);
        children.remove(one);
        assert_ne!(children.entries.capacity(), 0, "a small one keeps its memory");
    }
}
