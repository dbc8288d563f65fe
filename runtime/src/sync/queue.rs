//! Queues with a bound, and with the means to wait until all of it is done.
//!
//! Owns [`Queue`]: a store of items between two gates, one for the places and one for the items.
//! Invariants:
//! - items in the store = items free at their gate + items that a getter was promised, until
//!   `shutdown_now`;
//! - a promise is of *an* item, not of a certain one: the items stay in the store until a getter runs.
//!   So a getter that is dropped changes nothing in their order;
//! - items in the store + places promised to putters never exceed the capacity;
//! - no store is borrowed while an item is dropped.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;

use super::gate::{Gate, Held, MAX_PERMITS, NotNow};
use super::store::{Fifo, Lifo, Priority, Store};
use super::wait_room::WaitRoom;
use crate::task::info::Note;

/// A queue that gives the last item out first: [`Queue::bounded_lifo`], [`Queue::unbounded_lifo`].
pub type LifoQueue<T> = Queue<T, Lifo<T>>;

/// A queue that gives the least item out first, and equal ones in the order in which they came:
/// [`Queue::bounded_priority`], [`Queue::unbounded_priority`]. A comparison that uses the same queue
/// panics.
pub type PriorityQueue<T> = Queue<T, Priority<T>>;

/// A queue between tasks of one core, with any number of putters and getters, each served in the order
/// of asking; share it with an `Rc`. As asyncio's, it can be [joined](Self::join) and [shut
/// down](Self::shutdown). For an end that notices when the other one is gone, see
/// [`mpsc`](super::mpsc).
///
/// An item that was promised to a getter which has not run yet is still counted by [`len`](Self::len),
/// but nobody else can take it.
///
/// Memory: the items that are in it, at most [`capacity`](Self::capacity), and the waiters. One without
/// a bound grows with its items.
///
/// ```
/// use coreloop::sync::Queue;
/// use std::rc::Rc;
///
/// coreloop::run(async {
///     let queue = Rc::new(Queue::bounded(2));
///     let jobs = queue.clone();
///     let worker = coreloop::spawn(async move {
///         let mut sum = 0;
///         while let Ok(job) = jobs.get().await {
///             sum += job;
///             jobs.task_done();
///         }
///         sum
///     });
///     for job in 1..=10 {
///         queue.put(job).await.unwrap();
///     }
///     queue.join().await;
///     queue.shutdown();
///     assert_eq!(worker.await.unwrap(), 55);
///
///     let sorted = Queue::unbounded_priority();
///     for n in [2, 3, 1] {
///         sorted.try_put(n).unwrap();
///     }
///     assert_eq!(sorted.get().await, Ok(1));
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::Queue::<u8>::bounded(1));
/// ```
pub struct Queue<T, S = Fifo<T>> {
    store: RefCell<S>,
    places: Gate,
    items: Gate,
    capacity: usize,
    /// Places that were taken by [`reserve`](Self::reserve) and neither filled nor given back.
    reserved: Cell<usize>,
    /// Items that were put and not yet reported as done.
    unfinished: Cell<usize>,
    finished: WaitRoom<(), ()>,
    is_shutdown: Cell<bool>,
    of: PhantomData<T>,
}

impl<T> Queue<T> {
    /// An empty one with this many places.
    ///
    /// # Panics
    /// If `capacity` is zero: there is no hand-over without a place. Also above `usize::MAX / 8`.
    #[track_caller]
    pub fn bounded(capacity: usize) -> Self {
        Self::with_capacity(capacity)
    }

    /// An empty one without a bound: putting never waits, and memory grows with what is in it.
    pub fn unbounded() -> Self {
        Self::with_capacity(MAX_PERMITS)
    }
}

impl<T> LifoQueue<T> {
    /// An empty one with this many places.
    ///
    /// # Panics
    /// If `capacity` is zero. Also above `usize::MAX / 8`.
    #[track_caller]
    pub fn bounded_lifo(capacity: usize) -> Self {
        Self::with_capacity(capacity)
    }

    /// An empty one without a bound: putting never waits, and memory grows with what is in it.
    pub fn unbounded_lifo() -> Self {
        Self::with_capacity(MAX_PERMITS)
    }
}

impl<T: Ord> PriorityQueue<T> {
    /// An empty one with this many places.
    ///
    /// # Panics
    /// If `capacity` is zero. Also above `usize::MAX / 8`.
    #[track_caller]
    pub fn bounded_priority(capacity: usize) -> Self {
        Self::with_capacity(capacity)
    }

    /// An empty one without a bound: putting never waits, and memory grows with what is in it.
    pub fn unbounded_priority() -> Self {
        Self::with_capacity(MAX_PERMITS)
    }
}

impl<T, S: Store<T>> Queue<T, S> {
    #[track_caller]
    fn with_capacity(capacity: usize) -> Self {
        assert!(capacity > 0, "a queue needs at least one place");
        Self {
            store: RefCell::default(),
            places: Gate::new(capacity, Note::ItemRoom),
            items: Gate::new(0, Note::Item),
            capacity,
            reserved: Cell::new(0),
            unfinished: Cell::new(0),
            finished: WaitRoom::new(Note::QueueJoin),
            is_shutdown: Cell::new(false),
            of: PhantomData,
        }
    }

    /// Puts an item in, when there is a place and those who asked before have theirs.
    ///
    /// # Errors
    /// [`PutError`] with the item once the queue is shut down.
    ///
    /// # Cancel safety
    /// A future that is dropped before it ends puts nothing in, and the item is dropped with it; a
    /// place that it had been promised goes to the next one. To keep the item,
    /// [`try_put`](Self::try_put) it.
    pub async fn put(&self, item: T) -> Result<(), PutError<T>> {
        match self.places.acquire(1).await {
            // It may have been shut down after the place was promised.
            Ok(place) if !self.is_shutdown() => {
                self.fill(place, item);
                Ok(())
            }
            _ => Err(PutError(item)),
        }
    }

    /// Puts an item in if there is a place and nobody waits for one.
    ///
    /// # Errors
    /// [`TryPutError`], with the item.
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        match self.places.try_acquire(1) {
            Ok(place) => {
                self.fill(place, item);
                Ok(())
            }
            Err(NotNow::Taken) => Err(TryPutError::Full(item)),
            Err(NotNow::Closed) => Err(TryPutError::ShutDown(item)),
        }
    }

    /// Takes the next item out, when there is one and those who asked before have theirs.
    ///
    /// # Errors
    /// [`GetError`] once the queue is shut down and empty.
    ///
    /// # Cancel safety
    /// No item is lost: a future that is dropped before it ends has taken none, and what it had been
    /// promised goes to the next one. A future that is forgotten (`mem::forget`) after an item was
    /// promised to it keeps the promise, and one item stays in the queue for good.
    pub async fn get(&self) -> Result<T, GetError> {
        match self.items.acquire(1).await {
            Ok(promised) => self.take(promised).ok_or(GetError(())),
            Err(_) => Err(GetError(())),
        }
    }

    /// Takes the next item out if there is one that nobody was promised.
    ///
    /// # Errors
    /// [`TryGetError`] says whether it is worth waiting.
    pub fn try_get(&self) -> Result<T, TryGetError> {
        match self.items.try_acquire(1) {
            Ok(promised) => self.take(promised).ok_or(TryGetError::ShutDown),
            Err(NotNow::Taken) => Err(TryGetError::Empty),
            Err(NotNow::Closed) => Err(TryGetError::ShutDown),
        }
    }

    /// Reports that an item which was taken out has been dealt with.
    ///
    /// # Panics
    /// If called more often than items were put in.
    #[track_caller]
    pub fn task_done(&self) {
        let left = self.unfinished.get().checked_sub(1);
        self.unfinished.set(left.expect("task_done was called more often than items were put"));
        self.look_whether_finished();
    }

    /// Waits until every item that was put in has been [reported as done](Self::task_done); ready at
    /// once if so.
    ///
    /// # Cancel safety
    /// A dropped future waits no longer.
    pub async fn join(&self) {
        self.finished.wait(|| (self.unfinished.get() == 0).then_some(())).await;
    }

    /// Lets nothing in any more; what is in it can still be taken out. Those who wait to put are told,
    /// and those who wait to get once it is empty.
    pub fn shutdown(&self) {
        self.is_shutdown.set(true);
        self.places.close();
        self.look_whether_empty();
    }

    /// As [`shutdown`](Self::shutdown), and drops what is in it; each item counts as done. A getter
    /// that was promised one gets an error.
    pub fn shutdown_now(&self) {
        // Before all else: it panics within a comparison.
        let dropped = self.store.take();
        self.is_shutdown.set(true);
        self.unfinished.set(self.unfinished.get().saturating_sub(dropped.count()));
        self.places.close();
        self.items.close();
        self.look_whether_finished();
        // Last, and with nothing borrowed: destructors may use the queue.
        drop(dropped);
    }

    /// Whether it was shut down.
    pub fn is_shutdown(&self) -> bool {
        self.is_shutdown.get()
    }

    /// Items in it.
    pub fn len(&self) -> usize {
        self.store.borrow().count()
    }

    /// Whether no item is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every place is taken or promised.
    pub fn is_full(&self) -> bool {
        self.places.free() == 0
    }

    /// How many places it has; none if it has no bound.
    pub fn capacity(&self) -> Option<usize> {
        (self.capacity < MAX_PERMITS).then_some(self.capacity)
    }

    /// The gate of the places.
    pub(super) fn places(&self) -> &Gate {
        &self.places
    }

    /// Takes a place out of the gate's hands, for [`fill_reserved`](Self::fill_reserved) or
    /// [`give_back`](Self::give_back).
    pub(super) fn reserve(&self, place: Held<'_>) {
        place.forget();
        self.reserved.set(self.reserved.get() + 1);
    }

    /// Puts an item into a reserved place; drops it if everything was dropped meanwhile.
    pub(super) fn fill_reserved(&self, item: T) {
        let before = self.len();
        self.reserved.set(self.reserved.get() - 1);
        if !self.items.is_closed() {
            self.insert(item, before);
        }
    }

    /// Gives a reserved place to whoever waits for one.
    pub(super) fn give_back(&self) {
        self.reserved.set(self.reserved.get() - 1);
        self.places.release(1);
        self.look_whether_empty();
    }

    /// The length is asked for first in these: where a comparison that is under way uses the queue, that
    /// panics before anything has changed.
    fn fill(&self, place: Held<'_>, item: T) {
        let before = self.len();
        place.forget();
        self.insert(item, before);
    }

    fn insert(&self, item: T, before: usize) {
        self.unfinished.set(self.unfinished.get() + 1);
        /// Counts what got in even if a comparison panicked.
        struct Announce<'a, T, S: Store<T>>(&'a Queue<T, S>, usize);
        impl<T, S: Store<T>> Drop for Announce<'_, T, S> {
            fn drop(&mut self) {
                self.0.items.release(self.0.len() - self.1);
            }
        }
        let announce = Announce(self, before);
        self.store.borrow_mut().push(item);
        drop(announce);
    }

    /// Redeems the promise of an item; none if all were dropped.
    fn take(&self, promised: Held<'_>) -> Option<T> {
        // As in `fill`.
        let _items = self.len();
        promised.forget();
        /// Frees the place even if a comparison panicked.
        struct Free<'a, T, S: Store<T>>(&'a Queue<T, S>);
        impl<T, S: Store<T>> Drop for Free<'_, T, S> {
            fn drop(&mut self) {
                self.0.places.release(1);
                self.0.look_whether_empty();
            }
        }
        let free = Free(self);
        let item = self.store.borrow_mut().pop();
        drop(free);
        item
    }

    /// After a shutdown: once nothing is left or can still come, those who wait for items are told.
    /// Until then a promise may still fall to one of them.
    fn look_whether_empty(&self) {
        let nothing_comes = self.is_shutdown() && self.reserved.get() == 0;
        // Borrowed while a comparison uses the queue: what it is a part of looks again.
        let is_empty = self.store.try_borrow().is_ok_and(|store| store.count() == 0);
        if nothing_comes && is_empty && !self.items.is_closed() {
            self.items.close();
        }
    }

    fn look_whether_finished(&self) {
        if self.unfinished.get() == 0 {
            self.finished.release_all(());
        }
    }
}

impl<T, S: Store<T>> fmt::Debug for Queue<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("getters", &self.items.waiting())
            .field("putters", &self.places.waiting())
            .field("unfinished", &self.unfinished.get())
            .field("shutdown", &self.is_shutdown())
            .finish()
    }
}

/// The queue was shut down; the item comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PutError<T>(pub T);

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PutError(..)")
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue was shut down")
    }
}

impl<T> std::error::Error for PutError<T> {}

/// Why an item could not be put at once; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPutError<T> {
    /// There is no place, or others wait for one.
    Full(T),
    /// The queue was shut down.
    ShutDown(T),
}

impl<T> fmt::Debug for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::ShutDown(_) => "ShutDown(..)",
        })
    }
}

impl<T> fmt::Display for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the queue is full, or others wait for a place",
            Self::ShutDown(_) => "the queue was shut down",
        })
    }
}

impl<T> std::error::Error for TryPutError<T> {}

/// The queue was shut down and nothing is left in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetError(());

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue was shut down, and nothing is left in it")
    }
}

impl std::error::Error for GetError {}

/// Why no item could be taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryGetError {
    /// There is none that nobody was promised.
    Empty,
    /// The queue was shut down and nothing is left in it.
    ShutDown,
}

impl fmt::Display for TryGetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the queue has no item that is free",
            Self::ShutDown => "the queue was shut down, and nothing is left in it",
        })
    }
}

impl std::error::Error for TryGetError {}
