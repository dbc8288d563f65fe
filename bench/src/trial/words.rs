//! What `tune`, `search` and `compare` print alike: the head, ratios with their intervals drawn, paragraphs.

use crate::peers::interval::{Ratio, Verdict};
use crate::peers::text::ratio_digits;
use crate::report::paint::{Paint, Tone, wrap};
use crate::report::table::cut;
use crate::report::units::{grouped, time_ns};
use crate::trial::Head;

/// A row of ratios.
#[derive(Clone, Debug)]
pub struct RatioRow {
    /// What stands in front.
    pub label: String,
    /// More cells, right-aligned, between label and ratio.
    pub cells: Vec<String>,
    /// The ratio, if there is one.
    pub ratio: Option<Ratio>,
    /// Whether less is better.
    pub less_is_better: bool,
    /// What stands behind; empty for the verdict's own word.
    pub word: String,
}

/// A drawing narrower than this shows nothing.
const DRAWN_MIN: usize = 9;
const DRAWN_MAX: usize = 41;

/// Title, what ran where.
pub fn head(head: &Head, title: &str, rate: Option<u64>, paint: Paint) -> String {
    let machine = &head.machine;
    let at = rate.map_or(String::new(), |rate| format!(", {} requests/s", grouped(rate)));
    let mut out = format!(
        "\n{} {} · goal {}\n",
        paint.tone(Tone::Strong, title),
        paint.tone(Tone::Strong, &head.workload),
        head.goal
    );
    let virtual_cpu = if machine.virtual_machine { " (virtual)" } else { "" };
    out += &paragraph(&format!("{}{at}", head.load), Tone::Dim, paint);
    out += &paragraph(
        &format!(
            "server on core {}, generator on core {}, {}; {}{virtual_cpu}, Linux {}",
            head.cores.server, head.cores.load, machine.network, machine.cpu_model, machine.kernel
        ),
        Tone::Dim,
        paint,
    );
    out
}

/// Runs, time, seed, notes.
pub fn foot(head: &Head, paint: Paint) -> String {
    let disturbed = match head.disturbed {
        0 => String::new(),
        n => format!(", {} of them disturbed", grouped(n as u64)),
    };
    let mut out = paragraph(
        &format!(
            "{} runs of {} s{disturbed}; {:.0} s of {:.0}; seed {}",
            grouped(head.runs as u64),
            head.seconds,
            head.took_s,
            head.budget_s,
            head.seed
        ),
        Tone::Dim,
        paint,
    );
    for note in &head.notes {
        out += &paragraph(note, Tone::Warn, paint);
    }
    // Half of all, and it is no exception any more.
    if head.disturbed * 2 > head.runs {
        let words = "most runs were disturbed, by others on these cores or by a generator that was at its limit: \
                     stop those, lower the rate, or trust nothing of this";
        out += &paragraph(words, Tone::Warn, paint);
    }
    out
}

/// A table of ratios, each drawn on a common scale around 1. `heads` are those of label and cells.
pub fn ratios(heads: &[&str], rows: &[RatioRow], paint: Paint) -> String {
    let chars = |text: &str| text.chars().count();
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let cell_widths: Vec<usize> = heads[1..]
        .iter()
        .enumerate()
        .map(|(i, head)| widest(&mut rows.iter().map(|r| chars(&r.cells[i])).chain([chars(head)])))
        .collect();
    let word_width = widest(&mut rows.iter().map(|r| chars(word(r)))).max(1);
    let cells_width: usize = cell_widths.iter().map(|width| width + 2).sum();
    // Names go before the drawing.
    let beside = 2 + cells_width + 2 + 6 + 2 + 13 + 2 + word_width;
    let label_max = paint.columns.saturating_sub(beside).max(8);
    let label = |row: &RatioRow| shortened(&row.label, label_max);
    let label_width = widest(&mut rows.iter().map(|r| chars(&label(r))).chain([chars(heads[0])]));
    let room = paint.columns.saturating_sub(beside + label_width + 2).min(DRAWN_MAX);
    let drawn = if room >= DRAWN_MIN { room } else { 0 };
    let scale = scale(rows);
    let mut line = format!("  {:<label_width$}", heads[0]);
    for (head, width) in heads[1..].iter().zip(&cell_widths) {
        line += &format!("  {head:>width$}");
    }
    line += &format!("  {:>6}  {:<13}", "ratio", "95 % interval");
    let mut out = paint.tone(Tone::Dim, &line) + "\n";
    for row in rows {
        let mut line = format!("  {:<label_width$}", label(row));
        for (cell, width) in row.cells.iter().zip(&cell_widths) {
            line += &format!("  {cell:>width$}");
        }
        let (ratio, interval) = match row.ratio {
            Some(r) => (
                ratio_digits(r.median),
                format!("{}–{}", ratio_digits(r.low), ratio_digits(r.high)),
            ),
            None => ("–".into(), String::new()),
        };
        line += &format!("  {ratio:>6}  {interval:<13}");
        if drawn > 0 {
            let bar = row.ratio.map_or(" ".repeat(drawn), |ratio| draw(&ratio, scale, drawn));
            line += &format!("  {}", paint.tone(Tone::Bar, &bar));
        }
        line += &format!("  {}", paint.tone(tone(row), word(row)));
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// A label with its end: what tells those of one table apart mostly stands behind the last dot.
fn shortened(label: &str, wide: usize) -> String {
    let chars = |text: &str| text.chars().count();
    match label.rsplit_once(" · ") {
        Some((whose, what)) if chars(label) > wide => {
            let room = wide.saturating_sub(chars(what) + 3);
            if room < 3 { cut(what, wide) } else { format!("{} · {what}", cut(whose, room)) }
        }
        _ => cut(label, wide),
    }
}

/// Indented text, broken where the columns end.
pub fn paragraph(words: &str, tone: Tone, paint: Paint) -> String {
    let lines = wrap(words, paint.columns - 2);
    lines.iter().map(|line| format!("  {}\n", paint.tone(tone, line))).collect()
}

/// `−7.2 % (−9.1 to −5.0)`.
pub fn percents(ratio: &Ratio) -> String {
    let percent = |value: f64| {
        let percent = 100.0 * (value - 1.0);
        let sign = if percent < 0.0 { '−' } else { '+' };
        format!("{sign}{:.1}", percent.abs())
    };
    format!("{} % ({} to {})", percent(ratio.median), percent(ratio.low), percent(ratio.high))
}

/// A figure in its unit: times as people read them, rates grouped.
pub fn figure(value: f64, unit: &str) -> String {
    match unit {
        "ns" => time_ns(value),
        "µs" => time_ns(value * 1e3),
        "/s" => format!("{}/s", grouped(value.round().max(0.0) as u64)),
        "" => ratio_digits(value),
        unit => format!("{} {unit}", ratio_digits(value)),
    }
}

fn verdict(row: &RatioRow) -> Option<Verdict> {
    row.ratio.map(|ratio| ratio.verdict(row.less_is_better))
}

fn is_equal(row: &RatioRow) -> bool {
    row.ratio.is_some_and(|ratio| ratio.is_equal())
}

fn word(row: &RatioRow) -> &str {
    match (row.word.as_str(), verdict(row)) {
        ("", Some(_)) if is_equal(row) => "equal",
        ("", Some(Verdict::Ahead)) => "better",
        ("", Some(Verdict::Behind)) => "worse",
        ("", Some(Verdict::Unresolved)) => "unresolved",
        (word, _) => word,
    }
}

fn tone(row: &RatioRow) -> Tone {
    match verdict(row) {
        _ if is_equal(row) => Tone::Dim,
        Some(Verdict::Ahead) => Tone::Good,
        Some(Verdict::Behind) => Tone::Warn,
        _ => Tone::Dim,
    }
}

/// The largest distance from 1 that a row needs, as a logarithm: from 5 % to a factor of 2.
fn scale(rows: &[RatioRow]) -> f64 {
    let ends = rows.iter().filter_map(|row| row.ratio).flat_map(|r| [r.low, r.high]);
    let far = ends.map(|end| end.max(1e-9).ln().abs()).fold(0.0, f64::max);
    far.clamp(1.05f64.ln(), 2f64.ln())
}

/// `    ├──●──┤  │    `, with 1 in the middle; what lies beyond the scale is cut.
fn draw(ratio: &Ratio, scale: f64, width: usize) -> String {
    let half = (width - 1) as f64 / 2.0;
    let at = |value: f64| {
        let place = half + half * (value.max(1e-9).ln() / scale);
        place.round().clamp(0.0, (width - 1) as f64) as usize
    };
    let (low, middle, high) = (at(ratio.low), at(ratio.median), at(ratio.high));
    let one = at(1.0);
    let mark = |i: usize| match i {
        i if i == middle => '●',
        i if i == low && low < middle => '├',
        i if i == high && high > middle => '┤',
        i if (low..=high).contains(&i) => '─',
        i if i == one => '│',
        _ => ' ',
    };
    (0..width).map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, median: f64, half: f64) -> RatioRow {
        let ratio = Ratio { median, low: median - half, high: median + half, blocks: 9 };
        RatioRow {
            label: label.into(),
            cells: vec!["1.00 ms".into()],
            ratio: Some(ratio),
            less_is_better: true,
            word: String::new(),
        }
    }

    #[test]
    fn what_is_told_apart_by_its_end_keeps_that() {
        assert_eq!(shortened("at the highest rate · p99.9", 17), "at the h… · p99.9");
        assert_eq!(shortened("echo-64 · tokio · p50", 21), "echo-64 · tokio · p50");
        assert_eq!(shortened("echo-64 · tokio · p50", 16), "echo-64 ·… · p50");
        assert_eq!(shortened("a · requests per second", 9), "requests…");
        assert_eq!(shortened("tick_quota=2ms spin=off", 9), "tick_quo…");
    }

    #[test]
    fn intervals_are_drawn_on_a_common_scale_around_one() {
        let of = |median: f64, half: f64| {
            let ratio = Ratio { median, low: median - half, high: median + half, blocks: 9 };
            draw(&ratio, 1.1f64.ln(), 11)
        };
        assert_eq!(of(1.0, 0.001), "     ●     ");
        assert_eq!(of(1.0, 0.05), "  ├──●──┤  ");
        assert_eq!(of(0.93, 0.02), "├●┤  │     ");
        assert_eq!(of(1.5, 0.1), "     │    ●", "what is beyond is at the edge");
    }

    #[test]
    fn what_rounds_to_one_is_called_equal_on_either_side() {
        for (median, half, said) in [
            (0.9998, 0.0001, "equal"),
            (1.0002, 0.0001, "equal"),
            (1.0, 0.0001, "equal"),
            (0.9990, 0.0002, "better"),
            (1.0006, 0.0004, "worse"),
            (1.0, 0.01, "unresolved"),
        ] {
            let row = row("rate", median, half);
            assert_eq!((word(&row), median), (said, median));
            let text = ratios(&["", "was"], &[row], Paint { columns: 100, colour: false });
            assert_eq!(text.contains("1.000–1.000"), said == "equal", "{text}");
        }
        let mut few = row("rate", 0.9998, 0.0001);
        few.ratio.as_mut().unwrap().blocks = 4;
        assert_eq!(word(&few), "unresolved", "of so few nobody can tell");
    }

    #[test]
    fn tables_keep_to_their_columns() {
        let mut rows = vec![row("spin=off", 0.9, 0.02), row("x", 1.01, 0.03), row("y", 1.2, 0.1)];
        rows.push(RatioRow { ratio: None, word: "can't tell".into(), ..row("z", 1.0, 0.0) });
        rows.push(row("a=1 b=2 c=3 d=4 e=5 f=6 g=7 and so on", 0.99, 0.02));
        for columns in [80, 120] {
            let paint = Paint { columns, colour: false };
            let text = ratios(&["changed", "now"], &rows, paint);
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
            for word in ["better", "worse", "unresolved", "can't tell", "d=4 e"] {
                assert!(text.contains(word), "{word}: {text}");
            }
            assert_eq!(text.contains('●'), columns == 120, "names go before the drawing: {text}");
            assert!(ratios(&["changed", "now"], &rows[..4], paint).contains('●'));
        }
    }

    #[test]
    fn changes_in_percent_have_their_sign() {
        let ratio = Ratio { median: 0.928, low: 0.909, high: 1.004, blocks: 9 };
        assert_eq!(percents(&ratio), "−7.2 % (−9.1 to +0.4)");
        assert_eq!(figure(5_000.0, "ns"), "5.00 µs");
        assert_eq!(figure(81_234.4, "/s"), "81,234/s");
    }
}
