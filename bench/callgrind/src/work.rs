//! The workloads: fixed inputs, a number of operations each.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use coreloop::sched::TaskQueue;
use coreloop::time::sleep;
use coreloop::{EventLoop, Settings, StatsLevel, spawn, spawn_eager, sync, yield_now};

use crate::echo;

/// One hot path.
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What one operation is.
    pub what: &'static str,
    /// Operations of the shorter run.
    pub small: u64,
    /// Operations of the longer run.
    pub large: u64,
    /// How often each is made; the least counts. More than once where the count depends on how long
    /// something took.
    pub runs: u32,
    /// Runs so many operations.
    pub run: fn(u64),
}

/// Tasks of a batch, and timers that exist at a time.
const BATCH: u64 = 1000;

/// All of them.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "echo",
        what: "64 B received and sent back, 64 connections (the server's side)",
        small: 640,
        large: 6_400,
        runs: 1,
        run: |count| echo::requests(count, 64, 1, StatsLevel::default()),
    },
    Workload {
        name: "echo-single",
        what: "as echo, one connection: each request has the turns of the loop to itself",
        small: 200,
        large: 2_000,
        runs: 1,
        run: |count| echo::requests(count, 1, 1, StatsLevel::default()),
    },
    Workload {
        name: "echo-stats-off",
        what: "as echo, with nothing counted",
        small: 640,
        large: 6_400,
        runs: 1,
        run: |count| echo::requests(count, 64, 1, StatsLevel::Off),
    },
    Workload {
        name: "echo-histograms",
        what: "as echo, with counters and histograms",
        small: 640,
        large: 6_400,
        runs: 1,
        run: |count| echo::requests(count, 64, 1, StatsLevel::Histograms),
    },
    Workload {
        name: "echo-depth-16",
        what: "64 B received and sent back, 16 at a time on each of 64 connections",
        small: 10_240,
        large: 102_400,
        runs: 1,
        run: |count| echo::requests(count, 64, 16, StatsLevel::default()),
    },
    Workload {
        name: "spawn",
        what: "a detached task of no work made and run, in batches of 1,000",
        small: 2_000,
        large: 22_000,
        runs: 1,
        run: spawn_batches,
    },
    Workload {
        name: "spawn-join",
        what: "a task of no work made, run and awaited, one after the other",
        small: 1_000,
        large: 11_000,
        runs: 1,
        run: spawn_join,
    },
    Workload {
        name: "spawn-eager",
        what: "as spawn-join, each polled by the call that makes it",
        small: 1_000,
        large: 11_000,
        runs: 1,
        run: spawn_eager_join,
    },
    Workload {
        name: "yield",
        what: "one of 1,000 tasks gives way and is polled again",
        small: 10_000,
        large: 110_000,
        runs: 1,
        run: yields,
    },
    Workload {
        name: "timer",
        what: "a sleep made, polled once and dropped, 1,000 at a time",
        small: 2_000,
        large: 22_000,
        runs: 1,
        run: timers,
    },
    Workload {
        name: "wake",
        what: "a task of the same core woken through an event and polled",
        small: 2_000,
        large: 22_000,
        runs: 1,
        run: wakes,
    },
    Workload {
        name: "wake-foreign",
        what: "a task woken from another thread and polled, 1,000 at a time",
        small: 5_000,
        large: 55_000,
        runs: 1,
        run: foreign_wakes,
    },
    Workload {
        name: "snapshot",
        what: "a core's counters and histograms read, on whatever thread",
        small: 20,
        large: 220,
        runs: 5,
        run: |count| looks(count, false),
    },
    Workload {
        name: "look",
        what: "the same, and the core enters what it has now, which is read as well",
        small: 20,
        large: 220,
        runs: 5,
        run: |count| looks(count, true),
    },
    Workload {
        name: "mailbox",
        what: "a closure through the mailbox, 500 at a time",
        small: 2_000,
        large: 22_000,
        runs: 1,
        run: mail,
    },
];

fn drive(main: impl Future<Output = ()>) {
    // No turn is cut short by its time, which is not counted and is another on each machine.
    let settings = Settings::default().tick_quota(Duration::from_secs(1));
    EventLoop::with(settings).expect("a loop").block_on(main);
}

fn spawn_batches(count: u64) {
    drive(async move {
        let ran = Rc::new(Cell::new(0));
        for batch in 1..=count / BATCH {
            for _ in 0..BATCH {
                let ran = ran.clone();
                drop(spawn(async move { ran.set(ran.get() + 1) }));
            }
            while ran.get() < batch * BATCH {
                yield_now().await;
            }
        }
    });
}

fn spawn_join(count: u64) {
    drive(async move {
        for i in 0..count {
            assert_eq!(spawn(async move { i }).await.expect("its value"), i);
        }
    });
}

fn spawn_eager_join(count: u64) {
    drive(async move {
        for i in 0..count {
            assert_eq!(spawn_eager(async move { i }).await.expect("its value"), i);
        }
    });
}

fn yields(count: u64) {
    drive(async move {
        let tasks: Vec<_> = (0..BATCH)
            .map(|_| {
                spawn(async move {
                    for _ in 0..count / BATCH {
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("it ended");
        }
    });
}

/// All in one place that is allocated once: the count is of the timers alone.
fn timers(count: u64) {
    let mut sleeps = Vec::with_capacity(BATCH as usize);
    drive(poll_fn(move |cx| {
        for _ in 0..count / BATCH {
            sleeps.extend((0..BATCH).map(|i| sleep(Duration::from_millis(60_000 + i))));
            for sleep in &mut sleeps {
                assert!(Pin::new(sleep).poll(cx).is_pending());
            }
            sleeps.clear();
        }
        Poll::Ready(())
    }));
}

fn wakes(count: u64) {
    drive(async move {
        let (ping, pong) = (Rc::new(sync::Event::new()), Rc::new(sync::Event::new()));
        let other = spawn({
            let (ping, pong) = (ping.clone(), pong.clone());
            async move {
                for _ in 0..count / 2 {
                    ping.wait().await;
                    ping.clear();
                    pong.set();
                }
            }
        });
        for _ in 0..count / 2 {
            ping.set();
            pong.wait().await;
            pong.clear();
        }
        other.await.expect("it ended");
    });
}

fn foreign_wakes(count: u64) {
    drive(async move {
        let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
        let woken = Rc::new(Cell::new(0_u64));
        for _ in 0..BATCH {
            let (wakers, woken) = (wakers.clone(), woken.clone());
            drop(spawn(poll_fn(move |cx| {
                woken.set(woken.get() + 1);
                wakers.lock().expect("whole").push(cx.waker().clone());
                Poll::<()>::Pending
            })));
        }
        for round in 1..=count / BATCH {
            while woken.get() < round * BATCH {
                yield_now().await;
            }
            let all = std::mem::take(&mut *wakers.lock().expect("whole"));
            let ringer = std::thread::spawn(move || all.into_iter().for_each(Waker::wake));
            ringer.join().expect("it rang");
        }
    });
}

fn mail(count: u64) {
    let mut event_loop = EventLoop::new().expect("a loop");
    let handle = event_loop.handle();
    thread_local!(static RUN: RefCell<u64> = const { RefCell::new(0) });
    let mut expected = 0;
    while expected < count {
        for _ in 0..500 {
            handle.call_soon_threadsafe(0, || RUN.with_borrow_mut(|n| *n += 1)).expect("room");
        }
        expected += 500;
        while RUN.with_borrow(|n| *n) < expected {
            event_loop.turn(Some(Duration::ZERO));
        }
    }
}

/// A core of 1,000 tasks, 16 task queues and recorded latencies is looked at: its book is read, and before that it
/// may enter what it has now.
fn looks(count: u64, enters: bool) {
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let mut event_loop = EventLoop::with(settings).expect("a loop");
    let queues = event_loop.block_on(async move {
        let queues: Vec<TaskQueue> = (0..15)
            .map(|at| TaskQueue::builder(format!("queue {at}")).build().expect("room"))
            .collect();
        for queue in queues.iter().cycle().take(BATCH as usize) {
            drop(queue.spawn(std::future::pending::<()>()));
        }
        for _ in 0..10 {
            yield_now().await;
        }
        queues
    });
    let handle = event_loop.handle();
    for _ in 0..count {
        let seen =
            if enters { event_loop.stats() } else { handle.snapshot(0).expect("it is there") };
        assert!(seen.histograms.is_some() && seen.queues.len() == usize::from(enters) * 16);
    }
    drop(queues);
}
