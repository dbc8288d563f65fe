//! Memory that was freed, while a simulation runs.
//!
//! Owns [`Quarantine`], an allocator for test programs, and the books of a thread that simulates: which
//! stretches the simulated kernel has ([`Held`]), and the blocks that were freed of late. A block that is
//! freed, or moved by a reallocation, while the kernel has a part of it is a finding at that very moment, and
//! stays where it is, so that the kernel's access to it harms nobody. Any other block is overwritten and
//! given back only later: a submission that names it is a finding, and so is a byte of it that has changed
//! by then. Reallocations always move, so that who keeps an old address is found out.
//!
//! Invariants: outside of a simulation, and while the books themselves are kept, blocks go straight to the
//! system's allocator; the books are those of one thread, and blocks that another thread frees are not in
//! them. Addresses decide nothing but these findings.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ptr;

use super::memory::Span;
use crate::planted;

/// Blocks that wait to be given back, and bytes of them all together.
const BLOCKS_MAX: usize = 2048;
const BYTES_MAX: usize = 8 << 20;

/// What a block that was freed is filled with; of a large one, this many bytes at either end.
const POISON: u8 = 0xDD;
const POISONED: usize = 16 * 1024;
static POISON_BYTES: [u8; 2 * POISONED] = [POISON; 2 * POISONED];

/// Findings that are kept.
const FOUND_MAX: usize = 16;

thread_local! {
    /// The books; null while no simulation is on this thread, and while they are being kept.
    static BOOKS: Cell<*mut Books> = const { Cell::new(ptr::null_mut()) };
    /// Simulations of this thread.
    static WORLDS: Cell<usize> = const { Cell::new(0) };
}

/// An allocator by which simulations notice memory that is freed while the kernel has it.
///
/// It is the system's allocator until a simulation runs on the thread. Then a buffer that is freed or moved
/// while an operation on it is in flight fails the simulation, where it happens and with every seed; without
/// it such a buffer is noticed only if its bytes change, or its pages are unmapped. For test programs:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: coreloop::sim::Quarantine = coreloop::sim::Quarantine;
///
/// coreloop::sim::check(3, |sim| {
///     sim.client("only", async || assert_eq!(vec![1, 2].len(), 2));
/// });
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Quarantine;

// SAFETY: every block comes from the system's allocator with the layout that was asked for, and goes back
// there with the same one, once or never.
unsafe impl GlobalAlloc for Quarantine {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if planted::keeps_memory() {
            return;
        }
        let kept = with_books(|books| books.free(Block { addr: block.addr(), layout }, block));
        if kept.is_none() {
            // SAFETY: as above.
            unsafe { System.dealloc(block, layout) };
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if BOOKS.get().is_null() {
            // SAFETY: as above.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller promises that `size` is above 0 and does not overflow with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: a layout of a size above 0; both blocks are at least as long as what is copied, and
        // the old one is given up.
        unsafe {
            let moved = System.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A block of so many bytes was freed with so many of them in the kernel's hands.
    Freed { block: usize, held: usize },
    /// So many bytes were named by a submission although a block with them had been freed.
    Named { len: usize },
    /// A block of so many bytes was written to after it had been freed.
    Written { block: usize },
}

struct Block {
    addr: usize,
    layout: Layout,
}

impl Block {
    fn meets(&self, span: Span) -> bool {
        let from = span.addr as usize;
        span.len > 0 && from < self.addr + self.layout.size() && self.addr < from + span.len
    }

    /// The stretches that are filled when it is freed.
    fn poisoned(&self) -> [(usize, usize); 2] {
        let size = self.layout.size();
        if size <= 2 * POISONED {
            return [(0, size), (0, 0)];
        }
        [(0, POISONED), (size - POISONED, POISONED)]
    }
}

#[derive(Default)]
struct Books {
    held: Vec<(u64, Span)>,
    made: u64,
    freed: VecDeque<(Block, *mut u8)>,
    bytes: usize,
    found: Vec<Found>,
}

impl Books {
    fn free(&mut self, block: Block, at: *mut u8) {
        if let Some((_, held)) = self.held.iter().find(|(_, span)| block.meets(*span)) {
            // Never given back: the kernel may still write there.
            return self.find(Found::Freed { block: block.layout.size(), held: held.len });
        }
        for (from, len) in block.poisoned() {
            // SAFETY: within the block, which was given up to the allocator.
            unsafe { at.add(from).write_bytes(POISON, len) };
        }
        self.bytes += block.layout.size();
        self.freed.push_back((block, at));
        while self.freed.len() > BLOCKS_MAX || self.bytes > BYTES_MAX {
            self.give_back();
        }
    }

    /// Gives the oldest block back to the system.
    fn give_back(&mut self) {
        let Some((block, at)) = self.freed.pop_front() else { return };
        self.bytes -= block.layout.size();
        let intact = block.poisoned().into_iter().all(|(from, len)| {
            // SAFETY: within the block, which is the allocator's and was filled when it was freed.
            let bytes = unsafe { std::slice::from_raw_parts(at.add(from), len) };
            *bytes == POISON_BYTES[..len]
        });
        if !intact {
            self.find(Found::Written { block: block.layout.size() });
        }
        // SAFETY: it came from the system's allocator with this layout and is in no book any more.
        unsafe { System.dealloc(at, block.layout) };
    }

    fn flush(&mut self) {
        while !self.freed.is_empty() {
            self.give_back();
        }
    }

    fn find(&mut self, found: Found) {
        if self.found.len() < FOUND_MAX {
            self.found.push(found);
        }
    }

    fn look_at(&mut self, span: Span) {
        if self.freed.iter().any(|(block, _)| block.meets(span)) {
            self.find(Found::Named { len: span.len });
        }
    }
}

/// None if there are no books, or they are open already: what keeping them allocates and frees is not theirs.
fn with_books<R>(f: impl FnOnce(&mut Books) -> R) -> Option<R> {
    let books = BOOKS.replace(ptr::null_mut());
    if books.is_null() {
        return None;
    }
    // SAFETY: made by `enter`, freed by `leave` of the same thread; nobody else has the pointer while it
    // is taken out of its place.
    let result = f(unsafe { &mut *books });
    BOOKS.set(books);
    Some(result)
}

/// A simulation on this thread begins.
pub(super) fn enter() {
    WORLDS.set(WORLDS.get() + 1);
    if WORLDS.get() == 1 {
        BOOKS.set(Box::into_raw(Box::default()));
    }
}

/// A simulation on this thread is over; with the last one all blocks are given back.
pub(super) fn leave() {
    WORLDS.set(WORLDS.get() - 1);
    if WORLDS.get() > 0 {
        return;
    }
    let books = BOOKS.replace(ptr::null_mut());
    if !books.is_null() {
        // SAFETY: made by `enter`, and no longer in its place.
        let mut books = unsafe { Box::from_raw(books) };
        books.flush();
    }
}

/// Looks at all blocks that were freed, and gives them back.
pub(super) fn flush() {
    with_books(Books::flush);
}

/// What was noticed since the last time.
pub(super) fn take_found() -> Vec<Found> {
    with_books(|books| std::mem::take(&mut books.found)).unwrap_or_default()
}

/// Notes that a submission names these bytes, without keeping them.
pub(super) fn look_at(span: Span) {
    with_books(|books| books.look_at(span));
}

/// A stretch of memory that the simulated kernel has.
#[derive(Debug)]
pub(super) struct Held(u64);

impl Held {
    pub(super) fn new(span: Span) -> Self {
        let id = with_books(|books| {
            books.look_at(span);
            books.made += 1;
            books.held.push((books.made, span));
            books.made
        });
        Self(id.unwrap_or(0))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        with_books(|books| books.held.retain(|(id, _)| *id != self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span_of(bytes: &[u8]) -> Span {
        Span { addr: bytes.as_ptr().addr() as u64, len: bytes.len() }
    }

    /// Runs `f` with books on this thread; what was noticed.
    fn noticed(f: impl FnOnce()) -> Vec<Found> {
        enter();
        f();
        let found = take_found();
        leave();
        found
    }

    #[test]
    fn sim_what_is_let_go_before_it_is_freed_is_fine() {
        let found = noticed(|| {
            let bytes = vec![1u8; 100];
            drop(Held::new(span_of(&bytes)));
            drop(bytes);
        });
        assert_eq!(found, []);
    }

    #[test]
    fn sim_a_block_that_is_freed_or_moved_is_noticed_at_once() {
        let found = noticed(|| {
            let mut bytes = vec![1u8; 100];
            let held = Held::new(span_of(&bytes[10..20]));
            bytes.reserve_exact(4_000);
            assert_eq!(bytes[99], 1);
            drop(held);
        });
        assert_eq!(found, [Found::Freed { block: 100, held: 10 }]);
    }

    #[test]
    fn sim_a_block_that_was_freed_before_is_noticed() {
        let found = noticed(|| {
            let bytes = vec![1u8; 100];
            let span = span_of(&bytes);
            drop(bytes);
            drop(Held::new(span));
        });
        assert_eq!(found, [Found::Named { len: 100 }]);
    }

    #[test]
    fn sim_a_write_to_a_block_that_was_freed_is_noticed() {
        let found = noticed(|| {
            let bytes = vec![1u8; 100];
            let at = bytes.as_ptr().cast_mut();
            drop(bytes);
            // SAFETY: none is needed: the block is in quarantine and has not been given back.
            unsafe { at.add(50).write_volatile(7) };
            for _ in 0..=BLOCKS_MAX {
                drop(std::hint::black_box(vec![2u8; 10]));
            }
        });
        assert_eq!(found, [Found::Written { block: 100 }]);
    }

    #[test]
    fn sim_a_write_to_a_block_that_was_freed_last_is_noticed_by_a_flush() {
        let found = noticed(|| {
            let bytes = vec![1u8; 100];
            let at = bytes.as_ptr().cast_mut();
            drop(bytes);
            // SAFETY: as above.
            unsafe { at.write_volatile(7) };
            flush();
        });
        assert_eq!(found, [Found::Written { block: 100 }]);
    }

    #[test]
    fn sim_large_blocks_are_filled_at_both_ends() {
        let block = Block { addr: 0, layout: Layout::new::<[u8; 100_000]>() };
        assert_eq!(block.poisoned(), [(0, POISONED), (100_000 - POISONED, POISONED)]);
        assert!(block.meets(Span { addr: 99_999, len: 5 }));
        assert!(!block.meets(Span { addr: 100_000, len: 5 }));
        assert!(!block.meets(Span { addr: 5, len: 0 }));
    }
}
