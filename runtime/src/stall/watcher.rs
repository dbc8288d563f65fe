//! The thread that looks whether cores move.
//!
//! Owns the list of cores that are watched, and the one thread of the process that looks at them: it is
//! started with the first of them and ends with the last. It looks five times within the shortest threshold,
//! at a core's own counters: one that is within its tasks, with the same turn and the same poll as when this
//! was first seen, is kept by them since then. Nothing on a core waits for the watcher, except that the end
//! of a core waits for a look at it that is under way; and the watcher waits for nobody whom it has told.

use std::ptr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Backtrace, Stall, StallHook, teller};
use crate::contain::contained;
use crate::metrics::{Kind, Recorder};
use crate::sys::locks::{Condvar, Mutex, MutexGuard};
use crate::sys::per_process::PerProcess;
use crate::sys::sample::{Sample, Sampler, Target, spawn_unsignalled};
use crate::task::table::Names;
use crate::task::{TaskId, Tasks};

/// Looks within a threshold.
const LOOKS: u32 = 5;
/// The shortest and the longest time between two looks.
const PERIOD: std::ops::RangeInclusive<Duration> =
    Duration::from_micros(200)..=Duration::from_millis(500);
/// How long a thread may take to say where it is.
const ANSWER: Duration = Duration::from_millis(10);
/// Stalls of one core that are told in a [`WINDOW`]; the others are counted.
const TOLD_MAX: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// A loop that is watched, for as long as this lives. On the loop's thread.
pub(crate) struct Watched {
    /// Where it is listed, of the process that has it.
    cores: &'static Cores,
    number: u64,
    target: &'static Target,
    /// The target looks at them.
    _tasks: std::rc::Rc<Tasks>,
}

impl Watched {
    /// Watches the loop of these tasks, which runs on the calling thread. None if no thread can be started.
    pub(crate) fn new(
        tasks: &std::rc::Rc<Tasks>,
        book: Arc<Recorder>,
        threshold: Duration,
        hook: StallHook,
    ) -> Option<Self> {
        let target = tasks.as_target();
        let cores = CORES.get();
        let mut list = cores.lock();
        list.number += 1;
        let number = list.number;
        list.entries.push(Entry {
            number,
            target,
            book,
            names: tasks.names(),
            threshold,
            hook,
            seen: None,
            window: None,
            suppressed: 0,
        });
        let watched = Self { cores, number, target, _tasks: tasks.clone() };
        if !list.running {
            let sampler = list.sampler.take().or_else(Sampler::take);
            if spawn_unsignalled("coreloop-stall", move || watch(cores, sampler)).is_err() {
                drop(list);
                return None;
            }
            list.running = true;
        }
        drop(list);
        cores.changed.notify_all();
        Some(watched)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // In a forked child the list is its parent's, and nobody looks.
        if !ptr::eq(self.cores, CORES.get()) {
            return self.target.leave();
        }
        // A look at this core that is under way has its lock; the signal of that look is taken within this.
        let mut list = self.cores.lock();
        let own = list.entries.iter().position(|entry| entry.number == self.number);
        let own = own.map(|at| list.entries.swap_remove(at));
        drop(list);
        self.target.leave();
        // What it captures is the user's: with nothing held.
        contained(|| drop(own));
        self.cores.changed.notify_all();
    }
}

/// The cores of a process that are watched, and the thread that does. A forked child that makes a loop of its
/// own has neither of its parent's. (Nor the sampler: there, stalls are told without their task.)
static CORES: PerProcess<Cores> = PerProcess::new(Cores::default);

#[derive(Default)]
struct Cores {
    list: Mutex<List>,
    changed: Condvar,
}

#[derive(Default)]
struct List {
    entries: Vec<Entry>,
    number: u64,
    running: bool,
    /// Between two watching threads.
    sampler: Option<Sampler>,
}

impl Cores {
    fn lock(&self) -> MutexGuard<'_, List> {
        // Nothing panics while it is held.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One core, as its watcher knows it.
struct Entry {
    number: u64,
    target: &'static Target,
    book: Arc<Recorder>,
    names: Names,
    threshold: Duration,
    hook: StallHook,
    seen: Option<Seen>,
    /// When the present window began, and how many stalls were told in it.
    window: Option<(Instant, u32)>,
    suppressed: u64,
}

/// A poll that a core was found in.
#[derive(Clone, Copy)]
struct Seen {
    /// Turns and polls of the core up to it.
    at: (u64, u64),
    since: Instant,
    cpu_ns: u64,
    told: bool,
}

fn watch(cores: &Cores, mut sampler: Option<Sampler>) {
    loop {
        let mut list = cores.lock();
        if list.entries.is_empty() {
            list.running = false;
            list.sampler = sampler;
            return;
        }
        let mut found = Vec::new();
        let room = teller::room();
        for entry in &mut list.entries {
            if let Some((seen, stalled)) = entry.look() {
                if found.len() >= room {
                    entry.suppressed += 1;
                    continue;
                }
                // With the list locked: the target stays that core's.
                let sample = sampler.as_mut().and_then(|s| s.sample(entry.target, ANSWER));
                // One that has moved on meanwhile was caught elsewhere: whose it was nobody knows.
                if entry.position() != Some(seen.at) || !entry.may_tell() {
                    entry.suppressed += 1;
                    continue;
                }
                let stall = entry.stall(seen, stalled, sample.as_ref());
                found.push((stall, sample, entry.hook.clone()));
            }
        }
        let period = list.entries.iter().map(|entry| entry.threshold / LOOKS).min();
        let period = period.unwrap_or_default().clamp(*PERIOD.start(), *PERIOD.end());
        if found.is_empty() {
            drop(cores.changed.wait_timeout(list, period));
            continue;
        }
        drop(list);
        for (mut stall, sample, hook) in found {
            stall.backtrace = sample.as_ref().map(backtrace_of).unwrap_or_default();
            // There is room for all that were found.
            teller::tell(stall, hook);
        }
    }
}

impl Entry {
    /// Which turn and which poll the core is in, if it is within its tasks.
    fn position(&self) -> Option<(u64, u64)> {
        let position = || (self.book.get(Kind::Ticks), self.book.get(Kind::Polls));
        self.book.is_busy().then(position)
    }

    /// Looks at the core; what it is kept by and for how long, if that is beyond the threshold for the first
    /// time.
    fn look(&mut self) -> Option<(Seen, Duration)> {
        let now = Instant::now();
        let Some(at) = self.position() else {
            self.seen = None;
            return None;
        };
        match &mut self.seen {
            Some(seen) if seen.at == at => {
                let stalled = now - seen.since;
                if seen.told || stalled < self.threshold {
                    return None;
                }
                seen.told = true;
                self.book.add(Kind::Stalls, 1);
                Some((*seen, stalled))
            }
            seen => {
                let cpu_ns = self.target.cpu_ns().unwrap_or(0);
                *seen = Some(Seen { at, since: now, cpu_ns, told: false });
                None
            }
        }
    }

    /// Whether one more may be told.
    fn may_tell(&mut self) -> bool {
        let now = Instant::now();
        match &mut self.window {
            Some((began, told)) if now - *began < WINDOW => {
                if *told >= TOLD_MAX {
                    return false;
                }
                *told += 1;
            }
            window => *window = Some((now, 1)),
        }
        true
    }

    fn stall(&mut self, seen: Seen, stalled: Duration, sample: Option<&Sample>) -> Stall {
        let spawned_at = sample.and_then(|sample| sample.said.1);
        let (task, slot) = sample.map(|sample| Tasks::understand(sample.said.0)).unzip();
        let cpu_ns = self.target.cpu_ns().unwrap_or(0).saturating_sub(seen.cpu_ns);
        Stall {
            core: self.book.core(),
            task,
            name: slot.and_then(|slot| self.name(slot)),
            spawned_at,
            stalled,
            cpu_time: Duration::from_nanos(cpu_ns).min(stalled),
            backtrace: Backtrace::default(),
            suppressed: std::mem::take(&mut self.suppressed),
        }
    }

    /// The name of the task in a slot. The core may hold the lock for some instructions, or for the whole
    /// stall if it was stopped within them.
    fn name(&self, slot: u32) -> Option<Arc<str>> {
        self.names.try_lock().ok()?.get(&slot).cloned()
    }
}

#[cfg(feature = "backtrace")]
use super::unwind::backtrace_of;

#[cfg(not(feature = "backtrace"))]
fn backtrace_of(sample: &Sample) -> Backtrace {
    Backtrace { addresses: sample.registers[..1].iter().copied().filter(|ip| *ip != 0).collect() }
}

/// For the compiler: what a report holds of a task crosses threads.
const _: fn() = || {
    fn crosses<T: Send + Sync>() {}
    crosses::<(TaskId, Stall)>();
};
