//! Hosts that are restarted many times in one simulation.
//!
//! Owns an allocator that counts the bytes that are in use: each core is a loop of this process, of which
//! there may be 1,024 at a time, and one that has been crashed is to be let go.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use coreloop::sim::{Faults, Sim};
use coreloop::time::sleep;

struct Counted;

static IN_USE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const RESTARTS: usize = 1_500;

/// Bytes that may be in use at the end beyond those after the first 100 restarts.
const GROWN_MAX: isize = 256 * 1024;

#[test]
fn sim_restarts_leave_nothing_behind() {
    let sim = Sim::builder().seed(1).faults(Faults::none()).build();
    sim.host("server", 1, async |_core| {
        loop {
            let _task = coreloop::spawn(sleep(Duration::MAX));
            sleep(Duration::from_secs(1)).await;
        }
    });
    let own = sim.clone();
    sim.client("operator", async move || {
        let mut after_100 = 0;
        for n in 1..=RESTARTS {
            own.restart("server");
            sleep(Duration::from_millis(10)).await;
            if n == 100 {
                after_100 = IN_USE.load(Ordering::Relaxed);
            }
        }
        let grown = IN_USE.load(Ordering::Relaxed) - after_100;
        assert!(grown < GROWN_MAX, "{grown} bytes in 1,400 restarts");
    });
    let report = sim.run().unwrap();
    // What cores counted that have gone is still in the sum: each of them spawned a task.
    let spawned = report.counters.spawns;
    assert!(spawned >= RESTARTS as u64, "{spawned} tasks");
    assert_eq!(report.counters.ops_leaked, 0);
}
