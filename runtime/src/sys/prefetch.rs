//! Asking for memory before it is needed.
//!
//! Owns [`prefetch`]. A turn of the kernel's network code between two turns of a core's empties the first
//! caches: what the next op or task touches has to come from afar, and is asked for while the one before
//! is being served.

/// Asks for the cache line that `place` lies in. Only a hint: any address will do.
#[inline(always)]
pub(crate) fn prefetch<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which no address can make fault (SSE is part of x86_64).
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
