//! Received bytes.
//!
//! Owns [`Chunk`]: a view of one of the core's receive buffers that gives it back when dropped, or a copy
//! of its own. `!Send`: the buffer belongs to its core's ring. A chunk is one word, since every layer that
//! it passes through moves it; what it knows lies in a [`Head`]: for each buffer of a ring one beside the
//! ring, for a copy one before its bytes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use super::pool::{NOBODY, Pool};

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
// Invariant: the head is this chunk's alone. A copy's is the beginning of its allocation; a buffer's lies in
// its pool, whose life it prolongs by the count that it holds.
pub struct Chunk(NonNull<Head>);

const _: () = assert!(size_of::<Option<Chunk>>() == size_of::<usize>());

/// What is known of a chunk.
pub(super) struct Head {
    /// First byte not yet consumed.
    first: Cell<NonNull<u8>>,
    /// The pool of a buffer that a chunk holds; else none.
    pool: Cell<Option<Rc<Pool>>>,
    /// Bytes left.
    len: Cell<u32>,
    /// The buffer's id, or [`COPY`].
    bid: u32,
    /// Of a copy: how many bytes were consumed. Of a buffer: the member whose it is, or [`NOBODY`].
    pub(super) tag: Cell<u32>,
    /// The buffer was not taken by the kernel out of the ring, but named to it.
    pub(super) named: Cell<bool>,
}

/// Instead of a buffer's id.
const COPY: u32 = u32::MAX;

impl Head {
    /// Of a buffer that no chunk holds.
    pub(super) fn of_buffer(bid: u16) -> Self {
        Self {
            first: Cell::new(NonNull::dangling()),
            pool: Cell::new(None),
            len: Cell::new(0),
            bid: u32::from(bid),
            tag: Cell::new(NOBODY),
            named: Cell::new(false),
        }
    }
}

impl Chunk {
    /// The first `len` bytes of a buffer.
    ///
    /// # Safety
    /// `head` lies in `pool` and is that of a buffer which begins at `first`, has `len` bytes that were
    /// written, and is this chunk's alone until [`Pool::give_back`].
    #[inline]
    pub(super) unsafe fn of_buffer(
        head: NonNull<Head>,
        pool: Rc<Pool>,
        first: NonNull<u8>,
        len: u32,
    ) -> Self {
        // SAFETY: it lies in a pool that lives.
        let known = unsafe { head.as_ref() };
        known.first.set(first);
        known.len.set(len);
        known.pool.set(Some(pool));
        Self(head)
    }

    /// A chunk of its own with these bytes.
    ///
    /// # Panics
    /// With more than `u32::MAX` bytes.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).expect("a chunk has at most 4 GiB");
        let this = Self::zeroed(len);
        // SAFETY: a fresh allocation of `len` bytes overlaps nothing.
        unsafe { this.address().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        this
    }

    /// A chunk of its own with `len` zeros.
    pub(crate) fn zeroed(len: u32) -> Self {
        let layout = Self::layout(len as usize);
        // SAFETY: with a head in it the layout has a size above 0.
        let place = unsafe { alloc_zeroed(layout) };
        let place = NonNull::new(place).unwrap_or_else(|| handle_alloc_error(layout));
        let head = place.cast::<Head>();
        // SAFETY: the layout begins with a head and has `len` bytes behind it.
        unsafe {
            let first = Cell::new(place.add(size_of::<Head>()));
            let (pool, len) = (Cell::new(None), Cell::new(len));
            let (tag, named) = (Cell::new(0), Cell::new(false));
            head.write(Head { first, pool, len, bid: COPY, tag, named });
        }
        Self(head)
    }

    /// Where the buffer's holder is entered; none for a copy.
    #[inline]
    pub(super) fn holder(&self) -> Option<&Cell<u32>> {
        let head = self.head();
        (head.bid != COPY).then_some(&head.tag)
    }

    /// Cuts the view to its first `len` bytes; it has at least so many.
    #[inline]
    pub(super) fn cut(&mut self, len: u32) {
        let head = self.head();
        debug_assert!(head.bid != COPY, "a copy's length tells what to free");
        head.len.set(len.min(head.len.get()));
    }

    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: the type's invariant.
        unsafe { self.0.as_ref() }
    }

    /// Where the bytes lie. A receive writes there while nobody else uses the chunk.
    #[inline]
    pub(crate) fn address(&self) -> *mut u8 {
        self.head().first.get().as_ptr()
    }

    /// Drops the first `n` bytes from the view.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, n: usize) {
        let (head, len) = (self.head(), self.len());
        assert!(n <= len, "advance by {n} of a chunk of {len} bytes");
        if head.bid == COPY {
            head.tag.set(head.tag.get() + n as u32);
        }
        head.len.set((len - n) as u32);
        // SAFETY: at most `len` bytes further, so within the buffer or one past its end.
        head.first.set(unsafe { head.first.get().add(n) });
    }

    /// Bytes left.
    #[inline]
    pub fn len(&self) -> usize {
        self.head().len.get() as usize
    }

    /// Whether no bytes are left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is a copy that holds no buffer of the core's ring.
    pub fn is_copy(&self) -> bool {
        self.head().bid == COPY
    }

    fn layout(len: usize) -> Layout {
        let bytes = Layout::array::<u8>(len).expect("u32 bytes fit into a layout");
        let (both, at) = Layout::new::<Head>().extend(bytes).expect("so do they with a head");
        debug_assert_eq!(at, size_of::<Head>());
        both
    }

    #[cold]
    fn free_copy(&mut self) {
        let head = self.head();
        if head.bid == COPY {
            let layout = Self::layout((head.tag.get() + head.len.get()) as usize);
            // SAFETY: a copy's head begins what `zeroed` allocated, for as many bytes as were consumed and
            // are left. Nobody looks at it again, and it has no pool to drop.
            unsafe { dealloc(self.0.as_ptr().cast(), layout) };
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer is ours until dropped, and `len` bytes from `first` on are initialised: by the
        // kernel, by a copy, or with zeros.
        unsafe { std::slice::from_raw_parts(self.address(), self.len()) }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("len", &self.len()).field("copy", &self.is_copy()).finish()
    }
}

impl Drop for Chunk {
    #[inline]
    fn drop(&mut self) {
        // The pool may go with its last chunk, and all heads with it: none is looked at after this.
        match self.head().pool.take() {
            Some(pool) => {
                // Nothing in there panics, and what would unwind through it costs each chunk registers.
                let pool = ManuallyDrop::new(pool);
                pool.give_back(self.head().bid as u16);
                drop(ManuallyDrop::into_inner(pool));
            }
            None => self.free_copy(),
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
