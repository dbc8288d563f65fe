//! Between two workers: ringline's own channels stay on a worker, and its wakers too.
//!
//! What it documents for this is a crossbeam channel and a `WakeHandle`, which writes to the
//! worker's eventfd. As a good user would, a side wakes the other only if that one waits: the
//! flag is set before a last look at the channel, and the other side looks at it after its change.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use crossbeam_channel::{TryRecvError, TrySendError, bounded};
use ringline::WakeHandle;

use crate::worker::wait_for_wake;

/// What the results call it.
pub const NAME: &str = "crossbeam_channel::bounded(1024), WakeHandle where the other side waits";

/// How to wake an end of a channel if it waits.
#[derive(Default)]
pub struct WakeAt {
    waits: AtomicBool,
    handle: OnceLock<WakeHandle>,
}

impl WakeAt {
    /// The worker that the end is on.
    pub fn set(&self, handle: WakeHandle) {
        // Each end is told once.
        _ = self.handle.set(handle);
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.waits.load(Ordering::Relaxed) && self.waits.swap(false, Ordering::AcqRel) {
            self.handle.get().expect("told before anything is sent").wake();
        }
    }

    fn will_wait(&self) {
        self.waits.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn goes_on(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }
}

pub struct Sender {
    // Before the wake at the drop: the receiver has to see that it is gone.
    numbers: Option<crossbeam_channel::Sender<u64>>,
    here: Arc<WakeAt>,
    there: Arc<WakeAt>,
}

pub struct Receiver {
    numbers: crossbeam_channel::Receiver<u64>,
    here: Arc<WakeAt>,
    there: Arc<WakeAt>,
}

pub fn channel(capacity: usize) -> (Sender, Receiver) {
    let (sender, receiver) = bounded(capacity);
    let (at_send, at_recv) = (Arc::new(WakeAt::default()), Arc::new(WakeAt::default()));
    (
        Sender { numbers: Some(sender), here: at_send.clone(), there: at_recv.clone() },
        Receiver { numbers: receiver, here: at_recv, there: at_send },
    )
}

impl Sender {
    /// Where this end waits.
    pub fn at_send(&self) -> Arc<WakeAt> {
        self.here.clone()
    }

    /// Waits for room.
    pub async fn send(&self, number: u64) {
        let numbers = self.numbers.as_ref().expect("taken at the drop only");
        let offer = || match numbers.try_send(number) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => panic!("the receiver is gone"),
        };
        if !offer() {
            poll_fn(|cx| {
                self.here.will_wait();
                if offer() {
                    self.here.goes_on();
                    return Poll::Ready(());
                }
                wait_for_wake(cx.waker());
                Poll::Pending
            })
            .await;
        }
        self.there.wake();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        drop(self.numbers.take());
        self.there.wake();
    }
}

impl Receiver {
    /// Where this end waits.
    pub fn at_recv(&self) -> Arc<WakeAt> {
        self.here.clone()
    }

    /// The next number, or nothing when the sender is gone.
    pub async fn recv(&self) -> Option<u64> {
        let take = || match self.numbers.try_recv() {
            Ok(number) => Poll::Ready(Some(number)),
            Err(TryRecvError::Empty) => Poll::Pending,
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
        };
        let mut taken = take();
        if taken.is_pending() {
            let number = poll_fn(|cx| {
                self.here.will_wait();
                let taken = take();
                if taken.is_ready() {
                    self.here.goes_on();
                } else {
                    wait_for_wake(cx.waker());
                }
                taken
            })
            .await;
            taken = Poll::Ready(number);
        }
        let Poll::Ready(number) = taken else { unreachable!("awaited") };
        // A full channel has room again. Not at each number: half of them may go at once.
        if self.numbers.len() <= CHANNEL_LOW || number.is_none() {
            self.there.wake();
        }
        number
    }
}

/// A sender that waits is woken when so few are left: else it would be woken for each.
const CHANNEL_LOW: usize = 512;
