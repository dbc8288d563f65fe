//! Foreign code in the middle of things: wakers, hooks and destructors that come back to the loop whose work
//! they are part of.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use coreloop::op::{InFlight, LateBytes, LateSend, Nop, PollOnce, Recv, Submitter, submit};
use coreloop::time::timeout;
use coreloop::{EventLoop, Settings};
use coreloop_tests::foreign::{Act, ON_CLONE, ON_DROP, ON_WAKE, acting, drive, shared, submitter};
use coreloop_tests::turns;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn reentry_of_a_wakers_clone_and_drop_that_drive_the_loop() {
    let el = shared();
    let s = submitter(&el);
    let mut op = s.start(Nop).unwrap();
    ON_CLONE.set(Some(drive(&el)));
    let w = acting();
    assert!(op.poll(&mut Context::from_waker(&w)).is_ready());
    let mut op = s.start(Nop).unwrap();
    assert!(op.poll(&mut Context::from_waker(&w)).is_pending());
    ON_DROP.set(Some(drive(&el)));
    assert!(op.poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

struct Hooked {
    fd: UnixStream,
    hook: Rc<RefCell<Option<Act>>>,
}
impl AsFd for Hooked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
impl Hooked {
    fn run(&self) {
        let f = self.hook.take();
        if let Some(mut f) = f {
            f();
        }
    }
}
impl LateBytes for Hooked {
    fn recv_ended(&self) {
        self.run();
    }
    fn late_bytes(&self, _: &[u8]) {
        self.run();
    }
    fn late_error(&self, _: io::Error) {
        self.run();
    }
}
impl LateSend for Hooked {
    fn send_ended(&self, _: usize) {
        self.run();
    }
    fn late_send(&self, _: io::Result<usize>, _: usize) {
        self.run();
    }
}

type RecvOp = InFlight<Recv<Hooked, Vec<u8>>>;

thread_local! {
    static OPS: RefCell<Vec<RecvOp>> = const { RefCell::new(Vec::new()) };
}

/// What runs in a hook: handle dropped, polled, forgotten, cancelled, other ops started and awaited, panics,
/// payloads whose destructor does the same.
#[test]
fn reentry_of_hooks_and_payloads_that_do_everything() {
    struct Payload(fn());
    impl Drop for Payload {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    fn drop_own() {
        let ops = OPS.take();
        drop(ops);
    }
    fn forget_own() {
        OPS.take().into_iter().for_each(std::mem::forget);
    }
    fn poll_own() {
        OPS.with_borrow_mut(|ops| {
            for op in ops {
                let polled = op.poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending());
            }
        });
    }
    fn poll_acting_own() {
        ON_CLONE.set(Some(Box::new(drop_nothing)));
        OPS.with_borrow_mut(|ops| {
            for op in ops {
                assert!(op.poll(&mut Context::from_waker(&acting())).is_pending());
            }
        });
    }
    fn drop_nothing() {}
    fn cancel_own() {
        OPS.with_borrow(|ops| ops.iter().for_each(InFlight::cancel));
    }
    fn many() {
        let Some(s) = Submitter::try_current() else { return };
        let ops: Vec<_> = (0..3000).map(|_| s.start(Nop).unwrap()).collect();
        drop(ops);
    }
    fn spawned() {
        if Submitter::try_current().is_none() {
            return;
        }
        drop(coreloop::spawn(async { submit(Nop).await.unwrap() }));
    }
    fn soon() {
        let Some(s) = Submitter::try_current() else { return };
        ON_WAKE.set(Some(Box::new(|| {
            drop_own();
            many();
            if let Some(s) = Submitter::try_current() {
                s.wake_soon(Waker::noop().clone());
            }
        })));
        s.wake_soon(acting());
    }
    fn nested() {
        let el = EventLoop::new().unwrap();
        let other = el.spawn(pending::<()>());
        el.close(Duration::from_secs(1));
        drop(other);
    }
    fn boom() {
        panic!("hook");
    }
    fn payload_drop_own() {
        std::panic::panic_any(Payload(drop_own));
    }
    fn payload_soon() {
        std::panic::panic_any(Payload(soon));
    }
    fn payload_boom() {
        std::panic::panic_any(Payload(payload_drop_own));
    }
    fn soon_boom() {
        soon();
        boom();
    }
    let acts: [(&str, fn()); 14] = [
        ("drop", drop_own),
        ("forget", forget_own),
        ("poll", poll_own),
        ("poll acting", poll_acting_own),
        ("cancel", cancel_own),
        ("many", many),
        ("spawn", spawned),
        ("soon", soon),
        ("nested", nested),
        ("boom", boom),
        ("payload drop", payload_drop_own),
        ("payload soon", payload_soon),
        ("payload boom", payload_boom),
        ("soon boom", soon_boom),
    ];
    for (first, a) in acts {
        for (second, b) in acts {
            for how in 0..3 {
                let mut el = EventLoop::with(Settings::default().ring_entries(8)).unwrap();
                let spare = el.block_on(async move {
                    let s = Submitter::current();
                    let (ours, mut theirs) = UnixStream::pair().unwrap();
                    let hook: Rc<RefCell<Option<Act>>> = Rc::default();
                    let again = hook.clone();
                    hook.replace(Some(Box::new(move || {
                        again.replace(Some(Box::new(b)));
                        a();
                    })));
                    let fd = Hooked { fd: ours, hook: hook.clone() };
                    let op = s.start(Recv::new(fd, vec![0; 16])).map_err(|_| ()).unwrap();
                    OPS.with_borrow_mut(|ops| ops.push(op));
                    turns(2).await;
                    match how {
                        0 => io::Write::write_all(&mut theirs, b"hello").unwrap(),
                        1 => cancel_own(),
                        _ => drop_own(),
                    }
                    turns(2).await;
                    for _ in 0..3 {
                        timeout(SOON, submit(Nop)).await.unwrap().unwrap();
                    }
                    // Wakes go on after all that.
                    let task = coreloop::spawn(async { coreloop::yield_now().await });
                    timeout(SOON, task).await.unwrap().unwrap();
                    let woken = Rc::new(Cell::new(false));
                    let w = woken.clone();
                    ON_WAKE.set(Some(Box::new(move || w.set(true))));
                    s.wake_soon(acting());
                    assert!(woken.get(), "outside of a dispatch at once");
                    turns(3).await;
                    theirs
                });
                // Outside of a dispatch an op's end is the dropper's, and so is its panic.
                if let Err(payload) = catch_unwind(AssertUnwindSafe(drop_own)) {
                    std::mem::forget(payload);
                }
                let report = el.close(Duration::from_secs(2));
                assert_eq!(report.ops_leaked, 0, "{first}, {second}, {how}");
                drop(spare);
                ON_WAKE.take();
                ON_CLONE.take();
            }
        }
    }
}

/// 100 tasks in one batch, every third panics in its poll, some in their destructors too, some take others
/// with them: all are polled, each ends as it should.
#[test]
fn panics_in_a_batch_leave_nobody_out() {
    struct Bad(bool);
    impl Drop for Bad {
        fn drop(&mut self) {
            if self.0 && !std::thread::panicking() {
                panic!("drop");
            }
        }
    }
    let mut el = EventLoop::new().unwrap();
    for round in 0..5 {
        let polled = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..200)
            .map(|i| {
                let p = polled.clone();
                el.spawn(async move {
                    let _bad = Bad(i % 7 == 0);
                    p.set(p.get() + 1);
                    let id = coreloop::task::current_id();
                    assert!(i % 3 != 0 || round == 4, "poll");
                    let inner = coreloop::spawn(async move {
                        if i % 5 == 0 {
                            panic!("inner");
                        }
                        i
                    });
                    let r = inner.await;
                    assert_eq!(r.is_err(), i % 5 == 0);
                    assert_eq!(id, coreloop::task::current_id());
                    i
                })
            })
            .collect();
        el.block_on(async {
            for (i, t) in tasks.into_iter().enumerate() {
                let bad = (i % 3 == 0 && round != 4) || i % 7 == 0;
                let r = timeout(SOON, t).await.expect("not lost");
                assert_eq!(r.is_err(), bad, "{i}");
            }
        });
        assert_eq!(polled.get(), 200);
    }
    // The main future panics, the loop goes on.
    let r = catch_unwind(AssertUnwindSafe(|| el.block_on(async { panic!("main") })));
    assert!(r.is_err());
    assert_eq!(el.block_on(async { submit(Nop).await.map(|()| 3) }).unwrap(), 3);
}

struct ActingFd(UnixStream, RefCell<Option<Act>>);

impl AsFd for ActingFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if let Some(mut f) = self.1.take() {
            f();
        }
        self.0.as_fd()
    }
}

#[test]
fn reentry_of_a_descriptor_that_ends_the_loop_as_its_op_is_made() {
    for (grace, then_panic) in [(0, false), (20, false), (0, true), (20, true)] {
        let mut el = EventLoop::new().unwrap();
        let s = el.block_on(async { Submitter::current() });
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut el = Some(el);
        let end: Act = Box::new(move || {
            let report = el.take().unwrap().close(Duration::from_millis(grace));
            assert_eq!(report.ops_leaked, 1, "the one that is being made");
            assert!(!then_panic, "as_fd");
        });
        let fd = ActingFd(ours, RefCell::new(Some(end)));
        let made =
            catch_unwind(AssertUnwindSafe(|| s.start(PollOnce::new(fd, libc::POLLIN as u32))));
        assert_eq!(made.is_err(), then_panic);
        if let Ok(Ok(mut op)) = made {
            let polled = catch_unwind(AssertUnwindSafe(|| {
                op.poll(&mut Context::from_waker(Waker::noop())).is_ready()
            }));
            assert!(polled.is_err(), "its loop was closed");
        }
    }
}

#[test]
fn reentry_of_a_clone_that_ends_the_loop_of_its_op() {
    for grace in [0, 100] {
        let mut el = EventLoop::new().unwrap();
        let s = el.block_on(async { Submitter::current() });
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut op = s.start(PollOnce::new(ours, libc::POLLIN as u32)).unwrap();
        el.turn(Some(Duration::ZERO));
        let mut el = Some(el);
        ON_CLONE.set(Some(Box::new(move || {
            el.take().unwrap().close(Duration::from_millis(grace));
        })));
        let ready = op.poll(&mut Context::from_waker(&acting())).is_ready();
        assert_eq!(ready, grace > 0, "its end came with the close, or never");
    }
}
