//! Spawning and giving way.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use crate::Figures;
use crate::measure::ns_each;

/// Tasks that are spawned before they are waited for, and tasks that give way among each other.
const TASKS: u64 = 1000;

/// A counter that tasks hold: 8 bytes, for ever, added to by one thread only.
pub trait Tally: Copy + 'static {
    /// A counter at zero.
    fn new() -> Self;
    /// Adds one.
    fn add(self);
    /// How many were added.
    fn get(self) -> u64;
}

/// For tasks that stay on their thread.
#[derive(Clone, Copy)]
pub struct Local(&'static Cell<u64>);

/// For tasks that have to be `Send`; a plain addition all the same, since one thread adds.
#[derive(Clone, Copy)]
pub struct Shared(&'static AtomicU64);

impl Tally for Local {
    fn new() -> Self {
        Self(Box::leak(Box::default()))
    }

    fn add(self) {
        self.0.set(self.0.get() + 1);
    }

    fn get(self) -> u64 {
        self.0.get()
    }
}

impl Tally for Shared {
    fn new() -> Self {
        Self(Box::leak(Box::default()))
    }

    fn add(self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    fn get(self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// `spawn-batch`: a thousand tasks, each `async { tally.add() }`, spawned by `spawn` from the
/// calling task, detached, and waited for by giving way; again and again.
pub async fn spawn_batch<T: Tally, Y: Future>(
    count: u64,
    mut spawn: impl FnMut(T),
    mut yield_now: impl FnMut() -> Y,
) -> Figures {
    let tally = T::new();
    let mut start = Instant::now();
    let warm_batches = (count / TASKS / 10).max(1);
    let timed_batches = (count / TASKS).max(1);
    for batch in 0..warm_batches + timed_batches {
        if batch == warm_batches {
            start = Instant::now();
        }
        for _ in 0..TASKS {
            spawn(tally);
        }
        while tally.get() < (batch + 1) * TASKS {
            yield_now().await;
        }
    }
    Figures::new().number("ns_per_task", ns_each(start, timed_batches * TASKS))
}

/// `spawn-each`: `spawn(n)` starts a task that returns `n`, and its handle is awaited before the
/// next is started. `spawn-eager` is the same with the call that polls a task as it makes it.
pub async fn spawn_each<H: Future<Output = u64>>(
    count: u64,
    mut spawn: impl FnMut(u64) -> H,
) -> Figures {
    let mut start = Instant::now();
    let warm = (count / 10).max(1);
    for number in 0..warm + count {
        if number == warm {
            start = Instant::now();
        }
        assert_eq!(spawn(number).await, number, "the task's own number comes back");
    }
    Figures::new().number("ns_per_task", ns_each(start, count))
}

/// `yield`: `spawn(turns, tally)` starts a task that gives way `turns` times and then adds one;
/// a thousand of them take turns until all are over. The calling task gives way as well, which
/// adds one turn in a thousand.
pub async fn yields<T: Tally, Y: Future>(
    count: u64,
    mut spawn: impl FnMut(u64, T),
    mut yield_now: impl FnMut() -> Y,
) -> Figures {
    let turns = (count / TASKS).max(1);
    let mut start = Instant::now();
    for turns in [turns.div_ceil(10), turns] {
        let tally = T::new();
        start = Instant::now();
        for _ in 0..TASKS {
            spawn(turns, tally);
        }
        while tally.get() < TASKS {
            yield_now().await;
        }
    }
    Figures::new().number("ns_per_yield", ns_each(start, turns * TASKS))
}

/// Gives way once, for runtimes that have no such future themselves: wakes its own task, which
/// puts it behind what is runnable.
#[derive(Default)]
pub struct WakeSelf {
    woke: bool,
}

impl Future for WakeSelf {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.woke {
            return Poll::Ready(());
        }
        self.woke = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
