//! Figures in milliseconds, on a machine that has other things to do.
//!
//! Owns holding a measured time to the figure that is promised ([`median_of`], [`best_of`]). One trial can be
//! late by whatever else the machine does, and then says nothing of the code; so the promised figure is
//! demanded of the median, or of the best, of several trials, and of each single one only a wide limit
//! that is none of the promise and catches what hangs. A defect that delays every trial is caught; one that
//! delays a few of them by less than the wide limit is not. On a machine that is said to be
//! slow ([`slowness`]) both are as many times longer. Does not know what is measured.

use std::time::Duration;

use crate::slowness;

/// Runs `trial` so many times; the median of what it gives must be within `promised`, each single one
/// within `wide`. Gives them all, in order of size.
///
/// # Panics
/// If they are not.
#[track_caller]
pub fn median_of(
    trials: usize,
    promised: Duration,
    wide: Duration,
    mut trial: impl FnMut() -> Duration,
) -> Vec<Duration> {
    let (promised, wide) = (promised * slowness(), wide * slowness());
    let mut all: Vec<_> = (0..trials).map(|_| trial()).collect();
    all.sort();
    let median = all[all.len() / 2];
    assert!(median <= promised, "the median of {all:?} is over {promised:?}");
    let worst = all[all.len() - 1];
    assert!(worst <= wide, "one of {all:?} is over {wide:?}, the limit of a single trial");
    all
}

/// Runs `trial` until it gives a time within `promised`, but no more than so many times; each single one
/// must be within `wide`. For trials that are long, or that give the worst of many times themselves.
/// Gives them in the order in which they were made.
///
/// # Panics
/// If none is within `promised`, or one is over `wide`.
#[track_caller]
pub fn best_of(
    trials: usize,
    promised: Duration,
    wide: Duration,
    mut trial: impl FnMut() -> Duration,
) -> Vec<Duration> {
    let (promised, wide) = (promised * slowness(), wide * slowness());
    let mut all = Vec::new();
    while all.len() < trials {
        let took = trial();
        all.push(took);
        assert!(took <= wide, "one of {all:?} is over {wide:?}, the limit of a single trial");
        if took <= promised {
            return all;
        }
    }
    panic!("none of {all:?} is within {promised:?}");
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Gives these numbers of milliseconds, one after the other.
    fn given(times: &[u32]) -> impl FnMut() -> Duration {
        let mut times = times.iter();
        move || MS * *times.next().expect("no trial more than wanted")
    }

    #[test]
    fn the_median_is_held_and_no_trial_may_hang() {
        assert_eq!(median_of(3, MS * 10, MS * 50, given(&[40, 10, 1])), [MS, MS * 10, MS * 40]);
        let held = |times: [u32; 3]| {
            catch_unwind(|| median_of(3, MS * 10, MS * 50, given(&times))).is_ok()
        };
        assert!(held([40, 10, 1]));
        assert!(!held([1, 11, 11]), "the median is over");
        assert!(!held([1, 1, 51]), "one is over the wide limit");
    }

    #[test]
    fn the_best_is_held_and_ends_the_trials() {
        assert_eq!(best_of(3, MS * 10, MS * 50, given(&[40, 10])), [MS * 40, MS * 10]);
        let held =
            |times: [u32; 3]| catch_unwind(|| best_of(3, MS * 10, MS * 50, given(&times))).is_ok();
        assert!(held([1, 99, 99]), "the first will do");
        assert!(!held([11, 12, 13]), "none is within");
        assert!(!held([11, 51, 1]), "one is over the wide limit");
    }
}
