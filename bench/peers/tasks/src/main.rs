//! Tasks, sets, limits and primitives: coreloop against tokio's current-thread runtime, in one process.
//!
//! Owns the command line, the order of the runs and the report. Both runtimes live for the whole time, each
//! with its defaults. A round runs a workload on either side, in an order that a seeded generator draws,
//! with the same number of operations; what is compared is the ratio of the two within a round, so what
//! disturbs the machine for longer than a round falls out. Where there are several ways to do the same with
//! tokio, each is run, and the one with the least median counts.
//!
//! What the workloads do is in [`work`], how figures become a judgement in [`stats`].

mod stats;
mod work;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use coreloop::EventLoop;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use crate::stats::{Ratio, Rng, median};
use crate::work::{WORKLOADS, Workload};

/// Compares coreloop's tasks and primitives with tokio's, in interleaved rounds of one process.
#[derive(Parser)]
#[command(
    name = "tasks",
    version,
    after_help = "Examples:\n  \
    cargo run --release --bin tasks                                # all of them, a few seconds\n  \
    cargo run --release --bin tasks -- --rounds 41 --cpu 1         # a quieter look\n  \
    cargo run --release --bin tasks -- --workload mutex,gather     # names that contain one of these\n  \
    cargo run --release --bin tasks -- --json tasks.json\n  \
    valgrind --tool=callgrind target/release/tasks --side coreloop --rounds 1 --workload spawn-join\n\n\
    A ratio below 1 means that coreloop takes less time. `ahead` and `behind` are said only where the\n\
    95 % interval of the median ratio lies on one side of 1."
)]
struct Options {
    /// Rounds of each workload.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only workloads whose name contains one of these, parted by commas.
    #[arg(long, value_delimiter = ',')]
    workload: Vec<String>,
    /// Multiplies the operations of each run, which take some milliseconds at 1.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where a workload runs: in a task that was spawned, as in a server, or in the main future.
    #[arg(long, value_enum, default_value_t = Place::Task)]
    place: Place,
    /// Run one side alone, for a profiler; no ratios then.
    #[arg(long, value_enum)]
    side: Option<Side>,
    /// Pin the process to this CPU.
    #[arg(long)]
    cpu: Option<usize>,
    /// Of the order of the runs, and of the intervals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write all figures to this file, `-` for standard output instead of the table.
    #[arg(long)]
    json: Option<String>,
    /// List the workloads with what one operation is, and end.
    #[arg(long)]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Place {
    Task,
    Main,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Side {
    Coreloop,
    Tokio,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match compare(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tasks: {why}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), String> {
    let wanted = |w: &&Workload| {
        options.workload.is_empty() || options.workload.iter().any(|name| w.name.contains(&**name))
    };
    let chosen: Vec<&Workload> = WORKLOADS.iter().copied().flatten().filter(wanted).collect();
    if chosen.is_empty() {
        return Err("no such workload; --list names them".into());
    }
    if options.list {
        for w in chosen {
            println!("{:<24} {}", w.name, w.op);
        }
        return Ok(());
    }
    if !(options.scale > 0.0 && options.scale <= 1e4) {
        return Err("--scale must be above 0 and at most 10000".into());
    }
    if let Some(id) = options.cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err(format!("this process may not run on CPU {id}"));
    }
    let mut both = Both::new(options)?;
    let only_json = options.json.as_deref() == Some("-");
    let mut rows = Vec::new();
    if !only_json {
        println!("{}", Row::HEAD);
    }
    for workload in chosen {
        let row = both.measure(workload);
        if !only_json {
            println!("{row}");
        }
        rows.push(row);
    }
    match options.json.as_deref() {
        None => {}
        Some("-") => println!("{:#}", report(options, &rows)),
        Some(path) => {
            let text = format!("{:#}\n", report(options, &rows));
            std::fs::write(path, text).map_err(|e| format!("{path}: {e}"))?;
        }
    }
    Ok(())
}

/// Both runtimes, and how they are run.
struct Both<'a> {
    coreloop: EventLoop,
    tokio: Runtime,
    options: &'a Options,
    rng: Rng,
}

impl<'a> Both<'a> {
    fn new(options: &'a Options) -> Result<Self, String> {
        let tokio = Builder::new_current_thread().enable_time().build();
        Ok(Self {
            coreloop: EventLoop::new().map_err(|e| e.to_string())?,
            tokio: tokio.map_err(|e| e.to_string())?,
            options,
            rng: Rng::new(options.seed),
        })
    }

    fn measure(&mut self, workload: &'static Workload) -> Row {
        let scaled = (workload.ops as f64 * self.options.scale) as u64;
        let ops = scaled.max(workload.ops_min);
        let side = self.options.side;
        let sides: Vec<usize> = (0..=workload.theirs.len())
            .filter(|who| side.is_none_or(|side| (side == Side::Coreloop) == (*who == 0)))
            .collect();
        // A run that is not counted: memory is there, code and branches are known.
        let warm = (ops / 4).max(workload.ops_min);
        for who in &sides {
            self.run(workload, *who, warm);
        }
        let mut ns = vec![Vec::new(); 1 + workload.theirs.len()];
        let terminal = std::io::stderr().is_terminal();
        for round in 0..self.options.rounds {
            if terminal {
                let (name, of) = (workload.name, self.options.rounds);
                eprint!("\r{name}: round {} of {of}   ", round + 1);
                let _ = std::io::stderr().flush();
            }
            let mut order = sides.clone();
            self.rng.shuffle(&mut order);
            for who in order {
                let took = self.run(workload, who, ops);
                ns[who].push(took.as_nanos() as f64 / ops as f64);
            }
        }
        if terminal {
            eprint!("\r{:50}\r", "");
        }
        Row::new(workload, ops, ns, &mut self.rng)
    }

    /// How long `ops` operations take, on our side or with one of theirs. The clock runs from within the
    /// loop: how long it takes to enter it is not counted.
    fn run(&mut self, workload: &'static Workload, who: usize, ops: u64) -> Duration {
        let in_task = self.options.place == Place::Task;
        match who.checked_sub(1) {
            None => {
                let timed = async move {
                    let began = Instant::now();
                    (workload.ours)(ops).await;
                    began.elapsed()
                };
                if in_task {
                    let joined = async { coreloop::spawn(timed).await };
                    self.coreloop.block_on(joined).expect("workloads don't panic")
                } else {
                    self.coreloop.block_on(timed)
                }
            }
            Some(which) => {
                let timed = async move {
                    let began = Instant::now();
                    (workload.theirs[which].1)(ops).await;
                    began.elapsed()
                };
                if in_task {
                    let joined = async { tokio::spawn(timed).await };
                    self.tokio.block_on(joined).expect("workloads don't panic")
                } else {
                    self.tokio.block_on(timed)
                }
            }
        }
    }
}

/// One workload's figures: ns per operation of each round.
struct Row {
    workload: &'static Workload,
    ops: u64,
    ours: Vec<f64>,
    /// By the names of the workload's `theirs`, the least median first.
    theirs: Vec<(&'static str, Vec<f64>)>,
    ratio: Option<Ratio>,
}

impl Row {
    const HEAD: &'static str = "workload                 coreloop ns     tokio ns  \
        ratio   95 % interval  verdict     tokio with";

    fn new(workload: &'static Workload, ops: u64, mut ns: Vec<Vec<f64>>, rng: &mut Rng) -> Self {
        let theirs = ns.split_off(1);
        let ours = ns.remove(0);
        let names = workload.theirs.iter().map(|(name, _)| *name);
        let mut theirs: Vec<_> = names.zip(theirs).filter(|(_, ns)| !ns.is_empty()).collect();
        theirs.sort_by(|a, b| median(&a.1).total_cmp(&median(&b.1)));
        let ratio = theirs.first().filter(|_| !ours.is_empty()).map(|(_, theirs)| {
            let pairs: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
            Ratio::of(&pairs, rng)
        });
        Self { workload, ops, ours, theirs, ratio }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let figure = |ns: &[f64]| match ns {
            [] => "-".to_owned(),
            _ => format!("{:.1}", median(ns)),
        };
        let (with, theirs) = match self.theirs.first() {
            Some((name, ns)) => (*name, figure(ns)),
            None => ("-", "-".into()),
        };
        let name = self.workload.name;
        write!(f, "{name:<24} {:>11} {theirs:>12} ", figure(&self.ours))?;
        match &self.ratio {
            Some(r) => write!(f, " {:>5.3}  {:.3} to {:.3} ", r.median, r.low, r.high)?,
            None => write!(f, " {:>5}  {:>14} ", "-", "-")?,
        }
        let verdict = self.ratio.as_ref().map_or("-", Ratio::verdict);
        write!(f, " {verdict:<11} {with}")
    }
}

fn report(options: &Options, rows: &[Row]) -> serde_json::Value {
    let rows = rows.iter().map(|row| {
        let theirs = row
            .theirs
            .iter()
            .map(|(name, ns)| json!({ "with": name, "median_ns": median(ns), "rounds_ns": ns }));
        json!({
            "workload": row.workload.name,
            "operation": row.workload.op,
            "operations": row.ops,
            "coreloop": { "median_ns": median(&row.ours), "rounds_ns": row.ours },
            "tokio": theirs.collect::<Vec<_>>(),
            "ratio": row.ratio.as_ref().map(|r| json!({
                "median": r.median, "low": r.low, "high": r.high, "verdict": r.verdict(),
            })),
        })
    });
    json!({
        "schema_version": 1,
        "rounds": options.rounds,
        "seed": options.seed,
        "place": if options.place == Place::Task { "task" } else { "main" },
        "workloads": rows.collect::<Vec<_>>(),
    })
}
