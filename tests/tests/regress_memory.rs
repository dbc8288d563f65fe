//! What safe code could once make of the ops: reads of memory that nobody had written, or past its end,
//! and pinned memory that was given back without its destructor.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::{self, Read as _, Write as _};
use std::marker::PhantomPinned;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::panic::panic_any;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use coreloop::op::{LateBytes, LateSend, Receiver, Recv, Send, SendMany, Submitter, submit};
use coreloop::{EventLoop, Settings};
use coreloop_tests::{in_child, net};

const SOON: Duration = Duration::from_secs(5);

/// A socket that notes nothing of what comes late.
#[derive(Clone)]
struct Plain(Rc<OwnedFd>);

impl Plain {
    fn new(file: impl Into<OwnedFd>) -> Self {
        Self(Rc::new(file.into()))
    }
}

impl Receiver for Plain {}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl LateBytes for Plain {
    fn recv_ended(&self) {}
    fn late_bytes(&self, _: &[u8]) {}
    fn late_error(&self, _: io::Error) {}
}

impl LateSend for Plain {
    fn send_ended(&self, _: usize) {}
    fn late_send(&self, _: io::Result<usize>, _: usize) {}
}

/// The kernel picks a buffer of the ring that the op is on, and the membership names a pool: with those
/// of two loops, a chunk of 64-byte buffers came to 128 KiB.
#[test]
fn memory_membership_of_another_loop_is_refused() {
    let mut small = EventLoop::with(Settings::default().buffers(1, 64)).unwrap();
    let mut large = EventLoop::with(Settings::default().buffers(4, 1 << 20)).unwrap();
    let of_small = small.block_on(async { Submitter::current().join_buffers() });
    let (ours, mut theirs) = net::std_pair();
    theirs.write_all(&[7; 20_000]).unwrap();
    large.block_on(async {
        let submitter = Submitter::current();
        let refused = submitter.recv_chunk(Plain::new(ours.try_clone().unwrap()), &of_small);
        let error = refused.expect_err("another loop's membership").expect_err("with a reason");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // Nothing was received, and with its own membership the same socket is good.
        let own = submitter.join_buffers();
        let mut got = 0;
        while got < 20_000 {
            let mut op = submitter.recv_chunk(Plain::new(ours.try_clone().unwrap()), &own).unwrap();
            let chunk = poll_fn(|cx| op.poll(cx)).await.unwrap().expect("bytes are there");
            assert!(chunk.len() <= submitter.buffer_size());
            assert!(chunk.iter().all(|b| *b == 7), "bytes that were not sent");
            got += chunk.len();
        }
        assert_eq!(got, 20_000);
    });
}

/// A receive took MSG_TRUNC, with which the count is the datagram's, not that of the bytes written: the
/// buffer's length was set beyond its capacity.
#[test]
fn memory_recv_of_a_longer_datagram_stays_within_the_buffer() {
    coreloop::run(async {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.send(&[1; 5000]).unwrap();
        let (n, buf) = submit(Recv::new(Plain::new(ours), Vec::with_capacity(16))).await.unwrap();
        assert_eq!((n, buf.len(), buf.capacity()), (16, 16, 16));
        assert!(buf.iter().all(|b| *b == 1));
    })
    .unwrap();
}

/// On TCP the same flag has the kernel count the bytes and write none.
#[test]
fn memory_recv_gives_the_bytes_that_were_sent() {
    coreloop::run(async {
        let (ours, mut theirs) = net::std_pair();
        theirs.write_all(&[1; 64]).unwrap();
        let mut junk = vec![0xAB; 64];
        junk.clear();
        let (n, buf) = submit(Recv::new(Plain::new(ours), junk)).await.unwrap();
        assert_eq!(n, buf.len());
        assert!((1..=64).contains(&n));
        assert!(buf.iter().all(|b| *b == 1), "bytes that the kernel never wrote: {buf:?}");
    })
    .unwrap();
}

/// Reads so many bytes and asserts that they are the alphabet's first.
fn expect_letters(from: &mut StdStream, n: usize) {
    let mut got = vec![0; n];
    from.read_exact(&mut got).unwrap();
    assert_eq!(got, (b'a'..).take(n).collect::<Vec<_>>());
}

/// A send passed every flag on: MSG_ZEROCOPY, for one, has the kernel read the buffer after the
/// completion has given it back. MSG_OOB stands for the flags that are left out, since it shows: the last
/// byte would not be among the others.
#[test]
fn memory_send_leaves_out_flags_that_change_what_it_is() {
    coreloop::run(async {
        let (ours, mut theirs) = net::std_pair();
        let ours = Plain::new(ours);
        let flags = libc::MSG_OOB | libc::MSG_ZEROCOPY;
        let (n, _) = submit(Send::new(ours.clone(), b"abcd".to_vec(), 0, flags)).await.unwrap();
        assert_eq!(n, 4);
        expect_letters(&mut theirs, 4);
        let bufs = vec![b"ab".to_vec(), b"cdef".to_vec()];
        let (n, _) = submit(SendMany::new(ours, bufs, 0, flags)).await.unwrap();
        assert_eq!(n, 6);
        expect_letters(&mut theirs, 6);
    })
    .unwrap();
}

thread_local! {
    /// Numbers of the [`Node`]s that were polled and not yet dropped.
    static PINNED: RefCell<Vec<u32>> = RefCell::default();
}

/// A future that others may point at until its destructor has run, as pinning allows.
struct Node {
    number: u32,
    _pinned: PhantomPinned,
}

impl Future for Node {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        PINNED.with_borrow_mut(|p| p.push(self.number));
        Poll::Pending
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        PINNED.with_borrow_mut(|p| p.retain(|n| *n != self.number));
    }
}

/// The payload of a panic; its own destructor panics too.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a payload's destructor");
        }
    }
}

/// Panics with a [`Payload`].
struct BadWaker;

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        panic_any(Payload);
    }
}

/// The second panic of such a waker got out of the close: the tasks behind the first were never cancelled,
/// and their memory was freed with their destructors not run.
#[test]
fn memory_pinned_futures_are_dropped_whatever_a_waker_does_at_the_end() {
    in_child("memory_pinned_futures_are_dropped_whatever_a_waker_does_at_the_end", || {
        let mut event_loop = EventLoop::new().unwrap();
        let mut first = event_loop.spawn(pending::<()>());
        for number in 0..3 {
            drop(event_loop.spawn(Node { number, _pinned: PhantomPinned }));
        }
        event_loop.turn(Some(Duration::ZERO));
        assert_eq!(PINNED.with_borrow(|p| p.clone()), [0, 1, 2], "all were polled");
        let waker = Waker::from(Arc::new(BadWaker));
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
        let report = event_loop.close(SOON);
        assert_eq!((report.tasks_cancelled, report.ops_leaked), (4, 0));
        assert_eq!(
            PINNED.with_borrow(|p| p.clone()),
            Vec::<u32>::new(),
            "destructors that did not run"
        );
    });
}

/// The same payload, from a closure of another thread's: it ended the core.
#[test]
fn memory_a_payload_that_panics_ends_neither_core_nor_task() {
    in_child("memory_a_payload_that_panics_ends_neither_core_nor_task", || {
        let mut event_loop = EventLoop::new().unwrap();
        let handle = event_loop.handle();
        handle.call_soon_threadsafe(0, || panic_any(Payload)).unwrap();
        let polls = Rc::new(Cell::new(0));
        let seen = polls.clone();
        event_loop.block_on(async move {
            drop(coreloop::spawn(async { panic_any(Payload) }));
            drop(coreloop::spawn(async move { seen.set(seen.get() + 1) }));
            coreloop_tests::turns(4).await;
        });
        assert_eq!(polls.get(), 1, "the task behind it ran");
        assert_eq!(event_loop.close(SOON).ops_leaked, 0);
    });
}
