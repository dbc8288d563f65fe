//! Who waits at one end of something that two cores share.
//!
//! Owns [`Watcher`] and [`Now`], which [`Waiter`] is both of: nobody, a task that its own core watches
//! for, or a waker. Protocol: who waits sets itself, then looks at what it waits for once more; who
//! changes that publishes it, then looks who waits. Both are stores and looks that keep their order, so
//! at least one of the two sees the other.
//!
//! For a watched task a change is no call at all while its core runs: the core looks by itself
//! ([`watch`](super::watch)) and only a parked one is woken. So who publishes asks first which core has
//! watched last, a word that hardly ever changes, and whether that is parked. Who waits now, which the
//! other end writes twice for each wait, is read only then: neither end waits for the cache line of the
//! other at each value.
//!
//! That is enough: who waits on another core sets that as the watcher before it looks, and a core that
//! is about to park announces it before its last look. Knows cores and slots by number.

use std::task::Waker;

use super::cell::{self, CoreCell};
use crate::contain::{let_go, wake};
use crate::spans;
use crate::sys::shared::{AtomicU64, LOOK, Mutex, Ordering, fence, publish_u64};

const NOBODY: u64 = 0;
const BY_WAKER: u64 = 1;

/// One end's waits. Its two parts lie apart.
#[derive(Clone, Copy)]
pub(crate) struct Waiter<'a> {
    pub(crate) watcher: &'a Watcher,
    pub(crate) now: &'a Now,
}

/// Who waited last: `NOBODY` if none did yet, `BY_WAKER`, or a core, as [`name`] has it for slot 0.
/// Among what both ends read and hardly ever write.
pub(crate) struct Watcher(AtomicU64);

/// Who waits now. To lie on cache lines of its own, which stay with the end that waits.
pub(crate) struct Now {
    /// `NOBODY`, `BY_WAKER`, or core and slot; see [`name`].
    who: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Watcher {
    pub(crate) fn nobody() -> Self {
        Self(AtomicU64::new(NOBODY))
    }
}

impl Now {
    pub(crate) fn nobody() -> Self {
        Self { who: AtomicU64::new(NOBODY), waker: Mutex::new(None) }
    }
}

impl Waiter<'_> {
    /// The task of `slot` waits, and its core watches for what it waits for. Look once more afterwards.
    pub(crate) fn set_watched(&self, core: u32, slot: u32) {
        self.set_watcher(name(core, 0));
        publish_u64(&self.now.who, name(core, slot));
    }

    /// Whoever `waker` wakes waits. Look once more afterwards.
    pub(crate) fn set_waker(&self, waker: Waker) {
        let old = lock(&self.now.waker).replace(waker);
        self.set_watcher(BY_WAKER);
        publish_u64(&self.now.who, BY_WAKER);
        // Someone else's code, with nothing held.
        if let Some(old) = old {
            let_go(old);
        }
    }

    #[inline]
    fn set_watcher(&self, watcher: u64) {
        if self.watcher.0.load(Ordering::Relaxed) != watcher {
            publish_u64(&self.watcher.0, watcher);
        }
    }

    /// Nobody waits any more. By the one who did.
    pub(crate) fn clear(&self) {
        let by_waker = self.now.who.load(Ordering::Relaxed) == BY_WAKER;
        self.now.who.store(NOBODY, Ordering::Relaxed);
        if by_waker && let Some(old) = self.take_waker() {
            let_go(old);
        }
    }

    /// What is waited for has changed, by a [`publish`](crate::sys::shared::publish) of this thread.
    #[inline]
    pub(crate) fn published(&self) {
        let watcher = self.watcher.0.load(LOOK);
        if watcher != NOBODY {
            self.tell(watcher);
        }
    }

    #[inline(never)]
    fn tell(&self, watcher: u64) {
        if watcher != BY_WAKER && !cell::cell(core_of(watcher)).is_some_and(CoreCell::is_parked) {
            return;
        }
        match self.now.who.load(LOOK) {
            NOBODY => {}
            BY_WAKER => self.call_waker(),
            who => {
                if let Some(cell) = cell::cell(core_of(who)) {
                    cell.unpark();
                }
            }
        }
    }

    /// Wakes who waits, for a change that no core watches for.
    #[cold]
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        match self.now.who.load(LOOK) {
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
        lock(&self.now.waker).take()
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
