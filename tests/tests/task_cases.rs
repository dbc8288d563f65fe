//! Corner cases of tasks that CPython's tests know: running, asking, cancelling, loops driven by hand.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use coreloop::combine::{Awaitable, When, as_completed, future, gather, race, wait};
use coreloop::task::{JoinHandle, current_id, current_name};
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, spawn, yield_now};
use coreloop_tests::drive::{Clock, Drops, tens, virtually};
use coreloop_tests::turns;

#[test]
fn t1_sleeps_in_sequence_take_their_sum() {
    virtually(async || {
        let clock = Clock::new();
        let slept = spawn(async {
            sleep(tens(5)).await;
            sleep(tens(5)).await;
            "yes"
        });
        assert_eq!((slept.await.unwrap(), clock.tens()), ("yes", 10));
    });
}

#[test]
fn t2_a_block_that_is_awaited_runs_on_the_spot() {
    coreloop::run(async {
        let ran = Cell::new(false);
        drop(spawn(async { panic!("nothing gives way: this never starts") }));
        let inner = async || {
            ran.set(true);
            42
        };
        let sum = inner().await + async { 1000 }.await;
        assert_eq!((sum, ran.get()), (1042, true));
    })
    .unwrap();
}

#[test]
fn t2_a_task_that_gives_a_future_does_not_await_it() {
    coreloop::run(async {
        let (completer, awaitable) = future::<&str>();
        let gives = spawn(async move { Some(awaitable) });
        let given: Awaitable<&str> = gives.await.unwrap().unwrap();
        assert!(!given.is_done());
        completer.complete("test").unwrap();
        assert_eq!(given.await, Ok("test"));
    })
    .unwrap();
}

#[test]
fn t3_a_zero_sleep_lets_others_run_once() {
    for by_yield in [false, true] {
        coreloop::run(async move {
            let count = Rc::new(Cell::new(0));
            let other = count.clone();
            drop(spawn(async move {
                loop {
                    other.set(other.get() + 1);
                    yield_now().await;
                }
            }));
            assert_eq!(count.get(), 0);
            for turn in 1..5 {
                if by_yield {
                    yield_now().await
                } else {
                    sleep(Duration::ZERO).await
                }
                assert_eq!(count.get(), turn, "by_yield: {by_yield}");
            }
        })
        .unwrap();
    }
}

#[test]
fn t5_a_task_runs_on_the_loop_that_spawned_it() {
    let mut loops = [EventLoop::new().unwrap(), EventLoop::new().unwrap()];
    let mut tasks: Vec<_> = loops.iter().map(|l| l.spawn(async { "ok" })).collect();
    loops[0].block_on(turns(2));
    assert!(tasks[0].is_finished() && !tasks[1].is_finished());
    assert_eq!(tasks[0].try_take().unwrap().unwrap(), "ok");
    loops[1].block_on(turns(2));
    assert_eq!(tasks[1].try_take().unwrap().unwrap(), "ok");
}

#[test]
fn t6_cancelling_is_said_until_it_is_gone() {
    coreloop::run(async {
        let mut task = spawn(sleep(Duration::from_secs(10)));
        assert!(!task.is_cancelling());
        assert!(task.cancel() && task.is_cancelling());
        assert!(task.cancel() && task.is_cancelling() && !task.is_cancelled(), "twice is once");
        assert!((&mut task).await.unwrap_err().is_cancelled());
        assert!(task.is_cancelled() && task.is_finished() && !task.is_cancelling());
        assert!(!task.cancel());
    })
    .unwrap();
}

#[test]
fn t6_a_sleeping_task_is_cancelled_by_another() {
    virtually(async || {
        let clock = Clock::new();
        let sleeper = Rc::new(RefCell::new(spawn(sleep(Duration::from_secs(5000)))));
        let own = sleeper.clone();
        drop(spawn(async move {
            sleep(tens(10)).await;
            own.borrow().cancel();
        }));
        let ended = std::future::poll_fn(|cx| Pin::new(&mut *sleeper.borrow_mut()).poll(cx));
        assert!(ended.await.unwrap_err().is_cancelled());
        assert_eq!(clock.tens(), 10);
    });
}

#[test]
fn t6_a_cancelled_sleeper_takes_its_timer_along() {
    let mut event_loop = EventLoop::new().unwrap();
    let task = event_loop.spawn(sleep(Duration::from_secs(10)));
    let turn = event_loop.turn(Some(Duration::ZERO));
    assert!(turn.next_deadline.is_some());
    task.cancel();
    let turn = event_loop.turn(Some(Duration::ZERO));
    assert_eq!((turn.tasks, turn.next_deadline), (0, None));
}

/// A cancel of oneself strikes at the next await; what is awaited there is cancelled as well.
#[test]
fn t7_a_cancel_of_oneself_reaches_what_is_awaited_next() {
    coreloop::run(async {
        let own: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let (mine, drops) = (own.clone(), Drops::new());
        let (guard, (completer, awaitable)) = (drops.guard(), future::<u8>());
        *own.borrow_mut() = Some(spawn(async move {
            let nested = spawn(async move {
                let _guard = guard;
                awaitable.await.unwrap();
            });
            turns(1).await;
            mine.borrow().as_ref().unwrap().cancel();
            drop(nested.await);
            unreachable!("not past that await");
        }));
        turns(6).await;
        let task = own.take().unwrap();
        assert!(task.is_cancelled());
        assert_eq!((drops.count(), completer.is_cancelled()), (1, true));
    })
    .unwrap();
}

#[test]
fn t7_a_task_and_the_future_it_awaits_cancelled_at_once() {
    coreloop::run(async {
        for future_first in [true, false] {
            let (completer, awaitable) = future::<u8>();
            let mut task = spawn(async move { awaitable.await.is_ok() });
            turns(2).await;
            if future_first {
                assert!(completer.cancel() && task.cancel());
            } else {
                assert!(task.cancel() && completer.cancel());
            }
            assert!((&mut task).await.unwrap_err().is_cancelled());
            assert!(task.is_cancelled() && completer.is_cancelled());
        }
    })
    .unwrap();
}

#[test]
fn t9_a_result_whose_destructor_uses_the_loop() {
    struct Nosy(Rc<Cell<u32>>);
    impl Drop for Nosy {
        fn drop(&mut self) {
            let count = self.0.clone();
            drop(spawn(async move { count.set(count.get() + 1) }));
        }
    }
    coreloop::run(async {
        let count = Rc::new(Cell::new(0));
        let all = gather((0..100).map(|_| {
            let count = count.clone();
            async move { Nosy(count) }
        }));
        drop(all.await);
        // Those that nobody took.
        for _ in 0..100 {
            let count = count.clone();
            drop(spawn(async move { Nosy(count) }));
        }
        turns(4).await;
        assert_eq!(count.get(), 200);
    })
    .unwrap();
}

#[test]
fn t10_the_current_task_is_known_within_it_only() {
    assert!(current_id().is_none() && current_name().is_none());
    let mut event_loop = EventLoop::new().unwrap();
    let task = event_loop.spawn(async {
        let first = current_id().unwrap();
        turns(2).await;
        (first, current_id().unwrap())
    });
    let id = task.id();
    assert_eq!(event_loop.block_on(task).unwrap(), (id, id));
    assert!(current_id().is_none(), "the loop does not run any more");
}

#[test]
fn t10_the_current_task_while_two_interleave() {
    coreloop::run(async {
        let ((one, fut1), (two, fut2)) = (future::<()>(), future::<()>());
        let first = spawn(async move {
            let before = current_id();
            fut1.await.unwrap();
            two.complete(()).unwrap();
            (before, current_id())
        });
        let second = spawn(async move {
            let before = current_id();
            one.complete(()).unwrap();
            fut2.await.unwrap();
            (before, current_id())
        });
        let ids = (Some(first.id()), Some(second.id()));
        assert_ne!(ids.0, ids.1);
        assert_eq!(first.await.unwrap(), (ids.0, ids.0));
        assert_eq!(second.await.unwrap(), (ids.1, ids.1));
    })
    .unwrap();
}

/// A future written by hand, and a type that only turns into one.
struct ByHand(u32);

impl Future for ByHand {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u32> {
        self.0 += 1;
        if self.0 == 42 {
            return Poll::Ready(self.0);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

struct Aw;

impl IntoFuture for Aw {
    type Output = u32;
    type IntoFuture = ByHand;

    fn into_future(self) -> ByHand {
        ByHand(39)
    }
}

#[test]
fn f2_a_future_written_by_hand_is_a_task_like_any() {
    coreloop::run(async {
        assert_eq!(spawn(ByHand(0)).await.unwrap(), 42);
        assert_eq!(timeout(Duration::from_secs(9), ByHand(7)).await, Ok(42));
    })
    .unwrap();
}

#[test]
fn f2_a_type_that_turns_into_a_future_is_taken_everywhere() {
    coreloop::run(async {
        let results = gather([Aw, Aw]).await.into_iter().map(Result::unwrap);
        assert_eq!(results.collect::<Vec<_>>(), [42, 42]);
        assert_eq!(timeout(Duration::from_secs(9), Aw).await, Ok(42));
        let won = race(Aw, std::future::pending::<()>()).await;
        assert!(matches!(won, coreloop::combine::Either::First(42)));
        assert_eq!(spawn(Aw.into_future()).await.unwrap(), 42);
    })
    .unwrap();
}

#[test]
fn l9_nothing_makes_a_loop_behind_ones_back() {
    let nothing: [std::future::Ready<u8>; 0] = [];
    let mut none = Box::pin(gather(nothing));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(none.as_mut().poll(&mut cx).is_ready(), "nothing to spawn needs no loop");
    let refused = catch_unwind(AssertUnwindSafe(|| drop(gather([async { 1 }]))));
    let payload = refused.expect_err("a gather spawns");
    assert!(payload.downcast_ref::<String>().unwrap().contains("running loop"));
}

#[test]
fn b3_a_future_sent_to_a_loop_gives_its_value_or_says_why_not() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let remote = std::thread::spawn(move || {
        let add = |a: u32, b: u32| async move {
            sleep(Duration::from_millis(1)).await;
            a + b
        };
        let sum = handle.spawn_on(0, move || add(1, 2)).unwrap().join();
        let failed = handle.spawn_on(0, || async { panic!("Fail!") }).unwrap();
        let failed: Result<(), _> = failed.join();
        let limited = handle.spawn_on(0, || timeout(Duration::ZERO, sleep(Duration::from_secs(9))));
        let limited = limited.unwrap().join().unwrap();
        let cancelled = handle.spawn_on(0, || async {
            let inner = spawn(std::future::pending::<()>());
            inner.cancel();
            inner.await.unwrap_err().is_cancelled()
        });
        let cancelled = cancelled.unwrap().join();
        (sum, failed.unwrap_err().to_string(), limited.is_err(), cancelled)
    });
    event_loop.block_on(async {
        while !remote.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
    });
    let (sum, failed, limited, cancelled) = remote.join().unwrap();
    assert_eq!((sum, limited, cancelled), (Ok(3), true, Ok(true)));
    assert!(failed.contains("Fail!"), "{failed}");
}

/// Bad use with an answer: the result is given once.
#[test]
fn t5_a_handle_polled_after_its_result_was_taken_says_so() {
    coreloop::run(async {
        let taker = spawn(async {
            let mut task = spawn(async { 7 });
            turns(1).await;
            assert_eq!(task.try_take().unwrap().unwrap(), 7);
            task.await.unwrap()
        });
        let e = taker.await.unwrap_err();
        assert_eq!(e.panic_message(), Some("a JoinHandle was polled after its result was taken"));
    })
    .unwrap();
}

/// A set that has gone is told of nothing any more, nor is the next one in its place.
#[test]
fn g6_a_task_that_was_waited_for_before_does_not_end_in_another_set() {
    virtually(async || {
        let mut tasks = [2, 1].map(|n| spawn(sleep(tens(n))));
        let waited = wait(&mut tasks, When::FirstCompleted, None).await;
        assert_eq!((waited.done, waited.pending), (vec![1], vec![0]));
        let mut next = as_completed([5, 4].map(|n| spawn(sleep(tens(n)))));
        let (first, result) = next.next().await.unwrap();
        assert!(tasks[0].is_finished(), "it ended meanwhile");
        assert!(first == 1 && result.is_ok());
        assert_eq!(next.next().await.unwrap().0, 0);
    });
}

/// A handle that was polled in a race counts as awaited until the awaiter's next poll, and is held after that.
#[test]
fn t7_what_the_awaiters_last_poll_has_polled_counts_as_awaited() {
    virtually(async || {
        for turns_after in [0, 1] {
            let drops = Drops::new();
            let guard = drops.guard();
            let mut kept = spawn(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            });
            let holder = spawn(async move {
                coreloop::select! {
                    _ = &mut kept => unreachable!(),
                    () = sleep(tens(1)) => {}
                }
                turns(turns_after).await;
                let _held = kept;
                std::future::pending::<()>().await;
            });
            sleep(tens(2)).await;
            assert!(holder.cancel());
            turns(3).await;
            assert_eq!(drops.count(), usize::from(turns_after == 0), "after {turns_after} turns");
        }
    });
}
