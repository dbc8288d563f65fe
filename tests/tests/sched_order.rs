//! Within a task queue the order is that of a core without others; between them whoever has used less is
//! first.
//!
//! That random programs run alike is in `model_programs.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coreloop::sched::TaskQueue;
use coreloop::sim::Sim;
use coreloop::sync::Event;
use coreloop::{EventLoop, spawn, yield_now};
use coreloop_tests::drive::virtually_with;
use coreloop_tests::turns;

fn queue(name: &str, shares: u32) -> TaskQueue {
    TaskQueue::builder(name).shares(shares).build().unwrap()
}

type Order = Rc<RefCell<Vec<u32>>>;

#[test]
fn sched_yields_go_round_robin_within_a_queue() {
    virtually_with(|_| async {
        let queues = [queue("a", 10), queue("b", 1_000), queue("c", 70)];
        let orders: Vec<(Order, Vec<_>)> = queues
            .iter()
            .map(|queue| {
                let order = Order::default();
                let tasks = (0..5).map(|i| {
                    let order = order.clone();
                    queue.spawn(async move {
                        for _ in 0..20 {
                            order.borrow_mut().push(i);
                            yield_now().await;
                        }
                    })
                });
                (order.clone(), tasks.collect())
            })
            .collect();
        for (order, tasks) in orders {
            for task in tasks {
                task.await.unwrap();
            }
            assert!(order.borrow().iter().copied().eq((0..100).map(|k| k % 5)));
        }
    });
}

/// Who gives way goes on before all that became ready in the turn that it gave way to, and after all that a
/// turn which was cut short has left.
#[test]
fn sched_giving_way_is_for_one_turn_of_the_queue() {
    virtually_with(|sim| async move {
        for cut_short in [false, true] {
            let queue = queue("q", 100);
            let order = Order::default();
            let (one, two) = (order.clone(), order.clone());
            let event = Rc::new(Event::new());
            let (wakes, woken) = (event.clone(), event);
            let three = order.clone();
            let third = queue.spawn(async move {
                woken.wait().await;
                three.borrow_mut().push(3);
            });
            turns(2).await;
            let own = sim.clone();
            let first = queue.spawn(async move {
                one.borrow_mut().push(1);
                yield_now().await;
                one.borrow_mut().push(11);
            });
            // Ready in the turn that the first gives way to.
            let second = queue.spawn(async move {
                yield_now().await;
                two.borrow_mut().push(2);
                wakes.set();
            });
            let computes = move || {
                if cut_short {
                    own.compute(Duration::from_millis(2));
                }
            };
            computes();
            for task in [first, second, third] {
                task.await.unwrap();
            }
            assert_eq!(*order.borrow(), [1, 11, 2, 3]);
        }
    });
}

/// What is ready when a turn begins is polled in it, of whichever queue; what becomes ready is not.
#[test]
fn sched_a_turn_polls_what_was_ready_when_it_began() {
    let mut event_loop = EventLoop::new().unwrap();
    let order = Order::default();
    let (tell, other) = (order.clone(), order.clone());
    event_loop.block_on(async move {
        let (a, b) = (queue("a", 1_000), queue("b", 1));
        drop(a.spawn(async move {
            tell.borrow_mut().push(1);
            let inner = tell.clone();
            drop(spawn(async move { inner.borrow_mut().push(3) }));
        }));
        drop(b.spawn(async move { other.borrow_mut().push(2) }));
    });
    assert!(order.borrow().is_empty());
    event_loop.turn(Some(Duration::ZERO));
    assert_eq!(*order.borrow(), [1, 2]);
    event_loop.turn(Some(Duration::ZERO));
    assert_eq!(*order.borrow(), [1, 2, 3]);
}

#[test]
fn sched_the_end_of_the_main_future_ends_the_turn() {
    let mut event_loop = EventLoop::new().unwrap();
    let polls = Rc::new(Cell::new(0));
    let counts = polls.clone();
    let queue = event_loop.block_on(async move {
        let queue = queue("q", 10_000);
        drop(queue.spawn(async move {
            loop {
                counts.set(counts.get() + 1);
                yield_now().await;
            }
        }));
        turns(3).await;
        queue
    });
    let before = polls.get();
    assert!(before > 0);
    let turn = event_loop.turn(Some(Duration::ZERO));
    assert!(polls.get() > before && turn.ready && turn.tasks == 1);
    drop(queue);
    let after = polls.get();
    assert!(event_loop.turn(None).ready && polls.get() > after, "without its handle it runs on");
}

/// Locks and channels between queues: who is woken is polled in the order of its own queue.
#[test]
fn sched_queues_wake_each_other() {
    for seed in 0..20 {
        let sim = Sim::builder().seed(seed).build();
        let own = sim.clone();
        sim.client("two", async move || {
            let (a, b) = (queue("a", 30), queue("b", 3_000));
            let (there, back) = (Rc::new(Event::new()), Rc::new(Event::new()));
            let count = Rc::new(Cell::new(0));
            let tasks = [(&a, &there, &back, 0), (&b, &back, &there, 1)].map(
                |(queue, mine, theirs, id)| {
                    let (mine, theirs, count) = (mine.clone(), theirs.clone(), count.clone());
                    let own = own.clone();
                    queue.spawn(async move {
                        for i in 0..50 {
                            if id == 0 || i > 0 {
                                mine.wait().await;
                                mine.clear();
                            }
                            assert_eq!(count.get() % 2, 1 - id, "in turns");
                            count.set(count.get() + 1);
                            own.compute(Duration::from_micros(own.random() % 300));
                            theirs.set();
                        }
                    })
                },
            );
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(count.get(), 100);
        });
        sim.run().unwrap();
    }
}
