//! What a run or a server has to say at its end, as plain data.
//!
//! Owns the shape of the JSON (`schema_version` changes when a field's meaning or place does) and
//! puts the parts together. How it looks in a terminal is `text`'s, how it gets into files
//! `write`'s and `hlog`'s. Knows neither the runtime nor how anything was measured.

use coreloop::config::Origin;
use serde::Serialize;

use crate::cli::Arrivals;
use crate::cli::plan::{LoadPlan, ServePlan};
use crate::machine::MachineFacts;
use crate::report::chart::Bucket;
use crate::report::core::{CoreRow, CoreUsage, per};
use crate::scenario::idle::Idled;
use crate::stats::{LatencySet, Second, Summary};
use crate::verdict::{Figures, OpenFigures, Verdict, judge};

pub mod chart;
pub mod core;
pub mod hlog;
pub mod paint;
pub mod table;
pub mod tables;
pub mod text;
pub mod units;
pub mod write;

/// Version of the JSON's shape.
pub const SCHEMA_VERSION: u32 = 1;

/// What the figures were measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Platform {
    /// Version of this program, and of the runtime with it.
    pub version: String,
    /// Kernel release.
    pub kernel: Option<String>,
    /// CPU model.
    pub cpu_model: Option<String>,
    /// CPUs the process was allowed.
    pub cpus_allowed: Vec<usize>,
    /// CPUs' worth of time its cgroup granted, if limited.
    pub cpu_quota: Option<f64>,
    /// TCP congestion control.
    pub congestion_control: Option<String>,
    /// Setup flags and features of the rings, as in force.
    pub ring_features: Vec<String>,
    /// What the rings had to do without, and why.
    pub ring_step_downs: Vec<String>,
}

/// What was asked for, as it was carried out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parameters {
    /// Address of the server.
    pub addr: String,
    /// Connections over all load cores.
    pub connections: u64,
    /// Bytes per message.
    pub size_bytes: u64,
    /// Messages in flight per connection.
    pub depth: u64,
    /// Length of the measured window.
    pub duration_ns: u64,
    /// Load before it.
    pub warmup_ns: u64,
    /// Requests per second asked for; `None` is a closed loop.
    pub rate: Option<u64>,
    /// How requests follow each other in an open loop: `even` or `poisson`.
    pub arrivals: Option<String>,
    /// Cores that served, if they were of this process.
    pub server_cores: Vec<usize>,
    /// Cores that made the load.
    pub load_cores: Vec<usize>,
    /// The server's loops, if they were of this process.
    pub server: Option<ServerParameters>,
}

/// How the server's loops were set up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerParameters {
    /// The spin, as on the command line.
    pub spin: String,
    /// The level of its own figures.
    pub stats: String,
    /// The settings that are not at their defaults.
    pub changed: Vec<ChangedSetting>,
}

/// A setting that somebody set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedSetting {
    /// Its name; with the core in front (`core.1.`) if it is of one core.
    pub name: String,
    /// Its value, as it would be written.
    pub value: String,
    /// Who set it.
    pub from: String,
}

/// The run as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// Answers within the window.
    pub requests: u64,
    /// Answers per second.
    pub requests_per_s: f64,
    /// Payload per second in one direction, in bytes.
    pub bytes_per_s: f64,
    /// Failed requests and connections.
    pub errors: u64,
    /// Answers over the whole run, warm-up and drain included.
    pub answers_all: u64,
    /// Requests without an answer when the drain after the window ended.
    pub unanswered: u64,
}

/// The latencies, in figures: in a closed loop of the answers within the window, in an open one of the requests
/// that were due within it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// From the intended send time; only in an open loop.
    pub corrected: Option<Summary>,
    /// From the actual send time.
    pub uncorrected: Summary,
    /// How late the generator sent; only in an open loop.
    pub lag: Option<Summary>,
    /// The corrected latency, or the only one, in log-spaced buckets.
    pub buckets: Vec<Bucket>,
}

/// A histogram that a server core keeps about itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CoreHistogram {
    /// What it measures: `tick length`, `wake to poll` …
    pub name: String,
    /// The core, or `None` over all.
    pub core: Option<usize>,
    /// Its figures.
    #[serde(flatten)]
    pub summary: Summary,
}

/// The report of `run` and `load`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `run echo`, `load echo`.
    pub command: String,
    /// What it was measured on.
    pub platform: Platform,
    /// What was done.
    pub parameters: Parameters,
    /// Whether it counts.
    pub verdict: Verdict,
    /// All of it in four figures.
    pub totals: Totals,
    /// Latencies.
    pub latency: Latency,
    /// The whole seconds of the window one by one, the first hour's at most: `compare` judges the run's
    /// noise from them.
    pub seconds: Vec<Second>,
    /// A row per core.
    pub cores: Vec<CoreRow>,
    /// What the server's cores recorded about themselves.
    pub core_histograms: Vec<CoreHistogram>,
}

/// The report of `serve`, at its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServeReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `serve echo`.
    pub command: String,
    /// What it ran on.
    pub platform: Platform,
    /// Address it listened on.
    pub addr: String,
    /// How its loops were set up.
    pub server: ServerParameters,
    /// A row per core.
    pub cores: Vec<CoreRow>,
    /// What its cores recorded about themselves.
    pub core_histograms: Vec<CoreHistogram>,
}

/// The report of `load idle`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IdleReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `load idle`.
    pub command: String,
    /// How many were open.
    pub connections: u64,
    /// The server's anonymous memory before them.
    pub server_bytes_before: Option<u64>,
    /// With them.
    pub server_bytes_with: Option<u64>,
}

/// What [`RunReport::new`] puts together.
#[derive(Debug)]
pub struct RunInput<'a> {
    /// `run echo`, `load echo`.
    pub command: &'a str,
    /// What it was measured on.
    pub platform: Platform,
    /// Address the load was sent to.
    pub addr: String,
    /// The load as planned.
    pub load: &'a LoadPlan,
    /// The server as planned, if it is of this process.
    pub serve: Option<&'a ServePlan>,
    /// What the load recorded.
    pub total: &'a LatencySet,
    /// Both sides' cores.
    pub usages: Vec<CoreUsage>,
    /// Load cores that gave no figures.
    pub missing: &'a [usize],
    /// Its seconds one by one.
    pub seconds: Vec<Second>,
    /// Length of the window: shorter than planned if the run was interrupted.
    pub window_ns: u64,
    /// What else a reader should know.
    pub notes: Vec<String>,
    /// What the server's cores recorded about themselves.
    pub core_histograms: Vec<CoreHistogram>,
}

impl Platform {
    /// From the machine's facts; the rings' part is empty until somebody has made one.
    pub fn new(machine: &MachineFacts) -> Platform {
        Platform {
            version: env!("CARGO_PKG_VERSION").into(),
            kernel: machine.kernel.clone(),
            cpu_model: machine.cpu_model.clone(),
            cpus_allowed: machine.cpus_allowed.clone(),
            cpu_quota: machine.cpu_quota,
            congestion_control: machine.congestion_control.clone(),
            ring_features: Vec::new(),
            ring_step_downs: Vec::new(),
        }
    }
}

impl ServerParameters {
    /// As planned.
    pub fn new(plan: &ServePlan) -> ServerParameters {
        let rows = plan.settings.rows();
        let of_all = |name: &str| {
            let row = rows.iter().find(|(core, n, ..)| core.is_none() && *n == name);
            row.map(|(_, _, value, _)| value.clone()).unwrap_or_default()
        };
        // Where the server runs is told elsewhere.
        let changed = rows.iter().filter(|(_, name, _, from)| {
            *from != Origin::Default && !["cores", "pin", "ops_addr"].contains(name)
        });
        let changed = changed.map(|(core, name, value, from)| ChangedSetting {
            name: core.map_or((*name).to_owned(), |core| format!("core.{core}.{name}")),
            value: value.clone(),
            from: from.to_string(),
        });
        let changed = changed.collect();
        ServerParameters { spin: of_all("spin"), stats: of_all("stats"), changed }
    }
}

impl RunReport {
    /// Puts the report together and judges it.
    pub fn new(input: RunInput<'_>) -> RunReport {
        let RunInput { load, total, .. } = input;
        let window_ns = input.window_ns;
        let unanswered: u64 = input.usages.iter().map(|usage| usage.unanswered).sum();
        let errors = input.usages.iter().map(|usage| usage.errors).sum();
        let answers_all = input.usages.iter().map(|usage| usage.answers_all).sum();
        let mut cores: Vec<CoreRow> = input.usages.into_iter().map(CoreRow::from).collect();
        cores.sort_by_key(|row| (row.usage.role as u8, row.usage.core));
        let latency = Latency {
            corrected: total.open.as_ref().map(|open| Summary::of(&open.corrected)),
            uncorrected: Summary::of(&total.uncorrected),
            lag: total.open.as_ref().map(|open| Summary::of(&open.lag)),
            buckets: chart::buckets(total.headline()),
        };
        let schedule = load.workload.rate.zip(latency.corrected.zip(latency.lag));
        let mut verdict = judge(&Figures {
            cores: &cores,
            requests: total.requests(),
            errors,
            unanswered,
            window_ns,
            open: schedule.map(|(rate, (corrected, lag))| OpenFigures {
                rate,
                random: load.workload.arrivals == Arrivals::Poisson,
                corrected,
                lag,
            }),
            clipped: total.clipped,
            missing: input.missing,
            congestion_control: input.platform.congestion_control.as_deref(),
        });
        verdict.notes.extend(input.notes);
        let requests_per_s = 1e9 * per(total.requests(), window_ns);
        RunReport {
            schema_version: SCHEMA_VERSION,
            command: input.command.into(),
            platform: input.platform,
            parameters: Parameters {
                addr: input.addr,
                connections: load.workload.connections,
                size_bytes: load.workload.size,
                depth: load.depth,
                duration_ns: window_ns,
                warmup_ns: load.workload.warmup.as_nanos() as u64,
                rate: load.workload.rate,
                arrivals: load.workload.rate.map(|_| load.workload.arrivals.as_str().into()),
                server_cores: input.serve.map_or(Vec::new(), |plan| plan.cores.clone()),
                load_cores: load.cores.clone(),
                server: input.serve.map(ServerParameters::new),
            },
            verdict,
            totals: Totals {
                requests: total.requests(),
                requests_per_s,
                bytes_per_s: requests_per_s * load.workload.size as f64,
                errors,
                answers_all,
                unanswered,
            },
            latency,
            seconds: input.seconds,
            cores,
            core_histograms: input.core_histograms,
        }
    }
}

impl IdleReport {
    /// From what was seen.
    pub fn new(idled: &Idled) -> IdleReport {
        IdleReport {
            schema_version: SCHEMA_VERSION,
            command: "load idle".into(),
            connections: idled.connections,
            server_bytes_before: idled.server_bytes.map(|(before, _)| before),
            server_bytes_with: idled.server_bytes.map(|(_, with)| with),
        }
    }
}

impl ServeReport {
    /// Puts the report together.
    pub fn new(
        platform: Platform,
        plan: &ServePlan,
        addr: String,
        usages: Vec<CoreUsage>,
        core_histograms: Vec<CoreHistogram>,
    ) -> ServeReport {
        ServeReport {
            schema_version: SCHEMA_VERSION,
            command: "serve echo".into(),
            platform,
            addr,
            server: ServerParameters::new(plan),
            cores: usages.into_iter().map(CoreRow::from).collect(),
            core_histograms,
        }
    }
}

#[cfg(test)]
pub mod sample;
