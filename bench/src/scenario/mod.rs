//! The seam between the command line and what runs: a scenario takes plans and gives measurements.
//!
//! Owns the types that cross it, the frame every load runs in (progress bar, interval log,
//! collecting), and the scenarios' outlines: `server` and `load` are started, watched and ended in
//! order here. A scenario prints no results and judges nothing.
//!
//! How a scenario runs its load:
//! 1. `collect::channel` gives a collector and a recorder per load core;
//! 2. each load core connects, says that it is ready, and waits for the window;
//! 3. the main thread fixes the window once for all, and calls [`Frame::watch`];
//! 4. each load core meters itself over the window (`machine::ThreadMeter`), and gives its
//!    recorder back by `Recorder::finish`.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::cli::Outputs;
use crate::cli::parse::Spin;
use crate::cli::plan::{LoadPlan, ServePlan};
use crate::collect::{Collected, Collector};
use crate::doctor::RingFacts;
use crate::progress::Progress;
use crate::recorder::Window;
use crate::report::core::CoreUsage;
use crate::report::hlog::HlogWriter;
use crate::report::write::WriteError;
use crate::report::{CoreHistogram, Platform};
use crate::scenario::load::Loaded;
use crate::scenario::meter::Metered;
use crate::scenario::server::{Server, Until};
use crate::sys;

mod event;
pub mod idle;
mod load;
mod meter;
mod server;

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
    /// Length of the window: shorter than planned if the run was interrupted.
    pub window_ns: u64,
    /// What a reader should know beside the figures.
    pub notes: Vec<String>,
}

/// What a server did until it was stopped.
#[derive(Debug)]
pub struct Served {
    /// Where it listened.
    pub addr: SocketAddr,
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
pub fn run_echo(
    serve: &ServePlan,
    load: &LoadPlan,
    frame: &Frame<'_>,
) -> Result<Measured, Failure> {
    let server = Server::start(serve, Until::Stopped)?;
    let (addr, ring) = (server.addr, server.ring.clone());
    let mut watched = Vec::new();
    let loaded = load::drive(load, addr, frame, |window, cut| watched = server.watch(window, cut));
    // Without a load nobody says when the server's window ends.
    let metered: Vec<Metered> = match &loaded {
        Ok(_) => watched.into_iter().filter_map(|core| core.join().ok()).collect(),
        Err(_) => Vec::new(),
    };
    let stopped = server.stop();
    let loaded = loaded?;
    stopped?;
    let (mut usages, core_histograms) = split(metered);
    for usage in &mut usages {
        // The server does not know what a message is.
        usage.requests = usage.bytes / load.workload.size;
    }
    Ok(measured(addr, loaded, usages, core_histograms, ring))
}

/// Load on a server elsewhere.
pub fn load_echo(load: &LoadPlan, frame: &Frame<'_>) -> Result<Measured, Failure> {
    let addr = load.addr.ok_or("the server's address is missing".to_owned())?;
    let loaded = load::drive(load, addr, frame, |_, _| ())?;
    let ring = loaded.ring.clone();
    Ok(measured(addr, loaded, Vec::new(), Vec::new(), ring))
}

/// A server until SIGINT or SIGTERM. `listening` is called once connections are accepted, with its address
/// and that of its ops listener.
pub fn serve_echo(
    plan: &ServePlan,
    listening: impl FnOnce(&RingFacts, SocketAddr, Option<SocketAddr>),
) -> Result<Served, Failure> {
    let server = Server::start(plan, Until::Signal)?;
    let (addr, ring) = (server.addr, server.ring.clone());
    listening(&ring, addr, server.ops);
    let (server, core_histograms) = split(server.wait()?);
    Ok(Served { addr, server, core_histograms, ring })
}

fn split(metered: Vec<Metered>) -> (Vec<CoreUsage>, Vec<CoreHistogram>) {
    let (usages, histograms): (Vec<_>, Vec<_>) =
        metered.into_iter().map(|core| (core.usage, core.histograms)).unzip();
    (usages, histograms.into_iter().flatten().collect())
}

fn measured(
    addr: SocketAddr,
    loaded: Loaded,
    server: Vec<CoreUsage>,
    core_histograms: Vec<CoreHistogram>,
    ring: RingFacts,
) -> Measured {
    let Loaded { collected, window_ns, notes, .. } = loaded;
    Measured {
        addr: addr.to_string(),
        load: collected,
        server,
        core_histograms,
        ring,
        window_ns,
        notes,
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

impl From<Spin> for coreloop::Spin {
    fn from(spin: Spin) -> coreloop::Spin {
        match spin {
            Spin::Off => coreloop::Spin::Off,
            Spin::Dial => coreloop::Spin::Dial,
            Spin::Fixed(time) => coreloop::Spin::Fixed(time),
        }
    }
}

impl Platform {
    /// Adds how the rings were set up.
    pub fn with_ring(mut self, ring: &RingFacts) -> Platform {
        self.ring_features = ring.features.clone();
        let steps = ring.step_downs.iter();
        let settings = ring.settings.iter();
        let settings = settings.map(|step| {
            let (asked, got) = (&step.asked, &step.in_force);
            format!("{}: asked {asked}, in force {got} ({})", step.setting, step.why)
        });
        let steps = steps.map(|step| format!("{} ({})", step.what, step.why));
        self.ring_step_downs = steps.chain(settings).collect();
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
