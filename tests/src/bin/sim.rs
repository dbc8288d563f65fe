//! Runs the workload of `sim_workload` over many seeds, on all cores.
//!
//! Owns the command line, and worker processes that take every n-th seed each: a seed that ends its process
//! is known as well as one that fails in order. With `--planted`, of a build with the feature of that name,
//! it counts how many seeds it takes until a fault put back on purpose is found.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use coreloop::planted::Fault;
use coreloop::sim::Quarantine;
use coreloop_tests::sim_workload;

/// Notices memory that is freed while the simulated kernel has it.
#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine;

const EXAMPLES: &str = "Examples:
  sim --seconds 600
  sim --seeds 10000
  sim --seed 3769 --trace
  sim --planted all --starts 5      (built with --features planted)";

/// Runs the simulated workload, seed after seed.
#[derive(Clone, Debug, Parser)]
#[command(name = "sim", after_help = EXAMPLES)]
struct Options {
    /// Ends after so many seconds [60, or when all of --seeds have run].
    #[arg(long)]
    seconds: Option<u64>,
    /// Ends after so many seeds.
    #[arg(long, default_value_t = u64::MAX, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs this seed alone, in this process.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: says what the seed is made of, and all events that are still known.
    #[arg(long)]
    trace: bool,
    /// Worker processes [one for each CPU].
    #[arg(long)]
    jobs: Option<u64>,
    /// Plants a fault and counts the seeds until it shows as what it is: a name, one place of it such as
    /// `early-timer.2`, or `all`.
    #[arg(long)]
    planted: Option<String>,
    /// A seed that has not ended after so many seconds counts as failed [60, of a planted fault 20].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seed_limit: Option<u64>,
    /// With --planted: so many counts, each from another seed.
    #[arg(long, default_value_t = 1)]
    starts: u64,
    /// For worker processes: every so many seeds.
    #[arg(long, hide = true)]
    step: Option<u64>,
}

impl Options {
    /// In seconds.
    fn time_limit(&self) -> u64 {
        let default = if self.seeds == u64::MAX { 60 } else { u64::MAX };
        self.seconds.unwrap_or(default)
    }

    /// How long one seed may take, with another default.
    fn seed_limit(&self, default: Duration) -> Duration {
        self.seed_limit.map_or(default, Duration::from_secs)
    }
}

/// Seeds within which a planted fault must be found.
const PLANTED_MAX: u64 = 1_000;

/// Distance between the starting points of counts.
const STARTS_APART: u64 = 2_000;

/// How long one seed with a planted fault may take.
const PLANTED_SEED_LIMIT: Duration = Duration::from_secs(20);

/// How long one seed may take before all processes are ended.
const SEED_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let options = Options::parse();
    let planted = options.planted.as_deref();
    if let Some(step) = options.step {
        return work(&options, step);
    }
    if let Some(seed) = options.seed {
        if let Some(name) = planted {
            if !can_plant(name) {
                return ExitCode::FAILURE;
            }
            plant(name);
        }
        return one(seed, options.trace);
    }
    match planted {
        None => search(&options),
        Some(name) => count_planted(&options, name),
    }
}

fn one(seed: u64, trace: bool) -> ExitCode {
    if trace {
        println!("{}", sim_workload::describe(seed));
    }
    match sim_workload::run(seed) {
        Ok(outcome) => {
            let report = &outcome.report;
            println!(
                "seed {seed} passed: {} conversations, {} frames, {} steps, {:?} of virtual time, trace {:016x}",
                outcome.lines, outcome.frames, report.steps, report.elapsed, report.trace_hash
            );
            if trace {
                for (name, count) in report.counters.iter().filter(|c| c.1 > 0) {
                    println!("  {name}: {count}");
                }
            }
            ExitCode::SUCCESS
        }
        Err(failed) => {
            if trace {
                failed.trace.iter().for_each(|line| println!("  {line}"));
            }
            println!("seed {seed} failed:\n{failed}");
            ExitCode::FAILURE
        }
    }
}

/// The worker: a line for each seed that passes; at the first that does not, what went wrong.
fn work(options: &Options, step: u64) -> ExitCode {
    if let Some(name) = &options.planted {
        plant(name);
    }
    let began = Instant::now();
    let mut out = std::io::stdout().lock();
    for n in 0..options.seeds {
        if began.elapsed().as_secs() >= options.time_limit() {
            break;
        }
        let seed = options.from + n * step;
        let line = match sim_workload::run(seed) {
            Ok(outcome) => format!("ok {}", outcome.frames),
            Err(failed) => format!("fail\n{failed}"),
        };
        // A parent that is gone wants no more.
        if writeln!(out, "{line}").is_err() || out.flush().is_err() || line.starts_with("fail") {
            return ExitCode::FAILURE;
        }
    }
    // Said, so that a process which is killed is not taken for one that has done its share.
    if writeln!(out, "end").is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a worker reports.
enum News {
    Passed {
        frames: u64,
    },
    Failed {
        seed: u64,
        text: String,
    },
    /// It has run all its seeds.
    Done,
}

struct Worker {
    process: Child,
    /// The seed that it is at.
    seed: u64,
    step: u64,
    /// When it last said something; none once it has done its share.
    since: Option<Instant>,
}

impl Worker {
    /// A seed has ended.
    fn is_on(&mut self) {
        (self.seed, self.since) = (self.seed + self.step, Some(Instant::now()));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended, or is no longer wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a worker; its news come through the sender, with its number.
fn worker(
    number: usize,
    args: &[(&str, String)],
    (from, step): (u64, u64),
    news: mpsc::Sender<(usize, News)>,
) -> Worker {
    let own = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(own);
    command.args(["--from", &from.to_string(), "--step", &step.to_string()]);
    args.iter().for_each(|(name, value)| {
        command.args([name, value.as_str()]);
    });
    let (piped, errors) = (Stdio::piped(), Stdio::piped());
    let mut process =
        command.stdout(piped).stderr(errors).spawn().expect("this program can be started anew");
    let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    let errors = process.stderr.take().expect("it is piped");
    let errors = thread::spawn(move || last_of(errors));
    thread::spawn(move || {
        let mut seed = from;
        while let Some(Ok(line)) = lines.next() {
            if line == "end" {
                let _ = news.send((number, News::Done));
                return;
            }
            let Some(frames) = line.strip_prefix("ok ") else {
                let text: Vec<_> = lines.map_while(Result::ok).collect();
                let _ = news.send((number, News::Failed { seed, text: text.join("\n") }));
                return;
            };
            let frames = frames.parse().unwrap_or(0);
            if news.send((number, News::Passed { frames })).is_err() {
                return;
            }
            seed += step;
        }
        let text =
            format!("its process ended before its time: {}", errors.join().unwrap_or_default());
        let _ = news.send((number, News::Failed { seed, text }));
    });
    Worker { process, seed: from, step, since: Some(Instant::now()) }
}

/// The end of what a worker says on stderr.
fn last_of(mut from: impl Read) -> String {
    let mut text = Vec::new();
    let _ = from.read_to_end(&mut text);
    String::from_utf8_lossy(&text[text.len().saturating_sub(2_000)..]).into_owned()
}

fn search(options: &Options) -> ExitCode {
    let cpus = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let jobs = options.jobs.unwrap_or(cpus).clamp(1, options.seeds.max(1));
    let (sender, news) = mpsc::channel();
    let limit = options.seed_limit(SEED_LIMIT);
    let mut workers: Vec<_> = (0..jobs)
        .map(|job| {
            let share = options.seeds / jobs + u64::from(job < options.seeds % jobs);
            let args =
                [("--seconds", options.time_limit().to_string()), ("--seeds", share.to_string())];
            worker(job as usize, &args, (options.from + job, jobs), sender.clone())
        })
        .collect();
    drop(sender);
    let (began, mut told) = (Instant::now(), Instant::now());
    let (mut seeds, mut frames) = (0u64, 0u64);
    let shown = std::io::stderr().is_terminal();
    // Who has been silent for longest is the first whose time is over, whatever news the others have.
    while let Some((silent, since)) = longest_silent(&workers) {
        match news.recv_timeout((since + limit).saturating_duration_since(Instant::now())) {
            Ok((from, News::Passed { frames: more })) => {
                (seeds, frames) = (seeds + 1, frames + more);
                workers[from].is_on();
            }
            Ok((from, News::Done)) => workers[from].since = None,
            Ok((_, News::Failed { seed, text })) => {
                drop(workers);
                println!("\nseed {seed} failed after {seeds} others had passed:\n{text}");
                println!("{}", again(seed));
                return ExitCode::FAILURE;
            }
            Err(RecvTimeoutError::Timeout) => {
                let seed = workers[silent].seed;
                drop(workers);
                println!(
                    "\nseed {seed} has not ended after {limit:?}; {seeds} others had passed\n{}",
                    again(seed)
                );
                return ExitCode::FAILURE;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let every = if shown { Duration::from_millis(500) } else { Duration::from_secs(30) };
        if told.elapsed() >= every {
            told = Instant::now();
            let took = began.elapsed().as_secs_f64();
            let line = format!("{seeds} seeds in {took:.0} s, {:.0} a second", seeds as f64 / took);
            if shown { eprint!("\r{line}   ") } else { eprintln!("{line}") }
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{}{seeds} seeds from {} passed in {took:.1} s on {jobs} processes: {frames} frames, {:.1} ms a seed and core",
        if shown { "\r" } else { "" },
        options.from,
        took * 1e3 * jobs as f64 / seeds.max(1) as f64,
    );
    ExitCode::SUCCESS
}

/// The worker that runs and has said nothing for longest, and since when.
fn longest_silent(workers: &[Worker]) -> Option<(usize, Instant)> {
    let running = workers.iter().enumerate().filter_map(|(n, worker)| Some((n, worker.since?)));
    running.min_by_key(|(_, since)| *since)
}

/// What to do to see a seed fail again.
fn again(seed: u64) -> String {
    format!("to see it again: cargo run --release -p coreloop-tests --bin sim -- --seed {seed}")
}

/// A fault at one of its places, counted from 1.
#[derive(Clone, Copy)]
struct Planted {
    fault: Fault,
    place: u8,
}

impl Planted {
    fn all() -> impl Iterator<Item = Self> {
        Fault::ALL.into_iter().flat_map(|fault| {
            (1..=fault.places().len() as u8).map(move |place| Self { fault, place })
        })
    }

    /// What it is called on a command line; a fault's name alone is all of its places.
    fn name(self) -> String {
        format!("{}.{}", self.fault.name(), self.place)
    }

    fn is_named(self, name: &str) -> bool {
        name == "all" || name == self.fault.name() || name == self.name()
    }
}

#[cfg(feature = "planted")]
fn plant(name: &str) {
    let first = Planted::all().find(|planted| planted.is_named(name));
    coreloop::planted::plant(first.map(|planted| (planted.fault, planted.place)));
}

#[cfg(not(feature = "planted"))]
fn plant(_: &str) {}

/// Whether `name` can be planted; says why if not.
fn can_plant(name: &str) -> bool {
    if !cfg!(feature = "planted") {
        eprintln!("faults can be planted in a build with `--features planted` only");
        return false;
    }
    if !Planted::all().any(|planted| planted.is_named(name)) {
        let known: Vec<_> = Planted::all().map(Planted::name).collect();
        eprintln!("no fault is called {name}; there are: {}", known.join(", "));
        return false;
    }
    true
}

/// A line for each place of a fault: how many seeds it took from each starting point, and what was seen.
fn count_planted(options: &Options, name: &str) -> ExitCode {
    if !can_plant(name) {
        return ExitCode::FAILURE;
    }
    let mut all = true;
    for planted in Planted::all().filter(|planted| planted.is_named(name)) {
        let counts: Vec<_> = (0..options.starts)
            .map(|start| until_found(planted, options, options.from + start * STARTS_APART))
            .collect();
        all &= counts.iter().all(Option::is_some);
        let numbers: Vec<_> = counts
            .iter()
            .map(|count| count.as_ref().map_or("none".to_owned(), |found| found.seeds.to_string()))
            .collect();
        let others: u64 = counts.iter().flatten().map(|found| found.others).sum();
        let seen = counts.iter().flatten().next().map_or("nothing", |found| found.seen.as_str());
        let place = planted.fault.places()[usize::from(planted.place) - 1];
        println!("| {} | {} | {place} | {others} | {seen} |", planted.name(), numbers.join(", "));
    }
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A planted fault that showed as what it is.
struct Found {
    /// Seeds until then, that one included.
    seeds: u64,
    /// Seeds among them that failed with something else.
    others: u64,
    /// The finding.
    seen: String,
}

/// Runs seeds until one of them shows the fault. One that fails otherwise, ends its process or does not end
/// is no finding, and the next one follows.
fn until_found(planted: Planted, options: &Options, from: u64) -> Option<Found> {
    let limit = options.seed_limit(PLANTED_SEED_LIMIT);
    let (mut next, mut others) = (from, 0);
    let end = from + PLANTED_MAX;
    while next < end {
        let (sender, news) = mpsc::channel();
        let args = [
            ("--seconds", u32::MAX.to_string()),
            ("--seeds", (end - next).to_string()),
            ("--planted", planted.name()),
        ];
        let _worker = worker(0, &args, (next, 1), sender);
        loop {
            match news.recv_timeout(limit) {
                Ok((_, News::Passed { .. })) => next += 1,
                Ok((_, News::Failed { text, .. })) => {
                    next += 1;
                    if let Some(seen) = sim_workload::finding(planted.fault, &text) {
                        let seen = seen.chars().take(120).collect();
                        return Some(Found { seeds: next - from, others, seen });
                    }
                    others += 1;
                    break;
                }
                Err(RecvTimeoutError::Timeout) => {
                    (next, others) = (next + 1, others + 1);
                    break;
                }
                Ok((_, News::Done)) | Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
    None
}
