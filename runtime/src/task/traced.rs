//! A span for each task, for whoever collects them with `tracing` (feature `tracing`).
//!
//! Owns what the span says: `runtime.spawn` of the target `coreloop::task`, level TRACE, with the task's
//! name, its kind (`local`, as tokio calls those that stay on their thread), its future's size, where it
//! was spawned, and from its first poll on its id, which `/tasks` shows too. Each poll enters it, and so
//! does the drop of the future. The span that is current at the spawn is its parent. When the future has
//! gone an event within the span, of the same target and level, says how often it was polled and for how
//! long. Wakes and waits are told by `spans`; all of it in the words that `console-subscriber` understands.
//! Where nobody collects the span no clock is read. Without the feature a task is what it was before, and
//! nothing of this is compiled.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::instrument::Instrumented;
use tracing::{Instrument, Span};

use super::Tasks;
use super::current;
use crate::spans::{self, Entry, Gathered, Open, Wait};

/// A task's future with what is told of its polls. It is polled and dropped within its span.
pub(crate) struct Traced<F> {
    // Dropped first: what the end says is said when the future has gone.
    future: F,
    polls: Polls,
}

/// What its polls came to.
struct Polls {
    span: Span,
    count: u64,
    busy: Duration,
    waits: Open,
    /// For those who wake it.
    entry: Option<Entry>,
}

/// Gives a task's future its span.
#[inline]
pub(crate) fn traced<F: Future>(
    future: F,
    name: Option<&str>,
    at: &'static Location<'static>,
) -> Instrumented<Traced<F>> {
    let span = tracing::trace_span!(
        target: "coreloop::task",
        "runtime.spawn",
        kind = "local",
        task.name = name,
        task.id = tracing::field::Empty,
        size.bytes = size_of::<F>(),
        loc.file = at.file(),
        loc.line = at.line(),
        loc.col = at.column(),
    );
    if !span.is_disabled() {
        spans::known();
    }
    let polls = Polls {
        span: span.clone(),
        count: 0,
        busy: Duration::ZERO,
        waits: Open::default(),
        entry: None,
    };
    Traced { future, polls }.instrument(span)
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
            let _nobody_s = Gathered::nothing();
            return future.poll(context);
        }
        this.polls.begin();
        let gathered = Gathered::begin();
        let polled = {
            let _timed = Timed { began: Instant::now(), busy: &mut this.polls.busy };
            future.poll(context)
        };
        if polled.is_pending()
            && let Some(note) = current::with_tasks(Tasks::noted).flatten()
        {
            spans::pends(|| Wait::Other(note));
        }
        this.polls.end(polled.is_pending(), gathered);
        polled
    }
}

impl Polls {
    fn begin(&mut self) {
        if self.count == 0
            && let Some(id) = super::current_id()
        {
            self.span.record("task.id", tracing::field::display(id));
            let [core, slot, generation] = id.parts();
            self.entry = Entry::new(core, slot, generation, &self.span);
        }
        self.count += 1;
    }

    fn end(&mut self, pending: bool, gathered: Gathered) {
        let Self { span, waits, .. } = self;
        // To who has the span: another one that collects by now has none, or a stranger's, of its number.
        span.with_subscriber(|(_, collector)| waits.polled(pending, gathered, collector));
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
        drop(self.entry.take());
        self.span.with_subscriber(|(id, collector)| {
            spans::ended(id, collector, self.count, busy_ns);
        });
    }
}
