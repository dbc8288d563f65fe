//! A latency goal bounds how long a queue's tasks wait while others have much to do.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use coreloop::sched::TaskQueue;
use coreloop::sim::{Faults, Sim};
use coreloop::time::{Instant, sleep_until};
use coreloop::{Settings, yield_now};
use coreloop_tests::net;

/// What one poll of the bulk computes.
const POLL: Duration = Duration::from_micros(20);
const GOAL: Duration = Duration::from_micros(100);

/// Tasks that have something to do all the time: once around takes 20 ms.
const BULK: usize = 1_000;

/// How late, at most, one is polled who wakes a hundred times while a bulk of tasks is always ready;
/// `queue` makes the queue that it is in.
fn latest(queue: impl Fn() -> TaskQueue + 'static) -> Duration {
    let settings = Settings::default().timer_resolution(Duration::from_micros(1));
    let sim = Sim::builder().seed(3).faults(Faults::none()).settings(settings).build();
    let own = sim.clone();
    let latest = Rc::new(Cell::new(Duration::ZERO));
    let told = latest.clone();
    sim.client("one", async move || {
        let bulk = TaskQueue::of_main();
        for _ in 0..BULK {
            let own = own.clone();
            drop(bulk.spawn(async move {
                loop {
                    own.compute(POLL);
                    yield_now().await;
                }
            }));
        }
        let urgent = queue().spawn(async move {
            for i in 0..100 {
                let at = Instant::now() + Duration::from_micros(1_000 + 37 * i);
                sleep_until(at).await;
                told.set(told.get().max(at.elapsed()));
            }
        });
        urgent.await.unwrap();
    });
    sim.run().unwrap();
    latest.get()
}

#[test]
fn sched_a_latency_goal_bounds_the_wait_beside_a_bulk() {
    let alike = latest(TaskQueue::of_main);
    assert!(alike >= Duration::from_millis(15), "in the line of the bulk: {alike:?}");
    let without = latest(|| TaskQueue::builder("urgent").build().unwrap());
    // A turn's quota and the rest of a poll.
    let quota = Duration::from_micros(500);
    assert!(without > 2 * (GOAL + POLL) && without <= quota + 2 * POLL, "without: {without:?}");
    let with = latest(|| TaskQueue::builder("urgent").latency(GOAL).build().unwrap());
    // What a step of a simulation takes, besides.
    let step = Duration::from_micros(3);
    assert!(with <= GOAL + POLL + step, "with a goal of {GOAL:?}: {with:?}");
}

/// In a simulation polls take no time unless they say so.
#[test]
fn sched_queues_are_served_beside_one_whose_polls_take_no_time() {
    for computes in [Duration::ZERO, Duration::from_micros(200)] {
        let sim = Sim::builder().seed(3).faults(Faults::none()).build();
        let own = sim.clone();
        sim.client("one", async move || {
            let other = TaskQueue::builder("other").build().unwrap();
            let ends = other.spawn(async move {
                own.compute(computes);
                yield_now().await;
            });
            for _ in 0..20_000 {
                yield_now().await;
            }
            assert!(ends.is_finished());
        });
        sim.run().unwrap();
    }
}

#[test]
fn sched_a_goal_may_be_set_later_and_be_lifted() {
    let later = || {
        let queue = TaskQueue::builder("urgent").build().unwrap();
        assert_eq!(queue.latency(), None);
        queue.set_latency(Some(GOAL)).unwrap();
        assert_eq!(queue.latency(), Some(GOAL));
        queue
    };
    assert!(latest(later) <= GOAL + POLL + Duration::from_micros(3));
    let lifted = move || {
        let queue = later();
        queue.set_latency(None).unwrap();
        queue
    };
    assert!(latest(lifted) > 2 * (GOAL + POLL));
}

/// Real sockets: an answer comes between the turns of an endless bulk, in the order of its queue.
#[test]
fn sched_io_of_an_urgent_queue_goes_on_beside_a_bulk() {
    coreloop::run(async {
        let bulk = TaskQueue::builder("bulk").shares(10).build().unwrap();
        for _ in 0..50 {
            drop(bulk.spawn(async {
                loop {
                    std::hint::black_box((0..1_000).sum::<u64>());
                    yield_now().await;
                }
            }));
        }
        let urgent = TaskQueue::builder("urgent").latency(GOAL).build().unwrap();
        let echoed = urgent.spawn(async {
            let (mut ours, mut theirs) = net::pair();
            for i in 0..200u8 {
                theirs.write_all(&[i]).unwrap();
                assert_eq!(&*ours.recv().await.unwrap().unwrap(), [i]);
            }
            net::echoes(4, 50).await.unwrap()
        });
        assert_eq!(echoed.await.unwrap(), 50);
        assert!(bulk.stats().polls > 0, "neither is kept out");
    })
    .unwrap();
}
