//! Queues: order, bounds, promises to waiters, join and shutdown as CPython 3.13 has them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coreloop::spawn;
use coreloop::sync::{LifoQueue, PriorityQueue, Queue, TryGetError, TryPutError};
use coreloop::time::timeout;
use coreloop_tests::{ByHand, now, turns};

#[test]
fn p1_queue_gives_out_in_its_order() {
    let (fifo, lifo) = (Queue::unbounded(), Queue::unbounded_lifo());
    let sorted = Queue::unbounded_priority();
    for n in [1, 3, 2] {
        now(fifo.put(n)).unwrap();
        now(lifo.put(n)).unwrap();
        now(sorted.put((n % 2, n))).unwrap();
    }
    let taken = |get: &dyn Fn() -> i32| [get(), get(), get()];
    assert_eq!(taken(&|| now(fifo.get()).unwrap()), [1, 3, 2]);
    assert_eq!(taken(&|| now(lifo.get()).unwrap()), [2, 3, 1]);
    assert_eq!(taken(&|| now(sorted.get()).unwrap().1), [2, 1, 3]);
}

#[test]
fn p1_queue_priority_equal_items_come_out_in_the_order_of_arrival() {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Urgent(bool);
    struct Job(Urgent, u32);
    impl PartialEq for Job {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Job {}
    impl PartialOrd for Job {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Job {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            self.0.cmp(&other.0)
        }
    }
    let queue = Queue::bounded_priority(100);
    (0..100).for_each(|n| queue.try_put(Job(Urgent(n % 2 == 0), n)).unwrap());
    let mut out = Vec::new();
    while let Ok(job) = queue.try_get() {
        out.push(job.1);
    }
    let expected: Vec<u32> = (0..100).filter(|n| n % 2 == 1).chain((0..100).step_by(2)).collect();
    assert_eq!(out, expected);
}

#[test]
fn p1_queue_a_full_one_makes_putters_wait_in_turn() {
    let queue = Queue::bounded(2);
    assert!(queue.is_empty() && !queue.is_full() && queue.capacity() == Some(2));
    now(queue.put(0)).unwrap();
    now(queue.put(1)).unwrap();
    assert!(queue.is_full() && queue.len() == 2);
    assert_eq!(queue.try_put(9), Err(TryPutError::Full(9)));
    let (a, b) = (ByHand::pending(queue.put(2)), ByHand::pending(queue.put(3)));
    assert_eq!(now(queue.get()), Ok(0));
    assert!(a.woken() && !b.woken());
    assert_eq!(queue.try_put(9), Err(TryPutError::Full(9)), "the place is promised");
    a.finish().unwrap();
    assert_eq!(now(queue.get()), Ok(1));
    b.finish().unwrap();
    assert_eq!((now(queue.get()), now(queue.get())), (Ok(2), Ok(3)));
    assert_eq!(Queue::<u8>::unbounded().capacity(), None);
}

#[test]
fn p1_queue_getters_are_promised_items_in_turn() {
    let queue = Queue::unbounded();
    assert_eq!(queue.try_get(), Err(TryGetError::Empty));
    let (a, b) = (ByHand::pending(queue.get()), ByHand::pending(queue.get()));
    queue.try_put(1).unwrap();
    assert!(a.woken() && !b.woken());
    assert_eq!((queue.try_get(), queue.len()), (Err(TryGetError::Empty), 1));
    queue.try_put(2).unwrap();
    assert_eq!((a.finish(), b.finish()), (Ok(1), Ok(2)));
}

#[test]
fn p1_queue_a_cancelled_getter_loses_no_item_and_no_turn() {
    let queue = Queue::unbounded();
    // Waiting.
    let (a, b) = (ByHand::pending(queue.get()), ByHand::pending(queue.get()));
    drop(a);
    queue.try_put(1).unwrap();
    assert_eq!(b.finish(), Ok(1));
    // Promised one, with another getter behind it, or with none.
    let (a, b) = (ByHand::pending(queue.get()), ByHand::pending(queue.get()));
    queue.try_put(2).unwrap();
    drop(a);
    assert_eq!(b.finish(), Ok(2));
    let a = ByHand::pending(queue.get());
    queue.try_put(3).unwrap();
    queue.try_put(4).unwrap();
    drop(a);
    assert_eq!((queue.try_get(), queue.try_get()), (Ok(3), Ok(4)), "in their order");
    // Three, of which the first goes.
    let mut line: Vec<_> = (0..3).map(|_| ByHand::pending(queue.get())).collect();
    queue.try_put(5).unwrap();
    queue.try_put(6).unwrap();
    line.remove(0);
    let got: Vec<_> = line.into_iter().map(|getter| getter.finish().unwrap()).collect();
    assert_eq!(got, [5, 6]);
}

#[test]
fn p1_queue_a_cancelled_putter_puts_nothing_and_passes_its_place_on() {
    let queue = Queue::bounded(1);
    queue.try_put(1).unwrap();
    let (a, b) = (ByHand::pending(queue.put(2)), ByHand::pending(queue.put(3)));
    let c = ByHand::pending(queue.put(4));
    assert_eq!(queue.try_get(), Ok(1));
    assert!(a.woken());
    drop(a);
    drop(c);
    b.finish().unwrap();
    assert_eq!((queue.try_get(), queue.len()), (Ok(3), 0));
    assert!(queue.try_put(5).is_ok());
}

#[test]
fn p1_queue_cancelled_waiters_are_not_kept() {
    coreloop::run(async {
        let queue = Queue::bounded(1);
        assert!(timeout(Duration::from_millis(1), queue.get()).await.is_err());
        queue.try_put(1).unwrap();
        assert!(timeout(Duration::from_millis(1), queue.put(2)).await.is_err());
        let shown = format!("{queue:?}");
        assert!(shown.contains("getters: 0, putters: 0"), "{shown}");
    })
    .unwrap();
}

#[test]
fn p1_queue_tasks_on_both_sides_finish() {
    coreloop::run(async {
        let queue = Rc::new(Queue::bounded(1));
        let (from, to) = (queue.clone(), queue.clone());
        let producer = spawn(async move {
            for n in 0..5 {
                from.put(n).await.unwrap();
            }
        });
        let consumer = spawn(async move {
            let mut got = Vec::new();
            for _ in 0..5 {
                got.push(to.get().await.unwrap());
            }
            got
        });
        producer.await.unwrap();
        assert_eq!(consumer.await.unwrap(), [0, 1, 2, 3, 4]);
    })
    .unwrap();
}

#[test]
fn p1_queue_join_waits_until_all_is_done() {
    coreloop::run(async {
        let queue = Rc::new(LifoQueue::<u32>::unbounded_lifo());
        queue.join().await;
        (0..100).for_each(|n| queue.try_put(n).unwrap());
        let sum = Rc::new(Cell::new(0));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, sum) = (queue.clone(), sum.clone());
                spawn(async move {
                    while let Ok(n) = queue.get().await {
                        turns(1).await;
                        sum.set(sum.get() + n);
                        queue.task_done();
                    }
                })
            })
            .collect();
        queue.join().await;
        assert_eq!(sum.get(), 99 * 100 / 2);
        queue.shutdown();
        for worker in workers {
            worker.await.unwrap();
        }
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "task_done was called more often than items were put")]
fn p1_queue_task_done_once_too_often() {
    Queue::<u8>::unbounded().task_done();
}

#[test]
#[should_panic(expected = "a queue needs at least one place")]
fn p1_queue_without_a_place_is_refused() {
    let _ = Queue::<u8>::bounded(0);
}

/// After a shutdown with nothing left, all four ways in and out say so.
#[track_caller]
fn assert_shut(queue: &Queue<u8>) {
    assert!(now(queue.put(9)).is_err() && now(queue.get()).is_err() && queue.is_shutdown());
    assert_eq!(queue.try_put(9), Err(TryPutError::ShutDown(9)));
    assert_eq!(queue.try_get(), Err(TryGetError::ShutDown));
}

#[test]
fn p1_queue_shutdown_of_an_empty_one() {
    let queue = Queue::unbounded();
    let getter = ByHand::pending(queue.get());
    queue.shutdown();
    now(queue.join());
    assert!(getter.finish().is_err());
    assert_shut(&queue);
}

#[test]
fn p1_queue_shutdown_lets_out_what_is_in() {
    let queue = Queue::bounded(1);
    queue.try_put(1).unwrap();
    let join = ByHand::pending(queue.join());
    let putter = ByHand::pending(queue.put(2));
    queue.shutdown();
    assert_eq!(putter.finish().unwrap_err().0, 2);
    assert_eq!((queue.try_put(3), queue.len()), (Err(TryPutError::ShutDown(3)), 1));
    assert_eq!(now(queue.get()), Ok(1));
    assert!(!join.woken());
    assert_shut(&queue);
    queue.task_done();
    join.finish();
}

#[test]
fn p1_queue_shutdown_now_drops_what_is_in() {
    let queue = Queue::unbounded();
    queue.try_put(1).unwrap();
    queue.try_put(2).unwrap();
    let join = ByHand::pending(queue.join());
    assert_eq!(now(queue.get()), Ok(1));
    queue.shutdown_now();
    assert_eq!(queue.len(), 0);
    assert!(!join.woken(), "one is still being worked on");
    assert_shut(&queue);
    queue.task_done();
    join.finish();
    let queue = Queue::unbounded();
    queue.try_put(1).unwrap();
    let join = ByHand::pending(queue.join());
    queue.shutdown_now();
    join.finish();
    assert_shut(&queue);
}

#[test]
fn p1_queue_shutdown_keeps_its_promises_and_shutdown_now_breaks_them() {
    let queue = Queue::bounded(1);
    let (a, b) = (ByHand::pending(queue.get()), ByHand::pending(queue.get()));
    queue.try_put(1).unwrap();
    queue.shutdown();
    assert!(!b.woken(), "the item may still fall to it");
    drop(a);
    assert_eq!(b.finish(), Ok(1));
    assert_shut(&queue);
    let queue = Queue::bounded(1);
    let (a, b) = (ByHand::pending(queue.get()), ByHand::pending(queue.get()));
    queue.try_put(1).unwrap();
    queue.shutdown();
    assert_eq!(a.finish(), Ok(1));
    assert!(b.finish().is_err());
    let queue = Queue::bounded(1);
    let a = ByHand::pending(queue.get());
    queue.try_put(1).unwrap();
    queue.shutdown_now();
    assert!(a.finish().is_err());
    // A place that was promised is not filled after a shutdown.
    let queue = Queue::bounded(1);
    queue.try_put(1).unwrap();
    let putter = ByHand::pending(queue.put(2));
    assert_eq!(queue.try_get(), Ok(1));
    queue.shutdown();
    assert!(putter.finish().is_err() && queue.is_empty());
    assert_shut(&queue);
}

#[test]
fn p1_queue_an_items_destructor_may_use_the_queue() {
    struct Item(Rc<Queue<Item>>, Rc<RefCell<Vec<usize>>>);
    impl Drop for Item {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0.len());
            assert!(self.0.try_get().is_err());
        }
    }
    let (queue, seen) = (Rc::new(Queue::unbounded()), Rc::default());
    queue.try_put(Item(queue.clone(), Rc::clone(&seen))).unwrap();
    queue.try_put(Item(queue.clone(), Rc::clone(&seen))).unwrap();
    queue.shutdown_now();
    assert_eq!(*seen.borrow(), [0, 0]);
}

/// A comparison that uses the queue which it is a part of panics there, and leaves the queue's books right.
#[test]
fn p1_queue_a_comparison_that_uses_the_queue_panics_and_leaves_it_whole() {
    type Uses = fn(&PriorityQueue<Item>);
    #[derive(Debug, PartialEq, Eq)]
    struct Item(u8);
    thread_local! {
        static USES: Cell<Option<Uses>> = const { Cell::new(None) };
        static QUEUE: RefCell<Option<Rc<PriorityQueue<Item>>>> = const { RefCell::new(None) };
    }
    impl PartialOrd for Item {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Item {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            if let Some(uses) = USES.take() {
                uses(&QUEUE.with_borrow(Clone::clone).unwrap());
            }
            self.0.cmp(&other.0)
        }
    }
    let panics = |uses: Uses, f: &dyn Fn()| {
        USES.set(Some(uses));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err());
        assert!(USES.take().is_none(), "nothing was compared");
    };
    let uses: [Uses; 3] = [
        |queue| drop(queue.try_put(Item(9))),
        |queue| drop(queue.try_get()),
        |queue| queue.shutdown_now(),
    ];
    for uses in uses {
        let queue = Rc::new(Queue::bounded_priority(4));
        QUEUE.set(Some(queue.clone()));
        queue.try_put(Item(1)).unwrap();
        queue.try_put(Item(2)).unwrap();
        panics(uses, &|| drop(queue.try_put(Item(3))));
        assert_eq!((queue.len(), queue.is_full()), (3, false), "the outer one got in");
        panics(uses, &|| drop(queue.try_get()));
        assert_eq!(queue.len(), 2, "and one out");
        assert_eq!([queue.try_get(), queue.try_get()].map(|item| item.is_ok()), [true; 2]);
        assert_eq!(queue.try_get(), Err(TryGetError::Empty));
        (0..3).for_each(|_| queue.task_done());
        now(queue.join());
        (0..4).for_each(|n| queue.try_put(Item(n)).unwrap());
        assert!(matches!(queue.try_put(Item(4)), Err(TryPutError::Full(Item(4)))));
        // Also where the last one out tells those who wait that no more comes.
        queue.shutdown();
        panics(|queue| drop(queue.try_get()), &|| drop(queue.try_get()));
        assert_eq!([0; 3].map(|_| queue.try_get().is_ok()), [true; 3]);
        assert_eq!(queue.try_get(), Err(TryGetError::ShutDown));
    }
}

#[test]
fn p1_queue_a_comparison_that_panics_loses_no_place_and_no_item() {
    #[derive(PartialEq, Eq, Debug)]
    struct Odd(u8, bool);
    impl PartialOrd for Odd {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Odd {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            assert!(!self.1 && !other.1, "not to be compared");
            self.0.cmp(&other.0)
        }
    }
    let queue = Queue::bounded_priority(2);
    queue.try_put(Odd(1, false)).unwrap();
    let put = std::panic::AssertUnwindSafe(|| queue.try_put(Odd(2, true)));
    assert!(std::panic::catch_unwind(put).is_err());
    assert_eq!(queue.len(), 2);
    assert!(queue.is_full());
    assert!(queue.try_get().is_ok() && queue.try_get().is_ok());
    assert!(queue.try_put(Odd(3, false)).is_ok() && queue.try_put(Odd(4, false)).is_ok());
}
