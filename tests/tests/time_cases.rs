//! Corner cases of time limits and shields (W1 to W3) that CPython's tests know.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::{future, shield};
use coreloop::time::{Instant, sleep, timeout, timeout_at};
use coreloop::{spawn, yield_now};
use coreloop_tests::drive::{Clock, Drops, tens, virtually, virtually_with};
use coreloop_tests::{poll_once, turns};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in the destructor");
    }
}

#[test]
fn w1_a_limit_says_when_it_is_over() {
    virtually(async || {
        let at = Instant::now() + tens(1);
        let limited = timeout_at(at, std::future::pending::<()>());
        assert_eq!(limited.deadline(), at);
        assert!(limited.await.is_err());
        assert!(Instant::now() >= at);
        // In time, the deadline lies ahead.
        let mut limited = pin!(timeout(tens(10), sleep(tens(1))));
        assert_eq!(limited.as_mut().await, Ok(()));
        assert!(limited.deadline() > Instant::now());
    });
}

/// The block is over at the limit; the code after it is not touched, nor is its task.
#[test]
fn w1_what_comes_after_a_limit_goes_on_uncancelled() {
    virtually(async || {
        for (sleeps, in_time) in [(tens(100), false), (tens(0), true)] {
            let finished = Rc::new(Cell::new(false));
            let inside = finished.clone();
            let mut task = spawn(async move {
                let limited = timeout(tens(10), async {
                    sleep(sleeps).await;
                    inside.set(true);
                });
                let late = limited.await.is_err();
                turns(2).await;
                sleep(tens(1)).await;
                late
            });
            assert_eq!((&mut task).await.unwrap(), !in_time);
            assert_eq!((finished.get(), task.is_cancelled()), (in_time, false));
        }
    });
}

#[test]
fn w1_a_future_completed_by_another_in_time() {
    virtually(async || {
        let (completer, awaitable) = future::<&str>();
        drop(spawn(async move { completer.complete("ok").unwrap() }));
        assert_eq!(timeout(tens(20), awaitable.clone()).await, Ok(Ok("ok")));
        assert_eq!(timeout(Duration::ZERO, awaitable.clone()).await, Ok(Ok("ok")), "done before");
        assert_eq!(timeout_at(Instant::now() - tens(1), awaitable).await, Ok(Ok("ok")));
    });
}

#[test]
fn w1_errors_and_panics_pass_through_a_limit() {
    virtually(async || {
        let mut limited = pin!(timeout(tens(1), async { Err::<(), _>("a key") }));
        assert_eq!(limited.as_mut().await, Ok(Err("a key")));
        assert!(limited.deadline() > Instant::now());
        let panics = spawn(timeout(tens(1), async {
            yield_now().await;
            panic!("within");
        }));
        let e: Result<Result<(), _>, _> = panics.await;
        assert_eq!(e.unwrap_err().panic_message(), Some("within"));
    });
}

/// What the clean-up says is more than that the time was over.
#[test]
fn w1_a_destructor_that_panics_over_the_limit_goes_through() {
    virtually(async || {
        let task = spawn(timeout(tens(1), async {
            let _bomb = Bomb;
            sleep(tens(100)).await;
        }));
        let e = task.await.expect_err("not the limit's error");
        assert_eq!(e.panic_message(), Some("in the destructor"));
    });
}

#[test]
fn w1_a_cancel_of_the_waiter_reaches_the_task_with_a_limit_or_none() {
    virtually(async || {
        for limit in [Duration::MAX, tens(6000)] {
            let drops = Drops::new();
            let guard = drops.guard();
            let mut task = spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            let mut waits = spawn(async move { task.timeout(limit).await.is_ok() });
            turns(1).await;
            waits.cancel();
            assert!((&mut waits).await.unwrap_err().is_cancelled());
            turns(2).await;
            assert_eq!(drops.count(), 1, "{limit:?}");
        }
    });
}

/// The inner task ends in the turn in which its waiter is cancelled: both are as they say.
#[test]
fn w1_a_cancel_right_after_the_inner_one_ended() {
    virtually(async || {
        for give_way in 0..4 {
            let (ended, end) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
            let (inner_ended, reached) = (ended.clone(), end.clone());
            let mut waits = spawn(async move {
                let mut inner = spawn(async move { inner_ended.set(Some("done")) });
                inner.timeout(tens(100)).await.unwrap().unwrap();
                sleep(tens(100)).await;
                reached.set(true);
            });
            turns(give_way).await;
            waits.cancel();
            assert!((&mut waits).await.unwrap_err().is_cancelled());
            turns(2).await;
            // Cancelled before its first poll it makes no inner task at all.
            let expected = if give_way < 2 { [None, Some("done")] } else { [Some("done"); 2] };
            assert!(expected.contains(&ended.get()), "after {give_way} turns");
            assert!(!end.get());
        }
    });
}

#[test]
fn w2_with_no_time_at_all_the_task_runs_on() {
    virtually(async || {
        let mut task = spawn(async {
            sleep(tens(1)).await;
            "done"
        });
        assert!(timeout(Duration::ZERO, shield(&mut task)).await.is_err());
        assert!(!task.is_finished() && !task.is_cancelled());
        sleep(tens(2)).await;
        assert_eq!(task.try_take().unwrap().unwrap(), "done");
        // And without a limit.
        let mut task = spawn(async {
            sleep(tens(10)).await;
            "done"
        });
        assert!(matches!(timeout(Duration::MAX, shield(&mut task)).await, Ok(Ok("done"))));
        assert!(task.is_finished());
    });
}

#[test]
fn w2_a_shield_gives_the_value_or_error_of_the_inner_one() {
    virtually(async || {
        assert_eq!(shield(spawn(async { 42 })).await.unwrap(), 42);
        let panics = spawn(async { panic!("expected") });
        let e: Result<(), _> = shield(panics).await;
        assert_eq!(e.unwrap_err().panic_message(), Some("expected"));
        let (completer, awaitable) = future::<Result<u8, &str>>();
        let mut shielded = pin!(shield(awaitable));
        assert!(poll_once(shielded.as_mut()).await.is_pending());
        completer.complete(Err("expected")).unwrap();
        assert_eq!(shielded.await, Ok(Err("expected")));
        // A cancel of the inner one shows.
        let (completer, awaitable) = future::<u8>();
        let outer = spawn(async move { shield(awaitable).await });
        turns(2).await;
        completer.cancel();
        assert!(outer.await.unwrap().is_err());
    });
}

#[test]
fn w3_no_time_and_one_yield_is_too_late() {
    virtually(async || {
        for at in [Instant::now(), Instant::now() - tens(1100)] {
            assert!(timeout_at(at, yield_now()).await.is_err());
            assert!(timeout_at(at, sleep(Duration::ZERO)).await.is_err());
        }
        let clock = Clock::new();
        assert!(timeout(Duration::ZERO, sleep(tens(1000))).await.is_err());
        assert_eq!(clock.tens(), 0);
    });
}

/// A task whose time came before the limit has ended in time, though the core was busy until after both:
/// for a limit in the main future as for one in a task.
#[test]
fn w1_what_a_task_did_in_time_beats_the_limit_on_it() {
    virtually_with(async |sim| {
        let in_time = |sim: coreloop::sim::Sim| async move {
            let mut task = spawn(async {
                sleep(tens(1)).await;
                7
            });
            turns(1).await;
            drop(spawn(async move { sim.compute(tens(9)) }));
            task.timeout(tens(5)).await
        };
        let in_task = spawn(in_time(sim.clone())).await.unwrap();
        assert_eq!(in_task.expect("in a task").unwrap(), 7);
        assert_eq!(in_time(sim).await.expect("in main").unwrap(), 7);
    });
}

/// The outer limit runs out while the core is busy, before the inner one's wait begins.
#[test]
fn w3_the_limit_that_ran_out_while_busy_reports() {
    virtually_with(async |sim| {
        let inner_over = Cell::new(false);
        let limited = timeout(tens(1), async {
            let inner = timeout(tens(50), async {
                sim.compute(tens(5));
                sleep(tens(500)).await;
            });
            inner_over.set(inner.await.is_err());
        });
        assert!(limited.await.is_err());
        assert!(!inner_over.get());
        // Both run out meanwhile: the inner one reports, and the outer one ends what comes after.
        let clock = Clock::new();
        let after = Cell::new(false);
        let limited = timeout(tens(10), async {
            let inner = timeout(tens(1), async {
                sim.compute(tens(10));
                sleep(tens(100)).await;
            });
            inner_over.set(inner.await.is_err());
            sleep(tens(1000)).await;
            after.set(true);
        });
        assert!(limited.await.is_err());
        assert!(inner_over.get() && !after.get());
        assert_eq!(clock.tens(), 10);
    });
}

#[test]
fn w3_a_limit_needs_a_loop_to_wait_in() {
    let mut limited = Box::pin(timeout(tens(1), std::future::pending::<()>()));
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        limited.as_mut().poll(&mut cx).is_ready()
    }));
    let payload = polled.expect_err("there is none");
    assert!(payload.downcast_ref::<String>().unwrap().contains("running loop"));
}
