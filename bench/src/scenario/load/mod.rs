//! The load: cores that put requests on an echo server and record the answers.
//!
//! Owns the run as the main thread sees it: start the cores, wait for their connections, fix the window,
//! collect. What a core does is `core`'s; how a connection is driven is `line`'s.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use coreloop::{Cores, RunError, Runtime, Settings};
use indicatif::ProgressBar;

use crate::cli::plan::LoadPlan;
use crate::collect::{self, Collected};
use crate::doctor::RingFacts;
use crate::progress;
use crate::recorder::Window;
use crate::report::units::{grouped, time_ns};
use crate::scenario::event::Event;
use crate::scenario::{Failure, Frame};
use crate::sys;

pub mod clock;
pub mod connect;
pub mod core;
mod fifo;
mod line;
mod payload;
mod schedule;

use self::core::{INTERRUPTED, Job, News, Start};

/// What a load came to.
#[derive(Debug)]
pub struct Loaded {
    /// What its cores recorded.
    pub collected: Collected,
    /// Its rings.
    pub ring: RingFacts,
    /// Length of the window as it was.
    pub window_ns: u64,
    /// What a reader of the report should know.
    pub notes: Vec<String>,
}

/// Between the last core's readiness and the first request: time for every core to hear of it.
const LEAD_NS: u64 = 5_000_000;

/// How long the cores may take to close all connections.
const CLOSING: Duration = Duration::from_secs(10);

const REDRAW: Duration = Duration::from_millis(100);

/// Puts the load of `plan` on `addr`. `on_window` hears of the window before it begins, and gets the
/// event that cuts it short.
pub fn drive(
    plan: &LoadPlan,
    addr: SocketAddr,
    frame: &Frame<'_>,
    on_window: impl FnOnce(Window, &Arc<Event<u64>>),
) -> Result<Loaded, Failure> {
    let work = &plan.workload;
    let runtime = Runtime::builder()
        .cores(Cores::These(plan.cores.clone()))
        .settings(settings(plan))
        .build()
        .map_err(|error| error.to_string())?;
    let (collector, recorders) = collect::channel(&plan.cores, work.rate.is_some());
    let (tell, news) = channel();
    let job = Arc::new(Job {
        target: connect::Target {
            addr,
            congestion: plan.congestion.clone(),
            connected: Arc::new(AtomicU64::new(0)),
        },
        payload: payload::Payload::leak(work.size, plan.depth),
        size: work.size,
        depth: plan.depth,
        rate: work.rate,
        arrivals: work.arrivals,
        connections: work.connections,
        recorders: Mutex::new(recorders.into_iter().map(Some).collect()),
        start: Event::new(),
        cut: Arc::new(Event::new()),
        news: Mutex::new(tell),
        notes: Mutex::new(Vec::new()),
    });
    let on_core = job.clone();
    let thread = thread::Builder::new()
        .name("load".into())
        .spawn(move || runtime.run(move |core| core::run(core, on_core.clone())))
        .map_err(|error| format!("no thread for the load: {error}"))?;
    let ring = match connected(plan, frame, &job, &news, &thread) {
        Ok(ring) => ring,
        Err(words) => {
            job.cut.set(0);
            let ended = join(thread);
            return Err(Failure::Told(words.or(ended.err()).unwrap_or(INTERRUPTED.into())));
        }
    };
    let begin_ns = sys::monotonic_ns() + LEAD_NS;
    let start_ns = begin_ns + work.warmup.as_nanos() as u64;
    let window = Window { start_ns, end_ns: start_ns + work.duration.as_nanos() as u64 };
    job.start.set(Start { begin_ns, window });
    on_window(window, &job.cut);
    let collected = frame.watch(collector, begin_ns, window);
    // If the log can't be written, there is nobody to measure for.
    job.cut.set(sys::monotonic_ns());
    let collected = collected?;
    if collected.missing.is_empty() {
        join(thread)?;
    }
    outcome(&job, collected, ring, window)
}

fn outcome(
    job: &Job,
    collected: Collected,
    ring: RingFacts,
    window: Window,
) -> Result<Loaded, Failure> {
    let planned_ns = window.end_ns - window.start_ns;
    let window_ns = collected.usages.iter().map(|usage| usage.wall_ns).max().unwrap_or(planned_ns);
    if window_ns == 0 {
        return Err(Failure::Told(INTERRUPTED.into()));
    }
    let mut notes = std::mem::take(&mut *job.notes.lock().unwrap_or_else(PoisonError::into_inner));
    if window_ns < planned_ns {
        let (had, planned) = (time_ns(window_ns as f64), time_ns(planned_ns as f64));
        notes.push(format!("ended early, after {had} of {planned}: the figures are of that time"));
    }
    Ok(Loaded { collected, ring, window_ns, notes })
}

/// Waits until all connections are open. An error without words means that the threads have ended, and
/// know why.
fn connected(
    plan: &LoadPlan,
    frame: &Frame<'_>,
    job: &Job,
    news: &Receiver<News>,
    thread: &JoinHandle<Result<Vec<()>, RunError>>,
) -> Result<RingFacts, Option<String>> {
    let spinner = progress::waiting("connecting", frame.outputs.quiet);
    let done = || job.target.connected.load(Ordering::Relaxed);
    let mut ready = 0;
    let mut ring = None;
    let result = loop {
        match news.recv_timeout(REDRAW) {
            Ok(News::Ready(facts)) => {
                ready += 1;
                let first = ring.get_or_insert(facts);
                if ready == plan.cores.len() {
                    break Ok(first.clone());
                }
            }
            Ok(News::Failed(words)) => break Err(Some(words)),
            Err(RecvTimeoutError::Timeout) if !thread.is_finished() => {
                show(&spinner, done(), plan.workload.connections);
            }
            Err(_) => break Err(None),
        }
    };
    spinner.finish_and_clear();
    result
}

fn show(spinner: &ProgressBar, done: u64, of: u64) {
    spinner.set_message(format!("connecting: {} of {}", grouped(done), grouped(of)));
}

fn join(thread: JoinHandle<Result<Vec<()>, RunError>>) -> Result<(), String> {
    let deadline_ns = sys::monotonic_ns() + CLOSING.as_nanos() as u64;
    while !thread.is_finished() {
        if sys::monotonic_ns() > deadline_ns {
            return Err(format!("the load's cores did not end within {CLOSING:?}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    match thread.join() {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("the load did not run: {error}")),
        Err(_) => Err("the load's thread panicked".into()),
    }
}

fn settings(plan: &LoadPlan) -> Settings {
    // The finest there is: a send time is met to the microsecond, or is the generator's lag.
    Settings::default().timer_resolution(Duration::from_micros(1)).spin(plan.spin.into())
}
