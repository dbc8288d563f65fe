//! Limits on tasks, and shields (W1 to W4).

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::{Either, gather_handles, race, shield};
use coreloop::spawn;
use coreloop::task::JoinHandle;
use coreloop::time::{Instant, sleep, timeout};
use coreloop_tests::drive::{Clock, Drops, tens, virtually};
use coreloop_tests::{poll_once, turns};

/// A task that ends after so many tens of milliseconds, and the count of its destructor.
fn after(n: u64) -> (JoinHandle<u64>, Drops) {
    let drops = Drops::new();
    let guard = drops.guard();
    let task = spawn(async move {
        let _guard = guard;
        sleep(tens(n)).await;
        n
    });
    (task, drops)
}

#[test]
fn w1_over_the_limit_the_task_is_gone_before_the_error_comes() {
    virtually(async || {
        let clock = Clock::new();
        let (mut task, drops) = after(100);
        assert!(task.timeout(tens(5)).await.is_err());
        assert_eq!((clock.tens(), drops.count()), (5, 1));
        assert!(task.is_cancelled() && task.is_finished());
        assert!(task.await.expect_err("it was cancelled").is_cancelled());
    });
}

#[test]
fn w1_in_time_the_value_comes() {
    virtually(async || {
        let clock = Clock::new();
        let (mut task, _) = after(3);
        assert_eq!(task.timeout(tens(5)).await.unwrap().unwrap(), 3);
        assert_eq!(clock.tens(), 3);
        assert!(!task.is_cancelled());
        let mut panics = spawn(async { panic!("within the limit") });
        let result: Result<(), _> = panics.timeout(tens(5)).await.expect("in time");
        assert!(result.unwrap_err().is_panic());
    });
}

#[test]
fn w1_a_cancel_takes_long_and_the_limit_waits_for_it() {
    virtually(async || {
        struct Slow(Rc<RefCell<Vec<&'static str>>>);
        impl Drop for Slow {
            fn drop(&mut self) {
                self.0.borrow_mut().push("destructor");
            }
        }
        let log = Rc::new(RefCell::new(Vec::new()));
        let (in_task, slow) = (log.clone(), Slow(log.clone()));
        let mut task = spawn(async move {
            let _slow = slow;
            in_task.borrow_mut().push("runs");
            std::future::pending::<()>().await;
        });
        let late = task.timeout(tens(1)).await;
        log.borrow_mut().push("error");
        assert!(late.is_err());
        assert_eq!(*log.borrow(), ["runs", "destructor", "error"]);
    });
}

#[test]
fn w1_a_destructor_that_panics_is_the_tasks_error() {
    virtually(async || {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in the destructor");
            }
        }
        let mut task = spawn(async {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        });
        let result = task.timeout(tens(1)).await.expect("the panic is told, not hidden");
        assert_eq!(result.unwrap_err().panic_message(), Some("in the destructor"));
        assert!(!task.is_cancelled());
    });
}

#[test]
fn w1_a_limit_that_is_let_go_of_leaves_the_task() {
    virtually(async || {
        let (mut task, drops) = after(9);
        let lost = race(task.timeout(tens(5)), sleep(tens(2))).await;
        assert!(matches!(lost, Either::Second(())));
        assert_eq!((task.await.unwrap(), drops.count()), (9, 1), "the handle was held outside");
        // But a cancel of the owner passes through.
        let (mut task, drops) = after(100);
        let owner = spawn(async move { task.timeout(tens(50)).await.is_ok() });
        turns(3).await;
        owner.cancel();
        assert!(owner.await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn w2_shielded_the_task_outlives_limit_and_canceller() {
    virtually(async || {
        let clock = Clock::new();
        let (mut task, _) = after(10);
        assert!(timeout(tens(5), shield(&mut task)).await.is_err());
        assert!(!task.is_cancelled() && !task.is_finished());
        assert_eq!(task.await.unwrap(), 10);
        assert_eq!(clock.tens(), 10);
    });
}

#[test]
fn w2_a_cancel_of_the_awaiter_ends_at_the_shield() {
    virtually(async || {
        let (task, drops) = after(10);
        let outer = spawn(async move { shield(task).await.is_ok() });
        turns(3).await;
        outer.cancel();
        assert!(outer.await.expect_err("the outer one is cancelled").is_cancelled());
        turns(3).await;
        assert_eq!(drops.count(), 0, "the inner one runs on");
        sleep(tens(11)).await;
        assert_eq!(drops.count(), 1);
        // The same with a shield by reference, whose handle goes with the cancelled task.
        let (mut task, drops) = after(10);
        let outer = spawn(async move { shield(&mut task).await.is_ok() });
        turns(3).await;
        outer.cancel();
        assert!(outer.await.is_err());
        turns(3).await;
        assert_eq!(drops.count(), 0);
    });
}

#[test]
fn w2_a_cancel_of_the_inner_task_is_the_shields_error() {
    virtually(async || {
        let (task, _) = after(10);
        let mut shielded = pin!(shield(task));
        assert!(poll_once(shielded.as_mut()).await.is_pending());
        let (mut task, _) = after(1);
        assert_eq!(shield(&mut task).await.unwrap(), 1);
        let (task, _) = after(10);
        task.cancel();
        assert!(shield(task).await.expect_err("cancelled within").is_cancelled());
    });
}

#[test]
fn w2_what_has_ended_is_given_at_once() {
    virtually(async || {
        let task = spawn(async { 7 });
        turns(2).await;
        let mut shielded = pin!(shield(task));
        let polled = poll_once(shielded.as_mut()).await;
        assert!(matches!(polled, std::task::Poll::Ready(Ok(7))));
        let task = spawn(async { 8 });
        assert_eq!(shield(task).into_inner().await.unwrap(), 8);
    });
}

#[test]
fn w2_a_gather_of_shields_lets_its_tasks_run_on() {
    virtually(async || {
        let (task, drops) = after(10);
        let outer = spawn(async move {
            gather_handles([spawn(async move { shield(task).await.is_ok() })]).await.len()
        });
        turns(4).await;
        outer.cancel();
        assert!(outer.await.is_err());
        turns(4).await;
        assert_eq!(drops.count(), 0);
        sleep(tens(11)).await;
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn w3_zero_and_past_limits_still_give_what_is_ready() {
    virtually(async || {
        let (mut task, _) = after(0);
        turns(4).await;
        assert_eq!(task.timeout(Duration::ZERO).await.unwrap().unwrap(), 0);
        let (mut task, drops) = after(5);
        turns(2).await;
        let clock = Clock::new();
        assert!(task.timeout(Duration::ZERO).await.is_err());
        assert_eq!((clock.tens(), drops.count()), (0, 1));
        let (mut task, _) = after(5);
        assert!(task.timeout_at(Instant::now() - tens(1)).await.is_err());
        assert!(task.is_cancelled());
    });
}

#[test]
fn w3_a_limit_on_a_task_can_be_moved_and_lifted() {
    virtually(async || {
        let (mut task, _) = after(9);
        let mut limited = task.timeout(tens(2));
        assert!(poll_once(pin!(&mut limited)).await.is_pending());
        limited.reset(Instant::NEVER);
        assert_eq!(limited.deadline(), Instant::NEVER);
        assert_eq!(limited.await.unwrap().unwrap(), 9);
    });
}

#[test]
fn w4_an_enormous_limit_means_never() {
    virtually(async || {
        let (mut task, _) = after(9);
        assert_eq!(task.timeout(Duration::MAX).await.unwrap().unwrap(), 9);
    });
}
