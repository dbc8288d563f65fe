//! A panic stays where it happened: in its task, for its awaiter.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use coreloop::op::{Nop, submit};
use coreloop::time::{sleep, timeout};
use coreloop::{Cores, EventLoop, RunError, Runtime};
use coreloop_tests::drive::Drops;
use coreloop_tests::{fd_count, fds_settle_at, in_child, turns};

const SOON: Duration = Duration::from_secs(5);

/// Panics when dropped, once armed.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

/// Whether the running loop still does tasks, timers and ops.
async fn still_works() -> bool {
    let task = coreloop::spawn(async { 5 });
    sleep(Duration::from_micros(100)).await;
    submit(Nop).await.unwrap();
    timeout(SOON, task).await.is_ok_and(|r| r.is_ok_and(|v| v == 5))
}

#[test]
fn t9_a_panic_is_its_awaiters_error() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        for i in 0..100 {
            let drops = Drops::new();
            let guard = drops.guard();
            let task = coreloop::spawn(async move {
                let _guard = guard;
                turns(i % 3).await;
                assert!(std::hint::black_box(false), "number {i}");
            });
            let e = task.await.expect_err("it panicked");
            assert!(e.is_panic() && !e.is_cancelled());
            assert_eq!(e.panic_message(), Some(format!("number {i}").as_str()));
            assert_eq!(drops.count(), 1, "its locals were dropped");
            let payload = e.into_panic().unwrap();
            assert!(payload.downcast_ref::<String>().is_some());
        }
        assert!(still_works().await);
    });
    assert_eq!(event_loop.stats().counters.task_panics, 100);
}

#[test]
fn t9_a_panic_that_nobody_awaits_ends_its_task_only() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        drop(coreloop::spawn(async { panic!("unheard") }));
        turns(3).await;
        assert!(still_works().await);
    });
    assert_eq!(event_loop.stats().counters.task_panics, 1);
}

#[test]
fn t9_a_panic_in_a_futures_destructor_is_an_error_too() {
    coreloop::run(async {
        // By return.
        let task = coreloop::spawn(async {
            let _bomb = Bomb("at return");
            7
        });
        let e = task.await.expect_err("its destructor panicked");
        assert_eq!(e.panic_message(), Some("at return"));
        // By cancel, where the destructor runs in the loop's own hands.
        let task = coreloop::spawn(async {
            let _bomb = Bomb("at cancel");
            std::future::pending::<()>().await;
        });
        turns(2).await;
        assert!(task.cancel());
        let e = task.await.expect_err("its destructor panicked");
        assert!(e.is_panic());
        assert_eq!(e.panic_message(), Some("at cancel"));
        assert!(still_works().await);
    })
    .unwrap();
}

#[test]
fn task_panic_in_a_results_destructor() {
    coreloop::run(async {
        // The result is dropped by the loop: the handle went before the task ended.
        drop(coreloop::spawn(async { Bomb("a result nobody took") }));
        turns(3).await;
        assert!(still_works().await);
        // The result is dropped with its handle: that is the owner's stack, but the loop survives.
        let task = coreloop::spawn(async { Bomb("a result in its handle") });
        turns(3).await;
        assert!(task.is_finished());
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(task)));
        assert!(still_works().await);
        // Contained or not, the slot is used again without harm.
        let _ = dropped;
        for i in 0..100 {
            assert_eq!(coreloop::spawn(async move { i }).await.unwrap(), i);
        }
    })
    .unwrap();
}

#[test]
fn task_panic_in_destructors_at_the_end_of_the_loop() {
    in_child("task_panic_in_destructors_at_the_end_of_the_loop", || {
        let before = fd_count();
        let drops = Drops::new();
        let mut event_loop = EventLoop::new().unwrap();
        for i in 0..10 {
            let guard = drops.guard();
            drop(event_loop.spawn(async move {
                let _guard = guard;
                let _bomb = (i % 2 == 0).then(|| Bomb("at the end"));
                std::future::pending::<()>().await;
            }));
        }
        event_loop.turn(Some(Duration::ZERO));
        let report = event_loop.close(SOON);
        assert_eq!((report.tasks_cancelled, report.ops_leaked), (10, 0));
        assert_eq!(drops.count(), 10, "one panic does not keep the others from their destructors");
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker");
    }
}

/// Polls `future` with a waker that panics, once.
fn poll_with_a_bad_waker<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let waker = Waker::from(Arc::new(PanickingWaker));
    std::pin::Pin::new(future).poll(&mut Context::from_waker(&waker))
}

#[test]
fn task_panic_in_a_foreign_waker() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        // Of a timer, of an op, of a join handle.
        let mut timer = sleep(Duration::from_millis(1));
        assert!(poll_with_a_bad_waker(&mut timer).is_pending());
        let mut op = submit(Nop);
        assert!(poll_with_a_bad_waker(&mut op).is_pending());
        let mut task = coreloop::spawn(async { 3 });
        assert!(poll_with_a_bad_waker(&mut task).is_pending());
        sleep(Duration::from_millis(5)).await;
        assert!(still_works().await);
        // What they waited for has come nevertheless.
        timer.await;
        op.await.unwrap();
        assert_eq!(task.await.unwrap(), 3);
    });
    assert_eq!(event_loop.stats().counters.waker_panics, 3);
}

#[test]
fn task_panic_in_a_posted_closure() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    handle.call_soon_threadsafe(0, || panic!("in a closure")).unwrap();
    event_loop.block_on(async {
        turns(3).await;
        assert!(still_works().await);
    });
}

/// A panic's payload may panic again when it is dropped: by whoever contained the first one.
#[test]
fn task_panic_with_a_payload_that_panics() {
    struct BadWaker;
    impl Wake for BadWaker {
        fn wake(self: Arc<Self>) {
            std::panic::panic_any(Bomb("a waker's payload"));
        }
    }
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    handle.call_soon_threadsafe(0, || std::panic::panic_any(Bomb("a closure's payload"))).unwrap();
    event_loop.block_on(async {
        turns(3).await;
        drop(coreloop::spawn(async { std::panic::panic_any(Bomb("a task's payload")) }));
        turns(3).await;
        let waker = Waker::from(Arc::new(BadWaker));
        let mut timer = sleep(Duration::from_millis(1));
        let mut op = submit(Nop);
        let mut cx = Context::from_waker(&waker);
        assert!(std::pin::Pin::new(&mut timer).poll(&mut cx).is_pending());
        assert!(std::pin::Pin::new(&mut op).poll(&mut cx).is_pending());
        sleep(Duration::from_millis(5)).await;
        assert!(still_works().await);
    });
    // And in a destructor while the loop closes.
    drop(event_loop.spawn(async {
        struct Worse;
        impl Drop for Worse {
            fn drop(&mut self) {
                std::panic::panic_any(Bomb("a destructor's payload"));
            }
        }
        let _worse = Worse;
        std::future::pending::<()>().await;
    }));
    event_loop.turn(Some(Duration::ZERO));
    let report = event_loop.close(SOON);
    assert_eq!((report.tasks_cancelled, report.ops_leaked), (1, 0));
}

#[test]
fn task_panic_of_the_main_future_leaves_the_loop_usable() {
    let mut event_loop = EventLoop::new().unwrap();
    let kept = event_loop.spawn(async {
        sleep(Duration::from_millis(2)).await;
        11
    });
    let caught = catch_unwind(AssertUnwindSafe(|| {
        event_loop.block_on(async {
            turns(2).await;
            panic!("main");
        })
    }));
    assert!(caught.is_err());
    // The loop is good, the task that it has goes on.
    assert_eq!(event_loop.block_on(kept).unwrap(), 11);
    assert!(event_loop.block_on(still_works()));
}

#[test]
fn l2_a_nested_block_on_is_refused_and_the_outer_loop_goes_on() {
    coreloop::run(async {
        let task = coreloop::spawn(async { coreloop::run(async { 1 }).unwrap() });
        let e = task.await.expect_err("a loop within a loop");
        let message = e.panic_message().unwrap().to_owned();
        assert!(message.contains("already running"), "{message}");
        assert!(still_works().await);
        // A second loop may exist, and end; it just can't be driven from within the first.
        let mut second = EventLoop::new().unwrap();
        let caught = catch_unwind(AssertUnwindSafe(|| second.turn(Some(Duration::ZERO))));
        assert!(caught.is_err());
        let drops = Drops::new();
        let guard = drops.guard();
        drop(second.spawn(async move { drop(guard) }));
        drop(second);
        assert_eq!(drops.count(), 1);
        assert!(still_works().await);
    })
    .unwrap();
}

#[test]
fn task_panic_of_one_core_stops_the_others() {
    in_child("task_panic_of_one_core_stops_the_others", || {
        let before = fd_count();
        let cpus = Cores::All.resolve().unwrap();
        let runtime = Runtime::builder().cores(Cores::These(vec![cpus[0]; 3])).build().unwrap();
        let ended = runtime.run(|core| async move {
            if core.index() == 1 {
                sleep(Duration::from_millis(5)).await;
                panic!("core one");
            }
            sleep(Duration::MAX).await;
        });
        match ended {
            Err(RunError::Panicked { core, message }) => {
                assert_eq!((core, message.as_str()), (1, "core one"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}

/// A runtime in which the start itself panics on one core must not leave the others waiting for it.
#[test]
fn task_panic_in_the_start_hook_ends_the_runtime() {
    in_child("task_panic_in_the_start_hook_ends_the_runtime", || {
        let cpus = Cores::All.resolve().unwrap();
        let builder = Runtime::builder().cores(Cores::These(vec![cpus[0]; 2]));
        let runtime = builder.on_start(|_| panic!("in the hook")).build().unwrap();
        let ended = runtime.run(|_| async { sleep(Duration::MAX).await });
        assert!(matches!(ended, Err(RunError::Panicked { .. })), "{ended:?}");
    });
}

#[test]
fn task_panic_while_another_task_is_polled_by_hand() {
    coreloop::run(async {
        // A task that panics in the very poll in which it was woken by its own drop guard.
        let polls = Rc::new(Cell::new(0));
        let seen = polls.clone();
        let task = coreloop::spawn(std::future::poll_fn(move |cx| -> Poll<()> {
            seen.set(seen.get() + 1);
            cx.waker().wake_by_ref();
            assert!(seen.get() < 3, "third poll");
            Poll::Pending
        }));
        assert!(task.await.expect_err("third poll").is_panic());
        turns(5).await;
        assert_eq!(polls.get(), 3, "a task that panicked is never polled again");
    })
    .unwrap();
}
