//! Signals as awaitables: each subscription hears of each, of any kind, on any core and in any runtime; none
//! is lost by a dropped wait; masks and children stay as they were.

use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use coreloop::signal::{Signal, SignalError, Signals, until_terminate};
use coreloop::time::{sleep, timeout};
use coreloop::{Cores, Runtime};
use coreloop_tests::process::{self, kill};
use coreloop_tests::{fd_count, in_child, poll_once, turns};

const SOON: Duration = Duration::from_secs(10);

fn raise(signal: Signal) {
    process::raise(signal.as_raw());
}

#[test]
fn signal_each_kind_is_told_by_its_name() {
    in_child("signal_each_kind_is_told_by_its_name", || {
        coreloop::run(async {
            let last = (0..64).rev().find_map(|n| Signal::real_time(n).ok()).unwrap();
            let mut kinds = vec![Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH];
            kinds.extend([Signal::CHLD, Signal::ABRT, Signal::TSTP, Signal::PIPE]);
            kinds.extend([Signal::real_time(0).unwrap(), Signal::real_time(5).unwrap(), last]);
            let mut signals = Signals::new(kinds.clone()).unwrap();
            for kind in kinds {
                raise(kind);
                assert_eq!(timeout(SOON, signals.recv()).await, Ok(kind));
            }
            assert_eq!(signals.try_recv(), None);
        })
        .unwrap();
    });
}

#[test]
fn signal_refused_ones_say_so() {
    let refused = [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL];
    for number in refused.into_iter().chain([libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS]) {
        assert!(Signal::from_raw(number).unwrap_err().is_refused(), "{number}");
    }
    for number in [0, -1, 32, 33, 65, i32::MAX] {
        let e = Signal::from_raw(number).unwrap_err();
        assert!(matches!(e, SignalError::NoSuchSignal { .. }), "{number}: {e}");
    }
    assert!(Signal::real_time(31).is_err(), "beyond the last one");
    let e = std::io::Error::from(Signal::from_raw(libc::SIGKILL).unwrap_err());
    assert_eq!(e.kind(), std::io::ErrorKind::InvalidInput);
}

#[test]
fn signal_many_of_one_kind_are_one_and_kinds_come_in_order() {
    in_child("signal_many_of_one_kind_are_one_and_kinds_come_in_order", || {
        coreloop::run(async {
            let mut signals = Signals::new([Signal::USR2, Signal::HUP, Signal::USR1]).unwrap();
            for _ in 0..1000 {
                raise(Signal::USR2);
                raise(Signal::HUP);
            }
            assert_eq!(signals.recv().await, Signal::HUP);
            assert_eq!(signals.recv().await, Signal::USR2);
            let none = timeout(Duration::from_millis(50), signals.recv()).await;
            assert!(none.is_err(), "{none:?}");
            raise(Signal::USR1);
            assert_eq!(signals.recv().await, Signal::USR1);
        })
        .unwrap();
    });
}

#[test]
fn signal_every_subscription_of_every_core_and_runtime_hears_it() {
    in_child("signal_every_subscription_of_every_core_and_runtime_hears_it", || {
        let heard = Arc::new(AtomicUsize::new(0));
        // Two runtimes of three cores, two subscriptions each, and the raiser.
        let subscribed = Arc::new(Barrier::new(2 * 3 + 1));
        let runtimes: Vec<_> = (0..2)
            .map(|_| {
                let (heard, subscribed) = (heard.clone(), subscribed.clone());
                std::thread::spawn(move || {
                    let cores = Cores::These(vec![coreloop::placement::allowed_cpus()[0]; 3]);
                    let runtime = Runtime::builder().cores(cores).build().unwrap();
                    runtime
                        .run(move |_| {
                            let (heard, subscribed) = (heard.clone(), subscribed.clone());
                            async move {
                                let mut one = Signals::new([Signal::USR1]).unwrap();
                                let mut two = Signals::new([Signal::USR1, Signal::HUP]).unwrap();
                                subscribed.wait();
                                for signals in [&mut one, &mut two] {
                                    assert_eq!(signals.recv().await, Signal::USR1);
                                    heard.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        })
                        .unwrap();
                })
            })
            .collect();
        subscribed.wait();
        raise(Signal::USR1);
        runtimes.into_iter().for_each(|r| r.join().unwrap());
        assert_eq!(heard.load(Ordering::Relaxed), 12);
    });
}

#[test]
fn signal_none_is_lost_by_a_dropped_wait() {
    in_child("signal_none_is_lost_by_a_dropped_wait", || {
        coreloop::run(async {
            let mut signals = Signals::new([Signal::USR1]).unwrap();
            for round in 0..500 {
                {
                    let mut wait = pin!(signals.recv());
                    assert!(poll_once(wait.as_mut()).await.is_pending());
                    turns(round % 3).await;
                    if round % 2 == 0 {
                        raise(Signal::USR1);
                    }
                }
                // The dropped wait's poll may still be in the kernel when the next one begins.
                {
                    let mut next = pin!(signals.recv());
                    if poll_once(next.as_mut()).await.is_pending() {
                        raise(Signal::USR1);
                        let got = timeout(SOON, next).await;
                        assert_eq!(got, Ok(Signal::USR1), "round {round}");
                    }
                }
                turns(2).await;
                assert_eq!(signals.try_recv(), None, "round {round}");
            }
        })
        .unwrap();
    });
}

#[test]
fn signal_dropped_subscriptions_leave_no_descriptor_and_no_default() {
    in_child("signal_dropped_subscriptions_leave_no_descriptor_and_no_default", || {
        let before = fd_count();
        for _ in 0..200 {
            drop(Signals::new([Signal::TERM, Signal::USR1, Signal::HUP]).unwrap());
        }
        assert_eq!(fd_count(), before);
        // By default each of these would end the process.
        [Signal::TERM, Signal::USR1, Signal::HUP].into_iter().for_each(raise);
        coreloop::run(sleep(Duration::from_millis(10))).unwrap();
        // And a later subscription hears of later ones alone.
        coreloop::run(async {
            let mut signals = Signals::new([Signal::TERM]).unwrap();
            assert_eq!(signals.try_recv(), None);
            raise(Signal::TERM);
            assert_eq!(signals.recv().await, Signal::TERM);
            let never = std::future::pending::<()>();
            drop(coreloop::spawn(async { raise(Signal::INT) }));
            assert!(until_terminate(never).await.is_none());
        })
        .unwrap();
    });
}

/// The masks of blocked and of ignored signals as `/proc` shows them.
fn masks(status: &str) -> Vec<String> {
    let wanted = |line: &&str| line.starts_with("SigBlk") || line.starts_with("SigIgn");
    status.lines().filter(wanted).map(str::to_owned).collect()
}

#[test]
fn signal_children_and_masks_are_as_before() {
    in_child("signal_children_and_masks_are_as_before", || {
        let child = || {
            let out = Command::new("cat").arg("/proc/self/status").output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        };
        let here = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let there = child();
        coreloop::run(async move {
            let _signals = Signals::new([Signal::TERM, Signal::USR1, Signal::CHLD]).unwrap();
            let now = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert_eq!(masks(&now), masks(&here));
            let child = child();
            assert_eq!(masks(&child), masks(&there));
            let caught = child.lines().find(|l| l.starts_with("SigCgt")).unwrap();
            assert!(caught.ends_with("0000000000000000"), "an exec resets handlers: {caught}");
            // It ends by the signal that its parent survives.
            let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
            kill(sleeper.id() as i32, libc::SIGTERM);
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(sleeper.wait().unwrap().signal(), Some(libc::SIGTERM));
        })
        .unwrap();
    });
}

/// What a program ignores its children ignore, until it subscribes: a caught signal is reset by an exec.
#[test]
fn signal_that_was_ignored_is_at_its_default_in_children_from_then_on() {
    let name = "signal_that_was_ignored_is_at_its_default_in_children_from_then_on";
    in_child(name, || {
        let ignored = || {
            let out = Command::new("cat").arg("/proc/self/status").output().unwrap();
            let status = String::from_utf8(out.stdout).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap() >> (libc::SIGHUP - 1) & 1
        };
        process::ignore(libc::SIGHUP);
        assert_eq!(ignored(), 1);
        let signals = Signals::new([Signal::HUP]).unwrap();
        assert_eq!(ignored(), 0);
        drop(signals);
        assert_eq!(ignored(), 0, "for good");
    });
}
