//! loom's models of the queue from one thread to one other, with who waits at its ends.
//!
//! What must hold here is broken on purpose, one thing at a time, by `tests/loom_breaks.sh`, which wants
//! one of these to find it. `docs/TESTING.md` says which breaks have been seen to be found.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::cell::{CoreCell, Lease};
use super::ring::{Consumer, NotPut, Producer, ring};
use super::unsent::SendLater;
use super::watch::{End, Watched};
use crate::sys::model::thread;
use crate::sys::modelled::{block_on, boot, check, sleep};
use crate::sys::shared::{AtomicUsize, Ordering};

/// Takes the next value, with a waker.
fn take<T>(consumer: &mut Consumer<T>) -> Option<T> {
    block_on(poll_fn(|cx| {
        if let Some(value) = consumer.take() {
            return Poll::Ready(Some(value));
        }
        if consumer.is_gone() {
            return Poll::Ready(consumer.take());
        }
        consumer.waiter().set_waker(cx.waker().clone());
        if !consumer.looks_again() {
            return Poll::Pending;
        }
        consumer.waiter().clear();
        Poll::Ready(consumer.take())
    }))
}

/// Puts and sends a value, with a waker; `false` if the consumer has gone.
fn put<T>(producer: &mut Producer<T>, value: T) -> bool {
    let mut value = Some(value);
    block_on(poll_fn(|cx| {
        loop {
            match producer.put(value.take().expect("it is put once")) {
                Ok(()) => return Poll::Ready(producer.send().is_none()),
                Err(NotPut::Gone(_)) => return Poll::Ready(false),
                Err(NotPut::Full(back)) => value = Some(back),
            }
            producer.waiter().set_waker(cx.waker().clone());
            if !producer.looks_again() {
                return Poll::Pending;
            }
            producer.waiter().clear();
        }
    }))
}

/// Says how often it was dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn loom_ring_values_come_in_order_and_each_end_wakes_the_other() {
    check(3, || {
        let (mut producer, mut consumer) = ring(1);
        let sender = thread::spawn(move || {
            for n in 0..3 {
                assert!(put(&mut producer, Box::new(n)));
            }
        });
        for n in 0..3 {
            assert_eq!(take(&mut consumer), Some(Box::new(n)));
        }
        assert_eq!(take(&mut consumer), None);
        sender.join().unwrap();
    });
}

#[test]
fn loom_ring_values_sent_together_come_together() {
    check(3, || {
        let (mut producer, mut consumer) = ring(8);
        let sender = thread::spawn(move || {
            assert_eq!(producer.put_from(&mut (0..3)), 3);
        });
        for n in 0..3 {
            assert_eq!(take(&mut consumer), Some(n));
        }
        assert_eq!(take(&mut consumer), None);
        sender.join().unwrap();
    });
}

#[test]
fn loom_ring_what_two_cores_send_is_sent_once() {
    check(2, || {
        let (mut producer, mut consumer) = ring(8);
        producer.put(0).unwrap();
        // The producer goes to another core, and the one that it came from sends what it had promised.
        let promised: Arc<dyn SendLater> = producer.later();
        let old = thread::spawn(move || promised.send_now());
        let new = thread::spawn(move || {
            producer.put(1).unwrap();
            assert_eq!(producer.send(), None);
        });
        for n in 0..2 {
            assert_eq!(take(&mut consumer), Some(n));
        }
        [old, new].into_iter().for_each(|core| core.join().unwrap());
    });
}

/// How far the values of the core that the producer came from were sent is known to the new one, also when
/// their slots are used again: it stamps none of them a second time.
#[test]
fn loom_ring_what_another_core_sent_is_not_sent_again() {
    check(2, || {
        let (mut producer, mut consumer) = ring(1);
        producer.put(0).unwrap();
        let promised: Arc<dyn SendLater> = producer.later();
        let old = thread::spawn(move || promised.send_now());
        let new = thread::spawn(move || assert!(put(&mut producer, 1)));
        for n in 0..2 {
            assert_eq!(take(&mut consumer), Some(n));
        }
        assert_eq!(take(&mut consumer), None);
        [old, new].into_iter().for_each(|core| core.join().unwrap());
    });
}

#[test]
fn loom_ring_every_value_is_taken_or_dropped_once_when_the_consumer_goes() {
    check(3, || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (mut producer, mut consumer) = ring(2);
        let sender = thread::spawn({
            let dropped = dropped.clone();
            move || {
                for _ in 0..2 {
                    put(&mut producer, Counted(dropped.clone()));
                }
                producer
            }
        });
        drop(consumer.take());
        drop(consumer);
        // Nothing is left in a queue that nobody reads, also while the producer lives on.
        let producer = sender.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        drop(producer);
    });
}

#[test]
fn loom_ring_a_refused_value_comes_back_or_was_taken() {
    check(3, || {
        let (mut producer, mut consumer) = ring(1);
        let sender = thread::spawn(move || match producer.put(Box::new(1)) {
            Ok(()) => producer.send().is_none(),
            Err(_) => false,
        });
        let taken = consumer.take().is_some();
        drop(consumer);
        let sent = sender.join().unwrap();
        // It may have been sent and swept by the consumer, but not taken and given back.
        assert!(sent || !taken);
    });
}

#[test]
fn loom_ring_both_ends_may_go_at_a_time() {
    check(3, || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let (mut producer, consumer) = ring(2);
        let counted = Counted(dropped.clone());
        producer.put(counted).map_err(|_| ()).unwrap();
        let promised: Arc<dyn SendLater> = producer.later();
        let sender = thread::spawn(move || drop(producer));
        let old = thread::spawn(move || promised.send_now());
        drop(consumer);
        [sender, old].into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn loom_ring_a_full_queue_whose_consumer_goes_wakes_the_producer() {
    check(3, || {
        let (mut producer, consumer) = ring(1);
        assert!(put(&mut producer, 0));
        let sender = thread::spawn(move || while put(&mut producer, 1) {});
        drop(consumer);
        sender.join().unwrap();
    });
}

fn cores() -> [&'static CoreCell; 2] {
    boot();
    [(); 2].map(|()| {
        let lease = std::mem::ManuallyDrop::new(Lease::take().expect("a core is free"));
        lease.cell.map.reserve(1);
        lease.open(0, None);
        lease.cell
    })
}

/// Sends one value.
fn sent(mut producer: Producer<u8>) -> Producer<u8> {
    producer.put(7).unwrap();
    assert_eq!(producer.send(), None);
    producer
}

/// Waits as a core does for a task that it watches for: by looks while it runs, and parked else.
fn watch(cell: &CoreCell, is_due: impl Fn() -> bool) {
    loop {
        let mut woken = is_due();
        if cell.take_post() {
            cell.map.drain(|_| woken = true);
        }
        if woken {
            return;
        }
        cell.park();
        if !is_due() && !cell.has_post() {
            sleep();
        }
        cell.unparked();
    }
}

#[test]
fn loom_watch_a_parked_core_is_woken_for_values_and_for_the_end() {
    check(3, || {
        let [cell, _] = cores();
        let (producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || drop(sent(producer)));
        let ring: Arc<dyn Watched> = consumer.watched();
        let mut taken = 0;
        loop {
            match consumer.take() {
                Some(_) => taken += 1,
                None if consumer.is_gone() => {
                    taken += usize::from(consumer.take().is_some());
                    break;
                }
                None => {
                    let at = consumer.awaits();
                    consumer.waiter().set_watched(0, 0);
                    if !consumer.looks_again() {
                        watch(cell, || ring.is_due(End::Receiver, at));
                    }
                    consumer.waiter().clear();
                }
            }
        }
        assert_eq!(taken, 1);
        sender.join().unwrap();
    });
}

#[test]
fn loom_watch_a_parked_core_is_woken_for_room() {
    check(3, || {
        let [cell, _] = cores();
        let (mut producer, mut consumer) = ring(1);
        producer.put(0).unwrap();
        assert_eq!(producer.send(), None);
        let receiver = thread::spawn(move || {
            assert_eq!(consumer.take(), Some(0));
            consumer
        });
        let ring: Arc<dyn Watched> = producer.watched();
        while producer.room() == 0 {
            let at = producer.awaits();
            producer.waiter().set_watched(0, 0);
            if !producer.looks_again() {
                watch(cell, || ring.is_due(End::Sender, at));
            }
            producer.waiter().clear();
        }
        drop(receiver.join().unwrap());
    });
}

/// Who sends asks first which core has watched last.
#[test]
fn loom_watch_who_goes_on_to_another_core_is_woken_there() {
    check(3, || {
        let [_, cell] = cores();
        let (producer, mut consumer) = ring(2);
        let sender = thread::spawn(move || sent(producer));
        let ring: Arc<dyn Watched> = consumer.watched();
        let mut core = 0;
        while consumer.take().is_none() {
            let at = consumer.awaits();
            consumer.waiter().set_watched(core, 0);
            // On the first core it gives up before that sleeps.
            if !consumer.looks_again() && core == 1 {
                watch(cell, || ring.is_due(End::Receiver, at));
            }
            consumer.waiter().clear();
            core = 1;
        }
        drop(sender.join().unwrap());
    });
}
