//! One task in memory: header, then its future, then, in the same place, its result.
//!
//! Owns the life of a task:
//! ```text
//! Future --poll: ready-----> dropped -> Result(Ok)        --taken or dropped--> Empty
//!                      (but Result(Cancelled) if it was cancelled in that poll)
//!        --poll: panics----> dropped -> Result(Panicked)
//!        --cancel, next turn-> dropped -> Result(Cancelled)
//! ```
//! The block is freed when the stage is a result (or empty) and no handle is left. Header flags: DONE (the
//! stage is a result), TAKEN (and it is empty), HANDLE (a join handle exists), CANCEL (drop the future at
//! the next turn), CANCELLED (it ended by a cancel), FAILED (it ended by a panic), SEEN (somebody looked at
//! the result), FALLIBLE (an `Err` is a failure too), NAMED (the table has a name for it). The bits behind
//! these are the place of its queue. A failure that is neither taken nor seen is reported
//! when the task is freed. Knows the table only through [`Tasks`].

use std::alloc::Layout;
use std::cell::{Cell, UnsafeCell};
use std::fmt::Display;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, needs_drop, offset_of};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::{NonNull, null};
use std::task::{Context, Poll};

use super::blocks::Class;
use super::current;
use super::info::Note;
use super::join::JoinError;
use super::joiner::{Joiner, JoinerKind};
use super::queues::QUEUES_MAX;
use super::table::Tasks;
use super::waker::Word;
use crate::contain::contained;

pub(crate) const DONE: u16 = 1 << 0;
pub(crate) const TAKEN: u16 = 1 << 1;
pub(crate) const HANDLE: u16 = 1 << 2;
pub(crate) const CANCEL: u16 = 1 << 3;
pub(crate) const CANCELLED: u16 = 1 << 4;
pub(crate) const FAILED: u16 = 1 << 5;
pub(crate) const SEEN: u16 = 1 << 6;
pub(crate) const FALLIBLE: u16 = 1 << 7;
pub(crate) const NAMED: u16 = 1 << 8;

/// Where a task's queue begins among its flags: 6 bits, see `super::queues`.
const QUEUE_SHIFT: u32 = 9;

const _: () = assert!(QUEUES_MAX << QUEUE_SHIFT <= 1 << 15, "a queue's place fits");

/// The flags of a task of this queue.
fn queue_flags(queue: u8) -> u16 {
    u16::from(queue) << QUEUE_SHIFT
}

pub(crate) struct Header {
    vtable: &'static VTable,
    /// Its name in the whole process, and what its waker is while it has not ended.
    pub(crate) word: Word,
    flags: Cell<u16>,
    /// What its last poll ended at, if it said so.
    pub(crate) note: Cell<Note>,
    /// What `joiner` is.
    pub(super) joiner_kind: Cell<JoinerKind>,
    /// When it was spawned, see [`Tasks::set_time`].
    pub(crate) spawned: u32,
    pub(crate) spawned_at: &'static Location<'static>,
    /// Who spawned it: the task that ran then, or the main future.
    pub(crate) parent: Word,
    /// Number of the last poll of this task: see [`Word::polls_begin_after`]. Once it has ended: a number
    /// that tells in which order tasks ended.
    pub(crate) last_poll: Cell<u64>,
    /// Whom to tell of the end: see `super::joiner`.
    pub(super) joiner: Cell<*const ()>,
}

const _: () = assert!(size_of::<Header>() == 56, "every task has one");

struct VTable {
    layout: Layout,
    class: Class,
    /// The task may be gone after either of the two.
    poll: unsafe fn(NonNull<Header>, &Tasks),
    end: unsafe fn(NonNull<Header>, &Tasks, JoinError),
    /// Where the result lies behind the header's begin.
    stage: usize,
    drop_result: unsafe fn(NonNull<Header>),
    /// Whether a value of the task has anything to drop.
    drops: bool,
    /// What the result says that went wrong, for when nobody took it.
    failure: unsafe fn(NonNull<Header>) -> Option<Failure>,
}

/// How a task went wrong, as text.
pub(super) enum Failure {
    Panicked(String),
    Failed(String),
}

/// What a task is given at its birth.
pub(super) struct Birth {
    pub(super) word: Word,
    pub(super) parent: Word,
    pub(super) at: &'static Location<'static>,
    pub(super) mark: Mark,
}

/// What tasks of one moment and one queue begin with, in the order of a header's fields: it is written as
/// one word.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Mark {
    /// In the units of [`Tasks::set_time`].
    pub(super) spawned: u32,
    flags: u16,
    note: Note,
    joiner_kind: JoinerKind,
}

impl Mark {
    pub(super) fn new(spawned: u32, queue: u8) -> Self {
        let flags = HANDLE | queue_flags(queue);
        Self { spawned, flags, note: Note::Nothing, joiner_kind: JoinerKind::Nobody }
    }

    /// The same at another time.
    pub(super) fn at(self, spawned: u32) -> Self {
        Self { spawned, ..self }
    }
}

/// How a result is judged when nobody took it.
pub(crate) trait Judge<T> {
    const FLAGS: u16;

    fn error(value: &T) -> Option<String>;
}

/// A value is a value, whatever it says.
pub(crate) struct AnyValue;

impl<T> Judge<T> for AnyValue {
    const FLAGS: u16 = 0;

    fn error(_: &T) -> Option<String> {
        None
    }
}

/// An `Err` is a failure.
pub(crate) struct ErrIsFailure;

impl<T, E: Display> Judge<Result<T, E>> for ErrIsFailure {
    const FLAGS: u16 = FALLIBLE;

    fn error(value: &Result<T, E>) -> Option<String> {
        value.as_ref().err().map(E::to_string)
    }
}

#[repr(C)]
pub(crate) struct TaskCell<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

union Stage<F: Future> {
    future: ManuallyDrop<F>,
    result: ManuallyDrop<Result<F::Output, JoinError>>,
}

impl Header {
    /// Polls so far, the one under way among them; not known once it has ended.
    pub(crate) fn polls(&self) -> Option<u64> {
        (!self.has(DONE)).then(|| self.word.polls_up_to(self.last_poll.get()))
    }

    /// The place of its queue.
    pub(crate) fn queue(&self) -> u8 {
        (self.flags.get() >> QUEUE_SHIFT) as u8 & (QUEUES_MAX - 1) as u8
    }

    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags.get() & flag != 0
    }

    /// Whether it has ended, and nobody took its result.
    #[inline]
    pub(crate) fn has_result(&self) -> bool {
        self.flags.get() & (DONE | TAKEN) == DONE
    }

    pub(crate) fn set(&self, flag: u16) {
        self.flags.set(self.flags.get() | flag);
    }

    pub(crate) fn clear(&self, flag: u16) {
        self.flags.set(self.flags.get() & !flag);
    }
}

/// The table of a task whose result `J` judges.
struct TableOf<F, J>(PhantomData<(F, J)>);

impl<F: Future + 'static, J: Judge<F::Output>> TableOf<F, J> {
    const VTABLE: &'static VTable = &VTable {
        layout: TaskCell::<F>::LAYOUT,
        class: TaskCell::<F>::CLASS,
        // SAFETY: a header with this table is the head of a `TaskCell<F>`, here and below.
        poll: |h, tasks| unsafe { TaskCell::<F>::poll(h.cast(), tasks) },
        // SAFETY: see `poll`.
        end: |h, tasks, error| unsafe { TaskCell::<F>::end(h.cast(), tasks, error) },
        stage: offset_of!(TaskCell<F>, stage),
        // SAFETY: see `poll`; the caller knows that the stage is a result.
        drop_result: |h| unsafe { ManuallyDrop::drop(&mut (*stage_of::<F>(h)).result) },
        drops: needs_drop::<F::Output>(),
        // SAFETY: see `drop_result`. An error's `Display` is the user's code, but nobody else has a way to
        // this result any more.
        failure: |h| match unsafe { &*(*stage_of::<F>(h)).result } {
            Ok(value) => J::error(value).map(Failure::Failed),
            Err(e) => e.is_panic().then(|| Failure::Panicked(e.message().to_owned())),
        },
    };
}

/// # Safety
/// `task` is the head of a live `TaskCell<F>`.
unsafe fn stage_of<F: Future>(task: NonNull<Header>) -> *mut Stage<F> {
    // SAFETY: as the caller promises.
    unsafe { task.cast::<TaskCell<F>>().as_ref() }.stage.get()
}

impl<F: Future + 'static> TaskCell<F> {
    pub(super) const LAYOUT: Layout = Layout::new::<Self>();
    /// Of the memory that it lies in.
    pub(super) const CLASS: Class = Class::of(Self::LAYOUT);

    /// Writes a fresh task.
    ///
    /// # Safety
    /// `place` is unused memory of [`LAYOUT`](Self::LAYOUT).
    pub(super) unsafe fn write<J: Judge<F::Output>>(
        place: NonNull<u8>,
        birth: &Birth,
        future: F,
    ) -> NonNull<Header> {
        let header = Header {
            vtable: TableOf::<F, J>::VTABLE,
            word: birth.word,
            flags: Cell::new(birth.mark.flags | J::FLAGS),
            note: Cell::new(birth.mark.note),
            spawned: birth.mark.spawned,
            spawned_at: birth.at,
            parent: birth.parent,
            last_poll: Cell::new(birth.word.polls_begin_after()),
            joiner: Cell::new(null()),
            joiner_kind: Cell::new(birth.mark.joiner_kind),
        };
        let cell = place.cast::<Self>().as_ptr();
        // Part by part: without optimisations a whole cell is moved several times, and futures are large.
        // SAFETY: the caller gives memory of the right size and alignment; the stage begins as the future.
        unsafe {
            (&raw mut (*cell).header).write(header);
            let stage = UnsafeCell::raw_get(&raw const (*cell).stage);
            (&raw mut (*stage).future).cast::<F>().write(future);
        }
        place.cast()
    }

    /// # Safety
    /// `cell` is a live task whose stage is its future, on its own thread, and it is not being polled.
    pub(super) unsafe fn poll(cell: NonNull<Self>, tasks: &Tasks) {
        // SAFETY: live until `finish` frees it.
        let this = unsafe { cell.as_ref() };
        let waker = this.header.word.waker();
        // SAFETY: the stage is the future; it is never moved until dropped in place, and this is the only
        // reference to it (a task is polled by its loop alone, never from within itself: `Tasks::run` is
        // not reentered for a slot that it is running).
        let future = unsafe { Pin::new_unchecked(&mut *(*this.stage.get()).future) };
        let polled = future.poll(&mut Context::from_waker(&waker));
        tasks.polled();
        let Poll::Ready(value) = polled else { return };
        // SAFETY: as the caller promised.
        unsafe {
            if this.header.has(CANCEL) {
                Self::end(cell, tasks, Self::refused(value));
            } else {
                Self::finish(cell, tasks, value);
            }
        }
    }

    /// The result of a task that was cancelled in its last poll: nobody finishes in spite of a cancel.
    #[cold]
    fn refused(value: F::Output) -> JoinError {
        match catch_unwind(AssertUnwindSafe(|| drop(value))) {
            Ok(()) => JoinError::cancelled(),
            Err(payload) => JoinError::panicked(payload),
        }
    }

    /// Drops the future, leaves its value, tells the joiner or frees the task.
    ///
    /// # Safety
    /// As [`poll`](Self::poll).
    #[inline]
    unsafe fn finish(cell: NonNull<Self>, tasks: &Tasks, value: F::Output) {
        // SAFETY: live until freed below.
        let this = unsafe { cell.as_ref() };
        tasks.move_generation_on(this.header.word.slot());
        // Nothing to drop is nothing to catch.
        if needs_drop::<F>() {
            // SAFETY: as the caller promised, and the generation has moved on.
            let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { this.drop_future() }));
            if let Err(payload) = dropped {
                contained(|| drop(value));
                // SAFETY: the future is gone.
                return unsafe { Self::leave_error(cell, tasks, JoinError::panicked(payload)) };
            }
            // Its destructor may have cancelled the task itself, which had not ended.
            if this.header.has(CANCEL) {
                // SAFETY: the future is gone.
                return unsafe { Self::leave_error(cell, tasks, Self::refused(value)) };
            }
        }
        if !this.header.has(HANDLE | FALLIBLE | NAMED) && !needs_drop::<F::Output>() {
            // Nobody can look at the value, and there is nothing to it: the commonest end of all.
            this.header.set(DONE | TAKEN);
            std::mem::forget(value);
            // SAFETY: done, and no handle is left, nor a joiner, who has one; it has no name.
            unsafe { tasks.release_nameless(cell.cast(), Self::CLASS, Self::LAYOUT) };
            return;
        }
        // SAFETY: the future is gone.
        unsafe { Self::leave(cell, tasks, Ok(value), 0) };
    }

    /// Drops the future, leaves an error instead of a value, tells the joiner or frees the task.
    ///
    /// # Safety
    /// As [`poll`](Self::poll).
    #[cold]
    unsafe fn end(cell: NonNull<Self>, tasks: &Tasks, error: JoinError) {
        // SAFETY: live until freed in `leave_error`.
        let this = unsafe { cell.as_ref() };
        tasks.move_generation_on(this.header.word.slot());
        let mark = error.is_cancelled().then(|| tasks.mark_cancelling(this.header.last_poll.get()));
        // SAFETY: as the caller promised, and the generation has moved on.
        let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { this.drop_future() }));
        drop(mark);
        let error = match dropped {
            Ok(()) => error,
            Err(payload) => {
                contained(|| drop(error));
                JoinError::panicked(payload)
            }
        };
        // SAFETY: the future is gone.
        unsafe { Self::leave_error(cell, tasks, error) };
    }

    /// # Safety
    /// The stage is the future, whose poll is over and whose generation has moved on. It is dropped once:
    /// nothing polls it any more, and the DONE flag is not set, so no handle reads a result.
    unsafe fn drop_future(&self) {
        // SAFETY: as the caller promised.
        unsafe { ManuallyDrop::drop(&mut (*self.stage.get()).future) }
    }

    /// # Safety
    /// As [`leave`](Self::leave).
    #[cold]
    unsafe fn leave_error(cell: NonNull<Self>, tasks: &Tasks, error: JoinError) {
        let how = if error.is_panic() { FAILED } else { CANCELLED };
        tasks.note_end(how == FAILED);
        // SAFETY: as the caller promised.
        unsafe { Self::leave(cell, tasks, Err(error), how) };
    }

    /// Leaves the result where the future was, tells the joiner or frees the task.
    ///
    /// # Safety
    /// `cell` is a live task whose future was dropped, and which is not DONE.
    #[inline]
    unsafe fn leave(
        cell: NonNull<Self>,
        tasks: &Tasks,
        result: Result<F::Output, JoinError>,
        how: u16,
    ) {
        // SAFETY: live until freed below.
        let this = unsafe { cell.as_ref() };
        this.header.last_poll.set(current::next_number());
        // SAFETY: the future is gone and the place is large enough for either.
        unsafe { (*this.stage.get()).result = ManuallyDrop::new(result) };
        this.header.set(DONE | how);
        if this.header.has(HANDLE) {
            // The handle's owner may free the task from within this wake; it is not touched afterwards.
            if let Some(word) = this.header.take_joined_by() {
                tasks.tell_task(word);
            } else if let Some(joiner) = this.header.take_joiner() {
                tasks.tell(cell.cast(), joiner);
            }
        } else {
            // SAFETY: done, and no handle is left.
            unsafe { free(cell.cast(), tasks) };
        }
    }
}

/// Polls a task. A panic of its future goes through; the task is to be ended then.
///
/// # Safety
/// `task` is live, not DONE, on its own thread, and not being polled.
#[inline]
pub(super) unsafe fn poll(task: NonNull<Header>, tasks: &Tasks) {
    // SAFETY: the table belongs to this very cell.
    unsafe { (task.as_ref().vtable.poll)(task, tasks) }
}

/// Ends a task with `error` instead of a value.
///
/// # Safety
/// As [`poll`].
pub(super) unsafe fn end(task: NonNull<Header>, tasks: &Tasks, error: JoinError) {
    // SAFETY: as in `poll`.
    unsafe { (task.as_ref().vtable.end)(task, tasks, error) }
}

/// Moves the result out.
///
/// # Safety
/// `task` is live and DONE, not TAKEN, and its output type is `T`.
pub(super) unsafe fn take_result<T>(task: NonNull<Header>) -> Result<T, JoinError> {
    // SAFETY: the stage is a result of this type; TAKEN keeps everybody from reading it again.
    unsafe {
        task.as_ref().set(TAKEN);
        result_of(task).read()
    }
}

/// Where the result lies.
///
/// # Safety
/// As [`take_result`]; the caller bounds how long it is looked at.
pub(super) unsafe fn peek_result<T>(task: NonNull<Header>) -> NonNull<Result<T, JoinError>> {
    // SAFETY: the stage is a result of this type.
    unsafe { result_of(task) }
}

/// # Safety
/// `task` is live, and its output type is `T`. No reference is made: others may look.
unsafe fn result_of<T>(task: NonNull<Header>) -> NonNull<Result<T, JoinError>> {
    // SAFETY: the stage lies within the task's cell.
    unsafe { task.byte_add(task.as_ref().vtable.stage).cast() }
}

/// Drops the result, if it is still there, and gives slot and memory back.
///
/// # Safety
/// `task` is live and DONE, and nobody refers to it any more.
#[inline(never)]
pub(super) unsafe fn free(task: NonNull<Header>, tasks: &Tasks) {
    // SAFETY: live until given back in the last line.
    let header = unsafe { task.as_ref() };
    if !header.has(TAKEN) || header.has(NAMED) || header.has_foreign_joiner() {
        // SAFETY: as the caller promised.
        return unsafe { free_all(task, tasks) };
    }
    // SAFETY: as the caller promised; slot and layout are this task's, and it has no name.
    unsafe { tasks.release_nameless(task, header.vtable.class, header.vtable.layout) };
}

/// As [`free`], of a task of which more than its memory may be left.
///
/// # Safety
/// As [`free`].
#[inline(never)]
unsafe fn free_all(task: NonNull<Header>, tasks: &Tasks) {
    // SAFETY: live until given back in the last line.
    let header = unsafe { task.as_ref() };
    if !header.has(TAKEN) {
        // SAFETY: as the caller promised, and the result is there.
        unsafe { drop_result(task, tasks) };
    }
    if let Some(Joiner::Other(joiner)) = header.take_joiner() {
        contained(|| drop(joiner));
    }
    // SAFETY: as the caller promised; slot and layout are this task's.
    unsafe { tasks.release(task, header.vtable.class, header.vtable.layout) };
}

/// Drops a result that nobody took.
///
/// # Safety
/// As [`free`], and the stage is a result.
unsafe fn drop_result(task: NonNull<Header>, tasks: &Tasks) {
    // SAFETY: live.
    let header = unsafe { task.as_ref() };
    if header.has(FAILED | FALLIBLE) && !header.has(SEEN) {
        // SAFETY: the stage is a result.
        unsafe { report(task, tasks) };
    }
    header.set(TAKEN);
    if header.vtable.drops || header.has(FAILED) {
        // A destructor that panics must not take the core down with it.
        // SAFETY: the stage is a result, dropped once.
        if contained(|| unsafe { (header.vtable.drop_result)(task) }).is_none() {
            tasks.note_end(true);
        }
    }
}

/// Tells of a failure that nobody took.
///
/// # Safety
/// As [`free`], and the stage is a result.
#[cold]
unsafe fn report(task: NonNull<Header>, tasks: &Tasks) {
    // SAFETY: live, and its stage is a result.
    let failure = contained(|| unsafe { (task.as_ref().vtable.failure)(task) })
        .unwrap_or_else(|| Some(Failure::Failed("(telling of the error panicked)".to_owned())));
    if let Some(failure) = failure {
        // SAFETY: live.
        tasks.report_failure(unsafe { task.as_ref() }, &failure);
    }
}
