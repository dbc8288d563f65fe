//! Where a thread may run.
//!
//! Owns the system calls for that, and the mask that they take. Knows no pool.

use std::io;

/// CPUs that a kernel can be built for (`CONFIG_NR_CPUS` of x86 with `MAXSMP`). A mask that is shorter than
/// the running kernel's is refused by sched_getaffinity(2), and a longer one cut; a `cpu_set_t` has 1,024.
pub(crate) const CPUS_MAX: usize = 8192;

const BITS: usize = u64::BITS as usize;

/// A set of CPUs, as the kernel takes it: word by word, in the machine's byte order.
pub(crate) struct Mask(pub(crate) [u64; CPUS_MAX / BITS]);

impl Mask {
    /// These; those that no kernel has are left out.
    pub(crate) fn of(cpus: &[usize]) -> Mask {
        let mut mask = Mask([0; CPUS_MAX / BITS]);
        for &cpu in cpus.iter().filter(|cpu| **cpu < CPUS_MAX) {
            mask.0[cpu / BITS] |= 1 << (cpu % BITS);
        }
        mask
    }

    fn cpus(&self) -> Vec<usize> {
        (0..CPUS_MAX).filter(|cpu| self.0[cpu / BITS] >> (cpu % BITS) & 1 == 1).collect()
    }
}

/// Lets the calling thread run on these CPUs and no others; `false` if the system refuses.
pub(crate) fn run_on(cpus: &[usize]) -> bool {
    let mask = Mask::of(cpus);
    // SAFETY: the words are alive and of the size that is given, and only read; 0 names the calling thread.
    unsafe { libc::sched_setaffinity(0, size_of_val(&mask.0), mask.0.as_ptr().cast()) == 0 }
}

/// The CPUs that the calling thread may run on, in order.
///
/// # Errors
/// As sched_getaffinity(2): where a filter of system calls forbids it.
pub(crate) fn runs_on() -> io::Result<Vec<usize>> {
    let mut mask = Mask::of(&[]);
    // SAFETY: the words are alive, ours alone, and of the size that is given; any bits are a mask.
    let answer =
        unsafe { libc::sched_getaffinity(0, size_of_val(&mask.0), mask.0.as_mut_ptr().cast()) };
    if answer == 0 { Ok(mask.cpus()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_reach_beyond_a_cpu_set() {
        let cpus = vec![0, 1, 63, 64, 1_023, 1_024, 5_000, CPUS_MAX - 1];
        assert_eq!(Mask::of(&cpus).cpus(), cpus);
        assert_eq!(Mask::of(&[3, CPUS_MAX, usize::MAX]).cpus(), [3], "and no further");
        assert!(CPUS_MAX > libc::CPU_SETSIZE as usize);
    }

    #[test]
    fn a_thread_runs_where_it_is_put() {
        std::thread::spawn(|| {
            let allowed = runs_on().unwrap();
            let last = *allowed.last().unwrap();
            assert!(run_on(&[last]));
            assert_eq!(runs_on().unwrap(), [last]);
            assert!(!run_on(&[]), "nowhere is refused");
            assert_eq!(runs_on().unwrap(), [last]);
            // It may take back what it gave up.
            assert!(run_on(&allowed));
            assert_eq!(runs_on().unwrap(), allowed);
        })
        .join()
        .unwrap();
    }
}
