//! The flags that `tune` and `search` have in common.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse;
use super::series::SeriesArgs;
use crate::trial::goal::Goal;

/// The budget where none is given.
pub const BUDGET: Duration = Duration::from_secs(300);
const BUDGET_MIN: Duration = Duration::from_secs(2);
const BUDGET_MAX: Duration = Duration::from_secs(24 * 3600);

/// What to run, where, and for how long.
#[derive(Args, Clone, Debug)]
pub struct TrialArgs {
    /// Workload: echo-1, echo-64, echo-1000, echo-d16, echo-16k or open-70 (`peers --list` says
    /// what each is)
    #[arg(value_name = "WORKLOAD")]
    pub workload: String,
    /// What to reach: p50, p90, p99, p99.9 or p99.99 below a time, as 'p99<2ms' (quoted, or the
    /// shell takes it for a file); tune also takes cpu, max-rate, and a percentile without a bound
    #[arg(long, value_name = "GOAL", value_parser = goal)]
    pub goal: Goal,
    /// Connections instead of the workload's
    #[arg(long, value_name = "N", value_parser = super::connections)]
    pub connections: Option<u64>,
    /// Bytes per message instead of the workload's
    #[arg(long, value_name = "BYTES", value_parser = super::message_size)]
    pub size: Option<u64>,
    /// Messages in flight per connection instead of the workload's; of an open loop the most that
    /// may be, for which there is a wide default
    #[arg(long, value_name = "N", value_parser = super::depth)]
    pub depth: Option<u64>,
    /// Time for all of it (2s to 24h): it ends then, with what is known [default: 5m, for tune as
    /// much more as it takes to try all that --list says, at most 30m]
    #[arg(long, value_name = "TIME", value_parser = budget)]
    pub budget: Option<Duration>,
    /// Seconds that each run is measured, after 0.2 of warm-up
    #[arg(long, value_name = "N", default_value = "0.6", value_parser = super::peers::seconds)]
    pub seconds: f64,
    #[command(flatten)]
    pub series: SeriesArgs,
    /// Write every run and all that was found as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    pub quiet: bool,
}

fn goal(text: &str) -> Result<Goal, String> {
    text.parse()
}

fn budget(text: &str) -> Result<Duration, String> {
    parse::duration_within(text, BUDGET_MIN, BUDGET_MAX)
}
