//! Flags of the commands that look at a running server, and addresses of ops listeners.
//!
//! Owns what an address may look like: a port alone, `IP:PORT`, `HOST:PORT` or an `http://` URL.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use coreloop_net::ops::PORT;

use super::examples::{EXAMPLES_PS, EXAMPLES_TOP};
use super::parse;

const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Flags of `top`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES_TOP)]
pub struct TopArgs {
    /// The server's ops listener: a port, HOST:PORT, or a URL
    #[arg(value_name = "URL", default_value_t = OpsUrl::here())]
    pub url: OpsUrl,
    /// Time between two looks (100ms to 60s)
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// In which order the cores stand
    #[arg(long, value_name = "KEY", value_enum, default_value_t = SortBy::Core)]
    pub sort: SortBy,
    /// Print one frame as text, after one interval, and end
    #[arg(long)]
    pub once: bool,
    /// Print a line of JSON for each interval instead of the view
    #[arg(long)]
    pub json: bool,
}

/// Flags of `ps`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES_PS)]
pub struct PsArgs {
    /// The server's ops listener: a port, HOST:PORT, or a URL
    #[arg(value_name = "URL", default_value_t = OpsUrl::here())]
    pub url: OpsUrl,
    /// Only tasks whose id, name, state, wait or place of spawning has this text, and their ancestors
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Tasks of each core to list at most (1 to 1000000)
    #[arg(long, value_name = "N", default_value = "10000", value_parser = max)]
    pub max: u64,
    /// Print the tasks as JSON
    #[arg(long)]
    pub json: bool,
}

/// What the cores are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// Their numbers.
    Core,
    /// Time that they worked.
    Busy,
    /// Polls of tasks.
    Polls,
    /// Latency from a wake to the poll.
    P99,
    /// Tasks.
    Tasks,
}

impl SortBy {
    /// The next one, for a key that goes round.
    pub fn next(self) -> SortBy {
        let all = SortBy::value_variants();
        let at = all.iter().position(|one| *one == self).unwrap_or(0);
        all[(at + 1) % all.len()]
    }

    /// The word of the command line for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SortBy::Core => "core",
            SortBy::Busy => "busy",
            SortBy::Polls => "polls",
            SortBy::P99 => "p99",
            SortBy::Tasks => "tasks",
        }
    }
}

/// Where an ops listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpsUrl {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl OpsUrl {
    /// The one of this machine.
    pub fn here() -> OpsUrl {
        OpsUrl { host: "127.0.0.1".into(), port: PORT }
    }
}

impl fmt::Display for OpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}", self.host, self.port),
            false => write!(f, "http://{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for OpsUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<OpsUrl, String> {
        let help = || {
            format!("'{text}' is no ops listener: write 9464, 127.0.0.1:9464 or http://host:9464")
        };
        if text.starts_with("https://") {
            return Err("the listener speaks http only: reach it through a tunnel (ssh -L)".into());
        }
        let (rest, default) = match text.strip_prefix("http://") {
            Some(rest) => (rest, 80),
            None => (text, PORT),
        };
        // The page is the command's to choose.
        let rest = rest.split('/').next().unwrap_or_default();
        let alone = rest.trim_start_matches(':');
        if !alone.is_empty() && alone.bytes().all(|b| b.is_ascii_digit()) {
            // Not a host: names of digits alone are addresses that nobody means.
            return match alone.parse() {
                Ok(port @ 1..) => Ok(OpsUrl { port, ..OpsUrl::here() }),
                _ => Err(format!("{alone} is no port: they are 1 to 65535")),
            };
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(help)?)),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = port.map_or(Ok(default), |port| port.parse().map_err(|_| help()))?;
        // It stands in a line of the request, and in what is told.
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '[' || c == ']';
        if host.is_empty() || host.contains(is_bad) || port == 0 {
            return Err(help());
        }
        Ok(OpsUrl { host: host.to_owned(), port })
    }
}

/// Where to listen: a port alone is one of the loopback interface.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    text.parse().map_err(|_| {
        format!("'{text}' is no address: write 9464, 127.0.0.1:9464, or 0.0.0.0:9464 for everybody")
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    parse::duration_within(text, INTERVAL_MIN, INTERVAL_MAX)
}

fn max(text: &str) -> Result<u64, String> {
    parse::count(text, parse::Range { min: 1, max: 1_000_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form_that_people_write() {
        for (text, shown) in [
            ("9464", "http://127.0.0.1:9464"),
            (":9100", "http://127.0.0.1:9100"),
            ("localhost", "http://localhost:9464"),
            ("10.0.0.1:9100", "http://10.0.0.1:9100"),
            ("http://server:9100/metrics", "http://server:9100"),
            ("http://server/", "http://server:80"),
            ("[::1]:9100", "http://[::1]:9100"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            let url: OpsUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(url.to_string().parse::<OpsUrl>().unwrap(), url, "{text}");
        }
        for text in ["", "http://", "host:port", "a b", "host:0", "[::1]9100"] {
            assert!(text.parse::<OpsUrl>().unwrap_err().contains("http://host:9464"), "{text}");
        }
        for text in ["99999", ":0", "0", "http://70000/metrics"] {
            assert!(text.parse::<OpsUrl>().unwrap_err().contains("1 to 65535"), "{text}");
        }
        assert!("https://x".parse::<OpsUrl>().unwrap_err().contains("tunnel"));
    }

    #[test]
    fn a_port_alone_is_one_of_the_loopback_interface() {
        assert!(listen("9464").unwrap().ip().is_loopback());
        assert_eq!(listen("0.0.0.0:9464").unwrap().to_string(), "0.0.0.0:9464");
        assert!(listen("everywhere").unwrap_err().contains("0.0.0.0:9464"));
    }

    #[test]
    fn the_help_of_ps_says_whose_the_first_number_of_an_id_is_not() {
        let mut command = PsArgs::augment_args(clap::Command::new("ps"));
        let help = command.render_long_help().to_string();
        assert!(help.contains("The first number is not the core's"), "{help}");
    }

    #[test]
    fn sorting_goes_round() {
        let mut sort = SortBy::Core;
        for _ in SortBy::value_variants() {
            sort = sort.next();
        }
        assert_eq!(sort, SortBy::Core);
    }
}
