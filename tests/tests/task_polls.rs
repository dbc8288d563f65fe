//! How often each task was polled, as lists of tasks say it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use coreloop::task::{JoinHandle, Report, current_id};
use coreloop::{EventLoop, Settings, all_tasks, spawn, spawn_eager, spawn_named, yield_now};

fn polls<T>(task: &JoinHandle<T>) -> Option<u64> {
    all_tasks().iter().find(|info| info.id == task.id()).and_then(|info| info.polls)
}

fn own() -> Option<u64> {
    all_tasks().iter().find(|info| Some(info.id) == current_id()).and_then(|info| info.polls)
}

#[test]
fn polls_of_each_task_are_counted_whoever_runs_beside_it() {
    coreloop::run(async {
        let counts = [1, 2, 5, 40];
        let tasks: Vec<_> = counts
            .into_iter()
            .map(|polls| {
                spawn(async move {
                    for told in 1..polls {
                        assert_eq!(own(), Some(told), "the one under way counts");
                        yield_now().await;
                    }
                    std::future::pending::<()>().await;
                })
            })
            .collect();
        assert!(tasks.iter().all(|task| polls(task) == Some(0)), "none yet");
        for _ in 0..50 {
            yield_now().await;
        }
        assert_eq!(tasks.iter().map(polls).collect::<Vec<_>>(), counts.map(Some));
    })
    .unwrap();
}

#[test]
fn polls_of_a_task_in_a_used_slot_begin_anew() {
    coreloop::run(async {
        for turns in [3, 0, 7, 1] {
            let task = spawn(async move {
                for _ in 0..turns {
                    yield_now().await;
                }
                own()
            });
            assert_eq!(task.await.unwrap(), Some(turns + 1));
        }
    })
    .unwrap();
}

#[test]
fn polls_of_an_eager_task_count_from_its_first_and_are_not_its_maker_s() {
    coreloop::run(async {
        let maker = spawn(async {
            let inner = spawn_eager(async {
                let first = own();
                yield_now().await;
                (first, own())
            });
            assert_eq!((own(), polls(&inner)), (Some(1), Some(1)));
            assert_eq!(inner.await.unwrap(), (Some(1), Some(2)));
            own()
        });
        assert_eq!(maker.await.unwrap(), Some(2));
    })
    .unwrap();
}

#[test]
fn polls_of_the_main_future_are_all_that_the_loop_has_had() {
    let mut event_loop = EventLoop::new().unwrap();
    assert_eq!(event_loop.block_on(async { own() }), Some(1));
    let after = event_loop.block_on(async {
        yield_now().await;
        own()
    });
    assert_eq!(after, Some(3));
}

#[test]
fn polls_that_a_panic_or_a_cancel_ends_are_in_no_report() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let settings = Settings::default().on_report(move |report| {
        if let Report::Panicked { task, .. } = report {
            tell.lock().unwrap().push(task.polls);
        }
    });
    EventLoop::with(settings).unwrap().block_on(async {
        drop(spawn_named("fails", async {
            yield_now().await;
            panic!("on purpose");
        }));
        for _ in 0..4 {
            yield_now().await;
        }
    });
    assert_eq!(*told.lock().unwrap(), [None]);
}

/// A cancel passes on to what was awaited in the last poll of the task that it ends, by the number of that
/// poll: numbers of different tasks must not meet, whatever each has counted.
#[test]
fn polls_of_two_tasks_with_the_same_count_are_told_apart() {
    coreloop::run(async {
        for polls_before in 0..4 {
            let awaited = spawn(std::future::pending::<()>());
            let watched = all_tasks().len();
            let handle = Rc::new(RefCell::new(Some(awaited)));
            let turn = Rc::new(Cell::new(0));
            // Polls the handle in its last poll, and lets go of it to the other one.
            let (lent, count) = (handle.clone(), turn.clone());
            let first = spawn(std::future::poll_fn(move |cx| {
                count.set(count.get() + 1);
                if count.get() <= polls_before {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let mut lent = lent.borrow_mut();
                assert!(std::pin::Pin::new(lent.as_mut().unwrap()).poll(cx).is_pending());
                Poll::Ready(())
            }));
            first.await.unwrap();
            let taken = handle.borrow_mut().take().unwrap();
            // As many polls, in the same slot most likely; it is cancelled with the handle unpolled.
            let second = spawn(async move {
                for _ in 0..polls_before {
                    yield_now().await;
                }
                let _holds = taken;
                std::future::pending::<()>().await;
            });
            for _ in 0..10 {
                yield_now().await;
            }
            assert!(second.cancel());
            let _ = second.await;
            yield_now().await;
            assert_eq!(all_tasks().len(), watched, "what it did not await lives on");
        }
    })
    .unwrap();
}
