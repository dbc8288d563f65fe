//! Asking the server again and again.
//!
//! Owns the thread that does, and how often the tasks are read: a list of tasks takes the cores' time, unlike
//! everything else that is looked at, so it is read seldom, and by itself only while they are few.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use coreloop_net::ops::doc::{Cores, Tasks};

use crate::cli::ops::OpsUrl;
use crate::ops::client;
use crate::report::units::grouped;

/// Tasks of each core that are listed.
const TASKS: usize = 1000;
/// Above so many, in all, they are read only when a key asks for them.
const TASKS_MAX: u64 = 20_000;
/// The least time between two lists of tasks that nobody asked for.
const TASKS_EVERY: Duration = Duration::from_secs(5);
/// How soon another interval counts.
const STEP: Duration = Duration::from_millis(50);

/// What came of a look.
#[derive(Debug)]
pub enum Look {
    /// The cores.
    Cores(Result<Cores, String>),
    /// The tasks.
    Tasks(Result<Tasks, String>),
}

/// The thread that looks. It ends with the process, or soon after this is dropped.
#[derive(Debug)]
pub struct Looker {
    looks: Receiver<Look>,
    wanted: Arc<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    interval_ms: AtomicU64,
    tasks: AtomicBool,
}

/// The cores, now.
///
/// # Errors
/// In words.
pub fn cores(url: &OpsUrl) -> Result<Cores, String> {
    client::fetch(url, "/cores")
}

/// The tasks, now.
///
/// # Errors
/// In words.
pub fn tasks(url: &OpsUrl) -> Result<Tasks, String> {
    client::fetch(url, &format!("/tasks?max={TASKS}"))
}

impl Looker {
    /// Begins.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn start(url: &OpsUrl, interval: Duration) -> Result<Looker, String> {
        // A few looks may wait for a frame; then the thread waits too.
        let (tell, looks) = sync_channel(4);
        let wanted = Arc::new(Wanted {
            interval_ms: AtomicU64::new(millis(interval)),
            tasks: AtomicBool::new(false),
        });
        let (url, theirs) = (url.clone(), wanted.clone());
        thread::Builder::new()
            .name("looker".into())
            .spawn(move || run(&url, &theirs, &tell))
            .map_err(|error| format!("no thread to ask the server: {error}"))?;
        Ok(Looker { looks, wanted })
    }

    /// What has come since.
    pub fn looks(&self) -> impl Iterator<Item = Look> + '_ {
        self.looks.try_iter()
    }

    /// Another time between two looks.
    pub fn every(&self, interval: Duration) {
        self.wanted.interval_ms.store(millis(interval), Ordering::Relaxed);
    }

    /// Reads the tasks with the next look, which is soon.
    pub fn want_tasks(&self) {
        self.wanted.tasks.store(true, Ordering::Relaxed);
    }
}

fn run(url: &OpsUrl, wanted: &Wanted, tell: &SyncSender<Look>) {
    let mut tasks_read: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let seen = cores(url);
        let count = seen.as_ref().ok().map(|seen| {
            seen.cores
                .iter()
                .flat_map(|core| core.gauges.iter())
                .filter(|(n, _)| *n == "tasks")
                .map(|(_, n)| n)
                .sum::<u64>()
        });
        if tell.send(Look::Cores(seen)).is_err() {
            return;
        }
        let asked = wanted.tasks.swap(false, Ordering::Relaxed);
        let due = tasks_read.is_none_or(|at| at.elapsed() >= TASKS_EVERY);
        let read = match count {
            Some(_) if asked => Some(tasks(url)),
            Some(count) if due && count > TASKS_MAX => Some(Err(format!(
                "{} tasks: to list them takes the cores' time, t does it all the same",
                grouped(count)
            ))),
            Some(_) if due => Some(tasks(url)),
            _ => None,
        };
        if let Some(read) = read {
            // What was asked for stays for a while.
            tasks_read = Some(Instant::now());
            if tell.send(Look::Tasks(read)).is_err() {
                return;
            }
        }
        let interval = || Duration::from_millis(wanted.interval_ms.load(Ordering::Relaxed));
        while began.elapsed() < interval() && !wanted.tasks.load(Ordering::Relaxed) {
            thread::sleep(STEP.min(interval().saturating_sub(began.elapsed())));
        }
    }
}

fn millis(d: Duration) -> u64 {
    d.as_millis().try_into().unwrap_or(u64::MAX)
}
