//! `io_uring_enter` that turns the loop away: nothing is lost, nothing is done twice.
//!
//! strace has every third enter answer an errno without doing it, while 1,000 echoes run. Under strace a
//! system call takes some 50 µs, so the numbers are small and the bounds wide.

use std::os::fd::OwnedFd;
use std::time::Duration;

use coreloop::op::{Read, submit};
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Feature, Settings};
use coreloop_tests::process::strace_works;
use coreloop_tests::{Child, fd_count, fds_settle_at, figure, net, turns};

const SOON: Duration = Duration::from_secs(10);

/// Runs `body` with `inject` in force, more than `least` times; in the parent, starts it.
fn with_faults(name: &'static str, inject: &str, least: usize, body: impl FnOnce()) {
    if !Child::is_one() && !strace_works() {
        return coreloop_tests::skipped(name, "strace is not here, or may not trace");
    }
    let inject = format!("inject={inject}");
    let log = std::env::temp_dir().join(format!("coreloop-{name}-{}", std::process::id()));
    let said = log.to_str().expect("a name of letters");
    let strace = ["strace", "-f", "-qq", "-o", said, "-e", "trace=io_uring_enter", "-e", &inject];
    Child::new(name).under(&strace).limit(Duration::from_secs(180)).run(body);
    // In the parent: the child had them, whatever its own counters say.
    if !Child::is_one() {
        let said = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        let injected = said.lines().filter(|line| line.contains("(INJECTED)")).count();
        figure!("{injected} enters were answered by strace");
        assert!(injected > least, "{injected} faults were injected: nothing is shown");
    }
}

/// 1,000 echoes, a timer, a cancelled read and an orderly end, with faults all the while.
fn works(settings: Settings) -> u64 {
    let before = fd_count();
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async {
        assert_eq!(net::echoes(8, 1000).await.unwrap(), 1000, "echoes that came back right");
        sleep(Duration::from_millis(3)).await;
        let (reader, _writer) = std::io::pipe().unwrap();
        let read = submit(Read::new(OwnedFd::from(reader), Vec::with_capacity(8)));
        assert!(timeout(Duration::from_millis(2), read).await.is_err());
        turns(3).await;
    });
    let pressed = event_loop.stats().counters.enters_pressed;
    let report = event_loop.close(SOON);
    assert_eq!(report.ops_leaked, 0);
    assert_eq!(fds_settle_at(before, SOON), before);
    pressed
}

#[test]
fn fault_enter_answers_eintr_every_third_time() {
    with_faults(
        "fault_enter_answers_eintr_every_third_time",
        "io_uring_enter:error=EINTR:when=3+3",
        10,
        || {
            works(Settings::default());
        },
    );
}

#[test]
fn fault_enter_answers_eagain_every_third_time() {
    with_faults(
        "fault_enter_answers_eagain_every_third_time",
        "io_uring_enter:error=EAGAIN:when=3+3",
        10,
        || {
            let pressed = works(Settings::default());
            figure!("{pressed} enters turned away");
            assert!(pressed > 10, "only {pressed} enters were turned away: no fault was injected");
        },
    );
}

#[test]
fn fault_enter_answers_ebusy_every_third_time() {
    with_faults(
        "fault_enter_answers_ebusy_every_third_time",
        "io_uring_enter:error=EBUSY:when=3+3",
        10,
        || assert!(works(Settings::default()) > 10),
    );
}

#[test]
fn fault_enter_answers_enomem_every_third_time() {
    with_faults(
        "fault_enter_answers_enomem_every_third_time",
        "io_uring_enter:error=ENOMEM:when=3+3",
        10,
        || assert!(works(Settings::default()) > 10),
    );
}

#[test]
fn fault_enter_answers_enomem_once() {
    with_faults("fault_enter_answers_enomem_once", "io_uring_enter:error=ENOMEM:when=2", 0, || {
        assert!(works(Settings::default()) >= 1);
    });
}

#[test]
fn fault_enter_answers_eagain_on_a_small_ring() {
    with_faults(
        "fault_enter_answers_eagain_on_a_small_ring",
        "io_uring_enter:error=EAGAIN:when=2+2",
        10,
        || assert!(works(Settings::default().ring_entries(8).cq_entries(16).buffers(4, 256)) > 10),
    );
}

#[test]
fn fault_enter_answers_ebusy_without_features() {
    with_faults(
        "fault_enter_answers_ebusy_without_features",
        "io_uring_enter:error=EBUSY:when=3+3",
        10,
        || {
            let bare = Feature::ALL.into_iter().fold(Settings::default(), Settings::mask);
            assert!(works(bare) > 10);
        },
    );
}

#[test]
fn fault_enter_that_never_works_again_does_not_hang_the_close() {
    with_faults(
        "fault_enter_that_never_works_again_does_not_hang_the_close",
        "io_uring_enter:error=EAGAIN:when=50+",
        10,
        || {
            let mut event_loop =
                EventLoop::with(Settings::default().grace(Duration::from_millis(300))).unwrap();
            let (reader, _writer) = std::io::pipe().unwrap();
            drop(event_loop.spawn(submit(Read::new(OwnedFd::from(reader), Vec::with_capacity(8)))));
            for _ in 0..200 {
                event_loop.turn(Some(Duration::from_millis(1)));
            }
            let report = event_loop.close(Duration::from_millis(300));
            // The kernel never answers the cancel: the read is leaked, and that is said.
            assert!(report.ops_leaked >= 1, "{report:?}");
        },
    );
}
