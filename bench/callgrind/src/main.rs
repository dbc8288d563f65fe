//! Instructions per operation of the hot paths, counted by callgrind and held against a stored baseline.
//!
//! Owns the command line. Every workload runs under valgrind with a small and with a larger fixed number
//! of operations, once each or as often as steadies its count; the difference of the two counts over the
//! difference of the numbers is what one operation takes, start and end left out. The counts don't depend on
//! the machine's speed or load. They do depend on the compiler: a baseline of another one is not compared with.

mod baseline;
mod callgrind;
mod echo;
mod work;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use baseline::{Baseline, Verdict};
use work::{WORKLOADS, Workload};

/// Counts instructions of coreloop's hot paths.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
    cargo run --release -- check            # against baseline.json; exit 1 if one grew by more than 2 %\n  \
    cargo run --release -- check spawn echo # these alone\n  \
    cargo run --release -- update           # count anew and store\n  \
    cargo run --release -- profile spawn    # one run, its profile for callgrind_annotate")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts, and compares with the stored baseline.
    Check {
        /// Workloads; all if none is named.
        workloads: Vec<String>,
        /// The stored counts.
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json"))]
        baseline: PathBuf,
        /// Per cent by which a count may grow.
        #[arg(long, default_value_t = 2.0)]
        tolerance: f64,
    },
    /// Counts all workloads and stores the result.
    Update {
        /// Where to.
        #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json"))]
        baseline: PathBuf,
    },
    /// Lists the workloads and what one operation of each is.
    List,
    /// Runs one workload under callgrind and keeps the profile.
    Profile {
        /// The workload.
        workload: String,
        /// Where the profile goes.
        #[arg(long, default_value = "callgrind.out")]
        out: PathBuf,
    },
    /// Runs one workload, not under valgrind: what the other commands start.
    #[command(hide = true)]
    Run {
        /// The workload.
        workload: String,
        /// How many operations.
        count: u64,
    },
}

fn main() -> ExitCode {
    match carry_out(Options::parse().command) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("hot-paths: {why}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Run { workload, count } => {
            (named(&workload)?.run)(count);
            Ok(ExitCode::SUCCESS)
        }
        Command::List => {
            for Workload { name, what, .. } in WORKLOADS {
                println!("{name:<16} {what}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Profile { workload, out } => {
            let workload = named(&workload)?;
            let total = callgrind::total(workload, workload.large, Some(&out))?;
            println!("{} operations, {total} instructions; see {}", workload.large, out.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Update { baseline } => {
            let counted = Baseline::counted(&count(&WORKLOADS.iter().collect::<Vec<_>>())?)?;
            counted.write(&baseline)?;
            println!("stored in {}", baseline.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { workloads, baseline, tolerance } => {
            check(&workloads, &baseline, tolerance)
        }
    }
}

fn named(name: &str) -> Result<&'static Workload, String> {
    WORKLOADS.iter().find(|w| w.name == name).ok_or_else(|| {
        let known: Vec<_> = WORKLOADS.iter().map(|w| w.name).collect();
        format!("no workload {name}; known ones: {}", known.join(", "))
    })
}

/// Instructions per operation of each, told as they come.
fn count(workloads: &[&'static Workload]) -> Result<Vec<(&'static str, f64)>, String> {
    let watched = std::io::stderr().is_terminal();
    let mut counted = Vec::new();
    for (i, workload) in workloads.iter().enumerate() {
        if watched {
            eprint!("\r{:40}\r{} of {}: {} ", "", i + 1, workloads.len(), workload.name);
        }
        counted.push((workload.name, callgrind::per_operation(workload)?));
    }
    if watched {
        eprint!("\r{:40}\r", "");
    }
    Ok(counted)
}

fn check(names: &[String], path: &std::path::Path, tolerance: f64) -> Result<ExitCode, String> {
    let chosen: Vec<&Workload> = if names.is_empty() {
        WORKLOADS.iter().collect()
    } else {
        names.iter().map(|name| named(name)).collect::<Result<_, _>>()?
    };
    let stored = Baseline::read(path)?;
    if let Some(why) = stored.not_comparable()? {
        println!("SKIPPED callgrind: {why}");
        return Ok(ExitCode::SUCCESS);
    }
    let counted = count(&chosen)?;
    println!("instructions per operation");
    println!("{:<16} {:>10} {:>10} {:>8}", "workload", "baseline", "now", "change");
    let mut failed = 0;
    for (name, now) in counted {
        let (was, change, verdict) = stored.compare(name, now, tolerance);
        let note = match verdict {
            Verdict::Holds => "",
            Verdict::Grew => "grew",
            Verdict::Shrank => "shrank: store it (update)",
            Verdict::Unknown => "not in the baseline: store it (update)",
        };
        failed += u32::from(matches!(verdict, Verdict::Grew | Verdict::Unknown));
        println!("{name:<16} {was:>10.1} {now:>10.1} {change:>+7.1}%  {note}");
    }
    if failed > 0 {
        println!(
            "\n{failed} of them more than {tolerance} % above the baseline. If it has to be: \
             `cargo run --release -- update`, in the same commit, whose message says why."
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
