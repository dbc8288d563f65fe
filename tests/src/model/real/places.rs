//! How an await uses what lies in a place.
//!
//! Owns the loans: handles and ends that are taken out for as long as an await lasts and then put back, those
//! that are awaited where they lie, and a limit of foreign make.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use coreloop::combine;
use coreloop::task::JoinHandle;
use coreloop::time::Sleep;

use super::awaits::joined;
use super::world::{Kept, Slot};
use crate::model::program::Out;

/// Handles that go back where they were.
pub(super) struct Lent {
    pub(super) slots: Vec<Rc<Slot>>,
    pub(super) handles: Vec<JoinHandle<Result<u32, u32>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        for (slot, handle) in self.slots.iter().zip(self.handles.drain(..)) {
            *slot.handle.borrow_mut() = Some(Kept::Task(handle));
        }
    }
}

/// An end that goes back where it was.
pub(super) struct LentEnd<'a, T> {
    home: &'a RefCell<Option<T>>,
    end: Option<T>,
}

impl<'a, T> LentEnd<'a, T> {
    pub(super) fn take(home: &'a RefCell<Option<T>>) -> Option<Self> {
        let end = home.take()?;
        Some(Self { home, end: Some(end) })
    }

    pub(super) fn get(&mut self) -> &mut T {
        self.end.as_mut().expect("there until the drop")
    }
}

impl<T> Drop for LentEnd<'_, T> {
    fn drop(&mut self) {
        *self.home.borrow_mut() = self.end.take();
    }
}

/// Awaits an end where it lies; it is busy meanwhile.
pub(super) struct InPlace<'a, F> {
    pub(super) busy: &'a Cell<bool>,
    pub(super) poll: F,
}

impl<F: FnMut(&mut Context<'_>) -> Poll<Out> + Unpin> Future for InPlace<'_, F> {
    type Output = Out;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Out> {
        (self.poll)(cx)
    }
}

impl<F> Drop for InPlace<'_, F> {
    fn drop(&mut self) {
        self.busy.set(false);
    }
}

/// A limit that knows nothing of cancels.
pub(super) struct LetGo {
    pub(super) inner: Option<Pin<Box<dyn Future<Output = Out>>>>,
    pub(super) limit: Sleep,
}

impl Future for LetGo {
    type Output = Out;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Out> {
        let inner = self.inner.as_mut().expect("not polled after its end");
        if let Poll::Ready(out) = inner.as_mut().poll(cx) {
            return Poll::Ready(out);
        }
        ready!(Pin::new(&mut self.limit).poll(cx));
        self.inner = None;
        Poll::Ready(Out::Elapsed)
    }
}

/// Awaits a handle where it lies.
pub(super) struct Awaits {
    pub(super) slot: Rc<Slot>,
    pub(super) by_value: bool,
    pub(super) shielded: bool,
}

impl Future for Awaits {
    type Output = Out;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Out> {
        let mut handle = self.slot.handle.borrow_mut();
        let polled = match handle.as_mut() {
            Some(Kept::Task(handle)) if self.shielded => {
                Pin::new(&mut combine::shield(handle)).poll(cx).map(joined)
            }
            Some(Kept::Task(handle)) => Pin::new(handle).poll(cx).map(joined),
            Some(Kept::Child(child)) => {
                Pin::new(child).poll(cx).map(|value| value.map_or(Out::ChildFailed, Out::Value))
            }
            None => unreachable!("its owner is here"),
        };
        let spent = if polled.is_ready() { handle.take() } else { None };
        drop(handle);
        drop(spent);
        polled
    }
}

impl Drop for Awaits {
    fn drop(&mut self) {
        self.slot.busy.set(false);
        let handle = if self.by_value { self.slot.handle.take() } else { None };
        drop(handle);
    }
}
