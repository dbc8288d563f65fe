//! Making tasks on the running loop.
//!
//! Owns [`spawn`] and [`yield_now`]. A task starts at the loop's next turn, not inside `spawn`; in
//! [`spawn_eager`] alone it does.

use std::fmt::Display;
use std::panic::Location;
use std::sync::Arc;
use std::task::Poll;

use crate::executor::context;
use crate::task::JoinHandle;
use crate::task::cell::{AnyValue, ErrIsFailure};
use crate::task::current;

/// Makes a task of the running loop. It is first polled in the next turn, and runs on if the handle is
/// dropped. Nothing need be `Send`.
///
/// # Panics
/// Outside a running loop; see [`try_spawn`].
///
/// # Cancel safety
/// Dropping the handle lets the task run on; if whoever awaits it is cancelled, the task is too.
///
/// ```
/// coreloop::run(async {
///     let a = coreloop::spawn(async { 20 });
///     let b = coreloop::spawn(async { 22 });
///     assert_eq!(a.await.unwrap() + b.await.unwrap(), 42);
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    spawn_at(future, Location::caller())
}

/// As [`spawn`], under a name that reports show.
///
/// # Panics
/// Outside a running loop.
///
/// # Cancel safety
/// As for [`spawn`].
#[track_caller]
pub fn spawn_named<F: Future + 'static>(
    name: impl Into<Arc<str>>,
    future: F,
) -> JoinHandle<F::Output> {
    let (name, at) = (name.into(), Location::caller());
    let Some(tasks) = context::with_core(|core| core.tasks.clone()) else {
        context::no_loop("a spawn")
    };
    #[cfg(feature = "tracing")]
    let future = crate::task::traced::traced(future, Some(&name), at);
    let handle = tasks.spawn_judged::<_, AnyValue>(future, at);
    handle.rename(name);
    handle
}

/// As [`spawn`], but its first poll takes place in this call: a future that has nothing to wait for has ended
/// when this returns, and an op that it begins is submitted with those of whoever calls. If it waits, it
/// goes on at its turns, as any task.
///
/// It is a task of its own even so: a panic, a cancel, its name and its locals are its, not the caller's. The
/// call takes as long as the poll does; reports count that time as the caller's. 16 calls within each other
/// are polled like this at most, any deeper one in the next turn, and so is what a destructor makes
/// while the loop closes. Spans of `tracing` that the caller has entered are around the first poll too,
/// and for as long as it lasts [`all_tasks`](crate::all_tasks) lists the caller as one that waits.
///
/// The future's code runs here, between two lines of the caller: what the caller has borrowed (a `RefCell`,
/// say) it finds borrowed. With [`spawn`] there is no such moment.
///
/// # Panics
/// Outside a running loop.
///
/// # Cancel safety
/// As for [`spawn`]; the first poll is over when there is a handle to drop.
///
/// ```
/// coreloop::run(async {
///     let known = coreloop::spawn_eager(async { 42 });
///     assert!(known.is_finished());
///     let waits = coreloop::spawn_eager(async { coreloop::yield_now().await });
///     assert!(!waits.is_finished());
///     assert_eq!(known.await.unwrap(), 42);
///     waits.await.unwrap();
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn spawn_eager<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    let Some(tasks) = context::with_core(|core| core.tasks.clone()) else {
        context::no_loop("a spawn")
    };
    let at = Location::caller();
    #[cfg(feature = "tracing")]
    let future = crate::task::traced::traced(future, None, at);
    tasks.spawn_eager(future, at)
}

/// As [`spawn`], and gives the future back where no loop is running.
///
/// # Errors
/// The future, outside a running loop.
///
/// # Cancel safety
/// As for [`spawn`].
#[track_caller]
pub fn try_spawn<F: Future + 'static>(future: F) -> Result<JoinHandle<F::Output>, F> {
    try_spawn_at(future, Location::caller())
}

/// As [`spawn`], for a caller that is named by `at`.
#[track_caller]
pub(crate) fn spawn_at<F: Future + 'static>(
    future: F,
    at: &'static Location<'static>,
) -> JoinHandle<F::Output> {
    match try_spawn_at(future, at) {
        Ok(handle) => handle,
        Err(_) => context::no_loop("a spawn"),
    }
}

/// As [`try_spawn`], for a caller that is named by `at`.
pub(crate) fn try_spawn_at<F: Future + 'static>(
    future: F,
    at: &'static Location<'static>,
) -> Result<JoinHandle<F::Output>, F> {
    match context::with_core(|core| core.tasks.clone()) {
        Some(tasks) => {
            // Not a call when it does nothing: futures are large, and each call moves them.
            #[cfg(feature = "tracing")]
            let future = crate::task::traced::traced(future, None, at);
            Ok(tasks.spawn_judged::<_, AnyValue>(future, at))
        }
        None => Err(future),
    }
}

/// As [`spawn`], of a future whose `Err` is a failure: if nobody takes it, it is reported when the handle
/// has gone and the task has ended, as a panic is ([`Settings::on_report`](crate::Settings::on_report)).
///
/// # Panics
/// Outside a running loop.
///
/// # Cancel safety
/// As for [`spawn`]; an `Err` that comes after the handle went is reported.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use coreloop::{EventLoop, Settings, spawn_fallible, yield_now};
///
/// static REPORTS: AtomicU32 = AtomicU32::new(0);
/// let settings = Settings::default().on_report(|report| {
///     assert!(report.to_string().contains("nobody took its result: invalid digit"));
///     REPORTS.fetch_add(1, Ordering::Relaxed);
/// });
/// EventLoop::with(settings).unwrap().block_on(async {
///     drop(spawn_fallible(async { "x".parse::<u8>() }));
///     yield_now().await;
/// });
/// assert_eq!(REPORTS.load(Ordering::Relaxed), 1);
/// ```
#[track_caller]
pub fn spawn_fallible<F, T, E>(future: F) -> JoinHandle<Result<T, E>>
where
    F: Future<Output = Result<T, E>> + 'static,
    E: Display,
{
    match context::with_core(|core| core.tasks.clone()) {
        Some(tasks) => {
            let at = Location::caller();
            #[cfg(feature = "tracing")]
            let future = crate::task::traced::traced(future, None, at);
            tasks.spawn_judged::<_, ErrIsFailure>(future, at)
        }
        None => context::no_loop("a spawn"),
    }
}

/// Gives way for one turn of the loop: whoever is ready is polled, and what they ask for in it is in the
/// kernel when this goes on.
///
/// # Cancel safety
/// There is nothing to lose. Dropped after its first poll, its task has a turn all the same.
///
/// ```
/// coreloop::run(coreloop::yield_now()).unwrap();
/// ```
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        current::give_way(cx.waker());
        Poll::Pending
    })
}
