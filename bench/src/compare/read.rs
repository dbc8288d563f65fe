//! What a file of results has to compare: its series, and what it was measured on.
//!
//! Owns the ways in which reports of `run`, `load`, `peers`, `tune` and `search` become series. A report
//! without repeated samples gives series of one: they are told, and nobody can tell more.

use std::path::Path;

use serde_json::Value;

use crate::compare::RATE_OF;
use crate::compare::failures::{BLOCKS, Failures, SECONDS};
use crate::compare::highest::Highest;
use crate::compare::series::Series;
use crate::ops::client::make_printable;
use crate::peers::results::Results as PeersResults;
use crate::peers::workloads;

/// A file, as far as a comparison goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// `run`, `peers`, `tune` or `search`.
    pub kind: &'static str,
    /// Whether neighbouring samples were taken one after the other within one run.
    pub in_a_row: bool,
    /// Its figures.
    pub series: Vec<Series>,
    /// What failed, and has none.
    pub failures: Vec<Failures>,
    /// The highest rate of a search.
    pub highest: Option<Highest>,
    /// What it was measured on and with: name and value.
    pub facts: Vec<(String, String)>,
    /// Why its figures may not be those of what was measured.
    pub doubts: Vec<String>,
}

/// Reads a file.
pub fn side(path: &Path) -> Result<Side, String> {
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("can't read {name}: {error}"))?;
    let mut value: Value =
        serde_json::from_str(&text).map_err(|e| format!("{name}: no JSON: {e}"))?;
    make_printable(&mut value);
    parse(&value).map_err(|why| format!("{name}: {why}"))
}

/// Reads results.
pub fn parse(value: &Value) -> Result<Side, String> {
    match value["schema_version"].as_u64() {
        Some(1) => {}
        Some(version) => return Err(format!("schema_version is {version}; this program reads 1")),
        None => return Err("no results of coreloop-bench: they have a schema_version".into()),
    }
    match value["command"].as_str() {
        Some("run echo" | "load echo") => Ok(run(value)),
        Some("tune") => kept("tune", value),
        Some("search") => kept("search", value),
        Some(other) => Err(format!(
            "a report of `{other}` has nothing to compare: give one of run, load, peers, tune or search"
        )),
        None if value["contenders"].is_array() => peers(value),
        None => Err("no results of run, load, peers, tune or search".into()),
    }
}

fn run(value: &Value) -> Side {
    let seconds: Vec<&Value> = value["seconds"].as_array().into_iter().flatten().collect();
    let latency = match &value["latency"]["corrected"] {
        Value::Null => &value["latency"]["uncorrected"],
        corrected => corrected,
    };
    let mut series = Vec::new();
    let mut put = |figure: &str, unit: &str, less_is_better, samples: Vec<f64>| {
        if !samples.is_empty() {
            let (figure, unit) = (figure.to_owned(), unit.to_owned());
            series.push(Series { of: String::new(), figure, unit, less_is_better, samples });
        }
    };
    let each = |key: &str, scale: f64| -> Vec<f64> {
        seconds.iter().filter_map(|second| second[key].as_f64()).map(|n| n / scale).collect()
    };
    let or_one = |samples: Vec<f64>, one: Option<f64>| match samples.is_empty() {
        true => one.into_iter().collect(),
        false => samples,
    };
    let rate = value["totals"]["requests_per_s"].as_f64();
    put("requests per second", "/s", false, or_one(each("requests", 1.0), rate));
    for (figure, key) in
        [("p50", "p50_ns"), ("p90", "p90_ns"), ("p99", "p99_ns"), ("p99.9", "p999_ns")]
    {
        let one = latency[key].as_f64().map(|ns| ns / 1e3);
        put(figure, "µs", true, or_one(each(key, 1e3), one));
    }
    put("server CPU per request", "ns", true, server_cpu(value).into_iter().collect());
    let mut facts =
        facts(value, "/platform", &["version", "kernel", "cpu_model", "congestion_control"]);
    let asked =
        ["connections", "size_bytes", "depth", "rate", "arrivals", "server_cores", "load_cores"];
    facts.extend(self::facts(value, "/parameters", &asked));
    facts.extend(self::facts(value, "/parameters/server", &["changed"]));
    facts.push(("command".into(), text(&value["command"])));
    let invalid = value["verdict"]["valid"] == false;
    let reasons = value["verdict"]["reasons"].as_array().into_iter().flatten();
    let doubts = reasons.filter_map(Value::as_str).filter(|_| invalid).map(str::to_owned).collect();
    let failures = silent(&seconds).into_iter().collect();
    Side { kind: "run", in_a_row: true, series, failures, highest: None, facts, doubts }
}

/// Fewer requests in a second than this, and one without any is no wonder if they come at random.
const FEW: u64 = 20;

/// Seconds in which nothing was answered. The ranks of the others say too little of them: a server that stood
/// still for a third of its time answers as soon as the other in the rest.
fn silent(seconds: &[&Value]) -> Option<Failures> {
    let answers: Vec<u64> = seconds.iter().filter_map(|s| s["requests"].as_u64()).collect();
    Some(Failures {
        of: String::new(),
        what: SECONDS,
        unit: "seconds",
        failed: answers.iter().filter(|count| **count == 0).count(),
        all: answers.len(),
        sure: answers.iter().min()? >= &FEW,
        why: "nothing was answered in them".into(),
    })
}

/// All server cores' CPU over all their requests.
fn server_cpu(value: &Value) -> Option<f64> {
    let servers = || {
        let cores = value["cores"].as_array().into_iter().flatten();
        cores.filter(|core| core["role"] == "server")
    };
    let requests: f64 = servers().filter_map(|core| core["requests"].as_f64()).sum();
    let used =
        |core: &Value| Some(core["cpu_ns_per_request"].as_f64()? * core["requests"].as_f64()?);
    let cpu: f64 = servers().filter_map(used).sum();
    (requests > 0.0).then(|| cpu / requests)
}

fn kept(kind: &'static str, value: &Value) -> Result<Side, String> {
    let series: Vec<Series> =
        serde_json::from_value(value["series"].clone()).map_err(|e| format!("series: {e}"))?;
    let highest = (kind == "search").then(|| Highest::of(value)).flatten();
    if series.is_empty() && highest.is_none() {
        return Err(format!("this {kind} was ended before it had figures to compare"));
    }
    if let Some(empty) = series.iter().find(|series| series.samples.is_empty()) {
        return Err(format!("series: {} has no samples", empty.label()));
    }
    let mut facts = facts(value, "", &["version", "workload", "load", "goal", "rate", "seconds"]);
    facts.extend(self::facts(value, "/machine", &["kernel", "cpu_model", "network"]));
    facts.push(("settings".into(), text(&value["settings"])));
    let count = |name: &str| value[name].as_u64().unwrap_or(0);
    let doubts = mostly(count("disturbed"), count("runs"));
    Ok(Side { kind, in_a_row: false, series, failures: Vec::new(), highest, facts, doubts })
}

fn peers(value: &Value) -> Result<Side, String> {
    let results: PeersResults =
        serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let (mut series, mut failures) = (Vec::new(), Vec::new());
    let (mut runs, mut disturbed) = (0, 0);
    for ran in &results.workloads {
        let Some(workload) = workloads::find(&ran.name) else { continue };
        for who in &results.contenders {
            let counting = ran.counting(&who.id);
            let of = format!("{} · {}", ran.name, who.id);
            let failed = ran.failed_blocks(&who.id);
            failures.push(Failures {
                of: of.clone(),
                what: BLOCKS,
                unit: "blocks",
                failed: failed.len(),
                all: failed.len() + counting.len(),
                sure: true,
                why: failed.values().next().map(|why| why.to_string()).unwrap_or_default(),
            });
            runs += counting.len() as u64;
            disturbed += counting.values().filter(|run| !run.marks.is_empty()).count() as u64;
            for figure in workload.figures {
                let values = counting.values().filter_map(|run| run.figures.get(figure.key));
                let samples: Vec<f64> = values.map(|value| value / figure.scale).collect();
                if !samples.is_empty() {
                    series.push(Series {
                        of: of.clone(),
                        figure: figure.words.into(),
                        unit: figure.unit.into(),
                        less_is_better: figure.less_is_better,
                        samples,
                    });
                }
            }
        }
    }
    let mut facts = facts(value, "", &["version", "seconds", "cores", "quick"]);
    // It is a share of what the contenders did that day: nobody typed it.
    let rates = results.workloads.iter().filter_map(|ran| Some((&ran.name, ran.rate?)));
    facts.extend(rates.map(|(name, rate)| (format!("{RATE_OF}{name}"), rate.to_string())));
    facts.extend(self::facts(value, "/machine", &["kernel", "cpu_model", "network"]));
    let doubts = mostly(disturbed, runs);
    Ok(Side { kind: "peers", in_a_row: false, series, failures, highest: None, facts, doubts })
}

/// A word of doubt where more than half of the runs were disturbed.
fn mostly(disturbed: u64, runs: u64) -> Vec<String> {
    let words =
        "most of its runs were disturbed, by others on its cores or by the generator's limit";
    (disturbed * 2 > runs).then(|| words.to_owned()).into_iter().collect()
}

fn facts(value: &Value, at: &str, names: &[&str]) -> Vec<(String, String)> {
    let part = value.pointer(at).unwrap_or(&Value::Null);
    names.iter().map(|name| (name.to_string(), text(&part[*name]))).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample as report;
    use crate::stats::Second;

    fn of(value: &impl serde::Serialize) -> Result<Side, String> {
        parse(&serde_json::to_value(value).unwrap())
    }

    #[test]
    fn a_run_gives_its_seconds_and_what_it_has_but_once() {
        let mut run = report::closed_run();
        let second = |index| Second {
            index,
            requests: 1_000 + index,
            p50_ns: 5_000,
            p90_ns: 6_000,
            p99_ns: 7_000,
            p999_ns: 8_000,
        };
        run.seconds = (0..9).map(second).collect();
        let side = of(&run).unwrap();
        let counts: Vec<(&str, usize)> =
            side.series.iter().map(|s| (s.figure.as_str(), s.samples.len())).collect();
        assert_eq!(counts[0], ("requests per second", 9));
        assert_eq!(counts[3], ("p99", 9));
        assert_eq!(counts.last(), Some(&("server CPU per request", 1)));
        assert_eq!(side.series[3].samples[0], 7.0);
        assert!(side.in_a_row);
        assert!(side.facts.contains(&("connections".into(), "64".into())));
    }

    #[test]
    fn a_report_without_seconds_gives_one_of_each() {
        let side = of(&report::open_run()).unwrap();
        assert!(side.series.iter().all(|series| series.samples.len() == 1), "{side:?}");
        assert!(side.facts.contains(&("rate".into(), "100000".into())));
    }

    #[test]
    fn peers_and_searches_give_a_sample_a_block() {
        let side = of(&crate::peers::results::sample::results()).unwrap();
        let tokio = side.series.iter().find(|s| s.of == "echo-64 · tokio").unwrap();
        assert_eq!((tokio.samples.len(), side.kind), (5, "peers"));
        let side = of(&crate::tune::results::sample::tuned()).unwrap();
        assert_eq!((side.kind, side.series[0].of.as_str()), ("tune", "defaults"));
        assert_eq!(side.doubts, [""; 0]);
        let loud = of(&crate::tune::results::sample::disturbed()).unwrap();
        assert!(loud.doubts[0].contains("were disturbed, by others"), "{:?}", loud.doubts);
        let mut run = report::closed_run();
        (run.verdict.valid, run.verdict.reasons) = (false, vec!["it was too short".into()]);
        assert_eq!(of(&run).unwrap().doubts, ["it was too short"]);
        let early = of(&crate::tune::results::sample::interrupted()).unwrap_err();
        assert!(early.contains("ended before it had figures"), "{early}");
    }

    #[test]
    fn other_files_are_refused_in_words() {
        for (text, part) in [
            ("{}", "schema_version"),
            (r#"{"schema_version":9}"#, "is 9; this program reads 1"),
            (r#"{"schema_version":1,"command":"serve echo"}"#, "`serve echo` has nothing"),
            (r#"{"schema_version":1}"#, "no results of run, load, peers"),
            ("[1, 2]", "schema_version"),
            ("7", "schema_version"),
            (r#"{"schema_version":1,"command":"tune","series":[]}"#, "ended before it had figures"),
            (r#"{"schema_version":1,"command":"tune","series":7}"#, "series"),
            (
                r#"{"schema_version":1,"command":"search","series":[{"of":"","figure":"p99","unit":"","less_is_better":true,"samples":[]}]}"#,
                "p99 has no samples",
            ),
        ] {
            let error = parse(&serde_json::from_str(text).unwrap()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let missing = side(Path::new("/nonexistent/a.json")).unwrap_err();
        assert!(missing.starts_with("can't read /nonexistent/a.json"), "{missing}");
    }
}
