//! The calling thread's place: where it may run, and pinning it.

use crate::sys::threads;

/// CPUs that the calling thread may run on, in order: CPU 0 alone where the system does not say. A thread
/// starts with those of whoever started it: on a pinned core that is the core's CPU alone.
///
/// ```
/// assert!(!coreloop::placement::allowed_cpus().is_empty());
/// ```
pub fn allowed_cpus() -> Vec<usize> {
    let mut cpus = threads::runs_on().unwrap_or_default();
    if cpus.is_empty() {
        cpus.push(0);
    }
    cpus
}

/// Pins the calling thread; `false` if the system refuses.
pub(crate) fn pin_to(cpu: usize) -> bool {
    threads::run_on(&[cpu])
}
