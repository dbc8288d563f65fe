//! The tasks with the longest polls of late.
//!
//! Owns a short list: who had a poll that was longer than a bound, and how long its longest was, of the
//! present window of time and of the one before. The bound rises while many polls are beyond it and falls
//! with the next window, so that the list costs next to nothing however short or long the polls are; a poll
//! that is longer than all before it in its window is always listed. Fed by polls that are timed, so there
//! is none below the level of histograms.

use crate::metrics::LongPollSaid;
use crate::task::{TaskId, Whose};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// How long a window is. What is listed is 10 to 20 s old at most.
const WINDOW_NS: u64 = 10_000_000_000;

/// Tasks that one window lists.
const PLACES: usize = 16;

/// Shorter polls are nobody's concern.
const FLOOR_NS: u64 = 1_000;

/// After so many polls beyond the bound in one window it is doubled.
const CALLS_PER_STEP: u32 = 32;

#[derive(Default)]
pub(super) struct LongPolls {
    /// Polls of at most this time are passed over.
    floor_ns: Cell<u64>,
    /// When the present window ends.
    until_ns: Cell<u64>,
    /// Polls beyond the bound since it was last raised.
    calls: Cell<u32>,
    windows: RefCell<Windows>,
}

#[derive(Default)]
struct Windows {
    now: Vec<Entry>,
    before: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    whose: Whose,
    name: Option<Arc<str>>,
    took_ns: u64,
    ended_ns: u64,
}

impl LongPolls {
    /// A poll of `whose` took this long, and has ended now. `name` is called for one that was not listed
    /// before.
    #[inline]
    pub(super) fn polled(
        &self,
        whose: Whose,
        took_ns: u64,
        now_ns: u64,
        name: impl FnOnce() -> Option<Arc<str>>,
    ) {
        if took_ns > self.floor_ns.get() || now_ns >= self.until_ns.get() {
            self.note(whose, took_ns, now_ns, name);
        }
    }

    #[cold]
    fn note(
        &self,
        whose: Whose,
        took_ns: u64,
        now_ns: u64,
        name: impl FnOnce() -> Option<Arc<str>>,
    ) {
        let windows = &mut *self.windows.borrow_mut();
        self.turn(windows, now_ns);
        if took_ns <= self.floor_ns.get() {
            return;
        }
        let known = windows.now.iter_mut().find(|entry| entry.whose.word == whose.word);
        match known {
            Some(entry) if entry.took_ns >= took_ns => {}
            Some(entry) => (entry.took_ns, entry.ended_ns) = (took_ns, now_ns),
            None => {
                let entry = Entry { whose, name: name(), took_ns, ended_ns: now_ns };
                let is_full = windows.now.len() == PLACES;
                match windows.now.iter_mut().min_by_key(|entry| entry.took_ns) {
                    Some(least) if is_full => *least = entry,
                    _ => windows.now.push(entry),
                }
            }
        }
        self.raise(&windows.now);
    }

    /// Raises the bound if that many polls are beyond it, but not above the longest; nor is it below the
    /// least of a full list.
    fn raise(&self, listed: &[Entry]) {
        let mut floor = self.floor_ns.get();
        let calls = self.calls.get() + 1;
        self.calls.set(calls % CALLS_PER_STEP);
        if calls == CALLS_PER_STEP {
            let longest = listed.iter().map(|entry| entry.took_ns).max().unwrap_or(0);
            floor = (floor * 2).min(longest).max(floor);
        }
        if listed.len() == PLACES {
            floor = floor.max(listed.iter().map(|entry| entry.took_ns).min().unwrap_or(0));
        }
        self.floor_ns.set(floor);
    }

    /// Begins another window if the present one is over.
    fn turn(&self, windows: &mut Windows, now_ns: u64) {
        let until = self.until_ns.get();
        if now_ns < until {
            return;
        }
        let is_next = now_ns - until < WINDOW_NS;
        windows.before = std::mem::take(&mut windows.now);
        if !is_next {
            windows.before.clear();
        }
        self.until_ns.set(now_ns.saturating_add(WINDOW_NS));
        self.floor_ns.set(FLOOR_NS);
        self.calls.set(0);
    }

    /// What is listed at `now_ns`, the longest first, each task once.
    pub(super) fn read(&self, now_ns: u64) -> Vec<LongPollSaid> {
        let windows = &mut *self.windows.borrow_mut();
        if !(windows.now.is_empty() && windows.before.is_empty()) {
            self.turn(windows, now_ns);
        }
        let mut all: Vec<&Entry> = windows.now.iter().chain(&windows.before).collect();
        all.sort_by_key(|entry| std::cmp::Reverse(entry.took_ns));
        let mut told: Vec<LongPollSaid> = Vec::with_capacity(all.len().min(PLACES));
        for entry in all {
            let task = TaskId::of(entry.whose.word).parts();
            if told.len() < PLACES && told.iter().all(|known| known.task != task) {
                told.push(LongPollSaid {
                    task,
                    name: entry.name.clone(),
                    spawned_at: entry.whose.spawned_at,
                    took_ns: entry.took_ns,
                    ended_ns: entry.ended_ns,
                });
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::task::waker::Word;

    const US: u64 = 1_000;
    const SECOND: u64 = 1_000_000_000;

    fn whose(slot: u32) -> Whose {
        Whose { word: Word::new(0, slot, 0), spawned_at: Some(Location::caller()) }
    }

    fn listed(polls: &LongPolls, now: u64) -> Vec<u64> {
        polls.read(now).iter().map(|poll| poll.took_ns).collect()
    }

    #[test]
    fn each_task_is_listed_once_with_its_longest() {
        let polls = LongPolls::default();
        for (slot, took) in [(1, 5 * US), (2, 9 * US), (1, 7 * US), (1, 2 * US), (3, US / 2)] {
            polls.polled(whose(slot), took, SECOND, || Some(format!("t{slot}").into()));
        }
        assert_eq!(listed(&polls, SECOND), [9 * US, 7 * US], "shorter ones are not listed");
        let first = &polls.read(3 * SECOND)[0];
        assert_eq!((first.name.as_deref(), first.ended_ns), (Some("t2"), SECOND));
        assert!(first.spawned_at.unwrap().file().ends_with("long_polls.rs"), "{first:?}");
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let polls = LongPolls::default();
        polls.polled(whose(1), 900 * US, SECOND, || None);
        polls.polled(whose(2), 5 * US, 12 * SECOND, || None);
        assert_eq!(listed(&polls, 12 * SECOND), [900 * US, 5 * US], "of the window before");
        polls.polled(whose(2), 6 * US, 23 * SECOND, || None);
        assert_eq!(listed(&polls, 23 * SECOND), [6 * US,].as_slice(), "of two before: gone");
        assert_eq!(listed(&polls, 60 * SECOND), [0; 0], "also where nothing is polled any more");
    }

    #[test]
    fn the_longest_are_listed_however_many_there_are() {
        let polls = LongPolls::default();
        // Scattered, so that neither the first nor the last are the longest.
        let took = |slot: u32| u64::from(slot.wrapping_mul(2_654_435_761) % 100_000) * US;
        for slot in 1..5_000 {
            polls.polled(whose(slot), took(slot), SECOND, || None);
        }
        let longest = (1..5_000).map(took).max().unwrap();
        let listed = listed(&polls, SECOND);
        assert_eq!((listed[0], listed.len()), (longest, PLACES));
    }

    #[test]
    fn many_polls_of_one_task_are_soon_passed_over() {
        let polls = LongPolls::default();
        let mut noted = 0;
        for poll in 0..100_000 {
            let took = 3 * US + poll % 7;
            noted += u32::from(took > polls.floor_ns.get());
            polls.polled(whose(1), took, SECOND, || None);
        }
        assert!(noted < 4 * CALLS_PER_STEP, "{noted} times beyond the bound");
        polls.polled(whose(2), 50 * US, SECOND, || None);
        assert_eq!(listed(&polls, SECOND), [50 * US, 3 * US + 6], "a longer one is listed");
    }
}
