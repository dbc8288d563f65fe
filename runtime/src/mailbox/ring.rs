//! A bounded queue from one thread to one other.
//!
//! Owns [`Ring`] and its two ends, [`Producer`] and [`Consumer`]. Positions count up from 0; slot `p` holds
//! the value of position `p` while its stamp is `p + 1`. So a value and the news of it are one cache line
//! for a small value, and neither end reads a counter of the other but when it seems to be full:
//! ```text
//! slot:  stamp < p + 1  --put, sent-->  stamp = p + 1  --taken, head told-->  free for p + size
//! ```
//! - A value that was put is sent when its stamp is set, which may be later, with others: backwards, so that
//!   the consumer finds them all at once and does not take the cache line from under the producer after each.
//!   Whoever promised to send them does so under a small lock, since the producer may have moved on to
//!   another core meanwhile, which then sends them too.
//! - The consumer tells how far it came only every `tell_every` values, and when it finds nothing. That many
//!   slots are there beyond the capacity, so it holds up nobody for whom there is room.
//! - The end that goes says so and wakes the other. What is still queued when the consumer goes, or comes
//!   while it does, is swept by whichever of the two sees it; one at a time, who unlocks looks again. So
//!   every value is taken or dropped, once, and none lies in a queue that nobody will read.
//! - A producer whose value was the last one and is swept by itself gets it back.
//! - Each wait of an end, and each promise to send, holds the queue for a while. One count of that for both
//!   ends would go back and forth between the two cores: the producer's holds are counted apart ([`Hold`]).

use std::sync::Arc;

use super::unsent::SendLater;
use super::waiter::{Now, Waiter, Watcher};
use super::watch::{End, Watched};
use crate::contain::contained;
use crate::sys::prefetch::prefetch_to_write;
use crate::sys::shared::{
    AtomicBool, AtomicUsize, LOOK, Ordering, Place, give_way, publish, publish_bool, spin,
    store_bool,
};

/// A cache line of its own, and its neighbour, which processors fetch with it.
#[repr(align(128))]
struct Line<T>(T);

struct Slot<T> {
    stamp: AtomicUsize,
    value: Place<T>,
}

/// How far the producer is.
struct Put {
    /// Values put, and values of those that were sent.
    tail: AtomicUsize,
    sent: AtomicUsize,
    sending: AtomicBool,
}

pub(crate) struct Ring<T> {
    put: Line<Put>,
    /// Values that the consumer has told to have taken.
    head: Line<AtomicUsize>,
    consumer_waits: Line<Now>,
    producer_waits: Line<Now>,
    // What follows hardly changes: the other core has it in its cache too.
    consumer_watcher: Watcher,
    producer_watcher: Watcher,
    consumer_gone: AtomicBool,
    producer_gone: AtomicBool,
    sweeping: AtomicBool,
    slots: Box<[Slot<T>]>,
    /// Values that may be queued as far as the producer knows.
    room: usize,
    tell_every: usize,
}

/// What holds the queue for the producer: its count lies on another cache line than the queue's own.
#[repr(align(64))]
struct Hold<T>(Arc<Ring<T>>);

/// The end that puts. One thread at a time.
pub(crate) struct Producer<T> {
    ring: Arc<Ring<T>>,
    hold: Arc<Hold<T>>,
    tail: usize,
    head_seen: usize,
}

/// The end that takes. One thread at a time.
pub(crate) struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    told: usize,
}

/// Why a value was not put.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotPut<T> {
    Full(T),
    Gone(T),
}

/// A ring for at least `capacity` values, which is not zero.
pub(crate) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let tell_every = (capacity / 4).clamp(1, TELL_EVERY_MAX);
    let room = capacity + (tell_every - 1);
    let slots = (0..room.next_power_of_two())
        .map(|_| Slot { stamp: AtomicUsize::new(0), value: Place::new() })
        .collect();
    let put = Put {
        tail: AtomicUsize::new(0),
        sent: AtomicUsize::new(0),
        sending: AtomicBool::new(false),
    };
    let ring = Arc::new(Ring {
        put: Line(put),
        head: Line(AtomicUsize::new(0)),
        consumer_waits: Line(Now::nobody()),
        producer_waits: Line(Now::nobody()),
        consumer_watcher: Watcher::nobody(),
        producer_watcher: Watcher::nobody(),
        consumer_gone: AtomicBool::new(false),
        producer_gone: AtomicBool::new(false),
        sweeping: AtomicBool::new(false),
        slots,
        room,
        tell_every,
    });
    let hold = Arc::new(Hold(ring.clone()));
    let producer = Producer { ring: ring.clone(), hold, tail: 0, head_seen: 0 };
    (producer, Consumer { ring, head: 0, told: 0 })
}

/// Looks at a lock before its holder is given time to run.
const ROUNDS: u32 = 64;

/// Values of an iterator that are sent together.
const SEND_AT: usize = 64;

/// How many slots before its use one is asked for.
const FETCH_AHEAD: usize = 32;

/// Values taken between two tellings, at most.
const TELL_EVERY_MAX: usize = 64;

impl<T> Ring<T> {
    /// Who waits for a value.
    #[inline]
    fn consumer(&self) -> Waiter<'_> {
        Waiter { watcher: &self.consumer_watcher, now: &self.consumer_waits.0 }
    }

    /// Who waits for room.
    #[inline]
    fn producer(&self) -> Waiter<'_> {
        Waiter { watcher: &self.producer_watcher, now: &self.producer_waits.0 }
    }

    #[inline]
    fn slot(&self, position: usize) -> &Slot<T> {
        // Its length is a power of two.
        &self.slots[position & (self.slots.len() - 1)]
    }

    #[inline]
    fn holds(&self, position: usize, order: Ordering) -> bool {
        self.slot(position).stamp.load(order) == position.wrapping_add(1)
    }

    /// Sends what was put; whether the consumer has gone, and whoever asked has to sweep.
    #[inline]
    fn send(&self) -> bool {
        let put = &self.put.0;
        let mut rounds = 0u32;
        while put.sending.swap(true, Ordering::Acquire) {
            // The core that the producer came from is about to send the rest: a few stores, unless the
            // system has just put its thread aside.
            rounds += 1;
            if rounds.is_multiple_of(ROUNDS) { give_way() } else { spin() }
        }
        let sent = put.sent.load(Ordering::Relaxed);
        let tail = put.tail.load(Ordering::Acquire);
        // The lock brought `sent`, and with it the `tail` that it was. An older `tail` would have every
        // slot stamped, round and round.
        debug_assert!(tail.wrapping_sub(sent) <= self.room, "sent {sent} of {tail} that were put");
        if sent != tail {
            let mut at = tail.wrapping_sub(1);
            while at != sent {
                self.slot(at).stamp.store(at.wrapping_add(1), Ordering::Release);
                at = at.wrapping_sub(1);
            }
            // The consumer, if it waits, waits for this one.
            publish(&self.slot(sent).stamp, sent.wrapping_add(1));
            put.sent.store(tail, Ordering::Relaxed);
        }
        store_bool(&put.sending, false, Ordering::Release);
        self.consumer().published();
        self.consumer_gone.load(LOOK)
    }

    /// Drops what is queued, after the consumer has gone; the value of `own`, if it is among it, comes back.
    #[cold]
    fn sweep(&self, own: Option<usize>) -> Option<T> {
        let mut swept = Vec::new();
        let mut back = None;
        loop {
            // SeqCst here, at the unlock and at the look after it, as the news of a value is: who finds it
            // locked is seen by the one that unlocks.
            if self.sweeping.swap(true, Ordering::SeqCst) {
                break;
            }
            let mut head = self.head.0.load(Ordering::Relaxed);
            while self.holds(head, Ordering::Acquire) {
                // SAFETY: a stamped value that nobody has taken: the consumer is gone, only one sweeps at a
                // time, and `head` says how far the ones before came.
                let value = unsafe { self.slot(head).value.take() };
                if own == Some(head) {
                    back = Some(value);
                } else {
                    swept.push(value);
                }
                head = head.wrapping_add(1);
                // The producer may not know yet that the consumer has gone, and put the next one in there.
                self.head.0.store(head, Ordering::Release);
            }
            publish_bool(&self.sweeping, false);
            if !self.holds(head, LOOK) {
                break;
            }
        }
        // Someone else's code, with nothing held.
        for value in swept {
            contained(|| drop(value));
        }
        back
    }
}

impl<T> Producer<T> {
    /// Room for how many values there is, as far as it is known; asks only if there seems to be none.
    #[inline]
    pub(crate) fn room(&mut self) -> usize {
        let used = self.tail.wrapping_sub(self.head_seen);
        if used < self.ring.room {
            return self.ring.room - used;
        }
        self.head_seen = self.ring.head.0.load(Ordering::Acquire);
        self.ring.room - self.tail.wrapping_sub(self.head_seen)
    }

    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        self.ring.consumer_gone.load(Ordering::Relaxed)
    }

    /// Puts a value, which is sent later.
    #[inline]
    pub(crate) fn put(&mut self, value: T) -> Result<(), NotPut<T>> {
        if self.is_gone() {
            return Err(NotPut::Gone(value));
        }
        if self.room() == 0 {
            return Err(NotPut::Full(value));
        }
        // SAFETY: there is room, so the consumer has taken what was in here and told so, and does not look
        // at it before the stamp says that there is a value.
        unsafe { self.ring.slot(self.tail).value.put(value) };
        self.fetch_ahead();
        self.tail = self.tail.wrapping_add(1);
        self.ring.put.0.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Asks for a slot that will be used soon. The consumer has read it last, a round ago: each line
    /// that has to come from its cache when a value is written keeps the producer for as long as many
    /// values take.
    #[inline]
    fn fetch_ahead(&self) {
        // Not one that the consumer may be about to read.
        if self.tail.wrapping_sub(self.head_seen) + FETCH_AHEAD < self.ring.slots.len() {
            prefetch_to_write(self.ring.slot(self.tail.wrapping_add(FETCH_AHEAD)));
        }
    }

    /// Values that were put and not sent.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        self.tail.wrapping_sub(self.ring.put.0.sent.load(Ordering::Relaxed))
    }

    /// Sends what was put, and wakes the consumer if it sleeps for that. If it has gone, and the value that
    /// was put last was not taken, that comes back.
    #[inline]
    pub(crate) fn send(&mut self) -> Option<T> {
        if self.ring.send() { self.ring.sweep(Some(self.tail.wrapping_sub(1))) } else { None }
    }

    /// Puts values of `from` while there are some and there is room, and sends them. How many; those that
    /// the consumer no longer took are dropped.
    pub(crate) fn put_from(&mut self, from: &mut dyn Iterator<Item = T>) -> usize {
        let began = self.tail;
        let batch = Batch { producer: self };
        // Asked before a value is taken from `from`, which could not be given back.
        while !batch.producer.is_gone()
            && batch.producer.room() > 0
            && let Some(value) = from.next()
        {
            if batch.producer.put(value).is_err() {
                // It has gone since it was asked, which is as good as sent and dropped with it.
                break;
            }
            if batch.producer.unsent() >= SEND_AT {
                batch.producer.ring.send();
            }
        }
        drop(batch);
        self.tail.wrapping_sub(began)
    }

    /// Who waits at this end.
    pub(crate) fn waiter(&self) -> Waiter<'_> {
        self.ring.producer()
    }

    /// The position to watch for when there is no room: the head that makes some.
    pub(crate) fn awaits(&self) -> usize {
        self.tail.wrapping_sub(self.ring.room).wrapping_add(1)
    }

    /// A last look, after it was said that somebody waits: whether there is room, or the consumer is gone.
    pub(crate) fn looks_again(&mut self) -> bool {
        self.head_seen = self.ring.head.0.load(LOOK);
        self.tail.wrapping_sub(self.head_seen) < self.ring.room
            || self.ring.consumer_gone.load(LOOK)
    }
}

/// What was put is sent at the end, also if the iterator panics.
struct Batch<'a, T> {
    producer: &'a mut Producer<T>,
}

impl<T> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        if self.producer.ring.send() {
            self.producer.ring.sweep(None);
        }
    }
}

impl<T> Consumer<T> {
    /// Takes the next value, if it is there.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<T> {
        if !self.ring.holds(self.head, Ordering::Acquire) {
            self.tell();
            return None;
        }
        // SAFETY: the stamp says that there is a value, and only the consumer takes it, once: `head` moves
        // on, and the producer uses the slot again only after it was told.
        let value = unsafe { self.ring.slot(self.head).value.take() };
        self.head = self.head.wrapping_add(1);
        if self.head.wrapping_sub(self.told) >= self.ring.tell_every {
            self.tell();
        }
        Some(value)
    }

    /// Says how far it came, and wakes the producer if it waits for that.
    #[inline]
    pub(crate) fn tell(&mut self) {
        if self.told != self.head {
            self.told = self.head;
            publish(&self.ring.head.0, self.head);
            self.ring.producer().published();
        }
    }

    /// Whether the producer has gone. What it put before is to be taken still.
    pub(crate) fn is_gone(&self) -> bool {
        self.ring.producer_gone.load(Ordering::Acquire)
    }

    /// Whether no value is there.
    pub(crate) fn is_empty(&self) -> bool {
        !self.ring.holds(self.head, Ordering::Relaxed)
    }

    /// Who waits at this end.
    pub(crate) fn waiter(&self) -> Waiter<'_> {
        self.ring.consumer()
    }

    /// The position to watch for when there is no value.
    pub(crate) fn awaits(&self) -> usize {
        self.head
    }

    /// A last look, after it was said that somebody waits: whether there is a value, or the producer is gone.
    pub(crate) fn looks_again(&self) -> bool {
        self.ring.holds(self.head, LOOK) || self.ring.producer_gone.load(LOOK)
    }
}

impl<T: Send + 'static> Producer<T> {
    pub(crate) fn watched(&self) -> Arc<dyn Watched> {
        self.hold.clone()
    }

    pub(crate) fn later(&self) -> Arc<dyn SendLater> {
        self.hold.clone()
    }
}

impl<T: Send + 'static> Consumer<T> {
    pub(crate) fn watched(&self) -> Arc<dyn Watched> {
        self.ring.clone()
    }
}

impl<T> Ring<T> {
    /// Whether the end that waits has gone, on another core maybe, where nobody could take its entry out.
    fn has_left(&self, end: End) -> bool {
        let gone = match end {
            End::Receiver => &self.consumer_gone,
            End::Sender => &self.producer_gone,
        };
        gone.load(Ordering::Relaxed)
    }
}

impl<T: Send> Watched for Ring<T> {
    #[inline]
    fn is_due(&self, end: End, at: usize) -> bool {
        let (now, at) = match end {
            End::Receiver => (self.slot(at).stamp.load(LOOK), at.wrapping_add(1)),
            End::Sender => (self.head.0.load(LOOK), at),
        };
        // Or past it: what was forgotten here, or went on elsewhere, is to lapse.
        now.wrapping_sub(at) <= usize::MAX / 2 || self.has_left(end)
    }
}

impl<T: Send> Watched for Hold<T> {
    #[inline]
    fn is_due(&self, end: End, at: usize) -> bool {
        self.0.is_due(end, at)
    }
}

impl<T: Send> SendLater for Hold<T> {
    fn send_now(&self) {
        if self.0.send() {
            self.0.sweep(None);
        }
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        if self.ring.send() {
            self.ring.sweep(None);
        }
        self.ring.producer_gone.store(true, Ordering::Release);
        self.ring.consumer().wake();
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // Released by the flag: whoever sweeps begins here.
        self.ring.head.0.store(self.head, Ordering::Release);
        self.ring.consumer_gone.store(true, Ordering::Release);
        self.ring.producer().wake();
        self.ring.sweep(None);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Also where a slot has been used again since.
    #[test]
    fn what_is_watched_for_stays_due_when_it_has_passed() {
        let (mut tx, mut rx) = ring::<usize>(1);
        let watched = Consumer::watched(&rx);
        for n in 0..5 {
            assert!(!watched.is_due(End::Receiver, n), "{n} is to come");
            tx.put(n).unwrap();
            tx.send();
            assert!((0..=n).all(|passed| watched.is_due(End::Receiver, passed)), "{n} is there");
            assert_eq!(rx.take(), Some(n));
            rx.tell();
        }
    }

    /// What a core watches for a task that went on elsewhere, and was dropped there, is to lapse at a look.
    #[test]
    fn an_end_that_has_gone_is_watched_no_more() {
        let (producer, consumer) = ring::<u8>(4);
        let (watched, at) = (consumer.watched(), consumer.awaits());
        assert!(!watched.is_due(End::Receiver, at));
        drop(consumer);
        assert!(watched.is_due(End::Receiver, at));
        drop(producer);
        let (mut producer, consumer) = ring::<u8>(1);
        while producer.put(0).is_ok() {}
        let (watched, at) = (producer.watched(), producer.awaits());
        assert!(!watched.is_due(End::Sender, at));
        drop(producer);
        assert!(watched.is_due(End::Sender, at));
        drop(consumer);
    }
}
