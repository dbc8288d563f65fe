//! A span for each task, for whoever collects them with `tracing` (feature `tracing`).
//!
//! Owns what the span says: target `coreloop::task`, level TRACE, the task's name, where it was spawned, and
//! from its first poll on its id, which `/tasks` shows too. Each poll enters it, and so does the drop of the
//! future. The span that is current at the spawn is its parent. When the future has gone an event within the
//! span, of the same target and level, says how often it was polled and for how long. Where nobody collects
//! the span no clock is read. Without the feature a task is what it was before, and nothing of this is
//! compiled.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::Instrument;
use tracing::instrument::Instrumented;

/// A task's future with its span.
pub(crate) struct Traced<F> {
    // Dropped first: what the end says is said when the future has gone.
    future: Instrumented<F>,
    polls: Polls,
}

/// What its polls came to.
struct Polls {
    span: tracing::Span,
    count: u64,
    busy: Duration,
}

/// Gives a task's future its span.
#[inline]
pub(crate) fn traced<F: Future>(
    future: F,
    name: Option<&str>,
    at: &'static Location<'static>,
) -> Traced<F> {
    let span = tracing::trace_span!(
        target: "coreloop::task",
        "task",
        task.name = name,
        task.id = tracing::field::Empty,
        loc.file = at.file(),
        loc.line = at.line(),
        loc.col = at.column(),
    );
    let polls = Polls { span: span.clone(), count: 0, busy: Duration::ZERO };
    Traced { future: future.instrument(span), polls }
}

impl<F: Future> Future for Traced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is pinned as long as `self` is: it is reached in no other way than below, nothing
        // moves it out, and `Traced` has no `Drop`. `polls` is never pinned.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        if this.polls.span.is_disabled() {
            return future.poll(context);
        }
        if this.polls.count == 0
            && let Some(id) = super::current_id()
        {
            this.polls.span.record("task.id", tracing::field::display(id));
        }
        this.polls.count += 1;
        let _timed = Timed { began: Instant::now(), busy: &mut this.polls.busy };
        future.poll(context)
    }
}

/// A poll, which may end by a panic.
struct Timed<'a> {
    began: Instant,
    busy: &'a mut Duration,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        *self.busy += self.began.elapsed();
    }
}

impl Drop for Polls {
    fn drop(&mut self) {
        let busy_ns = u64::try_from(self.busy.as_nanos()).unwrap_or(u64::MAX);
        // To who has the span: another one that collects by now has none, or a stranger's, of its number.
        self.span.with_subscriber(|(_, collector)| {
            tracing::dispatcher::with_default(collector, || {
                tracing::trace!(
                    target: "coreloop::task", parent: &self.span, polls = self.count, busy_ns, "ended"
                );
            });
        });
    }
}
