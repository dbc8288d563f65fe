//! A lock with one writer or many readers, held across awaits.
//!
//! Owns [`RwLock`] and its guards: a gate of which a reader takes one permit and a writer all. So the
//! fairness of the gate is the lock's: a writer in line is not overtaken by readers, nor the other way
//! round.

use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::gate::{Closed, Gate, Held, MAX_PERMITS};
use super::mutex::TryLockError;
use crate::task::info::Note;

/// A reader-writer lock for tasks of one core, fair in the order of asking.
///
/// A reader that asks while a writer waits goes behind that writer; so a task that reads must not ask
/// to read again while it holds a guard, or both may wait for ever. It is not poisoned by a panic.
///
/// Memory: an uncontended lock allocates nothing. The list of waiters is as long as there are waiters.
///
/// ```
/// use coreloop::sync::RwLock;
///
/// coreloop::run(async {
///     let lock = RwLock::new(1);
///     {
///         let (a, b) = (lock.read().await, lock.read().await);
///         assert_eq!(*a + *b, 2);
///         assert!(lock.try_write().is_err());
///     }
///     *lock.write().await += 1;
///     assert_eq!(*lock.read().await, 2);
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::RwLock::new(0));
/// ```
pub struct RwLock<T: ?Sized> {
    gate: Gate,
    value: RefCell<T>,
}

impl<T> RwLock<T> {
    /// An unlocked one.
    pub const fn new(value: T) -> Self {
        Self { gate: Gate::new(ALL, Note::RwLock), value: RefCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Locks it for reading, when those who asked before have had their turn.
    ///
    /// # Cancel safety
    /// A dropped future leaves the line; if it was its turn already, that is given back.
    pub async fn read(&self) -> RwLockReadGuard<'_, T> {
        match self.gate.acquire(1).await {
            Ok(held) => self.reader(held),
            Err(Closed) => unreachable!("nobody closes a lock"),
        }
    }

    /// Locks it for writing, when those who asked before have had their turn.
    ///
    /// # Cancel safety
    /// A dropped future leaves the line, and readers behind it go on; if it was its turn already, that
    /// is given back.
    pub async fn write(&self) -> RwLockWriteGuard<'_, T> {
        match self.gate.acquire(ALL).await {
            Ok(held) => self.writer(held),
            Err(Closed) => unreachable!("nobody closes a lock"),
        }
    }

    /// Locks it for reading if that is possible at once.
    ///
    /// # Errors
    /// [`TryLockError`] if somebody writes, or if others wait.
    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, TryLockError> {
        self.gate.try_acquire(1).map(|held| self.reader(held)).map_err(|_| TryLockError(()))
    }

    /// Locks it for writing if that is possible at once.
    ///
    /// # Errors
    /// [`TryLockError`] if somebody reads or writes, or if others wait.
    pub fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, TryLockError> {
        self.gate.try_acquire(ALL).map(|held| self.writer(held)).map_err(|_| TryLockError(()))
    }

    /// The value, without locking: nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn reader<'a>(&'a self, held: Held<'a>) -> RwLockReadGuard<'a, T> {
        RwLockReadGuard { value: self.value.borrow(), _held: held }
    }

    fn writer<'a>(&'a self, held: Held<'a>) -> RwLockWriteGuard<'a, T> {
        RwLockWriteGuard { value: self.value.borrow_mut(), lock: self, held }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.gate.free();
        f.debug_struct("RwLock")
            .field("readers", &if free == 0 { 0 } else { ALL - free })
            .field("writer", &(free == 0))
            .field("waiting", &self.gate.waiting())
            .finish_non_exhaustive()
    }
}

/// A lock for reading on an [`RwLock`]; its drop unlocks, also in a panic or a cancel.
#[must_use = "a lock that is not held protects nothing"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    // Fields are dropped in this order: the borrow ends before the next one has the lock.
    value: Ref<'a, T>,
    _held: Held<'a>,
}

/// The lock for writing on an [`RwLock`]; its drop unlocks, also in a panic or a cancel.
#[must_use = "a lock that is not held protects nothing"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    // As with readers: the borrow ends first.
    value: RefMut<'a, T>,
    lock: &'a RwLock<T>,
    held: Held<'a>,
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Goes on reading: no other writer comes between, readers who are next in line come in.
    pub fn downgrade(guard: Self) -> RwLockReadGuard<'a, T> {
        let Self { value, lock, mut held } = guard;
        drop(value);
        let value = lock.value.borrow();
        held.shrink(1);
        RwLockReadGuard { value, _held: held }
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// What a writer takes: more than there can be readers, each of which takes memory.
const ALL: usize = MAX_PERMITS;
