//! One run of one contender: from its start to its figures.
//!
//! Owns what is measured and when. Server CPU is counted from the generator's start to its end, over all
//! answers in that time. Repeats nothing and judges nothing beyond the marks of `meter`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::peers::child::{Running, Trouble, how_ended};
use crate::peers::contenders::{self, Contender, Cores};
use crate::peers::interval::median;
use crate::peers::meter::{Meter, Threads, Usage};
use crate::peers::workloads::{Echo, Kind, Work, Workload};

/// What all runs have in common.
#[derive(Debug)]
pub struct Setting {
    /// This program: the generator.
    pub bench: PathBuf,
    /// Where server and generator run.
    pub cores: Cores,
    /// How long a load is measured.
    pub seconds: f64,
    /// Requests per second of the open loop, once known.
    pub rate: u64,
    /// Idle connections that the descriptors allow.
    pub idle_max: u64,
    /// What the operations of work in process are divided by.
    pub work_divisor: u64,
    /// How long a load may take beyond the time that it is told to take: connecting, and the drain.
    pub load_extra: Duration,
    /// A folder for the generator's reports.
    pub scratch: PathBuf,
}

/// What came out of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// By the keys of the workload's figures.
    pub figures: BTreeMap<String, f64>,
    /// Marks, and how disturbed it was.
    pub usage: Usage,
    /// What a peer says about how it did it.
    pub note: Option<String>,
}

/// Load before measuring.
pub const WARMUP: Duration = Duration::from_millis(500);

const STARTING: Duration = Duration::from_secs(20);
/// Beyond the time that a load is told to take, where many connections are opened.
pub const LOAD_EXTRA: Duration = Duration::from_secs(40);
const WORKING: Duration = Duration::from_secs(150);
/// How long idle connections are held, for the server to settle.
const IDLE_HELD: &str = "1s";

/// Runs a contender once.
pub fn once(setting: &Setting, who: &Contender, workload: &Workload) -> Result<Measured, Trouble> {
    match workload.kind {
        Kind::Echo(echo) => echo_once(setting, who, &echo),
        Kind::Idle { connections } => idle_once(setting, who, connections.min(setting.idle_max)),
        Kind::Work(work) => work_once(setting, who, workload.name, work),
    }
}

fn echo_once(setting: &Setting, who: &Contender, echo: &Echo) -> Result<Measured, Trouble> {
    let serve = who.serve("127.0.0.1:0", setting.cores.server, echo.connections, echo.size);
    under_load(setting, serve, echo, WARMUP)
}

/// Runs a server under the load of this program's generator.
pub fn under_load(
    setting: &Setting,
    mut serve: Command,
    echo: &Echo,
    warmup: Duration,
) -> Result<Measured, Trouble> {
    let (server, addr) = Running::server(&mut serve, STARTING)?;
    let json = setting.scratch.join("load.json");
    let mut load =
        contenders::load(&setting.bench, &addr.to_string(), setting.cores.load, echo, setting.rate);
    load.args(["--quiet", "--duration", &format!("{}ms", (setting.seconds * 1e3).round())]);
    load.args(["--warmup", &format!("{}ms", warmup.as_millis())]);
    load.arg("--json").arg(&json);
    let before = Threads::of(server.pid());
    let meter = Meter::start(&[setting.cores.server, setting.cores.load]);
    let mut generator = Running::start(&mut load, "generator")?;
    let within = Duration::from_secs_f64(setting.seconds) + warmup + setting.load_extra;
    let ended = generator.wait(within, || ())?;
    let (after, wall_ns) = (Threads::of(server.pid()), meter.wall_ns());
    let cpu_ns = after.cpu_ns_since(&before);
    let foreign = meter.foreign_share(cpu_ns);
    server.stop()?;
    // 3 says that it ran, but is not valid as a measurement: the report has the reasons.
    if !matches!(ended.code(), Some(0 | 3)) {
        return Err(generator.failure(&how_ended(ended)));
    }
    let report = fs::read_to_string(&json).map_err(|e| told(format!("{}: {e}", json.display())))?;
    let mut measured = figures_of_load(&report, cpu_ns)?;
    let server_percent = 100.0 * cpu_ns as f64 / wall_ns.max(1) as f64;
    measured.figures.insert("server_cpu_percent".into(), server_percent);
    measured.usage.waited("the server", after.waited_since(&before, wall_ns));
    measured.usage.foreign(foreign);
    Ok(measured)
}

/// The figures in a report of `load echo`.
pub(super) fn figures_of_load(report: &str, cpu_ns: u64) -> Result<Measured, Trouble> {
    let report: Value = serde_json::from_str(report).map_err(|e| told(format!("load: {e}")))?;
    let totals = &report["totals"];
    let answers = totals["answers_all"].as_f64().unwrap_or(0.0);
    let reasons = |key: &str| -> Vec<String> {
        let list = report["verdict"][key].as_array().into_iter().flatten();
        list.filter_map(|reason| reason.as_str().map(str::to_owned)).collect()
    };
    if answers == 0.0 || totals["errors"].as_u64() != Some(0) {
        let all: Vec<String> = [reasons("reasons"), reasons("notes")].concat();
        return Err(told(format!("the generator: {}", all.join("; "))));
    }
    let latency = match &report["latency"]["corrected"] {
        Value::Null => &report["latency"]["uncorrected"],
        corrected => corrected,
    };
    let mut measured = Measured::default();
    let mut put = |key: &str, value: Option<f64>| {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            measured.figures.insert(key.into(), value);
        }
    };
    put("cpu_ns_per_request", Some(cpu_ns as f64 / answers));
    put("requests_per_s", totals["requests_per_s"].as_f64());
    for point in ["p50", "p90", "p99", "p999", "p9999"] {
        let ns = latency[format!("{point}_ns")].as_f64();
        put(&format!("{point}_us"), ns.map(|ns| ns / 1e3));
    }
    let limited = report["verdict"]["generator_limited"].as_bool().unwrap_or(false);
    put("generator_limited", Some(if limited { 1.0 } else { 0.0 }));
    let reached = totals["requests_per_s"].as_f64().zip(report["parameters"]["rate"].as_f64());
    put("rate_reached", reached.map(|(did, asked)| did / asked));
    put("unanswered", totals["unanswered"].as_f64());
    put("answers", Some(answers));
    measured.usage.faults = reasons("server_reasons");
    for reason in reasons("reasons") {
        if !measured.usage.faults.contains(&reason) {
            measured.usage.generator(&reason);
        }
    }
    let delays = report["cores"].as_array().into_iter().flatten();
    let delay = delays.filter_map(|core| core["run_delay_percent"].as_f64()).fold(0.0, f64::max);
    measured.usage.waited("the generator", delay / 100.0);
    measured.usage.cpu_ns = cpu_ns;
    Ok(measured)
}

fn idle_once(setting: &Setting, who: &Contender, connections: u64) -> Result<Measured, Trouble> {
    let mut serve = who.serve("127.0.0.1:0", setting.cores.server, connections, 64);
    let (server, addr) = Running::server(&mut serve, STARTING)?;
    let json = setting.scratch.join("idle.json");
    let mut load = Command::new(&setting.bench);
    load.args(["load", "idle", "--quiet", "--addr", &addr.to_string()]);
    load.args(["--connections", &connections.to_string(), "--duration", IDLE_HELD]);
    load.args(["--server-pid", &server.pid().to_string()]).arg("--json").arg(&json);
    let mut generator = Running::start(&mut load, "generator")?;
    let ended = generator.wait(setting.load_extra, || ())?;
    server.stop()?;
    if !ended.success() {
        return Err(generator.failure(&how_ended(ended)));
    }
    let report = fs::read_to_string(&json).map_err(|e| told(format!("{}: {e}", json.display())))?;
    let report: Value = serde_json::from_str(&report).map_err(|e| told(format!("load: {e}")))?;
    let number =
        |key: &str| report[key].as_f64().ok_or_else(|| told(format!("load idle reports no {key}")));
    let (before, with) = (number("server_bytes_before")?, number("server_bytes_with")?);
    let mut measured = Measured::default();
    measured
        .figures
        .insert("bytes_per_connection".into(), (with - before).max(0.0) / connections as f64);
    measured.figures.insert("server_bytes_before".into(), before);
    measured.figures.insert("connections".into(), connections as f64);
    Ok(measured)
}

fn work_once(
    setting: &Setting,
    who: &Contender,
    name: &str,
    work: Work,
) -> Result<Measured, Trouble> {
    let asked = Work { count: (work.count / setting.work_divisor).max(1_000), ..work };
    let command = who.work(name, asked, setting.cores);
    let mut command =
        command.ok_or_else(|| told("its binary for work in process is not there".into()))?;
    let cores = match work.two_cores {
        true => vec![setting.cores.server, setting.cores.load],
        false => vec![setting.cores.server],
    };
    let meter = Meter::start(&cores);
    let mut running = Running::start(&mut command, "work")?;
    let mut last = Threads::default();
    let mut looked_at = Instant::now();
    let pid = running.pid();
    let ended = running.wait(WORKING, || {
        let now = Threads::of(pid);
        if !now.is_empty() {
            (last, looked_at) = (now, Instant::now());
        }
    })?;
    let foreign = meter.foreign_share(0);
    if !ended.success() {
        return Err(running.failure(&how_ended(ended)));
    }
    let mut measured = figures_of_work(&running.stdout(), name)?;
    let waited = last.waited_since(&Threads::default(), meter.wall_ns());
    measured.usage.waited("the process", waited);
    measured.usage.foreign(foreign);
    measured.usage.cpu_ns = last.cpu_ns_since(&Threads::default());
    Ok(measured)
}

/// The medians over the rounds of a line that `work` prints.
pub(super) fn figures_of_work(stdout: &str, name: &str) -> Result<Measured, Trouble> {
    let line = stdout.lines().rfind(|line| line.trim_start().starts_with('{'));
    let line = line.ok_or_else(|| told("the work printed no JSON".into()))?;
    let report: Value = serde_json::from_str(line).map_err(|e| told(format!("work: {e}")))?;
    if report["workload"].as_str() != Some(name) {
        return Err(told(format!("the work reports {}, not {name}", report["workload"])));
    }
    let mut rounds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut note = report["note"].as_str().or(report["channel"].as_str()).map(str::to_owned);
    for round in report["rounds"].as_array().into_iter().flatten() {
        for (key, value) in round.as_object().into_iter().flatten() {
            match (value.as_f64(), value.as_str()) {
                (Some(number), _) => rounds.entry(key.clone()).or_default().push(number),
                (None, Some(words)) if key == "note" || key == "channel" => {
                    note = Some(words.to_owned())
                }
                _ => {}
            }
        }
    }
    if rounds.is_empty() {
        return Err(told("the work reports no rounds".into()));
    }
    let figures: BTreeMap<String, f64> =
        rounds.into_iter().map(|(key, values)| (key, median(&values))).collect();
    let mut measured = Measured { figures, note, ..Measured::default() };
    let of = |key: &str| measured.figures.get(key).copied();
    if let (Some(all), Some(future)) = (of("bytes_per_task"), of("future_bytes")) {
        let beyond = (all - future).max(0.0);
        // The difference of two numbers may be none.
        if beyond.is_finite() {
            measured.figures.insert("bytes_beyond_future".into(), beyond);
        }
    }
    Ok(measured)
}

fn told(words: String) -> Trouble {
    Trouble::Failed(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: &str = r#"{"verdict":{"valid":true,"reasons":[],"notes":[]},
        "totals":{"requests":1000,"requests_per_s":500.5,"errors":0,"answers_all":1200,"unanswered":0},
        "latency":{"corrected":null,"uncorrected":{"p50_ns":27400,"p99_ns":90000}},
        "cores":[{"run_delay_percent":0.5}]}"#;

    #[test]
    fn a_load_report_gives_figures() {
        let measured = figures_of_load(LOAD, 6_000_000).unwrap();
        assert_eq!(measured.figures["cpu_ns_per_request"], 5_000.0);
        assert_eq!(measured.figures["requests_per_s"], 500.5);
        assert_eq!((measured.figures["p50_us"], measured.figures["p99_us"]), (27.4, 90.0));
        assert!(measured.usage.marks.is_empty());
    }

    #[test]
    fn a_generator_that_was_disturbed_or_the_limit_marks_the_run() {
        let report = LOAD
            .replace("\"run_delay_percent\":0.5", "\"run_delay_percent\":21.0")
            .replace("\"reasons\":[]", "\"reasons\":[\"it lagged\"]")
            .replace("\"corrected\":null", "\"corrected\":{\"p50_ns\":1000,\"p99_ns\":2000}");
        let measured = figures_of_load(&report, 1).unwrap();
        assert_eq!(measured.figures["p50_us"], 1.0, "an open loop counts from the intended time");
        assert_eq!(
            measured.usage.marks,
            ["generator: it lagged", "the generator waited for its core 21 % of the time"]
        );
    }

    #[test]
    fn a_server_that_falls_behind_has_failed_and_was_not_disturbed() {
        let words = "9 requests/s were reached of 10 asked for";
        let report = LOAD.replace(
            "\"reasons\":[]",
            &format!("\"reasons\":[{words:?},\"it lagged\"],\"server_reasons\":[{words:?}]"),
        );
        let measured = figures_of_load(&report, 1).unwrap();
        assert_eq!(measured.usage.faults, [words]);
        assert_eq!(measured.usage.marks, ["generator: it lagged"]);
        assert!(measured.usage.disturbance < 1.1, "the generator's part alone");
    }

    #[test]
    fn errors_of_the_load_are_a_failure() {
        let report = LOAD
            .replace("\"errors\":0", "\"errors\":3")
            .replace("\"reasons\":[]", "\"reasons\":[\"3 connections failed\"]");
        let Err(Trouble::Failed(words)) = figures_of_load(&report, 1) else { panic!() };
        assert_eq!(words, "the generator: 3 connections failed");
    }

    #[test]
    fn work_gives_the_medians_of_its_rounds() {
        let line = "noise\n{\"runtime\":\"x\",\"variant\":\"d\",\"workload\":\"idle-tasks\",\"note\":\"hm\",\
            \"rounds\":[{\"bytes_per_task\":100,\"future_bytes\":8},{\"bytes_per_task\":90,\"future_bytes\":8},\
            {\"bytes_per_task\":95,\"future_bytes\":8}]}\n";
        let measured = figures_of_work(line, "idle-tasks").unwrap();
        assert_eq!(measured.figures["bytes_per_task"], 95.0);
        assert_eq!(measured.figures["bytes_beyond_future"], 87.0);
        assert_eq!(measured.note.as_deref(), Some("hm"));
    }

    #[test]
    fn work_that_says_something_else_is_a_failure() {
        let words = |stdout| match figures_of_work(stdout, "yield") {
            Err(Trouble::Failed(words)) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(words(""), "the work printed no JSON");
        assert!(words("{\"workload\":\"sleeps\"}").contains("\"sleeps\", not yield"));
        assert_eq!(words("{\"workload\":\"yield\",\"rounds\":[]}"), "the work reports no rounds");
    }
}
