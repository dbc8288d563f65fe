//! Memory for tasks, in size classes.
//!
//! Owns pages that are cut into blocks of one class each, and a free list per class, last in, first out:
//! a task's block is likely still in the cache. Anything larger than a class goes to the allocator. Pages
//! are given back when the core ends; what a core once needed for its tasks it is likely to need again.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Distance of two classes.
const STEP: usize = 8;
/// Alignment of a page. A block's size is a multiple of what its users need, up to this, and so its place is.
const ALIGN: usize = 16;
/// Largest block that comes from a page.
const CLASS_MAX: usize = 1024;
const CLASSES: usize = CLASS_MAX / STEP;
/// 16 blocks of the largest class, some 80 of an ordinary one.
const PAGE_BYTES: usize = 16 * 1024;

/// Whose free list a block comes from and goes to, if it is not too large for one: what
/// [`of`](Self::of) says of its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(usize);

/// Comes from the allocator.
const LARGE: usize = CLASSES;

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

    /// Bytes of its pages.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }

    /// Uninitialised memory for `layout`, whose class this is.
    #[inline]
    pub(crate) fn take(&mut self, class: Class, layout: Layout) -> NonNull<u8> {
        let Class(class @ 0..CLASSES) = class else { return take_large(layout) };
        let block = match self.free[class] {
            Some(block) => block,
            None => self.add_page(class),
        };
        // SAFETY: a block on the free list holds a FreeBlock and is ours.
        self.free[class] = unsafe { block.as_ref() }.next;
        block.cast()
    }

    /// Gives memory back.
    ///
    /// # Safety
    /// `block` came from `take` of this very `Blocks` with the same class and layout, and nobody uses it
    /// any more.
    #[inline]
    pub(crate) unsafe fn give(&mut self, block: NonNull<u8>, class: Class, layout: Layout) {
        let Class(class @ 0..CLASSES) = class else {
            // SAFETY: not of a class, so it came from the allocator with this layout.
            return unsafe { give_large(block, layout) };
        };
        let block = block.cast::<FreeBlock>();
        // SAFETY: the block is ours again, at least STEP bytes large and aligned to that.
        unsafe { block.write(FreeBlock { next: self.free[class] }) };
        self.free[class] = Some(block);
    }

    /// Cuts up a page for a class, and gives its first block, which is the first of the free ones, too.
    #[cold]
    fn add_page(&mut self, class: usize) -> NonNull<FreeBlock> {
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
        page.cast()
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

#[cold]
fn take_large(layout: Layout) -> NonNull<u8> {
    // SAFETY: no task has size 0: each has a header.
    let block = unsafe { alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}

/// # Safety
/// `block` came from [`take_large`] with this layout, and nobody uses it any more.
#[cold]
#[inline(never)]
unsafe fn give_large(block: NonNull<u8>, layout: Layout) {
    // SAFETY: as the caller promised.
    unsafe { dealloc(block.as_ptr(), layout) }
}

impl Class {
    /// Of what has this layout.
    pub(crate) const fn of(layout: Layout) -> Self {
        let padded = layout.pad_to_align().size();
        if padded > CLASS_MAX || layout.align() > ALIGN {
            return Self(LARGE);
        }
        let steps = padded.div_ceil(STEP);
        Self(if steps == 0 { 0 } else { steps - 1 })
    }
}

fn page_layout() -> Layout {
    Layout::from_size_align(PAGE_BYTES, ALIGN).expect("a constant layout")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(blocks: &mut Blocks, layout: Layout) -> NonNull<u8> {
        blocks.take(Class::of(layout), layout)
    }

    /// # Safety
    /// As of `Blocks::give`.
    unsafe fn give(blocks: &mut Blocks, block: NonNull<u8>, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { blocks.give(block, Class::of(layout), layout) };
    }

    #[test]
    fn blocks_are_reused_last_in_first_out_and_never_overlap() {
        let mut blocks = Blocks::new();
        let layout = Layout::from_size_align(100, 8).unwrap();
        let mut taken: Vec<_> = (0..500).map(|_| take(&mut blocks, layout)).collect();
        taken.sort();
        assert!(taken.windows(2).all(|w| w[1].addr().get() - w[0].addr().get() >= 100));
        // SAFETY: each came from `take` with this layout and is not used.
        taken.iter().for_each(|b| unsafe { give(&mut blocks, *b, layout) });
        assert_eq!(take(&mut blocks, layout), taken[499]);
        // SAFETY: as above.
        unsafe { give(&mut blocks, taken[499], layout) };
    }

    #[test]
    fn blocks_are_aligned_as_their_users_need() {
        let mut blocks = Blocks::new();
        for (size, align) in [(24, 8), (24, 16), (48, 16), (1000, 8), (1001, 16)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            let taken: Vec<_> = (0..50).map(|_| take(&mut blocks, layout)).collect();
            assert!(taken.iter().all(|b| b.addr().get() % align == 0), "{size} {align}");
            // SAFETY: each came from `take` with this layout and is not used.
            taken.iter().for_each(|b| unsafe { give(&mut blocks, *b, layout) });
        }
    }

    #[test]
    fn large_and_overaligned_ones_come_from_the_allocator() {
        let mut blocks = Blocks::new();
        for layout in [Layout::from_size_align(5000, 8), Layout::from_size_align(64, 4096)] {
            let layout = layout.unwrap();
            let block = take(&mut blocks, layout);
            assert_eq!(block.addr().get() % layout.align(), 0);
            // SAFETY: just taken with this layout.
            unsafe { give(&mut blocks, block, layout) };
        }
        assert!(blocks.pages.is_empty());
    }
}
