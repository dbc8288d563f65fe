//! Signals, as `signal(7)` has them.
//!
//! Owns [`Signals`]: for each process what it has caught and what is pending for it. A standard
//! signal that is pending is not made pending twice; real-time ones are counted. A pending one is delivered
//! a little later, on a thread that the numbers choose, between two of its steps; which of several standard
//! ones is first is not said, and drawn here too. A thread that sleeps in an enter comes back with EINTR.
//! What nobody has caught does what it does by default, but for stops, which are not simulated: it ends the
//! process, or nothing. A process begins with nothing caught, but SIGPIPE ignored as a Rust program has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use super::net::{Event, ProcessId};
use super::state::State;
use crate::sys::signals::Inbox;

/// The first of the numbers that are counted.
const REAL_TIME: i32 = 32;

/// Time from a signal's sending to its delivery, at most.
const DELIVERY_NS_MAX: u64 = 20_000;

/// Pending ones of a real-time signal; more are refused, as by RLIMIT_SIGPENDING.
const QUEUED_MAX: u32 = 1_000;

/// Those that do nothing by default, and the one that Rust programs ignore.
const HARMLESS: [i32; 5] =
    [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH, libc::SIGPIPE];

/// Those that stop a process by default.
pub(super) const STOPPING: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

#[derive(Default)]
pub(super) struct Signals {
    processes: BTreeMap<ProcessId, Process>,
    /// Processes that a signal has ended, until whoever steps their cores asks.
    killed: BTreeSet<ProcessId>,
}

#[derive(Default)]
struct Process {
    /// Caught ones, and by whom; by nobody any more: they do nothing.
    caught: BTreeMap<i32, Vec<Weak<Inbox>>>,
    pending: BTreeMap<i32, u32>,
}

impl State {
    /// A process begins, with nothing caught.
    pub(super) fn begin_process(&mut self, process: ProcessId) {
        self.signals.processes.insert(process, Process::default());
    }

    /// A process has ended: what is pending for it goes nowhere.
    pub(super) fn end_process(&mut self, process: ProcessId) {
        self.signals.killed.remove(&process);
        self.signals.processes.remove(&process);
    }

    pub(super) fn catch(&mut self, at: ProcessId, signal: i32, inbox: &Arc<Inbox>) {
        let Some(process) = self.signals.processes.get_mut(&at) else { return };
        let told = process.caught.entry(signal).or_default();
        told.retain(|inbox| inbox.strong_count() > 0);
        told.push(Arc::downgrade(inbox));
    }

    /// `kill(2)`: ESRCH without a process, EAGAIN for one signal too many, or 0.
    pub(super) fn kill(&mut self, at: ProcessId, signal: i32) -> i32 {
        let Some(process) = self.signals.processes.get_mut(&at) else { return libc::ESRCH };
        let pending = process.pending.entry(signal).or_default();
        if *pending >= QUEUED_MAX {
            return libc::EAGAIN;
        }
        let is_merged = signal < REAL_TIME && *pending > 0;
        *pending = if signal < REAL_TIME { 1 } else { *pending + 1 };
        self.note(
            "kill",
            &[i64::from(at.host.0), i64::from(at.number), i64::from(signal), i64::from(is_merged)],
        );
        if !is_merged {
            let due = self.now_ns() + self.rng.between(0, DELIVERY_NS_MAX);
            self.clock.at(due, Event::Signal(at));
        }
        0
    }

    /// One of what is pending is delivered.
    pub(super) fn deliver_signal(&mut self, at: ProcessId) {
        let Some(process) = self.signals.processes.get_mut(&at) else { return };
        let standard: Vec<i32> = process.pending.range(..REAL_TIME).map(|(n, _)| *n).collect();
        let signal = if standard.is_empty() {
            let Some((&lowest, _)) = process.pending.first_key_value() else { return };
            lowest
        } else {
            self.rng.pick(&standard)
        };
        if let Some(count) = process.pending.get_mut(&signal) {
            *count -= 1;
            if *count == 0 {
                process.pending.remove(&signal);
            }
        }
        let told = process.caught.get(&signal).cloned();
        let Some(told) = told else { return self.do_default(at, signal) };
        let rings = self.rings.of_process(at);
        let on = (!rings.is_empty()).then(|| self.rng.pick(&rings));
        self.note("signal", &[i64::from(signal), on.map_or(-1, |ring| ring as i64)]);
        if let Some(ring) = on.and_then(|ring| self.rings.get_mut(ring)) {
            ring.interrupted = true;
        }
        told.iter().filter_map(Weak::upgrade).for_each(|inbox| inbox.deliver(signal));
    }

    fn do_default(&mut self, at: ProcessId, signal: i32) {
        let ends = !HARMLESS.contains(&signal);
        self.note("default", &[i64::from(signal), i64::from(ends)]);
        if ends {
            self.signals.killed.insert(at);
        }
    }

    /// The processes that signals have ended since this was last asked.
    pub(super) fn take_killed(&mut self) -> Vec<ProcessId> {
        std::mem::take(&mut self.signals.killed).into_iter().collect()
    }
}
