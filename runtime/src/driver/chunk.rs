//! Received bytes.
//!
//! Owns [`Chunk`]: a view of one of the core's receive buffers that gives it back when dropped, or a copy
//! of its own. `!Send`: the buffer belongs to its core's ring.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use super::pool::Pool;

/// Bytes that a socket received.
///
/// Derefs to them. Dropping it gives the buffer back to its core, so hold it no longer than needed: a
/// socket that holds more than its quota (8 by default) gets copies from then on. It stays good after its
/// loop is gone.
///
/// ```compile_fail
/// fn must_be_send<T: Send>() {}
/// must_be_send::<coreloop::buf::Chunk>();
/// ```
pub struct Chunk {
    /// The pool of a provided buffer; none for bytes of its own.
    pool: Option<Rc<Pool>>,
    place: Place,
    /// First byte not yet consumed.
    start: u32,
    /// Bytes left. For a copy, `start + len` is the size of its allocation.
    len: u32,
}

#[derive(Clone, Copy)]
union Place {
    bid: u16,
    own: NonNull<u8>,
}

const _: () = assert!(size_of::<Chunk>() == 24);

impl Chunk {
    pub(super) fn provided(pool: Rc<Pool>, bid: u16, len: u32) -> Self {
        Self { pool: Some(pool), place: Place { bid }, start: 0, len }
    }

    /// A chunk of its own with these bytes.
    ///
    /// # Panics
    /// With more than `u32::MAX` bytes.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("a chunk has at most 4 GiB");
        let own = if len == 0 {
            NonNull::dangling()
        } else {
            let layout = Self::layout(bytes.len());
            // SAFETY: the layout has a size above 0.
            let Some(own) = NonNull::new(unsafe { alloc(layout) }) else {
                handle_alloc_error(layout)
            };
            // SAFETY: a fresh allocation of `len` bytes overlaps nothing.
            unsafe { own.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            own
        };
        Self { pool: None, place: Place { own }, start: 0, len }
    }

    /// Drops the first `n` bytes from the view.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len as usize, "advance by {n} of a chunk of {} bytes", self.len);
        self.start += n as u32;
        self.len -= n as u32;
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether no bytes are left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this is a copy that holds no buffer of the core's ring.
    pub fn is_copy(&self) -> bool {
        self.pool.is_none()
    }

    fn first(&self) -> *const u8 {
        let base = match &self.pool {
            // SAFETY: with a pool, the place is a buffer id.
            Some(pool) => pool.address(unsafe { self.place.bid }),
            // SAFETY: without a pool, the place is an address.
            None => unsafe { self.place.own },
        };
        // SAFETY: `start` never exceeds what the buffer held at first.
        unsafe { base.as_ptr().add(self.start as usize) }
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<u8>(len).expect("u32 bytes fit into a layout")
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer is ours until dropped, and `len` bytes from `first` on were written by the
        // kernel or copied in.
        unsafe { std::slice::from_raw_parts(self.first(), self.len as usize) }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("len", &self.len).field("copy", &self.is_copy()).finish()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        match self.pool.take() {
            // SAFETY: with a pool, the place is a buffer id.
            Some(pool) => pool.give_back(unsafe { self.place.bid }),
            None => {
                let len = (self.start + self.len) as usize;
                if len > 0 {
                    // SAFETY: without a pool the place is what `copy_of` allocated, with this very size.
                    unsafe { dealloc(self.place.own.as_ptr(), Self::layout(len)) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_consumed_from_the_front() {
        let mut chunk = Chunk::copy_of(b"hello");
        chunk.advance(2);
        assert_eq!(&*chunk, b"llo");
        chunk.advance(3);
        assert!(chunk.is_empty());
        assert!(Chunk::copy_of(b"").is_empty());
    }

    #[test]
    #[should_panic(expected = "advance by 2 of a chunk of 1 bytes")]
    fn advancing_too_far_panics() {
        Chunk::copy_of(b"x").advance(2);
    }
}
