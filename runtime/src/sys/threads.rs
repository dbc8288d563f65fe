//! What a thread that serves a loop is set up with: where it may run, which signals it takes.
//!
//! Owns the two system calls for that. Knows no pool.

use std::mem::MaybeUninit;

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

/// While this lives, the calling thread takes no signals but those that it raises itself by a
/// fault, and the profiler's. A thread that it starts meanwhile keeps it so.
pub(crate) struct SignalsHeld {
    before: libc::sigset_t,
}

impl SignalsHeld {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises `all`, which the next calls read; pthread_sigmask fills
        // `before`. None of them can fail with numbers that exist.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for signal in TAKEN {
                libc::sigdelset(all.as_mut_ptr(), signal);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Self { before }
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        // SAFETY: `before` was filled by pthread_sigmask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Faults of the thread itself, whose handlers say what happened (a stack overflow, a sanitizer's
/// finding), and the profiler's clock.
const TAKEN: [i32; 8] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
    libc::SIGPROF,
];
