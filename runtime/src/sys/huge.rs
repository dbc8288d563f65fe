//! Huge pages, for who holds much.
//!
//! Owns their size and how they are asked for: memory that begins at one and that nobody has touched is
//! advised, and the kernel gives them where `transparent_hugepage` is `madvise` or `always`. Memory that is
//! touched for the first time costs some four times as much in pages of 4 KiB as in those of 2 MiB. The price
//! is that such a page is cleared in one go, some 0.2 ms, that a kernel whose `defrag` is `madvise` (the
//! default) or `always` may first make one by moving others, and that all of it is held once a byte is used:
//! who asks says how much that is at most.

use std::ptr::NonNull;

/// Bytes of a huge page; those of other sizes are asked for all the same, where they are smaller.
pub(crate) const HUGE: usize = 2 << 20;

/// Asks for huge pages for memory that nobody has touched. Where there are none it stays as it is.
#[cold]
pub(crate) fn ask_for_huge_pages(start: NonNull<u8>, bytes: usize) {
    if cfg!(miri) {
        return;
    }
    // SAFETY: advice on memory of ours, which does not change what it holds.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
}
