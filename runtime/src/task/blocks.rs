//! Memory for tasks, in size classes.
//!
//! Owns pages that are cut into blocks of one class each (`pages`: of very many, most lie in huge pages), and
//! a free list per class, last in, first out: a task's block is likely still in the cache. Anything larger
//! than a class goes to the allocator. Pages are given back when the core ends; what a core once needed for
//! its tasks it is likely to need again.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use pages::{PAGE_ALIGN, PAGE_BYTES, Pages};

mod pages;

/// Distance of two classes.
const STEP: usize = 8;
/// Largest block that comes from a page.
const CLASS_MAX: usize = 1024;
const CLASSES: usize = CLASS_MAX / STEP;
/// A block's size is a multiple of what its users need, up to this, and so its place in a page is.
const ALIGN: usize = PAGE_ALIGN;

/// Whose free list a block comes from and goes to, if it is not too large for one: what
/// [`of`](Self::of) says of its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(usize);

/// Comes from the allocator.
const LARGE: usize = CLASSES;

pub(crate) struct Blocks {
    free: [Option<NonNull<FreeBlock>>; CLASSES],
    pages: Pages,
}

struct FreeBlock {
    next: Option<NonNull<FreeBlock>>,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self { free: [None; CLASSES], pages: Pages::new() }
    }

    /// Bytes of its pages, also of those that are still to be cut up.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.bytes()
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
        let page = self.pages.take();
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

#[cfg(test)]
mod tests {
    use super::pages::{PIECES_FROM, tests::HELD};
    use super::*;
    use crate::sys::huge::HUGE;

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

    /// Blocks of the largest class until further pages come from pieces.
    fn fill(blocks: &mut Blocks) -> Vec<usize> {
        let layout = Layout::from_size_align(CLASS_MAX, 8).unwrap();
        let count = PIECES_FROM / CLASS_MAX;
        (0..count).map(|_| take(blocks, layout).addr().get()).collect()
    }

    #[test]
    fn blocks_of_very_many_never_overlap_and_classes_share_pieces() {
        let mut blocks = Blocks::new();
        let mut taken: Vec<_> = fill(&mut blocks).into_iter().map(|at| (at, CLASS_MAX)).collect();
        assert_eq!(blocks.bytes(), PIECES_FROM);
        let mut pieces = Vec::new();
        // A page of each, and the first block of another.
        for (size, align) in [(48, 16), (64, 8), (120, 8), (1024, 16)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            for _ in 0..=PAGE_BYTES / size {
                let at = take(&mut blocks, layout).addr().get();
                assert_eq!(at % align, 0, "{size} {align}");
                taken.push((at, size));
                pieces.push(at / HUGE);
            }
        }
        pieces.dedup();
        assert_eq!((pieces.len(), blocks.bytes()), (1, PIECES_FROM + HUGE));
        taken.sort();
        assert!(taken.windows(2).all(|w| w[1].0 - w[0].0 >= w[0].1));
        drop(blocks);
        assert_eq!(HELD.get(), 0);
    }

    #[test]
    fn less_than_a_tenth_is_held_too_much() {
        for size in [256, 1024] {
            let (mut blocks, mut used) = (Blocks::new(), 0);
            let layout = Layout::from_size_align(size, 8).unwrap();
            while used < PIECES_FROM + 2 * HUGE {
                take(&mut blocks, layout);
                used += size;
                let too_much = blocks.bytes() - used;
                assert!(too_much < PAGE_BYTES || too_much * 10 < used, "{too_much} of {used}");
            }
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
        assert_eq!(blocks.bytes(), 0);
    }
}
