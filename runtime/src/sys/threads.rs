//! Where a thread may run.
//!
//! Owns the system call for that. Knows no pool.

/// Lets the calling thread run on these CPUs and no others; `false` if the system refuses.
pub(crate) fn run_on(cpus: &[usize]) -> bool {
    // SAFETY: all-zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|cpu| **cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: `cpu` is within the set's bits.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: a live set of the size that is given; 0 names the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0 }
}
