//! The flags of `peers`.

use std::path::PathBuf;

use clap::Args;

use super::examples::EXAMPLES_PEERS;
use super::parse::{self, Range};
use super::series::SeriesArgs;

const BLOCKS: Range = Range { min: 1, max: 1_000 };

/// Flags of `peers`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES_PEERS)]
pub struct PeersArgs {
    /// Workloads, or the groups echo, tasks, all (--list tells them); default: all
    #[arg(value_name = "WORKLOAD")]
    pub workloads: Vec<String>,
    /// Only these contenders beside coreloop: runtimes (tokio), variants ("tokio multi-thread"),
    /// raw, epoll
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub contenders: Vec<String>,
    /// Say which workloads and contenders there are, and end
    #[arg(long)]
    pub list: bool,
    /// Print the commands of a workload, to be run by hand (on two hosts, for one), and end
    #[arg(long, value_name = "WORKLOAD")]
    pub list_commands: Option<String>,
    /// Blocks; within each everybody runs once, in random order (5 at least, for intervals that
    /// mean anything) [default: 5]
    #[arg(long, value_name = "N", value_parser = blocks)]
    pub blocks: Option<u64>,
    /// Seconds that each load is measured, after half a second of warm-up [default: 2]
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// A quick look at everything: 2 blocks, half a second, a tenth of the operations; the
    /// intervals mean nothing then
    #[arg(long)]
    pub quick: bool,
    /// Requests per second of the open loop, instead of 70 % of the slowest ring runtime's most
    #[arg(long, value_name = "N", value_parser = super::rate)]
    pub rate: Option<u64>,
    #[command(flatten)]
    pub series: SeriesArgs,
    /// The sources of the peers; default: bench/peers of the checkout this was built from
    #[arg(long, value_name = "DIR")]
    pub peers_dir: Option<PathBuf>,
    /// Run the binaries that are there instead of building them first
    #[arg(long)]
    pub no_build: bool,
    /// Write every run and all that was found as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write one page with tables and plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write one chart: server CPU per request against each contender (SVG)
    #[arg(long, value_name = "FILE")]
    pub chart: Option<PathBuf>,
    /// Run nothing: show stored results again, and draw --html and --chart from them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "list", "list_commands", "workloads"])]
    pub from: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

fn blocks(text: &str) -> Result<u64, String> {
    parse::count(text, BLOCKS)
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.1..=600.0).contains(&value) => Ok(value),
        _ => Err("must be 0.1 to 600 seconds".into()),
    }
}
