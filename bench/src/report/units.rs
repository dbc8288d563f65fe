//! Numbers as people read them: times in the unit that fits, thousands apart, core ranges.
//!
//! Owns the rounding. Knows nothing of what a number stands for.

/// A time with three significant digits and the unit that fits it: `812 ns`, `27.4 µs`, `1.05 s`.
pub fn time_ns(ns: f64) -> String {
    // 999.5 and up would print as "1000" of the smaller unit: it belongs to the larger one.
    let (value, unit) = match ns {
        ns if ns < 999.5 => return format!("{ns:.0} ns"),
        ns if ns < 999.5e3 => (ns / 1e3, "µs"),
        ns if ns < 999.5e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A whole number with its thousands apart: `1,234,567`.
pub fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share of a whole: `0.0 %`, `97.3 %`, `100 %`.
pub fn percent(value: f64) -> String {
    match value {
        value if value >= 99.95 => format!("{value:.0} %"),
        value => format!("{value:.1} %"),
    }
}

/// A ratio with as many digits as say something: `0.031`, `2.50`, `16.0`, `1,250`.
pub fn ratio(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        value if value < 0.9995 => format!("{value:.3}"),
        value => three_digits(value),
    }
}

/// Cores as ranges: `0-2,5`; `none` for no core at all.
pub fn core_ranges(cores: &[usize]) -> String {
    let mut sorted = cores.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let ranges: Vec<String> = sorted
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [only] => only.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    if ranges.is_empty() { "none".into() } else { ranges.join(",") }
}

fn three_digits(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => grouped(value.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_pick_their_unit() {
        for (ns, text) in [
            (0.0, "0 ns"),
            (812.0, "812 ns"),
            (999.6, "1.00 µs"),
            (27_412.0, "27.4 µs"),
            (366_000.0, "366 µs"),
            (999_499.0, "999 µs"),
            (999_500.0, "1.00 ms"),
            (1_049_000.0, "1.05 ms"),
            (1.05e9, "1.05 s"),
            (3_600e9, "3,600 s"),
        ] {
            assert_eq!(time_ns(ns), text);
        }
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn shares_and_ratios() {
        assert_eq!(percent(0.04), "0.0 %");
        assert_eq!(percent(97.34), "97.3 %");
        assert_eq!(percent(99.97), "100 %");
        assert_eq!(ratio(0.0312), "0.031");
        assert_eq!(ratio(0.0), "0");
        assert_eq!(ratio(2.5), "2.50");
        assert_eq!(ratio(1250.4), "1,250");
    }

    #[test]
    fn cores_print_as_ranges() {
        assert_eq!(core_ranges(&[]), "none");
        assert_eq!(core_ranges(&[0]), "0");
        assert_eq!(core_ranges(&[5, 0, 1, 2]), "0-2,5");
    }
}
