//! The seam between the command line and what runs: a scenario takes plans and gives measurements.
//!
//! Owns the types that cross it, and the frame every load runs in (progress bar, interval log,
//! collecting). A scenario owns its protocol and its use of the runtime, and nothing else: it
//! prints nothing and judges nothing.
//!
//! How a scenario runs its load:
//! 1. `collect::channel` gives a collector and a recorder per load core;
//! 2. each load core connects, says that it is ready, and waits for the window;
//! 3. the main thread fixes the window once for all, and calls [`Frame::watch`];
//! 4. each load core meters itself over the window (`machine::ThreadMeter`), and gives its
//!    recorder back by `Recorder::finish`.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::cli::Outputs;
use crate::cli::plan::{LoadPlan, ServePlan};
use crate::collect::{Collected, Collector};
use crate::doctor::RingFacts;
use crate::progress::Progress;
use crate::recorder::Window;
use crate::report::core::CoreUsage;
use crate::report::hlog::HlogWriter;
use crate::report::write::WriteError;
use crate::report::{CoreHistogram, Platform};
use crate::sys;

/// What a load run measured.
#[derive(Debug)]
pub struct Measured {
    /// Where the server was.
    pub addr: String,
    /// The load side.
    pub load: Collected,
    /// The server's cores, if it was of this process.
    pub server: Vec<CoreUsage>,
    /// What they recorded about themselves.
    pub core_histograms: Vec<CoreHistogram>,
    /// The rings as they were set up.
    pub ring: RingFacts,
}

/// What a server did until it was stopped.
#[derive(Debug)]
pub struct Served {
    /// Its cores.
    pub server: Vec<CoreUsage>,
    /// What they recorded about themselves.
    pub core_histograms: Vec<CoreHistogram>,
    /// The rings as they were set up.
    pub ring: RingFacts,
}

/// Why there is no measurement.
#[derive(Debug)]
pub enum Failure {
    /// A result file could not be written.
    Write(WriteError),
    /// Anything else, in words for whoever typed the command.
    Told(String),
}

/// What goes on around a load while it runs.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Where results go.
    pub outputs: &'a Outputs,
    /// `run echo`, `load echo`: the interval log's header names it.
    pub command: &'a str,
}

impl Frame<'_> {
    /// Collects a run: `begin_ns` is when its load began, before the warm-up.
    pub fn watch(
        &self,
        collector: Collector,
        begin_ns: u64,
        window: Window,
    ) -> Result<Collected, Failure> {
        let mut progress = Progress::new(begin_ns, window, self.outputs.quiet);
        let mut hlog = match &self.outputs.hlog {
            Some(path) => Some(HlogWriter::create(path, wall_clock(window), self.command)?),
            None => None,
        };
        Ok(collector.run(window, &mut progress, hlog.as_mut())?)
    }
}

/// A server and its load, in this process.
pub fn run_echo(_: &ServePlan, _: &LoadPlan, _: &Frame<'_>) -> Result<Measured, Failure> {
    Err(Failure::unbuilt())
}

/// Load on a server elsewhere.
pub fn load_echo(_: &LoadPlan, _: &Frame<'_>) -> Result<Measured, Failure> {
    Err(Failure::unbuilt())
}

/// A server until SIGINT or SIGTERM. `listening` is called once connections are accepted.
pub fn serve_echo(_: &ServePlan, _: impl FnOnce(&RingFacts, &str)) -> Result<Served, Failure> {
    Err(Failure::unbuilt())
}

impl Failure {
    // Goes with the three functions above when the runtime comes.
    fn unbuilt() -> Failure {
        Failure::Told("this build has no runtime yet: only `doctor` works".into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Write(error) => error.fmt(f),
            Failure::Told(words) => f.write_str(words),
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        Failure::Write(error)
    }
}

impl From<String> for Failure {
    fn from(words: String) -> Failure {
        Failure::Told(words)
    }
}

impl Platform {
    /// Adds how the rings were set up.
    pub fn with_ring(mut self, ring: &RingFacts) -> Platform {
        self.ring_features = ring.features.clone();
        let steps = ring.step_downs.iter();
        self.ring_step_downs = steps.map(|step| format!("{} ({})", step.what, step.why)).collect();
        self
    }
}

/// The wall-clock time at which the window begins.
fn wall_clock(window: Window) -> SystemTime {
    let now_ns = sys::monotonic_ns();
    let ahead = Duration::from_nanos(window.start_ns.saturating_sub(now_ns));
    let behind = Duration::from_nanos(now_ns.saturating_sub(window.start_ns));
    SystemTime::now() + ahead - behind
}
