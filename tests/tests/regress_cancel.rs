//! Futures that are dropped, forgotten, or polled where no loop runs: what once was lost or mixed up.

use std::future::{pending, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coreloop::combine::race;
use coreloop::time::timeout;
use coreloop::{EventLoop, RemoteError};
use coreloop_tests::drive::Drops;
use coreloop_tests::{net, poll_once, turns};

const SOON: Duration = Duration::from_secs(5);

/// A write knew of an earlier one only from that one's destructor: after a forgotten write both were in
/// the kernel at a time, and their bytes came mixed. And one that was forgotten half way is as one that was
/// dropped: nothing comes behind its half before somebody has asked how much that was.
#[test]
fn cancel_forgotten_write_goes_before_the_next() {
    const LEN: usize = 8_000_000;
    coreloop::run(async {
        let (mut client, mut server) = net::streams().await;
        let mut forgotten = Box::pin(client.write_all(vec![b'a'; LEN]));
        assert!(poll_once(forgotten.as_mut()).await.is_pending());
        std::mem::forget(forgotten);
        let e = timeout(SOON, client.write_all("b")).await.expect("it is told").unwrap_err();
        assert!(e.to_string().contains("of 8000000 bytes"), "{e}");
        let torn = client.take_torn_write().expect("there are no 8 MB of room");
        assert!(0 < torn.sent && torn.sent < LEN && torn.len == LEN, "{torn:?}");
        let second = coreloop::spawn(async move {
            let written = client.write_all(vec![b'b'; LEN]).await.map(|(n, _)| n);
            (written, client)
        });
        let (mut letters, mut total) = (Vec::new(), 0);
        while total < torn.sent + LEN {
            let got =
                timeout(Duration::from_secs(60), server.recv()).await.expect("more is to come");
            let chunk = got.unwrap().expect("more is to come");
            total += chunk.len();
            for letter in chunk.iter() {
                if letters.last() != Some(letter) {
                    letters.push(*letter);
                }
            }
        }
        assert_eq!((letters, total), (b"ab".to_vec(), torn.sent + LEN));
        let (written, mut client) = second.await.unwrap();
        assert_eq!(written.unwrap(), LEN);
        assert!(client.take_torn_write().is_none());
    })
    .unwrap();
}

/// A forgotten write that is done when the next one begins leaves the stream whole.
#[test]
fn cancel_forgotten_write_that_is_all_done_is_none_that_is_torn() {
    coreloop::run(async {
        let (mut client, mut server) = net::streams().await;
        let mut forgotten = Box::pin(client.write_many(vec!["one", "two"]));
        assert!(poll_once(forgotten.as_mut()).await.is_pending());
        std::mem::forget(forgotten);
        client.write_all("three").await.unwrap();
        let (_, bytes) = timeout(SOON, server.read_exact(vec![0; 11])).await.unwrap().unwrap();
        assert_eq!(bytes, b"onetwothree");
    })
    .unwrap();
}

/// The same of a read: a second one could have been in the kernel beside it.
#[test]
fn cancel_forgotten_read_goes_before_the_next() {
    coreloop::run(async {
        let (mut client, mut server) = net::streams().await;
        let mut forgotten = Box::pin(server.read(Vec::with_capacity(3)));
        assert!(poll_once(forgotten.as_mut()).await.is_pending());
        std::mem::forget(forgotten);
        turns(3).await;
        let mut next = Box::pin(server.read(Vec::with_capacity(3)));
        assert!(poll_once(next.as_mut()).await.is_pending());
        turns(3).await;
        client.write_all("onetwo").await.unwrap();
        // What the forgotten one read is forgotten with it; the next gets what follows, not before.
        let (n, bytes) = timeout(SOON, next).await.expect("it is told").unwrap();
        assert_eq!((n, &*bytes), (3, &b"two"[..]));
    })
    .unwrap();
}

/// The reset that a dropped read met was left behind by `detach`, and the stream looked cleanly ended.
#[test]
fn cancel_read_that_met_a_reset_shows_in_detach() {
    coreloop::run(async {
        for (turns_before, turns_after) in [(0, 0), (0, 3), (3, 0), (3, 3)] {
            let (client, mut server) = net::streams().await;
            {
                let mut read = pin!(server.read(Vec::with_capacity(10)));
                assert!(poll_once(read.as_mut()).await.is_pending());
                turns(3).await;
                client.set_linger(Some(Duration::ZERO)).unwrap();
                drop(client);
                std::thread::sleep(Duration::from_millis(5));
                turns(turns_before).await;
            }
            turns(turns_after).await;
            let error = match server.detach().await {
                Err(e) => e,
                Ok(detached) => detached.attach().recv().await.expect_err("the reset was lost"),
            };
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
        }
    })
    .unwrap();
}

/// A future that never ends and tells of its drop.
fn never(drops: &Drops) -> impl Future<Output = ()> + use<> {
    let guard = drops.guard();
    async move {
        let _guard = guard;
        pending::<()>().await;
    }
}

/// Polls without a loop and with a waker that does nothing.
fn poll_outside<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A limit that was found expired where no loop runs said so and kept its future, with all that it held.
#[test]
fn cancel_expired_timeout_drops_its_future_outside_a_loop_too() {
    let drops = Drops::new();
    let mut event_loop = EventLoop::new().unwrap();
    let mut limited = Box::pin(timeout(Duration::from_millis(5), never(&drops)));
    event_loop.block_on(async { assert!(poll_once(limited.as_mut()).await.is_pending()) });
    std::thread::sleep(Duration::from_millis(10));
    match poll_outside(limited.as_mut()) {
        Poll::Ready(ended) => assert!(ended.is_err()),
        Poll::Pending => panic!("the limit is over"),
    }
    assert_eq!(drops.count(), 1, "the limited future is gone");
}

/// The loser of a race goes before the winner's value is given, wherever the race is polled.
#[test]
fn cancel_lost_race_drops_its_futures_outside_a_loop_too() {
    let drops = Drops::new();
    let mut raced = Box::pin(race(never(&drops), ready(7)));
    assert!(poll_outside(raced.as_mut()).is_ready());
    assert_eq!(drops.count(), 1, "the loser is gone");
}

/// A panic of the closure itself, before there was a future, looked as if the core had ended.
#[test]
fn cancel_remote_closure_that_panics_is_told_as_such() {
    let mut event_loop = EventLoop::new().unwrap();
    let make = || {
        assert!(std::hint::black_box(false), "no future");
        ready(1)
    };
    let remote = event_loop.handle().spawn_on(0, make).unwrap();
    let ended = event_loop.block_on(remote);
    assert_eq!(ended, Err(RemoteError::Panicked("no future".into())));
}
