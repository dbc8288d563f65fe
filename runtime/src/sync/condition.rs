//! Waiting for a change of what a mutex holds.
//!
//! Owns [`Condition`]. A wait takes its place in line *before* it unlocks, so no notification falls
//! between. It holds the notification until it has the lock again; a wait that is dropped before then
//! passes it on.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::mutex::{Mutex, MutexGuard};
use super::wait_list::Key;
use super::wait_room::WaitRoom;
use crate::task::info::Note;

/// Lets tasks of one core wait for a change of what a [`Mutex`] holds.
///
/// Those who wait are notified in the order in which they came, and lock the mutex again in that order.
/// A wait may end without a notification meant for it (one that a cancelled task passed on), so the
/// state is what counts: [`wait_for`](Self::wait_for) looks at it.
///
/// Memory: notifying allocates nothing. The list of waiters is as long as there are waiters.
///
/// ```
/// use coreloop::sync::{Condition, Mutex};
/// use std::rc::Rc;
///
/// coreloop::run(async {
///     let shared = Rc::new((Mutex::new(0), Condition::new()));
///     let other = shared.clone();
///     let task = coreloop::spawn(async move {
///         let (stock, changed) = &*other;
///         let mut stock = changed.wait_for(stock.lock().await, |stock| *stock >= 3).await;
///         *stock -= 3;
///     });
///     coreloop::yield_now().await;
///     let (stock, changed) = &*shared;
///     *stock.lock().await += 4;
///     changed.notify_all();
///     task.await.unwrap();
///     assert_eq!(*stock.lock().await, 1);
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::Condition::new());
/// ```
pub struct Condition {
    room: WaitRoom<(), Notice>,
}

impl Condition {
    /// One for which nobody waits.
    pub const fn new() -> Self {
        Self { room: WaitRoom::new(Note::Condition) }
    }

    /// Unlocks, waits for a notification, and locks again.
    ///
    /// The place in line is taken and the mutex unlocked when the future is polled first. All waits on
    /// one condition should be with one mutex; nothing breaks if they are not.
    ///
    /// # Cancel safety
    /// A dropped future has given up the lock. A notification that it had received goes to the next one
    /// in line, also if it was dropped while it waited for the lock. A future that is forgotten keeps
    /// its place, and the notification that falls to it is lost.
    pub async fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex: &'a Mutex<T> = MutexGuard::mutex(&guard);
        let notice = Waiting { room: &self.room, key: None, guard: Some(guard) }.await;
        let guard = mutex.lock().await;
        notice.used();
        guard
    }

    /// Waits until `is_so` says yes of what the mutex holds; at once if it does already.
    ///
    /// # Cancel safety
    /// As [`wait`](Self::wait).
    pub async fn wait_for<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut is_so: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while !is_so(&mut guard) {
            guard = self.wait(guard).await;
        }
        guard
    }

    /// Notifies the first in line. Nothing happens if nobody waits: a notification is not kept.
    ///
    /// The caller need not hold the mutex, though what it changes is best changed under it.
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Notifies the first `n` in line, or all if they are fewer.
    pub fn notify(&self, n: usize) {
        for _ in 0..n {
            if self.room.hand(Notice::OneOf).is_err() {
                break;
            }
        }
        self.room.wake();
    }

    /// Notifies everyone who waits.
    pub fn notify_all(&self) {
        self.room.release_all(Notice::ToAll);
    }
}

impl Default for Condition {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").field("waiting", &self.room.waiting()).finish()
    }
}

/// How many were meant.
#[derive(Clone, Copy, Debug)]
enum Notice {
    /// As many as were asked for: who can't use it passes it on.
    OneOf,
    /// Everyone who waited then: the others have theirs.
    ToAll,
}

/// Stays in line until notified. Unlocks once it is in line.
struct Waiting<'c, 'a, T: ?Sized> {
    room: &'c WaitRoom<(), Notice>,
    key: Option<Key>,
    guard: Option<MutexGuard<'a, T>>,
}

impl<'c, T: ?Sized> Future for Waiting<'c, '_, T> {
    type Output = Received<'c>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Received<'c>> {
        let this = self.get_mut();
        let key = match this.key {
            Some(key) => key,
            None => {
                let key = this.room.enter(cx.waker().clone(), ());
                this.key = Some(key);
                // The unlocking may wake somebody who notifies us at once.
                this.guard = None;
                key
            }
        };
        let handed = this.room.poll(key, cx);
        if handed.is_ready() {
            this.key = None;
        }
        handed.map(|notice| Received { room: this.room, notice: Some(notice) })
    }
}

impl<T: ?Sized> Drop for Waiting<'_, '_, T> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let notice = self.room.leave(key);
        drop(Received { room: self.room, notice });
    }
}

/// A notification that is passed on unless it was used.
struct Received<'c> {
    room: &'c WaitRoom<(), Notice>,
    notice: Option<Notice>,
}

impl Received<'_> {
    fn used(mut self) {
        self.notice = None;
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        if let Some(Notice::OneOf) = self.notice {
            // Nobody left who waits: then it is as if nobody had.
            let _ = self.room.hand(Notice::OneOf);
            self.room.wake();
        }
    }
}
