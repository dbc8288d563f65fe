//! What no awaiter hears of is reported: panics and errors that nobody took, slow polls, tasks that never
//! finished (L7, L8).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use coreloop::task::{Report, TaskState, WaitsFor};
use coreloop::time::sleep;
use coreloop::{EventLoop, Settings, spawn, spawn_fallible, spawn_named, yield_now};
use coreloop_tests::{Child, turns};

/// The texts of the reports so far.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn settings(&self) -> Settings {
        let heard = self.clone();
        Settings::default().on_report(move |r| heard.0.lock().unwrap().push(r.to_string()))
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// An error whose text is that of a number.
fn bad() -> Result<(), std::num::ParseIntError> {
    "x".parse::<u8>().map(drop)
}

#[test]
fn l7_a_panic_that_nobody_took_is_reported_when_the_handle_is_gone() {
    let heard = Heard::default();
    let mut event_loop = EventLoop::with(heard.settings()).unwrap();
    event_loop.block_on(async {
        // The handle goes first.
        drop(spawn_named("early", async { panic!("one") }));
        turns(2).await;
        let line = heard.take();
        assert_eq!(line.len(), 1);
        assert!(line[0].starts_with("task \"early\" ("), "{line:?}");
        assert!(
            line[0].contains("spawned at ") && line[0].contains("task_reports.rs:"),
            "{line:?}"
        );
        assert!(line[0].ends_with("panicked, and nobody took its result: one"), "{line:?}");
        // The task goes first.
        let late = spawn(async { std::panic::panic_any(7_u8) });
        turns(2).await;
        assert_eq!(heard.take(), [""; 0], "somebody may still take it");
        drop(late);
        assert!(heard.take()[0].ends_with("with something else than text"));
    });
}

#[test]
fn l7_what_somebody_took_or_saw_is_not_reported() {
    let heard = Heard::default();
    let mut event_loop = EventLoop::with(heard.settings()).unwrap();
    event_loop.block_on(async {
        assert!(spawn(async { panic!("awaited") }).await.is_err());
        let mut taken = spawn(async { panic!("taken") });
        let seen = spawn(async { panic!("seen") });
        let cancelled = spawn(std::future::pending::<()>());
        let fine = spawn_fallible(async { bad().or(Ok::<_, String>(())) });
        cancelled.cancel();
        turns(2).await;
        assert!(taken.try_take().unwrap().is_err());
        assert!(seen.try_result().unwrap().is_err());
        drop((taken, seen, cancelled, fine));
        // An `Err` that the type does not call a failure.
        drop(spawn(async { bad() }));
        turns(2).await;
    });
    drop(event_loop);
    assert_eq!(heard.take(), [""; 0]);
}

#[test]
fn l7_an_error_of_a_fallible_task_is_reported_like_a_panic() {
    let heard = Heard::default();
    let mut event_loop = EventLoop::with(heard.settings()).unwrap();
    let mut kept = None;
    event_loop.block_on(async {
        drop(spawn_fallible(async { bad() }));
        assert!(spawn_fallible(async { bad() }).await.unwrap().is_err());
        kept = Some(spawn_fallible(async {
            yield_now().await;
            bad()
        }));
        turns(3).await;
    });
    assert_eq!(heard.take().len(), 1);
    drop(event_loop);
    assert_eq!(heard.take().len(), 0, "its handle is still there");
    drop(kept);
    let line = heard.take();
    assert!(line[0].contains("failed, and nobody took its result: invalid digit"), "{line:?}");
}

#[test]
fn l7_a_panic_of_a_remote_task_that_nobody_took_is_reported_too() {
    let heard = Heard::default();
    let mut event_loop = EventLoop::with(heard.settings()).unwrap();
    let handle = event_loop.handle();
    let panics = || handle.spawn_on(0, || async { panic!("far away") }).unwrap();
    let (let_go, taken, kept) = (panics(), panics(), panics());
    drop(let_go);
    event_loop.block_on(turns(5));
    let line = heard.take();
    assert_eq!(line.len(), 1, "{line:?}");
    assert!(line[0].contains("task_reports.rs:") && line[0].ends_with("far away"), "{line:?}");
    assert!(taken.join().is_err());
    drop(event_loop);
    assert_eq!(heard.take(), [""; 0]);
    // Also by another thread, after the end of the loop.
    std::thread::spawn(move || drop(kept)).join().unwrap();
    assert_eq!(heard.take().len(), 1);
}

#[test]
fn l7_an_error_that_cannot_be_told_is_reported_all_the_same() {
    struct Unspeakable;
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no words")
        }
    }
    let heard = Heard::default();
    EventLoop::with(heard.settings()).unwrap().block_on(async {
        drop(spawn_fallible(async { Err::<(), _>(Unspeakable) }));
        turns(1).await;
    });
    let line = heard.take();
    assert!(line.len() == 1 && line[0].contains("failed, and nobody took its result"), "{line:?}");
}

#[test]
fn l7_a_report_that_panics_or_spawns_does_no_harm() {
    let settings = Settings::default().on_report(|report| {
        if coreloop::task::current_id().is_some() {
            drop(spawn(async {}));
        }
        panic!("{report}");
    });
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async {
        for _ in 0..100 {
            drop(spawn(async { panic!("nobody") }));
        }
        turns(3).await;
        assert_eq!(spawn(async { 7 }).await.unwrap(), 7);
    });
    assert_eq!(event_loop.stats().counters.task_panics, 100);
}

#[test]
fn l7_by_default_a_report_is_a_line_on_standard_error() {
    let child = Child::new("l7_by_default_a_report_is_a_line_on_standard_error");
    child.says("panicked, and nobody took its result: alone\n").run(|| {
        coreloop::run(async {
            drop(spawn_named("worker", async { panic!("alone") }));
            turns(2).await;
        })
        .unwrap();
    });
}

#[test]
fn l8_debug_mode_reports_a_poll_that_keeps_its_core() {
    let heard = Heard::default();
    let settings = heard.settings().debug(true).slow_poll(Duration::from_millis(60));
    let mut event_loop = EventLoop::with(settings).unwrap();
    let handle = event_loop.handle();
    event_loop.block_on(async {
        let busy = spawn_named("busy", async { std::thread::sleep(Duration::from_millis(100)) });
        busy.await.unwrap();
        turns(1).await;
        let lines = heard.take();
        let busy: Vec<_> = lines.iter().filter(|l| l.contains("\"busy\"")).collect();
        assert_eq!(busy.len(), 1, "{lines:?}");
        assert!(busy[0].contains("task_reports.rs:") && busy[0].contains("kept its core for"));
        // A panicking poll, the main future and closures of other threads are watched too.
        let loud = spawn_named("loud", async {
            std::thread::sleep(Duration::from_millis(100));
            panic!("at last");
        });
        assert!(loud.await.is_err());
        std::thread::sleep(Duration::from_millis(100));
        turns(2).await;
        let lines = heard.take();
        assert!(lines.iter().any(|l| l.contains("\"loud\" (")), "{lines:?}");
        assert!(lines.iter().any(|l| l.starts_with("main future")), "{lines:?}");
        handle.call_soon_threadsafe(0, || std::thread::sleep(Duration::from_millis(100))).unwrap();
        turns(2).await;
        let lines = heard.take();
        assert!(
            lines.iter().any(|l| l.starts_with("a closure from another thread kept")),
            "{lines:?}"
        );
    });
}

#[test]
fn l8_debug_mode_names_the_tasks_that_never_finished() {
    let (heard, tasks) = (Heard::default(), Arc::new(Mutex::new(Vec::new())));
    let seen = tasks.clone();
    let settings = heard.settings().debug(true).slow_poll(Duration::MAX).on_report(move |report| {
        if let Report::Unfinished { task } = report {
            let waits: Vec<_> = task.waits_for.iter().map(WaitsFor::to_string).collect();
            seen.lock().unwrap().push((report.to_string(), task.state, waits));
        }
    });
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async {
        drop(spawn_named("sleeper", sleep(Duration::from_secs(3600))));
        drop(spawn(async {}));
        turns(2).await;
        drop(spawn_named("never begun", async {}));
    });
    drop(event_loop);
    let tasks = std::mem::take(&mut *tasks.lock().unwrap());
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    assert!(tasks.iter().all(|(text, ..)| text.contains("had not ended when its loop did")));
    let sleeper = tasks.iter().find(|(text, ..)| text.contains("sleeper")).unwrap();
    assert_eq!(sleeper.1, TaskState::Waiting);
    assert!(sleeper.2[0].starts_with("a timer in "), "{sleeper:?}");
    assert_eq!(tasks.iter().find(|(t, ..)| t.contains("begun")).unwrap().1, TaskState::Ready);
}

#[test]
fn l8_without_debug_mode_only_what_nobody_took_is_reported() {
    let heard = Heard::default();
    let settings = heard.settings().slow_poll(Duration::from_micros(1));
    EventLoop::with(settings).unwrap().block_on(async {
        drop(spawn(std::future::pending::<()>()));
        spawn(async { std::thread::sleep(Duration::from_millis(2)) }).await.unwrap();
    });
    assert_eq!(heard.take(), [""; 0]);
}

#[test]
fn l8_the_environment_turns_debug_mode_on_and_off() {
    for value in ["1", "0", "", "yes"] {
        let child = Child::new("l8_the_environment_turns_debug_mode_on_and_off");
        child.env("CORELOOP_DEBUG", value).run(|| {
            let (on, off) = (Heard::default(), Heard::default());
            let started = EventLoop::with(on.settings().debug(true));
            let value = std::env::var("CORELOOP_DEBUG").unwrap();
            if value == "yes" {
                let e = started.expect_err("it is neither 0 nor 1").to_string();
                assert!(
                    e.contains("CORELOOP_DEBUG") && e.contains("1 for on and 0 for off"),
                    "{e}"
                );
                return;
            }
            let unfinished = async { drop(spawn(std::future::pending::<()>())) };
            started.unwrap().block_on(unfinished);
            assert_eq!(on.take().len(), usize::from(value != "0"), "asked for, {value:?}");
            let unfinished = async { drop(spawn(std::future::pending::<()>())) };
            EventLoop::with(off.settings()).unwrap().block_on(unfinished);
            assert_eq!(off.take().len(), usize::from(value == "1"), "not asked for, {value:?}");
        });
    }
}

#[test]
fn l8_settings_out_of_range_are_refused() {
    let e = EventLoop::with(Settings::default().slow_poll(Duration::ZERO)).unwrap_err().to_string();
    assert!(e.contains("slow_poll") && e.contains("1us"), "{e}");
}
