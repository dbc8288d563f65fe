//! What random programs against the plain model have found (`coreloop_tests::model`), each as a test of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;

use coreloop::{spawn, yield_now};

/// Ends at once, and has woken itself before: its entry in the run queue outlives it.
async fn wakes_itself_and_ends() {
    std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(())
    })
    .await;
}

#[test]
fn model_regress_what_the_last_poll_of_the_main_future_spawned_never_starts() {
    let started = Rc::new(Cell::new(0));
    let count = started.clone();
    coreloop::run(async move {
        for _ in 0..3 {
            let count = count.clone();
            drop(spawn(async move { count.set(count.get() + 1) }));
        }
    })
    .unwrap();
    assert_eq!(started.get(), 0);
}

/// Seed 1438.
#[test]
fn model_regress_a_task_that_is_gone_gives_its_turn_to_nobody() {
    coreloop::run(async {
        drop(spawn(wakes_itself_and_ends()));
        let started = Rc::new(Cell::new(false));
        let flag = started.clone();
        let spawner = spawn(async move {
            yield_now().await;
            drop(spawn(async move { flag.set(true) }));
        });
        spawner.await.unwrap();
        assert!(
            !started.get(),
            "it was spawned in the turn before this one, and starts in this one"
        );
    })
    .unwrap();
}

/// Seed 1438.
#[test]
fn model_regress_a_new_task_does_not_inherit_a_place_in_the_run_queue() {
    coreloop::run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let (first, second) = (order.clone(), order.clone());
        drop(spawn(wakes_itself_and_ends()));
        let waits = spawn(async move {
            yield_now().await;
            first.borrow_mut().push("who was there");
        });
        let spawner = spawn(async move {
            drop(spawn(async move { second.borrow_mut().push("the new") }));
        });
        spawner.await.unwrap();
        waits.await.unwrap();
        yield_now().await;
        assert_eq!(*order.borrow(), ["who was there", "the new"]);
    })
    .unwrap();
}
