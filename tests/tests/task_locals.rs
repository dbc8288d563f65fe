//! Values travel with a task, and a child can inherit them (T11).

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use coreloop::task::{NotSet, inherit};
use coreloop::time::timeout;
use coreloop::{spawn, task_local, yield_now};
use coreloop_tests::drive::Drops;
use coreloop_tests::turns;

task_local! {
    static REQUEST: u32;
    /// With interior mutability it is shared by all that inherit it.
    pub static COUNT: Rc<Cell<u32>>;
}

#[test]
fn t11_a_value_travels_with_its_task_and_with_no_other() {
    coreloop::run(async {
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                spawn(REQUEST.scope(n, async move {
                    for _ in 0..3 {
                        assert_eq!(REQUEST.get(), n);
                        yield_now().await;
                    }
                    REQUEST.with(|v| *v)
                }))
            })
            .collect();
        for (n, task) in (0..).zip(tasks) {
            assert!(REQUEST.try_get().is_err(), "the main future has none");
            assert_eq!(task.await.unwrap(), n);
        }
    })
    .unwrap();
}

#[test]
fn t11_a_child_inherits_what_it_is_told_to() {
    coreloop::run(REQUEST.scope(1, async {
        let heir = spawn(inherit(async { REQUEST.get() }));
        let stranger = spawn(async { REQUEST.try_get() });
        // A later scope out here is not seen in there, nor the other way round.
        let inner = REQUEST.scope(2, async {
            let deep = spawn(inherit(async {
                yield_now().await;
                let own = REQUEST.scope(3, async { REQUEST.get() }).await;
                (REQUEST.get(), own)
            }));
            assert_eq!(REQUEST.get(), 2);
            deep.await.unwrap()
        });
        assert_eq!(inner.await, (2, 3));
        assert_eq!(REQUEST.get(), 1);
        assert_eq!(heir.await.unwrap(), 1);
        let e: NotSet = stranger.await.unwrap().unwrap_err();
        assert!(e.to_string().contains("task::inherit"));
    }))
    .unwrap();
}

#[test]
fn t11_several_locals_and_scopes_nest() {
    let count = Rc::new(Cell::new(0));
    let inner = REQUEST.scope(7, async {
        COUNT.with(|c| c.set(c.get() + REQUEST.get()));
        spawn(inherit(async { COUNT.with(|c| c.set(c.get() * 2)) })).await.unwrap();
        assert_eq!(COUNT.get().get(), 14);
    });
    coreloop::run(COUNT.scope(count.clone(), inner)).unwrap();
    assert_eq!(Rc::strong_count(&count), 1, "nobody holds the value any more");
}

/// A task that hands on to its successor does not hand on what it had replaced.
#[test]
fn t11_inheriting_for_ever_keeps_one_value() {
    task_local! {
        static GUARD: coreloop_tests::drive::DropGuard;
    }
    fn step(n: u32, drops: Drops, most: Rc<Cell<u32>>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            if n == 0 {
                return;
            }
            let next = step(n - 1, drops.clone(), most.clone());
            let alive = 2_000 - n - drops.count() as u32;
            most.set(most.get().max(alive));
            let hand_on = async move { drop(spawn(inherit(next))) };
            GUARD.scope(drops.guard(), REQUEST.scope(n, hand_on)).await;
        })
    }
    let (drops, most) = (Drops::new(), Rc::new(Cell::new(0)));
    coreloop::run(async {
        step(2_000, drops.clone(), most.clone()).await;
        turns(2_010).await;
    })
    .unwrap();
    assert_eq!(drops.count(), 2_000);
    assert!(most.get() < 5, "{} values alive at a time", most.get());
}

#[test]
fn t11_the_value_is_there_while_a_cancelled_future_is_dropped() {
    struct Asks(Rc<Cell<Option<u32>>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            self.0.set(REQUEST.try_get().ok());
        }
    }
    coreloop::run(async {
        let seen = Rc::new(Cell::new(None));
        let asks = Asks(seen.clone());
        let task = spawn(REQUEST.scope(9, async move {
            let _asks = asks;
            std::future::pending::<()>().await;
        }));
        yield_now().await;
        task.cancel();
        assert!(task.await.is_err());
        assert_eq!(seen.get(), Some(9));
        assert!(REQUEST.try_get().is_err());
    })
    .unwrap();
}

#[test]
fn t11_a_panic_leaves_no_value_behind() {
    coreloop::run(async {
        let drops = Drops::new();
        let guard = drops.guard();
        let task = spawn(REQUEST.scope(4, async move {
            let _guard = guard;
            assert!(REQUEST.get() == 5, "on purpose");
        }));
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(drops.count(), 1);
        assert!(REQUEST.try_get().is_err());
        let limited =
            timeout(Duration::from_millis(1), REQUEST.scope(6, std::future::pending::<()>()));
        assert!(limited.await.is_err() && REQUEST.try_get().is_err());
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "this task-local is not set here: use it within its `scope`")]
fn t11_asking_where_it_is_not_set_panics_with_a_hint() {
    REQUEST.get();
}
