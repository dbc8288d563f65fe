//! Spans of tasks, as a subscriber sees them. Needs the feature `tracing`:
//! `cargo test -p coreloop --features tracing --test tracing`.

#![cfg(feature = "tracing")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use coreloop::{EventLoop, spawn, spawn_named, yield_now};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down what happens to spans.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    fields: Vec<HashMap<String, String>>,
    enters: Vec<u64>,
    /// The spans that are entered now, and what was told within which.
    inside: Vec<u64>,
    events: Vec<Option<u64>>,
}

struct Fields(HashMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(HashMap::new());
        span.record(&mut fields);
        fields.0.insert("target".to_owned(), span.metadata().target().to_owned());
        let mut written = self.0.lock().unwrap();
        written.fields.push(fields.0);
        Id::from_u64(written.fields.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        let mut written = self.0.lock().unwrap();
        let inside = written.inside.last().copied();
        written.events.push(inside);
    }

    fn enter(&self, span: &Id) {
        let mut written = self.0.lock().unwrap();
        written.enters.push(span.into_u64());
        written.inside.push(span.into_u64());
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().inside.pop();
    }
}

#[test]
fn tracing_a_task_has_a_span_that_its_polls_enter() {
    let log = Log::default();
    let written = log.0.clone();
    tracing::subscriber::with_default(log, || {
        EventLoop::new().unwrap().block_on(async {
            let named = spawn_named("with a name", async {
                yield_now().await;
                tracing::info!("told");
            });
            let plain = spawn(async { tracing::info!("told") });
            named.await.unwrap();
            plain.await.unwrap();
            tracing::info!("outside");
        });
    });
    let written = written.lock().unwrap();
    assert_eq!(written.fields.len(), 2);
    let field = |span: usize, name: &str| written.fields[span].get(name).map(String::as_str);
    assert_eq!(field(0, "task.name"), Some("\"with a name\""));
    assert_eq!(field(1, "task.name"), None);
    assert_eq!(field(0, "target"), Some("coreloop::task"));
    assert!(field(0, "loc.file").unwrap().contains("tracing.rs"));
    assert_eq!(field(0, "loc.line"), Some((line!() - 17).to_string().as_str()));
    // Each task's polls, and the drop of its future.
    let enters = |span: u64| written.enters.iter().filter(|id| **id == span).count();
    assert_eq!((enters(1), enters(2)), (3, 2));
    assert_eq!(written.events, [Some(2), Some(1), None]);
}
