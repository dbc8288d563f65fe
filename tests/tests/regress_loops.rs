//! Loops that meet: two on one thread, and one that is stepped from outside.

use std::future::{pending, poll_fn};
use std::io::Read;
use std::mem::forget;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use coreloop::op::{PollOnce, Submitter};
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

        forget(kept.pop());
        assert!(start().is_err(), "a forgotten one gives no place back");
        drop(kept.pop());
        let mut event_loop = start().expect("there is a place again");
        assert_eq!(event_loop.block_on(async { 7 }), 7);
        assert!(start().is_err(), "there was one");
        drop(event_loop);
        assert!(start().is_ok(), "a loop without handles gives its place back");
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
