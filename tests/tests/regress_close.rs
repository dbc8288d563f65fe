//! What once got in the way of a loop's end, or brought the end about: panics of other people's hooks,
//! destructors that spawn, and futures that outlive their loop.

use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use coreloop::op::{Nop, PollOnce, submit};
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Feature, Settings, ShutdownReport};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::drive::{DropGuard, Drops};
use coreloop_tests::{fd_count, fds_settle_at, in_child, poll_once, turns};

const SOON: Duration = Duration::from_secs(5);

const READABLE: u32 = libc::POLLIN as u32;

/// The report and that the close did not sit its grace out.
fn closed_soon(event_loop: EventLoop) -> ShutdownReport {
    let began = Instant::now();
    let report = event_loop.close(Duration::from_secs(60));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "the close waited {took:?} for nothing");
    report
}

struct PanickingWaker;

impl Wake for PanickingWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker");
    }
}

/// The end of a dropped read wakes who waits to receive, from within the driver's dispatch: a panic of
/// that waker ended the core, and the op's slot was never freed.
#[test]
fn close_after_a_panic_of_a_waker_in_a_sockets_hook() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut stream = listener.accept().await.unwrap();
        {
            let mut read = pin!(stream.read(Vec::with_capacity(10)));
            assert!(poll_once(read.as_mut()).await.is_pending());
        }
        {
            let mut recv = pin!(stream.recv());
            let waker = Waker::from(Arc::new(PanickingWaker));
            assert!(recv.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        turns(3).await;
        // The stream is good afterwards.
        peer.write_all("after").await.unwrap();
        let chunk = timeout(SOON, stream.recv()).await.expect("it was sent").unwrap().unwrap();
        assert_eq!(&*chunk, b"after");
    });
    assert_eq!(closed_soon(event_loop).ops_leaked, 0);
}

/// A descriptor whose destructor panics.
struct BadDrop(UnixStream);

impl AsFd for BadDrop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for BadDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a descriptor's destructor");
        }
    }
}

/// What a dropped op holds is dropped in the driver's dispatch: a panic there ended the core.
#[test]
fn close_after_a_panic_in_the_destructor_of_an_ops_descriptor() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        {
            let mut op = pin!(submit(PollOnce::new(BadDrop(ours), READABLE)));
            assert!(poll_once(op.as_mut()).await.is_pending());
            turns(2).await;
        }
        turns(3).await;
        submit(Nop).await.unwrap();
    });
    assert_eq!(event_loop.stats().counters.hook_panics, 1);
    assert_eq!(closed_soon(event_loop).ops_leaked, 0);
}

/// The same while the ring drains, where nobody is left to catch it.
#[test]
fn close_while_the_destructors_of_descriptors_panic() {
    in_child("close_while_the_destructors_of_descriptors_panic", || {
        let before = fd_count();
        let mut event_loop = EventLoop::new().unwrap();
        let mut others = Vec::new();
        for _ in 0..10 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            others.push(theirs);
            drop(event_loop.spawn(submit(PollOnce::new(BadDrop(ours), READABLE))));
        }
        event_loop.turn(Some(Duration::ZERO));
        assert_eq!(closed_soon(event_loop).ops_leaked, 0);
        drop(others);
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}

/// A descriptor that can't be asked for.
struct BadFd;

impl AsFd for BadFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        panic!("as_fd");
    }
}

/// An op that panics as it is prepared left its slot taken: the close waited for it to end.
#[test]
fn close_after_a_panic_in_the_making_of_an_op() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        let task = coreloop::spawn(submit(PollOnce::new(BadFd, READABLE)));
        let error = task.await.expect_err("it panicked");
        assert_eq!(error.panic_message(), Some("as_fd"));
        submit(Nop).await.unwrap();
    });
    assert_eq!(closed_soon(event_loop).ops_leaked, 0);
}

/// A waker whose destructor panics.
struct BadWakerDrop;

impl Wake for BadWakerDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for BadWakerDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a waker's destructor");
        }
    }
}

/// Wakers that still wait in the wheel are dropped at the end: a panic there got out of the loop's drop.
#[test]
fn close_while_the_destructor_of_a_timers_waker_panics() {
    let mut event_loop = EventLoop::new().unwrap();
    let mut sleeps: Vec<_> = (0..3).map(|_| sleep(Duration::from_secs(100))).collect();
    event_loop.block_on(poll_fn(|_| {
        for sleep in &mut sleeps {
            let waker = Waker::from(Arc::new(BadWakerDrop));
            assert!(Pin::new(sleep).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        Poll::Ready(())
    }));
    let closed = catch_unwind(AssertUnwindSafe(|| closed_soon(event_loop)));
    assert_eq!(closed.expect("the panics are contained").ops_leaked, 0);
}

/// Spawns another of its kind when dropped, so many times.
struct Chain {
    left: u32,
    _guard: DropGuard,
    drops: Drops,
}

impl Drop for Chain {
    fn drop(&mut self) {
        if self.left > 0 {
            let next = Chain {
                left: self.left - 1,
                _guard: self.drops.guard(),
                drops: self.drops.clone(),
            };
            drop(coreloop::spawn(async move {
                let _next = next;
                pending::<()>().await;
            }));
        }
    }
}

/// Tasks that destructors spawn at the end were ended within each other, until the stack was used up.
#[test]
fn close_a_chain_of_100_000_destructors_that_spawn() {
    in_child("close_a_chain_of_100_000_destructors_that_spawn", || {
        const LENGTH: u32 = 100_000;
        let drops = Drops::new();
        let mut event_loop = EventLoop::new().unwrap();
        let first = Chain { left: LENGTH, _guard: drops.guard(), drops: drops.clone() };
        drop(event_loop.spawn(async move {
            let _first = first;
            pending::<()>().await;
        }));
        event_loop.turn(Some(Duration::ZERO));
        drop(event_loop);
        assert_eq!(drops.count(), LENGTH as usize + 1);
    });
}

/// A main future that spawns when it is dropped.
struct SpawnsAtItsEnd;

impl Future for SpawnsAtItsEnd {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

impl Drop for SpawnsAtItsEnd {
    fn drop(&mut self) {
        drop(coreloop::spawn(async {}));
    }
}

/// Where the main future is dropped its loop must still be the running one, or a destructor can't spawn.
#[test]
fn close_the_main_future_is_dropped_within_its_loop() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(SpawnsAtItsEnd);
    assert_eq!(event_loop.turn(Some(Duration::ZERO)).tasks, 0, "what it spawned has run");
}

/// A sleep took the end of its loop for its deadline: an hour was over at once on the next loop.
#[test]
fn close_a_sleep_goes_on_in_another_loop() {
    let mut first = EventLoop::new().unwrap();
    let mut hour = sleep(Duration::from_secs(3600));
    let mut moment = sleep(Duration::from_millis(50));
    let due = moment.deadline();
    first.block_on(async {
        assert!(poll_once(Pin::new(&mut hour)).await.is_pending());
        assert!(poll_once(Pin::new(&mut moment)).await.is_pending());
    });
    drop(first);
    coreloop::run(async {
        timeout(SOON, moment).await.expect("its time comes here too");
        assert!(coreloop::time::Instant::now() >= due, "it fired early");
        assert!(timeout(Duration::from_millis(20), hour).await.is_err(), "an hour went by at once");
    })
    .unwrap();
}

/// A receive that stood in line for a buffer when its loop ended was never told.
#[test]
fn close_tells_a_receive_that_waits_for_a_buffer() {
    const STREAMS: usize = 20;
    let mut first = EventLoop::with(Settings::default().buffers(1, 64)).unwrap();
    if !first.ring_report().in_force.contains(Feature::BufferRing) {
        coreloop_tests::skip!("without a buffer ring there is no line");
    }
    let (mut streams, mut peers) = (Vec::new(), Vec::new());
    first.block_on(async {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        for _ in 0..STREAMS {
            let mut peer = TcpStream::connect(addr).await.unwrap();
            peer.write_all(vec![1; 1000]).await.unwrap();
            peers.push(peer);
            streams.push(listener.accept().await.unwrap());
        }
    });
    let mut receives: Vec<_> = streams.iter_mut().map(|s| Box::pin(s.recv())).collect();
    first.block_on(async {
        for recv in &mut receives {
            assert!(poll_once(recv.as_mut()).await.is_pending());
        }
        turns(2).await;
        // One of them has the buffer; at this poll the others learn so and join the line.
        let mut waiting = Vec::new();
        for mut recv in receives.drain(..) {
            if poll_once(recv.as_mut()).await.is_pending() {
                waiting.push(recv);
            }
        }
        receives = waiting;
    });
    let out = first.stats().counters.buffers_out;
    assert!(out as usize >= STREAMS / 2, "only {out} receives joined the line");
    assert!(receives.len() >= STREAMS / 2, "only {} of them wait", receives.len());
    drop(first);
    coreloop::run(async move {
        for recv in receives {
            // One whose turn came in the last tick may have its bytes; the others are told of the end.
            if let Err(e) = timeout(SOON, recv).await.expect("it was told of the end") {
                assert_eq!(e.raw_os_error(), Some(libc::ECANCELED), "{e}");
            }
        }
    })
    .unwrap();
}

/// Ops that a handle starts after the end are refused with an error, and nothing panics or waits.
#[test]
fn close_refuses_what_comes_after_it() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let mut stream = event_loop.block_on(async {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        listener.accept().await.unwrap();
        stream
    });
    let remote = handle.spawn_on(0, || async { 5 }).unwrap();
    drop(event_loop);
    assert!(remote.join().is_err(), "its core ended before it ran");
    coreloop::run(async {
        let error = timeout(SOON, stream.recv()).await.expect("at once").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        let error = timeout(SOON, stream.write_all("x")).await.expect("at once").unwrap_err();
        assert_eq!(io::Error::from(error).raw_os_error(), Some(libc::ECANCELED));
    })
    .unwrap();
}
