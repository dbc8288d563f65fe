//! A cancel travels inwards through awaits; a drop lets go.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::{Either, race};
use coreloop::task::JoinHandle;
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, spawn};
use coreloop_tests::drive::Drops;
use coreloop_tests::{poll_once, turns};

const SOON: Duration = Duration::from_secs(5);
const BRIEF: Duration = Duration::from_millis(3);

/// A task that never ends, and the count of its destructor.
fn endless() -> (JoinHandle<()>, Drops) {
    let drops = Drops::new();
    let guard = drops.guard();
    let task = spawn(async move {
        let _guard = guard;
        std::future::pending::<()>().await;
    });
    (task, drops)
}

#[test]
fn t6_cancel_before_the_first_poll_never_runs() {
    coreloop::run(async {
        let (ran, drops) = (Rc::new(Cell::new(false)), Drops::new());
        let (seen, guard) = (ran.clone(), drops.guard());
        let task = spawn(async move {
            let _guard = guard;
            seen.set(true);
        });
        assert!(task.cancel());
        assert!(task.is_cancelling() && !task.is_finished());
        let e = task.await.expect_err("cancelled");
        assert!(e.is_cancelled() && !e.is_panic());
        assert!(!ran.get(), "a task that was cancelled before its first poll never runs");
        assert_eq!(drops.count(), 1);
    })
    .unwrap();
}

#[test]
fn t6_cancel_takes_effect_at_the_next_turn() {
    coreloop::run(async {
        let (task, drops) = endless();
        turns(2).await;
        assert!(task.cancel());
        assert!(task.cancel(), "twice is once");
        assert_eq!(drops.count(), 0, "never within the caller's own poll");
        assert!(!task.is_finished(), "the handle says cancelled only after the destructors");
        turns(1).await;
        assert_eq!((drops.count(), task.is_finished()), (1, true));
        assert!(!task.cancel(), "it has ended");
        assert!(task.await.expect_err("cancelled").is_cancelled());
    })
    .unwrap();
}

#[test]
fn t6_cancel_of_oneself_takes_effect_after_the_poll() {
    coreloop::run(async {
        let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let (mine, after) = (own.clone(), Rc::new(Cell::new(0)));
        let seen = after.clone();
        let task = spawn(async move {
            assert!(mine.borrow().as_ref().unwrap().cancel());
            seen.set(1);
            turns(1).await;
            seen.set(2);
        });
        *own.borrow_mut() = Some(task);
        turns(5).await;
        assert_eq!(after.get(), 1, "to the next await, and no further");
        let task = own.borrow_mut().take().unwrap();
        assert!(task.is_cancelled() && !task.cancel());
        let end = task.await;
        assert!(end.expect_err("cancelled").is_cancelled());
    })
    .unwrap();
}

/// A task that is cancelled before its end does not finish in spite of it, though no await comes any more.
#[test]
fn t6_cancel_of_oneself_in_the_last_poll_takes_the_value() {
    coreloop::run(async {
        let drops = Drops::new();
        let own: Rc<RefCell<Option<JoinHandle<_>>>> = Rc::default();
        let (mine, guard) = (own.clone(), drops.guard());
        *own.borrow_mut() = Some(spawn(async move {
            assert!(mine.borrow().as_ref().unwrap().cancel());
            guard
        }));
        turns(1).await;
        let task = own.borrow_mut().take().unwrap();
        assert!(task.is_cancelled());
        assert_eq!(drops.count(), 1, "the value is gone");
        assert!(task.await.expect_err("cancelled").is_cancelled());
    })
    .unwrap();
}

#[test]
fn t6_cancel_comes_too_late_for_a_task_that_has_ended() {
    coreloop::run(async {
        let mut task = spawn(async { 5 });
        turns(2).await;
        assert!(task.is_finished() && !task.cancel() && !task.is_cancelling());
        assert_eq!(task.try_take().unwrap().unwrap(), 5);
        assert!(task.try_take().is_none(), "taken once");
    })
    .unwrap();
}

#[test]
fn t6_cancel_of_a_ready_task_wins_over_its_readiness() {
    coreloop::run(async {
        let (ran, task) = {
            let ran = Rc::new(Cell::new(0));
            let seen = ran.clone();
            let task = spawn(async move {
                loop {
                    seen.set(seen.get() + 1);
                    turns(1).await;
                }
            });
            (ran, task)
        };
        turns(3).await;
        let before = ran.get();
        assert!(before > 0 && task.cancel());
        assert!(task.await.expect_err("cancelled").is_cancelled());
        assert_eq!(ran.get(), before, "not polled again");
    })
    .unwrap();
}

#[test]
fn t7_cancel_passes_inwards_through_an_awaited_handle() {
    coreloop::run(async {
        let (inner, drops) = endless();
        let outer = spawn(async move { drop(inner.await) });
        // Three deep.
        let outermost = spawn(async move { drop(outer.await) });
        turns(3).await;
        assert!(outermost.cancel());
        assert!(outermost.await.expect_err("cancelled").is_cancelled());
        turns(3).await;
        assert_eq!(drops.count(), 1, "the cancel went through both awaits");
    })
    .unwrap();
}

#[test]
fn t7_cancel_does_not_pass_to_a_handle_merely_held() {
    coreloop::run(async {
        let (inner, drops) = endless();
        let (awaited, awaited_drops) = endless();
        let outer = spawn(async move {
            let _held = inner;
            drop(awaited.await);
        });
        turns(2).await;
        outer.cancel();
        assert!(outer.await.expect_err("cancelled").is_cancelled());
        turns(3).await;
        assert_eq!((drops.count(), awaited_drops.count()), (0, 1), "held runs on, awaited ends");
    })
    .unwrap();
}

#[test]
fn t7_cancel_does_not_pass_to_a_handle_awaited_before() {
    coreloop::run(async {
        let (inner, drops) = endless();
        let outer = spawn(async move {
            let mut inner = Box::pin(inner);
            // Polled, but not in the poll that the cancel interrupts.
            assert!(poll_once(inner.as_mut()).await.is_pending());
            turns(2).await;
            std::future::pending::<()>().await;
            drop(inner);
        });
        turns(6).await;
        outer.cancel();
        assert!(outer.await.expect_err("cancelled").is_cancelled());
        turns(3).await;
        assert_eq!(drops.count(), 0);
    })
    .unwrap();
}

#[test]
fn t5_a_dropped_handle_lets_the_task_run_on() {
    coreloop::run(async {
        let ran = Rc::new(Cell::new(false));
        let seen = ran.clone();
        drop(spawn(async move {
            sleep(BRIEF).await;
            seen.set(true);
        }));
        // Also one that was awaited: nobody was cancelled.
        let (polled, drops) = endless();
        {
            let mut polled = Box::pin(polled);
            assert!(poll_once(polled.as_mut()).await.is_pending());
        }
        sleep(BRIEF * 4).await;
        assert!(ran.get());
        assert_eq!(drops.count(), 0);
    })
    .unwrap();
}

#[test]
fn t7_cancel_passes_through_an_expired_timeout() {
    coreloop::run(async {
        let (inner, drops) = endless();
        assert!(timeout(BRIEF, inner).await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 1);
        // Also when the handle is awaited deep within, and the await took several turns to arrive.
        let (inner, drops) = endless();
        let deep = async move {
            turns(3).await;
            async move { drop(inner.await) }.await;
        };
        assert!(timeout(BRIEF, deep).await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 1);
        // But not to one that was merely held, nor by `&mut` to one that lives on outside.
        let (held, held_drops) = endless();
        let (mut outside, outside_drops) = endless();
        let holds = async {
            let _held = held;
            std::future::pending::<()>().await;
        };
        assert!(timeout(BRIEF, holds).await.is_err());
        assert!(timeout(BRIEF, &mut outside).await.is_err());
        turns(2).await;
        assert_eq!((held_drops.count(), outside_drops.count()), (0, 0));
        outside.cancel();
    })
    .unwrap();
}

#[test]
fn t7_cancel_passes_through_a_timeout_that_is_cancelled() {
    coreloop::run(async {
        let (inner, drops) = endless();
        let outer = spawn(async move { timeout(SOON, inner).await.is_ok() });
        turns(3).await;
        outer.cancel();
        assert!(outer.await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 1);
    })
    .unwrap();
}

#[test]
fn t7_cancel_passes_to_a_lost_race_first_place() {
    coreloop::run(async {
        let (inner, drops) = endless();
        assert!(matches!(race(inner, sleep(BRIEF)).await, Either::Second(())));
        turns(2).await;
        assert_eq!(drops.count(), 1);
    })
    .unwrap();
}

/// The winner stands first, so in the race's last poll the loser is not even asked.
#[test]
fn t7_cancel_passes_to_a_lost_race_second_place() {
    coreloop::run(async {
        let (inner, drops) = endless();
        assert!(matches!(race(sleep(BRIEF), inner).await, Either::First(())));
        turns(2).await;
        assert_eq!(drops.count(), 1, "the loser of a race awaited this task: it must be cancelled");
    })
    .unwrap();
}

/// The awaited handle sits behind something else that is ready in the poll in which the limit strikes.
#[test]
fn t7_cancel_passes_in_a_race_within_a_timeout() {
    coreloop::run(async {
        let (one, one_drops) = endless();
        let (two, two_drops) = endless();
        assert!(timeout(BRIEF, race(one, two)).await.is_err());
        turns(2).await;
        assert_eq!((one_drops.count(), two_drops.count()), (1, 1));
    })
    .unwrap();
}

#[test]
fn t7_cancel_does_not_pass_to_a_handle_held_over_a_race() {
    coreloop::run(async {
        let (mut outside, drops) = endless();
        assert!(matches!(race(&mut outside, sleep(BRIEF)).await, Either::Second(())));
        turns(2).await;
        assert_eq!(drops.count(), 0, "hold the handle outside, to keep the task");
        outside.cancel();
        assert!(outside.await.is_err());
    })
    .unwrap();
}

#[test]
fn t7_cancel_does_not_reach_a_handle_that_a_destructor_makes() {
    coreloop::run(async {
        struct Spawner(Rc<RefCell<Option<Drops>>>);
        impl Drop for Spawner {
            fn drop(&mut self) {
                let (task, drops) = endless();
                drop(task);
                *self.0.borrow_mut() = Some(drops);
            }
        }
        let made = Rc::default();
        let spawner = Spawner(Rc::clone(&made));
        let task = spawn(async move {
            let _spawner = spawner;
            std::future::pending::<()>().await;
        });
        turns(2).await;
        task.cancel();
        assert!(task.await.is_err());
        turns(3).await;
        let drops = made.borrow_mut().take().unwrap();
        assert_eq!(drops.count(), 0, "a task that a goodbye spawned runs on");
    })
    .unwrap();
}

#[test]
fn l1_destructors_have_run_before_run_returns() {
    let drops = Drops::new();
    let outer = drops.clone();
    coreloop::run(async move {
        for _ in 0..10 {
            let guard = outer.guard();
            drop(spawn(async move {
                let _guard = guard;
                sleep(Duration::MAX).await;
            }));
        }
        turns(2).await;
    })
    .unwrap();
    assert_eq!(drops.count(), 10, "destructors have run before `run` returned");
}

#[test]
fn t5_a_handle_that_outlives_its_loop_says_how_its_task_ended() {
    let mut event_loop = EventLoop::new().unwrap();
    let done = event_loop.spawn(async { 5 });
    let parked = event_loop.spawn(std::future::pending::<()>());
    let unpolled = event_loop.spawn(async { 6 });
    event_loop.block_on(turns(2));
    drop(event_loop);
    coreloop::run(async {
        assert_eq!(done.await.unwrap(), 5, "a value that was there stays");
        assert!(parked.is_finished() && !parked.cancel());
        assert!(parked.await.expect_err("its loop has gone").is_cancelled());
        let end = unpolled.await;
        assert!(end.is_ok_and(|v| v == 6), "it ran while the loop did");
    })
    .unwrap();
}
