//! The command line of every peer's binary, and what it prints.
//!
//! `describe` and `work` print one line of JSON on stdout. Exit code 2 is a mistake in the
//! arguments, 3 a workload that is unsupported or failed, with the reason on stderr.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};

use crate::{Echo, Failure, Peer, Work, process, work};

/// What is sure to hold the requests of most protocols, and what users take.
const BUFFER_SIZE_MIN: usize = 4096;

/// Exit code of what is unsupported or has failed.
const FAILED: u8 = 3;

/// Runs what the command line says.
pub fn main(peer: &Peer) -> ExitCode {
    let command = Cli::parse().command;
    // A panic inside a runtime is a result like others: the harness reports it and goes on.
    let outcome = catch_unwind(AssertUnwindSafe(|| match command {
        Command::Describe => {
            println!("{}", describe(peer));
            Ok(())
        }
        Command::Echo(args) => args.run(peer),
        Command::Work(args) => args.run(peer),
    }));
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            eprintln!("{}: {failure}", peer.runtime);
            ExitCode::from(FAILED)
        }
        Err(_) => {
            eprintln!("{}: panicked", peer.runtime);
            ExitCode::from(FAILED)
        }
    }
}

/// One runtime for `coreloop-bench peers`: an echo server, and workloads in process.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the runtime's version, variants and workloads as a line of JSON.
    Describe,
    /// Serve echo on one core until SIGTERM or SIGINT, or until the parent ends.
    Echo(EchoArgs),
    /// Run a workload and print its figures as a line of JSON.
    Work(WorkArgs),
}

#[derive(Args)]
struct EchoArgs {
    /// How to configure the runtime; the first that `describe` names unless given.
    #[arg(long)]
    variant: Option<String>,
    /// Where to listen; port 0 lets the system choose.
    #[arg(long)]
    addr: SocketAddr,
    /// Pin the process to this core.
    #[arg(long)]
    core: usize,
    /// The largest request in bytes; receive buffers have at least 4,096.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How many connections to prepare for, where a runtime has to know.
    #[arg(long, default_value_t = 4096)]
    connections: usize,
}

#[derive(Args)]
struct WorkArgs {
    /// One of the workloads that `describe` names.
    name: String,
    /// How to configure the runtime; the first that `describe` names unless given.
    #[arg(long)]
    variant: Option<String>,
    /// Pin the runtime to this core.
    #[arg(long)]
    core: usize,
    /// The other runtime's core, in workloads with two.
    #[arg(long, default_value_t = 1)]
    second_core: usize,
    /// How many operations; the workload's own count unless given.
    #[arg(long)]
    count: Option<u64>,
    /// How many times to run it within this process.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
}

impl EchoArgs {
    fn run(self, peer: &Peer) -> Result<(), Failure> {
        process::end_with_parent();
        process::pin(self.core)?;
        (peer.echo)(&Echo {
            variant: variant(peer, self.variant)?,
            addr: self.addr,
            core: self.core,
            buffer_size: self.size.max(BUFFER_SIZE_MIN),
            connections: self.connections,
        })
    }
}

impl WorkArgs {
    fn run(self, peer: &Peer) -> Result<(), Failure> {
        if let Some((_, why)) = peer.unsupported.iter().find(|(name, _)| *name == self.name) {
            return Err(format!("{} is unsupported: {why}", self.name).into());
        }
        let workload = peer.workloads.iter().find(|w| w.name == self.name);
        let workload = workload.ok_or_else(|| format!("no workload {}", self.name))?;
        let variant = variant(peer, self.variant)?;
        let count = self.count.unwrap_or_else(|| work::default_count(workload.name));
        process::end_with_parent();
        process::limit_seconds(work::SECONDS_MAX * self.rounds.max(1));
        process::pin(self.core)?;
        let work = Work { variant, core: self.core, second_core: self.second_core, count };
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            rounds.push(Value::from((workload.run)(&work)?));
        }
        let report = json!({
            "runtime": peer.runtime,
            "variant": work.variant,
            "workload": workload.name,
            "rounds": rounds,
        });
        println!("{report}");
        Ok(())
    }
}

fn variant(peer: &Peer, wanted: Option<String>) -> Result<String, Failure> {
    let Some(wanted) = wanted else { return Ok(peer.variants[0].to_owned()) };
    if peer.variants.contains(&wanted.as_str()) {
        return Ok(wanted);
    }
    Err(format!("no variant {wanted}; there are {}", peer.variants.join(", ")).into())
}

fn describe(peer: &Peer) -> Value {
    let no_server = peer.unsupported.iter().any(|(name, _)| *name == "echo");
    let mut workloads = if no_server { vec![] } else { vec!["echo"] };
    workloads.extend(peer.workloads.iter().map(|workload| workload.name));
    let unsupported = peer.unsupported.iter();
    let unsupported: serde_json::Map<_, _> =
        unsupported.map(|(name, why)| (name.to_string(), Value::from(*why))).collect();
    json!({
        "runtime": peer.runtime,
        "version": peer.version,
        "variants": peer.variants,
        "ring": peer.ring,
        "spins": peer.spins,
        "workloads": workloads,
        "unsupported": unsupported,
    })
}
