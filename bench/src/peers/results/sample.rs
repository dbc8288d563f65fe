//! Results made up for the tests.

use std::collections::BTreeMap;

use super::*;
use crate::peers::contenders::{Launch, OURS, served};

/// Two workloads, of which one has parts: ours, one slower, one not told apart, one that fails, one that
/// spins.
pub fn results() -> Results {
    let launch = || Launch::Peer { binary: "peer".into() };
    let spinning = |mut contender: Contender| {
        contender.spins = true;
        contender
    };
    let contenders = vec![
        served(OURS, "default", "0.1.0", launch()),
        served(OURS, "spin-off", "0.1.0", launch()),
        spinning(served(OURS, "spin-50us", "0.1.0", launch())),
        served("tokio", "default", "1.54.1", launch()),
        served("monoio", "flags", "0.2.4", launch()),
        served("smol", "default", "2.0.2", launch()),
        spinning(served("glommio", "spin", "0.9.0", launch())),
    ];
    let mut closed = workload(
        "echo-64",
        &[("coreloop", 5_000.0), ("tokio", 5_600.0), ("monoio flags", 5_010.0)],
    );
    let disturbed = closed.runs.iter().position(|run| run.contender == "tokio" && run.block == 2);
    let mut repeat = closed.runs[disturbed.unwrap()].clone();
    let first = &mut closed.runs[disturbed.unwrap()];
    first.marks = vec!["others used 31 % of the cores".into()];
    first.disturbance = 0.31;
    first.figures.insert("cpu_ns_per_request".into(), 9_000.0);
    repeat.attempt = 1;
    closed.runs.push(repeat);
    closed.runs.push(Run {
        error: Some("the server ended with exit status: 101: boom".into()),
        figures: BTreeMap::new(),
        ..run("smol", 0, 0.0)
    });
    closed.unsupported.insert("ringline".into(), "unsupported: <no> server".into());
    let one = [
        ("coreloop", 9_000.0),
        ("coreloop spin-off", 10_000.0),
        ("coreloop spin-50us", 9_100.0),
        ("tokio", 11_000.0),
        ("glommio spin", 19_000.0),
    ];
    Results {
        schema_version: SCHEMA_VERSION,
        command_line: "coreloop-bench peers echo-64 echo-1 --seed 7".into(),
        started: "2001-02-03 04:05:06 UTC".into(),
        version: "0.1.0".into(),
        machine: Machine {
            kernel: "6.18.44".into(),
            cpu_model: "A CPU & co".into(),
            cpus: 2,
            virtual_machine: true,
            network: "a private namespace".into(),
            congestion_control: "reno".into(),
        },
        cores: Cores { server: 0, load: 1 },
        seed: 7,
        blocks: 5,
        seconds: 2.0,
        quick: false,
        interrupted: false,
        notes: vec!["a note".into()],
        contenders,
        workloads: vec![closed, workload("echo-1", &one)],
    }
}

fn workload(name: &str, cpu: &[(&str, f64)]) -> WorkloadResults {
    let runs = cpu.iter().flat_map(|(who, ns)| (0..5).map(|block| run(who, block, *ns))).collect();
    WorkloadResults { name: name.into(), rate: None, runs, unsupported: BTreeMap::new() }
}

/// A run whose figures move a little from block to block, differently for each contender.
fn run(who: &str, block: usize, cpu_ns: f64) -> Run {
    let wave = 1.0 + ((block * 7 + who.len() * 3) % 5) as f64 / 250.0;
    let figures = [
        ("cpu_ns_per_request", cpu_ns * wave),
        ("requests_per_s", 1e9 / cpu_ns / wave),
        ("p50_us", cpu_ns / 15.0 * wave),
        ("p99_us", cpu_ns / 10.0 * wave),
    ];
    Run {
        block,
        attempt: 0,
        contender: who.into(),
        figures: figures.iter().map(|(key, value)| (key.to_string(), *value)).collect(),
        marks: Vec::new(),
        disturbance: 0.01,
        note: None,
        faults: Vec::new(),
        error: None,
    }
}
