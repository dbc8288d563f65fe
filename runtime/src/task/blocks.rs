//! Memory for tasks, in size classes.
//!
//! Owns pages that are cut into blocks of one class each, and a free list per class, last in, first out:
//! a task's block is likely still in the cache. Anything larger than a class goes to the allocator. Pages
//! are given back when the core ends; what a core once needed for its tasks it is likely to need again.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Distance of two classes, and the alignment of every block.
const STEP: usize = 16;
/// Largest block that comes from a page.
const CLASS_MAX: usize = 1024;
const CLASSES: usize = CLASS_MAX / STEP;
/// 16 blocks of the largest class, some 80 of an ordinary one.
const PAGE_BYTES: usize = 16 * 1024;

pub(crate) struct Blocks {
    free: [Option<NonNull<FreeBlock>>; CLASSES],
    pages: Vec<NonNull<u8>>,
}

struct FreeBlock {
    next: Option<NonNull<FreeBlock>>,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self { free: [None; CLASSES], pages: Vec::new() }
    }

    /// Uninitialised memory for `layout`.
    pub(crate) fn take(&mut self, layout: Layout) -> NonNull<u8> {
        let Some(class) = class_of(layout) else {
            // SAFETY: no task has size 0: each has a header.
            let block = unsafe { alloc(layout) };
            return NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout));
        };
        if self.free[class].is_none() {
            self.add_page(class);
        }
        let block = self.free[class].expect("a page was just cut up for this class");
        // SAFETY: a block on the free list holds a FreeBlock and is ours.
        self.free[class] = unsafe { block.as_ref() }.next;
        block.cast()
    }

    /// Gives memory back.
    ///
    /// # Safety
    /// `block` came from `take` of this very `Blocks` with the same layout, and nobody uses it any more.
    pub(crate) unsafe fn give(&mut self, block: NonNull<u8>, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: not of a class, so it came from the allocator with this layout.
            return unsafe { dealloc(block.as_ptr(), layout) };
        };
        let block = block.cast::<FreeBlock>();
        // SAFETY: the block is ours again, at least STEP bytes large and aligned to STEP.
        unsafe { block.write(FreeBlock { next: self.free[class] }) };
        self.free[class] = Some(block);
    }

    fn add_page(&mut self, class: usize) {
        let layout = page_layout();
        // SAFETY: the layout has a size above 0.
        let page = unsafe { alloc(layout) };
        let page = NonNull::new(page).unwrap_or_else(|| handle_alloc_error(layout));
        self.pages.push(page);
        let size = (class + 1) * STEP;
        for i in (0..PAGE_BYTES / size).rev() {
            // SAFETY: the block lies within the page, which nobody else knows.
            unsafe {
                let block = page.add(i * size).cast::<FreeBlock>();
                block.write(FreeBlock { next: self.free[class] });
                self.free[class] = Some(block);
            }
        }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for page in self.pages.drain(..) {
            // SAFETY: allocated in `add_page` with this layout; `Tasks` drops its blocks only after every
            // task and handle is gone.
            unsafe { dealloc(page.as_ptr(), page_layout()) };
        }
    }
}

fn class_of(layout: Layout) -> Option<usize> {
    let small = layout.size() <= CLASS_MAX && layout.align() <= STEP;
    small.then(|| layout.size().div_ceil(STEP).max(1) - 1)
}

fn page_layout() -> Layout {
    Layout::from_size_align(PAGE_BYTES, STEP).expect("a constant layout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_reused_last_in_first_out_and_never_overlap() {
        let mut blocks = Blocks::new();
        let layout = Layout::from_size_align(100, 8).unwrap();
        let mut taken: Vec<_> = (0..500).map(|_| blocks.take(layout)).collect();
        taken.sort();
        assert!(taken.windows(2).all(|w| w[1].addr().get() - w[0].addr().get() >= 100));
        // SAFETY: each came from `take` with this layout and is not used.
        taken.iter().for_each(|b| unsafe { blocks.give(*b, layout) });
        assert_eq!(blocks.take(layout), taken[499]);
        // SAFETY: as above.
        unsafe { blocks.give(taken[499], layout) };
    }

    #[test]
    fn large_and_overaligned_ones_come_from_the_allocator() {
        let mut blocks = Blocks::new();
        for layout in [Layout::from_size_align(5000, 8), Layout::from_size_align(64, 4096)] {
            let layout = layout.unwrap();
            let block = blocks.take(layout);
            assert_eq!(block.addr().get() % layout.align(), 0);
            // SAFETY: just taken with this layout.
            unsafe { blocks.give(block, layout) };
        }
        assert!(blocks.pages.is_empty());
    }
}
