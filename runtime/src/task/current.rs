//! Which loop runs on this thread, and which poll: the only thread-locals of the crate beside the values that
//! tasks carry (`local`).
//!
//! Owns the pointer to the running loop's tasks and, for the layers above, to its core. Both are set while
//! a loop runs or closes and put back afterwards, so loops nest and a simulator can swap them. It has no
//! destructor, so wakers work also in those of other thread-locals.

use std::cell::Cell;
use std::pin::Pin;
use std::ptr;
use std::task::Waker;

use super::info::Note;
use super::table::Tasks;
use super::waker::Word;

#[derive(Clone, Copy)]
struct Current {
    tasks: *const Tasks,
    core: *const (),
}

thread_local! {
    /// Numbers given to the ends of all tasks of this thread: they tell in which order those were also where
    /// loops meet.
    static NUMBERS: Cell<u64> = const { Cell::new(0) };

    /// The number of the poll that runs, or ran last.
    static POLL: Cell<u64> = const { Cell::new(0) };

    static CURRENT: Cell<Current> =
        const { Cell::new(Current { tasks: ptr::null(), core: ptr::null() }) };
}

/// Runs `f` with a loop's tasks and core as the current ones. `core` is handed back by [`core`].
pub(crate) fn enter<R>(tasks: &Tasks, core: *const (), f: impl FnOnce() -> R) -> R {
    struct Back(Current);
    impl Drop for Back {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _back = Back(CURRENT.replace(Current { tasks, core }));
    f()
}

/// What was given to the innermost [`enter`] of this thread; null outside of one.
pub(crate) fn core() -> *const () {
    CURRENT.get().core
}

/// A number above all that were given so far.
#[inline]
pub(crate) fn next_number() -> u64 {
    let number = NUMBERS.get() + 1;
    NUMBERS.set(number);
    number
}

/// The poll of this number begins.
#[inline]
pub(super) fn begin_poll(number: u64) {
    POLL.set(number);
}

/// The number of the poll that runs now or ran last on this thread: see [`Word::polls_begin_after`].
#[inline]
pub(crate) fn poll_number() -> u64 {
    POLL.get()
}

/// The poll of this number goes on: others took place within it.
pub(super) fn resume_poll(number: u64) {
    POLL.set(number);
}

/// The task that is being polled says what it will wait for, for lists of tasks.
#[inline]
pub(crate) fn note(note: Note) {
    with_tasks(|tasks| tasks.note(note));
}

/// As [`note`], where whatever else the task waits for says more.
#[cold]
pub(crate) fn note_least(note: Note) {
    with_tasks(|tasks| tasks.note_least(note));
}

/// Awaits `future`; the task that does waits for what `what` says.
pub(crate) async fn noted<F: Future + Unpin>(what: Note, mut future: F) -> F::Output {
    std::future::poll_fn(|cx| {
        let polled = Pin::new(&mut future).poll(cx);
        if polled.is_pending() {
            note(what);
        }
        polled
    })
    .await
}

/// Schedules the task that `waker` names behind the next turn of the loop that runs; a stranger's waker is
/// called at once.
// Not inlined: it would keep the small futures around it from that.
#[inline(never)]
pub(crate) fn give_way(waker: &Waker) {
    let word = Word::of_waker(waker);
    if !word.is_some_and(|word| with_tasks(|tasks| tasks.give_way(word)).unwrap_or(false)) {
        waker.wake_by_ref();
    }
}

/// Schedules the task if it belongs to the loop that runs on this thread.
#[inline]
pub(crate) fn wake_if_ours(word: Word) -> bool {
    with_tasks(|tasks| {
        let ours = tasks.core_id() == word.core();
        if ours {
            tasks.wake(word);
        }
        ours
    })
    .unwrap_or(false)
}

/// Whether `tasks` are those of the loop that runs on this thread.
pub(crate) fn is_running(tasks: &Tasks) -> bool {
    std::ptr::eq(CURRENT.get().tasks, tasks)
}

/// Calls `f` with the tasks of the loop that runs on this thread, if one does.
#[inline]
pub(crate) fn with_tasks<R>(f: impl FnOnce(&Tasks) -> R) -> Option<R> {
    let tasks = CURRENT.get().tasks;
    // SAFETY: set by `enter` from a reference that outlives the call of its `f`, and put back when that
    // ends, by return or by panic; we are within it, on the same thread.
    unsafe { tasks.as_ref() }.map(f)
}
