//! The command line: every subcommand, flag, default and example.
//!
//! Owns what can be asked for. What a single value may look like is `parse`'s business, which
//! cores a plan ends up on is `plan`'s, the server's settings are `settings`'. Knows nothing of the machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod compare;
mod examples;
#[cfg(test)]
mod guide_tests;
pub mod ops;
pub mod parse;
pub mod peers;
pub mod plan;
pub mod search;
pub mod series;
pub mod settings;
pub mod trial;
pub mod tune;

use compare::CompareArgs;
use examples::*;
use parse::{CoreList, Range, Spin};
use peers::PeersArgs;
use search::SearchArgs;
use settings::ServerTuning;
use tune::TuneArgs;

const CONNECTIONS: Range = Range { min: 1, max: 100_000 };
const MESSAGE_SIZE: Range = Range { min: 1, max: 16 << 20 };
const DEPTH: Range = Range { min: 1, max: 1024 };
const RATE: Range = Range { min: 1, max: 50_000_000 };
const DURATION_MIN: Duration = Duration::from_millis(100);
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
const WARMUP_MAX: Duration = Duration::from_secs(3600);

/// Load benchmarks, reports and the doctor of the coreloop runtime.
#[derive(Debug, Parser)]
#[command(name = "coreloop-bench", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server and its load in this one process, and report both
    #[command(subcommand)]
    Run(RunScenario),
    /// Serve until SIGINT or SIGTERM, then report what each core did
    #[command(subcommand)]
    Serve(ServeScenario),
    /// Put load on a server that is already running
    #[command(subcommand)]
    Load(LoadScenario),
    /// Run the same work on coreloop and on what it is compared with, and say who is ahead
    Peers(Box<PeersArgs>),
    /// Show live what the cores of a running server do
    Top(ops::TopArgs),
    /// List the tasks of a running server as a tree, with what each waits for
    Ps(ops::PsArgs),
    /// Find settings that serve a goal better than the defaults, or say that the defaults hold
    Tune(Box<TuneArgs>),
    /// Find the highest rate at which a latency goal holds
    Search(Box<SearchArgs>),
    /// Say what differs beyond noise between two results
    Compare(CompareArgs),
    /// Say what this kernel offers, what it does not give of the settings, what limits matter, and what to
    /// change
    Doctor(DoctorArgs),
}

/// Scenarios of `run`.
#[derive(Debug, Subcommand)]
pub enum RunScenario {
    /// TCP echo: each message comes back as it was sent
    #[command(after_help = EXAMPLES_RUN)]
    Echo(RunArgs),
}

/// Scenarios of `serve`.
#[derive(Debug, Subcommand)]
pub enum ServeScenario {
    /// TCP echo: each message comes back as it was sent
    #[command(after_help = EXAMPLES_SERVE)]
    Echo(ServeArgs),
}

/// Scenarios of `load`.
#[derive(Debug, Subcommand)]
pub enum LoadScenario {
    /// TCP echo: each message must come back as it was sent
    #[command(after_help = EXAMPLES_LOAD)]
    Echo(LoadArgs),
    /// Connections that stay silent: what they cost the server
    #[command(after_help = EXAMPLES_IDLE)]
    Idle(IdleArgs),
}

/// What to send, how fast and for how long; shared by `run` and `load`.
#[derive(Args, Clone, Debug)]
pub struct Workload {
    /// Connections, over all load cores (1 to 100,000)
    #[arg(long, value_name = "N", default_value = "64", value_parser = connections)]
    pub connections: u64,
    /// Bytes per message (1 to 16M)
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = message_size)]
    pub size: u64,
    /// Messages in flight per connection (1 to 1024); default: 1, and with --rate a bound that
    /// only a server that stands still reaches (1,024, or 64 KiB)
    #[arg(long, value_name = "N", value_parser = depth)]
    pub depth: Option<u64>,
    /// Time measured, after the warm-up (100ms to 24h)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = measured)]
    pub duration: Duration,
    /// Time under load before measuring begins (0 to 1h)
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = warmup)]
    pub warmup: Duration,
    /// Open loop: requests per second over all connections, on a fixed schedule; latency then
    /// counts from the intended send time. Without it, each answer triggers the next request
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<u64>,
    /// With --rate, how requests follow each other: evenly apart, or at random as those of many
    /// clients who know nothing of each other (a Poisson process; the same one in every run)
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Arrivals::Even)]
    pub arrivals: Arrivals,
    /// How long an idle load core polls before it sleeps: off, dial or a time; default: 10ms
    /// where no server or other load runs on its CPU, else off
    #[arg(long, value_name = "SPIN", value_parser = parse::spin)]
    pub load_spin: Option<Spin>,
}

/// What both ends of a connection have in common; shared by `run`, `serve` and `load`.
#[derive(Args, Clone, Debug, Default)]
pub struct Tcp {
    /// TCP congestion control of the connections; default: the system's, but cubic or reno where
    /// that is bbr, whose pacing would be what is measured over loopback
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<String>,
}

/// Where the results go beside the terminal; shared by `run` and `load`.
#[derive(Args, Clone, Debug, Default)]
pub struct Outputs {
    /// Write the whole report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the percentile distribution as HdrHistogram text, in µs (an open loop's uncorrected
    /// one goes beside it, to FILE.uncorrected)
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write an HdrHistogram interval log, one entry per second and series, in ns
    #[arg(long, value_name = "FILE")]
    pub hlog: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

/// Flags of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// What to send.
    #[command(flatten)]
    pub workload: Workload,
    /// Cores that serve, as 0 or 0,2-5; default: the first core this process may use
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub server_cores: Option<CoreList>,
    /// Cores that make the load; default: the second core it may use, or the first if alone
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub load_cores: Option<CoreList>,
    /// The server's loops.
    #[command(flatten)]
    pub tuning: ServerTuning,
    /// The connections.
    #[command(flatten)]
    pub tcp: Tcp,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// Flags of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Address to listen on
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7000")]
    pub addr: SocketAddr,
    /// Cores that serve, as 0 or 0,2-5, or in words: count:2, numa:0, physical; default: every core this
    /// process may use
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub cores: Option<CoreList>,
    /// The server's loops.
    #[command(flatten)]
    pub tuning: ServerTuning,
    /// The connections.
    #[command(flatten)]
    pub tcp: Tcp,
    /// The ops listener: metrics, tasks, settings and probes over HTTP, for top, ps and Prometheus; a
    /// port alone is one of the loopback interface; counts more than the setting ops_addr
    #[arg(long, value_name = "[IP:]PORT", value_parser = ops::listen)]
    pub ops: Option<SocketAddr>,
    /// After SIGTERM go on serving for so long, while /readyz says no (0 to 1h); a second signal ends it
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = warmup)]
    pub lame_duck: Duration,
    /// Write the report as JSON when the server stops
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Flags of `load`.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Address of the server
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7000")]
    pub addr: SocketAddr,
    /// Cores that make the load, as 1 or 0,2-5; default: the last core this process may use
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub cores: Option<CoreList>,
    /// What to send.
    #[command(flatten)]
    pub workload: Workload,
    /// The connections.
    #[command(flatten)]
    pub tcp: Tcp,
    /// Where results go.
    #[command(flatten)]
    pub outputs: Outputs,
}

/// Flags of `load idle`.
#[derive(Args, Clone, Debug)]
pub struct IdleArgs {
    /// Address of the server
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7000")]
    pub addr: SocketAddr,
    /// Connections (1 to 100,000)
    #[arg(long, value_name = "N", default_value = "1000", value_parser = connections)]
    pub connections: u64,
    /// How long they stay open (100ms to 24h)
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = measured)]
    pub duration: Duration,
    /// A process of this machine whose memory is compared before and after: the server
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Write the figures as JSON (with --server-pid)
    #[arg(long, value_name = "FILE", requires = "server_pid")]
    pub json: Option<PathBuf>,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
}

/// Flags of `doctor`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES_DOCTOR)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
    /// Cores whose rings are made, as 0 or 0,2-5, or in words: count:2, numa:0, physical; default: as serve
    /// has them
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    pub cores: Option<CoreList>,
    /// What the kernel is asked for, as for run and serve.
    #[command(flatten)]
    pub tuning: ServerTuning,
}

/// How the requests of an open loop follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// The same time apart.
    Even,
    /// At random, independently of each other.
    Poisson,
}

impl Arrivals {
    /// The word of the command line for them.
    pub fn as_str(self) -> &'static str {
        match self {
            Arrivals::Even => "even",
            Arrivals::Poisson => "poisson",
        }
    }
}

fn connections(text: &str) -> Result<u64, String> {
    parse::count(text, CONNECTIONS)
}

fn message_size(text: &str) -> Result<u64, String> {
    parse::size(text, MESSAGE_SIZE)
}

fn depth(text: &str) -> Result<u64, String> {
    parse::count(text, DEPTH)
}

fn rate(text: &str) -> Result<u64, String> {
    parse::count(text, RATE)
}

fn measured(text: &str) -> Result<Duration, String> {
    parse::duration_within(text, DURATION_MIN, DURATION_MAX)
}

fn warmup(text: &str) -> Result<Duration, String> {
    parse::duration_within(text, Duration::ZERO, WARMUP_MAX)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(flags: &[&str]) -> Result<RunArgs, String> {
        let args = ["coreloop-bench", "run", "echo"].iter().chain(flags);
        match Cli::try_parse_from(args) {
            Ok(Cli { command: Command::Run(RunScenario::Echo(args)) }) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_definition_is_sound_and_every_help_ends_with_examples() {
        fn walk(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            for line in help.lines().filter(|line| line.starts_with("  coreloop-bench")) {
                assert!(line.chars().count() <= 80, "wraps in 80 columns: {line}");
            }
            if !command.has_subcommands() {
                let examples = help.rsplit("\n\n").next().unwrap();
                assert!(examples.starts_with("Examples:"), "{}: {help}", command.get_name());
            }
            command.get_subcommands_mut().filter(|sub| sub.get_name() != "help").for_each(walk);
        }
        Cli::command().debug_assert();
        walk(&mut Cli::command());
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let args = run(&[]).unwrap();
        let load = args.workload;
        assert_eq!((load.connections, load.size, load.depth), (64, 64, None));
        assert_eq!((load.duration, load.warmup), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((load.rate, load.arrivals), (None, Arrivals::Even));
        let tuning = args.tuning;
        assert!(tuning.named.0.is_empty() && tuning.set.is_empty() && !tuning.print_config);
    }

    #[test]
    fn bad_values_name_what_would_be_right() {
        for (flags, part) in [
            (["--connections", "0"], "must be 1 to 100,000"),
            (["--connections", "1000000"], "must be 1 to 100,000"),
            (["--depth", "0"], "must be 1 to 1,024"),
            (["--size", "0"], "must be 1 B to 16 MiB"),
            (["--rate", "0"], "must be 1 to 50,000,000"),
            (["--duration", "10"], "10s, 500ms or 2m"),
            (["--duration", "1ms"], "must be 100ms to 24h"),
            (["--warmup", "2h"], "must be 0s to 1h"),
            (["--load-cores", "x"], "0,2-5"),
            (["--spin", "maybe"], "off, dial"),
            (["--stats", "all"], "off, counters or histograms"),
            (["--buffers", "0"], "0 is not between 1 and 32768"),
            (["--buffer-size", "16"], "16 is not between 64 and 16777216"),
            (["--ring-entries", "many"], "\"many\" is not a whole number"),
            (["--profile", "fast"], "there are throughput, latency, shared"),
        ] {
            let error = run(&flags).unwrap_err();
            assert!(error.contains(part), "{flags:?}: {error}");
            assert!(error.contains(flags[0]), "the flag is named: {error}");
        }
    }
}
