//! Task queues come and go: cancels, panics and closes in several of them, and places that are given back.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::gather_handles;
use coreloop::sched::{QueueError, TaskQueue};
use coreloop::sync::Event;
use coreloop::task::TaskInfo;
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Handle, Settings, all_tasks, spawn, spawn_blocking, yield_now};
use coreloop_tests::drive::{DropGuard, Drops};
use coreloop_tests::{settled, turns};

const SOON: Duration = Duration::from_secs(10);

fn queue(name: &str) -> TaskQueue {
    TaskQueue::builder(name).build().unwrap()
}

/// Places that can be taken now.
fn free_places() -> usize {
    let mut taken = Vec::new();
    while let Ok(queue) = TaskQueue::builder("probe").build() {
        taken.push(queue);
    }
    taken.len()
}

#[test]
fn sched_there_is_a_most_and_the_error_says_so() {
    coreloop::run(async {
        assert_eq!(free_places(), TaskQueue::COUNT_MAX - 1, "the default one has a place");
        let kept: Vec<_> = (1..TaskQueue::COUNT_MAX).map(|i| queue(&format!("{i}"))).collect();
        let refused = TaskQueue::builder("one more").build().unwrap_err();
        assert_eq!(refused, QueueError::TooMany);
        assert!(refused.to_string().starts_with("the core has 64 task queues"), "{refused}");
        // All of them work.
        let ran = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = kept
            .iter()
            .map(|queue| {
                let ran = ran.clone();
                queue.spawn(async move { ran.borrow_mut().push(TaskQueue::current().name()) })
            })
            .collect();
        for ended in gather_handles(tasks).await {
            ended.unwrap();
        }
        let mut names: Vec<u32> = ran.borrow().iter().map(|name| name.parse().unwrap()).collect();
        names.sort_unstable();
        assert!(names.into_iter().eq(1..TaskQueue::COUNT_MAX as u32));
        drop(kept);
        assert_eq!(free_places(), TaskQueue::COUNT_MAX - 1);
    })
    .unwrap();
    assert_eq!(TaskQueue::builder("outside").build().unwrap_err(), QueueError::NoLoop);
}

#[test]
fn sched_what_is_out_of_range_is_refused() {
    coreloop::run(async {
        let queue = queue("q");
        let (none, many) = (0, TaskQueue::SHARES_MAX + 1);
        for asked in [none, many] {
            assert_eq!(queue.set_shares(asked), Err(QueueError::Shares { asked }));
            assert!(TaskQueue::builder("q").shares(asked).build().is_err());
        }
        for asked in [Duration::from_micros(9), Duration::from_millis(1_001)] {
            assert_eq!(queue.set_latency(Some(asked)), Err(QueueError::Latency { asked }));
            let text = TaskQueue::builder("q").latency(asked).build().unwrap_err().to_string();
            assert!(text.ends_with("it is from 10 µs to 1 s"), "{text}");
        }
        assert_eq!((queue.shares(), queue.latency()), (1_000, None));
    })
    .unwrap();
}

/// A place is kept for tasks that have not ended, and what such tasks spawn, and no longer.
#[test]
fn sched_a_place_is_free_when_handles_and_tasks_are_gone() {
    coreloop::run(async {
        let gate = Rc::new(Event::new());
        let child = Rc::new(RefCell::new(None));
        let parent = {
            let (gate, place) = (gate.clone(), child.clone());
            queue("short").spawn(async move {
                yield_now().await;
                // The handle is gone, and the queue is still theirs.
                assert_eq!(&*TaskQueue::current().name(), "short");
                let child = spawn(async move {
                    gate.wait().await;
                    TaskQueue::current().name()
                });
                place.replace(Some(child));
            })
        };
        parent.await.unwrap();
        let child = child.take().unwrap();
        assert_eq!(free_places(), TaskQueue::COUNT_MAX - 2, "its child has not ended");
        gate.set();
        assert_eq!(&*child.await.unwrap(), "short");
        turns(1).await;
        assert_eq!(free_places(), TaskQueue::COUNT_MAX - 1);
        // A handle of a task that has ended keeps the value and not the queue.
        let ended = queue("ended").spawn(async { 7 });
        turns(3).await;
        assert!(ended.is_finished());
        assert_eq!(free_places(), TaskQueue::COUNT_MAX - 1);
        assert_eq!(ended.await.unwrap(), 7);
    })
    .unwrap();
}

/// Queues come and go for as long as one likes, their tasks' turns with them; nothing is lost or done
/// twice.
#[test]
fn sched_many_queues_one_after_the_other_lose_nothing() {
    let drops = Drops::new();
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        for round in 0..500u64 {
            let queue = queue("round");
            let tasks: Vec<_> = (0..10u64)
                .map(|i| {
                    let guard = drops.guard();
                    queue.spawn(async move {
                        let _guard = guard;
                        for _ in 0..(i + round) % 4 {
                            yield_now().await;
                        }
                        // Its last poll leaves a turn behind.
                        std::future::poll_fn(|cx| {
                            cx.waker().wake_by_ref();
                            std::task::Poll::Ready(i)
                        })
                        .await
                    })
                })
                .collect();
            if round % 2 == 0 {
                drop(queue);
            }
            for (i, ended) in gather_handles(tasks).await.into_iter().enumerate() {
                assert_eq!(ended.unwrap(), i as u64);
            }
        }
        turns(2).await;
        assert_eq!(free_places(), TaskQueue::COUNT_MAX - 1);
    });
    assert_eq!(drops.count(), 5_000);
    assert_eq!(event_loop.turn(Some(Duration::ZERO)).tasks, 0);
    assert!(event_loop.stats().queues.is_empty(), "the default queue is the only one again");
}

#[test]
fn sched_cancels_and_panics_stay_in_their_tasks() {
    let mut event_loop = EventLoop::with(Settings::default().on_report(|_| ())).unwrap();
    event_loop.block_on(async {
        let (a, b) = (queue("a"), queue("b"));
        let drops = Drops::new();
        let waits: Vec<_> = [&a, &b, &a, &b]
            .map(|queue| {
                let guard = drops.guard();
                queue.spawn(async move {
                    let _guard = guard;
                    pending::<()>().await;
                })
            })
            .into_iter()
            .collect();
        turns(2).await;
        let panics = [&a, &b].map(|queue| queue.spawn(async { panic!("as it should") }));
        let lives = [&a, &b].map(|queue| queue.spawn(async { sleep(SOON / 1_000).await }));
        assert!(waits[0].cancel() && waits[3].cancel());
        for panics in panics {
            let error: coreloop::task::JoinError = panics.await.map(|(): ()| ()).unwrap_err();
            assert_eq!(error.panic_message(), Some("as it should"));
        }
        for lives in lives {
            lives.await.unwrap();
        }
        assert_eq!(drops.count(), 2);
        assert_eq!((a.stats().tasks, b.stats().tasks), (1, 1));
        // A cancel passes through an await into another queue.
        let inner = b.spawn(async move { pending::<()>().await });
        let outer = a.spawn(inner);
        assert!(timeout(Duration::from_millis(5), outer).await.is_err());
        assert!(settled(SOON, || a.stats().tasks == 1 && b.stats().tasks == 1).await);
    });
}

#[test]
fn sched_a_close_ends_the_tasks_of_all_queues() {
    let drops = Drops::new();
    let mut event_loop = EventLoop::new().unwrap();
    let (handle, kept) = event_loop.block_on(async {
        let (a, b) = (queue("a"), queue("b"));
        let mut first = None;
        for queue in [&a, &b, &TaskQueue::of_main()] {
            for _ in 0..10 {
                let guard = drops.guard();
                let late = drops.guard();
                let task = queue.spawn(async move {
                    /// Spawns when it goes.
                    struct Spawns(Option<DropGuard>);
                    impl Drop for Spawns {
                        fn drop(&mut self) {
                            let late = self.0.take();
                            drop(spawn(async move {
                                let _late = late;
                                pending::<()>().await;
                            }));
                        }
                    }
                    let _guard = guard;
                    let _late = Spawns(Some(late));
                    yield_now().await;
                    pending::<()>().await;
                });
                first.get_or_insert(task);
            }
        }
        yield_now().await;
        (first.unwrap(), a)
    });
    assert_eq!(event_loop.turn(Some(Duration::ZERO)).tasks, 30);
    let report = event_loop.close(SOON);
    assert_eq!(report.tasks_cancelled, 30);
    assert_eq!(drops.count(), 60, "destructors ran, and what they spawned is gone");
    assert!(handle.is_cancelled());
    // A handle that outlives its loop still answers, and spawns nothing.
    assert_eq!((&*kept.name(), kept.shares()), ("a", 1_000));
    assert!(kept.try_spawn(async {}).is_err());
    coreloop::run(async move {
        assert!(kept.try_spawn(async {}).is_err(), "another loop's");
        assert_eq!(&*TaskQueue::current().name(), "default");
    })
    .unwrap();
}

#[test]
fn sched_lists_of_tasks_tell_the_queue() {
    coreloop::run(async {
        let queue = queue("background");
        let _task = queue.spawn_named("cleaner", pending::<()>());
        let _plain = spawn(pending::<()>());
        let named = |info: &&TaskInfo| info.name.as_deref() == Some("cleaner");
        let infos = all_tasks();
        let cleaner = infos.iter().find(named).unwrap();
        assert_eq!(cleaner.queue.as_deref(), Some("background"));
        assert!(cleaner.to_string().contains("of queue \"background\", spawned at"), "{cleaner}");
        assert_eq!(infos.iter().filter(|info| info.queue.is_some()).count(), 1);
    })
    .unwrap();
}

/// Whatever makes a task makes it in the queue of the task that asks for it.
#[test]
fn sched_every_kind_of_task_inherits_its_queue() {
    coreloop::run(async {
        let queue = queue("q");
        let names = queue.spawn(async {
            let (say, said) = coreloop::sync::oneshot::channel();
            coreloop::call_soon(move || _ = say.send(TaskQueue::current().name()));
            let (say, later) = coreloop::sync::oneshot::channel();
            let soon = Duration::from_millis(1);
            coreloop::call_later(soon, move || _ = say.send(TaskQueue::current().name()));
            let grouped = coreloop::combine::group(async |g| {
                let child = g.spawn(async { Ok::<_, ()>(TaskQueue::current().name()) });
                child.await.map_err(|_| ())
            });
            spawn_blocking(|| ()).await.unwrap();
            let own = TaskQueue::current().name();
            [said.await.unwrap(), later.await.unwrap(), grouped.await.unwrap(), own]
        });
        assert!(names.await.unwrap().iter().all(|name| &**name == "q"));
        assert_eq!(&*TaskQueue::current().name(), "default");
    })
    .unwrap();
}

thread_local! {
    static LAST: RefCell<Option<TaskQueue>> = const { RefCell::new(None) };
}

/// A queue's last handle goes in a closure that the loop takes between two of its polls, when its tasks have
/// ended: its place is free only when the loop has done with it, or others' tasks would be taken for its own.
#[test]
fn sched_the_last_handle_may_go_in_a_closure_between_two_polls() {
    coreloop::run(async {
        // With a latency goal it is served before the default one, which has used as little.
        let brief = TaskQueue::builder("brief").latency(TaskQueue::LATENCY_MAX).build().unwrap();
        let handle = Handle::current();
        LAST.set(Some(brief.clone()));
        let children = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..40 {
            let children = children.clone();
            drop(spawn(async move {
                let child = spawn(async {
                    for _ in 0..5 {
                        yield_now().await;
                    }
                    TaskQueue::current().name()
                });
                children.borrow_mut().push(child);
            }));
        }
        // The loop looks for closures after 31 polls: these, and what was posted in the last of them.
        for i in 1..=31 {
            let handle = handle.clone();
            drop(brief.spawn(async move {
                if i == 31 {
                    handle.call_soon_threadsafe(0, || drop(LAST.take())).unwrap();
                }
            }));
        }
        drop(brief);
        yield_now().await;
        let next = queue("next");
        while children.borrow().len() < 40 {
            yield_now().await;
        }
        assert!(LAST.take().is_none(), "the closure ran");
        for child in children.take() {
            assert_eq!(&*child.await.unwrap(), "default");
        }
        assert_eq!(next.stats().tasks, 0);
        drop(next);
        assert_eq!(free_places(), TaskQueue::COUNT_MAX - 1);
    })
    .unwrap();
}
