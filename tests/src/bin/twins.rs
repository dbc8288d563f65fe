//! Plays the twins: shows what one says on either side, and records transcripts.
//!
//! Owns the command line. What is recorded is `tests/twins/NAME.txt` where both sides say the same, and
//! `NAME.python.txt` with `NAME.rust.txt` where they are to differ.

use std::fs;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use coreloop_tests::twins::python::{Compared, Interpreter, compare, folder};
use coreloop_tests::twins::{self, Twin};

/// Plays programs in Python and in Rust side by side.
#[derive(Debug, Parser)]
#[command(name = "twins")]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Names all twins.
    List,
    /// Shows what both sides of a twin say.
    Show {
        /// As `list` has it.
        name: String,
        /// Runs the Python side in real time, in units of so many milliseconds.
        #[arg(long)]
        unit_ms: Option<u32>,
    },
    /// Records the transcripts of all twins, or of those named.
    Record {
        /// As `list` has them.
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    match act(&Options::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("twins: {e}");
            ExitCode::FAILURE
        }
    }
}

fn act(what: &What) -> Result<(), String> {
    match what {
        What::List => twins::all().iter().for_each(|twin| println!("{}", twin.name)),
        What::Show { name, unit_ms } => {
            let twin = twins::all().into_iter().find(|t| t.name == name);
            let twin = twin.ok_or_else(|| format!("there is no twin {name}"))?;
            println!("Rust:\n{}", twin.transcript());
            println!("Python:\n{}", Interpreter::find()?.play(name, *unit_ms)?);
        }
        What::Record { names } => {
            let python = Interpreter::find()?;
            for twin in twins::all() {
                if names.is_empty() || names.iter().any(|n| n == twin.name) {
                    record(&python, twin)?;
                }
            }
        }
    }
    Ok(())
}

fn record(python: &Interpreter, twin: Twin) -> Result<(), String> {
    let (name, ours) = (twin.name, twin.transcript());
    let theirs = python.play(name, None)?;
    let write = |file: String, text: &str| {
        fs::write(folder().join(&file), text).map_err(|e| format!("{file}: {e}"))
    };
    match (twin.differs(), compare(&ours, &theirs)) {
        (false, Compared::Same) => write(format!("{name}.txt"), &theirs)?,
        (true, Compared::OtherOrder | Compared::OtherTimes) => {
            write(format!("{name}.python.txt"), &theirs)?;
            write(format!("{name}.rust.txt"), &ours)?;
        }
        (differs, compared) => {
            let wanted = if differs { "a difference" } else { "none" };
            return Err(format!("{name}: {compared:?}, {wanted} is expected\n{ours}\n{theirs}"));
        }
    }
    println!("{name}");
    Ok(())
}
