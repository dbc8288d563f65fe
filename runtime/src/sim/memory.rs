//! The users' memory, as a kernel reaches it.
//!
//! Owns copying in and out of addresses that submissions name, and [`Hold`]: what the kernel has of an op
//! and how it looked when it was handed over. Copies go through `process_vm_readv(2)`, as the kernel's own
//! do: memory that is not mapped any more is an error (EFAULT) and no crash. With `CORELOOP_SIM_DIRECT` in
//! the environment they are plain loads and stores, so that AddressSanitizer, which instruments those and
//! not the kernel's, names a freed buffer at the very access; memory that was unmapped then ends the
//! process. So they are where the system does not allow the calls, which is said once.

use std::ptr;
use std::sync::OnceLock;

use super::quarantine::Held;

/// Memory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault;

/// Bytes of a hold that are looked at, from either end: the cost of a check is bounded.
const LOOK_BYTES: usize = 32 * 1024;

/// A stretch of a user's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) addr: u64,
    pub(super) len: usize,
}

/// Memory that the kernel has until a completion, or until this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    _held: Held,
    pub(super) span: Span,
    /// The kernel will write there.
    pub(super) writes: bool,
    sum: u64,
}

impl Hold {
    /// Notes how the memory looks now.
    pub(super) fn of(span: Span, writes: bool) -> Result<Self, Fault> {
        Ok(Self { _held: Held::new(span), span, writes, sum: look(span)? })
    }

    /// Whether it still looks so.
    pub(super) fn is_untouched(&self) -> Result<bool, Fault> {
        Ok(look(self.span)? == self.sum)
    }

    /// The kernel itself has written.
    pub(super) fn renew(&mut self) -> Result<(), Fault> {
        self.sum = look(self.span)?;
        Ok(())
    }
}

fn look(span: Span) -> Result<u64, Fault> {
    let Span { addr, len } = span;
    if len <= 2 * LOOK_BYTES {
        return Ok(sum(0, &copy_in(span)?));
    }
    let first = copy_in(Span { addr, len: LOOK_BYTES })?;
    let last = copy_in(Span { addr: addr + (len - LOOK_BYTES) as u64, len: LOOK_BYTES })?;
    Ok(sum(sum(0, &first), &last))
}

fn sum(seed: u64, bytes: &[u8]) -> u64 {
    let mut sum = seed ^ bytes.len() as u64;
    let mix =
        |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        sum = mix(sum, u64::from_le_bytes(word.try_into().expect("8 bytes")));
    }
    words.remainder().iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
}

/// What lies there.
pub(super) fn copy_in(span: Span) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0u8; span.len];
    read_into(span.addr, &mut bytes)?;
    Ok(bytes)
}

/// One plain value.
///
/// # Safety
/// Any bytes are a valid `T`.
pub(super) unsafe fn read<T: Copy + Default>(addr: u64) -> Result<T, Fault> {
    let mut value = T::default();
    let place: *mut T = &mut value;
    // SAFETY: `value` is `size_of::<T>()` live bytes, and any bytes are valid (the caller).
    let bytes = unsafe { std::slice::from_raw_parts_mut(place.cast::<u8>(), size_of::<T>()) };
    read_into(addr, bytes)?;
    Ok(value)
}

/// One plain value, the other way.
pub(super) fn write<T: Copy>(addr: u64, value: &T) -> Result<(), Fault> {
    // SAFETY: `value` is so many live bytes; `abi` types have no padding.
    let bytes = unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) };
    copy_out(addr, bytes)
}

fn read_into(addr: u64, bytes: &mut [u8]) -> Result<(), Fault> {
    if bytes.is_empty() {
        return Ok(());
    }
    if is_direct() {
        // SAFETY: the contract of `Kernel::enter` is that this memory is valid; if it is not, that is what
        // the sanitizer is there to say.
        unsafe { ptr::copy(addr as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        return Ok(());
    }
    let (ours, theirs) = vectors(bytes.as_mut_ptr(), addr, bytes.len());
    // SAFETY: `ours` is live memory of that length; the kernel checks `theirs`.
    let n = unsafe { libc::process_vm_readv(libc::getpid(), &ours, 1, &theirs, 1, 0) };
    if n == bytes.len() as isize { Ok(()) } else { Err(Fault) }
}

/// Puts `bytes` there.
pub(super) fn copy_out(addr: u64, bytes: &[u8]) -> Result<(), Fault> {
    if bytes.is_empty() {
        return Ok(());
    }
    if is_direct() {
        // SAFETY: as in `read_into`.
        unsafe { ptr::copy(bytes.as_ptr(), addr as *mut u8, bytes.len()) };
        return Ok(());
    }
    let (ours, theirs) = vectors(bytes.as_ptr().cast_mut(), addr, bytes.len());
    // SAFETY: `ours` is live memory of that length, only read; the kernel checks `theirs`, which the
    // contract of `Kernel::enter` makes ours to write.
    let n = unsafe { libc::process_vm_writev(libc::getpid(), &ours, 1, &theirs, 1, 0) };
    if n == bytes.len() as isize { Ok(()) } else { Err(Fault) }
}

fn vectors(ours: *mut u8, theirs: u64, len: usize) -> (libc::iovec, libc::iovec) {
    let ours = libc::iovec { iov_base: ours.cast(), iov_len: len };
    (ours, libc::iovec { iov_base: theirs as *mut _, iov_len: len })
}

/// Whether to go there ourselves: asked for, or the system does not allow the other way.
fn is_direct() -> bool {
    is_asked_direct() || is_denied()
}

/// Whether the environment asks for it, for a run under a sanitizer that keeps books of its own.
pub(super) fn is_asked_direct() -> bool {
    static ASKED: OnceLock<bool> = OnceLock::new();
    *ASKED.get_or_init(|| std::env::var_os("CORELOOP_SIM_DIRECT").is_some())
}

/// Whether the system does not let us copy by a call.
fn is_denied() -> bool {
    static DENIED: OnceLock<bool> = OnceLock::new();
    *DENIED.get_or_init(|| {
        let (mut here, there) = (0u8, 1u8);
        let (ours, theirs) = vectors(&mut here, ptr::from_ref(&there).addr() as u64, 1);
        // SAFETY: one live byte each.
        let n = unsafe { libc::process_vm_readv(libc::getpid(), &ours, 1, &theirs, 1, 0) };
        let denied = n != 1 || here != 1;
        if denied {
            crate::contain::tell(format_args!(
                "coreloop: process_vm_readv(2) is not allowed here: a simulation that gives the kernel \
                 memory which is not mapped ends this process, instead of being told so"
            ));
        }
        denied
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mapped_is_an_error() {
        if is_direct() {
            return;
        }
        assert_eq!(copy_in(Span { addr: 8, len: 4 }), Err(Fault));
        assert_eq!(copy_out(8, b"x"), Err(Fault));
        let bytes = *b"here";
        let span = Span { addr: bytes.as_ptr().addr() as u64, len: 4 };
        assert_eq!(copy_in(span).unwrap(), b"here");
    }

    #[test]
    fn a_changed_byte_is_seen_at_either_end() {
        for len in [1, 9, 2 * LOOK_BYTES, 5 * LOOK_BYTES] {
            let mut bytes = vec![7u8; len];
            let span = Span { addr: bytes.as_ptr().addr() as u64, len };
            let hold = Hold::of(span, false).unwrap();
            assert!(hold.is_untouched().unwrap());
            for at in [0, len - 1] {
                bytes[at] = 8;
                std::hint::black_box(&bytes);
                assert!(!hold.is_untouched().unwrap(), "{at} of {len}");
                bytes[at] = 7;
            }
        }
    }
}
