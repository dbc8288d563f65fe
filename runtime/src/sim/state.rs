//! Everything that a world consists of.
//!
//! Owns [`State`]: the parts side by side, and how time passes. What the parts do is in the files that are
//! named for them, each with an `impl State` of its own.

use super::check::{Mistake, VIOLATIONS_MAX, Violation};
use super::clock::Clock;
use super::enter::Rings;
use super::faults::Faults;
use super::files::Files;
use super::net::{Event, Net};
use super::rng::Rng;
use super::trace::Trace;

pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    pub(super) trace: Trace,
    pub(super) violations: Vec<Violation>,
    pub(super) clock: Clock<Event>,
    pub(super) files: Files,
    pub(super) net: Net,
    pub(super) rings: Rings,
}

impl State {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = Rng::new(seed);
        let faults = faults.drawn(&mut rng.fork());
        Self {
            rng,
            faults,
            trace: Trace::new(seed),
            violations: Vec::new(),
            clock: Clock::new(),
            files: Files::default(),
            net: Net::default(),
            rings: Rings::default(),
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    pub(super) fn note(&mut self, what: &'static str, numbers: &[i64]) {
        self.trace.note(self.clock.now_ns(), what, numbers);
    }

    pub(super) fn blame(&mut self, mistake: Mistake, detail: impl FnOnce() -> String) {
        self.note("mistake", &[mistake as i64]);
        if self.violations.len() < VIOLATIONS_MAX {
            let at_ns = self.clock.now_ns();
            self.violations.push(Violation { at_ns, mistake, detail: detail() });
        }
    }

    pub(super) fn calm(&mut self) {
        let old = self.faults.clone();
        self.faults = Faults {
            loopback_ns: old.loopback_ns,
            network_ns: old.network_ns,
            segment_bytes: old.segment_bytes,
            send_buffer: old.send_buffer,
            receive_buffer: old.receive_buffer,
            enter_ns: old.enter_ns,
            ..Faults::none()
        };
    }

    pub(super) fn next_event_ns(&self) -> Option<u64> {
        self.clock.next_ns()
    }

    pub(super) fn advance_to(&mut self, ns: u64) {
        while let Some(event) = self.clock.pop(ns) {
            self.happen(event);
        }
        self.clock.set(ns);
        self.run_unasked();
    }

    /// Does what is due now: what takes no time has happened when a call returns.
    pub(super) fn settle(&mut self) {
        let now = self.clock.now_ns();
        while let Some(event) = self.clock.pop(now) {
            self.happen(event);
        }
    }
}
