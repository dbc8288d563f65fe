//! What a task that waits weighs.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use crate::Figures;
use crate::memory::{HeapCount, resident_bytes, trim};

/// Tasks come in portions, so that a queue of runnable tasks isn't weighed with them.
const PORTION: u64 = 100;

static POLLED: AtomicU64 = AtomicU64::new(0);

/// A future of 8 bytes that never ends. It keeps no waker: nothing will ever wake it.
pub struct Idle(usize);

impl Future for Idle {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.0 += 1;
        black_box(self.0);
        POLLED.fetch_add(1, Ordering::Relaxed);
        Poll::Pending
    }
}

/// `idle-tasks`: `spawn` starts a detached task of the future; `yield_now` lets them be polled.
pub async fn idle_tasks<Y: Future>(
    count: u64,
    mut spawn: impl FnMut(Idle),
    mut yield_now: impl FnMut() -> Y,
) -> Figures {
    POLLED.store(0, Ordering::Relaxed);
    trim();
    let resident = resident_bytes();
    let heap = HeapCount::start();
    for spawned in 1..=count {
        spawn(Idle(0));
        if spawned % PORTION == 0 || spawned == count {
            while POLLED.load(Ordering::Relaxed) < spawned {
                yield_now().await;
            }
        }
    }
    let heap_bytes = heap.live_bytes();
    drop(heap);
    let grown = resident_bytes() as f64 - resident as f64;
    Figures::new()
        .number("bytes_per_task", grown / count as f64)
        .number("heap_bytes_per_task", heap_bytes as f64 / count as f64)
        .number("future_bytes", size_of::<Idle>() as f64)
}
