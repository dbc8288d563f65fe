//! coreloop's tasks through the real `console-subscriber`, as `tokio-console` is told of them: over its socket,
//! with the layer and the filter that a user gets.
//!
//!     cd tests/console && cargo test

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use console_api::instrument::instrument_client::InstrumentClient;
use console_api::instrument::{InstrumentRequest, Update};
use console_api::{async_ops, field, tasks};
use console_subscriber::ConsoleLayer;
use coreloop::time::sleep;
use coreloop::{spawn_named, sync, yield_now};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the console knows so far.
#[derive(Debug, Default)]
struct Known {
    tasks: HashMap<u64, tasks::Task>,
    stats: HashMap<u64, tasks::Stats>,
    /// Type and kind of each resource.
    resources: HashMap<u64, (String, String)>,
    ops: HashMap<u64, async_ops::AsyncOp>,
    op_stats: HashMap<u64, async_ops::Stats>,
}

impl Known {
    fn add(&mut self, update: Update) {
        if let Some(update) = update.task_update {
            self.tasks.extend(update.new_tasks.into_iter().map(|t| (t.id.unwrap().id, t)));
            self.stats.extend(update.stats_update);
        }
        if let Some(update) = update.resource_update {
            self.resources.extend(update.new_resources.into_iter().map(|r| {
                let kind = format!("{:?}", r.kind.unwrap().kind.unwrap());
                (r.id.unwrap().id, (r.concrete_type, kind))
            }));
        }
        if let Some(update) = update.async_op_update {
            self.ops.extend(update.new_async_ops.into_iter().map(|op| (op.id.unwrap().id, op)));
            self.op_stats.extend(update.stats_update);
        }
    }

    fn field<'a>(task: &'a tasks::Task, name: &str) -> Option<&'a field::Value> {
        let is_it = |field: &&console_api::Field| match &field.name {
            Some(field::Name::StrName(known)) => known == name,
            _ => false,
        };
        task.fields.iter().find(is_it).and_then(|field| field.value.as_ref())
    }

    /// The number and the numbers of the task of this name.
    fn task(&self, name: &str) -> Option<(u64, &tasks::Task, &tasks::Stats)> {
        let text = field::Value::StrVal(name.to_owned());
        let (id, task) =
            self.tasks.iter().find(|(_, task)| Self::field(task, "task.name") == Some(&text))?;
        Some((*id, task, self.stats.get(id)?))
    }

    /// What this task has waited for: type and kind, and whether it is over.
    fn waits(&self, task: u64) -> Vec<(String, String, bool)> {
        let of_it = self.op_stats.iter().filter(|(_, s)| s.task_id.is_some_and(|id| id.id == task));
        let mut waits: Vec<_> = of_it
            .filter_map(|(id, stats)| {
                let resource = self.ops.get(id)?.resource_id?.id;
                let (what, kind) = self.resources.get(&resource)?.clone();
                Some((what, kind, stats.dropped_at.is_some()))
            })
            .collect();
        waits.sort();
        waits
    }

    /// Whether all has come that the test is about to look at.
    fn is_complete(&self) -> bool {
        let yields = self.task("yields").is_some_and(|(.., stats)| stats.dropped_at.is_some());
        // The wait and its wake may come in different updates.
        let naps = self.task("naps").is_some_and(|(id, _, stats)| {
            stats.wakes > 0
                && stats.poll_stats.as_ref().is_some_and(|s| s.polls > 1)
                && !self.waits(id).is_empty()
        });
        let woken = self.task("woken").is_some_and(|(.., stats)| stats.dropped_at.is_some());
        let locks = self.task("locks").is_some_and(|(id, ..)| !self.waits(id).is_empty());
        yields && naps && woken && locks
    }
}

#[test]
fn console_subscriber_sees_tasks_polls_wakes_and_waits() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let console = ConsoleLayer::builder()
        .server_addr(addr)
        .publish_interval(Duration::from_millis(50))
        .spawn();
    tracing_subscriber::registry().with(console).init();

    let over = Arc::new(AtomicBool::new(false));
    let until = over.clone();
    let tasks = std::thread::spawn(move || coreloop::run(run_tasks(until)).unwrap());
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let known = client.block_on(watch(&format!("http://{addr}")));
    over.store(true, Ordering::Relaxed);
    tasks.join().unwrap();

    let (_, task, stats) = known.task("yields").unwrap();
    let polls = stats.poll_stats.as_ref().unwrap();
    assert_eq!((stats.wakes, stats.self_wakes), (5, 5), "{stats:?}");
    // And the drop of its future, which a span is entered for too.
    assert_eq!(polls.polls, 7, "{stats:?}");
    assert!(
        polls.busy_time.is_some() && stats.scheduled_time.is_some() && stats.last_wake.is_some()
    );
    assert_eq!(Known::field(task, "kind"), Some(&field::Value::StrVal("local".into())));
    assert!(matches!(Known::field(task, "size.bytes"), Some(field::Value::U64Val(1..))));
    let at = task.location.as_ref().unwrap();
    assert!(at.file.as_ref().unwrap().ends_with("console.rs") && at.line > Some(0), "{at:?}");

    let (id, _, stats) = known.task("naps").unwrap();
    assert_eq!((stats.wakes, stats.self_wakes), (1, 0), "{stats:?}");
    // Else it would be reported as a task that has lost its waker.
    assert!(stats.waker_clones > stats.waker_drops, "{stats:?}");
    let timer = ("timer".to_owned(), "Known(Timer)".to_owned(), false);
    assert_eq!(known.waits(id), [timer], "one after the other");
    let (_, _, stats) = known.task("woken").unwrap();
    assert_eq!((stats.wakes, stats.self_wakes), (1, 0), "by another thread: {stats:?}");
    let (id, ..) = known.task("locks").unwrap();
    let waits = known.waits(id);
    let lock = ("a mutex".to_owned(), "Other(\"sync\")".to_owned(), false);
    assert_eq!(waits, [lock]);
}

/// Tasks of each kind, until it is over.
async fn run_tasks(over: Arc<AtomicBool>) {
    let lock = std::rc::Rc::new(sync::Mutex::new(()));
    let _guard = lock.lock().await;
    let theirs = lock.clone();
    let _locks = spawn_named("locks", async move { drop(theirs.lock().await) });
    let _naps = spawn_named("naps", async {
        sleep(Duration::from_millis(5)).await;
        sleep(Duration::from_secs(3600)).await;
    });
    drop(spawn_named("yields", async {
        for _ in 0..5 {
            yield_now().await;
        }
    }));
    let (tell, told) = std::sync::mpsc::channel::<std::task::Waker>();
    let woken = Arc::new(AtomicBool::new(false));
    let is_woken = woken.clone();
    drop(spawn_named(
        "woken",
        std::future::poll_fn(move |cx| {
            if is_woken.load(Ordering::Relaxed) {
                return std::task::Poll::Ready(());
            }
            tell.send(cx.waker().clone()).unwrap();
            std::task::Poll::Pending
        }),
    ));
    std::thread::spawn(move || {
        let waker = told.recv().unwrap();
        woken.store(true, Ordering::Relaxed);
        waker.wake();
    });
    while !over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(10)).await;
    }
}

async fn watch(addr: &str) -> Known {
    let began = Instant::now();
    // The console's server begins to listen on a thread of its own.
    let mut client = loop {
        match InstrumentClient::connect(addr.to_owned()).await {
            Ok(client) => break client,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut updates = client.watch_updates(InstrumentRequest {}).await.unwrap().into_inner();
    let mut known = Known::default();
    while !known.is_complete() {
        let left = PATIENCE.saturating_sub(began.elapsed());
        let update = tokio::time::timeout(left, updates.message()).await;
        let update = update.unwrap_or_else(|_| panic!("{known:#?}"));
        known.add(update.unwrap().expect("the console goes on"));
    }
    known
}
