//! Pages that blocks are cut from.
//!
//! Owns them, each from the allocator at first. A core that has come to [`PIECES_FROM`] bytes of them cuts
//! further ones, when they are needed, from pieces that begin at a huge page and are asked for as such: a
//! million tasks would take tens of thousands of page faults otherwise, and as many entries of the TLB. The
//! price is that whoever takes a piece's first page, which is a spawn, waits until the kernel has cleared all
//! of it, some 0.2 ms (see [`huge`](crate::sys::huge)), and that the last piece is held as a whole. All pages
//! are given back together.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::sys::huge::{HUGE, ask_for_huge_pages};

/// 16 blocks of the largest class, some 80 of an ordinary one.
pub(super) const PAGE_BYTES: usize = 16 * 1024;

/// Alignment of a page.
pub(super) const PAGE_ALIGN: usize = 16;

const PIECE_PAGES: usize = HUGE / PAGE_BYTES;

/// Bytes of single pages from which on further ones are cut from pieces. What is held of the last piece but
/// not used is less than a tenth of what is used: of tasks with blocks of 64 bytes, the smallest futures',
/// fewer than 7 bytes each, so that at any number of them a task that idles takes fewer than 80 beyond its
/// future, header, slot and all. From two huge pages on, as segments ask for them, it could be 104.
pub(super) const PIECES_FROM: usize = 10 * HUGE;

pub(super) struct Pages {
    single: Vec<NonNull<u8>>,
    /// All cut up but for the last one.
    pieces: Vec<NonNull<u8>>,
    /// Pages that were cut from the last piece; without one: as if it were cut up.
    cut: usize,
}

impl Pages {
    pub(super) fn new() -> Self {
        Self { single: Vec::new(), pieces: Vec::new(), cut: PIECE_PAGES }
    }

    /// Bytes of all of them, and of what is left of the last piece.
    pub(super) fn bytes(&self) -> usize {
        self.single.len() * PAGE_BYTES + self.pieces.len() * HUGE
    }

    /// Another one, which nobody else knows.
    pub(super) fn take(&mut self) -> NonNull<u8> {
        if self.single.len() < PIECES_FROM / PAGE_BYTES {
            let page = allocate(single());
            self.single.push(page);
            return page;
        }
        if self.cut == PIECE_PAGES {
            let piece = allocate(piece());
            ask_for_huge_pages(piece, HUGE);
            self.pieces.push(piece);
            self.cut = 0;
        }
        let last = self.pieces.last().expect("just added, unless one was there");
        // SAFETY: fewer than a piece's pages were cut from it: this one lies within it.
        let page = unsafe { last.add(self.cut * PAGE_BYTES) };
        self.cut += 1;
        page
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for page in self.single.drain(..) {
            // SAFETY: allocated with this layout, and whoever took it is done with it.
            unsafe { give_back(page, single()) };
        }
        for whole in self.pieces.drain(..) {
            // SAFETY: as above, of each of its pages.
            unsafe { give_back(whole, piece()) };
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout has a size above 0.
    let memory = unsafe { alloc(layout) };
    #[cfg(test)]
    tests::HELD.set(tests::HELD.get() + layout.size());
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

/// # Safety
/// It came from [`allocate`] with this layout, and nobody uses it any more.
unsafe fn give_back(memory: NonNull<u8>, layout: Layout) {
    // SAFETY: as the caller promised.
    unsafe { dealloc(memory.as_ptr(), layout) };
    #[cfg(test)]
    tests::HELD.set(tests::HELD.get() - layout.size());
}

fn single() -> Layout {
    Layout::from_size_align(PAGE_BYTES, PAGE_ALIGN).expect("a constant layout")
}

fn piece() -> Layout {
    Layout::from_size_align(HUGE, HUGE).expect("a constant layout")
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Bytes that the pages of this thread's cores hold.
        pub(in super::super) static HELD: Cell<usize> = const { Cell::new(0) };
    }

    const SINGLE: usize = PIECES_FROM / PAGE_BYTES;

    #[test]
    fn pages_of_one_that_holds_much_are_cut_from_pieces() {
        let mut pages = Pages::new();
        let taken: Vec<_> =
            (0..SINGLE + 2 * PIECE_PAGES).map(|_| pages.take().addr().get()).collect();
        assert!(taken.iter().all(|page| page % PAGE_ALIGN == 0));
        for piece in taken[SINGLE..].chunks(PIECE_PAGES) {
            assert_eq!(piece[0] % HUGE, 0);
            for (at, page) in piece.iter().enumerate() {
                assert_eq!(*page, piece[0] + at * PAGE_BYTES);
            }
        }
        let mut sorted = taken;
        sorted.sort();
        assert!(sorted.windows(2).all(|w| w[1] - w[0] >= PAGE_BYTES));
    }

    #[test]
    fn every_page_is_given_back_and_counted_until_then() {
        for count in [0, 1, SINGLE, SINGLE + 1, SINGLE + PIECE_PAGES, SINGLE + PIECE_PAGES + 1] {
            let mut pages = Pages::new();
            for _ in 0..count {
                pages.take();
                assert_eq!(pages.bytes(), HELD.get());
            }
            assert!(pages.bytes() >= count * PAGE_BYTES);
            drop(pages);
            assert_eq!(HELD.get(), 0, "{count} pages");
        }
    }
}
