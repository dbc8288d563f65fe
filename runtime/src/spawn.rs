//! Making tasks on the running loop.
//!
//! Owns [`spawn`] and [`yield_now`]. A task starts at the loop's next turn, not inside `spawn`.

use std::rc::Rc;
use std::task::Poll;

use crate::executor::context;
use crate::task::JoinHandle;

/// Makes a task of the running loop. It is first polled in the next turn, and runs on if the handle is
/// dropped. Nothing need be `Send`.
///
/// # Panics
/// Outside a running loop; see [`try_spawn`].
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
    match try_spawn(future) {
        Ok(handle) => handle,
        Err(_) => context::no_loop("a spawn"),
    }
}

/// As [`spawn`], under a name that reports show.
///
/// # Panics
/// Outside a running loop.
#[track_caller]
pub fn spawn_named<F: Future + 'static>(
    name: impl Into<Rc<str>>,
    future: F,
) -> JoinHandle<F::Output> {
    let handle = spawn(future);
    handle.rename(name.into());
    handle
}

/// As [`spawn`], and gives the future back where no loop is running.
///
/// # Errors
/// The future, outside a running loop.
pub fn try_spawn<F: Future + 'static>(future: F) -> Result<JoinHandle<F::Output>, F> {
    match context::with_core(|core| core.tasks.clone()) {
        Some(tasks) => Ok(tasks.spawn(future)),
        None => Err(future),
    }
}

/// Gives way for one turn: what other tasks asked for is in the kernel when this goes on.
///
/// ```
/// coreloop::run(coreloop::yield_now()).unwrap();
/// ```
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
