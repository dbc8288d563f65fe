//! How much two lots of samples differ, and how sure that is.
//!
//! Owns the statistics. The estimate is the median of all ratios of a sample of B over one of A; the interval
//! is that of the rank test (Mann and Whitney): it keeps its promise with few samples, whatever their
//! distribution. Seconds of one run resemble their neighbours, so that they count for fewer than they are.

use crate::peers::interval::{BLOCKS_MIN, Ratio, median};

/// 95 % of a bell lie within so many deviations.
const DEVIATIONS: f64 = 1.96;

/// More alike than this, and there are hardly any samples left.
const ALIKE_MAX: f64 = 0.9;

/// What stands for a zero, over the least sample that is none.
const ZERO: f64 = 1e-5;

/// The samples that count. Where more is better, nothing at all is the worst of them; where less is, it says
/// that there was nothing to be measured: a second without answers has no latency.
pub fn usable(values: &[f64], less_is_better: bool) -> Vec<f64> {
    let counts =
        |value: &f64| value.is_finite() && (*value > 0.0 || *value == 0.0 && !less_is_better);
    values.iter().copied().filter(counts).collect()
}

/// What B's samples are, over A's, of those that are [`usable`]. `in_a_row` says that neighbours were taken
/// one after the other and may be alike. `None` with fewer than [`BLOCKS_MIN`] samples on a side: then nobody
/// can tell.
pub fn shift(a: &[f64], b: &[f64], in_a_row: bool) -> Option<Ratio> {
    // The ranks alone matter, and a zero has no logarithm: anything that is far below all others will do.
    let above = a.iter().chain(b).copied().filter(|value| *value > 0.0).reduce(f64::min)?;
    let ranked = |values: &[f64]| -> Vec<f64> {
        thinned(values).map(|value| if value > 0.0 { value } else { above * ZERO }).collect()
    };
    let (a, b) = (ranked(a), ranked(b));
    let fewer = a.len().min(b.len());
    if fewer < BLOCKS_MIN {
        return None;
    }
    let mut logs: Vec<f64> = b.iter().flat_map(|b| a.iter().map(move |a| (b / a).ln())).collect();
    logs.sort_by(f64::total_cmp);
    let (n, m) = (a.len() as f64, b.len() as f64);
    let alike = if in_a_row { (widening(&a) + widening(&b)) / 2.0 } else { 1.0 };
    let deviation = (n * m * (n + m + 1.0) / 12.0).sqrt() * alike;
    // So many of the pairs lie beyond either end.
    let beyond = (n * m / 2.0 - DEVIATIONS * deviation).floor().max(0.0) as usize;
    let beyond = beyond.min((logs.len() - 1) / 2);
    Some(Ratio {
        median: median(&logs).exp(),
        low: logs[beyond].exp(),
        high: logs[logs.len() - 1 - beyond].exp(),
        blocks: fewer,
    })
}

/// Samples of a side that are looked at: every pair of both sides is.
const SAMPLES_MAX: usize = 2_000;

/// Evenly spread ones of them, if there are too many.
fn thinned(values: &[f64]) -> impl Iterator<Item = f64> {
    let step = values.len().div_ceil(SAMPLES_MAX).max(1);
    values.iter().copied().step_by(step)
}

/// By how much the noise of a mean is larger than that of as many independent samples.
fn widening(values: &[f64]) -> f64 {
    let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    let off: Vec<f64> = logs.iter().map(|log| log - mean).collect();
    let square: f64 = off.iter().map(|value| value * value).sum();
    if square <= 0.0 {
        return 1.0;
    }
    let next: f64 = off.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let alike = (next / square).clamp(0.0, ALIKE_MAX);
    ((1.0 + alike) / (1.0 - alike)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::draw::Draw;
    use crate::peers::interval::Verdict;

    fn bell(draw: &mut Draw) -> f64 {
        (0..12).map(|_| draw.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>() - 6.0
    }

    /// Samples around `middle`; each has a share `alike` of the one before.
    fn samples(draw: &mut Draw, count: usize, middle: f64, noise: f64, alike: f64) -> Vec<f64> {
        let mut last = bell(draw);
        let fresh = (1.0 - alike * alike).sqrt();
        let mut next = || {
            last = alike * last + fresh * bell(draw);
            middle * (noise * last).exp()
        };
        (0..count).map(|_| next()).collect()
    }

    fn share(
        (count, middle, noise, alike): (usize, f64, f64, f64),
        is: impl Fn(Option<Ratio>) -> bool,
    ) -> f64 {
        const TIMES: u32 = 1_000;
        let mut draw = Draw::new(5, "shift");
        let hits = (0..TIMES).filter(|_| {
            let a = samples(&mut draw, count, 1.0, noise, alike);
            let b = samples(&mut draw, count, middle, noise, alike);
            is(shift(&a, &b, alike > 0.0))
        });
        hits.count() as f64 / f64::from(TIMES)
    }

    fn resolved(ratio: Option<Ratio>) -> bool {
        ratio.unwrap().verdict(true) != Verdict::Unresolved
    }

    #[test]
    fn what_does_not_differ_is_resolved_at_the_nominal_rate() {
        for count in [5, 10, 20] {
            let wrong = share((count, 1.0, 0.03, 0.0), resolved);
            assert!((0.005..=0.075).contains(&wrong), "{count} samples: {wrong}");
        }
    }

    #[test]
    fn a_planted_five_percent_is_found_and_lies_in_the_interval() {
        let behind = |ratio: Option<Ratio>| ratio.unwrap().verdict(true) == Verdict::Behind;
        let found = share((10, 1.05, 0.02, 0.0), behind);
        assert!(found > 0.97, "{found}");
        let within = |ratio: Option<Ratio>| {
            let ratio = ratio.unwrap();
            ratio.low <= 1.05 && 1.05 <= ratio.high
        };
        let covered = share((10, 1.05, 0.02, 0.0), within);
        assert!((0.925..=0.995).contains(&covered), "{covered}");
    }

    #[test]
    fn seconds_that_resemble_each_other_count_for_less() {
        let wrong = share((30, 1.0, 0.03, 0.6), resolved);
        assert!(wrong < 0.12, "{wrong}");
        let mut draw = Draw::new(1, "alike");
        let (a, b) =
            (samples(&mut draw, 30, 1.0, 0.03, 0.6), samples(&mut draw, 30, 1.0, 0.03, 0.6));
        let width = |ratio: Ratio| (ratio.high / ratio.low).ln();
        let (blind, told) = (shift(&a, &b, false).unwrap(), shift(&a, &b, true).unwrap());
        assert!(width(told) > width(blind) * 1.2, "{blind:?} {told:?}");
    }

    #[test]
    fn few_samples_tell_nothing() {
        assert_eq!(shift(&[1.0; 4], &[2.0; 9], false), None);
        let with_none = [1.0, 1.0, f64::NAN, 1.0, 1.0, 0.0];
        assert_eq!(usable(&with_none, true), [1.0; 4], "a zero says that there was nothing");
        assert_eq!(usable(&with_none, false), [1.0, 1.0, 1.0, 1.0, 0.0], "here it is the worst");
        assert_eq!(shift(&[0.0; 9], &[0.0; 9], false), None);
        let ratio = shift(&[1.0; 5], &[2.0; 5], true).unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (2.0, 2.0, 2.0));
    }

    #[test]
    fn nothing_at_all_is_the_worst_sample_where_more_is_better() {
        let mut draw = Draw::new(2, "zeroes");
        let a = samples(&mut draw, 30, 1e5, 0.02, 0.0);
        let b: Vec<f64> =
            a.iter().enumerate().map(|(i, v)| if i < 24 { 0.0 } else { *v }).collect();
        let ratio = shift(&a, &b, false).unwrap();
        assert!(ratio.blocks == 30 && ratio.high < 0.01 && ratio.low.is_finite(), "{ratio:?}");
        let back = shift(&b, &a, false).unwrap();
        assert!(back.low > 100.0 && back.high.is_finite(), "{back:?}");
    }
}
