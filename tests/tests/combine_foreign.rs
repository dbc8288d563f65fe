//! Sets under strangers: other wakers, other combinators, values that are forgotten, loops that have gone.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use coreloop::combine::{
    When, as_completed, future, gather, gather_handles, group, shield, try_gather,
    try_gather_handles, wait,
};
use coreloop::sync::Event;
use coreloop::task::JoinHandle;
use coreloop::time::sleep;
use coreloop::{EventLoop, spawn};
use coreloop_tests::drive::{Drops, tens, virtually};
use coreloop_tests::{poll_once, turns};

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counting() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    (count.clone(), Waker::from(count))
}

async fn after(n: u64) -> Result<u64, u64> {
    sleep(tens(n)).await;
    Ok(n)
}

/// Polls with one foreign waker, then with another: the second one is woken, and the result is there.
async fn woken_by_the_last<F: Future>(what: &str, mut waits: Pin<&mut F>) {
    let ((first, one), (second, two)) = (counting(), counting());
    for waker in [&one, &two, &two] {
        let polled = waits.as_mut().poll(&mut Context::from_waker(waker));
        assert!(polled.is_pending(), "{what}");
    }
    sleep(tens(6)).await;
    assert_eq!(first.0.load(Ordering::SeqCst), 0, "{what}: nobody waits with this one");
    assert!(second.0.load(Ordering::SeqCst) > 0, "{what}");
    // A waker is let go of when the next one comes.
    let end = waits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(end.is_ready(), "{what}");
    drop(one);
    assert_eq!(Arc::strong_count(&first), 1, "{what}");
}

#[test]
fn g_sets_wake_the_waker_they_were_polled_with_last() {
    virtually(async || {
        woken_by_the_last("gather", pin!(gather([after(5)]))).await;
        woken_by_the_last("try_gather", pin!(try_gather([after(5), after(4)]))).await;
        let mut ended = as_completed([spawn(after(5))]);
        woken_by_the_last("as_completed", pin!(ended.next())).await;
        let mut handles = [spawn(after(5)), spawn(after(3))];
        let waits = wait(&mut handles, When::AllCompleted, None);
        woken_by_the_last("wait", pin!(waits)).await;
        let in_group = group(async |g| {
            drop(g.spawn(after(5)));
            Ok(())
        });
        woken_by_the_last("group", pin!(in_group)).await;
        woken_by_the_last("shield", pin!(shield(spawn(after(5))))).await;
        let mut task = spawn(after(5));
        woken_by_the_last("limit", pin!(task.timeout(tens(100)))).await;
    });
}

/// A select of somebody else's: it drops what lost, and knows nothing of cancels.
struct Select<A, B>(A, B);

impl<A: Future + Unpin, B: Future + Unpin> Future for Select<A, B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let one = Pin::new(&mut self.0).poll(cx).is_ready();
        let two = Pin::new(&mut self.1).poll(cx).is_ready();
        if one || two { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[test]
fn t7_a_foreign_combinator_lets_go_and_passes_a_cancel_on() {
    virtually(async || {
        let drops = Drops::new();
        let endless = || {
            let guard = drops.guard();
            async move {
                let _guard = guard;
                std::future::pending::<()>().await;
            }
        };
        Select(gather([endless()]), sleep(tens(1))).await;
        turns(3).await;
        assert_eq!(drops.count(), 0, "its loser is dropped, not cancelled");
        let lost = Select(gather([endless()]), gather([endless()]));
        let outer = spawn(lost);
        turns(3).await;
        outer.cancel();
        assert!(outer.await.is_err());
        turns(3).await;
        assert_eq!(drops.count(), 2, "a cancel goes through it to what it awaited");
    });
}

#[test]
fn g_forgotten_sets_let_their_tasks_run_on() {
    virtually(async || {
        let drops = Drops::new();
        let run = || {
            let guard = drops.guard();
            async move {
                let _guard = guard;
                sleep(tens(1)).await;
                Ok::<_, ()>(1)
            }
        };
        let mut gathered = Box::pin(gather([run(), run()]));
        assert!(poll_once(gathered.as_mut()).await.is_pending());
        std::mem::forget(gathered);
        let mut failing = Box::pin(try_gather([run()]));
        assert!(poll_once(failing.as_mut()).await.is_pending());
        std::mem::forget(failing);
        let (one, two) = (run(), run());
        let mut grouped = Box::pin(group(async move |g| {
            drop(g.spawn(one));
            drop(g.spawn(two));
            Ok(())
        }));
        assert!(poll_once(grouped.as_mut()).await.is_pending());
        std::mem::forget(grouped);
        let mut task = spawn(run());
        {
            let mut limited = Box::pin(task.timeout(tens(100)));
            assert!(poll_once(limited.as_mut()).await.is_pending());
            std::mem::forget(limited);
        }
        assert_eq!(task.await.unwrap(), Ok(1));
        let (completer, awaitable) = future::<u8>();
        let mut waits = Box::pin(awaitable.clone());
        assert!(poll_once(waits.as_mut()).await.is_pending());
        std::mem::forget(waits);
        completer.complete(1).unwrap();
        sleep(tens(3)).await;
        assert_eq!(drops.count(), 6);
    });
}

#[test]
fn g_sets_outlive_their_loop() {
    let mut event_loop = EventLoop::new().unwrap();
    let handles: Vec<JoinHandle<()>> =
        (0..3).map(|_| event_loop.spawn(std::future::pending())).collect();
    let done = event_loop.spawn(async {});
    event_loop.block_on(turns(2));
    drop(event_loop);
    coreloop::run(async {
        let results = gather_handles(handles.into_iter().chain([done])).await;
        let cancelled = results.iter().filter(|r| r.as_ref().is_err_and(|e| e.is_cancelled()));
        assert_eq!((cancelled.count(), results.len()), (3, 4));
    })
    .unwrap();
}

/// Tasks of several loops have no list in common: all are looked at, with the same results.
#[test]
fn g_sets_take_tasks_of_several_loops() {
    let (mut one, mut two) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
    let go = Rc::new(Event::new());
    let waits = |n: u64| {
        let go = go.clone();
        async move {
            go.wait().await;
            Ok::<_, u64>(n)
        }
    };
    let tasks = |one: &EventLoop, two: &EventLoop| {
        [one.spawn(waits(0)), two.spawn(waits(1)), two.spawn(async { Ok(2) })]
    };
    let mut ended = as_completed(tasks(&one, &two));
    let mut all = pin!(try_gather_handles(tasks(&one, &two)));
    let mut watched = tasks(&one, &two);
    let mut waited = pin!(wait(&mut watched, When::AllCompleted, None));
    let (count, waker) = counting();
    let mut cx = Context::from_waker(&waker);
    assert!(pin!(ended.next()).poll(&mut cx).is_pending());
    assert!(all.as_mut().poll(&mut cx).is_pending());
    assert!(waited.as_mut().poll(&mut cx).is_pending());
    two.block_on(turns(2));
    assert_eq!(count.0.load(Ordering::SeqCst), 3);
    assert!(matches!(pin!(ended.next()).poll(&mut cx), Poll::Ready(Some((2, Ok(Ok(2)))))));
    assert!(pin!(ended.next()).poll(&mut cx).is_pending());
    go.set();
    two.block_on(turns(2));
    one.block_on(turns(2));
    assert!(matches!(pin!(ended.next()).poll(&mut cx), Poll::Ready(Some((1, Ok(Ok(1)))))));
    assert!(matches!(pin!(ended.next()).poll(&mut cx), Poll::Ready(Some((0, Ok(Ok(0)))))));
    assert!(matches!(pin!(ended.next()).poll(&mut cx), Poll::Ready(None)));
    let Poll::Ready(Ok(values)) = all.poll(&mut cx) else { panic!("all have ended") };
    assert_eq!(values, [0, 1, 2]);
    let Poll::Ready(waited) = waited.poll(&mut cx) else { panic!("all have ended") };
    assert_eq!((waited.done, waited.pending), (vec![0, 1, 2], vec![]));
}

/// The set goes on hearing of its tasks, and nobody reads it: they are the caller's all the same.
#[test]
fn g6_tasks_of_a_forgotten_wait_are_as_before() {
    virtually(async || {
        for _ in 0..3 {
            let mut handles = [spawn(after(1)), spawn(after(2)), spawn(after(3))];
            let mut waits = Box::pin(wait(&mut handles, When::AllCompleted, None));
            assert!(poll_once(waits.as_mut()).await.is_pending());
            std::mem::forget(waits);
            let [first, second, third] = handles;
            sleep(tens(1)).await;
            turns(2).await;
            assert!(first.is_finished());
            drop(first);
            // Takes the slot of the first, which the forgotten set has in its list.
            let again = spawn(after(1));
            assert_eq!(second.await.unwrap(), Ok(2));
            let mut ended = as_completed([again, third]);
            for expected in [0, 1] {
                assert_eq!(ended.next().await.unwrap().0, expected);
            }
        }
    });
}

/// A set that is dropped has been told of ends that it did not give; the next one is told of its own only.
#[test]
fn g5_a_set_in_the_place_of_another_hears_of_its_own_tasks() {
    virtually(async || {
        for _ in 0..3 {
            let mut first = as_completed([1, 1, 2, 9].map(|n| spawn(after(n))));
            assert!(first.next().await.is_some());
            sleep(tens(2)).await;
            drop(first);
            let mut second = as_completed([3, 1, 2].map(|n| spawn(after(n))));
            let mut order = Vec::new();
            while let Some((input, result)) = second.next().await {
                assert_eq!(result.unwrap().unwrap(), [3, 1, 2][input]);
                order.push(input);
            }
            assert_eq!(order, [1, 2, 0]);
        }
    });
}

/// Many sets at once on one core, ended, asked and dropped in a random order, against what each is to give.
#[test]
fn g5_sets_share_a_core_and_nothing_else() {
    for seed in 1..=20_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = move |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % n as u64) as usize
        };
        virtually(move || async move {
            let mut sets = Vec::new();
            let mut given = 0;
            for _ in 0..400 {
                match below(4) {
                    0 => {
                        let events: Vec<_> =
                            (0..1 + below(6)).map(|_| Rc::new(Event::new())).collect();
                        let tasks = events.iter().map(|event| {
                            let event = event.clone();
                            spawn(async move { event.wait().await })
                        });
                        let ended = as_completed(tasks);
                        sets.push((ended, events, VecDeque::new()));
                        turns(2).await;
                    }
                    1 if !sets.is_empty() => {
                        let which = below(sets.len());
                        let (_, events, due) = &mut sets[which];
                        let index = below(events.len());
                        if !events[index].is_set() {
                            events[index].set();
                            due.push_back(index);
                        }
                        turns(2).await;
                    }
                    2 if !sets.is_empty() => {
                        let which = below(sets.len());
                        let (ended, events, due) = &mut sets[which];
                        let left = ended.remaining();
                        match (poll_once(pin!(ended.next())).await, due.pop_front()) {
                            (Poll::Ready(Some((input, Ok(())))), Some(expected)) => {
                                assert_eq!(input, expected, "seed {seed}");
                                given += 1;
                            }
                            (Poll::Ready(None), None) => assert_eq!(left, 0, "seed {seed}"),
                            (Poll::Pending, None) => {
                                assert!(0 < left && left <= events.len(), "seed {seed}");
                            }
                            (polled, expected) => panic!("seed {seed}: {polled:?}, {expected:?}"),
                        }
                    }
                    3 if sets.len() > 4 => drop(sets.swap_remove(below(sets.len()))),
                    _ => {}
                }
            }
            assert!(given > 10, "seed {seed}");
        });
    }
}

#[test]
fn g7_a_place_in_a_group_is_given_back() {
    virtually(async || {
        group(async |g| {
            for _ in 0..200 {
                drop(g.spawn(async { Ok::<_, ()>(()) }));
                turns(2).await;
                assert!(g.len() <= 1);
            }
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// A cancel that comes too late for its task, whose slot has another one by now.
#[test]
fn g7_a_group_that_ends_cancels_no_stranger() {
    virtually(async || {
        let drops = Drops::new();
        let guard = drops.guard();
        let result = group(async move |g| {
            drop(g.spawn(async { Ok(()) }));
            turns(2).await;
            // Takes the child's slot.
            let stranger = spawn(async move {
                let _guard = guard;
                sleep(tens(5)).await;
            });
            turns(2).await;
            drop(stranger);
            Err::<(), _>("ends the group")
        });
        assert!(result.await.is_err());
        turns(3).await;
        assert_eq!(drops.count(), 0);
    });
}
