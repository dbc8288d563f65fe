//! What random programs against the plain model have found (`coreloop_tests::model`), each as a test of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use coreloop::{EventLoop, spawn};

/// Ends at once, and has woken itself before: its entry in the run queue outlives it.
async fn wakes_itself_and_ends() {
    std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(())
    })
    .await;
}

/// Goes to the end of the run queue.
async fn next_turn() {
    let mut woken = false;
    std::future::poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }
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
    let mut event_loop = EventLoop::new().unwrap();
    let started = Rc::new(Cell::new(false));
    let flag = started.clone();
    drop(event_loop.spawn(wakes_itself_and_ends()));
    let spawner = event_loop.spawn(async move {
        next_turn().await;
        drop(spawn(async move { flag.set(true) }));
    });
    let mut turn = || event_loop.turn(Some(Duration::ZERO));
    // In the second turn the run queue has what is left of the first task, and the spawner.
    turn();
    turn();
    assert!(spawner.is_finished() && !started.get(), "it starts in the turn after its spawn");
    turn();
    assert!(started.get());
}

/// Seed 1438.
#[test]
fn model_regress_a_new_task_does_not_inherit_a_place_in_the_run_queue() {
    coreloop::run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let (first, second) = (order.clone(), order.clone());
        drop(spawn(wakes_itself_and_ends()));
        let waits = spawn(async move {
            next_turn().await;
            first.borrow_mut().push("who was there");
        });
        let new = Rc::new(Cell::new(None));
        let handle = new.clone();
        let spawner = spawn(async move {
            let task = spawn(async move { second.borrow_mut().push("the new") });
            handle.set(Some(task));
        });
        spawner.await.unwrap();
        waits.await.unwrap();
        new.take().unwrap().await.unwrap();
        assert_eq!(*order.borrow(), ["who was there", "the new"]);
    })
    .unwrap();
}
