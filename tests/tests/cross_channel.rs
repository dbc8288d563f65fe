//! Channels from core to core: in order, bounded, nothing lost or dropped twice, and an answer to whoever
//! waits when the other end goes.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use coreloop::cross::{self, SendError, TryRecvError, TrySendError};
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Settings, Spin, spawn, yield_now};
use coreloop_tests::drive::Drops;
use coreloop_tests::{ByHand, now, poll_once, two_cores};

const MS: Duration = Duration::from_millis(1);

/// Sends `n` numbers and a word of their sum back.
fn in_order(settings: Settings, capacity: usize, n: u64) {
    let (mut tx, mut rx) = cross::channel(capacity);
    let (sent, got) = two_cores(
        settings,
        move || async move {
            for i in 0..n {
                tx.send(i).await.unwrap();
                if i % 97 == 0 {
                    yield_now().await;
                }
            }
            n
        },
        move || async move {
            let mut expected = 0;
            while let Some(i) = rx.recv().await {
                assert_eq!(i, expected, "capacity {capacity}");
                expected += 1;
            }
            expected
        },
    );
    assert_eq!(sent, got, "capacity {capacity}");
}

#[test]
fn cross_values_arrive_in_order_whatever_the_room() {
    for capacity in [1, 2, 3, 4, 7, 64, 1000] {
        in_order(Settings::default(), capacity, 3_000);
        in_order(Settings::default().spin(Spin::Off), capacity, 3_000);
        in_order(Settings::default().spin(Spin::Fixed(MS)), capacity, 30_000);
    }
}

#[test]
fn cross_there_is_room_for_the_capacity_and_a_quarter_at_most() {
    for capacity in [1, 2, 3, 4, 5, 16, 100, 1024] {
        let (mut tx, mut rx) = cross::channel(capacity);
        let most = capacity + (capacity / 4).clamp(1, 64) - 1;
        let (mut next_in, mut next_out) = (0u64, 0);
        for round in 0..20 {
            while tx.try_send(next_in).is_ok() {
                next_in += 1;
            }
            let queued = (next_in - next_out) as usize;
            assert!((capacity..=most).contains(&queued), "{queued} of {capacity}");
            assert!(matches!(tx.try_send(0), Err(TrySendError::Full(0))));
            for _ in 0..=round % capacity {
                assert_eq!(rx.try_recv(), Ok(next_out));
                next_out += 1;
            }
        }
        drop(tx);
        while next_out < next_in {
            assert_eq!(rx.try_recv(), Ok(next_out));
            next_out += 1;
        }
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    }
}

#[test]
fn cross_a_sender_has_room_as_soon_as_fewer_than_the_capacity_wait() {
    // The receiver takes one value and never looks at the channel again: that one place must be had.
    for capacity in [1, 4, 64, 256] {
        let (mut tx, mut rx) = cross::channel(capacity);
        while tx.try_send(1).is_ok() {}
        let full = { std::iter::from_fn(|| rx.try_recv().ok()).count() };
        for _ in 0..full {
            tx.try_send(2).unwrap();
        }
        let over = full - capacity;
        for _ in 0..=over {
            rx.try_recv().unwrap();
        }
        assert_eq!(tx.try_send(3), Ok(()), "of {capacity}");
    }
}

#[test]
fn cross_every_value_is_dropped_once_wherever_it_is() {
    let drops = Drops::new();
    let (mut tx, mut rx) = cross::channel(8);
    for _ in 0..5 {
        tx.try_send(drops.guard()).unwrap();
    }
    drop(rx.try_recv().unwrap());
    assert_eq!(drops.count(), 1);
    drop(rx);
    assert_eq!(drops.count(), 5, "with the receiver goes what is queued");
    let Err(TrySendError::Closed(back)) = tx.try_send(drops.guard()) else { panic!("it is gone") };
    assert_eq!(drops.count(), 5, "a refused value comes back");
    drop((tx, back));
    assert_eq!(drops.count(), 6);
    let (mut tx, rx) = cross::channel(8);
    tx.try_send(drops.guard()).unwrap();
    drop(tx);
    assert_eq!(drops.count(), 6, "what was sent waits for the receiver");
    drop(rx);
    assert_eq!(drops.count(), 7);
}

#[test]
fn cross_values_of_one_poll_are_dropped_once_also_if_the_receiver_goes_before_its_end() {
    let drops = Drops::new();
    let guards: Vec<_> = (0..7).map(|_| drops.guard()).collect();
    let (mut tx, rx) = cross::channel(64);
    let mut rx = Some(rx);
    let counted = drops.clone();
    coreloop::run(async move {
        for (i, guard) in guards.into_iter().enumerate() {
            if i == 5 {
                drop(rx.take());
            }
            assert_eq!(tx.try_send(guard).is_err(), i >= 5);
        }
        yield_now().await;
        assert_eq!(counted.count(), 7, "also those that were put and not yet handed over");
        tx.is_closed()
    })
    .unwrap();
}

#[test]
fn cross_whoever_waits_is_answered_when_the_other_end_goes() {
    let (tx, mut rx) = cross::channel::<u8>(1);
    let waits = ByHand::pending(rx.recv());
    drop(tx);
    assert!(waits.woken());
    assert_eq!(waits.finish(), None);

    let (mut tx, rx) = cross::channel(1);
    now(tx.send(1)).unwrap();
    let mut waits = ByHand::pending(tx.send(2));
    drop(rx);
    assert!(waits.woken());
    assert_eq!(waits.poll(), Some(Err(SendError(2))), "the value comes back");
    drop(waits);
    assert_eq!(now(tx.ready()), Err(SendError(())));
    assert!(tx.is_closed());
}

#[test]
fn cross_whoever_waits_on_a_core_is_answered_when_the_other_core_ends() {
    let (mut tx, mut rx) = cross::channel(2);
    let (mut back_tx, mut back_rx) = cross::channel::<u8>(2);
    let full = Arc::new(AtomicBool::new(false));
    let seen = full.clone();
    let other = thread::spawn(move || {
        let mut event_loop = EventLoop::new().unwrap();
        drop(event_loop.spawn(async move {
            // It takes one, and holds both ends for ever.
            rx.recv().await.unwrap();
            std::future::pending::<()>().await;
            drop((rx, back_tx.try_send(0)));
        }));
        event_loop.block_on(async {
            for _ in 0..60_000 {
                if seen.load(Ordering::SeqCst) {
                    break;
                }
                sleep(MS).await;
            }
            sleep(20 * MS).await;
        });
    });
    coreloop::run(async move {
        let receives = spawn(async move { back_rx.recv().await });
        let mut sent = 0;
        while tx.send(sent).await.is_ok() {
            sent += 1;
            full.store(sent >= 3, Ordering::SeqCst);
        }
        assert!(sent >= 3, "room for two, and one was taken: {sent}");
        assert_eq!(receives.await.unwrap(), None);
    })
    .unwrap();
    other.join().unwrap();
}

#[test]
fn cross_a_dropped_future_has_done_nothing() {
    coreloop::run(async {
        let (mut tx, mut rx) = cross::channel(1);
        {
            let mut receives = pin!(rx.recv());
            assert!(poll_once(receives.as_mut()).await.is_pending());
        }
        tx.send(1).await.unwrap();
        {
            let mut sends = pin!(tx.send(2));
            assert!(poll_once(sends.as_mut()).await.is_pending());
        }
        assert_eq!(rx.recv().await, Some(1));
        assert!(timeout(MS, rx.recv()).await.is_err(), "2 was never sent");
        tx.send(3).await.unwrap();
        assert_eq!(rx.recv().await, Some(3));
    })
    .unwrap();
}

/// A future that is forgotten leaves its task set down as the one that waits.
#[test]
fn cross_a_forgotten_future_harms_nobody() {
    coreloop::run(async {
        let (mut tx, mut rx) = cross::channel(1);
        let forgets = async |rx: &mut cross::Receiver<u32>| {
            let mut receives = rx.recv();
            assert!(poll_once(pin!(&mut receives)).await.is_pending());
            std::mem::forget(receives);
        };
        forgets(&mut rx).await;
        // The entry that was left behind is for a position that has long gone by.
        for i in 0..10 {
            tx.try_send(i).unwrap();
            tx.flush();
            assert_eq!(rx.try_recv(), Ok(i));
        }
        let sends = spawn(async move {
            yield_now().await;
            tx.send(77).await.unwrap();
            tx
        });
        assert_eq!(timeout(Duration::from_secs(10), rx.recv()).await.unwrap(), Some(77));
        forgets(&mut rx).await;
        // On another core than the entry.
        let mut tx = sends.await.unwrap();
        let other = thread::spawn(move || coreloop::run(async move { rx.recv().await }).unwrap());
        sleep(5 * MS).await;
        tx.send(78).await.unwrap();
        assert_eq!(other.join().unwrap(), Some(78));
    })
    .unwrap();
}

#[test]
fn cross_what_one_poll_sends_is_handed_over_when_it_ends() {
    coreloop::run(async {
        let (mut tx, mut rx) = cross::channel(64);
        for i in 0..3 {
            tx.try_send(i).unwrap();
        }
        assert_eq!((rx.try_recv(), rx.try_recv()), (Ok(0), Err(TryRecvError::Empty)));
        tx.flush();
        assert_eq!((rx.try_recv(), rx.try_recv()), (Ok(1), Ok(2)));
        tx.try_send(3).unwrap();
        yield_now().await;
        assert_eq!(rx.try_recv(), Ok(3));
        for i in 0..50 {
            tx.try_send(i).unwrap();
        }
        assert_eq!(std::iter::from_fn(|| rx.try_recv().ok()).count(), 33, "1 at once, 32 together");
    })
    .unwrap();
}

#[test]
fn cross_an_end_may_be_moved_in_the_middle_of_a_poll() {
    for _ in 0..200 {
        let (mut tx, mut rx) = cross::channel(64);
        let other = coreloop::run(async move {
            for i in 0..8 {
                tx.try_send(i).unwrap();
            }
            // Some of it is to be sent by this core when the poll ends, and the sender is in use by then.
            thread::spawn(move || {
                for i in 8..64 {
                    tx.try_send(i).unwrap();
                }
            })
        });
        for i in 0..64 {
            while rx.is_empty() {
                std::hint::spin_loop();
            }
            assert_eq!(rx.try_recv(), Ok(i));
        }
        other.unwrap().join().unwrap();
    }
}

#[test]
fn cross_more_tasks_than_are_watched_for_wait_by_their_wakers() {
    const TASKS: usize = 200;
    let ends: Vec<_> = (0..TASKS).map(|_| cross::channel(1)).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
    let got = Arc::new(AtomicUsize::new(0));
    let counted = got.clone();
    two_cores(
        Settings::default(),
        move || async move {
            let tasks = receivers.into_iter().map(|mut rx| {
                let got = counted.clone();
                spawn(async move {
                    while let Some(n) = rx.recv().await {
                        got.fetch_add(n, Ordering::Relaxed);
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        },
        move || async move {
            let tasks = senders.into_iter().map(|mut tx| {
                spawn(async move {
                    for n in 0..20 {
                        tx.send(n).await.unwrap();
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        },
    );
    assert_eq!(got.load(Ordering::Relaxed), TASKS * 190);
}

#[test]
fn cross_values_whose_destructors_panic_harm_nobody() {
    struct Bomb(Drops);
    impl Drop for Bomb {
        fn drop(&mut self) {
            drop(self.0.guard());
            panic!("as every time");
        }
    }
    let drops = Drops::new();
    let (mut tx, rx) = cross::channel(8);
    for _ in 0..4 {
        assert!(tx.try_send(Bomb(drops.clone())).is_ok());
    }
    drop(rx);
    assert_eq!(drops.count(), 4);
    assert!(tx.is_closed());
}

#[test]
#[should_panic = "room for 1 to 1073741824 values, not 0"]
fn cross_no_room_at_all_is_refused() {
    drop(cross::channel::<u8>(0));
}

#[test]
#[should_panic = "room for 1 to 1073741824 values, not 18446744073709551615"]
fn cross_more_room_than_can_be_is_refused() {
    drop(cross::channel::<u8>(usize::MAX));
}
