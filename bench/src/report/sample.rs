//! Reports made up for the tests: figures as a small virtual machine gives them.

use std::time::Duration;

use crate::cli::parse::Spin;
use crate::cli::plan::{LoadPlan, ServePlan};
use crate::cli::{Arrivals, Workload};
use crate::report::core::{CoreUsage, LoopCounters, Role};
use crate::report::{CoreHistogram, Platform, RunInput, RunReport, ServeReport};
use crate::stats::{LatencySet, Moments, Summary, histogram};

/// A closed loop with its load side full.
pub fn closed_run() -> RunReport {
    let mut total = LatencySet::new(false);
    for (latency_us, count) in TIMES_US {
        (0..count).for_each(|_| total.record(Moments::closed(0, latency_us * 1_000), 1));
    }
    let requests = total.requests();
    let usages = vec![usage(Role::Load, 1, requests, 982), usage(Role::Server, 0, requests, 871)];
    run(&total, usages, None, vec![])
}

/// An open loop whose generator didn't keep up.
pub fn open_run() -> RunReport {
    let mut total = LatencySet::new(true);
    for (latency_us, count) in TIMES_US {
        for i in 0..count / 4 {
            let (intended_ns, sent_ns) = (1_000_000, 1_000_000 + latency_us * 800 + i % 500);
            let done_ns = sent_ns + latency_us * 1_000;
            total.record(Moments { intended_ns, room_ns: 0, sent_ns, done_ns }, 1);
        }
    }
    let requests = total.requests();
    let mut server = usage(Role::Server, 0, requests, 320);
    server.events.insert("buffers_out".into(), 1_204);
    server.events.insert("cq_overflows".into(), 0);
    let mut load = usage(Role::Load, 1, requests, 969);
    load.unanswered = 64;
    let inside = vec![
        core_histogram("tick length", &[4_000, 9_000, 60_000]),
        core_histogram("wake to poll", &[300, 700, 12_000]),
    ];
    run(&total, vec![server, load], Some(100_000), inside)
}

/// A run against a server that said nothing.
pub fn silent_run() -> RunReport {
    run(&LatencySet::new(false), vec![CoreUsage::new(Role::Load, 1)], None, vec![])
}

/// A server after two cores' work.
pub fn server() -> ServeReport {
    let mut usages =
        vec![usage(Role::Server, 0, 900_000, 710), usage(Role::Server, 1, 850_000, 690)];
    for usage in &mut usages {
        (usage.bytes, usage.connections) = (std::mem::take(&mut usage.requests) * 64, 32);
    }
    let inside = vec![core_histogram("tick length", &[4_000, 9_000, 60_000])];
    ServeReport::new(platform(), &serve_plan(), "127.0.0.1:7000".into(), usages, inside)
}

/// Latencies in µs and how often each came.
const TIMES_US: [(u64, u64); 10] = [
    (118, 400),
    (211, 60_000),
    (262, 300_000),
    (298, 410_000),
    (333, 520_000),
    (367, 290_000),
    (421, 90_000),
    (512, 9_000),
    (803, 400),
    (2_950, 3),
];

fn run(
    total: &LatencySet,
    usages: Vec<CoreUsage>,
    rate: Option<u64>,
    core_histograms: Vec<CoreHistogram>,
) -> RunReport {
    let workload = Workload {
        connections: 64,
        size: 64,
        depth: None,
        duration: Duration::from_secs(10),
        warmup: Duration::from_secs(1),
        rate,
        arrivals: Arrivals::Even,
        load_spin: None,
    };
    RunReport::new(RunInput {
        command: "run echo",
        platform: platform(),
        addr: "127.0.0.1:40213".into(),
        load: &LoadPlan {
            addr: None,
            cores: vec![1],
            workload,
            depth: 1,
            spin: Spin::Off,
            congestion: None,
        },
        serve: Some(&serve_plan()),
        total,
        usages,
        missing: &[],
        seconds: Vec::new(),
        window_ns: 10_000_000_000,
        notes: vec![],
        core_histograms,
    })
}

fn platform() -> Platform {
    Platform {
        version: "0.1.0".into(),
        kernel: Some("6.18.44".into()),
        cpu_model: Some("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz".into()),
        cpus_allowed: vec![0, 1],
        cpu_quota: None,
        congestion_control: Some("reno".into()),
        ring_features: [
            "single_issuer",
            "coop_taskrun",
            "defer_taskrun",
            "taskrun_flag",
            "no_sqarray",
            "submit_all",
            "registered_ring",
            "buffer_ring",
        ]
        .map(String::from)
        .to_vec(),
        ring_step_downs: vec!["no_iowait (masked by settings)".into()],
    }
}

fn serve_plan() -> ServePlan {
    ServePlan {
        addr: ([127, 0, 0, 1], 7000).into(),
        cores: vec![0],
        settings: coreloop::config::Sources::new()
            .named_flag("stats", "histograms")
            .and_then(|sources| sources.named_flag("buffers", "128"))
            .and_then(|sources| sources.resolve())
            .unwrap(),
        congestion: None,
        ops: None,
        lame_duck: std::time::Duration::ZERO,
    }
}

fn usage(role: Role, core: usize, requests: u64, busy_permille: u64) -> CoreUsage {
    let mut usage = CoreUsage::new(role, core);
    usage.requests = requests;
    usage.wall_ns = 10_000_000_000;
    usage.spun_ns = 120_000_000;
    usage.cpu_ns = busy_permille * 10_000_000 + usage.spun_ns;
    usage.run_delay_ns = Some(31_000_000);
    usage.loop_counters = Some(LoopCounters {
        ticks: requests / 20,
        enters: requests / 20,
        polls: requests * 2,
        completions: requests * 2,
        parks: requests / 400,
    });
    usage
}

fn core_histogram(name: &str, values_ns: &[u64]) -> CoreHistogram {
    let mut values = histogram();
    values_ns.iter().for_each(|ns| values.saturating_record(*ns));
    CoreHistogram { name: name.into(), core: Some(0), summary: Summary::of(&values) }
}
