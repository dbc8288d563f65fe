//! The system's allocator with two differences, the same for every runtime: it counts the blocks of
//! one odd size, and what is a page or more starts at a page, so that any vector of that size can
//! be read into with O_DIRECT.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A size that nobody but a case asks for.
pub const MARKED: usize = (16 << 10) + 27;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Blocks of that size that are allocated.
pub fn live() -> usize {
    LIVE.load(Ordering::SeqCst)
}

struct Counting;

/// The layout that is asked of the system for that of the caller: a function of it alone.
fn paged(layout: Layout) -> Layout {
    if layout.size() < PAGE {
        return layout;
    }
    layout.align_to(PAGE).unwrap_or(layout)
}

// SAFETY: every call goes to the system's allocator with the same stronger layout for the same
// block.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() == MARKED {
            LIVE.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promised.
        unsafe { System.alloc(paged(layout)) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if layout.size() == MARKED {
            LIVE.fetch_sub(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, paged(layout)) }
    }
}
