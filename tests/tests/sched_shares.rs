//! Task queues get CPU time by their shares: in virtual time to the poll, and on the real clock.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coreloop::sched::TaskQueue;
use coreloop::sim::Sim;
use coreloop::task::JoinHandle;
use coreloop::time::sleep;
use coreloop::{EventLoop, QueueStats, yield_now};
use coreloop_tests::drive::virtually_with;
use coreloop_tests::process::thread_cpu;

/// Virtual time that some tasks computed.
type Used = Rc<Cell<Duration>>;

/// A task that computes for `d` at a time, for ever.
fn hog(sim: &Sim, queue: &TaskQueue, used: &Used, d: Duration) -> JoinHandle<()> {
    let (sim, used) = (sim.clone(), used.clone());
    queue.spawn(async move {
        loop {
            sim.compute(d);
            used.set(used.get() + d);
            yield_now().await;
        }
    })
}

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn queue(name: &str, shares: u32) -> TaskQueue {
    TaskQueue::builder(name).shares(shares).build().unwrap()
}

/// How many times `a` is in `b`.
fn ratio(a: Duration, b: Duration) -> f64 {
    b.as_secs_f64() / a.as_secs_f64()
}

#[track_caller]
fn near(is: f64, wanted: f64, tolerance: f64) {
    assert!((is / wanted - 1.0).abs() <= tolerance, "{is:.3}, not {wanted} within {tolerance}");
}

#[test]
fn sched_ten_and_a_thousand_shares_split_the_time() {
    virtually_with(|sim| async move {
        let (poor, rich) = (queue("poor", 10), queue("rich", 1_000));
        let (a, b) = (Used::default(), Used::default());
        // More tasks and longer polls are no advantage.
        let poor_tasks: Vec<_> = (0..5).map(|_| hog(&sim, &poor, &a, us(70))).collect();
        let rich_tasks: Vec<_> = (0..2).map(|_| hog(&sim, &rich, &b, us(20))).collect();
        sleep(Duration::from_secs(2)).await;
        near(ratio(a.get(), b.get()), 100.0, 0.02);
        near((a.get() + b.get()).as_secs_f64(), 2.0, 0.02);
        for (stats, used) in [(poor.stats(), a.get()), (rich.stats(), b.get())] {
            near(stats.cpu_time.as_secs_f64(), used.as_secs_f64(), 0.01);
        }
        // Other shares count from then on.
        rich.set_shares(30).unwrap();
        let before = (a.get(), b.get());
        sleep(Duration::from_secs(2)).await;
        near(ratio(a.get() - before.0, b.get() - before.1), 3.0, 0.02);
        poor_tasks.iter().chain(&rich_tasks).for_each(|task| assert!(task.cancel()));
    });
}

#[test]
fn sched_three_queues_come_and_go() {
    virtually_with(|sim| async move {
        let first = queue("first", 100);
        let used: [Used; 3] = Default::default();
        let first_task = hog(&sim, &first, &used[0], us(50));
        let phase = async || {
            let before = used.each_ref().map(|used| used.get());
            sleep(Duration::from_secs(1)).await;
            let at = |i: usize| (used[i].get() - before[i]).as_secs_f64();
            [at(0), at(1), at(2)]
        };
        near(phase().await[0], 1.0, 0.01);
        // One comes: what the first had to itself before counts for nothing.
        let second = queue("second", 300);
        let second_task = hog(&sim, &second, &used[1], us(30));
        let [a, b, _] = phase().await;
        near(a, 0.25, 0.02);
        near(b, 0.75, 0.02);
        // A third, whose handle goes before its task.
        let third_task = {
            let third = queue("third", 600);
            hog(&sim, &third, &used[2], us(110))
        };
        let [a, b, c] = phase().await;
        near(a, 0.1, 0.03);
        near(b, 0.3, 0.03);
        near(c, 0.6, 0.03);
        // They go, one after the other.
        second_task.cancel();
        let [a, _, c] = phase().await;
        near(a, 1.0 / 7.0, 0.03);
        near(c, 6.0 / 7.0, 0.03);
        third_task.cancel();
        near(phase().await[0], 1.0, 0.01);
        // The second was there all the time, without a task; its return is no windfall either.
        let again = hog(&sim, &second, &used[1], us(30));
        let [a, b, _] = phase().await;
        near(a, 0.25, 0.02);
        near(b, 0.75, 0.02);
        [first_task, again].iter().for_each(|task| assert!(task.cancel()));
    });
}

#[test]
fn sched_a_queue_that_sleeps_now_and_then_saves_nothing_up() {
    virtually_with(|sim| async move {
        let (steady, moody) = (queue("steady", 100), queue("moody", 100));
        let (a, b) = (Used::default(), Used::default());
        let _steady = hog(&sim, &steady, &a, us(50));
        for _ in 0..20 {
            let bout = hog(&sim, &moody, &b, us(50));
            let before = (a.get(), b.get());
            sleep(Duration::from_millis(50)).await;
            near(ratio(a.get() - before.0, b.get() - before.1), 1.0, 0.1);
            bout.cancel();
            sleep(Duration::from_millis(200)).await;
        }
    });
}

#[test]
fn sched_the_default_queue_has_shares_too() {
    virtually_with(|sim| async move {
        let main = TaskQueue::of_main();
        assert_eq!((main.shares(), &*main.name()), (1_000, "default"));
        main.set_shares(50).unwrap();
        let other = queue("other", 150);
        let (a, b) = (Used::default(), Used::default());
        let _tasks = [hog(&sim, &main, &a, us(40)), hog(&sim, &other, &b, us(40))];
        sleep(Duration::from_secs(1)).await;
        near(ratio(a.get(), b.get()), 3.0, 0.03);
        assert_eq!(main.stats().name, "default");
    });
}

/// On the real clock: what is shared out is what the loop measures, so that is held to a few per cent. What
/// the thread's CPU clock says has a wider bound: where other processes take the CPU away in the middle of
/// polls, the loop estimates who paid for it (without that: 1 to 30 on a busy machine).
#[test]
fn sched_real_cpu_time_is_split_by_shares() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        let (poor, rich) = (queue("poor", 10), queue("rich", 1_000));
        let (a, b) = (Used::default(), Used::default());
        let burn = |queue: &TaskQueue, used: &Used| {
            let used = used.clone();
            queue.spawn(async move {
                loop {
                    let began = thread_cpu();
                    while thread_cpu() - began < us(20) {}
                    used.set(used.get() + (thread_cpu() - began));
                    yield_now().await;
                }
            })
        };
        let _tasks = [burn(&poor, &a), burn(&poor, &a), burn(&rich, &b), burn(&rich, &b)];
        let began = Instant::now();
        let mut by_cpu = Vec::new();
        // Enough turns for either, however slow the machine; and again where others took the CPU.
        while by_cpu.len() < 3 && by_cpu.last().is_none_or(|ratio| !(65.0..135.0).contains(ratio)) {
            let until = poor.stats().polls + 200;
            a.set(Duration::ZERO);
            b.set(Duration::ZERO);
            while poor.stats().polls < until && began.elapsed() < Duration::from_secs(60) {
                sleep(Duration::from_millis(5)).await;
            }
            by_cpu.push(ratio(a.get(), b.get()));
        }
        let measured = ratio(poor.stats().cpu_time, rich.stats().cpu_time);
        println!("by the loop's clock 1:{measured:.1}, by CPU time 1 to {by_cpu:.1?}");
        near(measured, 100.0, 0.06);
        near(*by_cpu.last().unwrap(), 100.0, 0.35);
    });
    let stats = event_loop.stats().queues;
    let names: Vec<_> = stats.iter().map(|q: &QueueStats| (&*q.name, q.shares)).collect();
    assert_eq!(names, [("default", 1_000), ("poor", 10), ("rich", 1_000)]);
    assert!(stats.iter().all(|q| q.polls > 0 && !q.cpu_time.is_zero()), "{stats:?}");
}
