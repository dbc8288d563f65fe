//! Where the kernel's own worker threads for a ring may run.

use std::io;

use super::Driver;
use crate::sys::abi::register;

/// Words of a CPU mask that covers every CPU that can be named.
const WORDS: usize = 8192 / 64;

impl Driver {
    /// Keeps the kernel's workers, which carry out what would block, to these CPUs. Unless told they run on
    /// any CPU of the process's cpuset, the pinned ones too.
    ///
    /// # Errors
    /// The kernel's (Linux 5.14 or newer knows the call); the workers then run where they would have.
    pub(crate) fn workers_on(&self, cpus: &[usize]) -> io::Result<()> {
        let mut mask = [0_u64; WORDS];
        for &cpu in cpus {
            if let Some(word) = mask.get_mut(cpu / 64) {
                *word |= 1 << (cpu % 64);
            }
        }
        let ring = self.ring.borrow();
        let Some(ring) = &*ring else { return Ok(()) };
        let bytes = size_of_val(&mask) as u32;
        // SAFETY: the kernel reads `bytes` bytes of the mask during the call.
        unsafe { ring.register(register::IOWQ_AFF, mask.as_mut_ptr().cast(), bytes) }.map(|_| ())
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
