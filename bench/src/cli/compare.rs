//! The flags of `compare`.

use std::path::PathBuf;

use clap::Args;

use super::examples::EXAMPLES_COMPARE;

/// Flags of `compare`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES_COMPARE)]
pub struct CompareArgs {
    /// The earlier results, or those to compare with: JSON of run, load, peers, tune or search
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// The later results, of the same kind
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
    /// Differences below this don't matter, in percent
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = threshold)]
    pub threshold: f64,
    /// Only figures whose name contains this, such as p99 or tokio
    #[arg(long, value_name = "WORD")]
    pub only: Option<String>,
    /// Print the comparison as JSON
    #[arg(long)]
    pub json: bool,
}

fn threshold(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("must be 0 to 100 percent".into()),
    }
}
