//! Faults that change the whole machine: its clock, and who may use io_uring.
//!
//! Other programs on it would notice, so these run only where `CORELOOP_OWN_MACHINE` is set: on the virtual
//! machines of `tests/kernels/run`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coreloop::time::sleep;
use coreloop::{EventLoop, StartError, spawn};
use coreloop_tests::process::{is_root, step_wall_clock};
use coreloop_tests::{Child, in_child, net, skip};

const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";
const UID_NOBODY: u32 = 65_534;

fn own_machine() -> bool {
    std::env::var_os("CORELOOP_OWN_MACHINE").is_some() && is_root()
}

/// A sysctl, set for so long as this lives.
struct Sysctl {
    before: String,
}

impl Sysctl {
    fn set(value: &str) -> Self {
        let before = std::fs::read_to_string(DISABLED).unwrap();
        std::fs::write(DISABLED, value).unwrap();
        Self { before }
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        std::fs::write(DISABLED, &self.before).unwrap();
    }
}

#[test]
fn fault_sysctl_disables_io_uring_for_everybody() {
    if !own_machine() {
        skip!("changes the machine: tests/kernels/run does it on one of its own");
    }
    if std::fs::metadata(DISABLED).is_err() {
        skip!("this kernel has no io_uring_disabled");
    }
    in_child("fault_sysctl_disables_io_uring_for_everybody", || {
        let mut there_before = EventLoop::new().unwrap();
        let set = Sysctl::set("2");
        let e = EventLoop::new().map(drop).expect_err("nobody may");
        assert!(matches!(e, StartError::Blocked { sysctl: Some(2) }), "{e:?}");
        assert!(e.to_string().contains("sysctl -w kernel.io_uring_disabled=0"), "{e}");
        // Only the making of rings is forbidden.
        assert_eq!(there_before.block_on(net::echoes(2, 100)).unwrap(), 100);
        drop(set);
        let mut again = EventLoop::new().expect("allowed again");
        assert_eq!(again.block_on(net::echoes(2, 100)).unwrap(), 100);
    });
}

#[test]
fn fault_sysctl_disables_io_uring_for_the_unprivileged() {
    const NAME: &str = "fault_sysctl_disables_io_uring_for_the_unprivileged";
    if !own_machine() && !Child::is_one() {
        skip!("changes the machine: tests/kernels/run does it on one of its own");
    }
    if std::fs::metadata(DISABLED).is_err() {
        skip!("this kernel has no io_uring_disabled");
    }
    let _set = (!Child::is_one()).then(|| Sysctl::set("1"));
    if !Child::is_one() {
        drop(EventLoop::new().expect("root may"));
    }
    Child::new(NAME).uid(UID_NOBODY).run(|| {
        let e = EventLoop::new().map(drop).expect_err("nobody but root may");
        assert!(matches!(e, StartError::Blocked { sysctl: Some(1) }), "{e:?}");
        assert!(e.to_string().contains("io_uring_group"), "{e}");
    });
}

#[test]
fn fault_wall_clock_that_jumps_moves_no_timer() {
    if !own_machine() {
        skip!("changes the machine: tests/kernels/run does it on one of its own");
    }
    in_child("fault_wall_clock_that_jumps_moves_no_timer", || {
        const HOUR: i64 = 3600;
        coreloop::run(async {
            let (fired, early) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let began = Instant::now();
            let timers: Vec<_> = (1..=200u64)
                .map(|i| {
                    let (fired, early) = (fired.clone(), early.clone());
                    spawn(async move {
                        let (d, began) = (Duration::from_millis(i * 5), Instant::now());
                        sleep(d).await;
                        fired.set(fired.get() + 1);
                        early.set(early.get() + usize::from(began.elapsed() < d));
                    })
                })
                .collect();
            for step in [HOUR, -2 * HOUR, HOUR] {
                sleep(Duration::from_millis(150)).await;
                step_wall_clock(step);
            }
            for timer in timers {
                timer.await.unwrap();
            }
            assert_eq!((fired.get(), early.get()), (200, 0));
            // An emulated machine is slow, but an hour it is not.
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        })
        .unwrap();
    });
}
