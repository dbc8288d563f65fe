//! Who waits at one end of something that two cores share.
//!
//! Owns [`Waiter`]: nobody, a task that its own core watches for, or a waker. Protocol: who waits sets
//! itself, then looks at what it waits for once more; who changes that publishes it, then looks who waits.
//! Both are stores and looks that keep their order, so at least one of the two sees the other.
//!
//! For a watched task a change is no call at all while its core runs: the core looks by itself
//! ([`watch`](super::watch)) and only a parked one is woken. Knows cores and slots by number.

use std::task::Waker;

use super::cell;
use crate::contain::{let_go, wake};
use crate::spans;
use crate::sys::shared::{AtomicU64, LOOK, Mutex, Ordering, fence, publish_u64};

const NOBODY: u64 = 0;
const BY_WAKER: u64 = 1;

pub(crate) struct Waiter {
    /// `NOBODY`, `BY_WAKER`, or core and slot; see [`name`].
    who: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Waiter {
    pub(crate) fn new() -> Self {
        Self { who: AtomicU64::new(NOBODY), waker: Mutex::new(None) }
    }

    /// The task of `slot` waits, and its core watches for what it waits for. Look once more afterwards.
    pub(crate) fn set_watched(&self, core: u32, slot: u32) {
        publish_u64(&self.who, name(core, slot));
    }

    /// Whoever `waker` wakes waits. Look once more afterwards.
    pub(crate) fn set_waker(&self, waker: Waker) {
        let old = lock(&self.waker).replace(waker);
        publish_u64(&self.who, BY_WAKER);
        // Someone else's code, with nothing held.
        if let Some(old) = old {
            let_go(old);
        }
    }

    /// Nobody waits any more. By the one who did.
    pub(crate) fn clear(&self) {
        let by_waker = self.who.load(Ordering::Relaxed) == BY_WAKER;
        self.who.store(NOBODY, Ordering::Relaxed);
        if by_waker && let Some(old) = self.take_waker() {
            let_go(old);
        }
    }

    /// What is waited for has changed, by a [`publish`](crate::sys::shared::publish) of this thread.
    #[inline]
    pub(crate) fn published(&self) {
        let who = self.who.load(LOOK);
        if who != NOBODY {
            self.tell(who);
        }
    }

    #[inline(never)]
    fn tell(&self, who: u64) {
        if who == BY_WAKER {
            self.call_waker();
        } else if let Some(cell) = cell::cell(core_of(who)) {
            cell.unpark();
        }
    }

    /// Wakes who waits, for a change that no core watches for.
    #[cold]
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        match self.who.load(LOOK) {
            NOBODY => {}
            BY_WAKER => self.call_waker(),
            who => {
                spans::woken(core_of(who), slot_of(who), None);
                if let Some(cell) = cell::cell(core_of(who)) {
                    cell.wake(slot_of(who));
                }
            }
        }
    }

    /// Someone else's code, to be run with nothing held.
    fn take_waker(&self) -> Option<Waker> {
        lock(&self.waker).take()
    }

    fn call_waker(&self) {
        // It may have gone, or another one come, since `who` was read; that one is woken in vain.
        let waker = self.take_waker();
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

/// A core and a slot as one word, above the two that mean something else.
fn name(core: u32, slot: u32) -> u64 {
    u64::from(core + 1) << 32 | u64::from(slot)
}

fn core_of(who: u64) -> u32 {
    (who >> 32) as u32 - 1
}

fn slot_of(who: u64) -> u32 {
    who as u32
}

fn lock<T>(mutex: &Mutex<T>) -> impl std::ops::DerefMut<Target = T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
