//! A subscriber that wakes and spawns tasks from within what it is told, as one does that ships log lines: it
//! breaks nothing, and is told of each such wake unless it is being told of one already. The process's
//! subscriber first, then one of the thread: one test, since both are the process's. Needs the feature
//! `tracing`: `cargo test -p coreloop --features tracing --test tracing_nested`.

#![cfg(feature = "tracing")]

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use coreloop::time::sleep;
use coreloop::{EventLoop, spawn_eager, spawn_named, yield_now};
use tracing::dispatcher::get_default;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

static PANICS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// How many of its callbacks the thread is in that coreloop calls when it tells a wake, a wait or an end.
    static TOLD: Cell<usize> = const { Cell::new(0) };
    static SPAWNS: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    NewSpan,
    Record,
    Event,
    Enter,
    Exit,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Wakes,
    SpawnsEager,
}

#[derive(Clone, Default)]
struct Restless(Arc<State>);

#[derive(Default)]
struct State {
    does: Mutex<Option<(Where, What)>>,
    /// Set while the loop runs whose tasks those are.
    lives: AtomicBool,
    /// Whether it is the process's subscriber.
    is_global: AtomicBool,
    waker: Mutex<Option<Waker>>,
    targets: Mutex<HashMap<u64, &'static str>>,
    wakes: AtomicUsize,
    /// Wakes of its own that were told, and those that were not as it was being told of something.
    told: AtomicUsize,
    untold: AtomicUsize,
    spawned: AtomicUsize,
    ran: AtomicUsize,
    /// Lines of the log that came while it was told of something.
    nested_lines: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

fn add(to: &AtomicUsize) {
    to.fetch_add(1, Ordering::Relaxed);
}

fn get(from: &AtomicUsize) -> usize {
    from.load(Ordering::Relaxed)
}

impl Restless {
    /// Something of this target calls it here.
    fn called(&self, at: Where, target: &str) {
        let is_told = target == "runtime::waker"
            || target == "runtime::resource::poll_op"
            || target == "coreloop::wait"
            || (target == "coreloop::task" && at == Where::Event);
        TOLD.set(TOLD.get() + usize::from(is_told));
        self.act(at);
        TOLD.set(TOLD.get() - usize::from(is_told));
    }

    fn act(&self, at: Where) {
        let state = &*self.0;
        let does = *state.does.lock().unwrap();
        let Some((_, what)) = does.filter(|does| does.0 == at) else { return };
        if !state.lives.load(Ordering::Relaxed) {
            return;
        }
        match what {
            What::Wakes => self.wake(at),
            // Each of those has spans too, in which as many are spawned.
            What::SpawnsEager if get(&state.spawned) < 20 && !SPAWNS.replace(true) => {
                add(&state.spawned);
                let counts = self.clone();
                drop(spawn_eager(async move {
                    sleep(Duration::from_micros(1)).await;
                    add(&counts.0.ran);
                }));
                SPAWNS.set(false);
            }
            What::SpawnsEager => {}
        }
        // To `tracing` all is as if the runtime had told nothing.
        let is_known = get_default(|current| current.is::<Self>());
        if state.is_global.load(Ordering::Relaxed) && !is_known {
            state.wrong.lock().unwrap().push(format!("{at:?}: no current collector"));
        }
        if at == Where::Event && TOLD.get() == 0 {
            tracing::info!(target: "nested", "a line");
        }
    }

    fn wake(&self, at: Where) {
        let state = &*self.0;
        let Some(waker) = state.waker.lock().unwrap().clone() else { return };
        let is_outermost = TOLD.get() == 0;
        let before = get(&state.wakes);
        waker.wake_by_ref();
        let told = get(&state.wakes) - before;
        add(if is_outermost { &state.told } else { &state.untold });
        if told != usize::from(is_outermost) {
            let text = format!("{at:?}: told {told} times, outermost: {is_outermost}");
            state.wrong.lock().unwrap().push(text);
        }
    }

    fn target(&self, span: &Id) -> &'static str {
        self.0.targets.lock().unwrap()[&span.into_u64()]
    }

    /// Lets it do this while a loop runs tasks that wait and are woken, and looks at what came of it.
    fn tries(&self, does: (Where, What)) {
        let state = &*self.0;
        *state.does.lock().unwrap() = Some(does);
        for count in [&state.told, &state.untold, &state.spawned, &state.ran, &state.nested_lines] {
            count.store(0, Ordering::Relaxed);
        }
        EventLoop::new().unwrap().block_on(async {
            state.lives.store(true, Ordering::Relaxed);
            let mut polls = 0;
            let kept = self.0.clone();
            let woken = spawn_named(
                "woken by the subscriber",
                std::future::poll_fn(move |cx| {
                    polls += 1;
                    let is_over = polls > 20;
                    let waker = (!is_over).then(|| cx.waker().clone());
                    *kept.waker.lock().unwrap() = waker;
                    if is_over { Poll::Ready(()) } else { Poll::Pending }
                }),
            );
            for _ in 0..4 {
                let naps = spawn_named("naps", sleep(Duration::from_millis(1)));
                spawn_named("joins", naps).await.unwrap().unwrap();
                tracing::info!(target: "app", "a line of a log");
                yield_now().await;
            }
            sleep(Duration::from_millis(2)).await;
            state.lives.store(false, Ordering::Relaxed);
            woken.cancel();
            _ = woken.await;
        });
        *state.waker.lock().unwrap() = None;
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "{does:?}");
        let wrong = std::mem::take(&mut *state.wrong.lock().unwrap());
        assert!(wrong.is_empty(), "{does:?}: {wrong:#?}");
        let is_told = match does.1 {
            What::Wakes => get(&state.told) > 0,
            What::SpawnsEager => get(&state.ran) > 0,
        };
        assert!(is_told, "{does:?}: it did something");
        if does == (Where::Event, What::Wakes) {
            assert!(get(&state.untold) > 0);
            // `tracing` keeps a thread's subscriber from hearing of its own lines; the process's hears them.
            let is_global = state.is_global.load(Ordering::Relaxed);
            assert_eq!(get(&state.nested_lines) > 0, is_global);
        }
    }

    fn tries_all(&self) {
        for at in [Where::NewSpan, Where::Record, Where::Event, Where::Enter, Where::Exit] {
            self.tries((at, What::Wakes));
            self.tries((at, What::SpawnsEager));
        }
    }
}

impl Subscriber for Restless {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = {
            let mut targets = self.0.targets.lock().unwrap();
            let id = targets.len() as u64 + 1;
            targets.insert(id, span.metadata().target());
            id
        };
        self.called(Where::NewSpan, span.metadata().target());
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, _: &Record<'_>) {
        self.called(Where::Record, self.target(span));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        match event.metadata().target() {
            "runtime::waker" => add(&self.0.wakes),
            "nested" => return add(&self.0.nested_lines),
            _ => {}
        }
        self.called(Where::Event, event.metadata().target());
    }

    fn enter(&self, span: &Id) {
        self.called(Where::Enter, self.target(span));
    }

    fn exit(&self, span: &Id) {
        self.called(Where::Exit, self.target(span));
    }
}

#[test]
fn nested_wakes_and_spawns_by_a_subscriber_panic_nowhere_and_leave_the_thread_s_collector_alone() {
    // One that logs is told of its own panics.
    std::panic::set_hook(Box::new(|info| {
        add(&PANICS);
        eprintln!("{info}");
        tracing::error!("{info}");
    }));
    let global = Restless::default();
    global.0.is_global.store(true, Ordering::Relaxed);
    tracing::subscriber::set_global_default(global.clone()).unwrap();
    global.tries_all();
    let scoped = Restless::default();
    tracing::subscriber::with_default(scoped.clone(), || scoped.tries_all());
    drop(std::panic::take_hook());
}
