//! Which span belongs to which task, for whoever wakes it, on any thread.
//!
//! Owns the book: an entry for each task whose span is collected by somebody who wants to hear of wakes too.
//! While there is none a wake costs a load. A wake is an event of the target `runtime::waker` with the fields
//! `op` and `task.id`, the number of the task's span, as `console-subscriber` asks for; it is told to who has
//! that span, on the thread that wakes, before the task is woken. Where a subscriber wakes while it is told
//! something of this kind, that wake is not told. Invariants:
//! - no lock of the book is held while a subscriber runs, not even for a clone of a span;
//! - a panic of a subscriber is contained: the wake takes place.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Span;

use super::site::{self, telling};
use crate::contain::contained;

/// The book is kept in parts, by core.
const PARTS: usize = 64;

static BOOK: [Mutex<Option<Part>>; PARTS] = [const { Mutex::new(None) }; PARTS];

/// Entries there are.
static ENTRIES: AtomicUsize = AtomicUsize::new(0);

/// Generation and span, by core and slot.
type Part = HashMap<(u32, u32), (u32, Arc<Span>)>;

/// A task's place in the book, until this goes.
pub(crate) struct Entry {
    core: u32,
    slot: u32,
    generation: u32,
}

impl Entry {
    /// Enters a task that is polled for the first time; none where its collector does not care for wakes, or
    /// is being told of something else: it polls the task itself, then.
    pub(crate) fn new(core: u32, slot: u32, generation: u32, span: &Span) -> Option<Self> {
        // A task can be woken without a waker that anybody keeps: by its word in another task's header, say.
        // Wakers are not counted, then; but without any the console takes a task for lost.
        if !tell(span, "waker.clone") {
            return None;
        }
        let span = Arc::new(span.clone());
        let old = part(core).get_or_insert_default().insert((core, slot), (generation, span));
        if old.is_none() {
            ENTRIES.fetch_add(1, Ordering::Relaxed);
        }
        // Of a task whose memory was leaked.
        drop(old);
        Some(Self { core, slot, generation })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let place = (self.core, self.slot);
        let gone = {
            let mut part = part(self.core);
            let part = part.get_or_insert_default();
            let is_own = part.get(&place).is_some_and(|(g, _)| *g == self.generation);
            is_own.then(|| part.remove(&place)).flatten()
        };
        if gone.is_some() {
            ENTRIES.fetch_sub(1, Ordering::Relaxed);
        }
        contained(|| drop(gone));
    }
}

/// The task in this slot is about to be woken, whatever its generation if that is not known. Runs a
/// subscriber's code: nothing is borrowed or locked, and nothing half done.
#[inline]
pub(crate) fn woken(core: u32, slot: u32, generation: Option<u32>) {
    if ENTRIES.load(Ordering::Relaxed) != 0 {
        tell_of_wake(core, slot, generation);
    }
}

#[cold]
fn tell_of_wake(core: u32, slot: u32, generation: Option<u32>) {
    let found = part(core).as_ref().and_then(|part| part.get(&(core, slot)).cloned());
    let Some((its, span)) = found else { return };
    if generation.is_none_or(|generation| generation == its) {
        tell(&span, "waker.wake_by_ref");
    }
    // It may be the last one by now.
    contained(|| drop(span));
}

/// Whether this is told, and wanted.
fn tell(span: &Span, op: &'static str) -> bool {
    let told = contained(|| {
        telling(|| {
            span.with_subscriber(|(id, collector)| {
                site::WAKE.event(collector, None, [&op, &id.into_u64()])
            })
        })
    });
    // Who panics cares.
    told.is_none_or(|told| told.flatten() == Some(true))
}

fn part(core: u32) -> MutexGuard<'static, Option<Part>> {
    // Nothing panics while it is held.
    BOOK[core as usize % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
}
