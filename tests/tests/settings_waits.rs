//! How long a sleep gathers completions, and how long a turn's submissions wait.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::{Duration, Instant};

use coreloop::op::{Nop, submit};
use coreloop::sched::TaskQueue;
use coreloop::time::sleep;
use coreloop::{EventLoop, Feature, Settings, Spin, spawn};
use coreloop_tests::{figure, in_child, skip};

const LONG: Duration = Duration::from_millis(10);

fn gathering() -> Option<EventLoop> {
    let settings =
        Settings::default().spin(Spin::Off).min_wait(Some(LONG)).min_wait_completions(16);
    let event_loop = EventLoop::with(settings).unwrap();
    event_loop.ring_report().in_force.contains(Feature::MinWait).then_some(event_loop)
}

/// The shortest that `f` took of so many times: what others do on the machine only makes it longer.
fn best(times: u32, mut f: impl FnMut()) -> Duration {
    let time = |f: &mut dyn FnMut()| {
        let began = Instant::now();
        f();
        began.elapsed()
    };
    (0..times).map(|_| time(&mut f)).min().expect("at least once")
}

#[test]
fn settings_min_wait_gathers_completions() {
    let Some(mut event_loop) = gathering() else { skip!("no min_wait on this kernel") };
    // All of them asked for by the main future itself, and so by the enter that sleeps.
    let nops = |n: usize| {
        let mut all: Vec<_> = (0..n).map(|_| Some(Box::pin(submit(Nop)))).collect();
        poll_fn(move |cx| {
            for one in &mut all {
                if one.as_mut().is_some_and(|nop| nop.as_mut().poll(cx).is_ready()) {
                    *one = None;
                }
            }
            if all.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
        })
    };
    event_loop.block_on(nops(1));
    let few = best(5, || event_loop.block_on(nops(3)));
    assert!(few >= LONG, "3 completions of 16 ended a sleep after {few:?}");
    let parks = event_loop.stats().counters.parks;
    let enough = best(5, || event_loop.block_on(nops(16)));
    assert!(enough < LONG, "16 completions did not end the sleep: {enough:?}");
    let parks = event_loop.stats().counters.parks - parks;
    figure!("3 of 16: {few:?}; 16 of 16: {enough:?}, {parks} parks for 5 times 16 completions");
    assert!(parks <= 10, "{parks} parks for 5 times 16 completions");
}

#[test]
fn settings_min_wait_holds_up_no_timer() {
    let Some(mut event_loop) = gathering() else { skip!("no min_wait on this kernel") };
    // The completion of the Nop makes the sleep one that gathers.
    let took = best(10, || {
        event_loop.block_on(async {
            let nop = spawn(submit(Nop));
            sleep(Duration::from_millis(2)).await;
            drop(nop);
        });
    });
    assert!(took < LONG, "a timer of 2 ms fired after {took:?}");
}

#[test]
fn settings_min_wait_delays_other_cores_wakes_at_most_so_long() {
    let Some(mut event_loop) = gathering() else { skip!("no min_wait on this kernel") };
    let handle = event_loop.handle();
    let mut woken_after = |asleep: Duration| {
        let handle = handle.clone();
        let sender = std::thread::spawn(move || {
            std::thread::sleep(asleep);
            let sent = Instant::now();
            handle.spawn_on(0, move || async move { sent.elapsed() }).unwrap()
        });
        event_loop.block_on(async move {
            // Ends with the closure, which comes by mail.
            while !sender.is_finished() {
                sleep(Duration::from_millis(100)).await;
            }
            sender.join().unwrap().await.unwrap()
        })
    };
    let asleep = (0..5).map(|_| woken_after(LONG * 3)).min().unwrap();
    let just_parked = (0..5).map(|_| woken_after(Duration::from_millis(1))).min().unwrap();
    figure!("a wake took {asleep:?} of a core long asleep, {just_parked:?} of one just parked");
    assert!(asleep < LONG, "a core that has slept for long wakes at once: {asleep:?}");
    assert!(just_parked < LONG + LONG / 2, "the wait is bounded: {just_parked:?}");
}

#[test]
fn settings_flush_interval_submits_within_a_turn() {
    in_child("settings_flush_interval_submits_within_a_turn", || {
        let flushes = |interval: Option<Duration>, in_queue: bool| {
            let settings = Settings::default()
                .spin(Spin::Off)
                .tick_quota(Duration::from_secs(1))
                .flush_interval(interval);
            let mut event_loop = EventLoop::with(settings).unwrap();
            event_loop.block_on(async {
                let busy = || async {
                    let until = Instant::now() + Duration::from_micros(50);
                    while Instant::now() < until {}
                    submit(Nop).await.unwrap();
                };
                let queue = in_queue.then(|| TaskQueue::builder("busy").build().unwrap());
                let spawns = || match &queue {
                    Some(queue) => queue.spawn(busy()),
                    None => spawn(busy()),
                };
                let tasks: Vec<_> = (0..64).map(|_| spawns()).collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
            event_loop.stats().counters.mid_turn_flushes
        };
        for in_queue in [false, true] {
            let interval = Some(Duration::from_micros(100));
            let (often, never) = (flushes(interval, in_queue), flushes(None, in_queue));
            figure!("64 polls of 50 us in a turn: {often} submissions at 100 us, {never} without");
            assert!((10..=64).contains(&often), "{often} flushes");
            assert_eq!(never, 0);
        }
    });
}
