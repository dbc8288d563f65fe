//! What a look at a core takes of it: the core itself says some numbers, and how much that is does not grow
//! with what the core has. Counted in bytes that its thread allocates, which no machine's speed changes.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::thread;
use std::time::Duration;

use coreloop::sched::TaskQueue;
use coreloop::time::sleep;
use coreloop::{EventLoop, Handle, Settings, StatsLevel, spawn, yield_now};

struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator, with a count beside it that allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no count any more.
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the looked-at core's thread allocates for a look, with the turns around it.
const LOOK_MAX: usize = 16 * 1024;

/// Bytes that a core of `tasks` tasks and `queues` task queues allocates while another thread looks at it.
fn bytes_of_a_look(tasks: usize, queues: usize) -> usize {
    let settings = Settings::default().stats(StatsLevel::Histograms);
    EventLoop::with(settings).unwrap().block_on(async move {
        let queues: Vec<TaskQueue> = (0..queues)
            .map(|n| TaskQueue::builder(format!("queue {n}")).build().unwrap())
            .collect();
        for _ in 0..tasks {
            drop(spawn(sleep(Duration::from_secs(3600))));
        }
        for _ in 0..20 {
            yield_now().await;
        }
        let handle = Handle::current();
        let look = move || handle.all_stats_blocking(Duration::from_secs(60));
        // The first look pays for what stays, such as the thread's place in a queue.
        let mut least = usize::MAX;
        for _ in 0..5 {
            let outside = thread::spawn(look.clone());
            let before = BYTES.get();
            while !outside.is_finished() {
                yield_now().await;
            }
            least = least.min(BYTES.get() - before);
            let seen = outside.join().unwrap();
            assert!(seen[0].gauges.tasks >= tasks as u64, "it is a look at this core: {seen:?}");
            assert!(seen[0].gauges.age < Duration::from_secs(60));
        }
        drop(queues);
        least
    })
}

#[test]
fn report_a_look_takes_no_more_of_a_core_that_has_more() {
    let (few, many) = (bytes_of_a_look(10, 0), bytes_of_a_look(20_000, 0));
    assert!(few > 0, "it is counted");
    // The list of long polls may be longer, and it has an end.
    assert!(many <= LOOK_MAX, "{many} bytes with 20,000 tasks, {few} with 10");
    let queues = bytes_of_a_look(10, 63);
    assert!(queues <= LOOK_MAX, "{queues} bytes with as many task queues as there can be");
}
