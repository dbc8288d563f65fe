//! The flags of `tune`.

use std::path::PathBuf;

use clap::Args;
use coreloop::Settings;
use coreloop::config::Field;

use super::examples::EXAMPLES_TUNE;
use super::trial::TrialArgs;

/// Flags of `tune`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES_TUNE)]
pub struct TuneArgs {
    /// What to run.
    #[command(flatten)]
    pub trial: TrialArgs,
    /// Requests per second, arriving at random (an open loop), instead of one request after the
    /// other; open-70 without it: 70 % of the most that the defaults do
    #[arg(long, value_name = "N", value_parser = super::rate)]
    pub rate: Option<u64>,
    /// Change only these settings
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = name)]
    pub only: Vec<String>,
    /// Values to try for a setting instead of those made from its range: spin=off,20us,50us
    #[arg(long = "try", value_name = "NAME=V1,V2", value_parser = values)]
    pub values: Vec<Values>,
    /// Search nothing: run each candidate beside the defaults in so many blocks, and tell what each does
    /// (5 to 1000)
    #[arg(long, value_name = "BLOCKS", value_parser = pairs, conflicts_with = "out")]
    pub pairs: Option<u64>,
    /// Write what was found as a file of settings, for `serve --config` and the library
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Say what would be tried, and what can't be, and end
    #[arg(long)]
    pub list: bool,
}

/// Values of a setting to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// Its name.
    pub name: &'static str,
    /// The values, as they are written.
    pub values: Vec<String>,
}

fn pairs(text: &str) -> Result<u64, String> {
    super::parse::count(text, super::parse::Range { min: 5, max: 1_000 })
}

fn name(text: &str) -> Result<String, String> {
    let found = Field::named(text.trim()).map_err(|error| error.to_string())?;
    Ok(found.name.to_owned())
}

fn values(text: &str) -> Result<Values, String> {
    let (name, list) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' has no values: write spin=off,20us,50us"))?;
    let field = Field::named(name.trim()).map_err(|error| error.to_string())?;
    let mut values = Vec::new();
    for value in list.split(',').map(str::trim) {
        let mut trial = Settings::default();
        field.set(&mut trial, value).map_err(|error| error.to_string())?;
        values.push(field.get(&trial));
    }
    Ok(Values { name: field.name, values })
}
