//! Stalls of a forked child's own loop are told, whatever the watcher of its parent was at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use coreloop::{EventLoop, Settings, Stall};
use coreloop_tests::forked::{Ended, fork};
use coreloop_tests::in_child;
use coreloop_tests::process::NoSignals;

const MS: Duration = Duration::from_millis(1);

/// A loop whose stalls go to the receiver.
fn watched(settings: Settings) -> (EventLoop, mpsc::Receiver<Stall>) {
    let (tell, told) = mpsc::channel();
    let settings = settings.on_stall(move |stall| {
        let _ = tell.send(stall.clone());
    });
    (EventLoop::with(settings).unwrap(), told)
}

#[inline(never)]
fn blocks_the_core(d: Duration) {
    thread::sleep(d);
    std::hint::black_box(());
}

/// A forked child may make a loop of its own; the thread that watches its parent's is not in it.
#[test]
fn report_stalls_of_a_forked_childs_own_loop_are_told() {
    in_child("report_stalls_of_a_forked_childs_own_loop_are_told", || {
        let (_watched, _told) = watched(Settings::default().stall_threshold(5 * MS));
        let mut child = fork(|| {
            let (mut event_loop, told) = watched(Settings::default().stall_threshold(5 * MS));
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(20) {
                event_loop.block_on(async { blocks_the_core(30 * MS) });
                if told.try_recv().is_ok() {
                    return 7;
                }
            }
            1
        });
        assert_eq!(child.wait(), Ended::Exit(7));
    });
}

/// The thread that watches has its lists locked while it asks a stalled thread where it is, which takes
/// 10 ms where that takes no signals: a fork in that time leaves them locked in the child, for ever.
#[test]
fn report_stalls_are_told_in_children_that_are_forked_while_the_watcher_looks() {
    in_child("report_stalls_are_told_in_children_that_are_forked_while_the_watcher_looks", || {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let stalls = scope.spawn(|| {
                let _deaf = NoSignals::here();
                let (mut event_loop, _told) = watched(Settings::default().stall_threshold(MS));
                while !ended.load(Ordering::Relaxed) {
                    event_loop.block_on(async { blocks_the_core(15 * MS) });
                }
                event_loop.stats().counters.stalls
            });
            for n in 0..40 {
                let mut child = fork(|| {
                    let (mut event_loop, told) = watched(Settings::default().stall_threshold(MS));
                    let began = Instant::now();
                    while told.try_recv().is_err() {
                        if began.elapsed() > Duration::from_secs(20) {
                            return 1;
                        }
                        event_loop.block_on(async { blocks_the_core(10 * MS) });
                    }
                    drop(event_loop);
                    7
                });
                let child = child.wait();
                if child != Ended::Exit(7) {
                    ended.store(true, Ordering::Relaxed);
                    panic!("child {n}: {child:?}");
                }
            }
            ended.store(true, Ordering::Relaxed);
            assert!(stalls.join().unwrap() > 10, "the watcher had little to ask");
        });
    });
}
