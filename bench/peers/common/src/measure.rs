//! Clocks, percentiles, and random numbers that are the same in every run.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of all threads of the process: some runtimes have helpers.
pub fn process_cpu() -> Duration {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Nanoseconds for each of `count` operations that began at `start` and are over now.
pub fn ns_each(start: Instant, count: u64) -> f64 {
    start.elapsed().as_nanos() as f64 / count.max(1) as f64
}

/// Measured values in order.
pub struct Sorted(Vec<u64>);

impl Sorted {
    /// Sorts the values; there has to be one at least.
    pub fn new(mut values: Vec<u64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_unstable();
        Self(values)
    }

    /// The smallest value that at least `percent` of all are not above.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// The largest.
    pub fn max(&self) -> u64 {
        self.0[self.0.len() - 1]
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> f64 {
        self.0.iter().map(|value| *value as f64).sum::<f64>() / self.0.len() as f64
    }
}

/// Splitmix64: a fixed sequence for each seed, the same for every runtime.
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from `low` to below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next_word() % (high - low)
    }

    fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn clock(id: libc::clockid_t) -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel fills in the time, which is read only if it says so.
    let time = unsafe {
        assert_eq!(libc::clock_gettime(id, time.as_mut_ptr()), 0, "the clock exists");
        time.assume_init()
    };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted = Sorted::new((1..=100).rev().collect());
        assert_eq!([50.0, 99.0, 100.0].map(|p| sorted.percentile(p)), [50, 99, 100]);
        assert_eq!((sorted.percentile(0.0), sorted.max(), sorted.mean()), (1, 100, 50.5));
        assert_eq!(Sorted::new(vec![7]).percentile(99.0), 7);
    }

    #[test]
    fn random_numbers_keep_to_their_range_and_repeat() {
        let draw = || {
            let mut random = Random::new(3);
            (0..1000).map(|_| random.between(10, 20)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
        assert!((10..20).all(|value| draw().contains(&value)));
        assert!(draw().iter().all(|value| (10..20).contains(value)));
    }
}
