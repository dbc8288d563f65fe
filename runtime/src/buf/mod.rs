//! Memory that ops read from and write to.
//!
//! Owns the contracts [`IoBuf`] and [`IoBufMut`], and [`BufResult`], which hands a buffer back on both
//! paths. A buffer goes by value into the op's slot before the kernel hears of its address: what a future
//! merely borrows could be freed under the kernel.

use std::fmt;
use std::io;

pub use crate::driver::chunk::Chunk;

/// A buffer that an op may read from.
///
/// # Safety
/// `as_ptr` points at `len` initialised bytes that stay valid and unmoved while the value is neither used
/// nor dropped, also when the value itself is moved or leaked.
pub unsafe trait IoBuf: 'static {
    /// The first byte.
    fn as_ptr(&self) -> *const u8;

    /// How many bytes are initialised.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A buffer that an op may write to.
///
/// # Safety
/// `as_mut_ptr` points at `capacity` writable bytes under the conditions of [`IoBuf`], reachable through
/// nothing but this value. After `set_len(n)`, `n` bytes count as initialised.
pub unsafe trait IoBufMut: IoBuf {
    /// The first byte.
    fn as_mut_ptr(&mut self) -> *mut u8;

    /// How many bytes there is room for.
    fn capacity(&self) -> usize;

    /// Says that the first `n` bytes, and no others, hold data now.
    ///
    /// # Safety
    /// The first `n` bytes are initialised, and `n` is at most the capacity.
    unsafe fn set_len(&mut self, n: usize);
}

// SAFETY: a Vec's heap memory stays put when the Vec moves.
unsafe impl IoBuf for Vec<u8> {
    fn as_ptr(&self) -> *const u8 {
        Vec::as_ptr(self)
    }

    fn len(&self) -> usize {
        Vec::len(self)
    }
}

// SAFETY: as above; a Vec owns its memory alone.
unsafe impl IoBufMut for Vec<u8> {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        Vec::as_mut_ptr(self)
    }

    fn capacity(&self) -> usize {
        Vec::capacity(self)
    }

    unsafe fn set_len(&mut self, n: usize) {
        // SAFETY: passed on to the caller.
        unsafe { Vec::set_len(self, n) };
    }
}

// SAFETY: a String's heap memory stays put when the String moves.
unsafe impl IoBuf for String {
    fn as_ptr(&self) -> *const u8 {
        str::as_ptr(self)
    }

    fn len(&self) -> usize {
        str::len(self)
    }
}

// SAFETY: static memory stays put.
unsafe impl IoBuf for &'static [u8] {
    fn as_ptr(&self) -> *const u8 {
        <[u8]>::as_ptr(self)
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

// SAFETY: static memory stays put.
unsafe impl<const N: usize> IoBuf for &'static [u8; N] {
    fn as_ptr(&self) -> *const u8 {
        <[u8]>::as_ptr(*self)
    }

    fn len(&self) -> usize {
        N
    }
}

// SAFETY: static memory stays put.
unsafe impl IoBuf for &'static str {
    fn as_ptr(&self) -> *const u8 {
        str::as_ptr(self)
    }

    fn len(&self) -> usize {
        str::len(self)
    }
}

// SAFETY: shared heap memory that nobody may write to and that stays put while a reference is held.
unsafe impl IoBuf for std::rc::Rc<[u8]> {
    fn as_ptr(&self) -> *const u8 {
        <[u8]>::as_ptr(self)
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

// SAFETY: shared heap memory that nobody may write to and that stays put while a reference is held.
unsafe impl IoBuf for std::sync::Arc<[u8]> {
    fn as_ptr(&self) -> *const u8 {
        <[u8]>::as_ptr(self)
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

// SAFETY: the receive buffer, or the copy on the heap, stays put when the chunk moves.
unsafe impl IoBuf for Chunk {
    fn as_ptr(&self) -> *const u8 {
        <[u8]>::as_ptr(self)
    }

    fn len(&self) -> usize {
        Chunk::len(self)
    }
}

/// Makes `bytes` the content of `buf`.
///
/// # Panics
/// If they do not fit into its capacity.
pub fn fill<B: IoBufMut>(buf: &mut B, bytes: &[u8]) {
    assert!(bytes.len() <= buf.capacity(), "{} bytes into {}", bytes.len(), buf.capacity());
    // SAFETY: the buffer has room for them, reachable through `buf` alone (IoBufMut), so they can't
    // overlap; afterwards they are initialised.
    unsafe {
        buf.as_mut_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        buf.set_len(bytes.len());
    }
}

/// The end of an op that borrowed a buffer: what came out, and the buffer on both paths.
pub type BufResult<T, B> = Result<(T, B), BufError<B>>;

/// An I/O error with the buffer that the op had. `?` turns it into an [`io::Error`].
pub struct BufError<B> {
    error: io::Error,
    buf: B,
    transferred: usize,
}

impl<B> BufError<B> {
    /// An error with its buffer, before any byte was transferred.
    pub fn new(error: io::Error, buf: B) -> Self {
        Self::after(0, error, buf)
    }

    /// An error that came after so many bytes of the buffer had been transferred.
    pub fn after(transferred: usize, error: io::Error, buf: B) -> Self {
        Self { error, buf, transferred }
    }

    /// Bytes that had been transferred before: from the buffer's start, exactly. A write that was called
    /// off goes on with the rest.
    pub fn transferred(&self) -> usize {
        self.transferred
    }

    /// The error.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The buffer, with what had been transferred.
    pub fn into_buf(self) -> B {
        self.buf
    }

    /// Both.
    pub fn into_parts(self) -> (io::Error, B) {
        (self.error, self.buf)
    }
}

impl<B> From<BufError<B>> for io::Error {
    fn from(e: BufError<B>) -> io::Error {
        e.error
    }
}

impl<B> fmt::Debug for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BufError").field(&self.error).finish()
    }
}

impl<B> fmt::Display for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B> std::error::Error for BufError<B> {}
