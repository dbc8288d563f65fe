//! Two ways to weigh tasks: bytes asked of the allocator, and pages that the process got.
//!
//! The allocator is the system's for every peer. It counts only between [`HeapCount::start`] and
//! the end of that value, so that elsewhere it costs a load and a branch that is predicted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

/// Counts what is allocated and freed while it lives, by all threads. One at a time.
pub struct HeapCount(());

impl HeapCount {
    /// Starts at zero.
    pub fn start() -> Self {
        assert!(!COUNTS.load(Ordering::SeqCst), "one at a time");
        LIVE_BYTES.store(0, Ordering::SeqCst);
        COUNTS.store(true, Ordering::SeqCst);
        Self(())
    }

    /// Bytes allocated and not freed since the start; without what the allocator adds itself.
    pub fn live_bytes(&self) -> i64 {
        LIVE_BYTES.load(Ordering::SeqCst)
    }
}

impl Drop for HeapCount {
    fn drop(&mut self) {
        COUNTS.store(false, Ordering::SeqCst);
    }
}

/// Gives freed memory back to the system, so that growth seen after it is growth.
pub fn trim() {
    // SAFETY: it frees what nobody has.
    unsafe { libc::malloc_trim(0) };
}

/// Anonymous memory of this process that is resident, in bytes.
///
/// It is what `/proc/PID/status` calls RssAnon, but from the page tables: the counters there lag
/// behind by some dozen pages a core.
pub fn resident_bytes() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("proc is mounted");
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = kib.and_then(|rest| rest.trim().strip_suffix(" kB")).expect("it has the field");
    kib.trim().parse::<u64>().expect("a number") << 10
}

struct Counting;

fn count(bytes: i64) {
    if COUNTS.load(Ordering::Relaxed) {
        LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_weighs_what_it_holds() {
        let before = resident_bytes();
        let heap = HeapCount::start();
        let vector = vec![1_u8; 32 << 20];
        let grown = resident_bytes() - before;
        // Other tests allocate at the same time.
        let counted = heap.live_bytes();
        drop(heap);
        assert!((32 << 20..33 << 20).contains(&counted), "{counted}");
        assert!((31 << 20..34 << 20).contains(&grown), "{grown}");
        drop(vector);
    }
}
