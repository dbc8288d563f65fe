//! One task's place in a set: first its handle, then what came of it.
//!
//! Owns [`Slot`] and [`Awaited`]. Handle and value take the same place, so a set is one allocation: the
//! vector of slots becomes the vector of values (`collect` reuses it; a test counts). [`Awaited`] is how a
//! set that polls only some of its handles still passes a cancel on to all.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::try_gather::TaskFailure;
use crate::task::{JoinError, JoinHandle, current};

/// Public only as far as sealed traits name it: nobody outside can.
#[derive(Debug)]
pub enum Slot<T, V> {
    Waiting(JoinHandle<T>),
    Done(V),
}

/// A place whose value is the task's whole result.
pub type ResultSlot<T> = Slot<T, Result<T, JoinError>>;

impl<T, V> Slot<T, V> {
    /// The handle of one that is waited for.
    pub(super) fn handle(&self) -> Option<&JoinHandle<T>> {
        match self {
            Self::Waiting(handle) => Some(handle),
            Self::Done(_) => None,
        }
    }

    pub(super) fn cancel(&self) {
        if let Self::Waiting(handle) = self {
            handle.cancel();
        }
    }

    /// The value of one that is done.
    ///
    /// # Panics
    /// If it is not: a set that is ready has waited for all.
    pub(super) fn into_value(self) -> V {
        match self {
            Self::Done(value) => value,
            Self::Waiting(_) => unreachable!("a set was ready before one of its tasks"),
        }
    }
}

impl<T> ResultSlot<T> {
    /// Waits for the task; whether it is done. What came of it stays with its handle for as long as it can,
    /// which reports a panic that nobody takes.
    pub(super) fn poll_done(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Waiting(handle) = self else { return true };
        if handle.is_finished() {
            handle.expect_untaken();
            return true;
        }
        let Poll::Ready(result) = Pin::new(handle).poll(cx) else { return false };
        *self = Self::Done(result);
        true
    }

    /// The result of one that is done.
    pub(super) fn into_result(self) -> Result<T, JoinError> {
        match self {
            Self::Waiting(mut handle) => handle.take_ended(),
            Self::Done(result) => result,
        }
    }
}

impl<T, E> Slot<Result<T, E>, T> {
    /// Takes the value of a task that has ended.
    pub(super) fn take_value(&mut self) -> Result<(), TaskFailure<E>> {
        match self {
            Self::Waiting(handle) => {
                let result = handle.take_ended();
                self.settle(result)
            }
            Self::Done(_) => Ok(()),
        }
    }

    /// Takes what came of the task: `Ok(true)` for a value, `Ok(false)` if it still runs.
    pub(super) fn poll_value(&mut self, cx: &mut Context<'_>) -> Result<bool, TaskFailure<E>> {
        let Self::Waiting(handle) = self else { return Ok(true) };
        match Pin::new(handle).poll(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(result) => self.settle(result).map(|()| true),
        }
    }

    /// Whether the task has ended without a value.
    pub(super) fn has_failed(&self) -> bool {
        let result = self.handle().and_then(JoinHandle::result_unseen);
        result.is_some_and(|result| !matches!(result, Ok(Ok(_))))
    }

    fn settle(&mut self, result: Result<Result<T, E>, JoinError>) -> Result<(), TaskFailure<E>> {
        match result {
            Ok(Ok(value)) => {
                *self = Self::Done(value);
                Ok(())
            }
            Ok(Err(e)) => Err(TaskFailure::Error(e)),
            Err(e) => Err(TaskFailure::Join(e)),
        }
    }
}

/// Which poll awaited a whole set last.
#[derive(Debug, Default)]
pub(super) struct Awaited(u64);

impl Awaited {
    /// The set is awaited in the poll that runs.
    pub(super) fn now(&mut self) {
        self.0 = current::poll_number();
    }

    /// Whether the drop that is under way is a cancel of whoever awaits the set.
    pub(super) fn is_cancelled(&self) -> bool {
        current::with_tasks(|t| t.passes_cancel_to(self.0)).unwrap_or(false)
    }
}
