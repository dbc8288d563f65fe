//! Gathering (G1 to G4): in order, failing or collecting, cancelled as a whole.

use std::cell::RefCell;
use std::rc::Rc;

use coreloop::combine::{
    TaskFailure, gather, gather_handles, gather_tuple, race, shield, try_gather,
    try_gather_handles, try_gather_tuple,
};
use coreloop::spawn;
use coreloop::time::{sleep, timeout};
use coreloop_tests::drive::{Clock, Drops, tens, virtually};
use coreloop_tests::turns;

/// Takes so many tens of milliseconds and gives their number, or fails with it.
async fn after(n: u64, fails: bool) -> Result<u64, u64> {
    sleep(tens(n)).await;
    if fails { Err(n) } else { Ok(n) }
}

/// As many futures as there are numbers, and the count of their destructors.
fn guarded(ns: &[u64]) -> (Vec<impl Future<Output = Result<u64, u64>> + 'static>, Drops) {
    let drops = Drops::new();
    let made = ns.iter().map(|n| {
        let (n, guard) = (*n, drops.guard());
        async move {
            let _guard = guard;
            after(n, false).await
        }
    });
    (made.collect(), drops)
}

#[test]
fn g1_results_come_in_the_order_of_the_inputs() {
    virtually(async || {
        let clock = Clock::new();
        let ended = Rc::new(RefCell::new(Vec::new()));
        let run = |n: u64| {
            let ended = ended.clone();
            async move {
                sleep(tens(n)).await;
                ended.borrow_mut().push(n);
                n
            }
        };
        let results = gather([3, 1, 5, 2].map(run)).await;
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [3, 1, 5, 2]);
        assert_eq!(*ended.borrow(), [1, 2, 3, 5]);
        assert_eq!(clock.tens(), 5, "at once, not one after the other");
    });
}

#[test]
fn g1_each_is_a_task_of_its_own_made_by_the_call() {
    virtually(async || {
        let ids = gather((0..3).map(|_| async { coreloop::task::current_id().unwrap() }));
        let ids: Vec<_> = ids.await.into_iter().map(Result::unwrap).collect();
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        // They run before the gather is polled for the first time.
        let ran = Rc::new(RefCell::new(0));
        let counting = (0..3).map(|_| {
            let ran = ran.clone();
            async move { *ran.borrow_mut() += 1 }
        });
        let gathered = gather(counting);
        assert_eq!(*ran.borrow(), 0);
        turns(2).await;
        assert_eq!(*ran.borrow(), 3);
        assert_eq!(gathered.await.len(), 3);
    });
}

#[test]
fn g1_a_tuple_of_different_types() {
    virtually(async || {
        let clock = Clock::new();
        let (a, b, c) = gather_tuple((
            async {
                sleep(tens(2)).await;
                "text"
            },
            async { 7_u8 },
            async {
                sleep(tens(1)).await;
                panic!("only this one");
            },
        ))
        .await;
        let c: Result<(), _> = c;
        assert_eq!((a.unwrap(), b.unwrap(), clock.tens()), ("text", 7, 2));
        assert!(c.unwrap_err().is_panic());
        let eight = gather_tuple((
            async { 1 },
            async { '2' },
            async { 3 },
            async { "4" },
            async { 5 },
            async { 6.0 },
            async { 7 },
            async { Some(8) },
        ));
        let eight = eight.await;
        assert_eq!((eight.1.unwrap(), eight.7.unwrap()), ('2', Some(8)));
    });
}

#[test]
fn g1_handles_gathered_may_have_ended_before() {
    virtually(async || {
        let handles: Vec<_> = (0..5).map(|n| spawn(async move { n })).collect();
        turns(3).await;
        handles[3].cancel();
        let results = gather_handles(handles).await;
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn g2_the_first_error_comes_at_once_and_the_others_run_on() {
    virtually(async || {
        let clock = Clock::new();
        let (slow, drops) = guarded(&[8]);
        let slow = slow.into_iter().map(spawn);
        let all =
            slow.chain([spawn(after(1, false)), spawn(after(3, true)), spawn(after(4, true))]);
        let e = try_gather_handles(all).await.expect_err("two fail");
        assert_eq!((clock.tens(), e.index()), (3, 2));
        assert!(matches!(e.into_reason(), TaskFailure::Error(3)));
        turns(3).await;
        assert_eq!(drops.count(), 0, "the others are not cancelled");
        sleep(tens(6)).await;
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn g2_a_panic_or_cancel_of_a_child_is_an_error_too() {
    virtually(async || {
        let panics = spawn(async { panic!("a child") });
        let e = try_gather_handles([spawn(after(2, false)), panics]).await.unwrap_err();
        assert_eq!(e.index(), 1);
        assert!(matches!(e.reason(), TaskFailure::Join(e) if e.is_panic()));
        assert_eq!(e.to_string(), "input 1: the task panicked: a child");
        let (one, two) = (spawn(after(2, false)), spawn(after(9, false)));
        two.cancel();
        let e = try_gather_handles([one, two]).await.unwrap_err();
        assert!(matches!(e.into_reason(), TaskFailure::Join(e) if e.is_cancelled()));
    });
}

#[test]
fn g2_without_an_error_all_values_come_in_order() {
    virtually(async || {
        let all = try_gather([3, 1, 2].map(|n| after(n, false))).await;
        assert_eq!(all.unwrap(), [3, 1, 2]);
        let both = try_gather_tuple((after(1, false), async { Ok::<_, u64>("two") })).await;
        assert_eq!(both.unwrap(), (1, "two"));
        let clock = Clock::new();
        let (slow, drops) = guarded(&[9]);
        let slow = slow.into_iter().next().unwrap();
        let e = try_gather_tuple((slow, after(2, true), after(1, false))).await.unwrap_err();
        assert_eq!((e.index(), clock.tens()), (1, 2));
        sleep(tens(1)).await;
        assert_eq!(drops.count(), 0, "it runs on");
    });
}

#[test]
fn g3_collecting_gives_errors_in_their_places() {
    virtually(async || {
        let clock = Clock::new();
        let panics = spawn(async {
            sleep(tens(1)).await;
            panic!("third");
        });
        let cancelled = spawn(after(9, false));
        cancelled.cancel();
        let all = [spawn(after(4, false)), spawn(after(2, true)), panics, cancelled];
        let all = gather_handles(all).await;
        assert!(matches!(all[0], Ok(Ok(4))) && matches!(all[1], Ok(Err(2))));
        assert_eq!(all[2].as_ref().unwrap_err().panic_message(), Some("third"));
        assert!(all[3].as_ref().unwrap_err().is_cancelled());
        assert_eq!(clock.tens(), 4, "it waits for all");
    });
}

#[test]
fn g4_cancelling_a_gather_cancels_its_children() {
    virtually(async || {
        let (children, drops) = guarded(&[9, 1, 9, 9]);
        let outer = spawn(async move { gather(children).await.len() });
        sleep(tens(2)).await;
        assert_eq!(drops.count(), 1);
        outer.cancel();
        assert!(outer.await.expect_err("cancelled").is_cancelled());
        turns(2).await;
        assert_eq!(drops.count(), 4);
        // By a limit, a lost race, in the failing form, and for tuples.
        let (children, drops) = guarded(&[9, 9, 9]);
        assert!(timeout(tens(1), gather(children)).await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 3);
        let (children, drops) = guarded(&[9, 9, 9]);
        drop(race(sleep(tens(1)), try_gather(children)).await);
        turns(2).await;
        assert_eq!(drops.count(), 3);
        let (children, drops) = guarded(&[9, 9]);
        let mut children = children.into_iter();
        let two = (children.next().unwrap(), children.next().unwrap());
        assert!(timeout(tens(1), gather_tuple(two)).await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 2);
        let (children, drops) = guarded(&[9, 9]);
        let mut children = children.into_iter();
        let two = (children.next().unwrap(), children.next().unwrap());
        assert!(timeout(tens(1), try_gather_tuple(two)).await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn g4_cancelling_a_gather_by_hand_gives_errors() {
    virtually(async || {
        let (children, drops) = guarded(&[9, 0]);
        let gathered = gather(children);
        turns(4).await;
        gathered.cancel();
        let results = gathered.await;
        assert!(results[0].as_ref().unwrap_err().is_cancelled());
        assert!(matches!(results[1], Ok(Ok(0))), "it had ended");
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn g4_a_gather_that_is_dropped_lets_go() {
    virtually(async || {
        let (children, drops) = guarded(&[2, 2]);
        drop(gather(children));
        let (more, more_drops) = guarded(&[2, 2]);
        {
            let mut gathered = Box::pin(gather(more));
            assert!(coreloop_tests::poll_once(gathered.as_mut()).await.is_pending());
        }
        turns(3).await;
        assert_eq!((drops.count(), more_drops.count()), (0, 0));
        sleep(tens(3)).await;
        assert_eq!((drops.count(), more_drops.count()), (2, 2));
    });
}

#[test]
fn g4_a_shield_keeps_the_children() {
    virtually(async || {
        let (children, drops) = guarded(&[5, 5]);
        let mut gathered = spawn(gather(children));
        assert!(timeout(tens(1), shield(&mut gathered)).await.is_err());
        turns(3).await;
        assert_eq!(drops.count(), 0);
        assert_eq!(gathered.await.unwrap().len(), 2);
    });
}

#[test]
fn g4_an_empty_gather_is_ready_at_once() {
    virtually(async || {
        let nothing: [std::future::Ready<Result<u8, u8>>; 0] = [];
        let mut gathered = std::pin::pin!(gather(nothing.clone()));
        let mut failing = std::pin::pin!(try_gather(nothing));
        assert!(coreloop_tests::poll_once(gathered.as_mut()).await.is_ready());
        assert!(coreloop_tests::poll_once(failing.as_mut()).await.is_ready());
    });
}

/// Wherever a cancel strikes, every child ends by itself or by it, and nothing of it stays.
#[test]
fn g4_cancel_at_every_point() {
    virtually(async || {
        for failing in [false, true] {
            for point in 0..14 {
                let drops = Drops::new();
                let children = (0..5_usize).map(|n| {
                    let guard = drops.guard();
                    async move {
                        let _guard = guard;
                        turns(n * 2).await;
                        Ok::<_, u8>(n)
                    }
                });
                let children: Vec<_> = children.collect();
                let outer = spawn(async move {
                    if failing {
                        drop(try_gather(children).await);
                    } else {
                        drop(gather(children).await);
                    }
                });
                turns(point).await;
                outer.cancel();
                let ended = outer.await;
                turns(2).await;
                assert_eq!(drops.count(), 5, "failing: {failing}, after {point} turns: {ended:?}");
            }
        }
    });
}

#[test]
fn g_a_gather_polled_after_its_end_says_so() {
    virtually(async || {
        let mut gathered = gather([async { 1 }]);
        assert_eq!((&mut gathered).await.len(), 1);
        let mut again = Box::pin(gathered);
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            again.as_mut().poll(&mut cx).is_ready()
        }));
        let payload = polled.expect_err("it has ended");
        assert!(payload.downcast_ref::<&str>().unwrap().contains("polled after it was ready"));
    });
}
