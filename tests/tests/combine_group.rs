//! Task groups (G7): nothing outlives one, the first failure ends the rest, every error is told.

use std::cell::Cell;
use std::rc::Rc;

use coreloop::combine::{Child, GroupError, TaskFailure, TaskGroup, group};
use coreloop::spawn;
use coreloop::time::sleep;
use coreloop_tests::drive::{Clock, Drops, tens, virtually};
use coreloop_tests::turns;

async fn ok(n: u64) -> Result<u64, &'static str> {
    sleep(tens(n)).await;
    Ok(n)
}

async fn fails(n: u64, why: &'static str) -> Result<u64, &'static str> {
    sleep(tens(n)).await;
    Err(why)
}

/// A child that never ends, whose destructor is counted.
async fn endless(drops: Drops) -> Result<u64, &'static str> {
    let _guard = drops.guard();
    std::future::pending().await
}

/// (child, error) of each failure; panics by their message.
fn told(e: GroupError<&'static str>) -> Vec<(Option<usize>, String)> {
    let told = e.into_failures().into_iter().map(|f| match f.reason {
        TaskFailure::Error(e) => (f.child, e.to_owned()),
        TaskFailure::Join(e) => (f.child, e.panic_message().unwrap_or("no message").to_owned()),
    });
    told.collect()
}

#[test]
fn g7_leaving_the_scope_waits_for_all() {
    virtually(async || {
        let clock = Clock::new();
        let ended = Rc::new(Cell::new(0));
        let count = ended.clone();
        let value = group(async |g: &TaskGroup<&str>| {
            for n in 1..4 {
                let count = count.clone();
                drop(g.spawn(async move {
                    sleep(tens(n)).await;
                    count.set(count.get() + 1);
                    Ok(())
                }));
            }
            assert_eq!((g.len(), g.is_empty()), (3, false));
            Ok("value of the body")
        });
        assert_eq!(value.await.unwrap(), "value of the body");
        assert_eq!((ended.get(), clock.tens()), (3, 3));
    });
}

#[test]
fn g7_the_values_of_children_come_by_their_handles() {
    virtually(async || {
        let sum = group(async |g| {
            let (a, b) = (g.spawn(ok(1)), g.spawn(ok(2)));
            assert_eq!((a.number(), b.number()), (0, 1));
            assert!(a.id() != b.id() && !a.is_finished());
            Ok(a.await.unwrap() + b.await.unwrap())
        });
        assert_eq!(sum.await.unwrap(), 3);
        assert_eq!(group(async |_: &TaskGroup<()>| Ok(7)).await.unwrap(), 7);
    });
}

#[test]
fn g7_the_first_failure_cancels_the_siblings_and_waits_for_them() {
    virtually(async || {
        let (clock, drops) = (Clock::new(), Drops::new());
        let inside = drops.clone();
        let body_guard = drops.guard();
        let result = group(async move |g| {
            let _guard = body_guard;
            for _ in 0..4 {
                drop(g.spawn(endless(inside.clone())));
            }
            drop(g.spawn(fails(3, "429")));
            sleep(tens(100)).await;
            Ok(())
        });
        let e = result.await.expect_err("one was refused");
        assert_eq!((clock.tens(), drops.count()), (3, 5), "four siblings and the body are gone");
        assert_eq!(e.to_string(), "1 failed in a group: child 4: 429");
        assert_eq!(told(e), [(Some(4), "429".to_owned())]);
    });
}

#[test]
fn g7_every_error_is_reported() {
    virtually(async || {
        struct Sore;
        impl Drop for Sore {
            fn drop(&mut self) {
                panic!("in a destructor");
            }
        }
        let result = group(async |g| {
            // Three are due in the same turn, one fails by being cancelled, two don't fail.
            drop(g.spawn(fails(2, "first")));
            drop(g.spawn(fails(2, "second")));
            let panics = async {
                sleep(tens(2)).await;
                panic!("third")
            };
            drop::<Child<()>>(g.spawn(panics));
            drop(g.spawn(async {
                let _sore = Sore;
                ok(100).await
            }));
            drop(g.spawn(ok(1)));
            drop(g.spawn(fails(3, "never told: it was cancelled")));
            Ok(())
        });
        let told = told(result.await.unwrap_err());
        let expected = [(0, "first"), (1, "second"), (2, "third"), (3, "in a destructor")];
        assert_eq!(told, expected.map(|(child, e)| (Some(child), e.to_owned())));
    });
}

#[test]
fn g7_errors_of_the_body_and_of_children_are_all_told() {
    virtually(async || {
        let drops = Drops::new();
        let inside = drops.clone();
        let result = group(async move |g| {
            drop(g.spawn(endless(inside)));
            turns(2).await;
            Err::<(), _>("the body gave up")
        });
        assert_eq!(told(result.await.unwrap_err()), [(None, "the body gave up".to_owned())]);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn g7_a_panic_of_a_child_is_the_groups_error() {
    virtually(async || {
        let drops = Drops::new();
        let inside = drops.clone();
        let result = group(async move |g| {
            drop(g.spawn(endless(inside)));
            let child = g.spawn(async { panic!("a child's panic") });
            let never: Result<u64, _> = child.await;
            // It may see that the child failed before it is dropped itself, or not.
            assert!(never.is_err());
            std::future::pending::<Result<(), &str>>().await
        });
        assert_eq!(told(result.await.unwrap_err()), [(Some(1), "a child's panic".to_owned())]);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn g7_a_panic_of_the_body_cancels_the_children() {
    virtually(async || {
        let drops = Drops::new();
        let inside = drops.clone();
        let outer = spawn(group(async move |g| {
            drop(g.spawn(endless(inside)));
            turns(2).await;
            assert!(g.is_empty(), "the body panics");
            Ok(())
        }));
        let e = outer.await.expect_err("the panic goes through");
        assert!(e.panic_message().unwrap().contains("the body panics"));
        turns(1).await;
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn g7_children_add_children() {
    virtually(async || {
        fn add(g: &TaskGroup<&'static str>, depth: u64, ended: &Rc<Cell<u64>>) {
            let (inner, count) = (g.clone(), ended.clone());
            drop(g.spawn(async move {
                sleep(tens(1)).await;
                if depth > 0 {
                    add(&inner, depth - 1, &count);
                    add(&inner, depth - 1, &count);
                }
                count.set(count.get() + 1);
                Ok(())
            }));
        }
        let (clock, ended) = (Clock::new(), Rc::new(Cell::new(0)));
        let count = ended.clone();
        group(async move |g| {
            add(g, 3, &count);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((ended.get(), clock.tens()), (15, 4));
    });
}

#[test]
fn g7_a_child_cancelled_by_itself_is_no_failure() {
    virtually(async || {
        let drops = Drops::new();
        let inside = drops.clone();
        let value = group(async move |g| {
            let one = g.spawn(endless(inside));
            let two = g.spawn(ok(2));
            turns(2).await;
            assert!(one.cancel());
            turns(2).await;
            assert!(one.is_cancelled() && one.await.is_err());
            Ok(two.await.unwrap())
        });
        assert_eq!((value.await.unwrap(), drops.count()), (2, 1));
    });
}

#[test]
fn g7_the_body_may_cancel_all_and_go_on() {
    virtually(async || {
        let drops = Drops::new();
        let inside = drops.clone();
        let value = group(async move |g| {
            drop(g.spawn(endless(inside.clone())));
            turns(2).await;
            g.cancel();
            turns(2).await;
            assert_eq!((inside.count(), g.len()), (1, 0));
            Ok("after all")
        });
        assert_eq!(value.await.unwrap(), "after all");
    });
}

#[test]
fn g7_groups_nest_and_an_inner_failure_is_handled_where_it_is() {
    virtually(async || {
        let clock = Clock::new();
        let outer = group(async |outer| {
            let sibling = outer.spawn(ok(5));
            let inner = group(async |g| {
                drop(g.spawn(fails(2, "inner")));
                drop(g.spawn(ok(9)));
                Ok(())
            });
            assert_eq!(told(inner.await.unwrap_err()).len(), 1);
            Ok(sibling.await.unwrap())
        });
        assert_eq!((outer.await.unwrap(), clock.tens()), (5, 5));
        // A failure without cancels what the inner group has.
        let drops = Drops::new();
        let inside = drops.clone();
        let outer = group(async move |outer| {
            drop(outer.spawn(fails(1, "outer")));
            group(async |g| {
                drop(g.spawn(endless(inside)));
                Ok::<_, &str>(())
            })
            .await
            .map_err(|_| "inner")
        });
        assert_eq!(told(outer.await.unwrap_err()), [(Some(0), "outer".to_owned())]);
        turns(1).await;
        assert_eq!(drops.count(), 1);
    });
}
