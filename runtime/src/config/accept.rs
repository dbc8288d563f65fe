//! How a server's cores come by their connections, as a setting.

use std::fmt;

use super::Settings;

/// How a server's cores come by their connections: what the setting `accept_spread` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptSpread {
    /// A listener for each core, between which the kernel chooses by a hash of the addresses.
    #[default]
    ReusePort,
    /// A listener for each core, chosen by the CPU on which the connection arrives.
    Cpu,
    /// The first core accepts and deals connections out, to one core after the other.
    RoundRobin,
    /// The first core accepts and deals connections out, to whoever has the fewest.
    LeastConnections,
}

impl AcceptSpread {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::ReusePort, Self::Cpu, Self::RoundRobin, Self::LeastConnections];

    /// What these settings say.
    ///
    /// ```
    /// use coreloop::Settings;
    /// use coreloop::config::AcceptSpread;
    ///
    /// let settings = Settings::default().accept_spread(AcceptSpread::Cpu);
    /// assert_eq!(AcceptSpread::of(&settings), AcceptSpread::Cpu);
    /// assert_eq!(AcceptSpread::of(&Settings::default()).to_string(), "reuseport");
    /// ```
    pub fn of(settings: &Settings) -> Self {
        settings.values.accept_spread
    }
}

impl fmt::Display for AcceptSpread {
    /// As files and flags write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReusePort => "reuseport",
            Self::Cpu => "cpu",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
        })
    }
}
