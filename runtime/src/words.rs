//! Times as people read them, and the name that somebody meant.
//!
//! Owns [`Time`], a number with one decimal, a space, the unit that suits it; and [`nearest`]. Knows nothing
//! else.

use std::fmt;
use std::time::Duration;

/// A time in words: `1.5 s`, `25.3 ms`, `900 ns`.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        // What would be rounded up to 1,000 of the smaller unit belongs to the larger one.
        let (unit, name) = match ns {
            0..1_000 => return write!(f, "{ns} ns"),
            1_000..999_950 => (1e3, "µs"),
            999_950..999_950_000 => (1e6, "ms"),
            _ => (1e9, "s"),
        };
        let text = format!("{:.1}", ns as f64 / unit);
        // A whole number needs no decimal.
        write!(f, "{} {name}", text.strip_suffix(".0").unwrap_or(&text))
    }
}

/// Of the known names that which `name` may have been meant for; further off it would be a guess.
pub(crate) fn nearest(
    name: &str,
    known: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let known = known.into_iter();
    let nearest = known.map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
    let (_, known) = nearest.filter(|(distance, known)| *distance <= known.len() / 3 + 1)?;
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_change_where_a_thousand_would_be_printed() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1 µs"),
            (999_949, "999.9 µs"),
            (999_950, "1 ms"),
            (25_340_000, "25.3 ms"),
            (999_950_000, "1 s"),
            (3_600_000_000_000, "3600 s"),
        ] {
            assert_eq!(Time(Duration::from_nanos(ns)).to_string(), text);
        }
    }
}
