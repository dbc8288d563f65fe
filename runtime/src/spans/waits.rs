//! What each task waits for, while somebody collects it.
//!
//! Owns what a poll gathers of that ([`pends`]), and the spans that stand for it: for each wait a resource,
//! `runtime.resource` with `concrete_type` (`recv`, `timer`, `a mutex`) and `kind` (`io`, `timer`, `task`,
//! `sync`), and within it `runtime.resource.async_op`, which lives as long as the wait does and is entered
//! when a poll ends with it; there an event of the target `runtime::resource::poll_op` says whether what
//! was waited for had come. So `console-subscriber` asks for them. Invariant: nothing is borrowed while a
//! subscriber runs.

use std::cell::Cell;

use tracing_core::Dispatch;

use super::Wait;
use super::site::{self, Held, telling};

/// Waits of one poll that are told, at most: one that waits for the first of many says four of them.
const WAITS_MAX: usize = 4;

#[derive(Clone, Copy)]
struct List {
    /// Whether a poll that somebody collects is under way.
    wanted: bool,
    waits: [Option<Wait>; WAITS_MAX],
}

const NOTHING: List = List { wanted: false, waits: [None; WAITS_MAX] };

thread_local! {
    static LIST: Cell<List> = const { Cell::new(NOTHING) };
}

/// A future that is being polled waits for this. Runs nobody's code.
#[inline]
pub(crate) fn pends(wait: impl FnOnce() -> Wait) {
    if LIST.get().wanted {
        add(wait());
    }
}

#[cold]
fn add(wait: Wait) {
    let mut list = LIST.get();
    if let Some(place) = list.waits.iter_mut().find(|w| w.is_none_or(|known| known == wait)) {
        *place = Some(wait);
        LIST.set(list);
    }
}

/// What the poll under way waits for is gathered until this goes; polls may lie within each other.
pub(crate) struct Gathered {
    outer: List,
}

impl Gathered {
    pub(crate) fn begin() -> Self {
        Self { outer: LIST.replace(List { wanted: true, ..NOTHING }) }
    }

    /// As [`begin`](Self::begin), for a poll that nobody collects within one that somebody does: its waits
    /// are nobody's.
    #[inline]
    pub(crate) fn nothing() -> Option<Self> {
        LIST.get().wanted.then(|| Self { outer: LIST.replace(NOTHING) })
    }

    /// What there is so far.
    fn waits(&self) -> impl Iterator<Item = Wait> + use<> {
        LIST.get().waits.into_iter().flatten()
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        LIST.set(self.outer);
    }
}

/// The waits of one task that are not over, each with its resource and its operation.
#[derive(Default)]
pub(crate) struct Open(Vec<(Wait, Held, Held)>);

impl Open {
    /// A poll has ended, pending if it is `pending`, with what it gathered. Within the task's span, which
    /// this collector has. Tells nothing where a subscriber polls the task, while it is told of something.
    pub(crate) fn polled(&mut self, pending: bool, gathered: Gathered, collector: &Dispatch) {
        let waits: Vec<Wait> = if pending { gathered.waits().collect() } else { Vec::new() };
        // What a subscriber waits for is not this task's.
        drop(gathered);
        if !(waits.is_empty() && self.0.is_empty()) {
            telling(|| self.now(&waits, collector));
        }
    }

    fn now(&mut self, waits: &[Wait], collector: &Dispatch) {
        let known = std::mem::take(&mut self.0);
        for (wait, resource, op) in known {
            let goes_on = waits.contains(&wait);
            tell(&resource, &op, !goes_on, collector);
            if goes_on {
                self.0.push((wait, resource, op));
            }
        }
        for wait in waits {
            if self.0.iter().any(|(known, ..)| known == wait) {
                continue;
            }
            let (kind, what) = wait.in_words();
            let resource = site::RESOURCE.span(collector, [&what, &kind, &false]);
            let Some(resource) = resource else { continue };
            let op = {
                let _resource = resource.enter();
                site::OP.span(collector, [&what])
            };
            let Some(op) = op else { continue };
            tell(&resource, &op, false, collector);
            self.0.push((*wait, resource, op));
        }
    }
}

impl Wait {
    fn in_words(self) -> (&'static str, &'static str) {
        match self {
            Self::Op(name) => ("io", name),
            Self::Timer => ("timer", "timer"),
            Self::Task => ("task", "end of a task"),
            Self::Other(what) => ("sync", what),
        }
    }
}

fn tell(resource: &Held, op: &Held, is_ready: bool, collector: &Dispatch) {
    let _resource = resource.enter();
    let _op = op.enter();
    site::POLL.event(collector, None, [&"poll", &is_ready]);
}
