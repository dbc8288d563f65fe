//! What is told beside the tasks' own spans, and how: straight to the collector that has the task's span.
//!
//! Owns a [`Site`] for each kind of event and span, and what they are told with. The macros of `tracing` ask
//! for the thread's current collector, which may be another one or none, and making one current from within
//! a collector's callback panics. So nothing here reads or sets it. Invariant: one tell at a time on a
//! thread; what would be told within it is not ([`telling`]), so a subscriber that wakes, or spawns, when it
//! is told something ends.

use std::cell::Cell;

use tracing_core::callsite::DefaultCallsite;
use tracing_core::field::{Field, FieldSet, Value, ValueSet};
use tracing_core::metadata::{Kind, LevelFilter};
use tracing_core::span::{Attributes, Id};
use tracing_core::{Dispatch, Event, Level, Metadata, identify_callsite};

use crate::contain::contained;

/// A place that tells something, with the names of its values; of the level TRACE.
pub(crate) struct Site {
    callsite: DefaultCallsite,
    metadata: Metadata<'static>,
}

pub(super) static WAKE: Site =
    Site::new(Kind::EVENT, "wake", "runtime::waker", &["op", "task.id"], &WAKE);

pub(super) static RESOURCE: Site = Site::new(
    Kind::SPAN,
    "runtime.resource",
    "coreloop::wait",
    &["concrete_type", "kind", "is_internal"],
    &RESOURCE,
);

pub(super) static OP: Site =
    Site::new(Kind::SPAN, "runtime.resource.async_op", "coreloop::wait", &["source"], &OP);

pub(super) static POLL: Site =
    Site::new(Kind::EVENT, "poll", "runtime::resource::poll_op", &["op_name", "is_ready"], &POLL);

pub(super) static ENDED: Site =
    Site::new(Kind::EVENT, "ended", "coreloop::task", &["message", "polls", "busy_ns"], &ENDED);

/// Makes the sites known to whoever collects, as those of macros are when they are first come by. For a
/// thread whose current collector has just made a span: while there is but one, it is told by way of that.
#[inline]
pub(crate) fn known() {
    for site in [&WAKE, &RESOURCE, &OP, &POLL, &ENDED] {
        site.callsite.interest();
    }
}

impl Site {
    const fn new(
        kind: Kind,
        name: &'static str,
        target: &'static str,
        fields: &'static [&'static str],
        this: &'static Self,
    ) -> Self {
        let fields = FieldSet::new(fields, identify_callsite!(&this.callsite));
        let (file, module) = (Some(file!()), Some(module_path!()));
        Self {
            callsite: DefaultCallsite::new(&this.metadata),
            metadata: Metadata::new(name, target, Level::TRACE, file, None, module, fields, kind),
        }
    }

    fn is_wanted(&'static self, collector: &Dispatch) -> bool {
        Level::TRACE <= LevelFilter::current()
            && !self.callsite.interest().is_never()
            && collector.enabled(&self.metadata)
    }

    /// An event within that span, else within the one that the thread is in. Whether it was wanted.
    pub(super) fn event<const N: usize>(
        &'static self,
        collector: &Dispatch,
        within: Option<&Id>,
        values: [&dyn Value; N],
    ) -> bool {
        let is_wanted = self.is_wanted(collector);
        if is_wanted {
            self.with_values(values, |values| {
                collector.event(&match within {
                    Some(span) => Event::new_child_of(span.clone(), &self.metadata, values),
                    None => Event::new(&self.metadata, values),
                });
            });
        }
        is_wanted
    }

    /// A span within the one that the thread is in, where it is wanted.
    pub(super) fn span<const N: usize>(
        &'static self,
        collector: &Dispatch,
        values: [&dyn Value; N],
    ) -> Option<Held> {
        self.is_wanted(collector).then(|| {
            let id = self.with_values(values, |values| {
                collector.new_span(&Attributes::new(&self.metadata, values))
            });
            Held { id, collector: collector.clone() }
        })
    }

    fn with_values<const N: usize, R>(
        &'static self,
        values: [&dyn Value; N],
        f: impl FnOnce(&ValueSet<'_>) -> R,
    ) -> R {
        let fields = self.metadata.fields();
        let mut names = fields.iter();
        let names: [Field; N] = std::array::from_fn(|_| names.next().expect("a name a value"));
        let named: [_; N] = std::array::from_fn(|at| (&names[at], Some(values[at])));
        f(&fields.value_set(&named))
    }
}

/// A span, which is closed when this goes.
pub(super) struct Held {
    id: Id,
    collector: Dispatch,
}

impl Held {
    /// The thread is in the span until the answer goes.
    pub(super) fn enter(&self) -> Within<'_> {
        self.collector.enter(&self.id);
        Within(self)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.collector.try_close(self.id.clone());
    }
}

pub(super) struct Within<'a>(&'a Held);

impl Drop for Within<'_> {
    fn drop(&mut self) {
        self.0.collector.exit(&self.0.id);
    }
}

/// A task has ended, whose span this is.
pub(crate) fn ended(span: &Id, collector: &Dispatch, polls: u64, busy_ns: u64) {
    let values = [&format_args!("ended") as &dyn Value, &polls, &busy_ns];
    contained(|| telling(|| ENDED.event(collector, Some(span), values)));
}

thread_local! {
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `tell`, which runs a subscriber's code; none if that is what calls this.
pub(super) fn telling<R>(tell: impl FnOnce() -> R) -> Option<R> {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            TELLING.set(false);
        }
    }
    if TELLING.replace(true) {
        return None;
    }
    let _over = Over;
    Some(tell())
}
