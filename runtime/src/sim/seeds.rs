//! Many seeds of one simulation.
//!
//! Owns [`check`] and the environment variables that a person steers it with: `CORELOOP_SEED` for one seed
//! seen again, `CORELOOP_SEEDS` for more of them, as many as a time allows, or others.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use super::builder::Builder;
use super::control::Sim;
use super::report::SimError;

/// Runs a simulation once for each of so many seeds, from 0; `setup` adds its hosts. The default mix of
/// faults; for another, [`Builder::check`].
///
/// - `CORELOOP_SEED=7` runs that seed alone.
/// - `CORELOOP_SEEDS=5000` runs so many, `CORELOOP_SEEDS=1000..2000` these, `CORELOOP_SEEDS=10m` (or `30s`,
///   `8h`) as many as that time allows.
///
/// # Panics
/// If one fails: with the seed, what happened last, and how to see it again. Also if a variable can't be
/// read.
///
/// ```
/// use coreloop::time::sleep;
/// use std::time::Duration;
///
/// coreloop::sim::check(10, |sim| {
///     sim.client("sleeper", || sleep(Duration::from_secs(1)));
/// });
/// ```
#[track_caller]
pub fn check(seeds: u64, setup: impl Fn(&Sim)) {
    Builder::default().check(seeds, setup);
}

impl Builder {
    /// As [`check`], with these settings. The seed among them is not used.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn check(&self, seeds: u64, setup: impl Fn(&Sim)) {
        // What is not UTF-8 is refused as any other text that is no plan.
        let var = |name| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned());
        let plan = match Plan::read(var("CORELOOP_SEED"), var("CORELOOP_SEEDS"), seeds) {
            Ok(plan) => plan,
            Err(why) => panic!("{why}"),
        };
        let (range, limit) = match plan {
            Plan::Seeds(range) => (range, None),
            Plan::Time(limit) => (0..u64::MAX, Some(limit)),
        };
        let began = Instant::now();
        for seed in range {
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                crate::contain::tell(format_args!("{seed} seeds passed in {:?}", began.elapsed()));
                return;
            }
            if let Err(error) = self.one(seed, &setup) {
                panic!("{error}");
            }
        }
    }

    /// The first of so many seeds, from 0, with which the simulation fails; the environment has no say.
    /// For tests which show that a bug is found.
    pub fn first_failure(&self, seeds: u64, setup: impl Fn(&Sim)) -> Option<SimError> {
        (0..seeds).find_map(|seed| self.one(seed, &setup).err())
    }

    fn one(&self, seed: u64, setup: impl Fn(&Sim)) -> Result<(), SimError> {
        let _told = Told(seed);
        let sim = self.clone().seed(seed).build();
        setup(&sim);
        sim.run().map(drop)
    }
}

/// Says the seed when the set-up itself panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            crate::contain::tell(format_args!(
                "seed {}: to see it again, set CORELOOP_SEED={}",
                self.0, self.0
            ));
        }
    }
}

/// Which seeds to run.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Seeds(Range<u64>),
    Time(Duration),
}

impl Plan {
    fn read(seed: Option<String>, seeds: Option<String>, usual: u64) -> Result<Self, String> {
        if let Some(text) = seed {
            let why = || format!("CORELOOP_SEED={text}: not a number from 0 to {}", u64::MAX - 1);
            let seed = text.trim().parse::<u64>().ok().filter(|s| *s < u64::MAX);
            return seed.map(|s| Self::Seeds(s..s + 1)).ok_or_else(why);
        }
        let Some(text) = seeds else { return Ok(Self::Seeds(0..usual)) };
        // A plan for no seeds would pass whatever the program does.
        Self::of_text(text.trim()).filter(|plan| !plan.is_empty()).ok_or_else(|| {
            format!(
                "CORELOOP_SEEDS={text}: not a number of seeds (`5000`), a range (`1000..2000`) or a \
                 time (`30s`, `10m`, `8h`), of at least one"
            )
        })
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Seeds(seeds) => seeds.is_empty(),
            Self::Time(limit) => limit.is_zero(),
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        if let Some((first, end)) = text.split_once("..") {
            return Some(Self::Seeds(first.parse().ok()?..end.parse().ok()?));
        }
        for (unit, secs) in [('s', 1), ('m', 60), ('h', 3600)] {
            if let Some(number) = text.strip_suffix(unit) {
                let number = number.parse::<u32>().ok()?;
                return Some(Self::Time(Duration::from_secs(u64::from(number) * secs)));
            }
        }
        Some(Self::Seeds(0..text.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_tests::{corpus, fuzz, signature};

    fn read(seed: Option<&str>, seeds: Option<&str>) -> Result<Plan, String> {
        Plan::read(seed.map(str::to_owned), seeds.map(str::to_owned), 100)
    }

    #[test]
    fn the_environment_is_read() {
        assert_eq!(read(None, None), Ok(Plan::Seeds(0..100)));
        assert_eq!(read(Some("7"), Some("10m")), Ok(Plan::Seeds(7..8)));
        assert_eq!(read(None, Some("5000")), Ok(Plan::Seeds(0..5000)));
        for none in ["0", "9..3", "0s"] {
            assert!(read(None, Some(none)).is_err(), "{none}");
        }
        assert_eq!(read(None, Some("10..20")), Ok(Plan::Seeds(10..20)));
        assert_eq!(read(None, Some("10m")), Ok(Plan::Time(Duration::from_secs(600))));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for bad in ["", "x", "-1", "1.5", "10d", "99999999999999999999"] {
            let said = read(None, Some(bad)).unwrap_err();
            assert!(said.contains("CORELOOP_SEEDS") && said.contains("10m"), "{said}");
            assert!(read(Some(bad), None).unwrap_err().contains("CORELOOP_SEED="), "{bad}");
        }
    }

    /// Two lines: CORELOOP_SEED, unless it is empty, and CORELOOP_SEEDS.
    #[test]
    fn fuzz_plans_of_seeds() {
        let words =
            ["..", "s", "m", "h", "18446744073709551615", "18446744073709551614", "\n", "+"];
        let fuzzed = fuzz(&corpus("seeds"), &words, |input| {
            let text = String::from_utf8_lossy(input);
            let (seed, seeds) = text.split_once('\n').unwrap_or((&text, ""));
            let plan = read(Some(seed).filter(|seed| !seed.is_empty()), Some(seeds));
            match plan {
                Ok(Plan::Seeds(seeds)) => {
                    assert!(seeds.start < seeds.end, "{text:?}");
                    signature((0, seeds.start == 0, seeds.end - seeds.start > 1))
                }
                Ok(Plan::Time(limit)) => {
                    assert!(!limit.is_zero(), "{text:?}");
                    signature((1, limit.as_secs().is_multiple_of(60)))
                }
                Err(why) => {
                    assert!(why.contains("CORELOOP_SEED"), "{why}");
                    signature((2, why.contains("CORELOOP_SEEDS")))
                }
            }
        });
        println!("{fuzzed:?}");
        assert!(fuzzed.signatures >= 6, "{fuzzed:?}");
    }
}
