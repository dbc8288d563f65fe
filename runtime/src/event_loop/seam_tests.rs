//! The loop over a kernel that fails on purpose: what the seam is for, in small.
//!
//! Owns [`Faulty`], which answers set-ups and enters with errors from a script and passes everything else to
//! Linux. What needs a real refusal (seccomp, limits) is in the crate `coreloop-tests`.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use super::EventLoop;
use crate::config::Settings;
use crate::driver::features::{Feature, Missing};
use crate::driver::ring::Ring;
use crate::driver::setup::StartError;
use crate::executor::dial::Spin;
use crate::metrics::Kind;
use crate::op::{Nop, PollOnce, submit};
use crate::sys::abi::{Params, setup};
use crate::sys::linux::Linux;
use crate::sys::{Kernel, RingMemory, WaitArg};
use crate::yield_now;

type SetupFault = Box<dyn Fn(u32, &Params) -> Option<i32>>;
type EnterFault = Box<dyn Fn(u64) -> Option<i32>>;
type SendFault = Box<dyn Fn() -> Option<i32>>;

struct Faulty {
    linux: Linux,
    setup: SetupFault,
    enter: EnterFault,
    send: SendFault,
    enters: Cell<u64>,
    release: RefCell<String>,
    no_eventfd: bool,
}

impl Faulty {
    fn new() -> Self {
        let release = RefCell::new(Linux.release());
        Self {
            linux: Linux,
            setup: Box::new(|_, _| None),
            enter: Box::new(|_| None),
            send: Box::new(|| None),
            enters: Cell::new(0),
            release,
            no_eventfd: false,
        }
    }

    fn on_setup(mut self, f: impl Fn(u32, &Params) -> Option<i32> + 'static) -> Self {
        self.setup = Box::new(f);
        self
    }

    fn on_enter(mut self, f: impl Fn(u64) -> Option<i32> + 'static) -> Self {
        self.enter = Box::new(f);
        self
    }

    fn on_send(mut self, f: impl Fn() -> Option<i32> + 'static) -> Self {
        self.send = Box::new(f);
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

    unsafe fn send(&self, fd: BorrowedFd<'_>, from: *const u8, len: usize) -> io::Result<usize> {
        match (self.send)() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            // SAFETY: passed on to the caller.
            None => unsafe { self.linux.send(fd, from, len) },
        }
    }

    fn refuses_to_send(&self) -> Option<io::Error> {
        self.linux.refuses_to_send()
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

/// The flag of pending work was up over nothing, so the news do not put it up again; the enter that takes it
/// down fails before it has come to them, and nobody ever sleeps.
#[test]
fn seam_news_of_which_a_failed_enter_took_the_flag_reach_a_busy_core() {
    for errno in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
        let fails = Rc::new(Cell::new(false));
        let once = fails.clone();
        let faulty = Faulty::new().on_enter(move |_| once.take().then_some(errno));
        let mut event_loop = faulty.start().unwrap();
        let core = event_loop.core().clone();
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let events = event_loop.block_on(async {
            let waiting = crate::spawn(submit(PollOnce::new(near, libc::POLLIN as u32)));
            yield_now().await;
            yield_now().await;
            // Until an enter was in vain: the next takes it down.
            let enters = || core.metrics.get(Kind::Enters);
            let began = enters();
            core.driver.with_ring(Ring::put_up_taskrun);
            while enters() == began {
                yield_now().await;
            }
            assert!(core.driver.needs_enter(), "it is up still");
            far.write_all(&[1]).unwrap();
            fails.set(true);
            let began = Linux.now_ns();
            while !waiting.is_finished() && Linux.now_ns() - began < 2_000_000_000 {
                yield_now().await;
            }
            assert!(waiting.is_finished(), "errno {errno}");
            waiting.await.unwrap()
        });
        assert_eq!(events.unwrap(), libc::POLLIN as u32);
        assert!(!fails.get(), "it did fail");
    }
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
    // The older one does not know flags that are always asked for.
    let knows_no_clamp = |_, params: &Params| (params.flags != 0).then_some(libc::EINVAL);
    for (old, release) in [
        (Faulty::new(), "5.15.0-91-generic"),
        (Faulty::new().on_setup(knows_no_clamp), "5.4.0-150-generic"),
    ] {
        old.release.replace(release.into());
        let error = old.start().unwrap_err();
        assert!(matches!(error, StartError::KernelTooOld { .. }), "{release}: {error}");
        assert!(error.to_string().contains("6.1"), "{error}");
    }
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

/// The EINVAL of a flag that Linux before 6.6 does not know was taken for one of the thread's CPU.
#[test]
fn seam_a_refused_flag_and_a_refused_cpu_are_told_apart() {
    let cpu = crate::placement::allowed_cpus()[0] as u32;
    for (flags, cpus) in [(0, true), (setup::NO_SQARRAY, true), (setup::NO_SQARRAY, false)] {
        let last = Rc::new(Cell::new(0));
        let seen = last.clone();
        let kernel = Faulty::new().on_setup(move |_, p| {
            seen.set(p.flags);
            let refused = p.flags & flags != 0 || p.flags & setup::SQ_AFF != 0 && !cpus;
            refused.then_some(libc::EINVAL)
        });
        let settings = Settings::default().sqpoll(Some(Duration::from_millis(1)));
        let settings = settings.sqpoll_cpu(Some(cpu)).spin(Spin::Off);
        let event_loop = EventLoop::on_kernel(Rc::new(kernel), &settings).unwrap();
        let report = event_loop.ring_report();
        if !report.in_force.contains(Feature::SqPoll) {
            println!(
                "SKIPPED seam_a_refused_flag_and_a_refused_cpu_are_told_apart: no SQPOLL here"
            );
            return;
        }
        assert_eq!(last.get() & setup::SQ_AFF != 0, cpus, "{report:?}");
        let stepped: Vec<_> = report.stepped.iter().map(|step| step.setting).collect();
        assert_eq!(stepped, if cpus { vec![] } else { vec!["sqpoll_cpu"] });
    }
}

fn small_ring(enter: impl Fn(u64) -> Option<i32> + 'static) -> EventLoop {
    let faulty = Faulty::new().on_enter(enter);
    EventLoop::on_kernel(Rc::new(faulty), &Settings::default().ring_entries(8).spin(Spin::Off))
        .unwrap()
}

/// Tasks hold ops that never reached the kernel, and the loop closes.
#[test]
fn seam_close_with_unsent_ops_of_tasks() {
    let pressed = Rc::new(Cell::new(false));
    let p = pressed.clone();
    let mut event_loop = small_ring(move |_| p.get().then_some(libc::EAGAIN));
    event_loop.turn(Some(Duration::ZERO));
    pressed.set(true);
    let tasks: Vec<_> = (0..40).map(|_| event_loop.spawn(submit(Nop))).collect();
    event_loop.turn(Some(Duration::ZERO));
    pressed.set(false);
    let report = event_loop.close(Duration::from_secs(2));
    drop(tasks);
    assert_eq!(report.ops_leaked, 0);
}

/// Handles outside of tasks: cancelled before they were sent, not reaped before the close.
#[test]
fn seam_close_with_unsent_cancelled_handles() {
    let pressed = Rc::new(Cell::new(false));
    let p = pressed.clone();
    let mut event_loop = small_ring(move |_| p.get().then_some(libc::EAGAIN));
    let submitter = event_loop.block_on(async { crate::op::Submitter::current() });
    pressed.set(true);
    let ops: Vec<_> = (0..40).map(|_| submitter.start(Nop).unwrap()).collect();
    ops.iter().for_each(|op| op.cancel());
    pressed.set(false);
    let report = event_loop.close(Duration::from_secs(2));
    drop(ops);
    assert_eq!(report.ops_leaked, 0);
}

/// As above; one turn passes before the close, so they are done, but still stand in the line.
#[test]
fn seam_close_with_unsent_done_handles() {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    struct Hooked(UnixStream, Rc<Cell<u32>>, Vec<u8>);
    // SAFETY: the receive goes into heap memory of its own, which nobody touches until the completion; the
    // descriptor lives in it.
    unsafe impl crate::op::Op for Hooked {
        type Out = (io::Result<u32>, Vec<u8>);
        fn prepare(&mut self) -> crate::op::Sqe {
            crate::op::Sqe::recv(self.0.as_fd(), self.2.as_mut_ptr(), 16, 0)
        }
        unsafe fn completed(&mut self, _: crate::op::Cqe) {
            self.1.set(self.1.get() + 1);
        }
        unsafe fn finish(self, cqe: crate::op::Cqe) -> Self::Out {
            (cqe.result(), self.2)
        }
    }
    let pressed = Rc::new(Cell::new(false));
    let p = pressed.clone();
    let mut event_loop = small_ring(move |_| p.get().then_some(libc::EAGAIN));
    let submitter = event_loop.block_on(async { crate::op::Submitter::current() });
    pressed.set(true);
    let first: Vec<_> = (0..20).map(|_| submitter.start(Nop).unwrap()).collect();
    let hooks = Rc::new(Cell::new(0));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut op = match submitter.start(Hooked(ours, hooks.clone(), vec![0xAA; 16])) {
        Ok(op) => op,
        Err(_) => panic!(),
    };
    op.cancel();
    event_loop.turn(Some(Duration::ZERO));
    assert!(op.is_done());
    assert_eq!(hooks.get(), 1);
    pressed.set(false);
    io::Write::write_all(&mut &theirs, b"0123456789abcdef").unwrap();
    let report = event_loop.close(Duration::from_secs(2));
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(op.poll(cx).is_ready());
    drop(first);
    assert_eq!(hooks.get(), 1, "one completion, one hook");
    assert_eq!(report.ops_leaked, 0);
}

/// As above; the buffer is taken back while the drain goes on, and the kernel writes to it afterwards.
#[test]
fn seam_close_writes_to_a_buffer_that_was_taken_back() {
    use crate::op::{InFlight, Read, Submitter};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};
    type Handle = InFlight<Read<UnixStream, Vec<u8>>>;
    struct World {
        op: Option<Handle>,
        theirs: UnixStream,
        taken: Option<Vec<u8>>,
        more: Vec<InFlight<Nop>>,
    }
    thread_local! {
        static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    }
    struct Taker;
    impl Wake for Taker {
        fn wake(self: Arc<Self>) {
            WORLD.with_borrow_mut(|w| {
                let w = w.as_mut().unwrap();
                let Some(mut op) = w.op.take() else { return };
                let Poll::Ready(out) = op.poll(&mut Context::from_waker(Waker::noop())) else {
                    panic!("it is done")
                };
                w.taken = Some(out.unwrap_err().into_buf());
                let _ = io::Write::write_all(&mut &w.theirs, b"0123456789abcdef");
                // The drain goes on for another enter.
                w.more.push(Submitter::current().start(Nop).unwrap());
            });
        }
    }
    let pressed = Rc::new(Cell::new(false));
    let p = pressed.clone();
    let mut event_loop = small_ring(move |_| p.get().then_some(libc::EAGAIN));
    let submitter = event_loop.block_on(async { crate::op::Submitter::current() });
    pressed.set(true);
    let mut first: Vec<_> = (0..20).map(|_| submitter.start(Nop).unwrap()).collect();
    let waker = Waker::from(Arc::new(Taker));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let op = submitter.start(Read::new(ours, vec![0xAA; 16])).unwrap();
    op.cancel();
    event_loop.turn(Some(Duration::ZERO));
    assert!(op.is_done());
    let last = first.last_mut().unwrap();
    assert!(last.poll(&mut Context::from_waker(&waker)).is_pending());
    WORLD.set(Some(World { op: Some(op), theirs, taken: None, more: Vec::new() }));
    pressed.set(false);
    assert_eq!(event_loop.close(Duration::from_secs(2)).ops_leaked, 0);
    let world = WORLD.take().unwrap();
    let taken = world.taken.unwrap();
    assert_eq!(taken, vec![0xAA; 16]);
}

/// What the kernel says of a connection it says once: asked again, by an op, it would have sent.
#[test]
fn seam_what_a_send_at_once_is_told_of_a_connection_goes_to_who_sends() {
    let lasting = [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ECONNRESET, libc::ETIMEDOUT];
    let passing = [libc::EAGAIN, libc::EINTR, libc::ENOMEM, libc::ENOBUFS];
    for errno in lasting.into_iter().chain(passing) {
        let next = Rc::new(Cell::new(None));
        let answer = next.clone();
        let mut event_loop = Faulty::new().on_send(move || answer.take()).start().unwrap();
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let send = || crate::op::Submitter::current().send_at_once(&ours, &b"bytes".as_slice());
        event_loop.block_on(async {
            next.set(Some(errno));
            let told = send().map(|sent| sent.unwrap_err().raw_os_error());
            assert_eq!(told, lasting.contains(&errno).then_some(Some(errno)), "{errno}");
            // That said nothing of sends at once as such.
            crate::yield_now().await;
            assert_eq!(send().map(Result::unwrap), Some(5), "{errno}");
        });
        let stats = event_loop.stats();
        assert_eq!(stats.counters.direct_sends, 1, "{errno}");
        assert!(stats.step_downs.is_empty(), "{errno}: {:?}", stats.step_downs);
    }
}
