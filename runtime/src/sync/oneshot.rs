//! One value from one task to another.
//!
//! Owns the two ends, which share one allocation. Nothing in it is borrowed while foreign code runs:
//! values and wakers are taken out of their cells first.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::contain::{self, let_go};
use crate::task::current;
use crate::task::info::Note;

/// A channel for one value, between tasks of one core. Making it is its only allocation.
///
/// # Cancel safety
/// `&mut receiver` may be awaited in pieces, a wait that is dropped loses nothing. The receiver's own drop
/// closes the channel: the sender is told, and a value that was sent is dropped.
///
/// ```
/// use coreloop::sync::oneshot;
///
/// coreloop::run(async {
///     let (answer, question) = oneshot::channel();
///     coreloop::spawn(async move { answer.send(42) });
///     assert_eq!(question.await, Ok(42));
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::oneshot::channel::<u8>());
/// ```
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared {
        value: Cell::new(None),
        sender_gone: Cell::new(false),
        receiver_gone: Cell::new(false),
        on_value: Cell::new(None),
        on_close: Cell::new(None),
    });
    (Sender { shared: shared.clone() }, Receiver { shared })
}

struct Shared<T> {
    value: Cell<Option<T>>,
    /// It has sent, or was dropped.
    sender_gone: Cell<bool>,
    /// It has closed, or was dropped.
    receiver_gone: Cell<bool>,
    /// Who waits for the value.
    on_value: Cell<Option<Waker>>,
    /// Who waits for the receiver to go.
    on_close: Cell<Option<Waker>>,
}

/// Puts the waker of this poll in place.
fn note(place: &Cell<Option<Waker>>, cx: &Context<'_>) {
    let known = place.take();
    if known.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        place.set(known);
        return;
    }
    let new = cx.waker().clone();
    let other = place.replace(Some(new));
    [known, other].into_iter().flatten().for_each(let_go);
}

fn wake(place: &Cell<Option<Waker>>) {
    if let Some(waker) = place.take() {
        contain::wake(waker);
    }
}

/// The end that sends. Dropped without having sent, it tells the receiver so.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Sends the value; never waits.
    ///
    /// # Errors
    /// The value, if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(value);
        }
        self.shared.value.set(Some(value));
        Ok(())
    }

    /// Whether the receiver was closed or dropped.
    pub fn is_closed(&self) -> bool {
        self.shared.receiver_gone.get()
    }

    /// Waits until the receiver was closed or dropped.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn closed(&mut self) {
        std::future::poll_fn(|cx| {
            if !self.is_closed() {
                note(&self.shared.on_close, cx);
            }
            // The waker's clone was foreign code.
            if self.is_closed() {
                return Poll::Ready(());
            }
            current::note(Note::NoReceiver);
            Poll::Pending
        })
        .await;
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.sender_gone.set(true);
        wake(&self.shared.on_value);
        if let Some(waker) = self.shared.on_close.take() {
            let_go(waker);
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("closed", &self.is_closed()).finish()
    }
}

/// The end that receives: a future of the value.
#[must_use = "a receiver does nothing until it is awaited"]
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The value, if it is there.
    ///
    /// # Errors
    /// [`TryRecvError`] says whether it is worth waiting.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let shared = &self.shared;
        match shared.value.take() {
            Some(value) => Ok(value),
            None if shared.sender_gone.get() || shared.receiver_gone.get() => {
                Err(TryRecvError::Closed)
            }
            None => Err(TryRecvError::Empty),
        }
    }

    /// Lets the sender send no more. What it has sent can still be received.
    pub fn close(&mut self) {
        self.shared.receiver_gone.set(true);
        wake(&self.shared.on_close);
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, RecvError>;

    /// # Cancel safety
    /// `&mut receiver` may be awaited in pieces: the value stays until it is taken. After it was taken,
    /// the answer is an error.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        for look in 0..2 {
            match self.try_recv() {
                Ok(value) => return Poll::Ready(Ok(value)),
                Err(TryRecvError::Closed) => return Poll::Ready(Err(RecvError(()))),
                // The waker's clone is foreign code: look again.
                Err(TryRecvError::Empty) if look == 0 => note(&self.shared.on_value, cx),
                Err(TryRecvError::Empty) => {}
            }
        }
        current::note(Note::Oneshot);
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.close();
        if let Some(waker) = self.shared.on_value.take() {
            let_go(waker);
        }
        drop(self.shared.value.take());
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("sender_gone", &self.shared.sender_gone.get()).finish()
    }
}

/// The sender was dropped without having sent, or the value was taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError(());

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sender is gone, and there is no value")
    }
}

impl std::error::Error for RecvError {}

/// Why there is no value now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// It has not been sent yet.
    Empty,
    /// It will not be: the sender is gone, or the value was taken before.
    Closed,
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "no value was sent yet",
            Self::Closed => "the sender is gone, and there is no value",
        })
    }
}

impl std::error::Error for TryRecvError {}
