//! Rounds in pairs: `coreloop-bench serve echo` against the hand-written loop, under the same generator.
//!
//! Owns the order of the runs and the sums. In each round both servers run, in an order that alternates, each
//! under `coreloop-bench load echo`; a server's CPU is what the scheduler counted for its process from the
//! generator's start to its end, divided by all answers in that time. A round in which the server waited
//! for its core more than a few percent of the time was disturbed by something else and is run again, at
//! most twice.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

/// Compares coreloop with the hand-written loop, round by round.
#[derive(Parser)]
#[command(
    after_help = "Example:\n  cargo build --release -p coreloop-bench   # in the project\n  \
    cargo run --release --bin pairs -- --rounds 7 --workload c64"
)]
struct Options {
    /// The built `coreloop-bench`.
    #[arg(long, default_value = "../../target/release/coreloop-bench")]
    bench: PathBuf,
    /// The built `raw-echo`; beside this binary by default.
    #[arg(long)]
    raw: Option<PathBuf>,
    /// Rounds of each workload.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that each run is measured.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Workloads: c64, c1000 (64 B at 64 and 1,000 connections), d16 (depth 16), k16 (16 KiB).
    #[arg(long, value_delimiter = ',', default_value = "c64,c1000,d16,k16")]
    workload: Vec<String>,
    /// Flags for `coreloop-bench serve echo` beside the defaults, parted by spaces.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    serve_flags: String,
    /// CPU of the servers.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// CPU of the generator.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
}

struct Workload {
    name: &'static str,
    connections: u32,
    size: u32,
    depth: u32,
    /// Variants of the yardstick; the best of them counts.
    raw: &'static [&'static [&'static str]],
}

const WORKLOADS: [Workload; 4] = [
    Workload { name: "c64", connections: 64, size: 64, depth: 1, raw: &[SELECT] },
    Workload { name: "c1000", connections: 1000, size: 64, depth: 1, raw: &[SELECT] },
    Workload { name: "d16", connections: 64, size: 64, depth: 16, raw: &[SELECT] },
    Workload {
        name: "k16",
        connections: 64,
        size: 16384,
        depth: 1,
        raw: &[SELECT_16K, OWN_16K, MULTI_16K],
    },
];

const SELECT: &[&str] = &["--form", "select", "--buffers", "128", "--buffer-size", "4096"];
const SELECT_16K: &[&str] = &["--form", "select", "--buffers", "32", "--buffer-size", "16384"];
const MULTI_16K: &[&str] = &["--form", "multishot", "--buffers", "128", "--buffer-size", "16384"];
const OWN_16K: &[&str] = &["--form", "own", "--buffer-size", "16384", "--stride-pad", "192"];

/// One run's figures.
#[derive(Clone, Copy)]
struct Run {
    ns_per_request: f64,
    requests_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// Share of the time that the server waited for its core.
    waited: f64,
}

/// Share of waiting from which a run counts as disturbed.
const WAITED_MAX: f64 = 0.04;

fn main() -> ExitCode {
    let options = Options::parse();
    match compare(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pairs: {why}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), String> {
    let raw = match &options.raw {
        Some(raw) => raw.clone(),
        None => std::env::current_exe().map_err(|e| e.to_string())?.with_file_name("raw-echo"),
    };
    for name in &options.workload {
        let Some(workload) = WORKLOADS.iter().find(|w| w.name == *name) else {
            return Err(format!("no workload {name}; known ones: c64, c1000, d16, k16"));
        };
        let mut ours = Vec::new();
        let mut theirs: Vec<Vec<Run>> = workload.raw.iter().map(|_| Vec::new()).collect();
        for round in 0..options.rounds {
            let mut order: Vec<usize> = (0..=workload.raw.len()).collect();
            order.rotate_left(round as usize % (workload.raw.len() + 1));
            for who in order {
                eprint!("\r{name}: round {} of {} ", round + 1, options.rounds);
                match who.checked_sub(1) {
                    None => ours.push(undisturbed(options, workload, || serve(options))?),
                    Some(i) => theirs[i].push(undisturbed(options, workload, || {
                        start_raw(options, &raw, workload.raw[i])
                    })?),
                }
            }
        }
        eprint!("\r{:40}\r", "");
        report(workload, &ours, &theirs);
    }
    Ok(())
}

fn undisturbed(
    options: &Options,
    workload: &Workload,
    start: impl Fn() -> Result<(Child, String), String>,
) -> Result<Run, String> {
    let mut best: Option<Run> = None;
    for _ in 0..3 {
        let (mut server, addr) = start()?;
        let run = load(options, workload, server.id(), &addr);
        let _ = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
        let _ = server.wait();
        let run = run?;
        if best.is_none_or(|b| run.waited < b.waited) {
            best = Some(run);
        }
        if run.waited <= WAITED_MAX {
            break;
        }
    }
    best.ok_or_else(|| "no run".into())
}

fn serve(options: &Options) -> Result<(Child, String), String> {
    let core = options.server_core.to_string();
    let mut command = Command::new(&options.bench);
    command.args([
        "serve",
        "echo",
        "--addr",
        "127.0.0.1:0",
        "--congestion",
        "reno",
        "--cores",
        &core,
    ]);
    command.args(options.serve_flags.split_whitespace());
    start(command)
}

fn start_raw(options: &Options, raw: &Path, flags: &[&str]) -> Result<(Child, String), String> {
    let core = options.server_core.to_string();
    let mut command = Command::new(raw);
    command.args(["--addr", "127.0.0.1:0", "--congestion", "reno", "--core", &core]).args(flags);
    start(command)
}

/// Starts a server and reads the address that it listens on from what it prints.
fn start(mut command: Command) -> Result<(Child, String), String> {
    let what = format!("{command:?}");
    // The two kinds of server tell it on different streams: both go into one pipe.
    let (read, write) = std::io::pipe().map_err(|e| e.to_string())?;
    let both = write.try_clone().map_err(|e| e.to_string())?;
    command.stdin(Stdio::null()).stdout(write).stderr(both);
    let mut child = command.spawn().map_err(|e| format!("{what}: {e}"))?;
    drop(command);
    let mut lines = BufReader::new(read).lines();
    for line in lines.by_ref().map_while(Result::ok) {
        if let Some(at) = line.find("127.0.0.1:") {
            let addr = line[at..].split_whitespace().next().unwrap_or_default();
            let addr = addr.trim_end_matches([',', '.', ';']).to_owned();
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((child, addr));
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(format!("{what} told no address"))
}

fn load(options: &Options, workload: &Workload, server: u32, addr: &str) -> Result<Run, String> {
    let json = std::env::temp_dir().join(format!("pairs-{}.json", std::process::id()));
    let before = schedstat(server)?;
    let began = Instant::now();
    let status = Command::new(&options.bench)
        .args(["load", "echo", "--addr", addr, "--congestion", "reno", "--quiet"])
        .args(["--cores", &options.load_core.to_string()])
        .args(["--connections", &workload.connections.to_string()])
        .args(["--size", &workload.size.to_string(), "--depth", &workload.depth.to_string()])
        .args(["--warmup", "500ms", "--duration", &format!("{}s", options.seconds)])
        .arg("--json")
        .arg(&json)
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("load: {e}"))?;
    let after = schedstat(server)?;
    let wall = began.elapsed();
    if !status.success() {
        return Err(format!("load ended with {status}"));
    }
    let text = fs::read_to_string(&json).map_err(|e| e.to_string())?;
    let _ = fs::remove_file(&json);
    let report: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let cores = report["cores"].as_array().ok_or("no cores in the report")?;
    let all: f64 = cores.iter().filter_map(|c| c["answers_all"].as_f64()).sum();
    let rate: f64 = cores.iter().filter_map(|c| c["requests_per_s"].as_f64()).sum();
    if all == 0.0 {
        return Err("the generator counted no answers".into());
    }
    let latency = &report["latency"]["uncorrected"];
    Ok(Run {
        ns_per_request: (after.0 - before.0) as f64 / all,
        requests_per_s: rate,
        p50_us: latency["p50_ns"].as_f64().unwrap_or(f64::NAN) / 1e3,
        p99_us: latency["p99_ns"].as_f64().unwrap_or(f64::NAN) / 1e3,
        waited: (after.1 - before.1) as f64 / wall.max(Duration::from_millis(1)).as_nanos() as f64,
    })
}

/// Time on a CPU and time spent waiting for one, in ns, of all threads of a process.
fn schedstat(pid: u32) -> Result<(u64, u64), String> {
    let mut sum = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())? {
        let path = task.map_err(|e| e.to_string())?.path().join("schedstat");
        let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
        let mut parts = text.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        sum.0 += parts.next().unwrap_or(0);
        sum.1 += parts.next().unwrap_or(0);
    }
    Ok(sum)
}

fn report(workload: &Workload, ours: &[Run], theirs: &[Vec<Run>]) {
    let Workload { name, connections, size, depth, .. } = workload;
    println!("{name}: {connections} connections, {size} B, depth {depth}, {} rounds", ours.len());
    println!("  who            ns/request min  median     requests/s  p50 µs  p99 µs");
    let row = |who: &str, runs: &[Run]| {
        let min = runs.iter().map(|r| r.ns_per_request).fold(f64::INFINITY, f64::min);
        let mid = |f: fn(&Run) -> f64| median(runs.iter().map(f).collect());
        println!(
            "  {who:<14} {min:>14.0} {:>7.0} {:>14.0} {:>7.0} {:>7.0}",
            mid(|r| r.ns_per_request),
            mid(|r| r.requests_per_s),
            mid(|r| r.p50_us),
            mid(|r| r.p99_us),
        );
    };
    row("coreloop", ours);
    for (flags, runs) in workload.raw.iter().zip(theirs) {
        row(&format!("raw {}", flags[1]), runs);
    }
    for (flags, runs) in workload.raw.iter().zip(theirs) {
        let cpu = ours.iter().zip(runs).map(|(a, b)| a.ns_per_request / b.ns_per_request);
        let rate = ours.iter().zip(runs).map(|(a, b)| a.requests_per_s / b.requests_per_s);
        let least =
            |runs: &[Run]| runs.iter().map(|r| r.ns_per_request).fold(f64::INFINITY, f64::min);
        println!(
            "  coreloop / raw {}: CPU per request {:.3} (median of pairs), {:.3} (least of each); rate {:.3}",
            flags[1],
            median(cpu.collect()),
            least(ours) / least(runs),
            median(rate.collect()),
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
