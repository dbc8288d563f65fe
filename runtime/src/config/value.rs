//! Values of settings as text: what TOML, the environment and flags write, and what is printed.

use std::time::Duration;

use super::accept::AcceptSpread;
use crate::driver::asked::TaskWork;
use crate::driver::features::{Feature, FeatureSet};
use crate::driver::workers::WorkerCpus;
use crate::executor::dial::Spin;
use crate::metrics::StatsLevel;
use crate::placement::read_list;

/// A value that can be written as text.
pub(super) trait Value: Sized + PartialEq {
    /// How its text looks, for messages and tables.
    const FORM: &'static str;

    /// Reads it; the error says what would be right.
    fn read(text: &str) -> Result<Self, String>;

    /// Writes it as [`read`](Self::read) takes it.
    fn write(&self) -> String;
}

impl Value for u32 {
    const FORM: &'static str = "a whole number; 16k is 16,384";

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a whole number");
        let binary = [("KiB", 10), ("MiB", 20), ("k", 10), ("K", 10), ("M", 20)];
        let suffix = binary.iter().find(|(suffix, _)| text.ends_with(suffix));
        let (digits, shift) =
            suffix.map_or((text, 0), |(s, shift)| (&text[..text.len() - s.len()], *shift));
        // Digits may be grouped as in Rust and TOML.
        let number: u32 = digits.trim_end().replace('_', "").parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).ok_or_else(wrong)
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    const FORM: &'static str = "true or false";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// Units of time, the largest first, in nanoseconds.
const UNITS: [(&str, u64); 4] = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

impl Value for Duration {
    const FORM: &'static str = "a time such as 500us, 1ms or 2s";

    fn read(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Duration::MAX);
        }
        let wrong = || format!("{text:?} is not {}", Self::FORM);
        let at = text.find(|c: char| !c.is_ascii_digit() && c != '_').ok_or_else(wrong)?;
        let (number, unit) = text.split_at(at);
        let number: u64 = number.replace('_', "").parse().map_err(|_| wrong())?;
        let unit = if unit == "µs" { "us" } else { unit };
        let (_, ns) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*ns).map(Duration::from_nanos).ok_or_else(wrong)
    }

    fn write(&self) -> String {
        if *self == Duration::MAX {
            return "never".into();
        }
        let ns = self.as_nanos();
        let fits = |(_, unit): &&(&str, u64)| ns != 0 && ns.is_multiple_of(u128::from(*unit));
        let (name, unit) = UNITS.iter().find(fits).unwrap_or(&UNITS[0]);
        format!("{}{name}", ns / u128::from(*unit))
    }
}

/// None is `off`, and so is nothing of it.
impl Value for Option<Duration> {
    const FORM: &'static str = "off, or a time such as 50us";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(None),
            _ => match Duration::read(text) {
                Ok(time) => Ok(Some(time).filter(|time| !time.is_zero())),
                Err(_) => Err(format!("{text:?} is not {}", Self::FORM)),
            },
        }
    }

    fn write(&self) -> String {
        self.map_or_else(|| "off".into(), |time| time.write())
    }
}

impl Value for Option<u32> {
    const FORM: &'static str = "off, or a whole number; 16k is 16,384";

    fn read(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(None);
        }
        u32::read(text).map(Some).map_err(|_| format!("{text:?} is not {}", Self::FORM))
    }

    fn write(&self) -> String {
        self.map_or_else(|| "off".into(), |number| number.write())
    }
}

impl Value for TaskWork {
    const FORM: &'static str = "auto, deferred or cooperative";

    fn read(text: &str) -> Result<Self, String> {
        [TaskWork::Auto, TaskWork::Deferred, TaskWork::Cooperative]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not {}", Self::FORM))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Value for AcceptSpread {
    const FORM: &'static str = "reuseport, cpu, round-robin or least-connections";

    fn read(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|way| way.to_string() == text);
        named.ok_or_else(|| format!("{text:?} is not {}", Self::FORM))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Value for WorkerCpus {
    const FORM: &'static str = "auto, kernel, or CPUs such as 2-3,6";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            _ => read_list(text)
                .filter(|cpus| !cpus.is_empty())
                .map(Self::These)
                .ok_or_else(|| format!("{text:?} is not {}", Self::FORM)),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// The longest spin before a sleep.
pub(super) const SPIN_MAX: Duration = Duration::from_secs(1);

impl Value for Spin {
    const FORM: &'static str = "off, dial, or a time such as 50us";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Spin::Off),
            "dial" => Ok(Spin::Dial),
            _ => match Duration::read(text) {
                Ok(time) if time > SPIN_MAX => Err(format!("a spin of {text} is longer than 1 s")),
                Ok(time) => Ok(Spin::Fixed(time)),
                Err(_) => Err(format!("{text:?} is not {}", Self::FORM)),
            },
        }
    }

    fn write(&self) -> String {
        match self {
            Spin::Off => "off".into(),
            Spin::Dial => "dial".into(),
            Spin::Fixed(time) => time.write(),
        }
    }
}

impl Value for StatsLevel {
    const FORM: &'static str = "off, counters or histograms";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(StatsLevel::Off),
            "counters" => Ok(StatsLevel::Counters),
            "histograms" => Ok(StatsLevel::Histograms),
            _ => Err(format!("{text:?} is not {}", Self::FORM)),
        }
    }

    fn write(&self) -> String {
        match self {
            StatsLevel::Off => "off",
            StatsLevel::Counters => "counters",
            StatsLevel::Histograms => "histograms",
        }
        .into()
    }
}

/// How an empty set of features is written.
pub(super) const NOTHING: &str = "none";

impl Value for FeatureSet {
    const FORM: &'static str = "none, or names of features parted by commas";

    fn read(text: &str) -> Result<Self, String> {
        if text == NOTHING {
            Ok(Self::none())
        } else {
            Self::parse(text).map_err(|e| e.to_string())
        }
    }

    fn write(&self) -> String {
        let names = Feature::ALL.into_iter().filter(|f| self.contains(*f)).map(Feature::name);
        let names: Vec<_> = names.collect();
        if names.is_empty() { NOTHING.into() } else { names.join(",") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back_and_forth<V: Value + std::fmt::Debug>(values: impl IntoIterator<Item = V>) {
        for value in values {
            assert_eq!(V::read(&value.write()).as_ref(), Ok(&value), "{}", value.write());
        }
    }

    #[test]
    fn what_is_written_is_read() {
        back_and_forth([0, 7, u32::MAX]);
        back_and_forth([true, false]);
        back_and_forth([Duration::MAX]);
        back_and_forth([0, 1, 999, 1_000, 1_500_000, 2_000_000_000].map(Duration::from_nanos));
        back_and_forth([Spin::Off, Spin::Dial, Spin::Fixed(Duration::from_micros(50))]);
        back_and_forth([StatsLevel::Off, StatsLevel::Counters, StatsLevel::Histograms]);
        back_and_forth([WorkerCpus::Auto, WorkerCpus::Kernel, WorkerCpus::These(vec![3, 0, 5])]);
        back_and_forth([FeatureSet::none(), FeatureSet::read("no_iowait,abs_timer").unwrap()]);
    }

    #[test]
    fn what_is_wrong_says_what_would_be_right() {
        assert_eq!(u32::read("x").unwrap_err(), "\"x\" is not a whole number");
        assert!(u32::read("-1").is_err());
        for (text, number) in
            [("4_096", 4096), ("16k", 16_384), ("1 MiB", 1 << 20), ("4095M", 4095 << 20)]
        {
            assert_eq!(u32::read(text), Ok(number));
        }
        assert!(u32::read("4096M").is_err() && u32::read("k").is_err());
        for bad in ["", "5", "ms", "5m", "1.5ms", "99999999999999s", "-1s"] {
            assert!(Duration::read(bad).unwrap_err().contains("500us"), "{bad}");
        }
        assert_eq!(Duration::read("3µs"), Ok(Duration::from_micros(3)));
        assert!(Spin::read("maybe").unwrap_err().contains("off, dial"));
        assert!(StatsLevel::read("all").unwrap_err().contains("histograms"));
        assert_eq!(WorkerCpus::read("2-3,6"), Ok(WorkerCpus::These(vec![2, 3, 6])));
        for bad in ["", "none", "3-2", "9999", "1,,2"] {
            assert!(WorkerCpus::read(bad).unwrap_err().contains("auto, kernel"), "{bad}");
        }
        assert!(FeatureSet::read("no_iowaits").unwrap_err().contains("no_iowait"));
    }
}
