//! One load core from its first connection to its last answer.
//!
//! Owns the phases of the core: connect, wait for the window, load, drain. Each can be cut short by
//! [`Job::cut`]: by a signal, or because another core failed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coreloop::Core;
use coreloop::combine::{Either, race};
use coreloop::op::Submitter;
use coreloop::time::{sleep, sleep_until};
use coreloop_net::TcpStream;

use crate::cli::Arrivals;
use crate::doctor::RingFacts;
use crate::recorder::{INTERVAL_NS, Recorder, Window};
use crate::report::core::{CoreUsage, Role};
use crate::scenario::event::Event;
use crate::scenario::load::clock::LoopClock;
use crate::scenario::load::connect::{self, Target};
use crate::scenario::load::line::{self, ONE_TASK_BYTES_MAX, Shared, paced};
use crate::scenario::load::payload::Payload;
use crate::scenario::load::schedule::Schedule;
use crate::scenario::meter::CoreMeter;
use crate::sys;

/// How long answers may come after the window; what is missing then is unanswered.
const DRAIN_MAX_NS: u64 = 5_000_000_000;

/// How often a drain looks whether it is over.
const DRAIN_STEP: Duration = Duration::from_millis(1);

/// What a load core tells the main thread.
#[derive(Debug)]
pub enum News {
    /// All its connections are open.
    Ready(RingFacts),
    /// It can't take part, for this reason.
    Failed(String),
}

/// When load and measuring begin, and when they end.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The first request.
    pub begin_ns: u64,
    /// What is measured.
    pub window: Window,
}

/// What every load core needs to know.
#[derive(Debug)]
pub struct Job {
    /// Whom to load.
    pub target: Target,
    /// What is sent.
    pub payload: Payload,
    /// Bytes of one message.
    pub size: u64,
    /// Messages in flight per connection at most.
    pub depth: u64,
    /// Requests per second over all connections, in an open loop.
    pub rate: Option<u64>,
    /// How they follow each other then.
    pub arrivals: Arrivals,
    /// Connections over all cores.
    pub connections: u64,
    /// A recorder per core, until the core has taken it.
    pub recorders: Mutex<Vec<Option<Recorder>>>,
    /// Set once all cores are ready.
    pub start: Event<Start>,
    /// Set to the time at which all has to end.
    pub cut: Arc<Event<u64>>,
    /// To the main thread.
    pub news: Mutex<Sender<News>>,
    /// What a reader of the report should know.
    pub notes: Mutex<Vec<String>>,
}

/// The whole life of a load core.
pub async fn run(core: Core, job: Arc<Job>) {
    watch_for_signals(&core, &job);
    let share = share(job.connections, core.count() as u64, core.index() as u64);
    let streams = match race(connect::open(&job.target, share.len), job.cut.wait()).await {
        Either::First(Ok(streams)) => streams,
        Either::First(Err(words)) => return job.tell(News::Failed(words)),
        Either::Second(_) => return job.tell(News::Failed(INTERRUPTED.into())),
    };
    job.tell(News::Ready(RingFacts::from(Submitter::current().report())));
    let Either::First(start) = race(job.start.wait(), job.cut.wait()).await else { return };
    let recorder = lock(&job.recorders)[core.index()].take();
    let recorder = recorder.expect("a core runs once, and there is a recorder for each");
    measure(&core, &job, start, share, streams, recorder).await;
}

/// The words for a run that was ended before there was anything to report.
pub const INTERRUPTED: &str = "interrupted before anything was measured";

/// Connections of one core: how many, and the number of the first among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    first: u64,
    len: u64,
}

fn share(connections: u64, cores: u64, index: u64) -> Share {
    let (each, more) = (connections / cores, connections % cores);
    Share { first: index * each + index.min(more), len: each + u64::from(index < more) }
}

fn watch_for_signals(core: &Core, job: &Arc<Job>) {
    // One core does for all. Without a descriptor for it, Ctrl-C just ends the process.
    if core.index() == 0
        && let Ok(signal) = coreloop::signal::try_terminate()
    {
        let cut = job.cut.clone();
        drop(coreloop::spawn(async move {
            signal.await;
            cut.set(sys::monotonic_ns());
        }));
    }
}

async fn measure(
    core: &Core,
    job: &Job,
    start: Start,
    share: Share,
    streams: Vec<TcpStream>,
    mut recorder: Recorder,
) {
    let Start { begin_ns, window } = start;
    recorder.open_window(window);
    let shared = Rc::new(Shared {
        payload: job.payload,
        depth: job.depth,
        recorder: RefCell::new(Some(recorder)),
        stop_ns: Cell::new(window.end_ns),
        in_flight: Cell::new(0),
        live: Cell::new(share.len),
        trouble: RefCell::new(None),
    });
    let clock = LoopClock::new();
    sleep_until(clock.at(begin_ns)).await;
    let links = begin(job, begin_ns, share, streams, &shared, clock);
    let _ = race(sleep_until(clock.at(window.start_ns)), job.cut.wait()).await;
    let meter = CoreMeter::start(core, Role::Load).await;
    let end_ns = load(job, window, &shared, clock).await;
    let mut usage = meter.stop(core).await.usage;
    // The server's side of the load is the one that counts bytes.
    usage.bytes = 0;
    let open = || {
        let unsent: u64 = links.iter().map(|link| link.unsent(end_ns)).sum();
        shared.in_flight.get() + unsent
    };
    drain(&shared, open).await;
    usage.unanswered = open();
    finish(job, &shared, usage);
}

fn begin(
    job: &Job,
    begin_ns: u64,
    share: Share,
    streams: Vec<TcpStream>,
    shared: &Rc<Shared>,
    clock: LoopClock,
) -> Vec<Rc<paced::Link>> {
    let one_task = job.rate.is_none() && job.depth * job.size <= ONE_TASK_BYTES_MAX;
    let mut links = Vec::new();
    for (index, stream) in (share.first..).zip(streams) {
        if one_task {
            drop(coreloop::spawn(line::ping(shared.clone(), stream)));
            continue;
        }
        let schedule = job.rate.map(|rate| match job.arrivals {
            Arrivals::Even => Schedule::even(begin_ns, rate, index, job.connections),
            Arrivals::Poisson => Schedule::poisson(begin_ns, rate, index, job.connections),
        });
        links.push(paced::start(shared.clone(), stream, schedule, clock));
    }
    links
}

/// Lets the load run to the window's end; gives when it really ended.
async fn load(job: &Job, window: Window, shared: &Shared, clock: LoopClock) -> u64 {
    let mut next_ns = window.start_ns;
    loop {
        next_ns = (next_ns + INTERVAL_NS).min(window.end_ns);
        let cut = race(sleep_until(clock.at(next_ns)), job.cut.wait()).await;
        let now_ns = sys::monotonic_ns();
        let mut recorder = shared.recorder.borrow_mut();
        let recorder = recorder.as_mut().expect("it is given away after this");
        // Without connections there is nothing left to measure.
        if matches!(cut, Either::Second(_)) || shared.live.get() == 0 && now_ns < window.end_ns {
            shared.stop_ns.set(now_ns);
            recorder.cut_window(now_ns);
            return now_ns;
        }
        recorder.tick(now_ns);
        if now_ns >= window.end_ns {
            return window.end_ns;
        }
    }
}

/// Waits for the last answers, while there is anybody to give them.
async fn drain(shared: &Shared, open: impl Fn() -> u64) {
    let deadline_ns = sys::monotonic_ns() + DRAIN_MAX_NS;
    while shared.live.get() > 0 && open() > 0 && sys::monotonic_ns() < deadline_ns {
        sleep(DRAIN_STEP).await;
    }
}

fn finish(job: &Job, shared: &Shared, usage: CoreUsage) {
    if let Some(trouble) = shared.trouble.take() {
        lock(&job.notes).push(format!("load core {}: {trouble}", usage.core));
    }
    if let Some(recorder) = shared.recorder.take() {
        recorder.finish(usage);
    }
}

impl Job {
    fn tell(&self, news: News) {
        // The main thread may have given up.
        let _ = lock(&self.news).send(news);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is under these locks is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_out_without_gaps() {
        for (connections, cores) in [(1, 1), (7, 3), (64, 2), (10_000, 7)] {
            let mut next = 0;
            for index in 0..cores {
                let share = share(connections, cores, index);
                assert_eq!(share.first, next);
                assert!(share.len > 0);
                next += share.len;
            }
            assert_eq!(next, connections);
        }
    }
}
