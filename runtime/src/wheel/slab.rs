//! The timers themselves: a slab of entries, their keys, and the lists threaded through them.
//!
//! Invariants:
//! - an entry is live (has a value and is in exactly one list), free (in the free list) or retired;
//! - an entry's generation goes on by one whenever its timer ends, and never comes back to an
//!   earlier figure: at the last generation the entry is retired instead of freed. That abandons
//!   40 bytes after four billion timers in one entry, and no stale key is ever mistaken for a live
//!   one;
//! - the free list is last-in first-out, so that a reused entry is likely still in cache, and the
//!   slab grows only when every entry is live or retired.
//!
//! It does not know what a list stands for, nor the order of deadlines. Linking an entry into one
//! list and unlinking it from another is the caller's mistake to avoid.

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

    pub(super) fn index(self) -> u32 {
        self.index
    }
}

/// The two ends of a doubly linked list of entries.
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

    pub(super) fn head(self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }
}

/// The entries of all timers, live or past.
pub(super) struct Slab<T> {
    entries: Vec<Entry<T>>,
    /// The entry freed last; the others follow by `next`.
    free: u32,
    live: usize,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new(), free: NIL, live: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Bytes of all entries.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<T>>()
    }

    /// The live entries' deadlines and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().filter_map(|e| Some((e.deadline, e.value.as_ref()?)))
    }

    /// Makes an entry that is live but not yet in a list: the caller links it.
    pub(super) fn insert(&mut self, deadline: u64, value: T) -> TimerKey {
        self.live += 1;
        if self.free != NIL {
            let index = self.free;
            let entry = &mut self.entries[index as usize];
            self.free = entry.next;
            entry.deadline = deadline;
            entry.value = Some(value);
            return TimerKey { index, generation: entry.generation };
        }
        assert!(self.entries.len() < NIL as usize, "a wheel holds at most u32::MAX timers");
        let index = self.entries.len() as u32;
        let value = Some(value);
        self.entries.push(Entry { deadline, value, prev: NIL, next: NIL, generation: 0 });
        TimerKey { index, generation: 0 }
    }

    /// Ends the timer of an entry that is live and already unlinked.
    pub(super) fn remove(&mut self, index: u32) -> (u64, T) {
        let entry = &mut self.entries[index as usize];
        let value = entry.value.take().expect("only a live entry is in a list or matches a key");
        if let Some(generation) = entry.generation.checked_add(1) {
            entry.generation = generation;
            entry.next = self.free;
            self.free = index;
        }
        self.live -= 1;
        (entry.deadline, value)
    }

    /// The deadline of the key's timer, if that timer is live.
    pub(super) fn deadline(&self, key: TimerKey) -> Option<u64> {
        let entry = self.entries.get(key.index as usize)?;
        // A retired entry keeps its generation, so that alone is not proof of life.
        (entry.generation == key.generation && entry.value.is_some()).then_some(entry.deadline)
    }

    /// The value of the key's timer, if that timer is live.
    pub(super) fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// The deadline of an entry found in a list.
    pub(super) fn deadline_at(&self, index: u32) -> u64 {
        self.entries[index as usize].deadline
    }

    /// The entry after this one in its list.
    pub(super) fn next(&self, index: u32) -> Option<u32> {
        let next = self.entries[index as usize].next;
        (next != NIL).then_some(next)
    }

    /// Links an entry that is in no list at the end of this one.
    pub(super) fn push_back(&mut self, list: &mut List, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.prev = list.tail;
        entry.next = NIL;
        if list.tail == NIL {
            list.head = index;
        } else {
            self.entries[list.tail as usize].next = index;
        }
        list.tail = index;
    }

    /// Unlinks an entry from the list in which it is.
    pub(super) fn unlink(&mut self, list: &mut List, index: u32) {
        let entry = &self.entries[index as usize];
        let (prev, next) = (entry.prev, entry.next);
        if prev == NIL {
            debug_assert_eq!(list.head, index);
            list.head = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next == NIL {
            debug_assert_eq!(list.tail, index);
            list.tail = prev;
        } else {
            self.entries[next as usize].prev = prev;
        }
    }
}

#[cfg(test)]
impl<T> Slab<T> {
    /// The entries of a list from head to tail; the links back are checked on the way.
    pub(super) fn walk(&self, list: List) -> Vec<u32> {
        let mut found = Vec::new();
        let (mut index, mut prev) = (list.head, NIL);
        while index != NIL {
            assert_eq!(self.entries[index as usize].prev, prev);
            assert!(self.entries[index as usize].value.is_some());
            found.push(index);
            (prev, index) = (index, self.entries[index as usize].next);
        }
        assert_eq!(list.tail, prev);
        found
    }

    pub(super) const ENTRY_BYTES: usize = size_of::<Entry<T>>();

    pub(super) fn allocated(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn set_generation(&mut self, index: u32, generation: u32) {
        self.entries[index as usize].generation = generation;
    }
}

/// One timer: 40 bytes with a 16-byte value that has a niche, such as a `Waker`.
struct Entry<T> {
    deadline: u64,
    /// `None` while the entry is free or retired.
    value: Option<T>,
    prev: u32,
    /// The next in the list of the slot, or of the free entries.
    next: u32,
    generation: u32,
}

/// No entry: the end of a list.
const NIL: u32 = u32::MAX;
