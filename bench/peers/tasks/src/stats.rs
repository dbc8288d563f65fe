//! From figures of rounds to a judgement.
//!
//! Owns the median, the bootstrap interval of a median, and the small generator that both it and the order
//! of the runs are drawn from. A seed gives the same intervals for the same figures.

/// The middle of a sorted copy; of an even number the mean of the two. NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    }
}

/// The median ratio of pairs, with the bounds of its 95 % bootstrap interval.
pub struct Ratio {
    /// Below 1: coreloop takes less time.
    pub median: f64,
    /// 2.5 % of the resampled medians lie below.
    pub low: f64,
    /// 2.5 % lie above.
    pub high: f64,
}

impl Ratio {
    /// Of the ratios of all rounds, at least one.
    pub fn of(pairs: &[f64], rng: &mut Rng) -> Self {
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let drawn = (0..pairs.len()).map(|_| pairs[rng.below(pairs.len())]);
                median(&drawn.collect::<Vec<_>>())
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[(share * (RESAMPLES - 1) as f64) as usize];
        Self { median: median(pairs), low: at(0.025), high: at(0.975) }
    }

    /// `ahead` or `behind` where the interval lies on one side of 1.
    pub fn verdict(&self) -> &'static str {
        match self {
            Self { high, .. } if *high < 1.0 => "ahead",
            Self { low, .. } if *low > 1.0 => "behind",
            _ => "unresolved",
        }
    }
}

/// SplitMix64: small, seeded, good enough to draw orders and samples.
pub struct Rng(u64);

impl Rng {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Puts them in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Enough for an interval that is stable to a percent of its width.
const RESAMPLES: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_few_and_many() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_verdict_needs_an_interval_on_one_side() {
        let verdict = |pairs: &[f64]| Ratio::of(pairs, &mut Rng::new(1)).verdict();
        assert_eq!(verdict(&[0.8, 0.82, 0.79, 0.81, 0.8]), "ahead");
        assert_eq!(verdict(&[1.2, 1.22, 1.19, 1.21, 1.2]), "behind");
        assert_eq!(verdict(&[0.9, 1.1, 0.95, 1.05, 1.0]), "unresolved");
    }

    #[test]
    fn an_interval_holds_the_median_and_comes_again() {
        let pairs: Vec<f64> = (0..15).map(|i| 0.9 + f64::from(i) / 100.0).collect();
        let one = Ratio::of(&pairs, &mut Rng::new(7));
        let two = Ratio::of(&pairs, &mut Rng::new(7));
        assert!(one.low <= one.median && one.median <= one.high);
        assert!(one.low > 0.9 && one.high < 1.05);
        assert_eq!((one.low, one.high), (two.low, two.high));
    }

    #[test]
    fn a_shuffle_keeps_everyone() {
        let mut items: Vec<u32> = (0..50).collect();
        Rng::new(3).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
