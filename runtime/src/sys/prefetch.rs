//! Asking for memory before it is needed.
//!
//! Owns [`prefetch`] and [`prefetch_to_write`]. A turn of the kernel's network code between two turns
//! of a core's empties the first caches: what the next op or task touches has to come from afar, and is
//! asked for while the one before is being served. What another core has read last has to come from
//! there before it can be written.

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

/// Asks for the cache line that `place` lies in, away from whoever has it. Only a hint: any address
/// will do.
#[inline(always)]
pub(crate) fn prefetch_to_write<T>(place: *const T) {
    // SAFETY: hints, which no address can make fault; PREFETCHW is known to the processors of x86_64, or
    // a NOP to them, since 2006. Nothing but a cache changes.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}
