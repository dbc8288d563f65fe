//! Corner cases of sets and groups (G1 to G7, F2) that CPython's tests know.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use coreloop::combine::{
    GroupError, TaskFailure, TaskGroup, When, as_completed, future, gather, gather_handles, group,
    wait,
};
use coreloop::spawn;
use coreloop::time::sleep;
use coreloop_tests::drive::{Clock, Drops, tens, virtually, virtually_with};
use coreloop_tests::turns;

async fn fails(n: u64, why: &'static str) -> Result<u64, &'static str> {
    sleep(tens(n)).await;
    Err(why)
}

/// A child that never ends, whose destructor is counted.
async fn endless(drops: Drops) -> Result<u64, &'static str> {
    let _guard = drops.guard();
    std::future::pending().await
}

#[test]
fn f2_a_handle_given_to_a_set_is_that_task() {
    virtually(async || {
        let ran = Rc::new(Cell::new(0));
        let (one, two) = (ran.clone(), ran.clone());
        let own = spawn(async move {
            one.set(one.get() + 1);
            coreloop::task::current_id().unwrap()
        });
        let id = own.id();
        let ids = gather_handles([own]).await;
        assert_eq!((*ids[0].as_ref().unwrap(), ran.get()), (id, 1), "no task around the task");
        let own = spawn(async move { two.set(two.get() + 1) });
        let mut ended = as_completed([own]);
        assert!(ended.next().await.is_some_and(|(input, result)| input == 0 && result.is_ok()));
        assert_eq!(ran.get(), 2);
    });
}

#[test]
fn g4_a_cancel_after_the_last_child_changes_nothing() {
    virtually(async || {
        let (completer, awaitable) = future::<u8>();
        let gathered = gather([awaitable]);
        turns(1).await;
        completer.complete(42).unwrap();
        turns(2).await;
        gathered.cancel();
        let results = gathered.await;
        assert!(matches!(results[..], [Ok(Ok(42))]));
    });
}

#[test]
fn g4_a_cancel_goes_through_the_children_into_what_they_await() {
    virtually(async || {
        let (completer, awaitable) = future::<u8>();
        let past = Rc::new(Cell::new(0));
        let children = [0, 1].map(|_| {
            let (awaitable, past) = (awaitable.clone(), past.clone());
            async move {
                let value = awaitable.await;
                past.set(past.get() + 1);
                value
            }
        });
        let mut outer = spawn(gather(children));
        turns(2).await;
        assert!(outer.cancel());
        assert!((&mut outer).await.unwrap_err().is_cancelled());
        turns(3).await;
        assert_eq!((completer.is_cancelled(), past.get()), (true, 0));
    });
}

#[test]
fn g6_all_completed_waits_for_failures_too() {
    virtually(async || {
        let clock = Clock::new();
        let mut tasks = [spawn(fails(10, "none")), spawn(async { panic!("really") })];
        for _ in 0..2 {
            let waited = wait(&mut tasks, When::AllCompleted, None).await;
            assert_eq!((waited.done, waited.pending, clock.tens()), (vec![0, 1], vec![], 10));
        }
        let errors = tasks.iter_mut().filter_map(|t| t.try_take()).filter(Result::is_err);
        assert_eq!(errors.count(), 1);
    });
}

#[test]
fn g6_tasks_from_an_iterator() {
    virtually(async || {
        let mut tasks: Vec<_> = (0..10).map(|n| spawn(async move { n })).collect();
        let waited = wait(&mut tasks, When::AllCompleted, None).await;
        assert_eq!((waited.done.len(), waited.pending.len()), (10, 0));
    });
}

/// Two that end in the same turn are seen together, by a waiter that is a task and by the main future.
#[test]
fn g6_what_ended_before_the_waiter_goes_on_is_done_too() {
    virtually(async || {
        for same in 1..4 {
            let both = move || async move {
                let mut tasks = [same, same, same + 4].map(|n| spawn(turns(n)));
                wait(&mut tasks, When::FirstCompleted, None).await.done
            };
            assert_eq!(both().await, [0, 1], "in main, after {same} turns");
            assert_eq!(spawn(both()).await.unwrap(), [0, 1], "in a task, after {same} turns");
        }
    });
}

/// For a waiter that is a task and for the main future, whichever timer was set first.
#[test]
fn g6_a_task_that_ends_as_the_limit_does_is_done() {
    virtually(async || {
        for turns_before in [0, 1] {
            let look = move || async move {
                let mut tasks = [1, 2].map(|n| spawn(sleep(tens(n))));
                turns(turns_before).await;
                let waited = wait(&mut tasks, When::AllCompleted, Some(tens(1))).await;
                (waited.done, waited.pending)
            };
            assert_eq!(look().await, (vec![0], vec![1]), "in main, {turns_before}");
            assert_eq!(spawn(look()).await.unwrap(), (vec![0], vec![1]), "{turns_before}");
        }
    });
}

/// Three times were over while the core was busy: those before the limit are given, the last is late.
#[test]
fn g5_what_was_due_in_time_is_given_though_the_core_was_busy() {
    virtually_with(async |sim| {
        let handles = [1, 2, 8].map(|n| spawn(sleep(tens(n))));
        let mut ended = as_completed(handles).within(tens(3));
        let mut given = Vec::new();
        while let Some((input, result)) = ended.next().await {
            given.push((input, result.is_ok()));
            sim.compute(tens(3));
        }
        assert_eq!(given, [(0, true), (1, true), (2, false)]);
    });
}

#[test]
fn g7_a_body_that_fails_at_once_starts_no_child() {
    virtually(async || {
        let ran = Rc::new(Cell::new(false));
        let seen = ran.clone();
        let result = group(async move |g| {
            drop(g.spawn(async move {
                seen.set(true);
                sleep(tens(9)).await;
                Ok(())
            }));
            Err::<(), _>("at once")
        });
        let e = result.await.unwrap_err();
        assert!(matches!(e.failures()[0].reason, TaskFailure::Error("at once")));
        assert!(!ran.get());
    });
}

#[test]
fn g7_an_inner_groups_error_is_the_outer_bodys() {
    virtually(async || {
        let (clock, drops) = (Clock::new(), Drops::new());
        let inside = drops.clone();
        let outer = group(async move |g: &TaskGroup<GroupError<&str>>| {
            let guard = inside.guard();
            drop(g.spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Ok(())
            }));
            group(async |g| {
                drop(g.spawn(fails(1, "within")));
                Ok(())
            })
            .await
        });
        let e = outer.await.unwrap_err();
        let TaskFailure::Error(inner) = &e.failures()[0].reason else { panic!("{e}") };
        assert!(matches!(inner.failures()[0].reason, TaskFailure::Error("within")));
        assert_eq!((e.failures().len(), drops.count(), clock.tens()), (1, 1, 1));
    });
}

#[test]
fn g7_children_that_add_children_for_ever_end_with_a_failure() {
    fn hydra(g: &TaskGroup<&'static str>, heads: &Rc<Cell<u32>>, drops: &Drops) {
        let (own, heads, drops) = (g.clone(), heads.clone(), drops.clone());
        let guard = drops.guard();
        drop(g.spawn(async move {
            let _guard = guard;
            heads.set(heads.get() + 1);
            sleep(tens(2)).await;
            hydra(&own, &heads, &drops);
            hydra(&own, &heads, &drops);
            Ok(())
        }));
    }
    virtually(async || {
        let (heads, drops) = (Rc::new(Cell::new(0)), Drops::new());
        let (count, inside) = (heads.clone(), drops.clone());
        let result = group(async move |g| {
            hydra(g, &count, &inside);
            drop(g.spawn(async move {
                while count.get() < 10 {
                    sleep(tens(3)).await;
                }
                Err::<(), _>("hercules")
            }));
            Ok(())
        });
        let e = result.await.unwrap_err();
        assert!(matches!(e.failures()[0].reason, TaskFailure::Error("hercules")));
        let met = heads.get();
        assert!(met >= 10 && drops.count() >= met as usize);
        sleep(tens(9)).await;
        assert_eq!(heads.get(), met, "nobody is left");
    });
}

#[test]
fn g7_a_panic_in_the_bodys_destructor_goes_through() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the body's destructor");
        }
    }
    virtually(async || {
        let drops = Drops::new();
        let inside = drops.clone();
        let ended = spawn(group(async move |g| {
            let _bomb = Bomb;
            drop(g.spawn(endless(inside)));
            drop(g.spawn(fails(1, "a child")));
            sleep(tens(100)).await;
            Ok(())
        }));
        let e = ended.await.expect_err("a panic is above errors");
        assert_eq!(e.panic_message(), Some("the body's destructor"));
        turns(2).await;
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn g7_a_cancel_beside_a_failure_still_cancels() {
    virtually(async || {
        let after = Rc::new(Cell::new(false));
        for turns_before in 1..5 {
            let reached = after.clone();
            let mut task = spawn(async move {
                let failed = group(async |g| {
                    drop(g.spawn(async {
                        turns(1).await;
                        Err::<(), _>("a child")
                    }));
                    sleep(tens(1)).await;
                    Ok(())
                });
                assert!(failed.await.is_err());
                sleep(tens(1)).await;
                reached.set(true);
            });
            turns(turns_before).await;
            assert!(task.cancel());
            assert!((&mut task).await.unwrap_err().is_cancelled(), "{turns_before}");
        }
        sleep(tens(3)).await;
        assert!(!after.get());
    });
}

#[test]
fn g7_a_cancelled_group_drops_its_body_too() {
    virtually(async || {
        let (children, body) = (Drops::new(), Drops::new());
        let (inside, guard) = (children.clone(), body.guard());
        let mut task = spawn(group(async move |g| {
            let _guard = guard;
            for _ in 0..5 {
                drop(g.spawn(endless(inside.clone())));
            }
            sleep(tens(100)).await;
            Ok(())
        }));
        sleep(tens(1)).await;
        assert!(!task.is_finished());
        task.cancel();
        assert!((&mut task).await.unwrap_err().is_cancelled());
        turns(1).await;
        assert_eq!((children.count(), body.count()), (5, 1));
    });
}

#[test]
fn g7_what_a_closed_group_refuses_is_dropped() {
    virtually(async || {
        let drops = Drops::new();
        let kept = group(async |g: &TaskGroup<()>| Ok(g.clone())).await.unwrap();
        let guard = drops.guard();
        let refused = catch_unwind(AssertUnwindSafe(|| {
            drop(kept.spawn(async move {
                let _guard = guard;
                Ok(())
            }));
        }));
        assert!(refused.is_err());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn g7_a_group_outside_a_loop_spawns_nothing() {
    let refused = Rc::new(RefCell::new(None));
    let out = refused.clone();
    let mut outside = Box::pin(group(async move |g: &TaskGroup<()>| {
        *out.borrow_mut() = Some(g.try_spawn(async { Ok(()) }).is_err());
        drop(g.spawn(async { Ok(()) }));
        Ok(())
    }));
    let polled = catch_unwind(AssertUnwindSafe(|| {
        outside.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }));
    let payload = polled.expect_err("there is no loop");
    let text = payload.downcast_ref::<&str>().unwrap();
    assert!(text.contains("running loop"), "{text}");
    assert_eq!(*refused.borrow(), Some(true));
    drop(outside);
    // Nothing of it stays.
    coreloop::run(sleep(Duration::from_millis(1))).unwrap();
}
