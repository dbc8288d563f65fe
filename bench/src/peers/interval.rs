//! From the figures of blocks to a ratio, its interval and a judgement.
//!
//! Owns the statistics. A pair's ratio is taken within each block, where both ran within minutes of each
//! other; the median of the logarithms is the estimate, and the interval is the percentile bootstrap of that
//! median: blocks are drawn with replacement [`RESAMPLES`] times, and 2.5 % of the medians lie below its
//! lower end, 2.5 % above its upper. With five blocks this is nearly the range of the five ratios.

use serde::{Deserialize, Serialize};

use crate::peers::draw::Draw;

/// Enough for ends that are stable to a percent of the interval's width.
pub const RESAMPLES: usize = 2_000;

/// Fewer blocks than this can't give an interval that means anything: even if all of three are on one side
/// of 1, chance does that one time in four.
pub const BLOCKS_MIN: usize = 5;

/// Ratios that are nearer to 1 are printed as `1.000`.
const EQUAL: f64 = 0.000_5;

/// What a pair comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The whole interval is on our side of 1.
    Ahead,
    /// The whole interval is on their side of 1.
    Behind,
    /// The interval contains 1.
    Unresolved,
}

/// Our figure over theirs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The median of the blocks' ratios.
    pub median: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Blocks in which both have a figure.
    pub blocks: usize,
}

impl Ratio {
    /// Of pairs (ours, theirs), one a block; `None` without any whose figures are above zero.
    pub fn of(pairs: &[(f64, f64)], draw: &mut Draw) -> Option<Ratio> {
        let usable = |pair: &&(f64, f64)| pair.0 > 0.0 && pair.1 > 0.0;
        let logs: Vec<f64> = pairs.iter().filter(usable).map(|(a, b)| (a / b).ln()).collect();
        if logs.is_empty() {
            return None;
        }
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let drawn = (0..logs.len()).map(|_| logs[draw.below(logs.len())]);
                median(&drawn.collect::<Vec<_>>())
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let at = |share: f64| medians[(share * (RESAMPLES - 1) as f64).round() as usize].exp();
        let (low, high) = (at(0.025), at(0.975));
        Some(Ratio { median: median(&logs).exp(), low, high, blocks: logs.len() })
    }

    /// Whether the whole interval rounds to 1 in the digits that are printed: whichever side of it that lies on
    /// is then of no use to anybody.
    pub fn is_equal(&self) -> bool {
        let near = |end: f64| (end - 1.0).abs() < EQUAL;
        self.blocks >= BLOCKS_MIN && near(self.low) && near(self.high)
    }

    /// Who is ahead, given what is better. Of fewer than [`BLOCKS_MIN`] blocks nobody can tell.
    pub fn verdict(&self, less_is_better: bool) -> Verdict {
        let enough = self.blocks >= BLOCKS_MIN;
        let (below, above) = (enough && self.high < 1.0, enough && self.low > 1.0);
        match (below, above, less_is_better) {
            (true, _, true) | (_, true, false) => Verdict::Ahead,
            (true, _, false) | (_, true, true) => Verdict::Behind,
            _ => Verdict::Unresolved,
        }
    }
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ahead => "ahead",
            Verdict::Behind => "behind",
            Verdict::Unresolved => "unresolved",
        }
    }

    /// A sign for where a word has no room.
    pub fn sign(self) -> char {
        match self {
            Verdict::Ahead => '+',
            Verdict::Behind => '-',
            Verdict::Unresolved => '~',
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(ratios: &[f64]) -> Ratio {
        let pairs: Vec<(f64, f64)> = ratios.iter().map(|r| (r * 7.0, 7.0)).collect();
        Ratio::of(&pairs, &mut Draw::new(1, "test")).unwrap()
    }

    #[test]
    fn medians_of_few_and_many() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn five_blocks_give_nearly_their_range() {
        // The median of five draws is the least one if three or more of them are: 5.8 % > 2.5 %.
        let five = ratio(&[0.90, 0.95, 1.00, 1.05, 1.10]);
        assert!((five.median - 1.0).abs() < 1e-9, "{five:?}");
        assert!((five.low - 0.90).abs() < 1e-9 && (five.high - 1.10).abs() < 1e-9, "{five:?}");
        assert_eq!(five.blocks, 5);
    }

    #[test]
    fn many_blocks_give_the_interval_of_the_books() {
        // The exact binomial interval of the median of 31 is from the 10th to the 22nd value.
        let values: Vec<f64> = (1..=31).map(|i| (f64::from(i - 16) / 100.0).exp()).collect();
        let many = ratio(&values);
        let rank = |value: f64| (value.ln() * 100.0).round() as i64 + 16;
        assert_eq!(rank(many.median), 16);
        assert!((9..=11).contains(&rank(many.low)), "{}", rank(many.low));
        assert!((21..=23).contains(&rank(many.high)), "{}", rank(many.high));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_and_order_does_not_matter_to_the_median() {
        let values = [0.91, 1.2, 0.97, 1.01, 0.88, 1.3, 0.99];
        assert_eq!(ratio(&values), ratio(&values));
        let mut turned = values;
        turned.reverse();
        assert_eq!(ratio(&values).median, ratio(&turned).median);
    }

    #[test]
    fn a_ratio_and_its_inverse_agree() {
        let pairs = [(1.0, 2.0), (1.1, 2.0), (0.9, 2.0), (1.0, 2.1), (1.0, 1.7)];
        let turned = pairs.map(|(a, b)| (b, a));
        let one = Ratio::of(&pairs, &mut Draw::new(5, "x")).unwrap();
        let two = Ratio::of(&turned, &mut Draw::new(5, "x")).unwrap();
        assert!((one.median * two.median - 1.0).abs() < 1e-9);
        assert!((one.low * two.high - 1.0).abs() < 1e-9, "{one:?} {two:?}");
    }

    #[test]
    fn a_verdict_needs_an_interval_on_one_side() {
        let less = ratio(&[0.8, 0.82, 0.79, 0.81, 0.8]);
        let more = ratio(&[1.2, 1.22, 1.19, 1.21, 1.2]);
        let both = ratio(&[0.9, 1.1, 0.95, 1.05, 1.0]);
        assert_eq!((less.verdict(true), less.verdict(false)), (Verdict::Ahead, Verdict::Behind));
        assert_eq!((more.verdict(true), more.verdict(false)), (Verdict::Behind, Verdict::Ahead));
        assert_eq!(
            (both.verdict(true), both.verdict(false)),
            (Verdict::Unresolved, Verdict::Unresolved)
        );
    }

    #[test]
    fn few_blocks_resolve_nothing() {
        assert_eq!(ratio(&[0.5, 0.5, 0.5, 0.5]).verdict(true), Verdict::Unresolved);
        assert_eq!(ratio(&[0.5, 0.5, 0.5, 0.5, 0.5]).verdict(true), Verdict::Ahead);
    }

    #[test]
    fn figures_of_zero_have_no_ratio() {
        assert_eq!(Ratio::of(&[(0.0, 1.0), (1.0, 0.0)], &mut Draw::new(1, "x")), None);
        assert_eq!(Ratio::of(&[], &mut Draw::new(1, "x")), None);
    }
}
