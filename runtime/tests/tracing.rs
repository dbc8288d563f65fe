//! Spans of tasks, as a subscriber sees them. Needs the feature `tracing`:
//! `cargo test -p coreloop --features tracing --test tracing`.

#![cfg(feature = "tracing")]

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    /// What the runtime told of tasks that ended, with the span that it is told of.
    ends: Vec<(u64, HashMap<String, String>)>,
}

struct Fields(HashMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl Subscriber for Log {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        // Wakes and waits: see `tracing_console.rs`.
        of.target() != "coreloop::wait" && !of.target().starts_with("runtime::")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(HashMap::new());
        span.record(&mut fields);
        fields.0.insert("target".to_owned(), span.metadata().target().to_owned());
        let mut written = self.0.lock().unwrap();
        written.fields.push(fields.0);
        Id::from_u64(written.fields.len() as u64)
    }

    fn record(&self, span: &Id, later: &Record<'_>) {
        let mut fields = Fields(HashMap::new());
        later.record(&mut fields);
        self.0.lock().unwrap().fields[span.into_u64() as usize - 1].extend(fields.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut written = self.0.lock().unwrap();
        if event.metadata().target() == "coreloop::task" {
            let mut fields = Fields(HashMap::new());
            event.record(&mut fields);
            written.ends.push((event.parent().unwrap().into_u64(), fields.0));
            return;
        }
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
    assert_eq!(field(0, "kind"), Some("\"local\""));
    assert!(field(0, "size.bytes").unwrap().parse::<usize>().unwrap() > 0);
    assert!(field(0, "loc.file").unwrap().contains("tracing.rs"));
    assert_eq!(field(0, "loc.line"), Some((line!() - 19).to_string().as_str()));
    // Each task's polls, and the drop of its future.
    let enters = |span: u64| written.enters.iter().filter(|id| **id == span).count();
    assert_eq!((enters(1), enters(2)), (3, 2));
    assert_eq!(written.events, [Some(2), Some(1), None]);
}

#[test]
fn tracing_a_task_s_span_has_its_id_and_its_end_what_its_polls_came_to() {
    let log = Log::default();
    let written = log.0.clone();
    let mut ids = Vec::new();
    tracing::subscriber::with_default(log, || {
        EventLoop::new().unwrap().block_on(async {
            let busy = spawn_named("busy", async {
                std::thread::sleep(Duration::from_millis(5));
                yield_now().await;
                yield_now().await;
            });
            let fails = spawn(async { panic!("on purpose") });
            let cancelled = spawn(std::future::pending::<()>());
            ids.extend([busy.id(), fails.id(), cancelled.id()].map(|id| id.to_string()));
            busy.await.unwrap();
            assert!(fails.await.is_err());
            cancelled.cancel();
            assert!(cancelled.await.is_err());
            // Never polled: it has no id to tell, and ends all the same.
            let unpolled = spawn(async {});
            unpolled.cancel();
            let _ = unpolled.await;
        });
    });
    let written = written.lock().unwrap();
    let told: Vec<_> = written.fields.iter().map(|fields| fields.get("task.id")).collect();
    assert_eq!(told[..3], [Some(&ids[0]), Some(&ids[1]), Some(&ids[2])]);
    let mut ends: Vec<_> = written.ends.iter().collect();
    ends.sort_by_key(|(span, _)| *span);
    assert_eq!(ends.iter().map(|(span, _)| *span).collect::<Vec<_>>(), [1, 2, 3, 4], "each once");
    let field = |at: usize, name: &str| ends[at].1[name].parse::<u64>().unwrap();
    assert_eq!((field(0, "polls"), field(1, "polls"), field(2, "polls")), (3, 1, 1));
    assert!(field(0, "busy_ns") >= 5_000_000, "it slept in a poll: {ends:?}");
}

#[test]
fn tracing_the_end_of_a_task_is_told_to_who_has_its_span() {
    let (first, second) = (Log::default(), Log::default());
    let (has_it, other) = (first.0.clone(), second.0.clone());
    let mut event_loop = EventLoop::new().unwrap();
    tracing::subscriber::with_default(first, || {
        drop(event_loop.spawn(std::future::pending::<()>()));
        event_loop.block_on(yield_now());
    });
    tracing::subscriber::with_default(second, || drop(event_loop));
    let (has_it, other) = (has_it.lock().unwrap(), other.lock().unwrap());
    let ends: Vec<_> = has_it.ends.iter().map(|(span, told)| (*span, &told["polls"][..])).collect();
    assert_eq!(ends, [(1, "1")]);
    assert!(other.ends.is_empty(), "{:?}", other.ends);
}
