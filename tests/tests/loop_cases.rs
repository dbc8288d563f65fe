//! Corner cases of loops (L1, L3, L9) that CPython's tests know: settings, the current loop, interrupts.

use std::cell::Cell;
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
