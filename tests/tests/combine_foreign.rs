//! Sets under strangers: other wakers, other combinators, values that are forgotten, loops that have gone.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use coreloop::combine::{
    When, as_completed, future, gather, gather_handles, group, shield, try_gather, wait,
};
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
