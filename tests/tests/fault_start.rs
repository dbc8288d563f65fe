//! A loop that can't start says why, by a typed error with advice.

use std::time::Duration;

use coreloop::{EventLoop, Settings, StartError};
use coreloop_tests::process::{
    block_syscall, file_limit, fill_descriptor_gaps, is_root, set_file_limit, strace_works,
};
use coreloop_tests::{Child, fd_count, figure, in_child, net, skip};

const UID_NOBODY: u32 = 65_534;

fn start_error() -> StartError {
    EventLoop::new().map(drop).expect_err("the loop can't start")
}

/// Why, and the call that is to be allowed.
#[track_caller]
fn says_what_to_allow(e: &StartError, call: &str) {
    let advice = e.to_string();
    assert!(advice.contains("EPERM") && advice.contains("seccomp"), "{advice}");
    assert!(advice.contains(call), "it does not say to allow {call}: {advice}");
}

#[test]
fn fault_setup_blocked_by_seccomp() {
    in_child("fault_setup_blocked_by_seccomp", || {
        if let Err(e) = block_syscall(libc::SYS_io_uring_setup, libc::EPERM) {
            skip!("no seccomp filters here: {e}");
        }
        let before = fd_count();
        let e = start_error();
        assert!(matches!(e, StartError::Blocked { .. }), "{e:?}");
        says_what_to_allow(&e, "io_uring_setup");
        assert_eq!(fd_count(), before);
        // `run` and `Runtime` say the same.
        assert!(matches!(coreloop::run(async {}), Err(StartError::Blocked { .. })));
        figure!("{e}");
    });
}

#[test]
fn fault_setup_missing() {
    in_child("fault_setup_missing", || {
        if let Err(e) = block_syscall(libc::SYS_io_uring_setup, libc::ENOSYS) {
            skip!("no seccomp filters here: {e}");
        }
        let e = start_error();
        assert!(matches!(e, StartError::Missing { .. }), "{e:?}");
        assert!(e.to_string().contains("ENOSYS"), "{e}");
        figure!("{e}");
    });
}

#[test]
fn fault_register_blocked_by_seccomp() {
    in_child("fault_register_blocked_by_seccomp", || {
        if let Err(e) = block_syscall(libc::SYS_io_uring_register, libc::EPERM) {
            skip!("no seccomp filters here: {e}");
        }
        let before = fd_count();
        let e = start_error();
        assert!(matches!(e, StartError::Blocked { .. }), "{e:?}");
        says_what_to_allow(&e, "io_uring_register");
        assert_eq!(fd_count(), before, "the ring that was made is closed again");
    });
}

#[test]
fn fault_enter_blocked_by_seccomp_is_said_when_the_loop_starts() {
    in_child("fault_enter_blocked_by_seccomp_is_said_when_the_loop_starts", || {
        if let Err(e) = block_syscall(libc::SYS_io_uring_enter, libc::EPERM) {
            skip!("no seccomp filters here: {e}");
        }
        // Closing a loop that may not enter must not hang either: the time limit of the child tells.
        let caught = std::panic::catch_unwind(|| {
            coreloop::run(async { coreloop::time::sleep(Duration::from_millis(5)).await })
        });
        match caught {
            Ok(Err(e)) => {
                assert!(matches!(e, StartError::Blocked { .. }), "{e:?}");
                says_what_to_allow(&e, "io_uring_enter");
                figure!("typed: {e}");
            }
            Ok(Ok(())) => panic!("a loop ran without io_uring_enter"),
            Err(_) => {
                panic!("io_uring_enter is blocked and that came as a panic, not as a StartError")
            }
        }
    });
}

/// Runs a start under strace with a fault injected, and gives its error by name and text.
fn under_strace(name: &'static str, inject: &str, check: impl FnOnce(StartError)) {
    if !Child::is_one() && !strace_works() {
        skip_here(name);
        return;
    }
    let inject = format!("inject={inject}");
    Child::new(name)
        .under(&[
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=io_uring_setup,eventfd2",
            "-e",
            &inject,
        ])
        .run(|| check(start_error()));
}

fn skip_here(name: &'static str) {
    coreloop_tests::skipped(name, "strace is not here, or may not trace");
}

#[test]
fn fault_setup_answers_eperm() {
    under_strace("fault_setup_answers_eperm", "io_uring_setup:error=EPERM", |e| {
        assert!(matches!(e, StartError::Blocked { .. }), "{e:?}");
    });
}

#[test]
fn fault_setup_answers_enosys() {
    under_strace("fault_setup_answers_enosys", "io_uring_setup:error=ENOSYS", |e| {
        assert!(matches!(e, StartError::Missing { .. }), "{e:?}");
    });
}

#[test]
fn fault_setup_answers_enomem() {
    under_strace("fault_setup_answers_enomem", "io_uring_setup:error=ENOMEM", |e| {
        assert!(matches!(e, StartError::NoMemory { .. }), "{e:?}");
        assert!(e.to_string().contains("ulimit -l"), "{e}");
        figure!("{e}");
    });
}

#[test]
fn fault_eventfd_answers_emfile() {
    under_strace("fault_eventfd_answers_emfile", "eventfd2:error=EMFILE", |e| {
        assert!(matches!(e, StartError::NoDescriptors { .. }), "{e:?}");
        assert!(e.to_string().contains("eventfd") && e.to_string().contains("ulimit -n"), "{e}");
        figure!("{e}");
    });
}

#[test]
fn fault_setup_enomem_once_takes_a_smaller_ring() {
    const NAME: &str = "fault_setup_enomem_once_takes_a_smaller_ring";
    if !Child::is_one() && !strace_works() {
        return skip_here(NAME);
    }
    // Five tries at full size, then half the completion queue, then half the submission queue.
    let inject = "inject=io_uring_setup:error=ENOMEM:when=1..7";
    let strace =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_setup", "-e", inject];
    Child::new(NAME).under(&strace).run(|| {
        let mut event_loop = EventLoop::new().expect("refusals are survived");
        let report = event_loop.ring_report().clone();
        assert_eq!(report.sq_entries, report.sq_entries_asked / 2, "halved once");
        assert_eq!(event_loop.block_on(net::echoes(4, 200)).unwrap(), 200);
    });
}

/// For every number of descriptors that may still be opened: an error that is typed, or a loop that works,
/// and in no case one descriptor more than before.
#[test]
fn fault_descriptors_out_at_start() {
    in_child("fault_descriptors_out_at_start", || {
        let hard = file_limit();
        // The limit is on numbers: without gaps below the highest, room is what it says.
        let first_free = fill_descriptor_gaps();
        let before = fd_count();
        let mut seen = Vec::new();
        for room in 0..6u64 {
            set_file_limit(first_free + room);
            let started = EventLoop::new();
            set_file_limit(hard);
            match started {
                Ok(event_loop) => drop(event_loop),
                Err(e) => {
                    assert!(matches!(e, StartError::NoDescriptors { .. }), "{room} left: {e:?}");
                    assert!(e.to_string().contains("ulimit -n"), "{e}");
                    seen.push(e.to_string());
                }
            }
            assert_eq!(fd_count(), before, "descriptors after a start with {room} left");
        }
        figure!("{seen:?}");
        assert!(seen.iter().any(|e| e.contains("a ring")), "{seen:?}");
        assert!(seen.iter().any(|e| e.contains("eventfd")), "{seen:?}");
        assert!(seen.len() < 5, "a loop needs two or three descriptors, not more");
    });
}

#[test]
fn fault_memlock_of_an_unprivileged_user() {
    const NAME: &str = "fault_memlock_of_an_unprivileged_user";
    if !Child::is_one() && !is_root() {
        skip!("only root can become another user");
    }
    // `ulimit -l 64`, as nobody; the binary must be readable to that user.
    Child::new(NAME).uid(UID_NOBODY).memlock(64 << 10).run(|| {
        for (entries, buffers) in [(256, 128), (4096, 128), (32_768, 4096)] {
            let settings = Settings::default()
                .ring_entries(entries)
                .cq_entries(65_536)
                .buffers(buffers, 16_384);
            match EventLoop::with(settings) {
                Ok(mut event_loop) => {
                    let report = event_loop.ring_report().clone();
                    figure!("{entries} asked: {} got, {:?}", report.sq_entries, report.missing);
                    assert!(report.sq_entries <= entries);
                    assert_eq!(event_loop.block_on(net::echoes(4, 200)).unwrap(), 200);
                }
                Err(e) => {
                    figure!("{entries} asked: {e}");
                    assert!(matches!(e, StartError::NoMemory { .. }), "{e:?}");
                    assert!(e.to_string().contains("64 KiB"), "it names the limit: {e}");
                }
            }
        }
    });
}

#[test]
fn fault_settings_out_of_range() {
    let bad = [
        ("ring_entries", Settings::default().ring_entries(7)),
        ("ring_entries", Settings::default().ring_entries(32_769)),
        ("cq_entries", Settings::default().cq_entries(15)),
        ("buffers", Settings::default().buffers(0, 4096)),
        ("buffer_size", Settings::default().buffers(4, 63)),
        ("timer_resolution", Settings::default().timer_resolution(Duration::ZERO)),
        ("tick_quota", Settings::default().tick_quota(Duration::from_secs(2))),
    ];
    for (setting, settings) in bad {
        match EventLoop::with(settings) {
            Err(StartError::BadSetting { name, .. }) => assert_eq!(name, setting),
            other => panic!("{setting}: {other:?}"),
        }
    }
}

/// A core that may not be pinned runs all the same, and nothing says that it is where it is not.
#[test]
fn fault_pinning_blocked_by_seccomp() {
    in_child("fault_pinning_blocked_by_seccomp", || {
        if let Err(e) = block_syscall(libc::SYS_sched_setaffinity, libc::EPERM) {
            skip!("no seccomp filters here: {e}");
        }
        let cpu = coreloop::placement::allowed_cpus()[0];
        let cores = coreloop::Cores::These(vec![cpu]);
        let runtime = coreloop::Runtime::builder().cores(cores).build().unwrap();
        let told = runtime.run(|_| async { coreloop::Handle::current().snapshot(0).unwrap() });
        let told = told.unwrap().remove(0);
        assert_eq!(told.cpu, None);
        let step: Vec<_> = told.step_downs.iter().filter(|step| step.what == "pin").collect();
        assert!(step.len() == 1 && step[0].why.contains(&format!("CPU {cpu}")), "{step:?}");
    });
}
