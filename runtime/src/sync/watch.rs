//! The latest value, for any number of tasks that watch it.
//!
//! Owns the two ends. The value is shared by count: who looks at it holds a snapshot, and a new value
//! does not wait for those. A version says what a receiver has seen.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

pub use super::send_error::SendError;
use super::wait_room::WaitRoom;
use crate::task::info::Note;

/// A channel that keeps the latest value, between tasks of one core.
///
/// Receivers see the latest value, not each one. Memory: one value, those of which a [`Snapshot`] is
/// held, and the waiters. Each value sent is an allocation.
///
/// ```
/// use coreloop::sync::watch;
///
/// coreloop::run(async {
///     let (tx, mut rx) = watch::channel(1);
///     coreloop::spawn(async move {
///         tx.send(2).unwrap();
///         tx.send(3).unwrap();
///     });
///     rx.changed().await.unwrap();
///     assert_eq!(*rx.borrow_and_update(), 3);
///     assert!(rx.changed().await.is_err(), "the sender is gone");
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::watch::channel(0));
/// ```
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared {
        value: RefCell::new(Rc::new(value)),
        version: Cell::new(0),
        senders: Cell::new(1),
        receivers: Cell::new(1),
        changed: WaitRoom::new(Note::Watch),
        no_receiver: WaitRoom::new(Note::NoReceiver),
    });
    (Sender { shared: shared.clone() }, Receiver { shared, seen: 0 })
}

struct Shared<T> {
    value: RefCell<Rc<T>>,
    /// Goes on with each value.
    version: Cell<u64>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    changed: WaitRoom<(), ()>,
    no_receiver: WaitRoom<(), ()>,
}

impl<T> Shared<T> {
    fn snapshot(&self) -> Snapshot<T> {
        Snapshot(self.value.borrow().clone())
    }

    /// Puts a value in place of the other one, which comes back: its destructor is foreign code.
    fn replace(&self, value: T) -> Snapshot<T> {
        let old = self.value.replace(Rc::new(value));
        self.version.set(self.version.get() + 1);
        self.changed.release_all(());
        Snapshot(old)
    }
}

/// A value of the channel as it was; later ones don't change it.
#[derive(Debug)]
pub struct Snapshot<T>(Rc<T>);

impl<T> Deref for Snapshot<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// An end that sends; a clone is another one.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Puts a value in place of the other one, and wakes who waits for a change. Never waits.
    ///
    /// # Errors
    /// [`SendError`] with the value if there is no receiver; see [`send_replace`](Self::send_replace).
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError(value));
        }
        self.shared.replace(value);
        Ok(())
    }

    /// As [`send`](Self::send), also without receivers; gives the value that was there.
    pub fn send_replace(&self, value: T) -> Snapshot<T> {
        self.shared.replace(value)
    }

    /// Changes a copy of the value and puts it in place, also without receivers.
    ///
    /// If `change` panics, everything stays as it was. It may use the channel; what it sends there is
    /// replaced.
    pub fn send_modify(&self, change: impl FnOnce(&mut T))
    where
        T: Clone,
    {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// As [`send_modify`](Self::send_modify), if `change` says that it has changed something; gives
    /// what it said.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool
    where
        T: Clone,
    {
        let mut value = T::clone(&self.borrow());
        let changed = change(&mut value);
        if changed {
            self.shared.replace(value);
        }
        changed
    }

    /// The value as it is now.
    pub fn borrow(&self) -> Snapshot<T> {
        self.shared.snapshot()
    }

    /// Another receiver, which has seen the value as it is now.
    pub fn subscribe(&self) -> Receiver<T> {
        self.shared.receivers.set(self.shared.receivers.get() + 1);
        Receiver { shared: self.shared.clone(), seen: self.shared.version.get() }
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.shared.receivers.get()
    }

    /// Whether there is no receiver.
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }

    /// Waits until there is no receiver.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn closed(&self) {
        self.shared.no_receiver.wait(|| self.is_closed().then_some(())).await;
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
            self.shared.changed.release_all(());
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("receivers", &self.receiver_count()).finish_non_exhaustive()
    }
}

/// An end that watches; a clone is another one, which has seen as much.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    /// The version that it has seen.
    seen: u64,
}

impl<T> Receiver<T> {
    /// The value as it is now; it does not count as seen.
    pub fn borrow(&self) -> Snapshot<T> {
        self.shared.snapshot()
    }

    /// The value as it is now, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Snapshot<T> {
        self.seen = self.shared.version.get();
        self.shared.snapshot()
    }

    /// Whether there is a value that it has not seen.
    ///
    /// # Errors
    /// [`RecvError`] if there is none and every sender is gone.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        if self.seen != self.shared.version.get() {
            Ok(true)
        } else if self.shared.senders.get() > 0 {
            Ok(false)
        } else {
            Err(RecvError(()))
        }
    }

    /// Waits for a value that it has not seen, which counts as seen then.
    ///
    /// # Errors
    /// [`RecvError`] if there is none and every sender is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost: until it ends, nothing counts as seen.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        self.shared.changed.wait(|| (self.has_changed() != Ok(false)).then_some(())).await;
        self.has_changed()?;
        self.seen = self.shared.version.get();
        Ok(())
    }

    /// Waits until `is_so` says yes of the latest value, which counts as seen then; it is asked at
    /// once.
    ///
    /// # Errors
    /// [`RecvError`] if it says no of the last value and every sender is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost, except that `is_so` may have been asked.
    pub async fn wait_for(
        &mut self,
        mut is_so: impl FnMut(&T) -> bool,
    ) -> Result<Snapshot<T>, RecvError> {
        loop {
            let value = self.borrow_and_update();
            if is_so(&value) {
                return Ok(value);
            }
            drop(value);
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.set(self.shared.receivers.get() + 1);
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.set(self.shared.receivers.get() - 1);
        if self.shared.receivers.get() == 0 {
            self.shared.no_receiver.release_all(());
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("changed", &self.has_changed()).finish_non_exhaustive()
    }
}

/// Every sender is gone, and the last value was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvError(());

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every sender is gone, and there is no new value")
    }
}

impl std::error::Error for RecvError {}
