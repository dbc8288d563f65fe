//! Everything that a world consists of.
//!
//! Owns [`State`]: the parts side by side, and how time passes. What the parts do is in the files that are
//! named for them, each with an `impl State` of its own.

use std::collections::BTreeMap;

use super::check::{Mistake, VIOLATIONS_MAX, Violation};
use super::clock::Clock;
use super::enter::Rings;
use super::errnos::Call;
use super::faults::Faults;
use super::files::Files;
use super::net::{Event, Net};
use super::quarantine::{self, Found};
use super::rng::Rng;
use super::signals::Signals;
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
    pub(super) signals: Signals,
    /// Errors that were handed out, by call and errno.
    pub(super) drawn: BTreeMap<(Call, i32), u64>,
    /// Until when enters are turned away.
    pub(super) pressed_until: u64,
    /// The process itself had no descriptor left for what is simulated: the errno, and how many real ones
    /// this world had open then.
    pub(super) starved: Option<(i32, usize)>,
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
            signals: Signals::default(),
            drawn: BTreeMap::new(),
            pressed_until: 0,
            starved: None,
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    pub(super) fn note(&mut self, what: &'static str, numbers: &[i64]) {
        self.trace.note(self.clock.now_ns(), what, numbers);
    }

    /// Enters what the allocator has noticed, if it is one that notices; see `quarantine`.
    pub(super) fn look_at_memory(&mut self) {
        for found in quarantine::take_found() {
            match found {
                Found::Freed { block, held } => self.blame(Mistake::MemoryFreed, || {
                    format!("a block of {block} bytes, {held} of which the kernel had")
                }),
                Found::Named { len } => self.blame(Mistake::MemoryFreed, || {
                    format!("{len} bytes, before they were submitted")
                }),
                Found::Written { block } => {
                    self.blame(Mistake::FreedTouched, || format!("a block of {block} bytes"))
                }
            }
        }
    }

    pub(super) fn blame(&mut self, mistake: Mistake, detail: impl FnOnce() -> String) {
        self.note("mistake", &[mistake as i64]);
        if self.violations.len() < VIOLATIONS_MAX {
            let at_ns = self.clock.now_ns();
            self.violations.push(Violation { at_ns, mistake, detail: detail() });
        }
    }

    /// The error that a call answers with this time, if it is to: one of those that its table lists.
    pub(super) fn draw_error(&mut self, call: Call) -> Option<i32> {
        let f = &self.faults;
        let chance = match call {
            Call::Accept => f.accept_fails,
            Call::Connect => f.connect_fails,
            // A shutdown fails on a connection that its peer has just reset.
            Call::Receive | Call::Send | Call::Shutdown => f.stream_fails,
            Call::EventFd | Call::Setup | Call::Register => f.start_fails,
            Call::Enter => 0,
            _ => f.call_fails,
        };
        if !self.rng.chance(chance) {
            return None;
        }
        let errno = self.rng.pick(call.errnos());
        self.handed_out(call, errno);
        Some(errno)
    }

    /// Counts an error that was drawn.
    pub(super) fn handed_out(&mut self, call: Call, errno: i32) {
        self.note("error", &[call as i64, i64::from(errno)]);
        *self.drawn.entry((call, errno)).or_default() += 1;
    }

    pub(super) fn calm(&mut self) {
        let old = self.faults.clone();
        self.pressed_until = 0;
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
