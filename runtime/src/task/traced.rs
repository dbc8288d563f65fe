//! A span for each task, for whoever collects them with `tracing` (feature `tracing`).
//!
//! Owns what the span says: target `coreloop::task`, level TRACE, the task's name and where it was spawned.
//! Each poll enters it, and so does the drop of the future. The span that is current at the spawn is its
//! parent. Without the feature a task is what it was before, and nothing of this is compiled.

use std::panic::Location;

/// A future with its span.
#[cfg(feature = "tracing")]
pub(crate) type Traced<F> = tracing::instrument::Instrumented<F>;

/// A future as it is.
#[cfg(not(feature = "tracing"))]
pub(crate) type Traced<F> = F;

/// Gives a task's future its span.
#[cfg(feature = "tracing")]
#[inline]
pub(crate) fn traced<F: Future>(
    future: F,
    name: Option<&str>,
    at: &'static Location<'static>,
) -> Traced<F> {
    use tracing::Instrument;
    future.instrument(tracing::trace_span!(
        target: "coreloop::task",
        "task",
        task.name = name,
        loc.file = at.file(),
        loc.line = at.line(),
        loc.col = at.column(),
    ))
}

/// Does nothing: the feature `tracing` is off.
#[cfg(not(feature = "tracing"))]
#[inline]
pub(crate) fn traced<F: Future>(
    future: F,
    _: Option<&str>,
    _: &'static Location<'static>,
) -> Traced<F> {
    future
}
