//! Runs of an echo server with given settings under given load: what `tune` and `search` are made of.
//!
//! Owns the seam between those who decide what to run and the processes that run it ([`Runner`]), the
//! repeat of a run that was disturbed, and what both commands prepare and tell alike. The run itself is
//! that of `peers`: server and generator are processes of their own, on a core of their own each, with a
//! new port for each run.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cli::trial::TrialArgs;
use crate::machine::MachineFacts;
use crate::peers::child::Trouble;
use crate::peers::contenders::{CONGESTION, Cores};
use crate::peers::results::Machine;
use crate::peers::run::{Measured, Setting, under_load};
use crate::peers::workloads::{Echo, Kind, WORKLOADS};
use crate::peers::{Scratch, command_line, place};
use crate::report::units::grouped;
use crate::scenario::Failure;
use crate::sys;

pub mod goal;
pub mod progress;
pub mod words;

/// A setting and its value, as `--set` takes them.
pub type Change = (String, String);

/// What a run is to be.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What differs from the settings that the server would have.
    pub changes: &'a [Change],
    /// Requests per second, arriving at random; without them each answer triggers the next request.
    pub rate: Option<u64>,
}

/// Who runs.
pub trait Runner {
    /// Runs once.
    fn run(&mut self, ask: &Ask<'_>) -> Result<Measured, Trouble>;

    /// Time since the work began.
    fn elapsed(&self) -> Duration;
}

/// The runs of real processes.
#[derive(Debug)]
pub struct Processes {
    setting: Setting,
    echo: Echo,
    config: Option<PathBuf>,
    warmup: Duration,
    began: Instant,
    /// Lives as long as runs leave reports in it.
    _scratch: Scratch,
}

/// What is told of any such work: what was run, on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the JSON's shape.
    pub schema_version: u32,
    /// `tune` or `search`.
    pub command: String,
    /// What was typed.
    pub command_line: String,
    /// When it began, in UTC.
    pub started: String,
    /// Version of this program.
    pub version: String,
    /// What it ran on.
    pub machine: Machine,
    /// Which cores did what.
    pub cores: Cores,
    /// The workload's name.
    pub workload: String,
    /// What it is, in words.
    pub load: String,
    /// The goal.
    pub goal: String,
    /// Time that it was given.
    pub budget_s: f64,
    /// Time that it took.
    pub took_s: f64,
    /// Seconds that each run was measured.
    pub seconds: f64,
    /// Where the orders come from.
    pub seed: u64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// Runs.
    pub runs: usize,
    /// Of them those that stayed disturbed.
    pub disturbed: usize,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Version of the JSON's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// Attempts beyond the first, for a run that was disturbed.
const REPEATS: usize = 1;

/// Load before measuring: short, since everything here is over soon.
const WARMUP: Duration = Duration::from_millis(200);

/// A load that takes longer than this beyond its time has failed: the budget is for those that do not.
const LOAD_EXTRA: Duration = Duration::from_secs(15);

/// Runs, and once more if the run was disturbed; the less disturbed one counts. That a server does not keep
/// up is its own doing, and no reason to run it again.
pub fn attempt(runner: &mut impl Runner, ask: &Ask<'_>) -> Result<Measured, Trouble> {
    let mut best = runner.run(ask)?;
    for _ in 0..REPEATS {
        if best.usage.marks.is_empty() {
            break;
        }
        let again = runner.run(ask)?;
        if again.usage.disturbance < best.usage.disturbance {
            best = again;
        }
    }
    Ok(best)
}

/// The run that everything begins with, which does not count; none if all was ended in it.
pub fn first(runner: &mut impl Runner, ask: &Ask<'_>) -> Result<Option<Measured>, Trouble> {
    match attempt(runner, ask) {
        Err(Trouble::Interrupted) => Ok(None),
        first => first.map(Some),
    }
}

/// The echo workload of that name with the flags' changes, and what it is in words.
pub fn workload(args: &TrialArgs) -> Result<Echo, String> {
    let echoes = || {
        WORKLOADS.iter().filter_map(|w| match w.kind {
            Kind::Echo(echo) => Some((w.name, echo)),
            _ => None,
        })
    };
    let name = args.workload.as_str();
    let Some((_, echo)) = echoes().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = echoes().map(|(name, _)| name).collect();
        let near =
            names.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
        return Err(match near.filter(|(distance, _)| *distance <= 3) {
            Some((_, known)) => format!("no echo workload '{name}'; did you mean {known}?"),
            None => format!("no echo workload '{name}': there are {}", names.join(", ")),
        });
    };
    Ok(Echo {
        connections: args.connections.unwrap_or(echo.connections),
        size: args.size.unwrap_or(echo.size),
        depth: args.depth.unwrap_or(echo.depth),
        limit: args.depth,
        ..echo
    })
}

/// Refuses an open loop of a workload that is its depth: a rate comes in its stead.
pub fn no_depth_of_its_own(name: &str, echo: &Echo) -> Result<(), String> {
    match (echo.depth, echo.limit) {
        (1, _) | (_, Some(_)) => Ok(()),
        (depth, None) => Err(format!(
            "{name} keeps {depth} requests in flight on each connection, and an open loop keeps a rate \
             instead: give the most that may be in flight (--depth {depth}), or take echo-64"
        )),
    }
}

/// A load in words.
pub fn in_words(echo: &Echo, open: bool) -> String {
    let connections = match echo.connections {
        1 => "1 connection".to_owned(),
        n => format!("{} connections", grouped(n)),
    };
    let size = crate::cli::parse::bytes(echo.size);
    match (open, echo.depth) {
        (true, _) => {
            let most = echo.limit.map_or(String::new(), |limit| {
                format!(", at most {limit} in flight on each connection")
            });
            format!("TCP echo, {connections}, {size}, requests at random times{most}")
        }
        (false, 1) => format!("TCP echo, {connections}, {size}"),
        (false, depth) => {
            format!("TCP echo, {connections}, {size}, {depth} requests in flight on each")
        }
    }
}

/// A word of warning where runs have too few answers for the goal's percentile.
pub fn few_answers(goal: &goal::Goal, answers: f64) -> Option<String> {
    let point = goal.point().filter(|point| answers < point.answers_min as f64)?;
    Some(format!(
        "a run has about {} answers, and {} needs {}: give longer runs (--seconds), or look at a percentile \
         less far out",
        grouped(answers as u64),
        point.name,
        grouped(point.answers_min)
    ))
}

/// Makes everything ready, and what is told of it. The network is entered here: what is started later is in it.
pub fn prepare(
    args: &TrialArgs,
    command: &str,
    echo: Echo,
    config: Option<PathBuf>,
    budget: Duration,
) -> Result<(Processes, Head), Refusal> {
    let allowed = coreloop::placement::allowed_cpus();
    let cores = place::cores((args.series.server_core, args.series.load_core), &allowed)
        .map_err(Refusal::Usage)?;
    let bench = std::env::current_exe().map_err(|e| Failure::Told(format!("own path: {e}")))?;
    // Servers inherit the limit, and hold a descriptor for each connection.
    let _ = sys::raise_open_files();
    let facts = MachineFacts::read();
    let limit = facts.open_files.and_then(|limit| limit.soft);
    crate::cli::plan::check_files(echo.connections, 1, limit).map_err(Refusal::Usage)?;
    let (network, note) = place::network(args.series.no_namespace)?;
    let head = Head {
        schema_version: SCHEMA_VERSION,
        command: command.into(),
        command_line: command_line(),
        started: place::utc(place::now_s()),
        version: env!("CARGO_PKG_VERSION").into(),
        machine: place::machine(&facts, network),
        cores,
        workload: args.workload.clone(),
        load: in_words(&echo, false),
        goal: args.goal.to_string(),
        budget_s: budget.as_secs_f64(),
        took_s: 0.0,
        seconds: args.seconds,
        seed: args.series.seed.unwrap_or_else(place::fresh_seed),
        interrupted: false,
        runs: 0,
        disturbed: 0,
        notes: note.into_iter().chain(place::mask_note()).collect(),
    };
    let scratch = Scratch::new(command)?;
    let setting = Setting {
        bench,
        cores,
        seconds: args.seconds,
        rate: 0,
        idle_max: 1,
        work_divisor: 1,
        load_extra: LOAD_EXTRA,
        scratch: scratch.0.clone(),
    };
    let processes = Processes {
        setting,
        echo,
        config,
        warmup: WARMUP,
        began: Instant::now(),
        _scratch: scratch,
    };
    Ok((processes, head))
}

impl Runner for Processes {
    fn run(&mut self, ask: &Ask<'_>) -> Result<Measured, Trouble> {
        let echo = Echo { open: ask.rate.is_some(), ..self.echo };
        self.setting.rate = ask.rate.unwrap_or(0);
        under_load(&self.setting, self.serve(ask.changes), &echo, self.warmup)
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Processes {
    fn serve(&self, changes: &[Change]) -> Command {
        let mut command = Command::new(&self.setting.bench);
        command.args(["serve", "echo", "--addr", "127.0.0.1:0", "--congestion", CONGESTION]);
        command.args(["--cores", &self.setting.cores.server.to_string()]);
        if let Some(path) = &self.config {
            command.arg("--config").arg(path);
        }
        for (name, value) in changes {
            command.args(["--set", &format!("{name}={value}")]);
        }
        command
    }
}

pub use crate::peers::Refusal;

#[cfg(test)]
pub mod synthetic;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command as Asked};

    fn echo(flags: &[&str]) -> Result<Echo, String> {
        let args = ["coreloop-bench", "tune", "--goal", "cpu"].iter().chain(flags);
        let Asked::Tune(args) = Cli::parse_from(args).command else { panic!("not tune") };
        workload(&args.trial)
    }

    #[test]
    fn workloads_have_names_and_can_be_changed() {
        let plain = echo(&["echo-d16"]).unwrap();
        assert_eq!((plain.connections, plain.size, plain.depth), (64, 64, 16));
        let changed = echo(&["echo-64", "--connections", "8", "--size", "1k"]).unwrap();
        assert_eq!((changed.connections, changed.size, changed.depth), (8, 1024, 1));
        assert_eq!(
            in_words(&changed, true),
            "TCP echo, 8 connections, 1 KiB, requests at random times"
        );
        let limited = echo(&["echo-64", "--depth", "4"]).unwrap();
        assert!(
            in_words(&limited, true)
                .ends_with("random times, at most 4 in flight on each connection")
        );
        assert!(in_words(&limited, false).ends_with("4 requests in flight on each"));
        let error = no_depth_of_its_own("echo-d16", &plain).unwrap_err();
        assert!(
            error.contains("echo-d16 keeps 16 requests") && error.contains("--depth 16"),
            "{error}"
        );
        for flags in [&["echo-d16", "--depth", "16"][..], &["echo-64"], &["open-70"]] {
            assert_eq!(no_depth_of_its_own("x", &echo(flags).unwrap()), Ok(()));
        }
        let error = echo(&["echo-63"]).unwrap_err();
        assert!(error.contains("did you mean echo-64?"), "{error}");
        let error = echo(&["sleeps"]).unwrap_err();
        assert!(error.contains("there are echo-1, echo-64"), "{error}");
    }

    #[test]
    fn few_answers_for_a_far_percentile_are_told() {
        let words = |goal: &str, answers| few_answers(&goal.parse().unwrap(), answers);
        assert_eq!(words("p99<1ms", 1_000.0), None);
        assert_eq!(words("cpu", 1.0), None);
        let said = words("p99.9", 3_000.0).unwrap();
        assert!(said.contains("about 3,000 answers, and p99.9 needs 10,000"), "{said}");
    }

    #[test]
    fn a_disturbed_run_is_repeated_once_and_the_calmer_one_counts() {
        struct Scripted(Vec<f64>);
        impl Runner for Scripted {
            fn run(&mut self, _: &Ask<'_>) -> Result<Measured, Trouble> {
                let mut measured = Measured::default();
                measured.usage.foreign(self.0.remove(0));
                Ok(measured)
            }
            fn elapsed(&self) -> Duration {
                Duration::ZERO
            }
        }
        let ask = Ask { changes: &[], rate: None };
        let mut calm = Scripted(vec![0.01, 0.9]);
        assert!(attempt(&mut calm, &ask).unwrap().usage.marks.is_empty());
        assert_eq!(calm.0.len(), 1);
        let mut loud = Scripted(vec![0.5, 0.2, 0.0]);
        let kept = attempt(&mut loud, &ask).unwrap();
        assert_eq!((kept.usage.disturbance, loud.0.len()), (0.2, 1));
    }
}
