//! One-shot, mpsc, broadcast and watch: what arrives, what each end learns of the other, cancels on the way.

use std::rc::Rc;

use coreloop::spawn;
use coreloop::sync::mpsc::TrySendError;
use coreloop::sync::{broadcast, mpsc, oneshot, watch};
use coreloop_tests::drive::Drops;
use coreloop_tests::{ByHand, now, turns};

#[test]
fn oneshot_arrives_before_and_after_the_wait_begins() {
    let (tx, rx) = oneshot::channel();
    let mut rx = ByHand::pending(rx);
    assert!(rx.poll_anew().is_none());
    tx.send(1).unwrap();
    assert_eq!(rx.finish(), Ok(1));
    let (tx, mut rx) = oneshot::channel();
    assert_eq!(rx.try_recv(), Err(oneshot::TryRecvError::Empty));
    tx.send(2).unwrap();
    assert_eq!(now(&mut rx), Ok(2));
    assert!(now(rx).is_err(), "it was taken");
}

#[test]
fn oneshot_each_end_learns_that_the_other_is_gone() {
    let (tx, rx) = oneshot::channel::<u8>();
    let rx = ByHand::pending(rx);
    drop(tx);
    assert!(rx.finish().is_err());
    let (mut tx, rx) = oneshot::channel::<u8>();
    let mut closed = ByHand::pending(tx.closed());
    assert!(closed.poll_anew().is_none());
    drop(rx);
    closed.finish();
    assert_eq!(tx.send(3), Err(3));
    // Closed, yet what was sent before is there.
    let (tx, mut rx) = oneshot::channel();
    tx.send(4).unwrap();
    rx.close();
    assert_eq!(now(&mut rx), Ok(4));
    let drops = Drops::new();
    let (tx, rx) = oneshot::channel();
    tx.send(drops.guard()).unwrap();
    drop(rx);
    assert_eq!(drops.count(), 1);
}

#[test]
fn mpsc_senders_take_turns_when_it_is_full() {
    let (tx, mut rx) = mpsc::channel(1);
    now(tx.send(0)).unwrap();
    assert_eq!(tx.try_send(9), Err(TrySendError::Full(9)));
    let other = tx.clone();
    let (a, b) = (ByHand::pending(tx.send(1)), ByHand::pending(other.send(2)));
    assert_eq!(rx.try_recv(), Ok(0));
    drop(a);
    b.finish().unwrap();
    assert_eq!((now(rx.recv()), rx.len(), tx.capacity()), (Some(2), 0, 1));
}

#[test]
fn mpsc_a_cancelled_receive_takes_nothing() {
    let (tx, mut rx) = mpsc::unbounded_channel();
    let waiting = ByHand::pending(rx.recv());
    tx.try_send(1).unwrap();
    tx.try_send(2).unwrap();
    assert!(waiting.woken());
    drop(waiting);
    assert_eq!((now(rx.recv()), now(rx.recv())), (Some(1), Some(2)));
}

#[test]
fn mpsc_ends_when_the_last_sender_goes() {
    let (tx, mut rx) = mpsc::channel(2);
    let other = tx.clone();
    other.try_send(1).unwrap();
    drop(tx);
    assert_eq!(now(rx.recv()), Some(1));
    let waiting = ByHand::pending(rx.recv());
    drop(other);
    assert_eq!(waiting.finish(), None);
    assert_eq!(rx.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn mpsc_the_receivers_end_reaches_senders_and_values() {
    let drops = Drops::new();
    let (tx, rx) = mpsc::channel(1);
    tx.try_send(drops.guard()).unwrap();
    let waiting = ByHand::pending(tx.send(drops.guard()));
    drop(rx);
    assert_eq!(drops.count(), 1, "what was in it");
    drop(waiting.finish().unwrap_err().0);
    assert!(tx.is_closed());
    assert!(matches!(tx.try_send(drops.guard()), Err(TrySendError::Closed(_))));
    assert_eq!(drops.count(), 3);
}

#[test]
fn mpsc_a_permit_had_before_the_close_still_sends() {
    let (tx, mut rx) = mpsc::channel(2);
    let permit = now(tx.reserve()).unwrap();
    let unused = tx.try_reserve().unwrap();
    assert_eq!(tx.try_reserve().unwrap_err(), TrySendError::Full(()));
    rx.close();
    assert!(now(tx.send(9)).is_err());
    let mut waiting = ByHand::pending(rx.recv());
    permit.send(1);
    assert_eq!(waiting.poll(), Some(Some(1)));
    drop(waiting);
    let waiting = ByHand::pending(rx.recv());
    drop(unused);
    assert_eq!(waiting.finish(), None);
    // A permit after the receiver has gone: the value is dropped.
    let drops = Drops::new();
    let (tx, rx) = mpsc::channel(1);
    let permit = now(tx.reserve()).unwrap();
    drop(rx);
    permit.send(drops.guard());
    assert_eq!(drops.count(), 1);
}

/// A place that is promised and not yet taken up is no permit: the receiver, once it has been told that nothing
/// more comes, would never get what is sent into it.
#[test]
fn mpsc_a_place_promised_before_the_close_is_no_permit_after_it() {
    let (tx, mut rx) = mpsc::channel(1);
    tx.try_send(1).unwrap();
    let reserving = ByHand::pending(tx.reserve());
    assert_eq!(now(rx.recv()), Some(1));
    // The place is promised; whoever waits for it has not run yet.
    rx.close();
    assert_eq!(now(rx.recv()), None);
    assert!(reserving.finish().is_err());
}

#[test]
fn mpsc_a_cancelled_sender_task_drops_its_value() {
    coreloop::run(async {
        let drops = Drops::new();
        let (tx, mut rx) = mpsc::channel(1);
        tx.send(None).await.unwrap();
        let (value, other) = (drops.guard(), tx.clone());
        let task = spawn(async move { other.send(Some(value)).await.is_ok() });
        turns(2).await;
        task.cancel();
        assert!(task.await.unwrap_err().is_cancelled());
        drop(tx);
        assert_eq!(drops.count(), 1);
        assert!(rx.recv().await.unwrap().is_none() && rx.recv().await.is_none());
    })
    .unwrap();
}

#[test]
fn broadcast_tells_who_lags_how_many_were_lost() {
    let (tx, mut a) = broadcast::channel(3);
    let mut b = tx.subscribe();
    for n in 0..10 {
        assert_eq!(tx.send(n), Ok(2));
        assert_eq!(now(a.recv()), Ok(n));
    }
    assert_eq!((b.len(), tx.len()), (10, 3));
    assert_eq!(b.try_recv(), Err(broadcast::TryRecvError::Lagged(7)));
    assert_eq!((now(b.recv()), now(b.recv()), now(b.recv())), (Ok(7), Ok(8), Ok(9)));
    assert_eq!(b.try_recv(), Err(broadcast::TryRecvError::Empty));
    assert!(tx.is_empty() && b.is_empty());
}

#[test]
fn broadcast_wakes_all_and_keeps_values_no_longer_than_needed() {
    let drops = Drops::new();
    let (tx, mut a) = broadcast::channel(8);
    let (mut b, mut late) = (a.resubscribe(), tx.subscribe());
    let (x, y) = (ByHand::pending(a.recv()), ByHand::pending(b.recv()));
    tx.send(Rc::new(drops.guard())).unwrap();
    drop((x.finish(), y.finish()));
    assert_eq!(drops.count(), 0, "one has still to get it");
    drop(now(late.recv()));
    assert_eq!(drops.count(), 1);
    // A receiver that goes needs none any more.
    tx.send(Rc::new(drops.guard())).unwrap();
    drop((now(a.recv()), now(b.recv())));
    drop(late);
    assert_eq!(drops.count(), 2);
    drop((a, b));
    assert!(tx.send(Rc::new(drops.guard())).is_err());
}

#[test]
fn broadcast_a_cancelled_receive_takes_nothing_and_the_end_is_told() {
    let (tx, mut rx) = broadcast::channel(2);
    let waiting = ByHand::pending(rx.recv());
    tx.send(1).unwrap();
    drop(waiting);
    assert_eq!(now(rx.recv()), Ok(1));
    let waiting = ByHand::pending(rx.recv());
    drop(tx.clone());
    assert!(!waiting.woken());
    drop(tx);
    assert_eq!(waiting.finish(), Err(broadcast::RecvError::Closed));
}

#[test]
fn watch_shows_the_latest_value() {
    let (tx, mut rx) = watch::channel(0);
    assert_eq!(rx.has_changed(), Ok(false));
    let waiting = ByHand::pending(rx.changed());
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    waiting.finish().unwrap();
    assert_eq!((*rx.borrow(), rx.has_changed()), (2, Ok(false)));
    // A cancelled wait has seen nothing.
    let waiting = ByHand::pending(rx.changed());
    tx.send_modify(|n| *n += 1);
    drop(waiting);
    now(rx.changed()).unwrap();
    assert!(!tx.send_if_modified(|_| false));
    let waiting = ByHand::pending(rx.wait_for(|n| *n == 5));
    tx.send(4).unwrap();
    let mut waiting = waiting;
    assert!(waiting.woken() && waiting.poll().is_none());
    tx.send(5).unwrap();
    assert_eq!(*waiting.finish().unwrap(), 5);
}

#[test]
fn watch_snapshots_outlive_later_values_and_ends_are_told() {
    let (tx, mut rx) = watch::channel(String::from("a"));
    let (old, mut clone) = (rx.borrow(), rx.clone());
    tx.send("b".into()).unwrap();
    assert_eq!((old.as_str(), rx.borrow().as_str()), ("a", "b"));
    assert_eq!(*tx.send_replace("c".into()), "b");
    // A change that panics, and one that uses the channel.
    let change = std::panic::AssertUnwindSafe(|| tx.send_modify(|_| panic!("no")));
    assert!(std::panic::catch_unwind(change).is_err());
    tx.send_modify(|s| s.push_str(&tx.borrow()));
    assert_eq!(*rx.borrow_and_update(), "cc");
    assert_eq!(*clone.borrow_and_update(), "cc");
    let (closed, waiting) = (ByHand::pending(tx.closed()), ByHand::pending(clone.changed()));
    drop(rx);
    assert!(!closed.woken() && !waiting.woken());
    drop(waiting);
    drop(clone);
    closed.finish();
    assert_eq!(tx.send("d".into()).unwrap_err().0, "d");
    let mut rx = tx.subscribe();
    let waiting = ByHand::pending(rx.changed());
    drop(tx);
    assert!(waiting.finish().is_err());
}
