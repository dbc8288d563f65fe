//! Work that blocks, off the loop.
//!
//! Owns [`spawn_blocking`]: a task on the loop that stands for a closure on the loop's pool of
//! threads. It waits for room in the pool's queue, hands the closure over and is woken by the
//! thread that ran it, as by any other thread. Under a simulated kernel there are no threads: tasks
//! stand in for them, and what a piece of work takes is drawn from the seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::blocking::outcome::{Outcome, pair};
use crate::blocking::pool::{Handed, Pool, Submission};
use crate::executor::context;
use crate::spawn::{spawn, spawn_named};
use crate::task::JoinHandle;
use crate::task::current;
use crate::task::info::Note;
use crate::time::sleep;

/// Runs `f`, which may block, on a thread beside the loop; the tasks of the loop go on meanwhile.
///
/// A task stands for it, so whatever works on a [`JoinHandle`] works on this one. It waits in turn for
/// room in the queue of the loop's pool
/// ([`Settings::blocking_queue`](crate::Settings::blocking_queue)), and there for one of its threads
/// ([`Settings::blocking_threads`](crate::Settings::blocking_threads)). Threads are started when there is
/// work for them and end after ten idle seconds. They are named `coreloop-block-N` and have the loop's
/// signal mask. Those of a pinned core run on CPUs that no core is pinned to, where there are some, and on
/// all of them where there are none.
///
/// What waits for a socket or a timer needs no thread: that is what the loop is for. Work that
/// computes for long belongs on cores of its own ([`Runtime`](crate::Runtime)) rather than here.
///
/// Under a simulated kernel there are no threads: `f` runs on the loop's own, after a time that is drawn
/// from the seed, and so must not wait for anything that the loop does.
///
/// # Errors
/// The handle's, as for every task. If `f` panics, the panic is its awaiter's error. If the system
/// refuses to start a thread, the threads that there are do the work; if there is none, the task
/// panics with a text that says so.
///
/// # Cancel safety
/// A cancel before a thread has taken `f`: it never runs, and is dropped on the loop. A cancel
/// while it runs can't stop it: the handle says cancelled at once, `f` runs to its end, and its
/// value is dropped on the thread. The end of the loop cancels in the same way, and then waits for
/// what runs, within the grace of its close; what runs on is counted in
/// [`ShutdownReport::blocking_left`](crate::ShutdownReport::blocking_left).
///
/// # Panics
/// Outside a running loop; see [`try_spawn_blocking`].
///
/// ```
/// coreloop::run(async {
///     let text = coreloop::spawn_blocking(|| std::fs::read_to_string("/proc/self/comm"));
///     assert!(!text.await.unwrap().unwrap().is_empty());
/// })
/// .unwrap();
/// ```
#[track_caller]
pub fn spawn_blocking<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match try_spawn_blocking(f) {
        Ok(handle) => handle,
        Err(_) => context::no_loop("`spawn_blocking`"),
    }
}

/// As [`spawn_blocking`], and gives the closure back where no loop is running.
///
/// # Errors
/// The closure, outside a running loop.
///
/// # Cancel safety
/// As for [`spawn_blocking`]: a drop of the handle lets the work run, a cancel keeps it from beginning.
///
/// ```
/// let refused = coreloop::try_spawn_blocking(|| 7).unwrap_err();
/// assert_eq!(refused(), 7);
/// ```
#[track_caller]
pub fn try_spawn_blocking<F, T>(f: F) -> Result<JoinHandle<T>, F>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let Some(pool) = context::with_core(|core| core.blocking.clone()) else { return Err(f) };
    let (promise, outcome) = pair();
    let job = Box::new(move || promise.keep(catch_unwind(AssertUnwindSafe(f))));
    let submission = pool.submit(job);
    Ok(spawn(await_work(pool, submission, outcome)))
}

async fn await_work<T>(pool: Rc<Pool>, mut submission: Submission, outcome: Outcome<T>) -> T {
    if current::noted(Note::BlockingRoom, &mut submission).await == Handed::WantsWorker {
        start_worker(&pool);
    }
    match current::noted(Note::Blocking, outcome).await {
        Ok(value) => value,
        // Told on the thread already: it only passes through here.
        Err(payload) => resume_unwind(payload),
    }
}

fn start_worker(pool: &Rc<Pool>) {
    let next_takes_ns = || context::with_core(|core| core.stand_in_ns()).flatten();
    if let Some(mut takes_ns) = next_takes_ns() {
        let (pool, place) = (pool.clone(), pool.stand_in());
        drop(spawn_named("coreloop-block", async move {
            let _place = place;
            while let Some(work) = pool.serve_one() {
                sleep(Duration::from_nanos(takes_ns)).await;
                work.run();
                takes_ns = next_takes_ns().unwrap_or_default();
            }
        }));
    } else if let Err(e) = pool.start_thread() {
        resume_unwind(Box::new(format!("no thread could be started for blocking work: {e}")));
    }
}
