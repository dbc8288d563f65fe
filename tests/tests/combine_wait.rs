//! Results as they come (G5), and looks at what has ended (G6).

use coreloop::combine::{AsCompleted, WaitError, When, as_completed, race, try_wait, wait};
use coreloop::spawn;
use coreloop::task::JoinHandle;
use coreloop::time::{sleep, timeout};
use coreloop_tests::drive::{Clock, Drops, tens, virtually};
use coreloop_tests::turns;

/// Tasks that end after so many tens of milliseconds, and the count of their destructors.
fn tasks(ns: &[u64]) -> (Vec<JoinHandle<u64>>, Drops) {
    let drops = Drops::new();
    let made = ns.iter().map(|n| {
        let (n, guard) = (*n, drops.guard());
        spawn(async move {
            let _guard = guard;
            sleep(tens(n)).await;
            n
        })
    });
    (made.collect(), drops)
}

/// What is left, as (input, value), with none for a time limit.
async fn rest(mut ended: AsCompleted<u64>) -> Vec<(usize, Option<u64>)> {
    let mut given = Vec::new();
    while let Some((input, result)) = ended.next().await {
        given.push((input, result.ok()));
    }
    assert_eq!(ended.remaining(), 0);
    given
}

#[test]
fn g5_results_come_as_they_end_with_their_input() {
    virtually(async || {
        let clock = Clock::new();
        let mut ended = as_completed(tasks(&[3, 1, 2]).0);
        let mut given = Vec::new();
        while let Some((input, result)) = ended.next().await {
            given.push((clock.tens(), input, result.unwrap()));
        }
        assert_eq!(given, [(1, 1, 1), (2, 2, 2), (3, 0, 3)]);
        assert!(ended.next().await.is_none(), "also when it is asked again");
    });
}

#[test]
fn g5_what_ended_while_nobody_asked_keeps_its_order() {
    virtually(async || {
        let ended = as_completed(tasks(&[3, 1, 2, 9]).0);
        sleep(tens(5)).await;
        assert_eq!(rest(ended).await, [(1, Some(1)), (2, Some(2)), (0, Some(3)), (3, Some(9))]);
        // Also by cancels, which end tasks between polls.
        let (handles, _) = tasks(&[9, 9, 9]);
        turns(2).await;
        for i in [1, 2, 0] {
            handles[i].cancel();
        }
        turns(2).await;
        let order: Vec<_> = rest(as_completed(handles)).await.iter().map(|(i, _)| *i).collect();
        assert_eq!(order, [1, 2, 0]);
    });
}

#[test]
fn g5_over_the_limit_the_rest_is_late_and_runs_on() {
    virtually(async || {
        let clock = Clock::new();
        let (handles, drops) = tasks(&[9, 1, 8, 2]);
        let mut ended = as_completed(handles).within(tens(4));
        let mut given = Vec::new();
        while let Some((input, result)) = ended.next().await {
            match result {
                Ok(_) => given.push((clock.tens(), input, true)),
                Err(WaitError::Elapsed) => given.push((clock.tens(), input, false)),
                Err(WaitError::Join(e)) => panic!("{e}"),
            }
        }
        assert_eq!(given, [(1, 1, true), (2, 3, true), (4, 0, false), (4, 2, false)]);
        turns(3).await;
        assert_eq!(drops.count(), 2, "nobody was cancelled");
        sleep(tens(6)).await;
        assert_eq!(drops.count(), 4);
    });
}

#[test]
fn g5_what_had_ended_is_handed_out_before_anything_is_late() {
    virtually(async || {
        let ended = as_completed(tasks(&[9, 1, 2]).0).within(tens(3));
        sleep(tens(5)).await;
        assert_eq!(rest(ended).await, [(1, Some(1)), (2, Some(2)), (0, None)]);
        let none_ready = as_completed(tasks(&[9]).0).within(tens(0));
        assert_eq!(rest(none_ready).await, [(0, None)]);
        let no_limit = as_completed(tasks(&[2]).0).within(std::time::Duration::MAX);
        assert_eq!(rest(no_limit).await, [(0, Some(2))]);
        assert_eq!(rest(as_completed([])).await, []);
    });
}

#[test]
fn g5_a_panic_or_cancel_is_that_tasks_error() {
    virtually(async || {
        let panics = spawn(async { panic!("one") });
        let (mut handles, _) = tasks(&[9, 1]);
        handles[0].cancel();
        handles.push(panics);
        let mut ended = as_completed(handles);
        let mut errors = Vec::new();
        while let Some((input, result)) = ended.next().await {
            if let Err(WaitError::Join(e)) = result {
                errors.push((input, e.is_panic()));
            }
        }
        assert_eq!(errors, [(2, true), (0, false)], "it was spawned before them");
    });
}

#[test]
fn g5_a_cancel_passes_to_what_is_awaited_and_a_drop_lets_go() {
    virtually(async || {
        let (handles, drops) = tasks(&[9, 9, 1]);
        let outer = spawn(async move { rest(as_completed(handles)).await.len() });
        sleep(tens(2)).await;
        outer.cancel();
        assert!(outer.await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 3, "it awaited them all");
        // Held while its owner awaits something else: let go.
        let (handles, drops) = tasks(&[9, 9, 1]);
        let outer = spawn(async move {
            let mut ended = as_completed(handles);
            drop(ended.next().await);
            sleep(tens(100)).await;
            drop(ended);
        });
        sleep(tens(2)).await;
        outer.cancel();
        assert!(outer.await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 1);
        // A lost race over `next` loses nothing.
        let (handles, _) = tasks(&[4, 2]);
        let mut ended = as_completed(handles);
        drop(race(ended.next(), sleep(tens(1))).await);
        assert_eq!(rest(ended).await, [(1, Some(2)), (0, Some(4))]);
    });
}

#[test]
fn g6_all_completed() {
    virtually(async || {
        let clock = Clock::new();
        let (mut handles, _) = tasks(&[3, 1, 2]);
        let waited = wait(&mut handles, When::AllCompleted, None).await;
        assert_eq!((waited.done, waited.pending, clock.tens()), (vec![0, 1, 2], vec![], 3));
        assert_eq!(handles.remove(1).await.unwrap(), 1, "results stay with their handles");
    });
}

#[test]
fn g6_first_completed_and_again_until_none_is_left() {
    virtually(async || {
        let clock = Clock::new();
        let (mut handles, _) = tasks(&[3, 1, 2]);
        let mut seen = Vec::new();
        while !handles.is_empty() {
            let waited = wait(&mut handles, When::FirstCompleted, None).await;
            assert_eq!(waited.done.len() + waited.pending.len(), handles.len());
            for i in waited.done.into_iter().rev() {
                seen.push((clock.tens(), handles.remove(i).await.unwrap()));
            }
        }
        assert_eq!(seen, [(1, 1), (2, 2), (3, 3)]);
    });
}

#[test]
fn g6_first_error_and_the_rest_pending() {
    virtually(async || {
        let run = |n: u64, fails: bool| {
            spawn(async move {
                sleep(tens(n)).await;
                if fails { Err(n) } else { Ok(n) }
            })
        };
        let clock = Clock::new();
        let mut handles = [run(1, false), run(3, true), run(9, false), run(8, true)];
        let waited = try_wait(&mut handles, When::FirstError, None).await;
        assert_eq!((waited.done, waited.pending, clock.tens()), (vec![0, 1], vec![2, 3], 3));
        // Without an error it waits for all; a cancel is none.
        let mut handles = [run(1, false), run(9, false), run(2, false)];
        handles[1].cancel();
        let waited = try_wait(&mut handles, When::FirstError, None).await;
        assert_eq!((waited.done, clock.tens()), (vec![0, 1, 2], 5));
        // A panic is one for any type.
        let (mut handles, _) = tasks(&[5]);
        handles.push(spawn(async { panic!("a failure") }));
        let waited = wait(&mut handles, When::FirstError, None).await;
        assert_eq!((waited.done, waited.pending), (vec![1], vec![0]));
    });
}

#[test]
fn g6_over_the_limit_it_neither_fails_nor_cancels() {
    virtually(async || {
        let clock = Clock::new();
        let (mut handles, drops) = tasks(&[9, 1, 8]);
        let waited = wait(&mut handles, When::AllCompleted, Some(tens(4))).await;
        assert_eq!((waited.done, waited.pending, clock.tens()), (vec![1], vec![0, 2], 4));
        turns(3).await;
        assert_eq!(drops.count(), 1);
        // The pending ones can be cancelled and waited for again.
        assert!(handles[0].cancel());
        let waited = wait(&mut handles, When::AllCompleted, None).await;
        assert_eq!((waited.done, waited.pending, clock.tens()), (vec![0, 1, 2], vec![], 8));
        assert!(handles[0].is_cancelled() && !handles[2].is_cancelled());
        let waited = wait(&mut handles, When::FirstCompleted, Some(tens(0))).await;
        assert_eq!(waited.done.len(), 3, "also with no time at all");
    });
}

#[test]
fn g6_a_cancel_of_the_waiter_does_not_reach_the_tasks() {
    virtually(async || {
        let (mut handles, drops) = tasks(&[9, 9]);
        let outer = spawn(async move {
            wait(&mut handles, When::AllCompleted, None).await;
        });
        turns(3).await;
        outer.cancel();
        assert!(outer.await.is_err());
        turns(3).await;
        assert_eq!(drops.count(), 0, "it only looked");
        let (mut handles, drops) = tasks(&[9, 3]);
        assert!(timeout(tens(1), wait(&mut handles, When::FirstCompleted, None)).await.is_err());
        turns(3).await;
        assert_eq!(drops.count(), 0);
        assert_eq!(handles.remove(1).await.unwrap(), 3, "and can be awaited again");
    });
}

#[test]
fn g6_nothing_to_wait_for_is_ready_at_once() {
    virtually(async || {
        let clock = Clock::new();
        let mut none: [JoinHandle<()>; 0] = [];
        for until in [When::AllCompleted, When::FirstCompleted, When::FirstError] {
            let waited = wait(&mut none, until, Some(tens(5))).await;
            assert_eq!((waited.done.len(), waited.pending.len(), clock.tens()), (0, 0, 0));
        }
    });
}
