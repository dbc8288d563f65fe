//! Anonymous memory that the kernel may write while nobody looks.
//!
//! It is handled by address only, never by reference: a `&mut` to a buffer that a receive is
//! about to fill would promise the compiler that nobody else writes there.

use std::io;
use std::ptr::{self, NonNull};

/// The alignment that a huge page needs.
const HUGE_PAGE: usize = 2 << 20;

/// Page-aligned, zeroed, and never unmapped: a receive in flight may write to it until the kernel
/// has torn the ring down, which it does some time after the ring is closed. The process ends
/// with its loop, so nothing is lost.
#[derive(Clone, Copy)]
pub struct Region {
    start: NonNull<u8>,
}

impl Region {
    /// Maps `length` bytes, which cost memory only where they are touched; on huge pages if
    /// `huge` and the system agrees.
    pub fn new(length: usize, huge: bool) -> io::Result<Self> {
        let mapping_length =
            if huge { length.next_multiple_of(HUGE_PAGE) + HUGE_PAGE } else { length };
        // SAFETY: a fresh anonymous mapping touches nothing that exists.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapping_length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast::<u8>())
            .ok_or_else(|| io::Error::other("mapped at address zero"))?;
        let mut start = mapping;
        if huge {
            let skip = mapping.as_ptr().align_offset(HUGE_PAGE);
            // SAFETY: the mapping is longer by a whole huge page than what is asked for; advice
            // about its own memory changes no contents.
            unsafe {
                start = mapping.add(skip);
                libc::madvise(
                    start.as_ptr().cast(),
                    length.next_multiple_of(HUGE_PAGE),
                    libc::MADV_HUGEPAGE,
                );
            }
        }
        Ok(Self { start })
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}
