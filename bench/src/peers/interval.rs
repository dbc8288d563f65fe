//! From the figures of blocks to a ratio, its interval and a judgement.
//!
//! Owns the statistics. A pair's ratio is taken within each block, where both ran within minutes of each
//! other; the median of the logarithms is the estimate, and the interval is the percentile bootstrap of that
//! median: were blocks drawn with replacement, at most 2.5 % of the medians would lie below its lower end, and
//! at most 2.5 % above its upper. That is computed, not tried out: of a median the chances are binomial, and
//! drawn ones would put an end now on this ratio, now on the next. With five blocks it is the range of the
//! five ratios.

use serde::{Deserialize, Serialize};

/// Chance on either side of an interval.
const BEYOND: f64 = 0.025;

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
    pub fn of(pairs: &[(f64, f64)]) -> Option<Ratio> {
        let usable = |pair: &&(f64, f64)| pair.0 > 0.0 && pair.1 > 0.0;
        let mut logs: Vec<f64> = pairs.iter().filter(usable).map(|(a, b)| (a / b).ln()).collect();
        if logs.is_empty() {
            return None;
        }
        logs.sort_by(f64::total_cmp);
        let mut medians: Vec<(f64, f64)> = chances(logs.len())
            .map(|(low, high, chance)| ((logs[low] + logs[high]) / 2.0, chance))
            .collect();
        medians.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (low, high) = (end(medians.iter()), end(medians.iter().rev()));
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

/// The first of the medians, from one side, past which more than [`BEYOND`] of them are.
fn end<'a>(mut medians: impl Iterator<Item = &'a (f64, f64)>) -> f64 {
    let mut beyond = 0.0;
    let is_end = |(_, chance): &&(f64, f64)| {
        beyond += chance;
        beyond > BEYOND
    };
    medians.find(is_end).map_or(f64::NAN, |(median, _)| median.exp())
}

/// Of `n` values in order, drawn `n` times with replacement: which two are the middle ones of the draws (of an
/// odd number the same one twice), and with what chance.
fn chances(n: usize) -> impl Iterator<Item = (usize, usize, f64)> {
    let half = n / 2;
    let ways = ln_ways(n);
    let ways_of_halves = ways[half];
    // That the draw in place `half + n % 2` of the sorted ones is among the lowest `k` values.
    let within = move |k: usize| at_least(&ways, half + n % 2, k as f64 / n as f64);
    // That those in the places `half` and `half + 1` are at most `i` and at least `j`, counted from 0.
    let apart = move |i: Option<usize>, j: usize| match i {
        Some(i) if j < n => {
            let (low, high) = ((i + 1) as f64 / n as f64, (n - j) as f64 / n as f64);
            (ways_of_halves + half as f64 * low.ln() + (n - half) as f64 * high.ln()).exp()
        }
        _ => 0.0,
    };
    (0..n).flat_map(move |i| {
        let below = i.checked_sub(1);
        let others = if n % 2 == 1 { n..n } else { i + 1..n };
        let pair = move |j| {
            apart(Some(i), j) - apart(Some(i), j + 1) - apart(below, j) + apart(below, j + 1)
        };
        let mut pairs: Vec<_> = others.map(|j| (i, j, pair(j))).collect();
        let apart: f64 = pairs.iter().map(|(_, _, chance)| chance).sum();
        pairs.push((i, i, within(i + 1) - within(i) - apart));
        pairs
    })
}

/// The chance of at least `k` of some, each of which has the chance `p`; `ways` as [`ln_ways`] has them.
fn at_least(ways: &[f64], k: usize, p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    let n = ways.len() - 1;
    let exactly = |i: usize| (ways[i] + i as f64 * p.ln() + (n - i) as f64 * (1.0 - p).ln()).exp();
    (k..=n).map(exactly).sum()
}

/// The logarithms of how many ways there are to choose 0, 1, … of `n`.
fn ln_ways(n: usize) -> Vec<f64> {
    let mut ways = vec![0.0];
    for k in 1..=n {
        ways.push(ways[k - 1] + ((n - k + 1) as f64 / k as f64).ln());
    }
    ways
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
        Ratio::of(&pairs).unwrap()
    }

    #[test]
    fn medians_of_few_and_many() {
        assert!(median(&[]).is_nan());
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn five_blocks_give_their_range() {
        // The median of five draws is the least one if three or more of them are: 5.8 % > 2.5 %.
        let five = ratio(&[0.90, 0.95, 1.00, 1.05, 1.10]);
        assert!((five.median - 1.0).abs() < 1e-9, "{five:?}");
        assert!((five.low - 0.90).abs() < 1e-9 && (five.high - 1.10).abs() < 1e-9, "{five:?}");
        assert_eq!(five.blocks, 5);
    }

    #[test]
    fn many_blocks_give_nearly_the_interval_of_the_books() {
        // The exact binomial interval of the median of 31 is from the 10th to the 22nd value. The bootstrap's
        // is within it: its medians are below the 11th with 2.4 %.
        let values: Vec<f64> = (1..=31).map(|i| (f64::from(i - 16) / 100.0).exp()).collect();
        let many = ratio(&values);
        let rank = |value: f64| (value.ln() * 100.0).round() as i64 + 16;
        assert_eq!(rank(many.median), 16);
        assert_eq!((rank(many.low), rank(many.high)), (11, 21));
    }

    /// Nine ratios: their median is the least but one or less with 3.04 %, which 2,000 draws take for less than
    /// 2.5 % now and then.
    #[test]
    fn the_ends_do_not_depend_on_draws_nor_on_the_order() {
        let mut values = [0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3];
        let nine = ratio(&values);
        assert!((nine.low - 0.8).abs() < 1e-9 && (nine.high - 1.2).abs() < 1e-9, "{nine:?}");
        values.reverse();
        assert_eq!(ratio(&values), nine);
    }

    /// Against counting all draws there are.
    #[test]
    fn chances_are_those_of_all_draws() {
        for n in 1..=6_usize {
            let mut counted = std::collections::BTreeMap::new();
            let all = n.pow(n as u32);
            for code in 0..all {
                let mut drawn: Vec<usize> = (0..n).map(|at| code / n.pow(at as u32) % n).collect();
                drawn.sort_unstable();
                *counted.entry((drawn[(n - 1) / 2], drawn[n / 2])).or_insert(0) += 1;
            }
            for (low, high, chance) in chances(n) {
                let count = f64::from(counted.remove(&(low, high)).unwrap_or(0));
                assert!((chance - count / all as f64).abs() < 1e-9, "{n}: {low} {high} {chance}");
            }
            assert!(counted.is_empty(), "{n}: {counted:?}");
        }
        let sum: f64 = chances(1_000).map(|(_, _, chance)| chance).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn a_ratio_and_its_inverse_agree() {
        let pairs = [(1.0, 2.0), (1.1, 2.0), (0.9, 2.0), (1.0, 2.1), (1.0, 1.7)];
        let turned = pairs.map(|(a, b)| (b, a));
        let one = Ratio::of(&pairs).unwrap();
        let two = Ratio::of(&turned).unwrap();
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
        assert_eq!(Ratio::of(&[(0.0, 1.0), (1.0, 0.0)]), None);
        assert_eq!(Ratio::of(&[]), None);
    }
}
