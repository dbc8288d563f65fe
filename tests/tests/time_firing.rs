//! Timers: none early, none lost, each once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant as StdInstant};

use coreloop::time::{Instant, sleep, sleep_until};
use coreloop::{EventLoop, Settings, Spin, StatsLevel, spawn};
use coreloop_tests::process::{process_cpu, thread_cpu};
use coreloop_tests::trials::best_of;
use coreloop_tests::{Rng, assert_memory_grew_less, figure, in_child, poll_once, rss_bytes, turns};

const SOON: Duration = Duration::from_secs(20);

/// 100,000 sleeps of random length; gives early ones, fired ones and the worst lateness.
fn random_sleeps(settings: Settings, sleeps: usize) -> (usize, usize, Duration) {
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async move {
        let state = Rc::new((Cell::new(0), Cell::new(0), Cell::new(Duration::ZERO)));
        let mut rng = Rng::new(23);
        let tasks: Vec<_> = (0..sleeps)
            .map(|_| {
                let state = state.clone();
                let d = Duration::from_nanos(rng.below(300_000_000));
                spawn(async move {
                    let began = StdInstant::now();
                    sleep(d).await;
                    let took = began.elapsed();
                    if took < d {
                        state.0.set(state.0.get() + 1);
                    }
                    state.1.set(state.1.get() + 1);
                    state.2.set(state.2.get().max(took.saturating_sub(d)));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        (state.0.get(), state.1.get(), state.2.get())
    })
}

#[test]
fn time_100_000_random_sleeps_none_early() {
    in_child("time_100_000_random_sleeps_none_early", || {
        let (early, fired, worst) = random_sleeps(Settings::default(), 100_000);
        figure!("{fired} fired, {early} early, the latest by {worst:?}");
        assert_eq!((early, fired), (0, 100_000));
        assert!(worst < SOON);
    });
}

#[test]
fn time_10_000_random_sleeps_at_other_resolutions() {
    in_child("time_10_000_random_sleeps_at_other_resolutions", || {
        for micros in [1, 100, 10_000] {
            let settings = Settings::default().timer_resolution(Duration::from_micros(micros));
            let (early, fired, worst) = random_sleeps(settings, 10_000);
            figure!("at {micros} µs: {fired} fired, {early} early, the latest by {worst:?}");
            assert_eq!((early, fired), (0, 10_000));
        }
        let masked = Settings::default().mask(coreloop::Feature::AbsTimer).spin(Spin::Off);
        let (early, fired, _) = random_sleeps(masked, 10_000);
        assert_eq!((early, fired), (0, 10_000), "without absolute timers");
    });
}

#[test]
fn time_short_sleeps_one_after_the_other() {
    coreloop::run(async {
        let mut worst = Duration::ZERO;
        for i in 0..200u64 {
            let d = Duration::from_micros(i * 23);
            let began = StdInstant::now();
            sleep(d).await;
            let took = began.elapsed();
            assert!(took >= d, "a sleep of {d:?} took {took:?}");
            worst = worst.max(took - d);
        }
        figure!("the latest of 200 was late by {worst:?}");
        assert!(worst < Duration::from_secs(1));
    })
    .unwrap();
}

#[test]
fn time_a_million_timers_set_and_cancelled() {
    in_child("time_a_million_timers_set_and_cancelled", || {
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.block_on(async {
            let mut rng = Rng::new(29);
            let mut round = async |n: usize| {
                let mut timers = Vec::with_capacity(n);
                for _ in 0..n {
                    // Up to some three years: every level of the wheel.
                    let bits = rng.below(57);
                    let d = Duration::from_nanos(rng.below(1 << bits) + 50_000_000_000);
                    let mut timer = Box::pin(sleep(d));
                    assert!(poll_once(timer.as_mut()).await.is_pending());
                    timers.push(timer);
                }
                while !timers.is_empty() {
                    let at = rng.below(timers.len() as u64) as usize;
                    drop(timers.swap_remove(at));
                }
            };
            round(100_000).await;
            let rss = rss_bytes();
            let began = StdInstant::now();
            for _ in 0..10 {
                round(100_000).await;
            }
            let grown = rss_bytes().saturating_sub(rss);
            figure!("1,000,000 timers in {:?}; memory grew by {grown} bytes", began.elapsed());
            assert_memory_grew_less!(grown, 4 << 20, "");
        });
        assert_eq!(event_loop.stats().counters.timers, 0, "none of them fired");
        let turn = event_loop.turn(Some(Duration::ZERO));
        assert_eq!(turn.next_deadline, None, "none of them is left");
    });
}

#[test]
fn time_sleep_max_never_fires() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        for d in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_nanos(u64::MAX)] {
            let mut timer = Box::pin(sleep(d));
            assert!(poll_once(timer.as_mut()).await.is_pending());
            sleep(Duration::from_millis(3)).await;
            turns(10).await;
            assert!(poll_once(timer.as_mut()).await.is_pending(), "sleep({d:?}) fired");
        }
        let never = Instant::now() + Duration::MAX;
        assert!(never.is_never() && sleep_until(never).deadline().is_never());
        assert!((Instant::NEVER + Duration::from_secs(1)).is_never());
        assert_eq!(Instant::now().duration_since(never), Duration::ZERO);
    });
    // With nothing but such timers a loop that waits does not spin.
    let mut timer = Box::pin(sleep(Duration::MAX));
    event_loop.block_on(async { assert!(poll_once(timer.as_mut()).await.is_pending()) });
    let cpu = thread_cpu();
    event_loop.turn(Some(Duration::from_millis(300)));
    let cpu = thread_cpu() - cpu;
    assert!(cpu < Duration::from_millis(100), "{cpu:?} of CPU in a wait of 300 ms");
}

#[test]
fn time_deadlines_in_the_past_are_due_at_once() {
    coreloop::run(async {
        sleep(Duration::ZERO).await;
        sleep_until(Instant::now() - Duration::from_secs(5)).await;
        sleep_until(Instant::now() - Duration::MAX).await;
        let before = Instant::now();
        sleep_until(before).await;
        assert!(before.elapsed() < SOON);
        let std_past = StdInstant::now();
        sleep_until(Instant::from(std_past)).await;
        let ahead = Instant::from(StdInstant::now() + Duration::from_millis(500));
        let left = ahead - Instant::now();
        // A point of std is never earlier here, and later by as long as it takes to read two clocks.
        assert!(
            left > Duration::from_millis(300) && left <= Duration::from_micros(500_100),
            "{left:?}"
        );
    })
    .unwrap();
}

#[test]
fn time_a_sleep_can_be_reset() {
    coreloop::run(async {
        // Further, nearer, after its end, and never.
        let began = StdInstant::now();
        let mut timer = Box::pin(sleep(Duration::from_millis(5)));
        assert!(poll_once(timer.as_mut()).await.is_pending());
        timer.reset(Instant::now() + Duration::from_millis(30));
        timer.as_mut().await;
        assert!(began.elapsed() >= Duration::from_millis(30));
        timer.reset(Instant::now() + Duration::from_secs(3600));
        assert!(poll_once(timer.as_mut()).await.is_pending());
        timer.reset(Instant::now() + Duration::from_millis(5));
        let began = StdInstant::now();
        timer.as_mut().await;
        assert!(began.elapsed() < SOON);
        timer.reset(Instant::NEVER);
        assert!(poll_once(timer.as_mut()).await.is_pending());
        sleep(Duration::from_millis(3)).await;
        assert!(poll_once(timer.as_mut()).await.is_pending());
    })
    .unwrap();
}

#[test]
fn time_a_sleep_polled_by_another_task_wakes_that_one() {
    coreloop::run(async {
        let mut timer = Box::pin(sleep(Duration::from_millis(5)));
        assert!(poll_once(timer.as_mut()).await.is_pending());
        // The main future's waker is in the wheel; from now on the task's must be.
        let task = spawn(timer);
        let late = coreloop::time::timeout(SOON, task).await;
        late.expect("the task that holds the timer is woken").unwrap();
    })
    .unwrap();
}

/// A timer that its loop took with it must not fire early on another loop, whatever else it does there.
#[test]
fn time_a_sleep_that_outlives_its_loop_is_not_early() {
    let mut first = EventLoop::new().unwrap();
    let mut timer = Box::pin(sleep(Duration::from_millis(300)));
    let began = StdInstant::now();
    first.block_on(async { assert!(poll_once(timer.as_mut()).await.is_pending()) });
    drop(first);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        coreloop::run(coreloop::time::timeout(Duration::from_secs(2), timer)).unwrap()
    }));
    match ended {
        Ok(Ok(())) => {
            let took = began.elapsed();
            assert!(took >= Duration::from_millis(300), "it fired after {took:?}");
        }
        Ok(Err(_)) => {}
        Err(_) => {}
    }
}

/// A process that is stopped for 5 s while 2,000 timers run: each fires once, none early, and those that
/// were due meanwhile are seen to be late.
#[test]
fn time_a_stop_of_the_process_fires_each_timer_once() {
    in_child("time_a_stop_of_the_process_fires_each_timer_once", || {
        let pid = std::process::id();
        // Somebody else has to say CONT: the shell that this child starts, ended with it.
        let script = format!("sleep 0.1; kill -STOP {pid}; sleep 5; kill -CONT {pid}");
        let mut event_loop =
            EventLoop::with(Settings::default().stats(StatsLevel::Histograms)).unwrap();
        let mut stopper = event_loop.block_on(async {
            let (fired, early) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let tasks: Vec<_> = (1..=2000u64)
                .map(|i| {
                    let (fired, early) = (fired.clone(), early.clone());
                    spawn(async move {
                        let d = Duration::from_millis(i);
                        let began = StdInstant::now();
                        sleep(d).await;
                        fired.set(fired.get() + 1);
                        early.set(early.get() + usize::from(began.elapsed() < d));
                    })
                })
                .collect();
            // Not before all of them are set.
            turns(2).await;
            let stopper = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!((fired.get(), early.get()), (2000, 0));
            stopper
        });
        assert!(stopper.wait().unwrap().success(), "the process was stopped and continued");
        let stats = event_loop.stats();
        assert_eq!(stats.counters.timers, 2000, "each timer fires once");
        let worst = stats.histograms.unwrap().timer_late.max_ns();
        figure!("the latest timer was late by {} ms", worst / 1_000_000);
        assert!(worst > 4_500_000_000, "the histogram does not show the stall: {worst} ns");
    });
}

/// An idle server takes less than 1 ms of CPU in 3 s: the whole process, by the best of three spans, since
/// what interrupts and cold caches cost is charged to whoever runs. That it hardly ever wakes at all does
/// not depend on the machine, and is asked of each span.
#[test]
fn time_idle_for_3_seconds_costs_no_cpu() {
    in_child("time_idle_for_3_seconds_costs_no_cpu", || {
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.block_on(async {
            // A connection with a receive armed, a listener, a far timer.
            let (mut ours, theirs) = coreloop_tests::net::pair();
            drop(spawn(async move { drop((ours.recv().await, theirs)) }));
            drop(spawn(async {
                let mut listener = coreloop_net::TcpListener::bind("127.0.0.1:0").unwrap();
                drop(listener.accept().await);
            }));
            drop(spawn(sleep(Duration::from_secs(3600))));
            sleep(Duration::from_millis(50)).await;
        });
        // A sanitizer's own thread is one of the process's.
        let most = Duration::from_millis(if cfg!(tsan) { 10 } else { 1 });
        best_of(3, most, Duration::from_millis(15), || {
            let (before, cpu) = (event_loop.stats().counters, process_cpu());
            event_loop.block_on(sleep(Duration::from_secs(3)));
            let (after, cpu) = (event_loop.stats().counters, process_cpu() - cpu);
            let (ticks, parks) = (after.ticks - before.ticks, after.parks - before.parks);
            figure!("{cpu:?} of CPU in 3 s, {ticks} turns, {parks} parks");
            assert!(ticks <= 10, "{ticks} turns of an idle loop");
            cpu
        });
    });
}
