//! A span for each task, for whoever collects them with `tracing` (feature `tracing`).
//!
//! Owns what the span says: target `coreloop::task`, level TRACE, the task's name and where it was spawned.
//! Each poll enters it, and so does the drop of the future. The span that is current at the spawn is its
//! parent. Without the feature a task is what it was before, and nothing of this is compiled.

use std::panic::Location;

use tracing::Instrument;
use tracing::instrument::Instrumented;

/// Gives a task's future its span.
#[inline]
pub(crate) fn traced<F: Future>(
    future: F,
    name: Option<&str>,
    at: &'static Location<'static>,
) -> Instrumented<F> {
    future.instrument(tracing::trace_span!(
        target: "coreloop::task",
        "task",
        task.name = name,
        loc.file = at.file(),
        loc.line = at.line(),
        loc.col = at.column(),
    ))
}
