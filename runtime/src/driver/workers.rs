//! Where the kernel's own worker threads for a ring may run.

use std::fmt;
use std::io;
use std::path::Path;
use std::ptr;

use super::Driver;
use super::features::{Missing, RingReport};
use super::ring::Ring;
use crate::sys::abi::register;
use crate::sys::threads::Mask;

/// The CPUs that the kernel's workers for a core's ring may run on: what the setting `worker_cpus` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerCpus {
    /// Beside the cores that are pinned, where there are other CPUs; else as the kernel likes.
    #[default]
    Auto,
    /// As the kernel likes: up to Linux 6.1 any that the process may use, later those of the core's thread.
    Kernel,
    /// These. There is at least one.
    These(Vec<usize>),
}

impl fmt::Display for WorkerCpus {
    /// As files and flags write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Kernel => f.write_str("kernel"),
            Self::These(cpus) => {
                let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
                f.write_str(&cpus.join(","))
            }
        }
    }
}

impl WorkerCpus {
    /// Has the kernel do as this says; the pinned cores' part of `Auto` comes later, by
    /// [`Driver::workers_on`].
    pub(super) fn register(&self, ring: &Ring, report: &mut RingReport) {
        let refused = match self {
            Self::Auto => return,
            Self::Kernel => {
                // What an earlier loop of this thread has set stays with the thread. Without workers yet
                // there is nothing to undo, and the kernel says so.
                // SAFETY: takes no argument.
                let _ = unsafe { ring.register(register::UNREGISTER_IOWQ_AFF, ptr::null_mut(), 0) };
                return;
            }
            Self::These(cpus) => keep_workers_on(ring, cpus).err(),
        };
        if let Some(e) = refused {
            // Linux refuses CPUs that the process may not use.
            let why = Missing::Failed(e.raw_os_error().unwrap_or(0));
            report.step_down("worker_cpus", self, "kernel", why);
        }
    }
}

/// Keeps the kernel's workers, which carry out what would block, to these CPUs. Unless told they run where
/// the kernel likes: up to Linux 6.1 on any CPU of the process's cpuset, later on those of their thread.
///
/// # Errors
/// The kernel's (Linux 5.14 or newer knows the call); the workers then run where they would have. EINVAL
/// for a CPU that there is not, which the kernel would pass over.
fn keep_workers_on(ring: &Ring, cpus: &[usize]) -> io::Result<()> {
    if !cpus.iter().all(|cpu| may_be_there(*cpu)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let Mask(mut mask) = Mask::of(cpus);
    let bytes = size_of_val(&mask) as u32;
    // SAFETY: the kernel reads `bytes` bytes of the mask during the call.
    unsafe { ring.register(register::IOWQ_AFF, mask.as_mut_ptr().cast(), bytes) }.map(|_| ())
}

fn may_be_there(cpu: usize) -> bool {
    let all = Path::new("/sys/devices/system/cpu");
    all.join(format!("cpu{cpu}")).exists() || !all.exists()
}

impl Driver {
    /// As [`keep_workers_on`], later than at the ring's set-up.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn workers_on(&self, cpus: &[usize]) -> io::Result<()> {
        let ring = self.ring.borrow();
        ring.as_ref().map_or(Ok(()), |ring| keep_workers_on(ring, cpus))
    }
}

#[cfg(test)]
mod tests {
    use crate::event_loop::EventLoop;

    #[test]
    fn the_kernel_takes_the_mask_of_an_allowed_cpu() {
        let event_loop = EventLoop::new().unwrap();
        let driver = &event_loop.core().driver;
        let allowed = crate::placement::allowed_cpus();
        driver.workers_on(&allowed[..1]).unwrap();
        // Newer kernels refuse a CPU that the process may not use: the mask arrives as it is meant.
        if let Some(other) = (0..64).find(|cpu| !allowed.contains(cpu))
            && let Err(refused) = driver.workers_on(&[other])
        {
            assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
        }
    }
}
