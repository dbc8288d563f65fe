//! The histogram as bars: log-spaced buckets, one line each.
//!
//! Owns the choice of buckets and the drawing. Bucket bounds are round numbers of a decimal series
//! (1, 1.25, 1.6, 2 … or coarser), so that two runs can be compared line by line.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::report::paint::{Paint, Tone};
use crate::report::units::{grouped, time_ns};
use crate::stats::Summary;

/// More lines than this don't fit a screen beside the tables.
const LINES_MAX: usize = 22;

/// Bounds within a decade, times 100, from the finest series to the coarsest.
const SERIES: [&[u64]; 4] = [
    &[100, 125, 160, 200, 250, 315, 400, 500, 630, 800],
    &[100, 160, 250, 400, 630],
    &[100, 200, 500],
    &[100],
];

/// Values of at least `from_ns` and less than `to_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The lower bound, inside.
    pub from_ns: u64,
    /// The upper bound, outside.
    pub to_ns: u64,
    /// How many.
    pub count: u64,
}

/// The finest buckets that fit a screen, from the one with the least value to that with the
/// greatest; none if nothing was recorded.
pub fn buckets(histogram: &Histogram<u64>) -> Vec<Bucket> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let coarsest = SERIES.len() - 1;
    SERIES
        .iter()
        .enumerate()
        .map(|(i, series)| (i, count_into(histogram, series)))
        .find(|(i, buckets)| buckets.len() <= LINES_MAX || *i == coarsest)
        .map(|(_, buckets)| buckets)
        .expect("the coarsest series always answers")
}

/// The bars, a line each: bounds, bar, count, share, and which percentiles lie within.
pub fn render(buckets: &[Bucket], summary: &Summary, paint: Paint) -> String {
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0);
    let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let count_width = grouped(most).len();
    let marks: Vec<String> = buckets.iter().map(|bucket| marks(bucket, summary)).collect();
    let marks_width = marks.iter().map(|mark| mark.chars().count()).max().unwrap_or(0);
    // Indent, two bounds and a dash; gaps; share; marks: what is left is the bar's.
    let taken = 2 + 8 + 3 + 8 + 2 + 2 + count_width + 2 + 8 + 2 + marks_width;
    let bar_width = paint.columns.saturating_sub(taken).max(10);
    let mut out = String::new();
    for (i, (bucket, mark)) in buckets.iter().zip(marks).enumerate() {
        match gap(buckets, i) {
            Gap::None => {}
            Gap::First => {
                out.push_str("           ⋮\n");
                continue;
            }
            Gap::Rest => continue,
        }
        let bar = bar(bucket.count, most, bar_width);
        let pad = " ".repeat(bar_width - bar.chars().count());
        let share = 100.0 * bucket.count as f64 / total as f64;
        let line = format!(
            "  {:>8} – {:<8}  {}{pad}  {:>count_width$}  {:>8}  {}",
            time_ns(bucket.from_ns as f64),
            time_ns(bucket.to_ns as f64),
            paint.tone(Tone::Bar, &bar),
            grouped(bucket.count),
            share_text(share),
            paint.tone(Tone::Dim, &mark),
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn count_into(histogram: &Histogram<u64>, series: &[u64]) -> Vec<Bucket> {
    let (least, most) = (histogram.min().max(1), histogram.max());
    let mut bounds = bounds(series).skip_while(|pair| pair.1 <= least);
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut values = histogram.iter_recorded().peekable();
    while buckets.last().is_none_or(|last| last.to_ns <= most) {
        let Some((from_ns, to_ns)) = bounds.next() else { break };
        let mut count = 0;
        while let Some(step) = values.next_if(|step| step.value_iterated_to() < to_ns) {
            count += step.count_at_value();
        }
        buckets.push(Bucket { from_ns, to_ns, count });
    }
    // A step of the histogram ends a little above its values: the last may lie across the bound.
    let left: u64 = values.map(|step| step.count_at_value()).sum();
    if let Some(last) = buckets.last_mut() {
        last.count += left;
    }
    buckets
}

/// Neighbouring bounds, from 1 ns up to beyond the longest latency.
fn bounds(series: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    let decades = (0..12).map(|exponent| 10u64.pow(exponent));
    let mut all: Vec<u64> =
        decades.flat_map(|decade| series.iter().map(move |step| step * decade / 100)).collect();
    // In the first decade the fine series has bounds between whole nanoseconds.
    all.dedup();
    let next = all.clone().into_iter().skip(1);
    all.into_iter().zip(next)
}

/// Where a line stands in a run of empty buckets so long that it is drawn as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    None,
    First,
    Rest,
}

fn gap(buckets: &[Bucket], at: usize) -> Gap {
    const GAP_MIN: usize = 3;
    if buckets[at].count > 0 {
        return Gap::None;
    }
    let before = buckets[..at].iter().rev().take_while(|bucket| bucket.count == 0).count();
    let after = buckets[at..].iter().take_while(|bucket| bucket.count == 0).count();
    match (before, before + after) {
        (_, length) if length < GAP_MIN => Gap::None,
        (0, _) => Gap::First,
        _ => Gap::Rest,
    }
}

fn marks(bucket: &Bucket, summary: &Summary) -> String {
    let points = [
        ("p50", summary.p50_ns),
        ("p90", summary.p90_ns),
        ("p99", summary.p99_ns),
        ("p99.9", summary.p999_ns),
        ("p99.99", summary.p9999_ns),
    ];
    let within = |ns: u64| ns >= bucket.from_ns && ns < bucket.to_ns;
    let names: Vec<&str> =
        points.iter().filter(|(_, ns)| within(*ns)).map(|(name, _)| *name).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first, .., last] => format!("{first}…{last}"),
    }
}

/// A bar of `count` of `most`, `width` characters at the most, drawn to an eighth of one. Whatever
/// is there at all shows: tails are what one looks for.
fn bar(count: u64, most: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if count == 0 {
        return String::new();
    }
    let eighths = ((count as f64 / most as f64) * (width * 8) as f64).round().max(1.0) as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// Shares below 0.01 % keep their digits: they are the tail.
fn share_text(share: f64) -> String {
    match share {
        0.0 => String::new(),
        share if share < 0.001 => "<0.001 %".into(),
        share if share < 0.1 => format!("{share:.3} %"),
        share => format!("{share:.2} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::histogram;

    fn of(values: &[(u64, u64)]) -> Histogram<u64> {
        let mut histogram = histogram();
        values.iter().for_each(|(value, count)| histogram.saturating_record_n(*value, *count));
        histogram
    }

    #[test]
    fn every_value_is_in_exactly_one_bucket() {
        let mut value = 1;
        let mut all = histogram();
        while value < 60_000_000_000 {
            all.saturating_record(value);
            let buckets = buckets(&all);
            assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), all.len());
            assert!(buckets.len() <= LINES_MAX + 12);
            assert!(buckets.windows(2).all(|pair| pair[0].to_ns == pair[1].from_ns));
            value = value * 3 + 1;
        }
        assert!(buckets(&histogram()).is_empty());
    }

    #[test]
    fn a_narrow_distribution_gets_fine_buckets_and_a_wide_one_coarse() {
        let narrow = buckets(&of(&[(300_000, 5), (420_000, 1)]));
        assert_eq!((narrow[0].from_ns, narrow[0].to_ns), (250_000, 315_000));
        assert_eq!(narrow.len(), 3);
        let wide = buckets(&of(&[(20_000, 5), (300_000_000, 1)]));
        assert_eq!((wide[0].from_ns, wide[0].to_ns), (16_000, 25_000));
        assert!(wide.len() <= LINES_MAX);
    }

    #[test]
    fn bars_show_whatever_is_there() {
        assert_eq!(bar(0, 10, 4), "");
        assert_eq!(bar(1, 1_000_000, 4), "▏");
        assert_eq!(bar(5, 10, 4), "██");
        assert_eq!(bar(10, 10, 4), "████");
        assert_eq!(bar(9, 16, 2), "█▏");
    }

    #[test]
    fn the_chart_fills_its_columns_and_not_more() {
        let values = of(&[
            (210_000, 40_000),
            (260_000, 90_000),
            (330_000, 120_000),
            (420_000, 30_000),
            (650_000, 900),
            (1_700_000, 3),
        ]);
        let text = render(&buckets(&values), &Summary::of(&values), Paint::plain());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().any(|line| line.chars().count() == 80), "{text}");
    }

    #[test]
    fn a_long_gap_is_one_line_and_a_short_one_is_drawn() {
        let text = |values: &Histogram<u64>| {
            render(&buckets(values), &Summary::of(values), Paint::plain())
        };
        let long = text(&of(&[(210_000, 10), (1_700_000, 3)]));
        assert_eq!(long.lines().count(), 3, "{long}");
        assert!(long.contains("\n           ⋮\n"), "{long}");
        let short = text(&of(&[(210_000, 10), (330_000, 3)]));
        assert_eq!(short.lines().count(), 3, "{short}");
        assert!(!short.contains('⋮'), "{short}");
    }
}
