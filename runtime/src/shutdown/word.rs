//! What all cores are told.
//!
//! Owns [`Word`]: when to stop and when to cancel, once that is known, how many cores have not drained, and
//! who is to hear of a change. Invariants: times only move forward to earlier ones; the lock is not held
//! while a waker is cloned, called or dropped.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::contain::wake;
use crate::sys::shared::{Mutex, MutexGuard};
use crate::task::current;
use crate::task::info::Note;
use crate::time::Instant;

/// When what is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) stop_at: Instant,
    pub(super) cancel_at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Word {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told: Told,
    /// A few a core: the one that keeps its times, and whoever waits for the begin.
    waiting: Vec<(u64, Waker)>,
    next_key: u64,
}

/// What is known now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) times: Option<Times>,
    /// Those that serve, or may again.
    pub(super) serving: usize,
}

impl Word {
    /// `false` if it was begun.
    pub(super) fn begin(&self, times: Times) -> bool {
        let mut state = self.lock();
        if state.told.times.is_some() {
            return false;
        }
        state.told.times = Some(times);
        wake_all(state);
        true
    }

    /// Begins, or moves what is yet to come to these times.
    pub(super) fn hasten(&self, times: Times) {
        let mut state = self.lock();
        let earlier = |old: Times| Times {
            stop_at: old.stop_at.min(times.stop_at),
            cancel_at: old.cancel_at.min(times.cancel_at),
        };
        state.told.times = Some(state.told.times.map_or(times, earlier));
        wake_all(state);
    }

    pub(super) fn times(&self) -> Option<Times> {
        self.lock().told.times
    }

    /// One more serves.
    pub(super) fn enter(&self) {
        self.lock().told.serving += 1;
    }

    /// It does not any more.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.told.serving -= 1;
        if state.told.serving == 0 {
            wake_all(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake_all(mut state: MutexGuard<'_, State>) {
    let waiting = mem::take(&mut state.waiting);
    drop(state);
    for (_, waker) in waiting {
        wake(waker);
    }
}

/// Waits until what is known is such as `is_so` wants it.
pub(super) struct Changed<F> {
    word: Arc<Word>,
    is_so: F,
    key: Option<u64>,
}

impl<F: Fn(Told) -> bool + Unpin> Changed<F> {
    pub(super) fn new(word: &Arc<Word>, is_so: F) -> Self {
        Self { word: word.clone(), is_so, key: None }
    }
}

impl<F: Fn(Told) -> bool + Unpin> Future for Changed<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let waker = cx.waker().clone();
        let mut state = this.word.lock();
        if (this.is_so)(state.told) {
            drop(state);
            drop(waker);
            return Poll::Ready(());
        }
        let entry = state.waiting.iter_mut().find(|(key, _)| Some(*key) == this.key);
        let old = match entry {
            Some((_, old)) => Some(mem::replace(old, waker)),
            None => {
                let key = state.next_key;
                state.next_key += 1;
                state.waiting.push((key, waker));
                this.key = Some(key);
                None
            }
        };
        drop(state);
        drop(old);
        current::note(Note::Shutdown);
        Poll::Pending
    }
}

impl<F> Drop for Changed<F> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut state = self.word.lock();
        let at = state.waiting.iter().position(|(k, _)| *k == key);
        let entry = at.map(|at| state.waiting.swap_remove(at));
        drop(state);
        drop(entry);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::model::thread;
    use crate::sys::modelled::{block_on, check};

    /// Two cores that wait for times such as `is_so` wants them.
    fn waiting(word: &Arc<Word>, is_so: fn(Times) -> bool) -> [thread::JoinHandle<()>; 2] {
        [(); 2].map(|()| {
            let word = word.clone();
            thread::spawn(move || {
                block_on(Changed::new(&word, |told: Told| told.times.is_some_and(is_so)));
            })
        })
    }

    #[test]
    fn loom_shutdown_every_core_hears_of_the_begin() {
        let now = Instant::now();
        check(4, move || {
            let word = Arc::new(Word::default());
            let cores = waiting(&word, |_| true);
            // Nothing but the begin: a change after it would tell them too.
            assert!(word.begin(Times { stop_at: now, cancel_at: now }));
            cores.into_iter().for_each(|core| core.join().unwrap());
        });
    }

    #[test]
    fn loom_shutdown_who_waits_for_all_hears_of_the_last() {
        check(4, move || {
            let word = Arc::new(Word::default());
            (0..2).for_each(|_| word.enter());
            let leaving = [(); 2].map(|()| {
                let word = word.clone();
                thread::spawn(move || word.leave())
            });
            block_on(Changed::new(&word, |told: Told| told.serving == 0));
            leaving.into_iter().for_each(|core| core.join().unwrap());
        });
    }

    #[test]
    fn loom_shutdown_every_core_hears_of_earlier_times() {
        let now = Instant::now();
        check(3, move || {
            let word = Arc::new(Word::default());
            let cores = waiting(&word, |times| times.cancel_at == times.stop_at);
            assert!(word.begin(Times { stop_at: now, cancel_at: now + Duration::from_secs(1) }));
            word.hasten(Times { stop_at: now, cancel_at: now });
            assert_eq!(word.times().map(|times| times.cancel_at), Some(now));
            cores.into_iter().for_each(|core| core.join().unwrap());
        });
    }
}
