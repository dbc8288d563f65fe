//! How runtimes take what goes wrong: the reproducers behind the table in
//! `docs/guide/reliability.md`.
//!
//! Every case runs with every runtime in a process of its own, for a bounded time.

mod cases;
mod drive;
mod memory;
mod peer;
mod peers;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use crate::cases::Case;
use crate::drive::Outcome;
use crate::peers::Entry;

/// Run every case with every runtime; print the table as Markdown.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// These runtimes only.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// These cases only.
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// Write all of it to this file too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Seconds after which a case hangs.
    #[arg(long, default_value_t = 120)]
    limit: u64,
}

#[derive(Subcommand)]
enum Command {
    /// Print the names of the cases and the runtimes.
    List,
    /// Run one case with one runtime in this process.
    #[command(hide = true)]
    Cell { peer: String, case: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Some(Command::List) => {
            peers::ALL.iter().for_each(|peer| println!("{} {}", peer.name, peer.version));
            Case::ALL.iter().for_each(|case| println!("{}: {}", case.name(), case.row()));
            Ok(())
        }
        Some(Command::Cell { peer, case }) => cell(peer, case),
        None => table(&cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn peer(name: &str) -> Result<&'static Entry, String> {
    peers::ALL.iter().find(|peer| peer.name == name).ok_or(format!("there is no runtime {name}"))
}

fn case(name: &str) -> Result<Case, String> {
    Case::ALL
        .iter()
        .copied()
        .find(|case| case.name() == name)
        .ok_or(format!("there is no case {name}"))
}

fn cell(name: &str, case_name: &str) -> Result<(), String> {
    system::end_with_parent();
    system::limit_fds(None).map_err(|e| e.to_string())?;
    let seen = peer(name)?.run(case(case_name)?)?;
    drive::tell(&seen.text, seen.holds);
    // Some runtimes' threads never end.
    std::process::exit(0)
}

fn table(cli: &Cli) -> Result<(), String> {
    let peers: Vec<&Entry> = match cli.peers.as_slice() {
        [] => peers::ALL.iter().collect(),
        names => names.iter().map(|name| peer(name)).collect::<Result<_, _>>()?,
    };
    let cases: Vec<Case> = match cli.cases.as_slice() {
        [] => Case::ALL.to_vec(),
        names => names.iter().map(|name| case(name)).collect::<Result<_, _>>()?,
    };
    let heads: Vec<String> = peers.iter().map(|p| format!("{} {}", p.name, p.version)).collect();
    println!("| case | must hold | {} |", heads.join(" | "));
    println!("|---|---|{}", "---|".repeat(peers.len()));
    let mut rows = Vec::new();
    for case in cases {
        let mut outcomes = Vec::new();
        for peer in &peers {
            let limit = Duration::from_secs(cli.limit);
            let run = drive::run(peer, case, limit);
            outcomes.push(run.map_err(|e| format!("{} with {}: {e}", case.name(), peer.name))?);
        }
        let texts: Vec<String> = outcomes.iter().map(mark).collect();
        println!("| {} | {} | {} |", case.row(), case.must(), texts.join(" | "));
        rows.push(row(case, &peers, &outcomes));
    }
    if let Some(path) = &cli.json {
        let peers: Vec<Value> =
            peers.iter().map(|p| json!({ "runtime": p.name, "version": p.version })).collect();
        let all = json!({ "machine": drive::machine(), "peers": peers, "cases": rows });
        std::fs::write(path, format!("{all:#}\n"))
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// What a cell of the printed table shows; all of it is in the JSON.
const CELL_MAX: usize = 80;

/// A cell of the table: bold where what must hold doesn't.
fn mark(outcome: &Outcome) -> String {
    let mut text = outcome.text.replace('|', "/");
    if text.chars().count() > CELL_MAX {
        text = text.chars().take(CELL_MAX).collect::<String>() + "…";
    }
    if outcome.holds == Some(false) { format!("**{text}**") } else { text }
}

fn row(case: Case, peers: &[&Entry], outcomes: &[Outcome]) -> Value {
    let results = peers.iter().zip(outcomes);
    let results: Vec<Value> = results
        .map(|(peer, seen)| json!({ "runtime": peer.name, "text": seen.text, "holds": seen.holds }))
        .collect();
    json!({ "case": case.name(), "done": case.row(), "must": case.must(), "results": results })
}
