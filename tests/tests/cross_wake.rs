//! Waking cores: a parked one by a message to its ring or by an eventfd, a running one for nothing, an ended
//! one never.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use coreloop::cross;
use coreloop::{CoreState, Cores, EventLoop, Feature, Handle, Settings, Spin, yield_now};
use coreloop_tests::process::strace_works;
use coreloop_tests::{Child, in_child, skipped, two_cores};

/// Sends a number to and fro; how many system calls were made to wake the two cores.
fn ping_pong(settings: Settings, rounds: u64) -> u64 {
    let (mut to, mut there) = cross::channel(4);
    let (mut fro, mut back) = cross::channel(4);
    let (tell, told) = mpsc::channel();
    let also = tell.clone();
    let wakes = |tell: mpsc::Sender<u64>| async move {
        let handle = coreloop::Handle::current();
        let core = coreloop::Handle::current_core().unwrap();
        tell.send(handle.stats(core).await.unwrap().counters.remote_wakes).unwrap();
    };
    two_cores(
        settings,
        move || async move {
            for i in 0..rounds {
                to.send(i).await.unwrap();
                assert_eq!(back.recv().await, Some(i));
            }
            wakes(tell).await;
        },
        move || async move {
            while let Some(i) = there.recv().await {
                fro.send(i).await.unwrap();
            }
            wakes(also).await;
        },
    );
    told.iter().sum()
}

#[test]
fn cross_wake_of_a_parked_core_by_message_or_eventfd() {
    let settings = Settings::default().spin(Spin::Off);
    for settings in [settings.clone().mask(Feature::MsgRing), settings] {
        let wakes = ping_pong(settings, 300);
        assert!(wakes > 0, "two cores that sleep were never woken");
    }
}

#[test]
fn cross_wake_the_last_one_is_counted_though_nobody_sleeps_after_it() {
    let mut event_loop = EventLoop::with(Settings::default().spin(Spin::Off)).unwrap();
    let handle = event_loop.handle();
    let (mut to, mut there) = cross::channel(4);
    let sender = thread::spawn(move || {
        while handle.snapshot(0).unwrap().state != CoreState::Parked {
            thread::sleep(Duration::from_millis(1));
        }
        to.try_send(7).unwrap();
    });
    assert_eq!(event_loop.block_on(async move { there.recv().await }), Some(7));
    sender.join().unwrap();
    assert_eq!(event_loop.stats().counters.remote_wakes, 1);
}

/// Runs `body` in a child under strace; the calls of the two kinds that wake somebody: messages to rings, and
/// writes of 8 bytes. None if this can't be traced here.
fn calls_that_wake(name: &'static str, body: impl FnOnce()) -> Option<(usize, usize)> {
    if !Child::is_one() && !strace_works() {
        skipped(name, "strace is not here, or may not trace");
        return None;
    }
    let trace: PathBuf = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    let path = trace.to_string_lossy().into_owned();
    let what = "trace=io_uring_register,write";
    Child::new(name).under(&["strace", "-f", "-qq", "-o", &path, "-e", what]).run(body);
    if Child::is_one() {
        return None;
    }
    let text = std::fs::read_to_string(&trace).unwrap();
    std::fs::remove_file(&trace).unwrap();
    let count = |wakes: fn(&str) -> bool| text.lines().filter(|line| wakes(line)).count();
    let messages = count(|line| line.contains("io_uring_register(-1,"));
    // Of 8 bytes and no others: a sanitizer's symbolizer, which is traced too, writes some of 8xx.
    let writes = count(|line| {
        line.contains("write(") && (line.contains(", 8)") || line.contains(", 8 <unfinished"))
    });
    Some((messages, writes))
}

/// The messages that a loop sends at its start, to find out whether it can, and two loops that end.
const AT_THE_ENDS: usize = 20;

#[test]
fn cross_wake_of_a_running_core_costs_no_call() {
    let name = "cross_wake_of_a_running_core_costs_no_call";
    if Cores::All.resolve().unwrap().len() < 2 {
        return skipped(name, "two loops on one CPU do not both run");
    }
    let calls = calls_that_wake(name, || {
        let always = Settings::default().spin(Spin::Fixed(Duration::from_millis(900)));
        ping_pong(always, 20_000);
    });
    let Some((messages, writes)) = calls else { return };
    assert!(messages + writes <= AT_THE_ENDS, "{messages} messages, {writes} writes");
}

/// The other ways to a core: closures, and wakers of tasks. Both cores have something to do all the time, so that
/// they run even where they share a CPU.
#[test]
fn cross_wake_of_a_busy_core_by_closures_and_wakers_costs_no_call() {
    let name = "cross_wake_of_a_busy_core_by_closures_and_wakers_costs_no_call";
    let calls = calls_that_wake(name, || {
        let over = Arc::new(AtomicBool::new(false));
        let busy = async |over: Arc<AtomicBool>| {
            while !over.load(Ordering::Relaxed) {
                yield_now().await;
            }
        };
        let (begins, ends) = (over.clone(), over);
        let asks = move || async move {
            drop(coreloop::spawn(busy(begins.clone())));
            let other = 1 - Handle::current_core().unwrap();
            for i in 0..2_000 {
                // There as a closure, back by the waker of this future.
                let task = Handle::current().spawn_on(other, move || async move { i });
                assert_eq!(task.unwrap().await, Ok(i));
            }
            begins.store(true, Ordering::Relaxed);
        };
        two_cores(Settings::default(), asks, move || busy(ends));
    });
    let Some((messages, writes)) = calls else { return };
    assert!(messages + writes <= AT_THE_ENDS, "{messages} messages, {writes} writes");
}

#[test]
fn cross_wake_by_messages_alone_where_the_kernel_has_them() {
    let name = "cross_wake_by_messages_alone_where_the_kernel_has_them";
    let event_loop = EventLoop::new().unwrap();
    if !event_loop.ring_report().in_force.contains(Feature::MsgRing) {
        return skipped(name, "this kernel sends no messages without a ring");
    }
    drop(event_loop);
    let calls = calls_that_wake(name, || {
        ping_pong(Settings::default().spin(Spin::Off), 200);
    });
    let Some((messages, writes)) = calls else { return };
    assert!(messages > 200 && writes <= AT_THE_ENDS, "{messages} messages, {writes} writes");
}

#[test]
fn cross_wake_by_eventfd_alone_where_messages_are_masked() {
    let name = "cross_wake_by_eventfd_alone_where_messages_are_masked";
    let calls = calls_that_wake(name, || {
        ping_pong(Settings::default().spin(Spin::Off).mask(Feature::MsgRing), 200);
    });
    let Some((messages, writes)) = calls else { return };
    assert!(messages == 0 && writes > 200, "{messages} messages, {writes} writes");
}

/// A filter may turn messages away although the probe was answered: the eventfd stands in for each.
#[test]
fn cross_wake_that_is_turned_away_goes_by_the_eventfd() {
    let name = "cross_wake_that_is_turned_away_goes_by_the_eventfd";
    if !Child::is_one() && !strace_works() {
        return skipped(name, "strace is not here, or may not trace");
    }
    // Set-up makes some 6 calls of each thread; messages are all that comes after.
    let inject = "inject=io_uring_register:error=ENOMEM:when=12+";
    let under =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_register", "-e", inject];
    Child::new(name).under(&under).run(|| {
        assert!(ping_pong(Settings::default().spin(Spin::Off), 200) > 0);
    });
}

/// Wakers outlive their loops and go on being called while descriptors of the same numbers are made.
#[test]
fn cross_wake_never_reaches_who_has_the_descriptor_of_an_ended_core() {
    in_child("cross_wake_never_reaches_who_has_the_descriptor_of_an_ended_core", || {
        let stop = Arc::new(AtomicBool::new(false));
        let (give, taken) = mpsc::channel::<Waker>();
        let hammer = {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut wakers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    wakers.extend(taken.try_iter());
                    let old = wakers.len().saturating_sub(3);
                    wakers.drain(..old);
                    for waker in &wakers {
                        waker.wake_by_ref();
                    }
                }
            })
        };
        for round in 0..300 {
            let settings = Settings::default().spin(Spin::Off).buffers(1, 64);
            let settings = if round % 2 == 0 { settings } else { settings.mask(Feature::MsgRing) };
            let mut event_loop = EventLoop::with(settings).unwrap();
            let mut polls = 0;
            event_loop.block_on(std::future::poll_fn(|cx| {
                give.send(cx.waker().clone()).unwrap();
                polls += 1;
                if polls > 3 { Poll::Ready(()) } else { Poll::Pending }
            }));
            let ended = event_loop.close(Duration::from_secs(5));
            assert_eq!(ended.ops_leaked, 0);
            // These have the numbers of the ring and of the eventfd now.
            let (a, b) = UnixStream::pair().unwrap();
            thread::sleep(Duration::from_micros(200));
            for (from, other) in [(&a, &b), (&b, &a)] {
                from.set_nonblocking(true).unwrap();
                let mut byte = [0];
                let got = std::io::Read::read(&mut &*from, &mut byte);
                assert!(got.is_err(), "{got:?} came from {}", other.as_raw_fd());
            }
        }
        stop.store(true, Ordering::Relaxed);
        hammer.join().unwrap();
    });
}
