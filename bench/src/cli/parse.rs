//! Parsers of single values on the command line: durations, sizes, counts, core lists, the spin.
//!
//! Owns the words that people write and the limits of each value; an error names what would be
//! right. Knows no flag names (clap puts them in front), and of the machine it runs on only which cores
//! a word such as `physical` stands for.

use std::fmt;
use std::time::Duration;

use coreloop::{Cores, CoresError};

/// The highest number that a CPU can have: kernels are built for 8,192 at most.
pub const CORE_MAX: usize = 8191;

/// Cores in the order they were written, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

/// How long a loop polls before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spin {
    /// It never spins.
    Off,
    /// It learns by itself when a spin pays.
    Dial,
    /// It always spins this long.
    Fixed(Duration),
}

/// Smallest and largest value that a flag takes, with the unit for its message.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The least that makes sense.
    pub min: u64,
    /// The most that is not a slip of the finger.
    pub max: u64,
}

/// Parses `10s`, `500ms`, `2m`, `1.5s` or `1m30s`. A number without a unit is refused: nobody can
/// tell whether `--duration 10` meant seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ns = 0.0f64;
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(|| duration_help(text))?;
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit_ns = match after[..unit_end].trim() {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" | "sec" => 1e9,
            "m" | "min" => 60e9,
            "h" => 3600e9,
            _ => return Err(duration_help(text)),
        };
        total_ns += number * unit_ns;
        rest = &after[unit_end..];
    }
    if text.is_empty() || total_ns > 1e18 {
        return Err(duration_help(text));
    }
    Ok(Duration::from_nanos(total_ns.round() as u64))
}

/// [`duration`], refused outside of `min..=max`.
pub fn duration_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let value = duration(text)?;
    if value < min || value > max {
        return Err(format!("must be {} to {}", Human(min), Human(max)));
    }
    Ok(value)
}

/// Parses bytes: `64`, `16k`, `1M`, `16KiB`; k, M and G are powers of 1024.
pub fn size(text: &str, range: Range) -> Result<u64, String> {
    let help = || format!("'{text}' is no size: write bytes as 64, 16k or 1M");
    let value = scaled(text, 1024).ok_or_else(help)?;
    if value < range.min || value > range.max {
        return Err(format!("must be {} to {}", bytes(range.min), bytes(range.max)));
    }
    Ok(value)
}

/// Parses a count: `64`, `50_000`, `50k`, `2M`; k and M are powers of 1000.
pub fn count(text: &str, range: Range) -> Result<u64, String> {
    let help = || format!("'{text}' is no whole number: write 64, 50_000 or 50k");
    let value = scaled(text, 1000).ok_or_else(help)?;
    if value < range.min || value > range.max {
        return Err(format!("must be {} to {}", grouped(range.min), grouped(range.max)));
    }
    Ok(value)
}

/// Parses `0`, `0,2` or `0,2-5`, and what the setting `cores` takes beside such lists, for which it asks the
/// machine: `all`, `count:4`, `numa:0` and `physical`.
pub fn cores(text: &str) -> Result<CoreList, String> {
    if matches!(text.trim(), "all" | "physical") || text.contains(':') {
        let words: Cores = text.parse().map_err(|error: CoresError| error.to_string())?;
        return words.resolve().map(CoreList).map_err(|error| error.to_string());
    }
    let help = || {
        format!("'{text}' is no core list: write 0, 0,2 or 0,2-5, all, count:4, numa:0 or physical")
    };
    let mut list = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let from: usize = from.trim().parse().map_err(|_| help())?;
        let to: usize = to.trim().parse().map_err(|_| help())?;
        if from > to {
            return Err(format!("'{}' runs backwards: write {to}-{from}", part.trim()));
        }
        if to > CORE_MAX {
            return Err(format!("core {to} is above the highest possible one, {CORE_MAX}"));
        }
        for core in from..=to {
            if list.contains(&core) {
                return Err(format!("core {core} is named twice: name each core once"));
            }
            list.push(core);
        }
    }
    Ok(CoreList(list))
}

/// Parses `off`, `dial` or a duration up to 10 ms.
pub fn spin(text: &str) -> Result<Spin, String> {
    // A longer spin than this is a busy loop, and its figures would be taken for something else.
    const SPIN_MAX: Duration = Duration::from_millis(10);
    match text {
        "off" => Ok(Spin::Off),
        "dial" => Ok(Spin::Dial),
        other => match duration(other) {
            Ok(Duration::ZERO) => Ok(Spin::Off),
            Ok(value) if value <= SPIN_MAX => Ok(Spin::Fixed(value)),
            Ok(_) => Err(format!("a fixed spin is at most {}", Human(SPIN_MAX))),
            Err(_) => Err(format!("'{other}' is no spin: write off, dial or a time such as 50us")),
        },
    }
}

/// Bytes with the largest binary unit that leaves a whole number.
pub fn bytes(value: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| value >= *unit && value.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", value / unit),
        None => format!("{value} B"),
    }
}

/// A duration in the words of [`duration`], the shortest that say it whole.
#[derive(Clone, Copy, Debug)]
pub struct Human(pub Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 6] = [
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "µs"),
            (1, "ns"),
        ];
        let ns = self.0.as_nanos();
        if ns == 0 {
            return f.write_str("0s");
        }
        let unit = UNITS.iter().find(|(unit, _)| ns.is_multiple_of(*unit)).expect("1 divides");
        write!(f, "{}{}", ns / unit.0, unit.1)
    }
}

impl fmt::Display for Spin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spin::Off => f.write_str("off"),
            Spin::Dial => f.write_str("dial"),
            Spin::Fixed(time) => Human(*time).fmt(f),
        }
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::report::units::core_ranges(&self.0))
    }
}

fn duration_help(text: &str) -> String {
    format!("'{text}' is no duration: write a number with its unit, as 10s, 500ms or 2m")
}

fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse::<f64>().ok()?;
    Some((number, &text[end..]))
}

fn scaled(text: &str, step: u64) -> Option<u64> {
    let text = text.trim().replace('_', "");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" => 1,
        "B" if step == 1024 => 1,
        "k" | "K" => step,
        "KiB" if step == 1024 => step,
        "m" | "M" => step.pow(2),
        "MiB" if step == 1024 => step.pow(2),
        "g" | "G" => step.pow(3),
        "GiB" if step == 1024 => step.pow(3),
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

fn grouped(value: u64) -> String {
    crate::report::units::grouped(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Range = Range { min: 1, max: 1 << 40 };

    #[test]
    fn durations_as_humans_write_them() {
        for (text, ns) in [
            ("10s", 10_000_000_000u64),
            ("500ms", 500_000_000),
            ("2m", 120_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            ("50us", 50_000),
            ("50µs", 50_000),
            ("1h", 3_600_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn a_bad_duration_says_how_to_write_one() {
        for text in ["10", "", "ten", "10x", "s", "1s2", "-1s", "1.2.3s", "99999999999h"] {
            let error = duration(text).unwrap_err();
            assert!(error.contains("10s, 500ms or 2m"), "{text}: {error}");
        }
        let second = Duration::from_secs(1);
        let error = duration_within("5s", Duration::from_millis(100), second).unwrap_err();
        assert_eq!(error, "must be 100ms to 1s");
    }

    #[test]
    fn sizes_are_binary_and_counts_decimal() {
        assert_eq!(size("64", WIDE), Ok(64));
        assert_eq!(size("16k", WIDE), Ok(16 << 10));
        assert_eq!(size("16KiB", WIDE), Ok(16 << 10));
        assert_eq!(size("1M", WIDE), Ok(1 << 20));
        assert_eq!(count("50k", WIDE), Ok(50_000));
        assert_eq!(count("50_000", WIDE), Ok(50_000));
        assert!(count("64KiB", WIDE).is_err());
        assert!(size("99999999999999999999", WIDE).is_err());
    }

    #[test]
    fn values_outside_their_range_name_the_range() {
        let range = Range { min: 1, max: 100_000 };
        assert_eq!(count("0", range), Err("must be 1 to 100,000".into()));
        let range = Range { min: 1, max: 16 << 20 };
        assert_eq!(size("17M", range), Err("must be 1 B to 16 MiB".into()));
    }

    #[test]
    fn core_lists_keep_their_order() {
        assert_eq!(cores("0"), Ok(CoreList(vec![0])));
        assert_eq!(cores("0,2-5"), Ok(CoreList(vec![0, 2, 3, 4, 5])));
        assert_eq!(cores("3, 1"), Ok(CoreList(vec![3, 1])));
        assert!(cores("").unwrap_err().contains("0,2-5"));
        assert!(cores("a").unwrap_err().contains("0,2-5"));
        assert_eq!(cores("5-2").unwrap_err(), "'5-2' runs backwards: write 2-5");
        assert!(cores("1,0-2").unwrap_err().contains("named twice"));
        assert!(cores("0-4000000000").unwrap_err().contains("8191"));
    }

    #[test]
    fn spin_is_off_dialled_or_a_time() {
        assert_eq!(spin("off"), Ok(Spin::Off));
        assert_eq!(spin("dial"), Ok(Spin::Dial));
        assert_eq!(spin("50us"), Ok(Spin::Fixed(Duration::from_micros(50))));
        assert!(spin("1s").unwrap_err().contains("10ms"));
        assert!(spin("auto").unwrap_err().contains("off, dial"));
        assert_eq!(Spin::Fixed(Duration::from_micros(50)).to_string(), "50µs");
    }
}
