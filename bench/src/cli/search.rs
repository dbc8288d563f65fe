//! The flags of `search`.

use std::path::PathBuf;

use clap::Args;

use super::examples::EXAMPLES_SEARCH;
use super::parse::{self, Range};
use super::trial::TrialArgs;

const RUNS: Range = Range { min: 1, max: 99 };

/// Flags of `search`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES_SEARCH)]
pub struct SearchArgs {
    /// What to run.
    #[command(flatten)]
    pub trial: TrialArgs,
    /// A file of settings for the server (TOML), such as `tune --out` writes
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A setting of the server by its name: spin=off
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Runs at a rate; the majority says whether it holds
    #[arg(long, value_name = "N", default_value = "5", value_parser = runs)]
    pub runs: u64,
    /// How near the highest rate that holds must be to the lowest that does not, in percent
    #[arg(long, value_name = "PERCENT", default_value = "3", value_parser = precision)]
    pub precision: f64,
}

fn runs(text: &str) -> Result<u64, String> {
    parse::count(text, RUNS)
}

fn precision(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse() {
        Ok(value) if (0.5..=50.0).contains(&value) => Ok(value),
        _ => Err("must be 0.5 to 50 percent".into()),
    }
}
