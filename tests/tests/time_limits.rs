//! Time limits and intervals.

use std::cell::Cell;
use std::io::Write;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant as StdInstant};

use coreloop::combine::{Either, race};
use coreloop::time::{
    Instant, MissedTicks, interval, interval_at, sleep, sleep_until, timeout, timeout_at,
};
use coreloop_tests::drive::Drops;
use coreloop_tests::{net, poll_once, turns};

const BRIEF: Duration = Duration::from_millis(3);
const SOON: Duration = Duration::from_secs(20);

#[test]
fn w3_a_limit_of_zero_still_gives_what_is_ready() {
    coreloop::run(async {
        let past = Instant::now() - Duration::from_secs(1);
        assert_eq!(timeout(Duration::ZERO, async { 7 }).await, Ok(7));
        assert_eq!(timeout_at(past, async { 7 }).await, Ok(7));
        // What is not ready at its first poll times out at once, and is not polled again.
        let polls = Cell::new(0);
        let pending = std::future::poll_fn(|_| -> Poll<()> {
            polls.set(polls.get() + 1);
            Poll::Pending
        });
        let mut limited = pin!(timeout(Duration::ZERO, pending));
        assert!(matches!(poll_once(limited.as_mut()).await, Poll::Ready(Err(_))), "at once");
        assert_eq!(polls.get(), 1);
    })
    .unwrap();
}

/// A task that blocks the core for a while, once.
fn hog(d: Duration) {
    drop(coreloop::spawn(async move { std::thread::sleep(d) }));
}

#[test]
fn w1_what_came_in_time_beats_its_limit() {
    coreloop::run(async {
        for _ in 0..20 {
            hog(BRIEF * 4);
            assert_eq!(timeout(BRIEF, sleep(BRIEF / 3)).await, Ok(()), "both were due");
            let (mut ours, mut theirs) = net::pair();
            theirs.write_all(b"x").unwrap();
            hog(BRIEF * 4);
            let got = timeout(BRIEF, ours.recv()).await;
            assert!(got.is_ok(), "the byte came before the limit, the core looked after both");
        }
    })
    .unwrap();
}

/// As above, but the waiting task is polled in the same turn, before the loop has looked.
#[test]
fn w1_what_came_in_time_beats_its_limit_in_a_late_poll() {
    coreloop::run(async {
        let mut late = 0;
        for _ in 0..20 {
            let (mut ours, mut theirs) = net::pair();
            // In the order of the run queue: the hog, then the task that waits and is always ready.
            let hog = coreloop::spawn(async move {
                turns(3).await;
                theirs.write_all(b"x").unwrap();
                std::thread::sleep(BRIEF * 4);
                theirs
            });
            let waits = coreloop::spawn(async move {
                let endless = async {
                    loop {
                        turns(1).await;
                    }
                };
                match race(timeout(BRIEF, ours.recv()), endless).await {
                    Either::First(got) => got.is_err(),
                    Either::Second(()) => unreachable!("endless"),
                }
            });
            late += usize::from(waits.await.unwrap());
            hog.await.unwrap();
        }
        assert_eq!(late, 0, "of 20 receives whose byte was there 12 ms before anybody looked");
    })
    .unwrap();
}

#[test]
fn w1_a_limit_drops_the_future_before_it_says_so() {
    coreloop::run(async {
        let drops = Drops::new();
        let guard = drops.guard();
        let began = StdInstant::now();
        let late = timeout(BRIEF, async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let e = late.await.expect_err("it never ends");
        assert_eq!(drops.count(), 1);
        assert!(began.elapsed() >= BRIEF && began.elapsed() < SOON);
        let e = std::io::Error::from(e);
        assert_eq!(e.kind(), std::io::ErrorKind::TimedOut);
        // A value drops it too, at once.
        let guard = drops.guard();
        let mut limited = pin!(timeout(SOON, async move {
            let _guard = guard;
        }));
        assert!(poll_once(limited.as_mut()).await.is_ready());
        assert_eq!(drops.count(), 2);
    })
    .unwrap();
}

#[test]
fn w3_nested_limits_report_their_own_expiry_only() {
    coreloop::run(async {
        let inner_first = timeout(SOON, timeout(BRIEF, std::future::pending::<()>())).await;
        assert!(matches!(inner_first, Ok(Err(_))));
        let outer_first = timeout(BRIEF, timeout(SOON, std::future::pending::<()>())).await;
        assert!(outer_first.is_err());
        let none = timeout(SOON, timeout(SOON, sleep(BRIEF))).await;
        assert!(matches!(none, Ok(Ok(()))));
        // The same moment: the inner one is asked first.
        let at = Instant::now() + BRIEF;
        let both = timeout_at(at, timeout_at(at, std::future::pending::<()>())).await;
        assert!(matches!(both, Ok(Err(_))), "{both:?}");
    })
    .unwrap();
}

#[test]
fn w3_a_limit_can_be_moved_and_lifted() {
    coreloop::run(async {
        let began = StdInstant::now();
        let mut limited = pin!(timeout(BRIEF, sleep(BRIEF * 10)));
        assert!(poll_once(limited.as_mut()).await.is_pending());
        limited.as_mut().reset(Instant::NEVER);
        assert_eq!(limited.deadline(), Instant::NEVER);
        assert_eq!(limited.as_mut().await, Ok(()));
        assert!(began.elapsed() >= BRIEF * 10);

        let mut limited = pin!(timeout(SOON, std::future::pending::<()>()));
        assert!(poll_once(limited.as_mut()).await.is_pending());
        limited.as_mut().reset(Instant::now() + BRIEF);
        assert!(limited.as_mut().await.is_err());
        assert!(began.elapsed() < SOON);
    })
    .unwrap();
}

#[test]
fn w4_a_limit_of_an_enormous_span_means_none() {
    coreloop::run(async {
        for d in [Duration::MAX, Duration::from_secs(u64::MAX / 2)] {
            assert_eq!(timeout(d, sleep(BRIEF)).await, Ok(()));
        }
        assert_eq!(timeout_at(Instant::NEVER, sleep(BRIEF)).await, Ok(()));
    })
    .unwrap();
}

#[test]
fn time_interval_keeps_its_pace() {
    coreloop::run(async {
        let start = Instant::now() + BRIEF;
        let mut ticks = interval_at(start, BRIEF);
        for i in 0..20 {
            let due = ticks.tick().await;
            assert_eq!(due - start, BRIEF * i, "tick {i} is due by the pace, not by its wake");
            assert!(Instant::now() >= due, "tick {i} is early");
        }
        assert_eq!(ticks.period(), BRIEF);
        let caught = std::panic::catch_unwind(|| interval(Duration::ZERO));
        assert!(caught.is_err(), "a period of zero is refused");
    })
    .unwrap();
}

/// Misses some four ticks and gives the next six, as multiples of the period after the start.
async fn after_missed_ticks(missed: MissedTicks) -> (Vec<f64>, Vec<Duration>) {
    let period = Duration::from_millis(20);
    let mut ticks = interval(period).missed_ticks(missed);
    let start = ticks.tick().await;
    std::thread::sleep(period * 4 + period / 2);
    let (mut dues, mut waits) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let began = StdInstant::now();
        let due = ticks.tick().await;
        waits.push(began.elapsed());
        dues.push((due - start).as_secs_f64() / period.as_secs_f64());
    }
    (dues, waits)
}

#[test]
fn time_interval_burst_gives_all_missed_ticks() {
    coreloop::run(async {
        let (dues, _) = after_missed_ticks(MissedTicks::Burst).await;
        assert_eq!(dues, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    })
    .unwrap();
}

#[test]
fn time_interval_skip_goes_on_in_the_old_pace() {
    coreloop::run(async {
        let (dues, _) = after_missed_ticks(MissedTicks::Skip).await;
        assert_eq!(dues[0], 1.0, "one for those that were missed");
        let rest = &dues[1..];
        assert!(rest[0] >= 5.0, "{dues:?}");
        assert!(rest.iter().all(|d| (d - d.round()).abs() < 1e-6), "the original pace: {dues:?}");
        assert!(rest.windows(2).all(|w| w[1] > w[0]), "{dues:?}");
    })
    .unwrap();
}

#[test]
fn time_interval_delay_goes_on_a_period_later() {
    coreloop::run(async {
        let (dues, waits) = after_missed_ticks(MissedTicks::Delay).await;
        assert_eq!(dues[0], 1.0, "one for those that were missed");
        assert!(dues[1] >= 5.4, "a period after the late one: {dues:?}");
        let pace: Vec<_> = dues[1..].windows(2).map(|w| w[1] - w[0]).collect();
        assert!(pace.iter().all(|p| *p >= 0.999), "never faster than the period: {dues:?}");
        assert!(waits[1] >= Duration::from_millis(15), "{waits:?}");
    })
    .unwrap();
}

#[test]
fn time_interval_tick_dropped_is_given_next_time() {
    coreloop::run(async {
        let start = Instant::now() + BRIEF;
        let mut ticks = interval_at(start, BRIEF);
        for _ in 0..5 {
            let mut pending = pin!(ticks.tick());
            let _ = poll_once(pending.as_mut()).await;
        }
        assert_eq!(ticks.tick().await, start, "the first tick was not given yet");
    })
    .unwrap();
}

#[test]
fn time_limit_in_an_interval_loses_no_tick() {
    coreloop::run(async {
        let start = Instant::now() + BRIEF;
        let mut ticks = interval_at(start, BRIEF * 2);
        let mut dues = Vec::new();
        while dues.len() < 10 {
            if let Ok(due) = timeout(BRIEF / 2, ticks.tick()).await {
                dues.push(due);
            }
        }
        for (i, due) in dues.iter().enumerate() {
            assert_eq!(*due - start, BRIEF * 2 * i as u32, "tick {i}");
        }
    })
    .unwrap();
}

#[test]
fn time_goes_on_while_a_task_hogs_the_core() {
    coreloop::run(async {
        let order = Rc::new(Cell::new(0));
        let (one, two) = (order.clone(), order.clone());
        let now = Instant::now();
        let late = coreloop::spawn(async move {
            sleep_until(now + BRIEF * 2).await;
            assert_eq!(two.replace(2), 1, "timers fire in the order of their deadlines");
        });
        let soon = coreloop::spawn(async move {
            sleep_until(now + BRIEF).await;
            assert_eq!(one.replace(1), 0);
        });
        turns(2).await;
        std::thread::sleep(BRIEF * 6);
        soon.await.unwrap();
        late.await.unwrap();
        assert_eq!(order.get(), 2);
    })
    .unwrap();
}

#[test]
fn time_outside_a_loop_is_refused() {
    let mut timer = Box::pin(sleep(BRIEF));
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        timer.as_mut().poll(&mut cx)
    }));
    let payload = polled.expect_err("a timer needs a loop");
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.contains("a timer") && text.contains("running loop"), "{text}");
    let a = Instant::now();
    assert!(Instant::now() >= a, "the clock can be read anywhere");
}
