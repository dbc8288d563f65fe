//! What an op is to the driver, and the handle of one in flight.
//!
//! Owns the [`Op`] and [`MultishotOp`] contracts, the tables through which the driver calls an op whose
//! type it has forgotten, and [`InFlight`]/[`Armed`], which tie an op in its slot to whoever waits for it.
//! Dropping a handle lets go of the op: it is cancelled in the kernel and its resources stay until the
//! completion has come.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::ControlFlow;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Driver;
use super::op_slab::{INLINE_BYTES, Key, NO_OP, NO_OP_MANY, Shots, Slot, State, VTable};
use super::sqe::{Cqe, Sqe};
use crate::contain::let_go;
use crate::planted::{self, Fault};

/// One operation with one completion.
///
/// The op value is moved into a slot that does not move, and stays there until its completion has been
/// reaped; then it comes out through [`finish`](Op::finish) if somebody still waits, or else through
/// [`orphaned`](Op::orphaned).
///
/// # Safety
/// - Every address in the [`Sqe`] that `prepare` returns points into `self` (which does not move from then
///   on) or into memory that `self` owns and that stays valid and unmoved, also if `self` is leaked.
/// - Until `completed`, `finish` or `orphaned` is called, the kernel may read or write there: what it
///   writes must not be behind a reference or a `Box` that other code can reach in the meantime.
/// - The descriptor in the submission stays open as long as `self` lives.
/// - `completed` must not move anything that the submission named.
///
/// In return the driver calls `completed`, `finish` and `orphaned` with the completion of this very op's own
/// submission (or an error that it made up because the op was never sent), and with nothing else.
pub unsafe trait Op: 'static {
    /// What awaiting the op gives.
    type Out;

    /// Makes the submission. Called once, when the op has its final place.
    fn prepare(&mut self) -> Sqe;

    /// Called when the completion is reaped, before anybody is woken, whether or not somebody waits. It
    /// must not wait; a panic is contained.
    ///
    /// # Safety
    /// `cqe` is the completion of this op's own submission.
    unsafe fn completed(&mut self, cqe: Cqe) {
        let _ = cqe;
    }

    /// The op's end, for whoever waits.
    ///
    /// # Safety
    /// `cqe` is the completion of this op's own submission.
    unsafe fn finish(self, cqe: Cqe) -> Self::Out;

    /// The op's end, its future being gone: give back what came too late. A panic is contained.
    ///
    /// # Safety
    /// `cqe` is the completion of this op's own submission.
    unsafe fn orphaned(self, cqe: Cqe)
    where
        Self: Sized,
    {
        let _ = cqe;
    }
}

/// One operation with any number of completions, each handed over as it is reaped.
///
/// # Safety
/// As for [`Op`]; the kernel holds what the submission names until a completion without
/// [`more`](Cqe::more).
pub unsafe trait MultishotOp: 'static {
    /// Makes the submission. Called once, when the op has its final place.
    fn prepare(&mut self) -> Sqe;

    /// Takes one completion; the last one is the one without [`more`](Cqe::more), after which the op is
    /// dropped. `Break` cancels the op; completions may still come after it. It must not wait; a panic is
    /// contained.
    ///
    /// # Safety
    /// `cqe` is a completion of this op's own submission.
    unsafe fn completed(&mut self, cqe: Cqe) -> ControlFlow<()>;
}

fn fits<O>() -> bool {
    size_of::<O>() <= INLINE_BYTES && align_of::<O>() <= align_of::<u64>()
}

/// # Safety
/// `place` has [`INLINE_BYTES`] writable bytes, aligned as a u64, that hold no op.
#[inline]
pub(super) unsafe fn put<O>(place: NonNull<u8>, op: O) {
    // SAFETY: an op that fits goes into the bytes themselves, any other behind a pointer that fits.
    unsafe {
        if fits::<O>() {
            place.cast::<O>().write(op);
        } else {
            place.cast::<*mut O>().write(Box::into_raw(Box::new(op)));
        }
    }
}

/// # Safety
/// `place` holds an `O` that `put` left there.
#[inline]
pub(super) unsafe fn place_of<O>(place: NonNull<u8>) -> *mut O {
    // SAFETY: the two forms of `put`.
    unsafe { if fits::<O>() { place.cast().as_ptr() } else { place.cast::<*mut O>().read() } }
}

/// # Safety
/// As [`place_of`], and nobody reads the place afterwards.
#[inline]
pub(super) unsafe fn take<O>(place: NonNull<u8>) -> O {
    // SAFETY: the two forms of `put`; the caller gives the place up.
    unsafe {
        if fits::<O>() {
            place.cast::<O>().read()
        } else {
            *Box::from_raw(place.cast::<*mut O>().read())
        }
    }
}

struct Single<O>(PhantomData<O>);

impl<O: Op> Single<O> {
    const VTABLE: &'static VTable = &VTable {
        type_id: TypeId::of::<O>,
        completed: |p, c| {
            // SAFETY: the driver calls these three only on the slot that holds this very op, the last two
            // once and at its end.
            unsafe { (*place_of::<O>(p)).completed(c) };
            ControlFlow::Continue(())
        },
        // SAFETY: see `completed`.
        orphaned: |p, c| unsafe { take::<O>(p).orphaned(c) },
        // SAFETY: see `completed`.
        discard: |p| unsafe { drop(take::<O>(p)) },
        shots: Shots::One,
    };
}

struct Multi<O>(PhantomData<O>);

impl<O: MultishotOp> Multi<O> {
    const VTABLE: &'static VTable = &VTable {
        type_id: TypeId::of::<O>,
        // SAFETY: all three as for a single op.
        completed: |p, c| unsafe { (*place_of::<O>(p)).completed(c) },
        // SAFETY: see `completed`.
        orphaned: |p, _| unsafe { drop(take::<O>(p)) },
        // SAFETY: see `completed`.
        discard: |p| unsafe { drop(take::<O>(p)) },
        shots: Shots::Many,
    };
}

/// An op that the kernel has, or will have at the end of this tick.
///
/// Dropping it cancels the op; what the op holds is given back at its completion. Forgetting it
/// ([`std::mem::forget`]) leaks what the op holds, and the driver's memory with it, nothing worse.
pub struct InFlight<O: Op> {
    driver: Rc<Driver>,
    key: Key,
    op: PhantomData<O>,
}

/// The index of a handle whose op has been taken.
pub(super) const TAKEN: u32 = u32::MAX;

/// Why the op of a handle is not to be found.
#[cold]
pub(super) fn explain_absence(key: Key) -> ! {
    assert!(key.index != TAKEN, "an op was polled after it had ended");
    panic!("the loop of this op was closed past its grace while the op was in flight");
}

impl<O: Op> InFlight<O> {
    /// Starts `op` on `driver`; it is submitted at the end of the tick, or sooner if the queue is full.
    ///
    /// `waker` is called at its end.
    ///
    /// # Errors
    /// The op's end, if the loop is closed or has as many ops as it may.
    #[inline(always)]
    pub(crate) fn start(driver: &Rc<Driver>, op: O, waker: Option<Waker>) -> Result<Self, O::Out> {
        #[cold]
        fn refuse<O: Op>(op: O, errno: i32) -> O::Out {
            // SAFETY: the op was not submitted, and this is the error made up for that.
            unsafe { op.finish(Cqe::error(errno)) }
        }
        let op = mem::ManuallyDrop::new(op);
        // SAFETY: the op is used once: in its slot, or refused. Read and not moved, so that `op` itself is
        // passed to nobody by its address, and need not be in memory before it is in its slot.
        let read = || unsafe { ptr::from_ref(&*op).read() };
        let (key, slot) = match driver.reserve(Single::<O>::VTABLE) {
            Ok(reserved) => reserved,
            Err(errno) => return Err(refuse(read(), errno)),
        };
        // A free slot has no waker whose destructor would have to run.
        let none = slot.waker.replace(waker);
        debug_assert!(none.is_none());
        mem::forget(none);
        // SAFETY: the slot is free and for an op of this table; nobody else looks at its bytes until the
        // submission has been made.
        driver.submit(key, slot, unsafe {
            put(slot.payload(), read());
            || (*place_of::<O>(slot.payload())).prepare()
        });
        Ok(Self { driver: driver.clone(), key, op: PhantomData })
    }

    /// Whether the completion is there.
    pub fn is_done(&self) -> bool {
        self.driver.slots.get(self.key).is_some_and(|slot| slot.state.get() == State::Done)
    }

    /// Ready with the op's end once it is there.
    ///
    /// # Panics
    /// After it was ready; and if the loop was closed past its grace with this op still in flight.
    #[inline]
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<O::Out> {
        let Some(slot) = self.driver.slots.get(self.key) else { explain_absence(self.key) };
        if slot.state.get() != State::Done {
            let known = slot.waker.take();
            let same = known.as_ref().is_some_and(|known| known.will_wake(cx.waker()));
            slot.waker.set(known);
            if same {
                slot.pends();
                return Poll::Pending;
            }
            let fresh = cx.waker().clone();
            // Cloning and dropping a foreign waker runs its code, which may have driven the loop of this op.
            if slot.state.get() != State::Done {
                drop(slot.waker.replace(Some(fresh)));
            }
            if slot.state.get() != State::Done {
                slot.pends();
                return Poll::Pending;
            }
        }
        debug_assert_eq!((slot.vtable.get().type_id)(), TypeId::of::<O>());
        let cqe = slot.cqe();
        // SAFETY: the slot is Done and of this handle's key, so it holds our `O`, which nobody reads again:
        // the slot is freed in the next line.
        let op = unsafe { take::<O>(slot.payload()) };
        let waker = self.driver.slots.free_slot(self.key, slot);
        self.key.index = TAKEN;
        drop(waker);
        // SAFETY: the completion that was stored in this op's own slot.
        Poll::Ready(unsafe { op.finish(cqe) })
    }

    /// Asks the kernel to end the op soon; its end still comes through [`poll`](Self::poll).
    ///
    /// This is how an op is called off by somebody who wants what it holds back: cancel, then poll on until
    /// it is ready. The completion says how it ended: as if nothing had been asked, if it was faster; in
    /// part, as a send may; or with ECANCELED, or EINTR if it had gone to a worker of the kernel's. An op
    /// of the same tick is submitted before its cancel, and may be carried out: a send with room is. One that
    /// found no room in the queue ends with ECANCELED and never reaches the kernel. Asking twice, or after
    /// the end, does nothing. Neither waits nor parks; the cancel is submitted with the tick.
    ///
    /// ```
    /// use coreloop::op::{PollOnce, Submitter};
    /// use std::os::unix::net::UnixStream;
    ///
    /// coreloop::run(async {
    ///     let (ours, _theirs) = UnixStream::pair().unwrap();
    ///     let readable = PollOnce::new(ours, libc::POLLIN as u32);
    ///     let mut op = Submitter::current().start(readable).unwrap();
    ///     op.cancel();
    ///     let ended = std::future::poll_fn(|cx| op.poll(cx)).await;
    ///     assert_eq!(ended.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    /// })
    /// .unwrap();
    /// ```
    pub fn cancel(&self) {
        self.driver.cancel(self.key);
    }
}

impl<O: Op> Drop for InFlight<O> {
    #[inline]
    fn drop(&mut self) {
        if self.key.index != TAKEN {
            self.let_go();
        }
    }
}

impl<O: Op> InFlight<O> {
    #[cold]
    fn let_go(&mut self) {
        let Some(slot) = self.driver.slots.get(self.key) else { return };
        if slot.state.get() != State::Done {
            if planted::is(Fault::CloseBeforeSubmission, 1) {
                give_up_early(slot, &NO_OP);
            }
            if planted::is(Fault::FreedInFlight, 1) {
                slot.vtable.set(&NO_OP);
                // SAFETY: none: this is the mistake, which a simulation is to find.
                drop(unsafe { take::<O>(slot.payload()) });
            }
            slot.orphan.set(true);
            // Asked before the waker's destructor runs, which is anybody's code.
            self.driver.cancel(self.key);
            let_go(slot.waker.take());
            return;
        }
        let cqe = slot.cqe();
        // SAFETY: as in `poll`.
        let op = unsafe { take::<O>(slot.payload()) };
        let_go(self.driver.slots.free(self.key));
        // Maybe while a panic unwinds; both are anybody's code.
        // SAFETY: the completion that was stored in this op's own slot.
        self.driver.metrics.hook(|| unsafe { op.orphaned(cqe) });
    }
}

impl<O: Op> fmt::Debug for InFlight<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A multishot op that is armed. Dropping it cancels the op, which still takes what arrives until its
/// last completion.
pub struct Armed {
    driver: Rc<Driver>,
    key: Key,
}

impl Armed {
    /// Starts `op` on `driver`.
    ///
    /// # Errors
    /// As [`InFlight::start`].
    pub(crate) fn start<O: MultishotOp>(driver: &Rc<Driver>, op: O) -> Result<Self, (O, i32)> {
        let (key, slot) = match driver.reserve(Multi::<O>::VTABLE) {
            Ok(reserved) => reserved,
            Err(errno) => return Err((op, errno)),
        };
        // SAFETY: as for a single op.
        driver.submit(key, slot, unsafe {
            put(slot.payload(), op);
            || (*place_of::<O>(slot.payload())).prepare()
        });
        Ok(Self { driver: driver.clone(), key })
    }

    /// Whether its last completion has not yet come.
    pub fn is_armed(&self) -> bool {
        self.driver.slots.get(self.key).is_some()
    }

    /// Asks the kernel to end the op soon.
    pub fn cancel(&self) {
        self.driver.cancel(self.key);
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        if planted::is(Fault::CloseBeforeSubmission, 2)
            && let Some(slot) = self.driver.slots.get(self.key)
        {
            give_up_early(slot, &NO_OP_MANY);
        }
        self.driver.cancel(self.key);
    }
}

impl fmt::Debug for Armed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Armed").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A planted fault: what an op holds goes with its handle, though its submission may not have gone out.
/// Its memory stays: this one is about descriptors.
fn give_up_early(slot: &Slot, nothing: &'static VTable) {
    let vtable = slot.vtable.replace(nothing);
    // SAFETY: none: this is the mistake, which a simulation is to find.
    planted::keeping_memory(|| unsafe { (vtable.discard)(slot.payload()) });
}

/// The driver's own way to end an op in `place`, for slots whose handle is gone.
///
/// # Safety
/// `place` holds an op of `vtable`, and nobody reads it afterwards.
pub(super) unsafe fn end_orphan(vtable: &VTable, place: NonNull<u8>, cqe: Cqe) {
    // The bytes are moved out first: the slot may be freed and taken again by what the op's end does.
    let mut copy = [mem::MaybeUninit::<u64>::uninit(); INLINE_BYTES / 8];
    let to = NonNull::from(&mut copy).cast::<u8>();
    // SAFETY: both places have INLINE_BYTES bytes and do not overlap; the caller gives the first one up.
    unsafe { to.copy_from_nonoverlapping(place, INLINE_BYTES) };
    // SAFETY: the op moved bytewise into `copy`, which is aligned as its slot was.
    unsafe { (vtable.orphaned)(to, cqe) };
}

/// The driver's own way to drop an op that was never submitted.
///
/// # Safety
/// As [`end_orphan`], and the kernel never saw the op.
pub(super) unsafe fn drop_unsent(vtable: &VTable, place: NonNull<u8>) {
    // SAFETY: as the caller promises.
    unsafe { (vtable.discard)(place) };
}
