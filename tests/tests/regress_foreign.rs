//! What foreign code and panics once cost: wakes lost to a waker whose clone drives the loop, ops that a closing
//! loop took and never ended, turns that went on without looking up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use coreloop::op::{BufferTurn, InFlight, Nop, PollOnce, Submitter};
use coreloop::task::JoinHandle;
use coreloop::{EventLoop, Settings, spawn, yield_now};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::drive::Drops;
use coreloop_tests::foreign::{ON_CLONE, ON_WAKE, WAKES, acting, drive, shared, submitter};
use coreloop_tests::turns;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn reentry_of_a_clone_that_ends_the_task_it_waits_for() {
    let el = shared();
    let mut task = el.borrow().spawn(async { 7 });
    ON_CLONE.set(Some(drive(&el)));
    let w = acting();
    let before = WAKES.get();
    let polled = Pin::new(&mut task).poll(&mut Context::from_waker(&w));
    if polled.is_pending() {
        for _ in 0..5 {
            el.borrow_mut().turn(Some(Duration::ZERO));
        }
        assert!(task.is_finished());
        assert!(WAKES.get() > before, "LOST: the task has ended, nobody was woken");
    }
}

#[test]
fn reentry_of_a_clone_that_brings_the_turn_it_waits_for() {
    let el = shared();
    let s = submitter(&el);
    let mut turn: BufferTurn = s.wait_for_buffer();
    ON_CLONE.set(Some(drive(&el)));
    let w = acting();
    let before = WAKES.get();
    if turn.poll(&mut Context::from_waker(&w)).is_pending() {
        for _ in 0..5 {
            el.borrow_mut().turn(Some(Duration::ZERO));
        }
        assert!(WAKES.get() > before, "LOST: the turn was given, nobody was woken");
    }
}

#[test]
fn reentry_of_a_clone_that_brings_the_end_of_a_dropped_read() {
    let el = shared();
    let (mut stream, mut peer) = el.borrow_mut().block_on(async {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap(), peer)
    });
    {
        let mut read = pin!(stream.read(Vec::with_capacity(10)));
        assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    // The read was cancelled; its end has not come.
    ON_CLONE.set(Some(drive(&el)));
    let w = acting();
    let before = WAKES.get();
    let mut recv = pin!(stream.recv());
    if recv.as_mut().poll(&mut Context::from_waker(&w)).is_pending() {
        el.borrow_mut().block_on(async { peer.write_all("x").await.unwrap() });
        for _ in 0..20 {
            el.borrow_mut().turn(Some(Duration::from_millis(2)));
        }
        assert!(WAKES.get() > before, "LOST: data is there, nobody was woken");
    }
}

#[test]
fn reentry_of_a_waker_that_starts_an_op_while_the_loop_closes() {
    let el = EventLoop::new().unwrap();
    let el = Rc::new(RefCell::new(el));
    let s = submitter(&el);
    let mut turn = s.wait_for_buffer();
    let made: Rc<RefCell<Vec<InFlight<Nop>>>> = Rc::default();
    let refused = Rc::new(Cell::new(0));
    let (m, s2, r) = (made.clone(), s.clone(), refused.clone());
    ON_WAKE.set(Some(Box::new(move || match s2.start(Nop) {
        Ok(op) => m.borrow_mut().push(op),
        Err(_) => r.set(r.get() + 1),
    })));
    assert!(turn.poll(&mut Context::from_waker(&acting())).is_pending());
    let el = Rc::try_unwrap(el).unwrap().into_inner();
    assert_eq!(el.close(SOON).ops_leaked, 0);
    assert_eq!((made.borrow().len(), refused.get()), (0, 1), "ops made, refused");
}

/// A handle of a leaked op and one of an op that was started after the leak.
#[test]
fn reentry_after_a_leak_keys_name_one_op() {
    let mut el = EventLoop::new().unwrap();
    let s = el.block_on(async { Submitter::current() });
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut old = s.start(PollOnce::new(ours, libc::POLLIN as u32)).unwrap();
    el.turn(Some(Duration::ZERO));
    let mut turn = s.wait_for_buffer();
    let made: Rc<RefCell<Vec<InFlight<Nop>>>> = Rc::default();
    let (m, s2) = (made.clone(), s.clone());
    ON_WAKE.set(Some(Box::new(move || {
        if let Ok(op) = s2.start(Nop) {
            m.borrow_mut().push(op);
        }
    })));
    assert!(turn.poll(&mut Context::from_waker(&acting())).is_pending());
    el.close(Duration::ZERO);
    let polled = catch_unwind(AssertUnwindSafe(|| {
        old.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }));
    std::mem::forget(made);
    assert!(polled.is_err(), "the leaked op's handle polled another op");
}

/// Polls that panic spend the turn's quota like all others: what comes in meanwhile is not kept waiting.
#[test]
fn a_batch_of_panics_keeps_to_the_quota() {
    let ticks = |panics: bool| {
        let settings = Settings::default().tick_quota(Duration::from_millis(1));
        let mut el = EventLoop::with(settings).unwrap();
        for _ in 0..512 {
            drop(el.spawn(async move {
                std::thread::sleep(Duration::from_micros(100));
                assert!(!panics);
            }));
        }
        let before = el.stats().counters.ticks;
        while el.turn(Some(Duration::ZERO)).tasks > 0 {}
        el.stats().counters.ticks - before
    };
    let (fine, panicking) = (ticks(false), ticks(true));
    assert_eq!(fine, panicking);
}

#[test]
fn histograms_count_polls_that_panic() {
    let settings = Settings::default().stats(coreloop::StatsLevel::Histograms);
    let mut el = EventLoop::with(settings).unwrap();
    // No more than are all timed in one turn.
    let tasks: Vec<_> = (0..12)
        .map(|i| {
            el.spawn(async move {
                if i % 2 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                    panic!("poll");
                }
            })
        })
        .collect();
    el.block_on(async {
        for t in tasks {
            let _ = t.await;
        }
    });
    let stats = el.stats();
    let h = stats.histograms.unwrap();
    assert_eq!(stats.counters.polls, h.poll.count());
}

/// A handle's drop lets a stranger's waker go, whose destructor may end the task's own loop, and the task with it.
#[test]
fn regress_a_handle_dropped_with_a_waker_that_ends_the_tasks_loop() {
    thread_local! {
        static OTHER: RefCell<Option<EventLoop>> = const { RefCell::new(None) };
        static ARMED: Cell<bool> = const { Cell::new(false) };
    }
    struct EndsTheOther;
    impl Wake for EndsTheOther {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for EndsTheOther {
        fn drop(&mut self) {
            if ARMED.replace(false) {
                drop(OTHER.take());
            }
        }
    }
    for awaited in [true, false] {
        let (mut event_loop, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
        let drops = Drops::new();
        let guard = drops.guard();
        // Large, so that its memory is given back at once.
        let mut handle = other.spawn(async move {
            let _guard = guard;
            let large = std::hint::black_box([1_u8; 200_000]);
            std::future::pending::<()>().await;
            std::hint::black_box(&large);
        });
        OTHER.set(Some(other));
        event_loop.block_on(async {
            let task = spawn(std::future::poll_fn(move |_| {
                let waker = Waker::from(Arc::new(EndsTheOther));
                let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending());
                if awaited { Poll::Pending } else { Poll::Ready(()) }
            }));
            if !awaited {
                ARMED.set(true);
            }
            turns(2).await;
            ARMED.set(true);
            task.cancel();
            assert_eq!(task.await.is_err(), awaited);
        });
        assert_eq!(drops.count(), 1, "the other loop has ended");
        assert!(OTHER.take().is_none());
        ARMED.set(false);
    }
}

thread_local! {
    /// A task's handle, and a waker that the task let out.
    static ENDED: RefCell<(Option<JoinHandle<()>>, Option<Waker>)> = const { RefCell::new((None, None)) };
}

/// Frees the task that has just ended, and gives way in its name.
struct Frees;

impl Wake for Frees {
    fn wake(self: Arc<Self>) {
        let (handle, waker) = ENDED.take();
        drop(handle);
        let polled = pin!(yield_now()).poll(&mut Context::from_waker(&waker.unwrap()));
        assert!(polled.is_pending());
    }
}

/// A slot that was given back was put among those that gave way, since its last task was still the running one:
/// two tasks that were spawned later shared it, and the first was never polled.
#[test]
fn foreign_wake_that_frees_a_task_and_gives_way_in_its_name() {
    coreloop::run(async {
        let mut task = spawn(poll_fn(|cx| {
            ENDED.with_borrow_mut(|ended| ended.1 = Some(cx.waker().clone()));
            Poll::Ready(())
        }));
        let frees = Waker::from(Arc::new(Frees));
        assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&frees)).is_pending());
        ENDED.with_borrow_mut(|ended| ended.0 = Some(task));
        turns(3).await;
        assert!(ENDED.with_borrow(|ended| ended.1.is_none()), "it was woken");
        let later: Vec<_> = (0..4).map(|i| spawn(async move { i })).collect();
        turns(3).await;
        assert!(later.iter().all(JoinHandle::is_finished), "each has a slot of its own");
    })
    .unwrap();
}
