//! Values from one core to one other.
//!
//! Owns the two ends of a bounded channel and the futures that wait at them. The queue itself is
//! [`mailbox::ring`](crate::mailbox::ring), how a task waits is [`waiting`](super::waiting).

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::SendError;
use super::waiting::Waiting;
use crate::executor::context;
use crate::mailbox::ring::{self, Consumer, NotPut, Producer};
use crate::mailbox::watch::End;
pub use crate::sync::mpsc::{TryRecvError, TrySendError};
use crate::task::current;
use crate::task::info::Note;

/// A channel from one core to another (or the same one) with room for at least `capacity` values: up to a
/// quarter more, 63 at most, may be queued, since the receiver tells in batches what it has taken.
///
/// Its ends are made together anywhere and moved to where they are used; either may also be awaited
/// outside of a loop. The first value that a poll sends is handed over at once, those that it sends after
/// that together: when there are 32, when the poll ends, or at a [`flush`](Sender::flush). A value that was
/// handed over is seen by a core that runs at its next look at its mail, at the latest after
/// the 32nd poll from then, and by a core that spins at once; a core that sleeps is woken by one system
/// call. Memory: `capacity` and a quarter, rounded up to a power of two, times the size of a value and 8
/// bytes.
///
/// # Panics
/// If `capacity` is zero or above 2^30.
///
/// ```
/// use coreloop::cross;
///
/// let (mut tx, mut rx) = cross::channel(64);
/// let other = std::thread::spawn(move || {
///     coreloop::run(async move {
///         let mut sum = 0;
///         while let Some(n) = rx.recv().await {
///             sum += n;
///         }
///         sum
///     })
/// });
/// coreloop::run(async move {
///     for n in 0..1000 {
///         tx.send(n).await.unwrap();
///     }
/// })
/// .unwrap();
/// assert_eq!(other.join().unwrap().unwrap(), 499_500);
/// ```
///
/// Only what may leave its thread can be sent:
///
/// ```compile_fail,E0277
/// coreloop::cross::channel::<std::rc::Rc<u8>>(1);
/// ```
#[track_caller]
pub fn channel<T: Send + 'static>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(
        (1..=CAPACITY_MAX).contains(&capacity),
        "a channel has room for 1 to {CAPACITY_MAX} values, not {capacity}"
    );
    let (producer, consumer) = ring::ring(capacity);
    let tx = Sender { producer, waiting: Waiting::Not, polled: u64::MAX, promised: (u64::MAX, 0) };
    (tx, Receiver { consumer, waiting: Waiting::Not })
}

/// Values that a channel may be asked to have room for.
const CAPACITY_MAX: usize = 1 << 30;

/// Values that are sent together, at most.
const SEND_AT: usize = 32;

/// The end that sends. There is one of it; to send from several cores, give each a channel.
///
/// Dropping it lets the receiver take what was sent, and then tells it that nothing more comes.
pub struct Sender<T: Send + 'static> {
    producer: Producer<T>,
    waiting: Waiting,
    /// The poll that sent last.
    polled: u64,
    /// The loop that last promised to send what was put, by its number, and its count then.
    promised: (u64, u64),
}

impl<T: Send + 'static> Sender<T> {
    /// Sends a value once there is room. What was sent before the receiver went is dropped with it.
    ///
    /// # Errors
    /// [`SendError`] with the value if the receiver is gone, as it is when its core has ended.
    ///
    /// # Cancel safety
    /// A future that is dropped before it ends has sent nothing, and the value is dropped with it. To keep
    /// the value, await [`ready`](Self::ready) and then use [`try_send`](Self::try_send), which finds room.
    pub fn send(&mut self, value: T) -> Sending<'_, T> {
        Sending { sender: self, value: Some(value) }
    }

    /// Sends a value if there is room.
    ///
    /// # Errors
    /// [`TrySendError`], with the value.
    ///
    /// ```
    /// use coreloop::cross::{self, TrySendError};
    /// let (mut tx, rx) = cross::channel(1);
    /// tx.try_send('a').unwrap();
    /// assert_eq!(tx.try_send('b'), Err(TrySendError::Full('b')));
    /// drop(rx);
    /// assert_eq!(tx.try_send('c'), Err(TrySendError::Closed('c')));
    /// ```
    #[inline]
    pub fn try_send(&mut self, value: T) -> Result<(), TrySendError<T>> {
        self.put(value).map_err(|not| match not {
            NotPut::Full(value) => TrySendError::Full(value),
            NotPut::Gone(value) => TrySendError::Closed(value),
        })
    }

    /// Sends values from `values` while there is room, and wakes the receiver once for all of them; how many
    /// it took from the iterator. Each may be received as soon as the iterator has been asked for the next.
    /// If the receiver goes meanwhile, those that it no longer took are dropped.
    ///
    /// ```
    /// let (mut tx, mut rx) = coreloop::cross::channel(3);
    /// let mut numbers = 0..10;
    /// assert_eq!(tx.try_send_from(&mut numbers), 3);
    /// assert_eq!(numbers.next(), Some(3));
    /// assert_eq!(rx.try_recv(), Ok(0));
    /// ```
    pub fn try_send_from(&mut self, values: impl IntoIterator<Item = T>) -> usize {
        self.producer.put_from(&mut values.into_iter())
    }

    /// Hands over what this poll has sent, where that has not been done yet: for a task that goes on for
    /// long without awaiting anything. Where no loop runs, and at the end of a poll, there is nothing to do.
    pub fn flush(&mut self) {
        if self.producer.unsent() > 0 {
            drop(self.producer.send());
        }
    }

    /// Puts a value. The first one of a poll is sent at once; more of them together, when the poll ends.
    #[inline]
    fn put(&mut self, value: T) -> Result<(), NotPut<T>> {
        self.producer.put(value)?;
        let poll = current::poll_number();
        if self.polled == poll && self.producer.unsent() < SEND_AT && self.promise() {
            return Ok(());
        }
        self.polled = poll;
        self.producer.send().map_or(Ok(()), |value| Err(NotPut::Gone(value)))
    }

    /// Has the running core send what was put; `false` where none runs.
    #[inline]
    fn promise(&mut self) -> bool {
        let promised = context::with_core(|core| {
            let now = (core.number, core.unsent.count());
            if self.promised != now {
                core.unsent.add(self.producer.later());
                self.promised = now;
            }
        });
        promised.is_some()
    }

    /// Waits for room for one value, which nobody else can take.
    ///
    /// # Errors
    /// [`SendError`] if the receiver is gone.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn ready(&mut self) -> Result<(), SendError<()>> {
        let sender = Leave(self);
        poll_fn(|cx| sender.0.poll_ready(cx)).await
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.producer.is_gone()
    }

    /// Room for how many values there is at least.
    pub fn capacity(&mut self) -> usize {
        self.producer.room()
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError<()>>> {
        if self.producer.is_gone() {
            self.leave();
            return Poll::Ready(Err(SendError(())));
        }
        if self.producer.room() > 0 {
            self.leave();
            return Poll::Ready(Ok(()));
        }
        self.flush();
        let (producer, at) = (&self.producer, (End::Sender, self.producer.awaits()));
        let waiter = producer.waiter();
        self.waiting.wait(cx, waiter, || producer.watched(), at, Note::ItemRoom);
        if !self.producer.looks_again() {
            return Poll::Pending;
        }
        self.leave();
        Poll::Ready(if self.producer.is_gone() { Err(SendError(())) } else { Ok(()) })
    }

    #[inline]
    fn leave(&mut self) {
        if !matches!(self.waiting, Waiting::Not) {
            self.waiting.end(self.producer.waiter());
        }
    }
}

impl<T: Send + 'static> Drop for Sender<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<T: Send + 'static> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// Sends one value; see [`Sender::send`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sending<'a, T: Send + 'static> {
    sender: &'a mut Sender<T>,
    /// None once it was sent or given back.
    value: Option<T>,
}

impl<T: Send + 'static> Unpin for Sending<'_, T> {}

impl<T: Send + 'static> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    /// # Panics
    /// If polled after it was ready.
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut value = this.value.take().expect("a send was polled after it was ready");
        loop {
            value = match this.sender.put(value) {
                Ok(()) => {
                    this.sender.leave();
                    return Poll::Ready(Ok(()));
                }
                Err(NotPut::Gone(value)) => {
                    this.sender.leave();
                    return Poll::Ready(Err(SendError(value)));
                }
                Err(NotPut::Full(value)) => value,
            };
            if this.sender.poll_ready(cx).is_pending() {
                this.value = Some(value);
                return Poll::Pending;
            }
        }
    }
}

impl<T: Send + 'static> Drop for Sending<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.sender.leave();
    }
}

impl<T: Send + 'static> fmt::Debug for Sending<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").finish_non_exhaustive()
    }
}

/// The end that receives. Dropping it drops what is queued, and what the sender sends later comes back.
pub struct Receiver<T: Send + 'static> {
    consumer: Consumer<T>,
    waiting: Waiting,
}

impl<T: Send + 'static> Receiver<T> {
    /// Waits for the next value; none once the sender is gone and everything was taken.
    ///
    /// # Cancel safety
    /// No value is lost: a dropped future has taken none.
    pub fn recv(&mut self) -> Receiving<'_, T> {
        Receiving { receiver: self }
    }

    /// The next value, if there is one.
    ///
    /// # Errors
    /// [`TryRecvError`] says whether it is worth waiting.
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        if let Some(value) = self.consumer.take() {
            return Ok(value);
        }
        if !self.consumer.is_gone() {
            return Err(TryRecvError::Empty);
        }
        // What it sent last may have come since.
        self.consumer.take().ok_or(TryRecvError::Disconnected)
    }

    /// Waits for one value at least, and adds what is there to `into`, at most `max` values; how many. Zero
    /// if the sender is gone and everything was taken, or `max` is zero.
    ///
    /// # Cancel safety
    /// No value is lost: a dropped future has taken none.
    ///
    /// ```
    /// let (mut tx, mut rx) = coreloop::cross::channel(8);
    /// coreloop::run(async move {
    ///     tx.try_send_from(0..5);
    ///     let mut got = Vec::new();
    ///     assert_eq!(rx.recv_many(&mut got, 3).await, 3);
    ///     assert_eq!(rx.recv_many(&mut got, 3).await, 2);
    ///     assert_eq!(got, [0, 1, 2, 3, 4]);
    /// })
    /// .unwrap();
    /// ```
    pub async fn recv_many(&mut self, into: &mut Vec<T>, max: usize) -> usize {
        if max == 0 {
            return 0;
        }
        let Some(first) = self.recv().await else { return 0 };
        into.push(first);
        let mut taken = 1;
        while taken < max
            && let Some(value) = self.consumer.take()
        {
            into.push(value);
            taken += 1;
        }
        taken
    }

    /// Whether nothing is there to be taken now.
    pub fn is_empty(&self) -> bool {
        self.consumer.is_empty()
    }

    #[inline]
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self.try_recv() {
            Err(TryRecvError::Empty) => {}
            ended => {
                self.leave();
                return Poll::Ready(ended.ok());
            }
        }
        let (consumer, at) = (&self.consumer, (End::Receiver, self.consumer.awaits()));
        let waiter = consumer.waiter();
        self.waiting.wait(cx, waiter, || consumer.watched(), at, Note::Item);
        if !self.consumer.looks_again() {
            return Poll::Pending;
        }
        self.leave();
        // It is there, or the sender has gone with nothing left: there is no third case.
        Poll::Ready(self.try_recv().ok())
    }

    #[inline]
    fn leave(&mut self) {
        if !matches!(self.waiting, Waiting::Not) {
            self.waiting.end(self.consumer.waiter());
        }
    }
}

impl<T: Send + 'static> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<T: Send + 'static> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("empty", &self.is_empty()).finish_non_exhaustive()
    }
}

/// Receives one value; see [`Receiver::recv`].
#[must_use = "futures do nothing unless awaited"]
pub struct Receiving<'a, T: Send + 'static> {
    receiver: &'a mut Receiver<T>,
}

impl<T: Send + 'static> Future for Receiving<'_, T> {
    type Output = Option<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().receiver.poll_recv(cx)
    }
}

impl<T: Send + 'static> Drop for Receiving<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.receiver.leave();
    }
}

impl<T: Send + 'static> fmt::Debug for Receiving<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving").finish_non_exhaustive()
    }
}

/// Takes a sender out of the line when the future that holds this is dropped.
struct Leave<'a, T: Send + 'static>(&'a mut Sender<T>);

impl<T: Send + 'static> Drop for Leave<'_, T> {
    fn drop(&mut self) {
        self.0.leave();
    }
}
