//! Virtual time and what is due in it.
//!
//! Owns [`Clock`]: the time now and the events to come, in the order of their times and, at the same time,
//! of their making. Knows nothing of what an event does.

use std::collections::BTreeMap;

/// Where virtual CLOCK_MONOTONIC begins: not at 0, which no machine shows.
const BEGIN_NS: u64 = 1_000_000_000_000;

pub(super) struct Clock<E> {
    now_ns: u64,
    made: u64,
    due: BTreeMap<(u64, u64), E>,
}

impl<E> Clock<E> {
    pub(super) fn new() -> Self {
        Self { now_ns: BEGIN_NS, made: 0, due: BTreeMap::new() }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Moves on to `ns`; never back.
    pub(super) fn set(&mut self, ns: u64) {
        self.now_ns = self.now_ns.max(ns);
    }

    pub(super) fn at(&mut self, ns: u64, event: E) {
        self.made += 1;
        self.due.insert((ns.max(self.now_ns), self.made), event);
    }

    pub(super) fn next_ns(&self) -> Option<u64> {
        self.due.first_key_value().map(|((ns, _), _)| *ns)
    }

    /// The next event that is due by `ns`; the clock then stands at its time.
    pub(super) fn pop(&mut self, ns: u64) -> Option<E> {
        if self.next_ns()? > ns {
            return None;
        }
        let ((at, _), event) = self.due.pop_first()?;
        self.set(at);
        Some(event)
    }
}
