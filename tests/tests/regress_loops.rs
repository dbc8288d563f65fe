//! Loops that meet: two on one thread, and one that is stepped from outside.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io::Read;
use std::mem::forget;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use coreloop::op::{PollOnce, Submitter};
use coreloop::sched::TaskQueue;
use coreloop::time::{Sleep, sleep, timeout};
use coreloop::{EventLoop, Settings, Spin, StartError};
use coreloop_net::TcpStream;
use coreloop_tests::{in_child, net, poll_once, rest, stepped};

#[allow(unsafe_code)]
fn readable(fd: i32, limit_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    unsafe { libc::poll(&raw mut poll, 1, limit_ms) == 1 }
}

/// A handle that a task merely holds is let go when that task is cancelled, whatever number the poll had in
/// which it was last awaited on another loop of the thread.
#[test]
fn loops_of_one_thread_do_not_mistake_each_others_polls() {
    for lead in 0..40 {
        let (mut a, mut b) = (stepped(), stepped());
        let mut handle = a.spawn(pending::<()>());
        a.block_on(async { assert!(poll_once(Pin::new(&mut handle)).await.is_pending()) });
        b.block_on(async {
            for _ in 0..lead {
                coreloop::yield_now().await;
            }
        });
        let holder = b.spawn(async move {
            let _held = handle;
            pending::<()>().await;
        });
        rest(&mut b);
        assert!(holder.cancel());
        rest(&mut b);
        rest(&mut a);
        assert!(holder.is_finished());
        assert_eq!(a.turn(Some(Duration::ZERO)).tasks, 1, "lead {lead}: it runs on");
    }
}

/// What the owner does to a loop between its turns shows on its descriptor as a stranger's doing does.
#[test]
fn loops_stepped_from_outside_tell_of_what_their_owner_does_between_turns() {
    let mut event_loop = stepped();
    let fd = event_loop.poll_fd().unwrap();
    rest(&mut event_loop);
    assert!(!readable(fd, 0));
    let task = event_loop.spawn(pending::<()>());
    assert!(readable(fd, 5000), "a spawn");
    rest(&mut event_loop);

    assert!(!readable(fd, 0));
    assert!(task.cancel());
    assert!(readable(fd, 5000), "a cancel");
    rest(&mut event_loop);
    assert!(task.is_finished());

    let (mut stream, mut peer): (TcpStream, _) = event_loop.block_on(async { net::pair() });
    event_loop.block_on(async {
        let mut recv = stream.recv();
        assert!(poll_once(Pin::new(&mut recv)).await.is_pending());
    });
    rest(&mut event_loop);
    while readable(fd, 20) {
        rest(&mut event_loop);
    }
    drop(stream);
    assert!(readable(fd, 5000), "a stream that is dropped");
    rest(&mut event_loop);
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "the peer sees the end");
}

/// Outside of a completion a deferred wake has nothing to wait for.
#[test]
fn loops_wake_at_once_where_no_completion_is_being_handled() {
    let mut event_loop = stepped();
    let mut polls = 0;
    event_loop.block_on(poll_fn(|cx| {
        polls += 1;
        if polls == 1 {
            Submitter::current().wake_soon(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }));
    assert_eq!(polls, 2);
}

/// A `main` that returns the error, or an `unwrap`, shows its Debug: that has to say what to change.
#[test]
fn loops_that_cannot_start_say_why_in_debug_too() {
    let blocked = StartError::Blocked { sysctl: Some(2) };
    assert_eq!(format!("{blocked:?}"), blocked.to_string());
    assert!(format!("{blocked:?}").contains("sysctl -w kernel.io_uring_disabled=0"));
    let run = coreloop::RunError::Start { core: 1, source: blocked };
    assert!(format!("{run:?}").contains("kernel.io_uring_disabled"), "{run:?}");
}

/// A handle that is kept keeps its loop's place, and one that is forgotten keeps it for good. Who runs out of
/// places is told so, and goes on once there is one.
#[test]
fn loops_whose_handles_are_kept_use_up_the_places_and_say_so() {
    const PLACES: usize = 1024;
    in_child("loops_whose_handles_are_kept_use_up_the_places_and_say_so", || {
        let start = || EventLoop::with(Settings::default().spin(Spin::Off).buffers(1, 64));
        let mut kept = Vec::new();
        let refused = loop {
            match start() {
                Ok(event_loop) => kept.push(event_loop.spawn(pending::<()>())),
                Err(e) => break e,
            }
            assert!(kept.len() <= PLACES);
        };
        assert!(matches!(refused, StartError::TooManyLoops { limit: PLACES }), "{refused}");
        assert_eq!(kept.len(), PLACES);
        let says = refused.to_string();
        assert!(says.contains("JoinHandles") && says.contains("forgotten"), "{says}");
        assert!(says.contains("TaskQueues"), "these keep places as well: {says}");

        forget(kept.pop());
        assert!(start().is_err(), "a forgotten one gives no place back");
        drop(kept.pop());
        let mut event_loop = start().expect("there is a place again");
        assert_eq!(event_loop.block_on(async { 7 }), 7);
        assert!(start().is_err(), "there was one");
        drop(event_loop);
        assert!(start().is_ok(), "a loop without handles gives its place back");
        let mut event_loop = start().unwrap();
        let queue = event_loop.block_on(async { TaskQueue::builder("kept").build().unwrap() });
        drop(event_loop);
        assert!(start().is_err(), "a queue's handle keeps it");
        drop(queue);
        assert!(start().is_ok());
    });
}

/// Between turns nobody drives the loop: whoever waits on its descriptor is told of an op, and of its cancel.
#[test]
fn loops_tell_whoever_waits_on_their_descriptor_of_an_op_between_turns() {
    for places in [0, 1024] {
        let mut event_loop = EventLoop::with(Settings::default().fixed_files(places)).unwrap();
        let submitter = event_loop.block_on(async { Submitter::current() });
        let fd = event_loop.poll_fd().unwrap();
        let mut settle = || {
            while event_loop.turn(Some(Duration::ZERO)).ready || readable(fd, 20) {}
        };
        settle();
        let (near, _far) = UnixStream::pair().unwrap();
        let op = submitter.start(PollOnce::new(near, libc::POLLIN as u32)).unwrap();
        assert!(readable(fd, 2_000), "of the op, with {places} places");
        settle();
        op.cancel();
        assert!(readable(fd, 2_000), "of the cancel, with {places} places");
        settle();
    }
}

/// A timer is one of the loop in which it was set: one that another loop waits for goes over to that one,
/// since nobody may come back to the first.
#[test]
fn loops_a_sleep_goes_over_to_the_loop_that_waits_for_it() {
    let (mut a, mut b) = (stepped(), stepped());
    let began = Instant::now();
    let mut nap = Box::pin(sleep(Duration::from_millis(20)));
    let mut limited = Box::pin(timeout(Duration::from_millis(20), pending::<()>()));
    // In one turn: in a second one the first may be due.
    a.block_on(async {
        assert!(poll_once(nap.as_mut()).await.is_pending());
        assert!(poll_once(limited.as_mut()).await.is_pending());
    });
    b.block_on(nap);
    assert!(b.block_on(limited).is_err());
    assert!(began.elapsed() >= Duration::from_millis(20));
    rest(&mut a);
    let left = a.handle().all_stats_blocking(Duration::ZERO);
    assert_eq!(left[0].counters.timers, 0, "nothing is left of it there");
}

/// What polls a sleep while its loop closes (a destructor does) has not made it one without an end.
#[test]
fn loops_a_sleep_that_is_polled_while_its_loop_closes_ends_in_another() {
    struct Polls(Rc<RefCell<Pin<Box<Sleep>>>>);
    impl Drop for Polls {
        fn drop(&mut self) {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(self.0.borrow_mut().as_mut().poll(&mut cx).is_pending());
        }
    }
    /// Woken when the operation that a loop still had is done, which is after its timers are.
    struct Told(Mutex<Option<std::sync::mpsc::Sender<()>>>);
    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            LATE.with_borrow_mut(|late| drop(late.take()));
            drop(self.0.lock().unwrap().take());
        }
    }
    thread_local! {
        static LATE: RefCell<Option<Polls>> = const { RefCell::new(None) };
    }
    let nap = Rc::new(RefCell::new(Box::pin(sleep(Duration::from_millis(1)))));
    let mut event_loop = stepped();
    let (told, hears) = std::sync::mpsc::channel();
    let waker = Waker::from(Arc::new(Told(Mutex::new(Some(told)))));
    let (near, _far) = UnixStream::pair().unwrap();
    let submitter = event_loop.block_on(async { Submitter::current() });
    let op = submitter.start(PollOnce::new(near, libc::POLLIN as u32)).unwrap();
    let mut readable = Box::pin(op);
    event_loop.block_on(async {
        let mut cx = Context::from_waker(&waker);
        assert!(readable.as_mut().poll(&mut cx).is_pending());
    });
    LATE.with_borrow_mut(|late| *late = Some(Polls(nap.clone())));
    drop(event_loop);
    assert!(hears.recv().is_err(), "the waker was called");
    assert!(LATE.with_borrow(Option::is_none));
    stepped().block_on(poll_fn(|cx| nap.borrow_mut().as_mut().poll(cx)));
}
