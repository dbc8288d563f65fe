//! What waiting costs in allocations: nothing where nothing is kept, one for a set.
//!
//! Counts what this thread asks the allocator for, between two points of one task on a warm loop.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use coreloop::combine::{gather, gather_tuple, race, shield, try_gather};
use coreloop::spawn;
use coreloop::time::{sleep, timeout};
use coreloop_tests::{net, poll_once, turns};

struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything goes on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Giving back the rest of a block is not asking for one.
        ASKED.set(ASKED.get() + usize::from(size > layout.size()));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of the third of three runs: what a loop keeps for good it has by then.
async fn allocations<F: Future>(mut make: impl FnMut() -> F) -> usize {
    let mut count = 0;
    for _ in 0..3 {
        let before = ASKED.get();
        make().await;
        turns(3).await;
        count = ASKED.get() - before;
    }
    count
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn g8_a_race_and_a_limit_allocate_nothing() {
    coreloop::run(async {
        assert_eq!(allocations(|| race(turns(2), sleep(LONG))).await, 0);
        let of_three = || async {
            coreloop::select! {
                () = sleep(LONG) => 1,
                () = turns(2) => 2,
                () = sleep(LONG) => 3,
            }
        };
        assert_eq!(allocations(of_three).await, 0);
        assert_eq!(allocations(|| timeout(LONG, turns(2))).await, 0);
        assert_eq!(allocations(|| timeout(Duration::ZERO, sleep(LONG))).await, 0);
        let one_task = allocations(|| spawn(turns(2))).await;
        assert_eq!(one_task, 0, "tasks come from the loop's own memory");
        let limited = || async { spawn(turns(2)).timeout(LONG).await.is_ok() };
        assert_eq!(allocations(limited).await, 0);
        assert_eq!(allocations(|| shield(spawn(turns(2)))).await, 0);
        assert_eq!(allocations(|| gather_tuple((turns(2), async { 7 }))).await, 0);
    })
    .unwrap();
}

#[test]
fn w1_a_limit_around_a_read_allocates_nothing() {
    coreloop::run(async {
        let (mut ours, _theirs) = net::pair();
        {
            let mut first = pin!(ours.recv());
            assert!(poll_once(first.as_mut()).await.is_pending());
        }
        // The receive stays with its socket, so what is counted is the waiting.
        let mut count = 0;
        for _ in 0..3 {
            let before = ASKED.get();
            assert!(timeout(Duration::from_millis(2), ours.recv()).await.is_err());
            count = ASKED.get() - before;
        }
        assert_eq!(count, 0);
    })
    .unwrap();
}

#[test]
fn g1_a_gather_allocates_once_for_the_set() {
    coreloop::run(async {
        for n in [1, 10, 1000_u64] {
            let count = allocations(|| gather((0..n).map(|i| async move { i }))).await;
            assert_eq!(count, 1, "a gather of {n}");
            let count = allocations(|| gather((0..n).map(|_| async {}))).await;
            assert_eq!(count, 1, "a gather of {n} that gives nothing");
            let large = allocations(|| gather((0..n).map(|i| async move { [i; 9] }))).await;
            assert_eq!(large, 1, "a gather of {n} large values");
            let ok = |i| async move { Ok::<u64, ()>(i) };
            let count = allocations(|| try_gather((0..n).map(ok))).await;
            assert_eq!(count, 1, "a failing gather of {n}");
        }
    })
    .unwrap();
}
