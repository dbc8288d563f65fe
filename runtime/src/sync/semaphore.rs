//! A number of permits.
//!
//! Owns [`Semaphore`] and its permits, borrowed and owned: a gate, and the count of all its permits,
//! free or held, which is what a bounded one holds its bound against.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use super::gate::{self, Closed, Gate, NotNow};
use crate::task::info::Note;

/// Lets a number of tasks of one core through at once, fair in the order of asking.
///
/// A task that asks for many permits is not overtaken by those that ask for few: while it is in front,
/// nobody behind it gets any.
///
/// Memory: a permit that is free allocates nothing. The list of waiters is as long as there are
/// waiters.
///
/// ```
/// use coreloop::sync::Semaphore;
/// use std::rc::Rc;
///
/// coreloop::run(async {
///     let at_once = Rc::new(Semaphore::new(2));
///     let tasks: Vec<_> = (0..10)
///         .map(|_| {
///             let at_once = at_once.clone();
///             coreloop::spawn(async move {
///                 let _permit = at_once.acquire().await.unwrap();
///                 coreloop::yield_now().await;
///             })
///         })
///         .collect();
///     for task in tasks {
///         task.await.unwrap();
///     }
///     assert_eq!(at_once.available_permits(), 2);
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::Semaphore::new(1));
/// ```
pub struct Semaphore {
    gate: Gate,
    /// All permits that exist: free, held, or handed to a waiter.
    total: Cell<usize>,
    bound: usize,
}

impl Semaphore {
    /// The most permits that a semaphore can have.
    pub const MAX_PERMITS: usize = gate::MAX_PERMITS;

    /// One with this many permits, to which more may be added.
    ///
    /// # Panics
    /// Above [`MAX_PERMITS`](Self::MAX_PERMITS).
    pub const fn new(permits: usize) -> Self {
        Self {
            gate: Gate::new(permits, Note::Semaphore),
            total: Cell::new(permits),
            bound: Self::MAX_PERMITS,
        }
    }

    /// One that never has more than this many permits: adding one too many is refused. What was
    /// [forgotten](SemaphorePermit::forget) may be added again.
    ///
    /// # Panics
    /// Above [`MAX_PERMITS`](Self::MAX_PERMITS).
    ///
    /// ```
    /// use coreloop::sync::Semaphore;
    ///
    /// let semaphore = Semaphore::bounded(1);
    /// assert!(semaphore.try_add_permits(1).is_err());
    /// semaphore.try_acquire().unwrap().forget();
    /// assert!(semaphore.try_add_permits(1).is_ok());
    /// ```
    pub const fn bounded(permits: usize) -> Self {
        Self {
            gate: Gate::new(permits, Note::Semaphore),
            total: Cell::new(permits),
            bound: permits,
        }
    }

    /// Waits for one permit.
    ///
    /// # Errors
    /// [`AcquireError`] once the semaphore is closed.
    ///
    /// # Cancel safety
    /// A dropped future leaves the line; a permit that it had been handed goes to the next one. A
    /// future that is forgotten (`mem::forget`) keeps its place, and the permit once it is its turn.
    pub async fn acquire(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.acquire_many(1).await
    }

    /// Waits for this many permits, and takes them all at once.
    ///
    /// More than exist are waited for until they are [added](Self::add_permits), and everybody else
    /// waits behind.
    ///
    /// # Errors
    /// [`AcquireError`] once the semaphore is closed.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire). Those behind it that ask for less get through when it is dropped.
    pub async fn acquire_many(&self, permits: usize) -> Result<SemaphorePermit<'_>, AcquireError> {
        match self.gate.acquire(permits).await {
            Ok(held) => {
                held.forget();
                Ok(SemaphorePermit { semaphore: self, permits })
            }
            Err(Closed) => Err(AcquireError(())),
        }
    }

    /// Takes one permit if there is one and nobody waits.
    ///
    /// # Errors
    /// [`TryAcquireError`] says whether it is worth waiting.
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Takes this many permits if there are so many and nobody waits.
    ///
    /// # Errors
    /// [`TryAcquireError`] says whether it is worth waiting.
    pub fn try_acquire_many(&self, permits: usize) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        match self.gate.try_acquire(permits) {
            Ok(held) => {
                held.forget();
                Ok(SemaphorePermit { semaphore: self, permits })
            }
            Err(NotNow::Taken) => Err(TryAcquireError::NoPermits),
            Err(NotNow::Closed) => Err(TryAcquireError::Closed),
        }
    }

    /// As [`acquire`](Self::acquire), with a permit that keeps the semaphore alive by itself.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    ///
    /// # Errors
    /// [`AcquireError`] once the semaphore is closed.
    pub async fn acquire_owned(self: Rc<Self>) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.acquire_many_owned(1).await
    }

    /// As [`acquire_many`](Self::acquire_many), with a permit that keeps the semaphore alive by itself.
    ///
    /// # Cancel safety
    /// As [`acquire_many`](Self::acquire_many).
    ///
    /// # Errors
    /// [`AcquireError`] once the semaphore is closed.
    pub async fn acquire_many_owned(
        self: Rc<Self>,
        permits: usize,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.acquire_many(permits).await?.forget_here();
        Ok(OwnedSemaphorePermit { semaphore: self, permits })
    }

    /// As [`try_acquire`](Self::try_acquire), with a permit that keeps the semaphore alive by itself.
    ///
    /// # Errors
    /// [`TryAcquireError`] says whether it is worth waiting.
    pub fn try_acquire_owned(self: Rc<Self>) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.try_acquire_many(1)?.forget_here();
        Ok(OwnedSemaphorePermit { semaphore: self, permits: 1 })
    }

    /// Adds permits that nobody held.
    ///
    /// # Panics
    /// If that makes more than the bound of a [bounded](Self::bounded) one, or than
    /// [`MAX_PERMITS`](Self::MAX_PERMITS); see [`try_add_permits`](Self::try_add_permits).
    #[track_caller]
    pub fn add_permits(&self, permits: usize) {
        if let Err(e) = self.try_add_permits(permits) {
            panic!("{e}");
        }
    }

    /// Adds permits that nobody held.
    ///
    /// # Errors
    /// [`TooManyPermits`] if that makes more than the bound; nothing is added then.
    pub fn try_add_permits(&self, permits: usize) -> Result<(), TooManyPermits> {
        let total = self.total.get().checked_add(permits).filter(|total| *total <= self.bound);
        let Some(total) = total else { return Err(TooManyPermits { bound: self.bound }) };
        self.total.set(total);
        self.gate.release(permits);
        Ok(())
    }

    /// Lets nobody through any more: those who wait are told, and whoever asks from now on. What was
    /// handed over before stays so.
    pub fn close(&self) {
        self.gate.close();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.gate.is_closed()
    }

    /// Permits that nobody holds. Not zero and yet not to be had if somebody waits for more than these.
    pub fn available_permits(&self) -> usize {
        self.gate.free()
    }

    /// Takes permits out of the world.
    fn forget(&self, permits: usize) {
        self.total.set(self.total.get() - permits);
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("permits", &self.available_permits())
            .field("waiting", &self.gate.waiting())
            .field("closed", &self.is_closed())
            .finish()
    }
}

/// Permits of a [`Semaphore`], given back at the drop, also in a panic or a cancel.
#[must_use = "a permit that is not held is given back at once"]
#[derive(Debug)]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
    permits: usize,
}

impl SemaphorePermit<'_> {
    /// How many it stands for.
    pub fn num_permits(&self) -> usize {
        self.permits
    }

    /// Never gives them back. (`mem::forget` does the same, except that the semaphore still counts them
    /// against its bound.)
    pub fn forget(mut self) {
        self.semaphore.forget(std::mem::take(&mut self.permits));
    }

    /// Splits `permits` off; none if it stands for fewer.
    pub fn split(&mut self, permits: usize) -> Option<Self> {
        self.permits = self.permits.checked_sub(permits)?;
        Some(Self { semaphore: self.semaphore, permits })
    }

    /// Somebody else gives them back.
    fn forget_here(mut self) {
        self.permits = 0;
    }
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        if self.permits > 0 {
            self.semaphore.gate.release(self.permits);
        }
    }
}

/// As [`SemaphorePermit`], for whoever can't borrow the semaphore.
#[must_use = "a permit that is not held is given back at once"]
#[derive(Debug)]
pub struct OwnedSemaphorePermit {
    semaphore: Rc<Semaphore>,
    permits: usize,
}

impl OwnedSemaphorePermit {
    /// How many it stands for.
    pub fn num_permits(&self) -> usize {
        self.permits
    }

    /// Never gives them back.
    pub fn forget(mut self) {
        self.semaphore.forget(std::mem::take(&mut self.permits));
    }

    /// Splits `permits` off; none if it stands for fewer.
    pub fn split(&mut self, permits: usize) -> Option<Self> {
        self.permits = self.permits.checked_sub(permits)?;
        Some(Self { semaphore: self.semaphore.clone(), permits })
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        if self.permits > 0 {
            self.semaphore.gate.release(self.permits);
        }
    }
}

/// The semaphore was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireError(());

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the semaphore was closed")
    }
}

impl std::error::Error for AcquireError {}

/// Why a permit can't be had at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryAcquireError {
    /// There are too few, or others wait.
    NoPermits,
    /// The semaphore was closed.
    Closed,
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoPermits => "there are too few permits, or others wait for some",
            Self::Closed => "the semaphore was closed",
        })
    }
}

impl std::error::Error for TryAcquireError {}

/// A semaphore would have had more permits than its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPermits {
    bound: usize,
}

impl fmt::Display for TooManyPermits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a semaphore would have more than its bound of {} permits", self.bound)
    }
}

impl std::error::Error for TooManyPermits {}
