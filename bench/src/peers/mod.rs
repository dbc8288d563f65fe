//! `peers`: the same work on coreloop and on what it is compared with.
//!
//! Owns the way from the flags to the results: build, find, run in blocks, put side by side, write. What is
//! run is `workloads`', who takes part `contenders`' and `gather`'s, how often and in which order
//! `series`', one run `run`'s; what follows from the runs is `compare`'s and `interval`'s, how it looks
//! `text`'s, `html`'s and `chart`'s. Nothing here knows the runtime: every contender is a process.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::peers::PeersArgs;
use crate::machine::MachineFacts;
use crate::report::paint::Paint;
use crate::report::units::grouped;
use crate::report::write;
use crate::scenario::Failure;
use crate::sys::{self, process};

mod chart;
pub mod child;
mod commands;
mod compare;
pub mod contenders;
pub mod draw;
mod gather;
mod html;
pub mod interval;
pub mod meter;
pub mod place;
mod plot;
mod progress;
pub mod results;
pub mod run;
mod series;
pub mod text;
pub mod workloads;

use child::Trouble;
use contenders::Contender;
use progress::Progress;
use results::{Results, WorkloadResults};
use run::Setting;
use series::Step;
use workloads::{CALIBRATION, Kind, OPEN_SHARE, Workload};

/// Why the command line can't be followed, or the comparison not made.
#[derive(Debug)]
pub enum Refusal {
    /// The flags are wrong.
    Usage(String),
    /// Anything else.
    Failed(Failure),
}

impl<F: Into<Failure>> From<F> for Refusal {
    fn from(failure: F) -> Refusal {
        Refusal::Failed(failure.into())
    }
}

/// Exit code of what was ended before its time.
const EXIT_INTERRUPTED: u8 = 3;

const BLOCKS: usize = 5;
const BLOCKS_QUICK: usize = 2;
const SECONDS: f64 = 2.0;
const SECONDS_QUICK: f64 = 0.5;
const QUICK_DIVISOR: u64 = 10;

/// Descriptors a server needs beside its connections.
const SPARE_FILES: u64 = 200;

/// Does what the flags say.
pub fn main(args: &PeersArgs) -> Result<ExitCode, Refusal> {
    if let Some(path) = &args.from {
        let results = Results::read(path).map_err(Failure::Told)?;
        show(&results);
        write_files(args, &results)?;
        return Ok(ExitCode::SUCCESS);
    }
    let workloads = workloads::select(&args.workloads).map_err(Refusal::Usage)?;
    let bench = std::env::current_exe().map_err(|e| Failure::Told(format!("own path: {e}")))?;
    let folder = gather::folder(args.peers_dir.as_deref()).map_err(Failure::Told)?;
    if args.list {
        list(&gather::contenders(&folder, &bench));
        return Ok(ExitCode::SUCCESS);
    }
    let allowed = coreloop::placement::allowed_cpus();
    let cores = place::cores((args.series.server_core, args.series.load_core), &allowed)
        .map_err(Refusal::Usage)?;
    let seconds = args.seconds.unwrap_or(if args.quick { SECONDS_QUICK } else { SECONDS });
    if let Some(name) = &args.list_commands {
        let workload =
            workloads::find(name).ok_or_else(|| Refusal::Usage(format!("no workload '{name}'")))?;
        let all = gather::contenders(&folder, &bench);
        let only = gather::filter(all, &args.contenders).map_err(Refusal::Usage)?;
        say(&commands::list(&only, workload, &bench, cores, seconds));
        return Ok(ExitCode::SUCCESS);
    }
    for path in [&args.json, &args.html, &args.chart].into_iter().flatten() {
        write::probe(path)?;
    }
    let built = match args.no_build {
        true => None,
        false => gather::build(&folder, &args.contenders).map_err(Failure::Told)?,
    };
    let all = gather::contenders(&folder, &bench);
    let contenders = gather::filter(all, &args.contenders).map_err(Refusal::Usage)?;
    // Servers inherit the limit, and hold a descriptor for each connection.
    let _ = sys::raise_open_files();
    let (network, network_note) = place::network(args.series.no_namespace)?;
    let facts = MachineFacts::read();
    let files = facts.open_files.and_then(|limit| limit.soft).unwrap_or(u64::MAX);
    let results = Results {
        schema_version: results::SCHEMA_VERSION,
        command_line: command_line(),
        started: place::utc(place::now_s()),
        version: env!("CARGO_PKG_VERSION").into(),
        machine: place::machine(&facts, network),
        cores,
        seed: args.series.seed.unwrap_or_else(place::fresh_seed),
        blocks: args.blocks.map_or(if args.quick { BLOCKS_QUICK } else { BLOCKS }, |n| n as usize),
        seconds,
        quick: args.quick,
        interrupted: false,
        notes: built.into_iter().chain(network_note).chain(place::mask_note()).collect(),
        contenders,
        workloads: Vec::new(),
    };
    let scratch = Scratch::new("peers")?;
    let setting = Setting {
        bench,
        cores,
        seconds,
        rate: args.rate.unwrap_or(0),
        idle_max: files.saturating_sub(SPARE_FILES).max(1),
        work_divisor: if args.quick { QUICK_DIVISOR } else { 1 },
        load_extra: run::LOAD_EXTRA,
        scratch: scratch.0.clone(),
    };
    process::catch_signals();
    compare_all(args, results, setting, &workloads)
}

fn compare_all(
    args: &PeersArgs,
    mut results: Results,
    mut setting: Setting,
    workloads: &[&'static Workload],
) -> Result<ExitCode, Refusal> {
    let paint = Paint::of_stdout();
    say(&text::head(&results, paint));
    let mut progress = Progress::new(&results, workloads, args.quiet);
    for workload in workloads {
        let mut ran = WorkloadResults {
            name: workload.name.into(),
            rate: None,
            runs: Vec::new(),
            unsupported: Default::default(),
        };
        let open = matches!(workload.kind, Kind::Echo(echo) if echo.open);
        let mut runs = true;
        if open && args.rate.is_none() {
            match calibrate(&results, &setting, &progress) {
                Ok(rate) => setting.rate = rate,
                Err(Trouble::Interrupted) => results.interrupted = true,
                Err(Trouble::Failed(why)) => {
                    results.notes.push(format!("{}: not run: {why}", workload.name));
                    runs = false;
                }
            }
        }
        ran.rate = (open && runs).then_some(setting.rate);
        let asked = (results.seed, results.blocks);
        let once = |step: &Step<'_>| {
            progress.step(workload, step);
            run::once(&setting, step.who, workload)
        };
        // One that can't be run is among the results all the same: as one without runs.
        if runs {
            let whole = !results.interrupted
                && series::run(&results.contenders, workload, asked, &mut ran, once);
            results.interrupted |= !whole;
        }
        if let Some(comparison) = compare::compare(&results, &ran) {
            progress.hide(|| say(&text::workload(&comparison, paint)));
        }
        results.workloads.push(ran);
        write_files(args, &results)?;
        if results.interrupted {
            break;
        }
    }
    progress.finish();
    let comparisons = compare::all(&results);
    say(&text::legend(paint));
    say(&text::summary(&comparisons, paint));
    for warning in text::warnings(&results) {
        say(&format!("  {warning}\n"));
    }
    for path in [&args.json, &args.html, &args.chart].into_iter().flatten() {
        say(&format!("  written: {}\n", path.display()));
    }
    let figures = comparisons.iter().any(|comparison| !comparison.parts.is_empty());
    Ok(match (results.interrupted, figures) {
        (true, _) => ExitCode::from(EXIT_INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

/// The rate of the open loop: from the closed loop's runs of this comparison, or from one run each.
fn calibrate(results: &Results, setting: &Setting, progress: &Progress) -> Result<u64, Trouble> {
    let workload = workloads::find(CALIBRATION)
        .ok_or_else(|| Trouble::Failed(format!("there is no {CALIBRATION}")))?;
    let ran = results.workloads.iter().find(|ran| ran.name == CALIBRATION);
    let mut most = Vec::new();
    let rings = results.contenders.iter().filter(|who| who.ring && who.is_runtime());
    for who in rings.filter(|who| who.takes_part(workload) == Ok(true)) {
        let known: Vec<f64> = ran
            .map(|ran| ran.counting(&who.id))
            .into_iter()
            .flat_map(|runs| runs.into_values())
            .filter_map(|run| run.figures.get("requests_per_s").copied())
            .collect();
        if !known.is_empty() {
            most.push(interval::median(&known));
            continue;
        }
        progress.calibrating(who);
        match run::once(setting, who, workload) {
            Ok(measured) => most.extend(measured.figures.get("requests_per_s")),
            Err(Trouble::Interrupted) => return Err(Trouble::Interrupted),
            // Its failure shows in the workload itself.
            Err(Trouble::Failed(_)) => {}
        }
    }
    let slowest = most.into_iter().reduce(f64::min);
    let slowest = slowest.ok_or_else(|| Trouble::Failed("no ring runtime gave a rate".into()))?;
    // A round number; what is lost by it is below what two series differ by.
    Ok(((slowest * OPEN_SHARE / 1e3).floor() as u64 * 1_000).max(1_000))
}

/// All of the terminal's output, from results.
fn show(results: &Results) {
    let paint = Paint::of_stdout();
    let comparisons = compare::all(results);
    say(&text::head(results, paint));
    comparisons.iter().for_each(|comparison| say(&text::workload(comparison, paint)));
    say(&text::legend(paint));
    say(&text::summary(&comparisons, paint));
}

/// A file's text as it is shown in words, as a page and as a chart: for fuzzing.
#[cfg(test)]
pub fn of_text(text: &str) -> Result<String, String> {
    let results = Results::parse(text)?;
    let paint = Paint::plain();
    let comparisons = compare::all(&results);
    let mut shown = text::head(&results, paint);
    comparisons.iter().for_each(|comparison| shown += &text::workload(comparison, paint));
    shown += &text::summary(&comparisons, paint);
    assert!(html::page(&results).contains("</html>") && chart::svg(&results).contains("</svg>"));
    Ok(shown)
}

/// What a peer's programs print (a description, figures of work, a report of load), read each way:
/// for fuzzing.
#[cfg(test)]
pub fn of_answer(text: &str) -> [Result<usize, String>; 3] {
    let words = |trouble| match trouble {
        Trouble::Failed(words) => words,
        Trouble::Interrupted => unreachable!("nothing was waited for"),
    };
    let held = |measured: run::Measured| {
        assert!(measured.figures.values().all(|figure| figure.is_finite()), "{measured:?}");
        measured.figures.len()
    };
    let launch = contenders::Launch::Peer { binary: "peer".into() };
    [
        contenders::parse_description(text).map(|described| described.contenders(&launch).len()),
        run::figures_of_work(text, "spawn").map(held).map_err(words),
        run::figures_of_load(text, 1_000_000).map(held).map_err(words),
    ]
}

/// What files of /proc count, and the address in a line: for fuzzing.
#[cfg(test)]
pub fn of_counts(text: &str) -> (Option<(u64, u64)>, Option<u64>, Option<std::net::SocketAddr>) {
    (meter::parse_schedstat(text), meter::parse_busy(text, 0), child::address_in(text))
}

fn write_files(args: &PeersArgs, results: &Results) -> Result<(), Refusal> {
    if let Some(path) = &args.json {
        write::json(path, results)?;
    }
    if let Some(path) = &args.html {
        write::text(path, &html::page(results))?;
    }
    if let Some(path) = &args.chart {
        write::text(path, &chart::svg(results))?;
    }
    Ok(())
}

fn list(contenders: &[Contender]) {
    let paint = Paint::of_stdout();
    let mut table = crate::report::table::Table::new(&[
        ("workload", crate::report::table::Align::Left),
        ("group", crate::report::table::Align::Left),
        ("what", crate::report::table::Align::Left),
    ]);
    for workload in workloads::WORKLOADS {
        table.row(vec![workload.name.into(), workload.group().into(), workload.words.into()]);
    }
    say(&table.render(paint));
    let mut table = crate::report::table::Table::new(&[
        ("contender", crate::report::table::Align::Left),
        ("version", crate::report::table::Align::Left),
        ("", crate::report::table::Align::Left),
    ]);
    for who in contenders {
        let about = match (&who.broken, who.spins, who.ring) {
            (Some(why), ..) => why.clone(),
            (None, true, _) => "io_uring, spins".into(),
            (None, false, true) => "io_uring".into(),
            (None, false, false) => String::new(),
        };
        table.row(vec![who.id.clone(), who.version.clone(), about]);
    }
    say(&format!("\n{}", table.render(paint)));
    if contenders.iter().any(|who| who.broken.is_some()) {
        say(
            "\n  what was not built is built by a comparison, or by `cargo build --release` in bench/peers\n",
        );
    }
    say(&format!(
        "\n  {} workloads, {} contenders\n",
        grouped(workloads::WORKLOADS.len() as u64),
        contenders.len()
    ));
}

/// What was typed, as a shell takes it; in one line, whatever there was.
pub fn command_line() -> String {
    let mut words = vec!["coreloop-bench".to_owned()];
    words.extend(std::env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy())));
    words.join(" ")
}

/// A word that means the same to a shell as this one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=+,.:/@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = |c: char| match c {
        '\'' => r"'\''".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    format!("'{}'", word.chars().map(escaped).collect::<String>())
}

fn say(text: &str) {
    crate::print(text);
}

/// A folder of this process alone, gone at its end.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// A new one; `what` is part of its name.
    pub fn new(what: &str) -> Result<Scratch, Failure> {
        let path = std::env::temp_dir().join(format!("coreloop-{what}-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::Told(format!("can't make {}: {error}", path.display())))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies among temporary files: nobody misses it, nor minds it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_workload_that_can_not_be_run_is_written_with_the_reason() {
        let scratch = Scratch::new("no-rate").unwrap();
        let json = scratch.0.join("peers.json");
        let flags = ["coreloop-bench", "peers", "open-70", "--quiet", "--json"];
        let flags = flags.iter().map(|flag| flag.as_ref()).chain([json.as_os_str()]);
        let Command::Peers(args) = Cli::parse_from(flags).command else { panic!() };
        let mut results = results::sample::results();
        // Nobody by whom the rate could be chosen.
        results.contenders.retain(|who| who.runtime == "tokio");
        results.contenders[0].ring = false;
        results.workloads.clear();
        let setting = Setting {
            bench: "coreloop-bench".into(),
            cores: results.cores,
            seconds: 0.1,
            rate: 0,
            idle_max: 1,
            work_divisor: 1,
            load_extra: run::LOAD_EXTRA,
            scratch: scratch.0.clone(),
        };
        let open = workloads::find("open-70").unwrap();
        compare_all(&args, results, setting, &[open]).unwrap();
        let written = Results::read(&json).unwrap();
        let [open] = &written.workloads[..] else { panic!("{written:?}") };
        assert_eq!((open.name.as_str(), open.rate, open.runs.len()), ("open-70", None, 0));
        assert!(
            written.notes.contains(&"open-70: not run: no ring runtime gave a rate".to_owned()),
            "{:?}",
            written.notes
        );
        assert!(
            html::page(&written).contains("</html>") && chart::svg(&written).contains("</svg>")
        );
    }

    #[test]
    fn a_command_line_is_what_a_shell_takes() {
        for (word, told) in [
            ("p99<2ms", "'p99<2ms'"),
            ("--try=spin=off,20us", "--try=spin=off,20us"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
            ("a\nb", r"'a\nb'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(word), told);
        }
    }
}
