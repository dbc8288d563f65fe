//! `search`: the highest rate at which a latency goal holds.
//!
//! Owns the way from the flags to the results. The order of the rates is `bisect`'s, the drawing `curve`'s.
//! Every rate is an open loop whose latencies count from the intended send time, so that a server that stands
//! still is not spared the requests that it kept from being sent.

use std::process::ExitCode;

use coreloop::config::Sources;

use crate::cli::search::SearchArgs;
use crate::cli::trial::BUDGET;
use crate::peers::child::Trouble;
use crate::peers::{Refusal, place};
use crate::print;
use crate::report::paint::Paint;
use crate::report::write;
use crate::scenario::Failure;
use crate::sys::process;
use crate::trial::goal::bounded;
use crate::trial::progress::Progress;
use crate::trial::{self, Change, Runner};

mod bisect;
mod curve;
pub mod results;
mod text;

use bisect::{Ending, Plan, search};
use results::Results;

/// Exit code of what is a lower bound, or not known.
const EXIT_UNKNOWN: u8 = 3;

/// Does what the flags say.
pub fn main(args: &SearchArgs) -> Result<ExitCode, Refusal> {
    let goal = args.trial.goal;
    let (point, bound) = bounded(&goal).map_err(Refusal::Usage)?;
    let echo = trial::workload(&args.trial).map_err(Refusal::Usage)?;
    trial::no_depth_of_its_own(&args.trial.workload, &echo).map_err(Refusal::Usage)?;
    let changes = settings(args).map_err(Refusal::Usage)?;
    if let Some(path) = &args.trial.json {
        write::probe(path)?;
    }
    let config = args.config.clone();
    let budget = args.trial.budget.unwrap_or(BUDGET);
    let (mut runner, mut head) = trial::prepare(&args.trial, "search", echo, config, budget)?;
    head.load = trial::in_words(&echo, true);
    head.seed = args.trial.series.seed.unwrap_or_else(place::fresh_seed);
    process::catch_signals();
    let plan = Plan {
        point,
        bound,
        changes,
        runs: args.runs as usize,
        near: 1.0 + args.precision / 100.0,
        budget,
        seconds: args.trial.seconds,
        seed: head.seed,
    };
    let progress = Progress::new(plan.budget, args.trial.quiet);
    let found = search(&mut runner, &plan, &mut |elapsed, words| {
        progress.step(elapsed, || words.to_owned());
    });
    progress.finish();
    head.took_s = runner.elapsed().as_secs_f64();
    let found = found.map_err(|trouble| match trouble {
        Trouble::Failed(why) => Failure::Told(format!("the server does not run: {why}")),
        Trouble::Interrupted => Failure::Told("ended before the first run was over".into()),
    })?;
    let config = args.config.iter().map(|path| path.display().to_string());
    let results = Results::new(head, &plan, &found, config.chain(args.set.clone()).collect());
    print(&text::results(&results, Paint::of_stdout()));
    if let Some(path) = &args.trial.json {
        write::json(path, &results)?;
        print(&format!("  written: {}\n", path.display()));
    }
    Ok(match results.ending {
        Ending::Found => ExitCode::SUCCESS,
        Ending::NothingHolds => ExitCode::FAILURE,
        Ending::GeneratorLimit | Ending::Disturbed | Ending::TooShort | Ending::Interrupted => {
            ExitCode::from(EXIT_UNKNOWN)
        }
    })
}

/// The settings that flags give, checked before anything runs.
fn settings(args: &SearchArgs) -> Result<Vec<Change>, String> {
    let checked = || {
        let mut sources = Sources::new();
        if let Some(path) = &args.config {
            sources = sources.file(path)?;
        }
        for flag in &args.set {
            sources = sources.flag(flag)?;
        }
        sources.resolve()
    };
    checked().map_err(|error| error.to_string())?;
    let change = |flag: &String| {
        let (name, value) = flag.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    Ok(args.set.iter().filter_map(change).collect())
}
