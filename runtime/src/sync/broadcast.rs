//! Every value to every receiver.
//!
//! Owns the two ends and the ring of the latest values between them. Invariants:
//! - the ring has at most `capacity` values; a receiver whose next one has left it is told how many it
//!   lost;
//! - a value leaves when the last receiver that was there when it was sent has had it, or has gone;
//! - values are cloned and dropped with nothing borrowed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

pub use super::send_error::SendError;
use super::wait_room::WaitRoom;
use crate::task::info::Note;

/// A channel that gives each value to every receiver, between tasks of one core.
///
/// Sending never waits: of the values that a receiver has not had yet, the latest `capacity` are kept,
/// and a receiver that is further behind is told how many it lost. Memory: at most `capacity` values,
/// each an allocation, and the waiters.
///
/// # Panics
/// If `capacity` is zero.
///
/// ```
/// use coreloop::sync::broadcast::{self, RecvError};
///
/// coreloop::run(async {
///     let (tx, mut a) = broadcast::channel(2);
///     let mut b = tx.subscribe();
///     tx.send(1).unwrap();
///     assert_eq!(a.recv().await, Ok(1));
///     tx.send(2).unwrap();
///     tx.send(3).unwrap();
///     assert_eq!(a.recv().await, Ok(2));
///     assert_eq!(b.recv().await, Err(RecvError::Lagged(1)));
///     assert_eq!(b.recv().await, Ok(2));
///     drop(tx);
///     assert_eq!(b.recv().await, Ok(3));
///     assert_eq!(b.recv().await, Err(RecvError::Closed));
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::broadcast::channel::<u8>(1));
/// ```
#[track_caller]
pub fn channel<T: Clone>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a broadcast channel needs room for at least one value");
    let ring = Ring { values: VecDeque::new(), first: 0, capacity };
    let shared = Rc::new(Shared {
        ring: RefCell::new(ring),
        senders: Cell::new(1),
        receivers: Cell::new(1),
        room: WaitRoom::new(Note::Broadcast),
    });
    (Sender { shared: shared.clone() }, Receiver { shared, next: 0 })
}

struct Shared<T> {
    ring: RefCell<Ring<T>>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    room: WaitRoom<(), ()>,
}

struct Ring<T> {
    values: VecDeque<Kept<T>>,
    /// Number of the first value in it.
    first: u64,
    capacity: usize,
}

struct Kept<T> {
    value: Rc<T>,
    /// Receivers that have still to get it.
    to_get: usize,
}

impl<T> Ring<T> {
    /// Number of the value that will be sent next.
    fn end(&self) -> u64 {
        self.first + self.values.len() as u64
    }

    /// Takes value `number` for one receiver.
    fn get(&mut self, number: u64) -> Option<Rc<T>> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let kept = self.values.get_mut(at)?;
        kept.to_get -= 1;
        let value = kept.value.clone();
        Some(value)
    }

    /// Takes out the first value if nobody has still to get it.
    fn pop_spent(&mut self) -> Option<Kept<T>> {
        if self.values.front()?.to_get > 0 {
            return None;
        }
        self.first += 1;
        self.values.pop_front()
    }
}

impl<T> Shared<T> {
    /// Drops what everybody has had, with nothing borrowed meanwhile.
    fn drop_spent(&self) {
        loop {
            let spent = self.ring.borrow_mut().pop_spent();
            if spent.is_none() {
                return;
            }
        }
    }

    fn subscribe(self: &Rc<Self>) -> Receiver<T> {
        self.receivers.set(self.receivers.get() + 1);
        Receiver { shared: self.clone(), next: self.ring.borrow().end() }
    }
}

/// An end that sends; a clone is another one.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Sends a value to every receiver that there is now, and gives their number. Never waits; if the
    /// ring is full, its oldest value is lost to those who have not had it.
    ///
    /// # Errors
    /// [`SendError`] with the value if there is no receiver.
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        let receivers = self.shared.receivers.get();
        if receivers == 0 {
            return Err(SendError(value));
        }
        let lost = {
            let mut ring = self.shared.ring.borrow_mut();
            let full = ring.values.len() == ring.capacity;
            let lost = if full { ring.values.pop_front() } else { None };
            ring.first += u64::from(full);
            ring.values.push_back(Kept { value: Rc::new(value), to_get: receivers });
            lost
        };
        self.shared.room.release_all(());
        drop(lost);
        Ok(receivers)
    }

    /// Another receiver, for what is sent from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        self.shared.subscribe()
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.shared.receivers.get()
    }

    /// Values that are kept for somebody.
    pub fn len(&self) -> usize {
        self.shared.ring.borrow().values.len()
    }

    /// Whether no value is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.set(self.shared.senders.get() + 1);
        Self { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.senders.set(self.shared.senders.get() - 1);
        if self.shared.senders.get() == 0 {
            self.shared.room.release_all(());
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("receivers", &self.receiver_count()).finish_non_exhaustive()
    }
}

/// An end that receives.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    /// Number of the value that it gets next.
    next: u64,
}

impl<T> Receiver<T> {
    /// Waits for the next value.
    ///
    /// # Errors
    /// [`RecvError::Lagged`] if values were lost to this receiver; it goes on with the oldest that is
    /// kept. [`RecvError::Closed`] once it has had all and every sender is gone.
    ///
    /// # Cancel safety
    /// No value is lost: a dropped future has taken none.
    pub async fn recv(&mut self) -> Result<T, RecvError>
    where
        T: Clone,
    {
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Lagged(lost)) => return Err(RecvError::Lagged(lost)),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Empty) => {}
            }
            let shared = &self.shared;
            let is_worth_a_look =
                || self.next != shared.ring.borrow().end() || shared.senders.get() == 0;
            shared.room.wait(|| is_worth_a_look().then_some(())).await;
        }
    }

    /// The next value, if there is one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`TryRecvError::Empty`] if there is none yet.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError>
    where
        T: Clone,
    {
        let first = self.shared.ring.borrow().first;
        if let Some(lost) = first.checked_sub(self.next).filter(|lost| *lost > 0) {
            self.next = first;
            return Err(TryRecvError::Lagged(lost));
        }
        let value = self.shared.ring.borrow_mut().get(self.next);
        let Some(value) = value else {
            let closed = self.shared.senders.get() == 0;
            return Err(if closed { TryRecvError::Closed } else { TryRecvError::Empty });
        };
        self.next += 1;
        self.shared.drop_spent();
        // The last one to get it need not clone it.
        Ok(Rc::try_unwrap(value).unwrap_or_else(|shared| T::clone(&shared)))
    }

    /// Another receiver, for what is sent from now on.
    pub fn resubscribe(&self) -> Self {
        self.shared.subscribe()
    }

    /// Values that wait for this receiver, or were lost to it.
    pub fn len(&self) -> u64 {
        self.shared.ring.borrow().end() - self.next
    }

    /// Whether it has had all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.set(self.shared.receivers.get() - 1);
        {
            let mut ring = self.shared.ring.borrow_mut();
            let had = usize::try_from(self.next.saturating_sub(ring.first)).unwrap_or(usize::MAX);
            ring.values.iter_mut().skip(had).for_each(|kept| kept.to_get -= 1);
        }
        self.shared.drop_spent();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Why a receiver gets no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// So many values were lost to it; the next receive goes on after them.
    Lagged(u64),
    /// It has had all, and every sender is gone.
    Closed,
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagged(lost) => write!(f, "{lost} values were lost to a slow receiver"),
            Self::Closed => f.write_str("every sender is gone"),
        }
    }
}

impl std::error::Error for RecvError {}

/// Why a receiver gets no value at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is none yet.
    Empty,
    /// So many values were lost to it; the next receive goes on after them.
    Lagged(u64),
    /// It has had all, and every sender is gone.
    Closed,
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no value was sent yet"),
            Self::Lagged(lost) => write!(f, "{lost} values were lost to a slow receiver"),
            Self::Closed => f.write_str("every sender is gone"),
        }
    }
}

impl std::error::Error for TryRecvError {}
