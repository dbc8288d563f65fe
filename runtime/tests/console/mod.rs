//! A subscriber that reads what `console-subscriber` reads of tasks, wakes and waits, in its way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What is kept of each span.
#[derive(Clone, Debug, Default)]
pub struct Span {
    pub what: What,
    pub name: String,
    pub kind: String,
    pub polls: usize,
    pub wakes: usize,
    pub self_wakes: usize,
    pub clones: usize,
    /// Of a wait: the task's name, what was waited for, and whether it is over.
    pub task: String,
    pub ready: Option<bool>,
    pub closed: bool,
    refs: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    #[default]
    Other,
    Task,
    Resource,
    Op,
}

thread_local! {
    static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Default)]
pub struct Console {
    pub spans: Arc<Mutex<Vec<Span>>>,
    /// What a subscriber may do when it is told of a wake.
    pub on_wake: Option<Arc<dyn Fn() + Send + Sync>>,
    pub deaf_to_wakes: bool,
}

#[derive(Default)]
struct Fields {
    words: HashMap<&'static str, String>,
    numbers: HashMap<&'static str, u64>,
    flags: HashMap<&'static str, bool>,
}

impl Visit for Fields {
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        self.words.insert(field.name(), value.to_owned());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.numbers.insert(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.flags.insert(field.name(), value);
    }
}

impl Console {
    pub fn with<R>(&self, f: impl FnOnce(&mut Vec<Span>) -> R) -> R {
        f(&mut self.spans.lock().unwrap())
    }

    /// The innermost span of the calling thread that is one of these.
    fn first(spans: &[Span], what: What) -> Option<usize> {
        let at = |id: &u64| *id as usize - 1;
        STACK.with_borrow(|stack| stack.iter().rev().map(at).find(|at| spans[*at].what == what))
    }

    pub fn task(&self, name: &str) -> Span {
        let of_it = |span: &&Span| span.what == What::Task && span.name == name;
        self.with(|spans| spans.iter().find(of_it).cloned()).unwrap_or_else(|| panic!("{name}"))
    }

    /// What the task of this name waited for, by kind and name, and whether it came; in order.
    pub fn waits(&self, task: &str) -> Vec<(String, Option<bool>, bool)> {
        let of_it = |span: &&Span| span.what == What::Op && span.task == task;
        self.with(|spans| {
            let ops = spans.iter().filter(of_it);
            ops.map(|op| (format!("{} {}", op.kind, op.name), op.ready, op.closed)).collect()
        })
    }
}

impl Subscriber for Console {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        match of.is_event() {
            true if of.target().starts_with("runtime::waker") => !self.deaf_to_wakes,
            true => of.target().starts_with("runtime"),
            false => of.name().starts_with("runtime."),
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        let mut word = |name| fields.words.remove(name).unwrap_or_default();
        let mut new = Span { refs: 1, ..Span::default() };
        self.with(|spans| {
            match span.metadata().name() {
                "runtime.spawn" => {
                    (new.what, new.name, new.kind) = (What::Task, word("task.name"), word("kind"));
                    assert!(word("loc.file").contains("tracing_console.rs"));
                    assert!(fields.numbers["loc.line"] > 0 && fields.numbers["loc.col"] > 0);
                }
                "runtime.resource" => {
                    new.what = What::Resource;
                    (new.name, new.kind) = (word("concrete_type"), word("kind"));
                }
                "runtime.resource.async_op" => {
                    // The resource and the task that it is of are those it is made within.
                    let resource = &spans[Self::first(spans, What::Resource).unwrap()];
                    let task = &spans[Self::first(spans, What::Task).unwrap()];
                    new.what = What::Op;
                    (new.name, new.kind) = (word("source"), resource.kind.clone());
                    assert_eq!(new.name, resource.name);
                    new.task = task.name.clone();
                }
                other => panic!("a span of an unknown name: {other}"),
            }
            spans.push(new);
            Id::from_u64(spans.len() as u64)
        })
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        match event.metadata().target() {
            "runtime::waker" => {
                let id = fields.numbers["task.id"];
                let within = STACK.with_borrow(|stack| stack.contains(&id));
                self.with(|spans| {
                    let task = &mut spans[id as usize - 1];
                    assert!(task.what == What::Task && !task.closed, "{task:?}");
                    match &fields.words["op"][..] {
                        "waker.wake" | "waker.wake_by_ref" => {
                            task.wakes += 1;
                            task.self_wakes += usize::from(within);
                        }
                        "waker.clone" => task.clones += 1,
                        other => panic!("{other}"),
                    }
                });
                if let Some(on_wake) = self.on_wake.clone()
                    && fields.words["op"] != "waker.clone"
                {
                    on_wake();
                }
            }
            "runtime::resource::poll_op" => self.with(|spans| {
                assert!(Self::first(spans, What::Resource).is_some());
                let op = Self::first(spans, What::Op).unwrap();
                assert_eq!(fields.words["op_name"], "poll");
                spans[op].ready = Some(fields.flags["is_ready"]);
            }),
            other => panic!("an event of an unknown target: {other}"),
        }
    }

    fn enter(&self, span: &Id) {
        STACK.with_borrow_mut(|stack| stack.push(span.into_u64()));
        self.with(|spans| spans[span.into_u64() as usize - 1].polls += 1);
    }

    fn exit(&self, span: &Id) {
        let left = STACK.with_borrow_mut(Vec::pop);
        assert_eq!(left, Some(span.into_u64()), "what was entered last is left first");
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.with(|spans| spans[id.into_u64() as usize - 1].refs += 1);
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        self.with(|spans| {
            let span = &mut spans[id.into_u64() as usize - 1];
            span.refs -= 1;
            span.closed = span.refs == 0;
            span.closed
        })
    }
}
