//! Profiles: settings that go together.

use std::fmt;
use std::str::FromStr;

use super::error::SettingError;
use crate::words::nearest;

/// A named set of settings, below everything that is set one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// Many connections, full cores: large queues, long turns.
    Throughput,
    /// Few connections, short waits: spins 50 µs before each sleep, short turns, fine timers.
    Latency,
    /// CPUs that others use too: never spins, few threads.
    Shared,
}

impl Profile {
    /// All of them.
    pub const ALL: [Profile; 3] = [Profile::Throughput, Profile::Latency, Profile::Shared];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Throughput => "throughput",
            Profile::Latency => "latency",
            Profile::Shared => "shared",
        }
    }

    /// What it sets, as names and values.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Profile::Throughput => {
                &[("ring_entries", "4096"), ("cq_entries", "16384"), ("tick_quota", "1ms")]
            }
            Profile::Latency => {
                &[("spin", "50us"), ("tick_quota", "200us"), ("timer_resolution", "100us")]
            }
            Profile::Shared => &[("spin", "off"), ("blocking_threads", "4")],
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == text.trim());
        found.ok_or_else(|| {
            let known = Self::ALL.map(Profile::name);
            let why = match nearest(text.trim(), known) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("there are {}", known.join(", ")),
            };
            SettingError::value("profile", format!("{text:?} is no profile; {why}"))
        })
    }
}
