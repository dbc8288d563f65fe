//! What waiting costs in allocations: nothing where nothing is kept, one for a set.
//!
//! Counts what this thread asks the allocator for, between two points of one task on a warm loop.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use coreloop::combine::{
    When, as_completed, gather, gather_tuple, race, shield, try_gather, try_gather_tuple, wait,
};
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
        let of_two = || async {
            coreloop::select! {
                () = sleep(LONG) => 1,
                () = turns(2) => 2,
            }
        };
        assert_eq!(allocations(of_two).await, 0);
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
        let failing = || try_gather_tuple((async { Ok::<_, ()>(7) }, async { Ok("seven") }));
        assert_eq!(allocations(failing).await, 0);
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
fn w1_a_limit_around_a_read_that_brings_something_allocates_nothing() {
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        let mut buf = vec![0; 64];
        let mut count = usize::MAX;
        for round in 0..5 {
            theirs.write_all(&[round; 64]).unwrap();
            let before = ASKED.get();
            let chunk = timeout(LONG, ours.recv()).await.unwrap().unwrap().unwrap();
            assert!(chunk.iter().all(|b| *b == round));
            drop(chunk);
            count = ASKED.get() - before;
        }
        assert_eq!(count, 0, "a chunk");
        for round in 0..5 {
            theirs.write_all(&[round; 64]).unwrap();
            let before = ASKED.get();
            let (read, filled) = timeout(LONG, ours.read(buf)).await.unwrap().unwrap();
            assert_eq!((read, filled[0]), (64, round));
            buf = filled;
            count = ASKED.get() - before;
        }
        assert_eq!(count, 0, "an owned buffer");
    })
    .unwrap();
}

#[test]
fn g5_g6_as_completed_and_wait_allocate_what_they_give() {
    coreloop::run(async {
        for n in [1, 10, 1000_u64] {
            let completed = || async {
                let mut ended = as_completed((0..n).map(|i| spawn(async move { i })));
                let mut sum = 0;
                while let Some((_, result)) = ended.next().await {
                    sum += result.unwrap();
                }
                assert_eq!(sum, n * (n - 1) / 2);
            };
            assert_eq!(allocations(completed).await, 1, "as_completed of {n}");
            let waited = || async {
                let mut handles: Vec<_> = (0..n).map(|_| spawn(turns(2))).collect();
                let waited = wait(&mut handles, When::AllCompleted, None).await;
                assert_eq!(waited.done.len() as u64, n);
            };
            assert_eq!(allocations(waited).await, 2, "a wait of {n}: the handles, and those done");
        }
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
