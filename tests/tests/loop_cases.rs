//! Corner cases of loops (L1, L3, L9) that CPython's tests know: settings, the current loop, interrupts.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::future;
use coreloop::signal::until_terminate;
use coreloop::time::sleep;
use coreloop::{EventLoop, Settings, spawn, try_spawn, yield_now};
use coreloop_tests::drive::Drops;
use coreloop_tests::{in_child, turns};

#[test]
fn l3_a_loop_made_with_settings_is_the_one_that_runs() {
    let mut event_loop = EventLoop::with(Settings::default().ring_entries(16)).unwrap();
    assert_eq!(event_loop.ring_report().sq_entries_asked, 16);
    let before = event_loop.stats().counters.spawns;
    event_loop.block_on(async {
        for _ in 0..3 {
            spawn(yield_now()).await.unwrap();
        }
    });
    assert_eq!(event_loop.stats().counters.spawns - before, 3);
}

#[test]
fn l9_a_loop_is_the_current_one_while_it_is_driven() {
    let mut event_loop = EventLoop::new().unwrap();
    for _ in 0..2 {
        assert!(try_spawn(async {}).is_err(), "not yet, or not any more");
        let value = event_loop.block_on(async {
            yield_now().await;
            try_spawn(async { 42 }).map_err(drop).unwrap().await.unwrap()
        });
        assert_eq!(value, 42);
    }
    assert!(try_spawn(async {}).is_err());
}

#[test]
fn l1_run_gives_the_value_or_the_error_or_the_panic() {
    let value = coreloop::run(async {
        yield_now().await;
        42
    });
    assert_eq!(value.unwrap(), 42);
    let error = coreloop::run(async {
        yield_now().await;
        "x".parse::<u8>()
    });
    assert!(error.unwrap().is_err());
    let panicked = catch_unwind(|| {
        coreloop::run(async {
            yield_now().await;
            panic!("spam");
        })
    });
    let payload = panicked.expect_err("it goes through");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"spam"));
}

/// The value comes though what was left fails as it is cancelled.
#[test]
fn l1_a_failing_clean_up_does_not_hide_the_value() {
    struct Sore(Rc<Cell<bool>>);
    impl Drop for Sore {
        fn drop(&mut self) {
            self.0.set(true);
            panic!("in the clean-up");
        }
    }
    let gone = Rc::new(Cell::new(false));
    let sore = Sore(gone.clone());
    let value = coreloop::run(async move {
        drop(spawn(async move {
            let _sore = sore;
            sleep(Duration::from_secs(50)).await;
        }));
        yield_now().await;
        123
    });
    assert_eq!((value.unwrap(), gone.get()), (123, true));
}

#[test]
fn l3_a_drive_that_ends_leaves_the_rest_for_the_next() {
    let mut event_loop = EventLoop::new().unwrap();
    let steps = Rc::new(Cell::new(0));
    let (count, (completer, twice)) = (steps.clone(), future::<()>());
    let mut task = event_loop.spawn(async move {
        while count.get() < 10 {
            sleep(Duration::from_millis(1)).await;
            count.set(count.get() + 1);
            if count.get() == 2 {
                completer.complete(()).unwrap();
            }
        }
    });
    event_loop.block_on(twice).unwrap();
    assert!(steps.get() < 10 && !task.is_finished());
    task.cancel();
    assert!(event_loop.block_on(&mut task).unwrap_err().is_cancelled());
    assert!(steps.get() < 10);
}

#[test]
fn l3_a_closed_loop_refuses_what_comes_from_its_handle() {
    let mut event_loop = EventLoop::new().unwrap();
    let value = event_loop.block_on(async {
        yield_now().await;
        "done"
    });
    assert_eq!(value, "done");
    assert_eq!(event_loop.block_on(async { "again" }), "again");
    let handle = event_loop.handle();
    drop(event_loop.spawn(std::future::pending::<()>()));
    let report = event_loop.close(Duration::from_secs(5));
    assert_eq!(report.tasks_cancelled, 1);
    assert!(handle.spawn_on(0, || async { 1 }).is_err(), "closed");
}

/// Sends this process what Ctrl-C does.
async fn interrupts() {
    sleep(Duration::from_millis(20)).await;
    let sent = Command::new("sh").args(["-c", "kill -INT $PPID"]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn l1_an_interrupt_cancels_main_and_what_it_awaits() {
    in_child("l1_an_interrupt_cancels_main_and_what_it_awaits", || {
        let mut event_loop = EventLoop::new().unwrap();
        // Waiting for a future.
        let (completer, awaitable) = future::<u8>();
        drop(event_loop.spawn(interrupts()));
        let drops = Drops::new();
        let guard = drops.guard();
        let ended = event_loop.block_on(until_terminate(async move {
            let _guard = guard;
            awaitable.await.is_ok()
        }));
        assert_eq!((ended, drops.count(), completer.is_cancelled()), (None, 1, true));
        // Waiting for a task.
        drop(event_loop.spawn(interrupts()));
        let guard = drops.guard();
        let ended = event_loop.block_on(until_terminate(async move {
            let task = spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            task.await.is_ok()
        }));
        event_loop.block_on(turns(2));
        assert_eq!((ended, drops.count()), (None, 2));
        // Always ready.
        drop(event_loop.spawn(interrupts()));
        let count = Rc::new(Cell::new(0_u64));
        let own = count.clone();
        let ended = event_loop.block_on(until_terminate(async move {
            loop {
                own.set(own.get() + 1);
                yield_now().await;
            }
        }));
        let ended: Option<()> = ended;
        assert!(ended.is_none() && count.get() > 0);
    });
}
