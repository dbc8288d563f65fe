//! The loop over a kernel that fails on purpose: what the seam is for, in small.
//!
//! Owns [`Faulty`], which answers set-ups and enters with errors from a script and passes everything else to
//! Linux. What needs a real refusal (seccomp, limits) is in the crate `coreloop-tests`.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use super::EventLoop;
use crate::config::Settings;
use crate::driver::features::{Feature, Missing};
use crate::driver::setup::StartError;
use crate::executor::dial::Spin;
use crate::op::{Nop, submit};
use crate::sys::abi::{Params, setup};
use crate::sys::linux::Linux;
use crate::sys::{Kernel, RingMemory, WaitArg};

type SetupFault = Box<dyn Fn(u32, &Params) -> Option<i32>>;
type EnterFault = Box<dyn Fn(u64) -> Option<i32>>;

struct Faulty {
    linux: Linux,
    setup: SetupFault,
    enter: EnterFault,
    enters: Cell<u64>,
    release: RefCell<String>,
    no_eventfd: bool,
}

impl Faulty {
    fn new() -> Self {
        let release = RefCell::new(Linux.release());
        let (setup, enter): (SetupFault, EnterFault) = (Box::new(|_, _| None), Box::new(|_| None));
        Self { linux: Linux, setup, enter, enters: Cell::new(0), release, no_eventfd: false }
    }

    fn on_setup(mut self, f: impl Fn(u32, &Params) -> Option<i32> + 'static) -> Self {
        self.setup = Box::new(f);
        self
    }

    fn on_enter(mut self, f: impl Fn(u64) -> Option<i32> + 'static) -> Self {
        self.enter = Box::new(f);
        self
    }

    fn start(self) -> Result<EventLoop, StartError> {
        EventLoop::on_kernel(Rc::new(self), &Settings::default().spin(Spin::Off))
    }
}

impl Kernel for Faulty {
    fn setup(&self, entries: u32, params: &mut Params) -> io::Result<RingMemory> {
        match (self.setup)(entries, params) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => self.linux.setup(entries, params),
        }
    }

    unsafe fn enter(
        &self,
        fd: RawFd,
        to_submit: u32,
        min_complete: u32,
        flags: u32,
        wait: Option<&WaitArg>,
    ) -> io::Result<u32> {
        self.enters.set(self.enters.get() + 1);
        match (self.enter)(self.enters.get()) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            // SAFETY: passed on to the caller.
            None => unsafe { self.linux.enter(fd, to_submit, min_complete, flags, wait) },
        }
    }

    unsafe fn register(
        &self,
        fd: RawFd,
        opcode: u32,
        arg: *mut c_void,
        count: u32,
    ) -> io::Result<u32> {
        // SAFETY: passed on to the caller.
        unsafe { self.linux.register(fd, opcode, arg, count) }
    }

    fn now_ns(&self) -> u64 {
        self.linux.now_ns()
    }

    fn thread_cpu_ns(&self) -> u64 {
        self.linux.thread_cpu_ns()
    }

    fn pause(&self, d: Duration) {
        self.linux.pause(d);
    }

    fn eventfd(&self) -> io::Result<OwnedFd> {
        if self.no_eventfd {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        self.linux.eventfd()
    }

    fn release(&self) -> String {
        self.release.borrow().clone()
    }

    fn stream_socket(&self, family: i32) -> io::Result<OwnedFd> {
        self.linux.stream_socket(family)
    }

    fn bind(&self, fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
        self.linux.bind(fd, addr)
    }

    fn listen(&self, fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
        self.linux.listen(fd, backlog)
    }

    fn local_addr(&self, fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
        self.linux.local_addr(fd)
    }

    fn peer_addr(&self, fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
        self.linux.peer_addr(fd)
    }

    fn shutdown(&self, fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
        self.linux.shutdown(fd, how)
    }

    fn set_linger(&self, fd: BorrowedFd<'_>, linger: Option<Duration>) -> io::Result<()> {
        self.linux.set_linger(fd, linger)
    }
}

/// Runs 1,000 ops one after the other and 1,000 at once, beside a timer.
fn work(event_loop: &mut EventLoop) {
    event_loop.block_on(async {
        for _ in 0..1000 {
            submit(Nop).await.unwrap();
        }
        let tasks: Vec<_> = (0..1000).map(|_| crate::spawn(submit(Nop))).collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        crate::time::sleep(Duration::from_millis(2)).await;
    });
}

#[test]
fn seam_enters_that_fail_now_and_then_lose_nothing() {
    for errno in [libc::EAGAIN, libc::ENOMEM, libc::EBUSY, libc::EINTR] {
        let faulty = Faulty::new().on_enter(move |n| (n % 3 == 0).then_some(errno));
        let mut event_loop = faulty.start().unwrap();
        work(&mut event_loop);
        let pressed = event_loop.stats().counters.enters_pressed;
        assert_eq!(pressed > 0, errno != libc::EINTR, "errno {errno}: {pressed}");
        assert_eq!(event_loop.close(Duration::from_secs(5)).ops_leaked, 0);
    }
}

#[test]
fn seam_a_long_spell_without_memory_is_waited_out_without_spinning() {
    let faulty = Faulty::new().on_enter(|n| (100..200).contains(&n).then_some(libc::ENOMEM));
    let mut event_loop = faulty.start().unwrap();
    let before = Linux.thread_cpu_ns();
    let began = Linux.now_ns();
    work(&mut event_loop);
    let (cpu, wall) = (Linux.thread_cpu_ns() - before, Linux.now_ns() - began);
    // A hundred refusals at half a millisecond each.
    assert!(wall > 20_000_000, "it paused: {wall} ns");
    assert!(cpu < wall, "{cpu} ns of CPU in {wall} ns");
}

#[test]
fn seam_a_dead_ring_is_a_panic_with_a_reason_and_no_abort() {
    let faulty = Faulty::new().on_enter(|n| (n > 10).then_some(libc::EBADF));
    let mut event_loop = faulty.start().unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut event_loop)));
    let payload = unwound.unwrap_err();
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.contains("io_uring_enter failed"), "{text}");
    drop(event_loop);
}

#[test]
fn seam_refused_set_ups_are_typed_errors() {
    let refused = |errno| Faulty::new().on_setup(move |_, _| Some(errno)).start().unwrap_err();
    assert!(matches!(refused(libc::EPERM), StartError::Blocked { .. }));
    assert!(matches!(refused(libc::ENOSYS), StartError::Missing { .. }));
    assert!(matches!(refused(libc::ENOMEM), StartError::NoMemory { entries: 8, .. }));
    assert!(matches!(refused(libc::EMFILE), StartError::NoDescriptors { .. }));
    assert!(matches!(refused(libc::EINVAL), StartError::System { .. }));
    let mut no_eventfd = Faulty::new();
    no_eventfd.no_eventfd = true;
    assert!(matches!(no_eventfd.start().unwrap_err(), StartError::NoDescriptors { .. }));
    let old = Faulty::new();
    old.release.replace("5.15.0-91-generic".into());
    let error = old.start().unwrap_err();
    assert!(matches!(error, StartError::KernelTooOld { .. }));
    assert!(error.to_string().contains("6.1"), "{error}");
}

#[test]
fn seam_short_memory_takes_a_smaller_ring() {
    let mut small = Faulty::new()
        .on_setup(|entries, _| (entries > 32).then_some(libc::ENOMEM))
        .start()
        .unwrap();
    assert_eq!(small.ring_report().sq_entries, 32);
    assert_eq!(small.ring_report().sq_entries_asked, 1024);
    work(&mut small);
}

#[test]
fn seam_unknown_flags_are_given_up_one_by_one_the_newest_first() {
    let flags = [
        (Feature::NoSqarray, setup::NO_SQARRAY),
        (Feature::DeferTaskrun, setup::DEFER_TASKRUN),
        (Feature::SingleIssuer, setup::SINGLE_ISSUER),
        (Feature::TaskrunFlag, setup::TASKRUN_FLAG),
        (Feature::CoopTaskrun, setup::COOP_TASKRUN),
        (Feature::SubmitAll, setup::SUBMIT_ALL),
    ];
    for known in 0..flags.len() {
        let unknown: u32 = flags[..known].iter().map(|f| f.1).sum();
        let mut event_loop = Faulty::new()
            .on_setup(move |_, p| (p.flags & unknown != 0).then_some(libc::EINVAL))
            .start()
            .unwrap();
        for (i, (feature, _)) in flags.iter().enumerate() {
            let report = event_loop.ring_report();
            assert_eq!(report.in_force.contains(*feature), i >= known, "{feature} of {known}");
            if i < known {
                assert!(report.missing.contains(&(*feature, Missing::Kernel)), "{feature}");
            }
        }
        work(&mut event_loop);
    }
}
