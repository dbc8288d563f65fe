//! Received bytes.
//!
//! Owns [`Chunk`]: a view of one of the core's receive buffers that gives it back when dropped, or a copy
//! of its own. `!Send`: the buffer belongs to its core's ring.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use super::pool::{Pool, Received};

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
    /// First byte not yet consumed.
    first: NonNull<u8>,
    /// The pool of a provided buffer; none for bytes of its own.
    pool: Option<Rc<Pool>>,
    /// Bytes left.
    len: u32,
    /// With a pool: the buffer's id, or [`NO_BUFFER`]. Without: bytes consumed, so that `first - tag` is
    /// where the allocation begins and `tag + len` its size.
    tag: u32,
}

/// The tag of a chunk that waits for a buffer: none has this id.
const NO_BUFFER: u32 = u32::MAX;

const _: () = assert!(size_of::<Option<Chunk>>() == 24);

impl Chunk {
    /// An empty chunk, in whose place what a receive brings is to be: see [`fill`](Self::fill).
    #[inline]
    pub(crate) fn waiting(pool: Rc<Pool>) -> Self {
        Self { first: NonNull::dangling(), pool: Some(pool), len: 0, tag: NO_BUFFER }
    }

    /// The pool that a provided buffer is or will be of.
    #[inline]
    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.pool.as_deref()
    }

    /// The same, shared.
    pub(crate) fn shared_pool(&self) -> Option<Rc<Pool>> {
        self.pool.clone()
    }

    /// Whether nothing has been brought into its place yet.
    #[inline]
    pub(crate) fn is_waiting(&self) -> bool {
        self.tag == NO_BUFFER && self.pool.is_some()
    }

    /// Takes what was brought and leaves a chunk that waits. None if nothing was.
    #[inline]
    pub(crate) fn take_filled(&mut self) -> Option<Self> {
        if self.tag == NO_BUFFER {
            return None;
        }
        let next = Self::waiting(self.pool.clone()?);
        Some(std::mem::replace(self, next))
    }

    /// Makes a waiting chunk what a completion brought in buffer `bid`: the buffer itself, a copy if they run
    /// low, or as empty as it was.
    #[inline]
    pub(crate) fn fill(&mut self, bid: u16, len: u32, member: u32) {
        if let Some(copy) = self.fill_unless_copied(bid, len, member) {
            *self = copy;
        }
    }

    /// As [`fill`](Self::fill), but gives a copy back and goes on waiting.
    #[inline]
    pub(crate) fn fill_unless_copied(&mut self, bid: u16, len: u32, member: u32) -> Option<Self> {
        let pool = self.pool.as_ref()?;
        debug_assert_eq!(self.tag, NO_BUFFER);
        match pool.received(bid, len, member) {
            Received::Buffer(first) => {
                self.first = first;
                self.len = len;
                self.tag = u32::from(bid);
                None
            }
            Received::Copy(copy) => Some(copy),
            Received::Nothing => None,
        }
    }

    /// A chunk of its own with these bytes.
    ///
    /// # Panics
    /// With more than `u32::MAX` bytes.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("a chunk has at most 4 GiB");
        let this = Self::zeroed(len);
        // SAFETY: a fresh allocation of `len` bytes overlaps nothing.
        unsafe { this.first.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        this
    }

    /// A chunk of its own with `len` zeros.
    pub(crate) fn zeroed(len: u32) -> Self {
        let first = if len == 0 {
            NonNull::dangling()
        } else {
            let layout = Self::layout(len as usize);
            // SAFETY: the layout has a size above 0.
            let place = unsafe { alloc_zeroed(layout) };
            NonNull::new(place).unwrap_or_else(|| handle_alloc_error(layout))
        };
        Self { first, pool: None, len, tag: 0 }
    }

    /// Where the bytes lie. A receive writes there while nobody else uses the chunk.
    pub(crate) fn address(&self) -> *mut u8 {
        self.first.as_ptr()
    }

    /// Drops the first `n` bytes from the view.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len as usize, "advance by {n} of a chunk of {} bytes", self.len);
        if self.pool.is_none() {
            self.tag += n as u32;
        }
        self.len -= n as u32;
        // SAFETY: at most `len` bytes further, so within the buffer or one past its end.
        self.first = unsafe { self.first.add(n) };
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

    fn layout(len: usize) -> Layout {
        Layout::array::<u8>(len).expect("u32 bytes fit into a layout")
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer is ours until dropped, and `len` bytes from `first` on are initialised: by the
        // kernel, by a copy, or with zeros.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len as usize) }
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
    #[inline]
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            if self.tag != NO_BUFFER {
                pool.give_back(self.tag as u16);
            }
            return;
        }
        let len = (self.tag + self.len) as usize;
        if len > 0 {
            // SAFETY: without a pool this is what `zeroed` allocated, `tag` bytes before `first`, with this
            // very size.
            unsafe { dealloc(self.first.as_ptr().sub(self.tag as usize), Self::layout(len)) };
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
