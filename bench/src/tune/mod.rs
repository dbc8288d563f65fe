//! `tune`: settings that serve a goal better than the defaults, or the word that the defaults hold.
//!
//! Owns the way from the flags to the results. What can be tried is `space`'s, how often `schedule`'s and
//! `contest`'s, in which stages `stages`', what decides `judge`'s; what is printed and written is `text`'s
//! and `file`'s. The statistics are those of `peers`, and so are the runs, through `trial`.

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::trial::BUDGET;
use crate::cli::tune::TuneArgs;
use crate::peers::child::Trouble;
use crate::peers::{Refusal, place, workloads};
use crate::report::paint::{Paint, Tone};
use crate::report::table::{Align, Table};
use crate::report::write;
use crate::scenario::Failure;
use crate::sys::process;
use crate::trial::goal::Goal;
use crate::trial::progress::Progress;
use crate::trial::words::paragraph;
use crate::trial::{self, Runner};
use crate::{print, probe};

mod contest;
mod file;
pub mod judge;
mod pairs;
pub mod results;
mod schedule;
mod space;
mod stages;
mod text;

use results::{Ending, Results};
use space::{Candidate, Space};
use stages::{Plan, Rate, tune};

/// The longest budget that is chosen where none is given.
const BUDGET_AT_MOST: Duration = Duration::from_secs(30 * 60);

/// Exit code of what was not carried to its end, or was disturbed.
const EXIT_UNKNOWN: u8 = 3;

/// Does what the flags say.
pub fn main(args: &TuneArgs) -> Result<ExitCode, Refusal> {
    let echo = trial::workload(&args.trial).map_err(Refusal::Usage)?;
    fixed_rate(args, echo.open).map_err(Refusal::Usage)?;
    if args.rate.is_some() {
        trial::no_depth_of_its_own(&args.trial.workload, &echo).map_err(Refusal::Usage)?;
    }
    let can = probe::settings();
    let space = space::space(&args.only, &args.values, &can);
    if args.list {
        print(&listed(&space, Paint::of_stdout()));
        return Ok(ExitCode::SUCCESS);
    }
    if space.candidates.is_empty() {
        let why: Vec<String> =
            space.skipped.iter().map(|(who, why)| format!("{who}: {why}")).collect();
        return Err(Refusal::Usage(format!("there is nothing to try: {}", why.join("; "))));
    }
    for path in [&args.trial.json, &args.out].into_iter().flatten() {
        write::probe(path)?;
    }
    let budget = args.trial.budget.unwrap_or_else(|| {
        let (candidates, seconds) = (space.candidates.len(), args.trial.seconds);
        match args.pairs {
            // How many is said: it is to be had.
            Some(blocks) => pairs::time_for(candidates, blocks as usize, seconds),
            None => stages::time_for(candidates, seconds).clamp(BUDGET, BUDGET_AT_MOST),
        }
    });
    let (mut runner, mut head) = trial::prepare(&args.trial, "tune", echo, None, budget)?;
    let rate = match args.rate {
        Some(rate) => Rate::Fixed(rate),
        None if echo.open => Rate::Share(workloads::OPEN_SHARE),
        None => Rate::Closed,
    };
    head.load = trial::in_words(&echo, rate != Rate::Closed);
    head.seed = args.trial.series.seed.unwrap_or_else(place::fresh_seed);
    process::catch_signals();
    if let Some(blocks) = args.pairs {
        let (goal, seed) = (args.trial.goal, head.seed);
        let candidates = space.candidates;
        let plan = pairs::Plan { goal, seed, budget, blocks: blocks as usize, candidates };
        return in_pairs(args, &mut runner, &plan, rate, head);
    }
    let plan =
        Plan { goal: args.trial.goal, seed: head.seed, budget, candidates: space.candidates };
    let progress = Progress::new(budget, args.trial.quiet);
    let combined = |candidate: &Candidate| candidate.settings().is_ok_and(|s| can(&s).is_ok());
    let found = tune(&mut runner, &plan, rate, combined, &mut |elapsed, words| {
        progress.step(elapsed, || words.to_owned());
    });
    progress.finish();
    head.took_s = runner.elapsed().as_secs_f64();
    let found = found.map_err(no_first_run)?;
    let results = Results::new(head, &plan, found, space.skipped);
    show(args, &results)?;
    Ok(match results.outcome {
        Ending::Tuned | Ending::DefaultsHold => ExitCode::SUCCESS,
        Ending::Disturbed | Ending::Interrupted | Ending::TooShort => ExitCode::from(EXIT_UNKNOWN),
    })
}

/// Refuses to look for the highest rate where the load has a fixed one.
fn fixed_rate(args: &TuneArgs, open: bool) -> Result<(), String> {
    let by = match args.rate {
        _ if args.trial.goal != Goal::MaxRate => return Ok(()),
        Some(_) => "--rate fixes the rate",
        None if open => "this workload is an open loop, which fixes the rate",
        None => return Ok(()),
    };
    Err(format!(
        "--goal max-rate: {by}, so that no setting could raise it: use a closed loop, or another goal"
    ))
}

fn in_pairs(
    args: &TuneArgs,
    runner: &mut trial::Processes,
    plan: &pairs::Plan,
    rate: Rate,
    head: trial::Head,
) -> Result<ExitCode, Refusal> {
    let progress = Progress::new(plan.budget, args.trial.quiet);
    let ran = pairs::pairs(runner, plan, rate, head, &mut |elapsed, words| {
        progress.step(elapsed, || words.to_owned());
    });
    progress.finish();
    let results = ran.map_err(no_first_run)?;
    print(&pairs::text(&results, Paint::of_stdout()));
    if let Some(path) = &args.trial.json {
        write::json(path, &results)?;
        print(&format!("  written: {}\n", path.display()));
    }
    Ok(match results.outcome {
        pairs::Ending::Whole => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_UNKNOWN),
    })
}

fn no_first_run(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Failed(why) => Failure::Told(format!("the defaults do not run: {why}")),
        Trouble::Interrupted => Failure::Told("ended before the first run was over".into()),
    }
}

fn show(args: &TuneArgs, results: &Results) -> Result<(), Refusal> {
    print(&text::results(results, Paint::of_stdout()));
    if let Some(path) = &args.out {
        write::text(path, &file::toml(results))?;
        let how = match results.outcome {
            Ending::Tuned => "serve --config takes it",
            _ => "it changes nothing",
        };
        print(&format!("  written: {} ({how})\n", path.display()));
    }
    if let Some(path) = &args.trial.json {
        write::json(path, results)?;
        print(&format!("  written: {}\n", path.display()));
    }
    Ok(())
}

/// What would be tried, and what not.
fn listed(space: &Space, paint: Paint) -> String {
    let mut table = Table::new(&[("tried", Align::Left), ("instead of", Align::Left)]);
    for candidate in &space.candidates {
        let defaults: Vec<String> = candidate
            .changes
            .iter()
            .filter_map(|(name, _)| coreloop::config::Field::named(name).ok())
            .map(|field| field.default_text())
            .collect();
        table.row(vec![candidate.label(), defaults.join(", ")]);
    }
    let mut out = table.render(paint);
    if !space.skipped.is_empty() {
        out.push('\n');
    }
    for (who, why) in &space.skipped {
        out += &paragraph(&format!("not tried: {who}: {why}"), Tone::Dim, paint);
    }
    out
}
