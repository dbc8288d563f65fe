//! Who waits, in which order, and what each was handed.
//!
//! Owns [`WaitList`]: a slab of waiters with two lists threaded through it by index. A waiter's life:
//!
//! ```text
//!   push_back ──► waiting ──hand_front──► handed, to wake ──next_to_wake──► handed
//!                   │                          │                              │
//!                remove                  collect, remove                collect, remove
//! ```
//!
//! Invariants:
//! - a waiting entry is in the queue, one that is to be woken is in the wake list, and no other entry
//!   is in either; the queue's order is the order of arrival;
//! - what was handed to a waiter stays in its entry until the waiter collects it or is removed, and
//!   comes out exactly once;
//! - an entry's generation goes on when it is freed; at the last one the entry is retired instead;
//! - the slab grows only when every entry is in use; one that is not small goes with the last waiter.
//!
//! It is as long as there are waiters: their futures are its bound. It runs no foreign code: wakers go
//! in and come out as values, for the caller to clone, wake and drop. It knows no primitive.

use std::task::Waker;

/// Names one waiter of one list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

/// What a removed waiter leaves behind.
#[derive(Debug)]
pub(super) enum Left<G> {
    /// It was still waiting.
    Waiting(Waker),
    /// It had been handed this, and its waker may not have been called yet.
    Handed(G, Option<Waker>),
}

/// Waiters that ask for an `R` each and are handed a `G`.
#[derive(Debug)]
pub(super) struct WaitList<R, G> {
    entries: Vec<Entry<R, G>>,
    /// The entry freed last; the others follow by `next`.
    free: u32,
    queue: Ends,
    to_wake: Ends,
    waiting: usize,
    /// Entries in use, of a slab that is not small: to count those of the others would cost each wait.
    used: usize,
}

/// Entries that are kept though nobody waits.
const KEPT_MAX: usize = 64;

impl<R: Copy, G> WaitList<R, G> {
    pub(super) const fn new() -> Self {
        let none = Ends { head: NIL, tail: NIL };
        Self { entries: Vec::new(), free: NIL, queue: none, to_wake: none, waiting: 0, used: 0 }
    }

    /// How many wait and were not handed anything yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// What the first in the queue asks for.
    pub(super) fn front(&self) -> Option<R> {
        match self.entries.get(self.queue.head as usize)?.state {
            State::Waiting { request, .. } => Some(request),
            _ => unreachable!("only waiting entries are in the queue"),
        }
    }

    /// Adds a waiter at the end of the queue.
    pub(super) fn push_back(&mut self, waker: Waker, request: R) -> Key {
        let state = State::Waiting { waker, request };
        let index = if self.free == NIL {
            assert!(
                self.entries.len() < NIL as usize,
                "a wait list holds at most u32::MAX waiters"
            );
            self.entries.push(Entry { state, prev: NIL, next: NIL, generation: 0 });
            self.used = self.entries.len();
            (self.entries.len() - 1) as u32
        } else {
            let index = self.free;
            let entry = &mut self.entries[index as usize];
            self.free = entry.next;
            entry.state = state;
            if self.entries.len() > KEPT_MAX {
                self.used += 1;
            }
            index
        };
        link_back(&mut self.entries, &mut self.queue, index);
        self.waiting += 1;
        Key { index, generation: self.entries[index as usize].generation }
    }

    /// Hands `grant` to the first in the queue, who is to be woken then; gives it back if nobody waits.
    pub(super) fn hand_front(&mut self, grant: G) -> Result<(), G> {
        let index = self.queue.head;
        if index == NIL {
            return Err(grant);
        }
        unlink(&mut self.entries, &mut self.queue, index);
        self.waiting -= 1;
        let entry = &mut self.entries[index as usize];
        let State::Waiting { waker, .. } = std::mem::replace(&mut entry.state, State::Free) else {
            unreachable!("only waiting entries are in the queue");
        };
        entry.state = State::Handed { waker: Some(waker), grant };
        link_back(&mut self.entries, &mut self.to_wake, index);
        Ok(())
    }

    /// The waker of the next one who was handed something and does not know it yet.
    pub(super) fn next_to_wake(&mut self) -> Option<Waker> {
        let index = self.to_wake.head;
        if index == NIL {
            return None;
        }
        unlink(&mut self.entries, &mut self.to_wake, index);
        match &mut self.entries[index as usize].state {
            State::Handed { waker, .. } => waker.take(),
            _ => unreachable!("only handed entries are in the wake list"),
        }
    }

    /// Ends a waiter that was handed something, which it gets; none if it still waits.
    pub(super) fn collect(&mut self, key: Key) -> Option<(G, Option<Waker>)> {
        match self.entry(key).state {
            State::Handed { .. } => match self.remove(key) {
                Left::Handed(grant, waker) => Some((grant, waker)),
                Left::Waiting(_) => unreachable!("the entry was a handed one"),
            },
            _ => None,
        }
    }

    /// Whether the waiter waits with a waker of the same task as `waker`.
    pub(super) fn is_woken_by(&self, key: Key, waker: &Waker) -> bool {
        match &self.entry(key).state {
            State::Waiting { waker: known, .. } => known.will_wake(waker),
            _ => false,
        }
    }

    /// Changes the waker of a waiter that waits; the one that is not needed comes back.
    pub(super) fn replace_waker(&mut self, key: Key, waker: Waker) -> Waker {
        let index = self.index(key);
        match &mut self.entries[index].state {
            State::Waiting { waker: known, .. } => std::mem::replace(known, waker),
            _ => waker,
        }
    }

    /// Ends a waiter, whatever it has.
    pub(super) fn remove(&mut self, key: Key) -> Left<G> {
        let index = self.index(key);
        let state = std::mem::replace(&mut self.entries[index].state, State::Free);
        let left = match state {
            State::Waiting { waker, .. } => {
                unlink(&mut self.entries, &mut self.queue, key.index);
                self.waiting -= 1;
                Left::Waiting(waker)
            }
            State::Handed { waker, grant } => {
                if waker.is_some() {
                    unlink(&mut self.entries, &mut self.to_wake, key.index);
                }
                Left::Handed(grant, waker)
            }
            State::Free => unreachable!("a key names a live entry"),
        };
        let entry = &mut self.entries[index];
        if let Some(generation) = entry.generation.checked_add(1) {
            entry.generation = generation;
            entry.next = self.free;
            self.free = key.index;
        }
        if self.entries.len() > KEPT_MAX {
            self.one_less();
        }
        left
    }

    /// Gives the memory of many back when nobody is left.
    #[cold]
    #[inline(never)]
    fn one_less(&mut self) {
        self.used -= 1;
        if self.used == 0 {
            // No key is in use, and entries that are free run nobody's code.
            (self.entries, self.free) = (Vec::new(), NIL);
        }
    }

    fn entry(&self, key: Key) -> &Entry<R, G> {
        &self.entries[self.index(key)]
    }

    /// The key's place, held against its generation: a key is used until its waiter ends, never after.
    fn index(&self, key: Key) -> usize {
        let index = key.index as usize;
        assert_eq!(self.entries[index].generation, key.generation, "a waiter's key after its end");
        index
    }
}

/// The two ends of a list of entries.
#[derive(Clone, Copy, Debug)]
struct Ends {
    head: u32,
    tail: u32,
}

#[derive(Debug)]
struct Entry<R, G> {
    state: State<R, G>,
    prev: u32,
    /// The next in the list in which it is; of the free ones, too.
    next: u32,
    generation: u32,
}

#[derive(Debug)]
enum State<R, G> {
    Free,
    Waiting {
        waker: Waker,
        request: R,
    },
    Handed {
        /// None once it was taken to be called; until then the entry is in the wake list.
        waker: Option<Waker>,
        grant: G,
    },
}

fn link_back<R, G>(entries: &mut [Entry<R, G>], list: &mut Ends, index: u32) {
    let entry = &mut entries[index as usize];
    (entry.prev, entry.next) = (list.tail, NIL);
    if list.tail == NIL {
        list.head = index;
    } else {
        entries[list.tail as usize].next = index;
    }
    list.tail = index;
}

fn unlink<R, G>(entries: &mut [Entry<R, G>], list: &mut Ends, index: u32) {
    let Entry { prev, next, .. } = entries[index as usize];
    if prev == NIL {
        list.head = next;
    } else {
        entries[prev as usize].next = next;
    }
    if next == NIL {
        list.tail = prev;
    } else {
        entries[next as usize].prev = prev;
    }
}

/// No entry: the end of a list.
const NIL: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// A waker that can be told from others by what it counts.
    struct Named(AtomicUsize);

    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn named() -> (Arc<Named>, Waker) {
        let named = Arc::new(Named(AtomicUsize::new(0)));
        (named.clone(), Waker::from(named))
    }

    #[derive(Default)]
    struct Model {
        waiting: VecDeque<usize>,
        to_wake: VecDeque<usize>,
        woken: Vec<usize>,
    }

    fn model_run(seed: u64, steps: usize) {
        let mut state = seed | 1;
        let mut random = move |n: usize| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
        };
        let mut list: WaitList<usize, usize> = WaitList::new();
        let mut model = Model::default();
        // By arrival: its key, who is counted, and what it was handed.
        let mut all: Vec<(Key, Arc<Named>, Option<usize>)> = Vec::new();
        let mut most = 0;
        for step in 0..steps {
            match random(6) {
                0 | 1 => {
                    let (counted, waker) = named();
                    model.waiting.push_back(all.len());
                    all.push((list.push_back(waker, all.len()), counted, None));
                }
                2 => match model.waiting.pop_front() {
                    Some(id) => {
                        list.hand_front(step).unwrap();
                        all[id].2 = Some(step);
                        model.to_wake.push_back(id);
                    }
                    None => assert_eq!(list.hand_front(step), Err(step)),
                },
                3 => match model.to_wake.pop_front() {
                    Some(id) => {
                        list.next_to_wake().unwrap().wake();
                        assert_eq!(all[id].1.0.load(Ordering::Relaxed), 1, "seed {seed}");
                        model.woken.push(id);
                    }
                    None => assert!(list.next_to_wake().is_none()),
                },
                4 if !model.waiting.is_empty() => {
                    // Another waker for one that waits.
                    let id = model.waiting[random(model.waiting.len())];
                    let (counted, waker) = named();
                    assert!(!list.is_woken_by(all[id].0, &waker));
                    drop(list.replace_waker(all[id].0, waker.clone()));
                    assert!(list.is_woken_by(all[id].0, &waker));
                    all[id].1 = counted;
                    assert!(list.collect(all[id].0).is_none());
                }
                5 => {
                    // One ends: from the queue, from the wake list, or after its wake.
                    let from = random(3);
                    let len = [model.waiting.len(), model.to_wake.len(), model.woken.len()][from];
                    if len == 0 {
                        continue;
                    }
                    let at = random(len);
                    let id = match from {
                        0 => model.waiting.remove(at).unwrap(),
                        1 => model.to_wake.remove(at).unwrap(),
                        _ => model.woken.swap_remove(at),
                    };
                    match (from, list.remove(all[id].0)) {
                        (0, Left::Waiting(_)) => assert_eq!(all[id].2, None),
                        (1, Left::Handed(grant, Some(_))) | (2, Left::Handed(grant, None)) => {
                            assert_eq!(all[id].2, Some(grant), "seed {seed}");
                        }
                        other => panic!("seed {seed}: {other:?}"),
                    }
                }
                _ => {}
            }
            assert_eq!(list.waiting(), model.waiting.len());
            assert_eq!(list.front(), model.waiting.front().copied(), "seed {seed}");
            let live = model.waiting.len() + model.to_wake.len() + model.woken.len();
            most = most.max(live);
            assert!(list.entries.len() <= most, "it grows only when all entries are in use");
        }
        for id in model.woken {
            assert_eq!(list.collect(all[id].0).map(|(grant, _)| grant), all[id].2);
        }
    }

    #[test]
    fn wait_list_random_operations_against_a_model() {
        for seed in 1..=60 {
            model_run(seed * 7919, 1_000);
        }
    }

    #[test]
    fn wait_list_an_empty_one_has_no_memory_and_entries_are_used_again() {
        let mut list: WaitList<(), ()> = WaitList::new();
        assert_eq!(list.entries.capacity(), 0);
        for _ in 0..100 {
            let key = list.push_back(Waker::noop().clone(), ());
            list.hand_front(()).unwrap();
            assert!(list.collect(key).is_some());
        }
        assert_eq!(list.entries.len(), 1);
    }

    #[test]
    fn wait_list_the_memory_of_many_goes_with_the_last_of_them() {
        let mut list: WaitList<(), ()> = WaitList::new();
        for round in 0..3 {
            let keys: Vec<Key> =
                (0..1_000).map(|_| list.push_back(Waker::noop().clone(), ())).collect();
            list.hand_front(()).unwrap();
            for (i, key) in keys.into_iter().enumerate() {
                assert!(list.entries.len() >= 1_000, "one is left: {round}, {i}");
                assert!(matches!(list.remove(key), Left::Handed((), Some(_))) == (i == 0));
            }
            assert_eq!((list.entries.capacity(), list.waiting()), (0, 0));
            assert!(list.next_to_wake().is_none() && list.front().is_none());
        }
    }

    #[test]
    fn wait_list_the_memory_goes_whoever_came_again_before() {
        let mut list: WaitList<(), ()> = WaitList::new();
        let waker = || Waker::noop().clone();
        let mut keys: Vec<Key> = (0..1_000).map(|_| list.push_back(waker(), ())).collect();
        for _ in 0..5_000 {
            list.remove(keys.pop().unwrap());
            keys.push(list.push_back(waker(), ()));
        }
        while list.hand_front(()).is_ok() {}
        while list.next_to_wake().is_some() {}
        for key in keys {
            assert!(list.entries.len() == 1_000 && list.collect(key).is_some());
        }
        assert_eq!(list.entries.capacity(), 0);
    }

    #[test]
    fn wait_list_an_entry_at_its_last_generation_is_retired() {
        let mut list: WaitList<(), ()> = WaitList::new();
        let key = list.push_back(Waker::noop().clone(), ());
        list.entries[0].generation = u32::MAX;
        list.remove(Key { generation: u32::MAX, ..key });
        let next = list.push_back(Waker::noop().clone(), ());
        assert_eq!((next.index, list.entries.len()), (1, 2));
    }

    #[test]
    #[should_panic(expected = "a waiter's key after its end")]
    fn wait_list_a_key_does_not_outlive_its_waiter() {
        let mut list: WaitList<(), ()> = WaitList::new();
        let key = list.push_back(Waker::noop().clone(), ());
        list.remove(key);
        let _ = list.collect(key);
    }
}
