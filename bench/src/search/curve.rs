//! The curve of a latency over the rate, drawn with characters.

use crate::report::paint::{Paint, Tone};
use crate::report::units::{grouped, time_ns};

/// A point of it.
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    /// Requests per second.
    pub rate: f64,
    /// The latency, in µs.
    pub us: f64,
    /// `●` where the goal holds, `○` where not, `△` where the generator was the limit.
    pub mark: char,
}

/// Lines between the axes.
const LINES: usize = 12;
/// Columns of the latencies on the left.
const LABELS: usize = 9;

/// The curve with the bound as a line; latencies on a logarithmic scale.
pub fn draw(dots: &[Dot], bound_us: f64, paint: Paint) -> String {
    let shown: Vec<Dot> = dots.iter().copied().filter(|dot| dot.us > 0.0).collect();
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else { return String::new() };
    let width = paint.columns - LABELS - 6;
    let all = shown.iter().map(|dot| dot.us).chain([bound_us]);
    let (low, high) = all.fold((f64::MAX, 0.0f64), |(l, h), us| (l.min(us), h.max(us)));
    // Room above and below, so that nothing lies on an edge.
    let (low, high) = ((low / 1.3).ln(), (high * 1.3).ln());
    let line_of = |us: f64| {
        let share = (us.ln() - low) / (high - low);
        LINES - 1 - (share * (LINES - 1) as f64).round().clamp(0.0, (LINES - 1) as f64) as usize
    };
    let span = (last.rate - first.rate).max(1.0);
    let column_of = |rate: f64| {
        ((rate - first.rate) / span * (width - 1) as f64).round().clamp(0.0, (width - 1) as f64)
            as usize
    };
    let mut field = vec![vec![' '; width]; LINES];
    let bound = line_of(bound_us);
    field[bound].fill('┄');
    for dot in &shown {
        field[line_of(dot.us)][column_of(dot.rate)] = dot.mark;
    }
    let mut out = String::new();
    for (i, line) in field.iter().enumerate() {
        let share = (LINES - 1 - i) as f64 / (LINES - 1) as f64;
        let us = (low + share * (high - low)).exp();
        let label = match i {
            i if i == bound => time_ns(bound_us * 1e3),
            i if i == 0 || i == LINES - 1 || i % 4 == 0 => time_ns(us * 1e3),
            _ => String::new(),
        };
        let text: String = line.iter().collect();
        let tone = if i == bound { Tone::Warn } else { Tone::Bar };
        out += &format!("  {label:>LABELS$} ┤ {}\n", paint.tone(tone, text.trim_end()));
    }
    out += &format!("  {:>LABELS$} └─{}\n", "", "─".repeat(width));
    let (from, to) = (grouped(first.rate as u64), grouped(last.rate as u64));
    let to = format!("{to} requests/s");
    let gap = (width + 1).saturating_sub(from.chars().count() + to.chars().count());
    out += &format!("  {:>LABELS$}  {from}{}{to}\n", "", " ".repeat(gap));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_has_its_points_its_bound_and_its_columns() {
        let dot = |rate, us, mark| Dot { rate, us, mark };
        let dots =
            [dot(20_000.0, 90.0, '●'), dot(60_000.0, 300.0, '●'), dot(80_000.0, 90_000.0, '○')];
        for columns in [80, 120] {
            let text = draw(&dots, 2_000.0, Paint { columns, colour: false });
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{text}");
            assert_eq!(text.matches('●').count(), 2, "{text}");
            assert_eq!(text.matches('○').count(), 1, "{text}");
            let bound = text.lines().find(|line| line.contains('┄')).unwrap();
            assert!(bound.contains("2.00 ms"), "{text}");
            assert!(text.contains("20,000") && text.contains("80,000 requests/s"), "{text}");
            let line = |mark| text.lines().position(|line| line.contains(mark)).unwrap();
            assert!(line('○') < line('┄') && line('┄') < line('●'), "{text}");
        }
        assert_eq!(draw(&[], 1.0, Paint::plain()), "");
    }
}
