//! A lock that is held across awaits.
//!
//! Owns [`Mutex`] and its guard: a gate with one permit. The value lies in a `RefCell` that only the
//! holder of the permit borrows, so no unsafe code is needed and the borrow never fails.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::gate::{Closed, Gate, Held};
use crate::task::info::Note;

/// A mutual exclusion lock for tasks of one core, fair in the order of asking.
///
/// Needed where something must not change *across an await*; between awaits a task has its core to
/// itself, and a `Cell` or `RefCell` will do. It is not poisoned: a panic unlocks it like any other end
/// of a scope.
///
/// Whoever asks while others wait goes behind them. A task that unlocks and locks again at once waits
/// behind those who were waiting.
///
/// Memory: an uncontended lock allocates nothing. The list of waiters is as long as there are waiters.
///
/// ```
/// use coreloop::sync::Mutex;
/// use std::rc::Rc;
///
/// coreloop::run(async {
///     let total = Rc::new(Mutex::new(0));
///     let tasks: Vec<_> = (0..4)
///         .map(|_| {
///             let total = total.clone();
///             coreloop::spawn(async move {
///                 let mut total = total.lock().await;
///                 let before = *total;
///                 coreloop::yield_now().await;
///                 *total = before + 1;
///             })
///         })
///         .collect();
///     for task in tasks {
///         task.await.unwrap();
///     }
///     assert_eq!(*total.lock().await, 4);
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::Mutex::new(0));
/// ```
pub struct Mutex<T: ?Sized> {
    gate: Gate,
    value: RefCell<T>,
}

impl<T> Mutex<T> {
    /// An unlocked one.
    pub const fn new(value: T) -> Self {
        Self { gate: Gate::new(1, Note::Mutex), value: RefCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks it, when those who asked before have had their turn.
    ///
    /// A task that locks it twice waits for itself for ever.
    ///
    /// # Cancel safety
    /// A dropped future leaves the line; if it was its turn already, the lock goes to the next one. A
    /// future that is forgotten (`mem::forget`) keeps its place, and with it the lock once it is its
    /// turn.
    pub async fn lock(&self) -> MutexGuard<'_, T> {
        match self.gate.acquire(1).await {
            Ok(held) => self.guard(held),
            Err(Closed) => unreachable!("nobody closes a mutex"),
        }
    }

    /// Locks it if that is possible at once.
    ///
    /// # Errors
    /// [`TryLockError`] if it is locked, or if others wait for it.
    ///
    /// ```
    /// let mutex = coreloop::sync::Mutex::new(1);
    /// let guard = mutex.try_lock().unwrap();
    /// assert!(mutex.try_lock().is_err());
    /// drop(guard);
    /// assert!(mutex.try_lock().is_ok());
    /// ```
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError> {
        self.gate.try_acquire(1).map(|held| self.guard(held)).map_err(|_| TryLockError(()))
    }

    /// Whether somebody holds it or is about to.
    pub fn is_locked(&self) -> bool {
        self.gate.free() == 0
    }

    /// The value, without locking: nobody else can have it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn guard<'a>(&'a self, held: Held<'a>) -> MutexGuard<'a, T> {
        MutexGuard { value: self.value.borrow_mut(), mutex: self, _held: held }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex")
            .field("locked", &self.is_locked())
            .field("waiting", &self.gate.waiting())
            .finish_non_exhaustive()
    }
}

/// The lock on a [`Mutex`]; its drop unlocks, also in a panic or a cancel, and wakes the next in line.
/// One that is forgotten leaves the mutex locked for good.
#[must_use = "a lock that is not held protects nothing"]
pub struct MutexGuard<'a, T: ?Sized> {
    // Fields are dropped in this order: the borrow ends before the next one has the lock.
    value: RefMut<'a, T>,
    mutex: &'a Mutex<T>,
    _held: Held<'a>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The mutex of a guard.
    pub fn mutex(guard: &Self) -> &'a Mutex<T> {
        guard.mutex
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The lock could not be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryLockError(pub(super) ());

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock is taken, or others wait for it")
    }
}

impl std::error::Error for TryLockError {}
