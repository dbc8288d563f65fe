//! How task groups end (G7): by a cancel, by a drop, and what is refused afterwards.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use coreloop::combine::{Child, TaskGroup, group, shield};
use coreloop::spawn;
use coreloop::time::{sleep, timeout};
use coreloop_tests::drive::{Drops, tens, virtually};
use coreloop_tests::turns;

type Log = Rc<RefCell<Vec<&'static str>>>;

async fn ok(n: u64) -> Result<u64, &'static str> {
    sleep(tens(n)).await;
    Ok(n)
}

/// A child that never ends, whose destructor is counted.
async fn endless(drops: Drops) -> Result<u64, &'static str> {
    let _guard = drops.guard();
    std::future::pending().await
}

#[test]
fn g7_a_group_that_is_cancelled_or_dropped_leaves_nobody() {
    virtually(async || {
        // Cancelled while the body runs, and while it waits for its children.
        for body_waits in [true, false] {
            let drops = Drops::new();
            let inside = drops.clone();
            let outer = spawn(group(async move |g| {
                drop(g.spawn(endless(inside.clone())));
                drop(g.spawn(endless(inside)));
                if body_waits {
                    sleep(tens(100)).await;
                }
                Ok(())
            }));
            turns(4).await;
            outer.cancel();
            assert!(outer.await.unwrap_err().is_cancelled());
            turns(1).await;
            assert_eq!(drops.count(), 2, "body_waits: {body_waits}");
        }
        // Let go of, not cancelled: the same.
        let drops = Drops::new();
        let inside = drops.clone();
        {
            let mut let_go = Box::pin(group(async move |g| {
                drop(g.spawn(endless(inside)));
                sleep(tens(100)).await;
                Ok(())
            }));
            assert!(coreloop_tests::poll_once(let_go.as_mut()).await.is_pending());
            turns(2).await;
        }
        turns(1).await;
        assert_eq!(drops.count(), 1);
        // By a limit.
        let drops = Drops::new();
        let inside = drops.clone();
        let limited = group(async move |g| {
            drop(g.spawn(endless(inside)));
            Ok(())
        });
        assert!(timeout(tens(2), limited).await.is_err());
        turns(1).await;
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn g7_a_child_spawned_while_the_group_ends_never_runs() {
    virtually(async || {
        let log: Log = Rc::default();
        let events = log.clone();
        let result = group(async move |g| {
            let (g, events) = (g.clone(), events.clone());
            struct Late(TaskGroup<&'static str>, Log);
            impl Drop for Late {
                fn drop(&mut self) {
                    let events = self.1.clone();
                    drop(self.0.spawn(async move {
                        events.borrow_mut().push("ran");
                        Ok(())
                    }));
                    self.1.borrow_mut().push("spawned");
                }
            }
            drop(g.spawn(async {
                sleep(tens(1)).await;
                Err::<(), _>("ends it")
            }));
            let late = Late(g.clone(), events);
            drop(g.spawn(async move {
                let _late = late;
                ok(100).await
            }));
            Ok(())
        });
        assert_eq!(result.await.unwrap_err().failures().len(), 1);
        turns(4).await;
        assert_eq!(*log.borrow(), ["spawned"]);
    });
}

#[test]
fn g7_a_group_used_after_its_end_says_so() {
    virtually(async || {
        let kept = group(async |g: &TaskGroup<&'static str>| Ok(g.clone())).await.unwrap();
        assert!(kept.is_closed());
        assert!(kept.try_spawn(ok(1)).is_err(), "the future comes back");
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop(kept.spawn(ok(1)));
        }));
        let payload = caught.expect_err("refused");
        let text = payload.downcast_ref::<&str>().unwrap();
        assert!(text.contains("after its end"), "{text}");
    });
}

#[test]
fn g7_a_shielded_group_ends_in_its_own_time() {
    virtually(async || {
        let ended = Rc::new(Cell::new(false));
        let seen = ended.clone();
        let mut task = spawn(group(async move |g: &TaskGroup<&str>| {
            drop(g.spawn(async move {
                sleep(tens(3)).await;
                seen.set(true);
                Ok(())
            }));
            Ok(())
        }));
        assert!(timeout(tens(1), shield(&mut task)).await.is_err());
        assert!(!ended.get());
        task.await.unwrap().unwrap();
        assert!(ended.get());
    });
}

/// Wherever a cancel strikes, nobody of the group is left two turns later: neither children nor theirs.
#[test]
fn g7_cancel_at_every_point() {
    virtually(async || {
        let mut grandchildren = 0;
        for point in 0..16 {
            let drops = Drops::new();
            let inside = drops.clone();
            let outer = spawn(group(async move |g| {
                for n in 0..4 {
                    let (guard, g, drops) = (inside.guard(), g.clone(), inside.clone());
                    let child: Child<()> = g.clone().spawn(async move {
                        let _guard = guard;
                        turns(n * 3).await;
                        drop(grandchild(&g, &drops));
                        if n == 3 { Err("the last one fails") } else { Ok(()) }
                    });
                    turns(1).await;
                    drop(child);
                }
                Ok(())
            }));
            turns(point).await;
            let before = drops.made();
            outer.cancel();
            let ended = outer.await;
            turns(2).await;
            // A child whose turn came before the cancel took effect may have made one more.
            let made = drops.made();
            assert_eq!(drops.count(), made, "all are gone: {point} turns, {ended:?}");
            turns(20).await;
            assert_eq!(drops.made(), made, "nobody comes later: {point} turns, {ended:?}");
            assert!(before >= point.min(4), "{point} turns");
            grandchildren += made.saturating_sub(4);
        }
        assert!(grandchildren > 0, "there were some to be left behind");
    });
}

/// A grandchild that only gives way, and whose end is counted.
fn grandchild(g: &TaskGroup<&'static str>, drops: &Drops) -> Child<()> {
    let guard = drops.guard();
    g.spawn(async move {
        let _guard = guard;
        turns(2).await;
        Ok(())
    })
}
