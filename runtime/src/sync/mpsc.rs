//! Values from many tasks to one.
//!
//! Owns the two ends of a channel: a [`Queue`] that counts its senders. The last sender that goes shuts
//! it down; the receiver that goes shuts it down and drops what is in it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use super::gate::NotNow;
use super::queue::{PutError, Queue, TryGetError, TryPutError};
pub use super::send_error::SendError;

/// A channel with room for `capacity` values, between tasks of one core.
///
/// Senders wait for room in the order of asking. Memory: the values in it, and the waiters.
///
/// # Panics
/// If `capacity` is zero.
///
/// ```
/// use coreloop::sync::mpsc;
///
/// coreloop::run(async {
///     let (tx, mut rx) = mpsc::channel(2);
///     for from in 0..3 {
///         let tx = tx.clone();
///         coreloop::spawn(async move { tx.send(from).await });
///     }
///     drop(tx);
///     let mut got = Vec::new();
///     while let Some(from) = rx.recv().await {
///         got.push(from);
///     }
///     assert_eq!(got, [0, 1, 2]);
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::mpsc::channel::<u8>(1));
/// ```
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    ends(Queue::bounded(capacity))
}

/// A channel without a bound: sending never waits, and memory grows with what was not received yet.
///
/// ```
/// let (tx, mut rx) = coreloop::sync::mpsc::unbounded_channel();
/// tx.try_send(1).unwrap();
/// assert_eq!(rx.try_recv(), Ok(1));
/// ```
pub fn unbounded_channel<T>() -> (Sender<T>, Receiver<T>) {
    ends(Queue::unbounded())
}

fn ends<T>(queue: Queue<T>) -> (Sender<T>, Receiver<T>) {
    let channel = Rc::new(Channel { queue, senders: Cell::new(1) });
    (Sender { channel: channel.clone() }, Receiver { channel })
}

struct Channel<T> {
    queue: Queue<T>,
    senders: Cell<usize>,
}

/// An end that sends; a clone is another one.
pub struct Sender<T> {
    channel: Rc<Channel<T>>,
}

impl<T> Sender<T> {
    /// Sends a value, when there is room and those who asked before have theirs.
    ///
    /// # Errors
    /// [`SendError`] with the value if the receiver is gone or closed.
    ///
    /// # Cancel safety
    /// A future that is dropped before it ends has sent nothing, and the value is dropped with it. To
    /// keep the value, [`reserve`](Self::reserve) first.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.channel.queue.put(value).await.map_err(|PutError(value)| SendError(value))
    }

    /// Sends a value if there is room and nobody waits for it.
    ///
    /// # Errors
    /// [`TrySendError`], with the value.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.channel.queue.try_put(value).map_err(|e| match e {
            TryPutError::Full(value) => TrySendError::Full(value),
            TryPutError::ShutDown(value) => TrySendError::Closed(value),
        })
    }

    /// Waits for room for one value, which the permit then holds.
    ///
    /// # Errors
    /// [`SendError`] if the receiver is gone or closed.
    ///
    /// # Cancel safety
    /// A dropped future leaves the line; room that it had been handed goes to the next one.
    pub async fn reserve(&self) -> Result<Permit<'_, T>, SendError<()>> {
        match self.channel.queue.places().acquire(1).await {
            // It may have been closed after the place was promised, and its receiver told so.
            Ok(held) if !self.is_closed() => {
                self.channel.queue.reserve(held);
                Ok(Permit { queue: Some(&self.channel.queue) })
            }
            _ => Err(SendError(())),
        }
    }

    /// Takes room for one value if there is some and nobody waits for it.
    ///
    /// # Errors
    /// [`TrySendError`] says whether it is worth waiting.
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, TrySendError<()>> {
        match self.channel.queue.places().try_acquire(1) {
            Ok(held) => {
                self.channel.queue.reserve(held);
                Ok(Permit { queue: Some(&self.channel.queue) })
            }
            Err(NotNow::Taken) => Err(TrySendError::Full(())),
            Err(NotNow::Closed) => Err(TrySendError::Closed(())),
        }
    }

    /// Whether the receiver is gone or closed.
    pub fn is_closed(&self) -> bool {
        self.channel.queue.is_shutdown()
    }

    /// Room for how many values there is now; a large number in a channel without a bound.
    pub fn capacity(&self) -> usize {
        self.channel.queue.places().free()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.channel.senders.set(self.channel.senders.get() + 1);
        Self { channel: self.channel.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.channel.senders.get() - 1;
        self.channel.senders.set(left);
        if left == 0 {
            self.channel.queue.shutdown();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// Room for one value, given back at the drop.
#[must_use = "room that is not held is given back at once"]
pub struct Permit<'a, T> {
    /// None once it was used.
    queue: Option<&'a Queue<T>>,
}

impl<T> Permit<'_, T> {
    /// Sends; never waits. The value arrives also if the channel was closed meanwhile; if the receiver
    /// is gone, it is dropped.
    pub fn send(mut self, value: T) {
        if let Some(queue) = self.queue.take() {
            queue.fill_reserved(value);
        }
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.give_back();
        }
    }
}

impl<T> fmt::Debug for Permit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// The end that receives.
pub struct Receiver<T> {
    channel: Rc<Channel<T>>,
}

impl<T> Receiver<T> {
    /// Waits for the next value; none once the channel is closed (or every sender gone) and empty, and
    /// no [`Permit`] is left.
    ///
    /// # Cancel safety
    /// No value is lost: a dropped future has taken none.
    pub async fn recv(&mut self) -> Option<T> {
        self.channel.queue.get().await.ok()
    }

    /// The next value, if there is one.
    ///
    /// # Errors
    /// [`TryRecvError`] says whether it is worth waiting.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.channel.queue.try_get().map_err(|e| match e {
            TryGetError::Empty => TryRecvError::Empty,
            TryGetError::ShutDown => TryRecvError::Disconnected,
        })
    }

    /// Lets nothing in any more, except for permits that were had before; what is in it can still be
    /// received.
    pub fn close(&mut self) {
        self.channel.queue.shutdown();
    }

    /// Values in it.
    pub fn len(&self) -> usize {
        self.channel.queue.len()
    }

    /// Whether no value is in it.
    pub fn is_empty(&self) -> bool {
        self.channel.queue.is_empty()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.channel.queue.shutdown_now();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Why a value could not be sent at once; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room, or others wait for it.
    Full(T),
    /// The receiver is gone or closed.
    Closed(T),
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the channel is full, or others wait for room",
            Self::Closed(_) => "the channel is closed",
        })
    }
}

impl<T> std::error::Error for TrySendError<T> {}

/// Why there is no value now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// None has come yet.
    Empty,
    /// The channel is closed, or every sender gone, and nothing is left.
    Disconnected,
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the channel is empty",
            Self::Disconnected => "the channel is closed and empty",
        })
    }
}

impl std::error::Error for TryRecvError {}
