//! An op with many completions whose results its handle takes one by one.
//!
//! Owns [`SeriesOp`], the contract, and [`Series`], the handle. What arrives is stored in the op itself, so
//! that it is where the completion has just been; each arrival wakes whoever waits. Dropping the handle
//! lets go of the op, as for one with a single completion: it is cancelled, and what it stored goes with it
//! at its last completion.

use std::fmt;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Driver;
use super::op::{TAKEN, explain_absence, place_of, put, take};
use super::op_slab::{Key, Shots, Slot, State, VTable};
use super::sqe::{Cqe, Sqe};
use crate::contain::let_go;
use crate::planted::{self, Fault};

/// One operation with any number of completions, each of which may bring an item.
///
/// # Safety
/// As for [`Op`](super::op::Op), until the completion without [`more`](Cqe::more). Nothing that the
/// submission named may be touched by `next`, which is called between completions; and neither `completed`
/// nor `next` may run code that is not the op's own (a waker, a destructor of a user's): they hold the op.
pub unsafe trait SeriesOp: 'static {
    /// What a completion brings.
    type Item;
    /// What the last completion says.
    type End;

    /// Makes the submission. Called once, when the op has its final place.
    fn prepare(&mut self) -> Sqe;

    /// Takes one completion. `Break` cancels the op; completions may still come after it. It must not
    /// wait.
    ///
    /// # Safety
    /// `cqe` is a completion of this op's own submission.
    unsafe fn completed(&mut self, cqe: Cqe) -> ControlFlow<()>;

    /// The oldest item that was stored.
    fn next(&mut self) -> Option<Self::Item>;

    /// The op's end, after its items.
    ///
    /// # Safety
    /// `cqe` is the last completion of this op's own submission.
    unsafe fn finish(self, cqe: Cqe) -> Self::End;
}

/// What [`Series::poll_next`] gives.
#[derive(Debug)]
pub enum Next<T, E> {
    /// One more item.
    Item(T),
    /// The op has ended, and its items are all taken.
    End(E),
}

struct Table<O>(PhantomData<O>);

impl<O: SeriesOp> Table<O> {
    const VTABLE: &'static VTable = &VTable {
        type_id: std::any::TypeId::of::<O>,
        // SAFETY: the driver calls these three only on the slot that holds this very op, the last two once
        // and at its end.
        completed: |p, c| unsafe { (*place_of::<O>(p)).completed(c) },
        // SAFETY: see `completed`.
        orphaned: |p, _| unsafe { drop(take::<O>(p)) },
        // SAFETY: see `completed`.
        discard: |p| unsafe { drop(take::<O>(p)) },
        shots: Shots::Series,
    };
}

/// A series in the kernel's hands, or ended with something left to take.
///
/// Dropping it cancels the op. Forgetting it leaks what the op holds, nothing worse.
pub struct Series<O: SeriesOp> {
    driver: Rc<Driver>,
    key: Key,
    op: PhantomData<O>,
}

impl<O: SeriesOp> Series<O> {
    /// Starts `op` on `driver`; it is submitted at the end of the tick.
    ///
    /// # Errors
    /// The op's end, if the loop is closed or has as many ops as it may.
    pub(crate) fn start(driver: &Rc<Driver>, op: O) -> Result<Self, O::End> {
        let (key, slot) = match driver.reserve(Table::<O>::VTABLE) {
            Ok(reserved) => reserved,
            // SAFETY: the op was not submitted, and this is the error made up for that.
            Err(errno) => return Err(unsafe { op.finish(Cqe::error(errno)) }),
        };
        // SAFETY: the slot is free and for an op of this table; nobody else looks at its bytes until the
        // submission has been made.
        driver.submit(key, slot, unsafe {
            put(slot.payload(), op);
            || (*place_of::<O>(slot.payload())).prepare()
        });
        Ok(Self { driver: driver.clone(), key, op: PhantomData })
    }

    /// Ready with the next item, or with the op's end once it has ended and its items are taken.
    ///
    /// # Panics
    /// After it gave the end; and if the loop was closed past its grace with this op still in flight.
    #[inline]
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<O::Item, O::End>> {
        let Some(slot) = self.driver.slots.get(self.key) else { explain_absence(self.key) };
        if planted::is(Fault::DroppedReceive, 4) && slot.state.get() == State::Done {
            return Poll::Ready(Next::End(self.end()));
        }
        if let Some(item) = Self::next_of(slot) {
            return Poll::Ready(Next::Item(item));
        }
        if slot.state.get() != State::Done {
            let known = slot.waker.take();
            if known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                slot.waker.set(known);
                slot.pends();
                return Poll::Pending;
            }
            drop(known);
            let fresh = cx.waker().clone();
            // Cloning and dropping a foreign waker runs its code, which may have driven the loop of this op.
            if let Some(item) = Self::next_of(slot) {
                return Poll::Ready(Next::Item(item));
            }
            if slot.state.get() != State::Done {
                slot.waker.set(Some(fresh));
                slot.pends();
                return Poll::Pending;
            }
        }
        Poll::Ready(Next::End(self.end()))
    }

    #[inline]
    fn next_of(slot: &Slot) -> Option<O::Item> {
        debug_assert_eq!((slot.vtable.get().type_id)(), std::any::TypeId::of::<O>());
        // SAFETY: the slot is of the handle's key, so it holds our `O` until `end` takes it; `completed` is
        // not running, since neither it nor `next` runs code of others.
        unsafe { (*place_of::<O>(slot.payload())).next() }
    }

    #[cold]
    fn end(&mut self) -> O::End {
        let slot = self.driver.slots.get(self.key).expect("looked up by the caller");
        let cqe = slot.cqe();
        // SAFETY: the slot is Done and of this handle's key, so it holds our `O`, which nobody reads again:
        // the slot is freed in the next line.
        let op = unsafe { take::<O>(slot.payload()) };
        let waker = self.driver.slots.free_slot(self.key, slot);
        self.key.index = TAKEN;
        drop(waker);
        // SAFETY: the last completion of this op, which was stored in its own slot.
        unsafe { op.finish(cqe) }
    }

    /// Asks the kernel to end the op soon; items and the end still come through
    /// [`poll_next`](Self::poll_next). Asking twice, or after the end, does nothing. Neither waits nor parks.
    pub fn cancel(&self) {
        self.driver.cancel(self.key);
    }

    #[cold]
    fn let_go(&mut self) {
        let Some(slot) = self.driver.slots.get(self.key) else { return };
        if slot.state.get() != State::Done {
            slot.orphan.set(true);
            // Asked before the waker's destructor runs, which is anybody's code.
            self.driver.cancel(self.key);
            let_go(slot.waker.take());
            return;
        }
        // SAFETY: as in `end`.
        let op = unsafe { take::<O>(slot.payload()) };
        let_go(self.driver.slots.free(self.key));
        // Maybe while a panic unwinds.
        self.driver.metrics.hook(|| drop(op));
    }
}

impl<O: SeriesOp> Drop for Series<O> {
    #[inline]
    fn drop(&mut self) {
        if self.key.index != TAKEN {
            self.let_go();
        }
    }
}

impl<O: SeriesOp> fmt::Debug for Series<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Series").field("key", &self.key).finish_non_exhaustive()
    }
}
