//! Plain functions on the running loop.
//!
//! Owns [`call_soon`], [`call_later`] and [`call_at`]. Each makes a task: one mechanism carries all
//! that runs on a loop, so order, cancelling, panics and reports are those of tasks. A call with a
//! time enters the timer wheel when it is made, not at a first poll, and its task stays out of the
//! run queue until then: so calls come in the order of their times also when the loop was busy past
//! several of them.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::executor::context;
use crate::executor::timers::Timers;
use crate::spawn::spawn;
use crate::task::info::Note;
use crate::task::{Call, current};
use crate::time::Instant;
use crate::wheel::TimerKey;

/// Has the loop call `f` in its next turn, in the order of these calls and of
/// [`spawn`](crate::spawn)s. It must be short and must not block. A panic in it stays in it, and
/// counts as a task's.
///
/// From another thread: [`Handle::call_soon_threadsafe`](crate::Handle::call_soon_threadsafe).
///
/// # Panics
/// Outside a running loop.
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
///
/// coreloop::run(async {
///     let seen = Rc::new(RefCell::new(Vec::new()));
///     for i in 0..3 {
///         let seen = seen.clone();
///         coreloop::call_soon(move || seen.borrow_mut().push(i));
///     }
///     assert!(seen.borrow().is_empty(), "not within the call");
///     coreloop::yield_now().await;
///     assert_eq!(*seen.borrow(), [0, 1, 2]);
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn call_soon(f: impl FnOnce() + 'static) -> Call {
    if context::with_core(|_| ()).is_none() {
        context::no_loop("`call_soon`");
    }
    Call::new(spawn(async move { f() }))
}

/// Has the loop call `f` after `d`: never before, and at most one timer resolution (1 ms by
/// default) later on an idle core. Otherwise as [`call_at`].
///
/// # Panics
/// Outside a running loop.
///
/// ```
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let (say, said) = coreloop::sync::oneshot::channel();
///     coreloop::call_later(Duration::from_millis(2), move || _ = say.send("now"));
///     assert_eq!(said.await, Ok("now"));
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn call_later(d: Duration, f: impl FnOnce() + 'static) -> Call {
    match context::with_core(|core| core.timers.clone()) {
        Some(timers) => timed(timers, Instant::now() + d, f),
        None => context::no_loop("`call_later`"),
    }
}

/// Has the loop call `f` at `when`: in its next turn if that has passed, never for
/// [`Instant::NEVER`](crate::time::Instant::NEVER).
///
/// Calls are made in the order of their times, however late the loop is; those whose times lie
/// within one timer resolution, and those whose time had passed when they were asked for, in the
/// order of asking. `f` must be short and must not block; a panic in it stays in it, and counts as
/// a task's.
///
/// # Panics
/// Outside a running loop.
///
/// ```
/// use coreloop::time::{Instant, sleep};
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let when = Instant::now() + Duration::from_millis(5);
///     let call = coreloop::call_at(when, || println!("never printed"));
///     assert!(call.cancel());
///     sleep(Duration::from_millis(10)).await;
///     assert!(call.is_cancelled());
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn call_at(when: Instant, f: impl FnOnce() + 'static) -> Call {
    match context::with_core(|core| core.timers.clone()) {
        Some(timers) => timed(timers, when, f),
        None => context::no_loop("`call_at`"),
    }
}

#[track_caller]
fn timed(timers: Rc<Timers>, when: Instant, f: impl FnOnce() + 'static) -> Call {
    // The task's waker takes its place as soon as there is a task.
    let key = timers.insert_or_due(when.ns(), Waker::noop().clone());
    let task = spawn(Timed { timers: timers.clone(), key, f: Some(f) });
    if let Some(key) = key {
        timers.rewake(key, &task.await_wake());
    }
    Call::new(task)
}

/// Calls `f` once its timer has fired.
struct Timed<F> {
    timers: Rc<Timers>,
    /// None for a time that never comes.
    key: Option<TimerKey>,
    f: Option<F>,
}

// Nothing in here is pinned: `f` is moved out to be called.
impl<F> Unpin for Timed<F> {}

impl<F: FnOnce()> Future for Timed<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(key) = self.key else {
            current::note_least(Note::Never);
            return Poll::Pending;
        };
        // A stale wake, meant for whoever had the slot before, finds the timer still there.
        if self.timers.rewake(key, cx.waker()) {
            return Poll::Pending;
        }
        if let Some(f) = self.f.take() {
            f();
        }
        Poll::Ready(())
    }
}

impl<F> Drop for Timed<F> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.cancel(key);
        }
    }
}
