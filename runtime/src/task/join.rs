//! Waiting for a task.
//!
//! Owns [`JoinHandle`] and [`JoinError`]. A handle pins its task's slot, so nothing but a wake is ever
//! addressed to a stranger. Dropping it lets the task run on, unless the drop is part of a cancel of
//! whoever was awaiting it: a cancel travels inwards through awaits.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::cell::{self, CANCEL, CANCELLED, DONE, FAILED, HANDLE, Header, NAMED, SEEN, TAKEN};
use super::current;
use super::joiner::Joiner;
use super::set::Place;
use super::table::{Tasks, home};
use super::waker::{TaskId, Word};
use crate::contain::contained;
use crate::spans::{self, Wait};

/// The handle of a spawned task: awaits its value, cancels it, asks about it.
///
/// Dropping it lets the task run on. It is `!Send`: a task and its handle stay on their core.
///
/// # Cancel safety
/// Awaiting by `&mut handle` loses nothing when dropped. If the *awaiting* task is cancelled, or loses a
/// [`timeout`](crate::time::timeout) or [`race`](crate::combine::race()), the awaited task is cancelled
/// too; a handle that was merely held is let go.
///
/// Awaited is what the awaiter's last poll has polled. So a handle that was polled by `&mut` in a race which
/// ended in that very poll still counts as awaited until the next one; and a combinator of another crate that
/// polls only those of its futures that were woken (a `FuturesUnordered`) passes a cancel on to these alone:
/// [`gather`](crate::combine::gather()) and the other sets of this crate pass it on to all.
///
/// ```
/// coreloop::run(async {
///     let task = coreloop::spawn(async { 6 * 7 });
///     assert_eq!(task.await.unwrap(), 42);
/// })
/// .unwrap();
/// ```
///
/// ```compile_fail
/// fn must_be_send<T: Send>() {}
/// must_be_send::<coreloop::task::JoinHandle<()>>();
/// ```
#[must_use = "dropping the handle lets the task run on; await it, or say `drop(handle)`"]
pub struct JoinHandle<T> {
    /// Its flag HANDLE, and a share of its loop's tasks, are this handle's. The share is not a field: a
    /// handle of two words is moved word by word, which costs a dozen nanoseconds less than as one piece.
    task: NonNull<Header>,
    /// Number of the poll in which this handle was last polled.
    polled_in: Cell<u64>,
    value: PhantomData<T>,
}

// The handle holds no `T` in place and promises nothing about addresses.
impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    pub(super) fn new(tasks: Rc<Tasks>, task: NonNull<Header>) -> Self {
        let share = Rc::into_raw(tasks);
        let handle = Self { task, polled_in: Cell::new(0), value: PhantomData };
        debug_assert!(std::ptr::eq(share, handle.home()), "a task of these");
        handle
    }

    /// The tasks of which it has a share.
    #[inline]
    fn home(&self) -> *const Tasks {
        home::of(self.header().word)
    }

    #[inline]
    fn tasks(&self) -> &Tasks {
        // SAFETY: they live while this handle has its share of them, and are what stands under their id.
        unsafe { &*self.home() }
    }

    /// A share of its loop's tasks.
    pub(super) fn share(&self) -> Rc<Tasks> {
        let home = self.home();
        // SAFETY: they live, as in `tasks`, and what is added here is the share that is given.
        unsafe {
            Rc::increment_strong_count(home);
            Rc::from_raw(home)
        }
    }

    fn header(&self) -> &Header {
        // SAFETY: the HANDLE flag keeps the task's memory while this handle lives.
        unsafe { self.task.as_ref() }
    }

    /// Whether the task has ended, by return, panic or cancel.
    pub fn is_finished(&self) -> bool {
        self.header().has(DONE)
    }

    /// Cancels the task: its future is dropped at its next turn, never within this call. `false` if it
    /// has already ended. A task that was not yet polled never runs.
    pub fn cancel(&self) -> bool {
        self.tasks().cancel(self.task)
    }

    /// Whether a cancel was asked for and the task has not ended yet.
    pub fn is_cancelling(&self) -> bool {
        self.header().has(CANCEL) && !self.is_finished()
    }

    /// Whether the task has ended by a cancel: its own, its awaiter's, or that of its loop's end. Its
    /// destructors have run then.
    ///
    /// ```
    /// coreloop::run(async {
    ///     let mut task = coreloop::spawn(std::future::pending::<()>());
    ///     task.cancel();
    ///     assert!(!task.is_cancelled(), "not before it is gone");
    ///     assert!((&mut task).await.is_err());
    ///     assert!(task.is_cancelled());
    /// })
    /// .unwrap();
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.header().has(CANCELLED)
    }

    /// The result, without taking it: none if the task runs, or if somebody took it already. A failure that
    /// was looked at like this counts as taken, and is not reported.
    ///
    /// ```
    /// coreloop::run(async {
    ///     let task = coreloop::spawn(async { 7 });
    ///     assert!(task.try_result().is_none(), "it starts at the next turn");
    ///     coreloop::yield_now().await;
    ///     assert!(matches!(task.try_result(), Some(Ok(7))));
    ///     assert_eq!(task.await.unwrap(), 7);
    /// })
    /// .unwrap();
    /// ```
    pub fn try_result(&self) -> Option<&Result<T, JoinError>> {
        let result = self.result_unseen();
        if result.is_some() {
            self.header().set(SEEN);
        }
        result
    }

    /// As [`try_result`](Self::try_result), by somebody who does not tell the user of a failure.
    pub(crate) fn result_unseen(&self) -> Option<&Result<T, JoinError>> {
        if !self.header().has_result() {
            return None;
        }
        // SAFETY: live, DONE, not TAKEN, and spawned with this output type. Taking the result needs this
        // handle mutably or by value, and nobody else moves it while the handle lives.
        Some(unsafe { cell::peek_result(self.task).as_ref() })
    }

    /// Whether it has ended by a panic.
    pub(crate) fn has_panicked(&self) -> bool {
        self.header().has(FAILED)
    }

    /// Tells in which order tasks of this thread ended; only for one that has.
    pub(crate) fn ended_at(&self) -> u64 {
        self.header().last_poll.get()
    }

    /// Wakes `waker` at the end of the task, instead of whoever was waiting before. Unlike an await this
    /// passes no cancel on.
    #[inline]
    pub(crate) fn watch(&self, waker: &Waker) {
        let header = self.header();
        if let Some(word) = Word::of_waker(waker) {
            let_go_of(header.replace_joiner(Some(Joiner::Task(word))));
            return;
        }
        self.watch_by_other(waker);
    }

    /// As [`watch`](Self::watch), by a stranger.
    #[cold]
    fn watch_by_other(&self, waker: &Waker) {
        let header = self.header();
        let known = header.take_joiner();
        if matches!(&known, Some(Joiner::Other(known)) if known.will_wake(waker)) {
            header.replace_joiner(known);
            return;
        }
        let old = header.replace_joiner(Some(Joiner::Other(Box::new(waker.clone()))));
        let_go_of(known);
        let_go_of(old);
        // Cloning a foreign waker runs its code, which may have driven the loop to this task's end.
        if header.has(DONE)
            && let Some(joiner) = header.take_joiner()
        {
            self.tasks().tell(self.task, joiner);
        }
    }

    /// Has `joiner` told of the end instead of whoever was waiting before.
    pub(super) fn set_joiner(&self, joiner: Joiner) {
        let_go_of(self.header().replace_joiner(Some(joiner)));
    }

    /// Nobody waits any more, if it was a set that did and `is_mine` says so of the place in it.
    pub(super) fn clear_place_if(&self, is_mine: impl Fn(Place) -> bool) {
        let known = self.header().take_joiner();
        if !matches!(known, Some(Joiner::Place(place)) if is_mine(place)) {
            self.header().replace_joiner(known);
        }
    }

    /// The end of a handle of a task that has not ended, and is waited for.
    #[inline(never)]
    fn let_go(&self) {
        let header = self.header();
        let number = self.polled_in.get();
        if number != 0 && current::with_tasks(|t| t.passes_cancel_to(number)).unwrap_or(false) {
            self.tasks().cancel(self.task);
        }
        let joiner = header.take_joiner();
        header.clear(HANDLE);
        // Last: the task may end, and be gone, within a stranger's destructor.
        let_go_of(joiner);
    }

    /// Whether the tasks of both are on the same loop.
    pub(crate) fn is_on_loop_of<U>(&self, other: &JoinHandle<U>) -> bool {
        std::ptr::eq(self.home(), other.home())
    }

    /// A cancel of whoever polled this last does not pass on.
    pub(crate) fn forget_await(&self) {
        self.polled_in.set(0);
    }

    /// Keeps a task that was spawned just now out of the run queue, until the waker that this gives wakes it.
    pub(crate) fn await_wake(&self) -> Waker {
        let slot = self.header().word.slot();
        self.tasks().unschedule_last(slot);
        Waker::clone(&self.tasks().word_of(slot).waker())
    }

    /// Names the task without keeping it.
    pub(crate) fn canceller(&self) -> Canceller {
        let header = self.header();
        Canceller { tasks: self.share(), word: header.word }
    }

    /// The result, if the task has ended and nobody took it yet.
    #[inline]
    pub fn try_take(&mut self) -> Option<Result<T, JoinError>> {
        if !self.header().has_result() {
            return None;
        }
        // SAFETY: live, DONE, not TAKEN, and spawned with this output type.
        Some(unsafe { cell::take_result(self.task) })
    }

    /// The result of a task that has ended.
    ///
    /// # Panics
    /// If it was taken already, as an await does.
    pub(crate) fn take_ended(&mut self) -> Result<T, JoinError> {
        self.expect_untaken();
        self.try_take().expect("the task has ended")
    }

    /// # Panics
    /// As [`take_ended`](Self::take_ended).
    pub(crate) fn expect_untaken(&self) {
        assert!(!self.header().has(TAKEN), "{TAKEN_BEFORE}");
    }

    /// The task's id, the same as [`current_id`](crate::task::current_id) gives within it.
    pub fn id(&self) -> TaskId {
        TaskId::of(self.header().word)
    }

    /// The name that the task was given, if it was and has not ended.
    pub fn name(&self) -> Option<Arc<str>> {
        if self.is_finished() {
            return None;
        }
        self.tasks().name(self.header().word.slot())
    }

    pub(crate) fn rename(&self, name: Arc<str>) {
        if !self.is_finished() {
            self.header().set(NAMED);
            self.tasks().set_name(self.header().word.slot(), name);
        }
    }
}

/// Drops who waited, which is a stranger's code if it is a stranger's waker.
#[inline]
fn let_go_of(joiner: Option<Joiner>) {
    #[cold]
    #[inline(never)]
    fn stranger(waker: Box<Waker>) {
        contained(|| drop(waker));
    }
    if let Some(Joiner::Other(waker)) = joiner {
        stranger(waker);
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If the result was taken already, by an earlier await or by [`try_take`](JoinHandle::try_take).
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(result) = this.try_take() {
            return Poll::Ready(result);
        }
        let header = this.header();
        assert!(!header.has(TAKEN), "{TAKEN_BEFORE}");
        this.polled_in.set(current::poll_number());
        this.watch(cx.waker());
        spans::pends(|| Wait::Task);
        Poll::Pending
    }
}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the share that `new` kept, given back once. Last of all: it may be the last one.
        let tasks = unsafe { Rc::from_raw(self.home()) };
        let header = self.header();
        if header.has(DONE) {
            header.clear(HANDLE);
            // SAFETY: done, and this was the handle.
            unsafe { cell::free(self.task, &tasks) };
        } else if self.polled_in.get() == 0 && !header.has_joiner() {
            header.clear(HANDLE);
        } else {
            self.let_go();
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("slot", &self.header().word.slot())
            .field("finished", &self.is_finished())
            .finish()
    }
}

const TAKEN_BEFORE: &str = "a JoinHandle was polled after its result was taken";

/// Cancels a task without owning its handle.
pub(crate) struct Canceller {
    tasks: Rc<Tasks>,
    word: Word,
}

impl Canceller {
    /// Cancels the task, unless it has ended.
    pub(crate) fn cancel(&self) {
        self.tasks.cancel_named(self.word);
    }
}

/// Why a task gave no value.
///
/// One word that is not zero: where the result of a task lies there is room for it beside a small value, and
/// a task without a value takes no more for it than a word.
pub struct JoinError {
    /// Of a panic: out of `Box::into_raw`, and this one's own. Of a cancel: the address of [`CANCEL_MARK`].
    why: NonNull<Payload>,
    owns: PhantomData<Payload>,
}

/// What a task panicked with; a cancel has none.
struct Payload(Box<dyn Any + Send>);

const _: () = assert!(size_of::<Result<(), JoinError>>() == size_of::<usize>());

/// Nothing but an address that no box has.
static CANCEL_MARK: u64 = 0;

// SAFETY: it owns a boxed payload, which is `Send`, or nothing.
unsafe impl Send for JoinError {}

// SAFETY: through a shared reference a panic's payload is looked at only as `&'static str` or `String`
// (`panic_message`), both of which are Sync; any other type is merely held, and moved out by value.
unsafe impl Sync for JoinError {}

impl JoinError {
    fn new(why: NonNull<Payload>) -> Self {
        Self { why, owns: PhantomData }
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(NonNull::from(&CANCEL_MARK).cast())
    }

    pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        let why = Box::into_raw(Box::new(Payload(payload)));
        // SAFETY: a box is at no null address.
        Self::new(unsafe { NonNull::new_unchecked(why) })
    }

    fn payload(&self) -> Option<&Payload> {
        if self.is_cancelled() {
            return None;
        }
        // SAFETY: what is not a cancel's mark came out of a box, which this value owns.
        Some(unsafe { self.why.as_ref() })
    }

    /// It was cancelled, by a handle, by a cancel of its awaiter, or by the end of its loop.
    pub fn is_cancelled(&self) -> bool {
        self.why == NonNull::from(&CANCEL_MARK).cast()
    }

    /// It panicked, or its destructor did.
    pub fn is_panic(&self) -> bool {
        !self.is_cancelled()
    }

    /// What it panicked with, fit for [`std::panic::resume_unwind`]; none if it was cancelled.
    pub fn into_panic(self) -> Option<Box<dyn Any + Send>> {
        let this = ManuallyDrop::new(self);
        // SAFETY: what is not a cancel's mark came out of a box; this value owned it and is gone.
        this.is_panic().then(|| unsafe { Box::from_raw(this.why.as_ptr()) }.0)
    }

    /// What went wrong, for a report.
    pub(super) fn message(&self) -> &str {
        match self.payload() {
            None => "it was cancelled",
            Some(_) => self.panic_message().unwrap_or("with something else than text"),
        }
    }

    /// The panic's message, if it is text.
    pub fn panic_message(&self) -> Option<&str> {
        let Payload(payload) = self.payload()?;
        let text = payload.downcast_ref::<&str>().copied();
        text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinError({self})")
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload() {
            None => f.write_str("the task was cancelled"),
            Some(_) => match self.panic_message() {
                Some(text) => write!(f, "the task panicked: {text}"),
                None => f.write_str("the task panicked"),
            },
        }
    }
}

impl std::error::Error for JoinError {}

impl Drop for JoinError {
    fn drop(&mut self) {
        if self.is_panic() {
            // SAFETY: what is not a cancel's mark came out of a box, which this value owns.
            drop(unsafe { Box::from_raw(self.why.as_ptr()) });
        }
    }
}
