//! An empty future that somebody else completes.
//!
//! Owns [`future()`] and the two ends of it. The value is set once and then only lent, so an awaiter's clone
//! of it runs while nothing is borrowed; wakers are taken out before they are called.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::contain::{contained, wake};
use crate::task::current;
use crate::task::info::Note;

/// Makes an empty future: the [`Completer`] gives it a value, each clone of the [`Awaitable`] waits for it.
///
/// The value may be a `Result`, where completing with an error is wanted. Both ends stay on their core.
///
/// # Cancel safety
/// A clone of the [`Awaitable`] that is dropped waits no longer; the value stays for the others, and for
/// those that are cloned later. If whoever awaits one is cancelled, the future is cancelled, for all.
///
/// ```
/// use coreloop::combine::future;
///
/// coreloop::run(async {
///     let (completer, awaitable) = future();
///     let other = awaitable.clone();
///     let waits = coreloop::spawn(async move { other.await.unwrap() + 1 });
///     assert!(!awaitable.is_done());
///     completer.complete(41).unwrap();
///     assert!(awaitable.is_done() && completer.complete(42).is_err());
///     assert_eq!(waits.await.unwrap(), 42);
///     assert_eq!(awaitable.await, Ok(41));
/// })
/// .unwrap();
/// ```
pub fn future<T>() -> (Completer<T>, Awaitable<T>) {
    let shared = Rc::new(Shared { end: OnceCell::new(), waiters: RefCell::default() });
    (Completer(shared.clone()), Awaitable { shared, place: None, polled_in: Cell::new(0) })
}

/// The end of [`future()`] that gives the value. Dropping it without a value is an error for those who wait.
pub struct Completer<T>(Rc<Shared<T>>);

/// The end of [`future()`] that waits. Clones wait for the same value, and each gets a clone of it.
///
/// # Errors
/// Awaiting it gives [`FutureError`] if it was cancelled, or if the completer was dropped.
///
/// # Cancel safety
/// A cancel travels inwards through awaits: if whoever awaits this is cancelled, the future is cancelled,
/// for all who wait; [`shield`](super::shield()) keeps it from that. A drop lets go: a clone that goes
/// otherwise changes nothing.
pub struct Awaitable<T> {
    shared: Rc<Shared<T>>,
    /// Where its waker is among the waiters.
    place: Option<usize>,
    /// Number of the poll in which this clone was last polled.
    polled_in: Cell<u64>,
}

struct Shared<T> {
    end: OnceCell<Result<T, FutureError>>,
    waiters: RefCell<Waiters>,
}

/// A place for each clone that was polled; at most as many as there were clones at a time.
#[derive(Default)]
struct Waiters {
    places: Vec<Place>,
    free: Option<usize>,
}

enum Place {
    /// With the next one that is free.
    Free(Option<usize>),
    Taken(Waker),
}

impl Waiters {
    fn add(&mut self, waker: Waker) -> usize {
        let Some(at) = self.free else {
            self.places.push(Place::Taken(waker));
            return self.places.len() - 1;
        };
        if let Place::Free(next) = std::mem::replace(&mut self.places[at], Place::Taken(waker)) {
            self.free = next;
        }
        at
    }

    fn remove(&mut self, at: usize) -> Place {
        let next = self.free.replace(at);
        std::mem::replace(&mut self.places[at], Place::Free(next))
    }
}

impl<T> Shared<T> {
    /// Sets how it ended, and wakes everybody. Gives the end back if it is not the first.
    fn end(&self, end: Result<T, FutureError>) -> Result<(), Result<T, FutureError>> {
        self.end.set(end)?;
        // Places are not looked at again once there is an end.
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        for place in waiters.places {
            if let Place::Taken(waker) = place {
                wake(waker);
            }
        }
        Ok(())
    }

    fn is_cancelled(&self) -> bool {
        matches!(self.end.get(), Some(Err(FutureError::Cancelled)))
    }
}

impl<T> Completer<T> {
    /// Gives the value.
    ///
    /// # Errors
    /// [`CompleteError`] with the value, if there is one already or the future was cancelled.
    pub fn complete(&self, value: T) -> Result<(), CompleteError<T>> {
        match self.0.end(Ok(value)) {
            Ok(()) => Ok(()),
            Err(Ok(value)) => Err(CompleteError { value, cancelled: self.is_cancelled() }),
            Err(Err(_)) => unreachable!("an end that was refused is the one that was offered"),
        }
    }

    /// Cancels the future: those who wait get [`FutureError::Cancelled`]. `false` if it has ended already.
    pub fn cancel(&self) -> bool {
        self.0.end(Err(FutureError::Cancelled)).is_ok()
    }

    /// Whether it has a value or was cancelled.
    pub fn is_done(&self) -> bool {
        self.0.end.get().is_some()
    }

    /// Whether it was cancelled, by either end or by a cancel of an awaiter.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl<T> Drop for Completer<T> {
    fn drop(&mut self) {
        let _done_before = self.0.end(Err(FutureError::Abandoned));
    }
}

impl<T> Awaitable<T> {
    /// Whether it has ended: with a value, cancelled, or abandoned.
    pub fn is_done(&self) -> bool {
        self.shared.end.get().is_some()
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled()
    }

    /// How it ended, without waiting.
    pub fn peek(&self) -> Option<Result<&T, FutureError>> {
        self.shared.end.get().map(|end| end.as_ref().map_err(|e| *e))
    }

    /// Cancels the future, for all who wait. `false` if it has ended already.
    pub fn cancel(&self) -> bool {
        self.shared.end(Err(FutureError::Cancelled)).is_ok()
    }

    /// A cancel of whoever polled this last does not pass on.
    pub(super) fn forget_await(&self) {
        self.polled_in.set(0);
    }

    /// Leaves `waker` among the waiters, in its own place.
    fn wait(&mut self, waker: &Waker) {
        let known = self.place.is_some_and(|at| match &self.shared.waiters.borrow().places[at] {
            Place::Taken(old) => old.will_wake(waker),
            Place::Free(_) => false,
        });
        if known {
            return;
        }
        let fresh = waker.clone();
        if self.is_done() {
            // Cloning a waker is its maker's code, which may have completed this.
            return;
        }
        let mut waiters = self.shared.waiters.borrow_mut();
        let old = self.place.map(|at| waiters.remove(at));
        self.place = Some(waiters.add(fresh));
        drop(waiters);
        contained(|| drop(old));
    }
}

impl<T> Clone for Awaitable<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), place: None, polled_in: Cell::new(0) }
    }
}

impl<T: Clone> Future for Awaitable<T> {
    type Output = Result<T, FutureError>;

    /// May be polled again after it was ready, and is ready again.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.shared.end.get().is_none() {
            this.polled_in.set(current::poll_number());
            this.wait(cx.waker());
        }
        // Also an end that came while it began to wait.
        match this.shared.end.get() {
            Some(end) => Poll::Ready(end.clone()),
            None => {
                current::note(Note::Future);
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Awaitable<T> {
    fn drop(&mut self) {
        if self.is_done() {
            return;
        }
        let own = self.place.map(|at| self.shared.waiters.borrow_mut().remove(at));
        let number = self.polled_in.get();
        if current::with_tasks(|t| t.passes_cancel_to(number)).unwrap_or(false) {
            self.cancel();
        }
        // Last: it may be a stranger's.
        contained(|| drop(own));
    }
}

impl<T> fmt::Debug for Completer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer").field("done", &self.is_done()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Awaitable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awaitable").field("done", &self.is_done()).finish_non_exhaustive()
    }
}

/// Why an [`Awaitable`] gives no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FutureError {
    /// It was cancelled.
    Cancelled,
    /// Its completer was dropped.
    Abandoned,
}

impl fmt::Display for FutureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the future was cancelled",
            Self::Abandoned => "the future's completer was dropped without a value",
        })
    }
}

impl std::error::Error for FutureError {}

/// A value came too late for its future.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CompleteError<T> {
    value: T,
    cancelled: bool,
}

impl<T> CompleteError<T> {
    /// The value that was refused.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Whether the future had been cancelled; else it had a value.
    pub fn was_cancelled(&self) -> bool {
        self.cancelled
    }
}

impl<T> fmt::Debug for CompleteError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompleteError({self})")
    }
}

impl<T> fmt::Display for CompleteError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.cancelled {
            "the future was cancelled"
        } else {
            "the future has a value already"
        })
    }
}

impl<T> std::error::Error for CompleteError<T> {}
