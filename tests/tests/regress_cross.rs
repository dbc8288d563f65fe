//! Ends of channels that outlive a loop: the next loop on a thread bears the same numbers as the last one, and
//! is not mistaken for it. And calls on sharded values that are given up at once.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use coreloop::cross::{self, Sharded, TryRecvError};
use coreloop::{Handle, spawn, yield_now};
use coreloop_tests::drive::Drops;
use coreloop_tests::{poll_once, rest, settled, stepped};

/// A loop promises to send what a poll has put, once in that poll. The next loop has promised nothing yet.
#[test]
fn cross_a_sender_that_outlives_its_loop_is_sent_by_the_next_one() {
    let (mut tx, mut rx) = cross::channel(8);
    for round in [0, 10, 20] {
        // The first value of a poll is sent at once, the second when the poll ends.
        coreloop::run(async { (0..2).for_each(|n| tx.try_send(round + n).unwrap()) }).unwrap();
        assert_eq!([rx.try_recv(), rx.try_recv()], [Ok(round), Ok(round + 1)]);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    }
}

/// A wait that began on one loop and goes on in another is set down there, also if somebody else's wait has the
/// same place and number there that it had.
#[test]
fn cross_a_wait_that_goes_on_in_another_loop_is_woken_there() {
    let (mut tx, mut rx) = cross::channel::<u8>(8);
    let (_other_tx, mut other_rx) = cross::channel::<u8>(8);
    let mut wait = pin!(rx.recv());
    let mut first = stepped();
    assert!(first.block_on(poll_once(wait.as_mut())).is_pending());
    drop(first);
    let mut second = stepped();
    // The first wait of this loop, as the other was of that one.
    let stranger = second.spawn(async move { other_rx.recv().await });
    rest(&mut second);
    let got = second.block_on(async {
        let sends = spawn(async move {
            tx.try_send(7).unwrap();
            // The other end stays, or the wait would end by that.
            std::future::pending::<()>().await;
            drop(tx);
        });
        // Wakes this future in the end, so that a lost wake is a failure and no hang.
        let mut limit = spawn(async {
            for _ in 0..1000 {
                coreloop::yield_now().await;
            }
        });
        let got = poll_fn(|cx| match wait.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready((value, limit.is_finished())),
            Poll::Pending => Pin::new(&mut limit).poll(cx).map(|_| (None, true)),
        })
        .await;
        sends.cancel();
        got
    });
    assert_eq!(got, (Some(7), false), "woken by the value, and not by the limit");
    drop(stranger);
}

/// The end of a wait that began on another loop takes nobody else's out.
#[test]
fn cross_a_wait_that_ends_in_another_loop_takes_no_strangers_place() {
    let (_tx, mut rx) = cross::channel::<u8>(8);
    let (mut other_tx, mut other_rx) = cross::channel::<u8>(8);
    let mut wait = Box::pin(rx.recv());
    let mut first = stepped();
    assert!(first.block_on(poll_once(wait.as_mut())).is_pending());
    drop(first);
    let mut second = stepped();
    let mut stranger = second.spawn(async move { other_rx.recv().await });
    rest(&mut second);
    second.block_on(async { drop(wait) });
    let sender = std::thread::spawn(move || {
        other_tx.try_send(7).unwrap();
        other_tx
    });
    let other_tx = sender.join().unwrap();
    rest(&mut second);
    let got = second.block_on(poll_once(Pin::new(&mut stranger)));
    assert_eq!(got.map(Result::unwrap), Poll::Ready(Some(7)));
    drop(other_tx);
}

/// The call's future and the last clone go right after the call was sent: it runs, and the value goes after it.
#[test]
fn cross_a_sharded_call_that_was_sent_runs_though_the_last_clone_goes() {
    let runs = coreloop::run(async {
        let drops = Drops::new();
        let guards = drops.clone();
        let make = async move |_: usize| guards.guard();
        let values = Sharded::new(&Handle::current(), make).await.unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let ran = runs.clone();
        {
            let mut call = Box::pin(values.on(0, async move |_| {
                ran.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
                ran.fetch_add(1, Ordering::Relaxed);
            }));
            assert!(poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
        }
        drop(values);
        let gone = settled(Duration::from_secs(10), || drops.count() == 1).await;
        assert!(gone, "the value has not gone");
        runs.load(Ordering::Relaxed)
    });
    assert_eq!(runs.unwrap(), 2);
}
