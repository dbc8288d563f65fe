//! The wheel against a model, at its level boundaries, and through its keys and drops.
//!
//! The model is a `BTreeMap` by (tick at which the timer counts as due, order of insertion), which
//! is the firing order that `pop_due` documents. Random runs print their seed when they fail;
//! `CORELOOP_SEED=<seed>` repeats that one alone.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;

use super::level::Position;
use super::slab::Slab;
use super::{TimerKey, Wheel};

#[test]
fn random_operations_match_the_model() {
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        for step in 0..STEPS_PER_SEED {
            match pair.random.below(16) {
                0..=6 => pair.insert(),
                7..=8 => pair.cancel_live(),
                9 => pair.cancel_stale(),
                10 => pair.replace_value(),
                _ => pair.advance(),
            }
            pair.check_next_expiry();
            if step % 32 == 0 {
                pair.wheel.assert_invariants();
            }
        }
        pair.drain_by_next_expiry();
    });
}

#[test]
fn fires_exactly_at_the_deadline_across_level_boundaries() {
    for start in boundary_ticks() {
        for deadline in boundary_ticks().into_iter().filter(|&deadline| deadline > start) {
            let mut wheel = Wheel::new(start);
            wheel.insert(deadline, deadline);
            assert_eq!(wheel.next_expiry(), Some(deadline));
            assert_eq!(wheel.pop_due(deadline - 1), None, "{deadline} fires early from {start}");
            wheel.assert_invariants();
            assert_eq!(wheel.next_expiry(), Some(deadline));
            assert_eq!(wheel.pop_due(deadline), Some((deadline, deadline)));
            assert_eq!(wheel.pop_due(u64::MAX), None);
        }
    }
}

#[test]
fn boundary_deadlines_fire_in_order_in_one_leap_and_tick_by_tick() {
    let mut ticks = boundary_ticks();
    let leap = |ticks: &[u64]| {
        let mut wheel = Wheel::new(0);
        for &tick in ticks {
            wheel.insert(tick, ());
        }
        std::iter::from_fn(|| wheel.pop_due(u64::MAX)).map(|(tick, ())| tick).collect::<Vec<_>>()
    };
    let sorted = ticks.clone();
    ticks.reverse();
    assert_eq!(leap(&ticks), sorted);

    let mut wheel = Wheel::new(0);
    for &tick in &ticks {
        wheel.insert(tick, ());
    }
    for now in 0..=5000 {
        let fired = std::iter::from_fn(|| wheel.pop_due(now)).count();
        assert_eq!(fired, usize::from(sorted.contains(&now)), "at {now}");
    }
}

#[test]
fn positions_read_the_deadline_six_bits_at_a_time() {
    for level in 0..11 {
        let width = 1_u64 << (6 * level);
        let slots = if level == 10 { 16 } else { 64 };
        let mut seen = Vec::new();
        for slot in 1..slots {
            let (first, last) = (slot * width, slot * width + (width - 1));
            assert_eq!(Position::of(first, 0), Position::of(last, 0));
            assert_eq!(Position::of(first, 0).start(0), first);
            assert_eq!(Position::of(last, 0).start(first - 1), first);
            assert!(!seen.contains(&Position::of(first, 0)));
            seen.push(Position::of(first, 0));
        }
    }
}

#[test]
fn one_far_timer_wakes_an_idle_core_once() {
    let hour_us = 3_600_000_000;
    let mut wheel = Wheel::new(12_345);
    wheel.insert(12_345 + hour_us, ());
    assert_eq!(wheel.next_expiry(), Some(12_345 + hour_us));
    assert_eq!(wheel.pop_due(12_345 + hour_us), Some((12_345 + hour_us, ())));
    assert_eq!(wheel.next_expiry(), None);
}

#[test]
fn a_cancelled_neighbour_costs_one_idle_wake_up() {
    let mut wheel = Wheel::new(0);
    let (early, late) = (3 << 30, (3 << 30) + 12_345_678);
    let key = wheel.insert(early, ());
    wheel.insert(late, ());
    wheel.cancel(key);
    assert_eq!(wheel.next_expiry(), Some(early));
    assert_eq!(wheel.pop_due(early), None);
    assert_eq!(wheel.next_expiry(), Some(late));
    assert_eq!(wheel.pop_due(late), Some((late, ())));
}

#[test]
fn one_deadline_fires_in_order_of_insertion_whatever_the_distance() {
    let mut wheel = Wheel::new(0);
    let deadline = 1_000_000;
    for (id, now) in [0, 1, 500_000, 999_000, 999_990, 999_999].into_iter().enumerate() {
        assert_eq!(wheel.pop_due(now), None);
        wheel.insert(deadline, id);
    }
    for id in 0..6 {
        assert_eq!(wheel.pop_due(u64::MAX), Some((deadline, id)));
    }
}

#[test]
fn a_reached_deadline_fires_after_its_tick_and_before_later_ones() {
    let mut wheel = Wheel::new(0);
    wheel.insert(50, "first");
    wheel.insert(50, "second");
    wheel.insert(70, "last");
    assert_eq!(wheel.pop_due(100), Some((50, "first")));
    wheel.insert(60, "between");
    wheel.insert(10, "past");
    assert_eq!(wheel.next_expiry(), Some(50));
    let rest: Vec<_> = std::iter::from_fn(|| wheel.pop_due(100)).collect();
    assert_eq!(rest, [(50, "second"), (10, "past"), (60, "between"), (70, "last")]);
    wheel.insert(99, "late");
    assert_eq!(wheel.next_expiry(), Some(100));
    assert_eq!(wheel.pop_due(0), Some((99, "late")), "a tick reached is not unreached");
}

#[test]
fn never_is_an_ordinary_timer() {
    let mut wheel = Wheel::new(u64::MAX - 1);
    let key = wheel.insert(u64::MAX, ());
    assert_eq!(wheel.pop_due(u64::MAX - 1), None);
    assert_eq!(wheel.next_expiry(), Some(u64::MAX));
    assert_eq!(wheel.pop_due(u64::MAX), Some((u64::MAX, ())));
    assert_eq!(wheel.cancel(key), None);
    wheel.insert(u64::MAX, ());
    assert_eq!(wheel.pop_due(u64::MAX), Some((u64::MAX, ())));
}

#[test]
fn a_stale_key_names_nothing_after_reuse() {
    let mut wheel = Wheel::new(0);
    let stale = wheel.insert(10, 'a');
    assert_eq!(wheel.cancel(stale), Some('a'));
    let live = wheel.insert(10, 'b');
    assert_eq!(live.index(), stale.index(), "the entry is reused");
    assert_eq!(wheel.cancel(stale), None);
    assert_eq!(wheel.get_mut(stale), None);
    *wheel.get_mut(live).expect("live") = 'c';
    assert_eq!(wheel.pop_due(10), Some((10, 'c')));
    assert_eq!(wheel.cancel(live), None);
    assert_eq!(wheel.cancel(TimerKey::from_u64(u64::MAX)), None);
    assert_eq!(wheel.len(), 0);
}

#[test]
fn an_entry_retires_at_its_last_generation() {
    let mut wheel = Wheel::new(0);
    let old = wheel.insert(10, ());
    wheel.cancel(old);
    wheel.slab.set_generation(old.index(), u32::MAX);
    let last = wheel.insert(10, ());
    assert_eq!((last.index(), last.to_u64() >> 32), (old.index(), u64::from(u32::MAX)));
    assert_eq!(wheel.cancel(last), Some(()));
    assert_eq!(wheel.cancel(last), None);
    assert_eq!(wheel.get_mut(last), None);
    let fresh = wheel.insert(10, ());
    assert_ne!(fresh.index(), old.index());
    assert_eq!(wheel.cancel(old), None);
    assert_eq!(wheel.len(), 1);
}

#[test]
fn keys_survive_a_word_of_user_data() {
    for packed in [0, 1, 1 << 32, u64::MAX, 0x0123_4567_89ab_cdef] {
        assert_eq!(TimerKey::from_u64(packed).to_u64(), packed);
    }
}

#[test]
fn memory_follows_the_live_timers() {
    let mut wheel = Wheel::new(0);
    for now in 0..10_000 {
        let key = wheel.insert(now + 1 + now % 100, ());
        if now % 3 == 0 {
            wheel.cancel(key);
        }
        while wheel.pop_due(now).is_some() {}
        assert!(wheel.len() <= 100);
    }
    assert!(wheel.slab.allocated() <= 101, "{} entries", wheel.slab.allocated());
    assert!(wheel.chunks.allocated() <= 101, "{} chunks", wheel.chunks.allocated());
    assert_eq!(Slab::<Waker>::ENTRY_BYTES, 32);
}

#[test]
fn lists_take_no_more_memory_than_their_timers_whatever_is_cancelled() {
    // One that stays, and many that are set and called off again behind it.
    let mut wheel = Wheel::new(0);
    wheel.insert(1_000_000, 0);
    for i in 0..10_000 {
        let key = wheel.insert(1_000_000, i);
        assert_eq!(wheel.cancel(key), Some(i));
    }
    assert_eq!(wheel.chunks.allocated(), 1, "the last place is used again");
    // Ten at a time, the oldest called off first.
    let mut keys = std::collections::VecDeque::new();
    for i in 0..10_000 {
        keys.push_back(wheel.insert(1_000_000, i));
        if keys.len() > 10 {
            assert_eq!(wheel.cancel(keys.pop_front().expect("eleven")), Some(i - 10));
        }
    }
    assert!(wheel.chunks.allocated() <= 3, "{} chunks", wheel.chunks.allocated());
    // One of each full chunk stays: that is the worst, a chunk for each timer.
    let all: Vec<_> = (0..13 * 50).map(|i| wheel.insert(5_000_000, i)).collect();
    for (i, key) in all.into_iter().enumerate() {
        if i % 13 != 7 {
            wheel.cancel(key);
        }
    }
    wheel.assert_invariants();
    assert!(wheel.chunks.allocated() <= 50 + 3, "{} chunks", wheel.chunks.allocated());
    let late = std::iter::from_fn(|| wheel.pop_due(6_000_000)).map(|(_, i)| i).skip(11);
    assert_eq!(late.collect::<Vec<_>>(), (0..50).map(|c| c * 13 + 7).collect::<Vec<_>>());
}

#[test]
fn values_drop_once_with_the_wheel_or_their_taker() {
    let counter = Rc::new(());
    let mut wheel = Wheel::new(0);
    for deadline in [0, 5, 70, 5000, u64::MAX] {
        wheel.insert(deadline, Rc::clone(&counter));
    }
    let key = wheel.insert(6, Rc::clone(&counter));
    assert_eq!(Rc::strong_count(&counter), 7);
    drop(wheel.cancel(key));
    assert_eq!(Rc::strong_count(&counter), 6);
    drop(wheel.pop_due(5));
    assert_eq!(Rc::strong_count(&counter), 5);
    drop(wheel);
    assert_eq!(Rc::strong_count(&counter), 1);
}

impl<T> Wheel<T> {
    /// Checks what the module docs claim, over the whole structure.
    fn assert_invariants(&self) {
        let due = self.chunks.walk(self.due);
        assert!(due.iter().all(|(index, _)| self.slab.deadline_at(*index) <= self.current));
        let mut linked = due;
        for (position, occupied, slot) in self.levels.survey() {
            assert_eq!(occupied, !slot.list.is_empty());
            for (index, place) in self.chunks.walk(slot.list) {
                let deadline = self.slab.deadline_at(index);
                assert_eq!(Position::of(deadline, self.current), position);
                assert!(slot.earliest <= deadline);
                assert!(slot.earliest >= position.start(self.current));
                linked.push((index, place));
            }
        }
        assert!(linked.iter().all(|(index, place)| self.slab.place_at(*index) == Some(*place)));
        assert_eq!(linked.len(), self.len());
    }
}

/// A wheel, its model, and the random source that drives both.
struct Pair {
    random: Xorshift,
    wheel: Wheel<u64>,
    /// By (tick at which it counts as due, order of insertion): key, deadline, value.
    model: BTreeMap<(u64, u64), (TimerKey, u64, u64)>,
    current: u64,
    inserted: u64,
    cancelled: u64,
    stale: Vec<TimerKey>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut random = Xorshift::new(seed);
        let current = random.spread();
        let (model, stale) = (BTreeMap::new(), Vec::new());
        let wheel = Wheel::new(current);
        Self { random, wheel, model, current, inserted: 0, cancelled: 0, stale }
    }

    fn insert(&mut self) {
        let near = self.random.below(200);
        let far = self.random.spread();
        let deadline = match self.random.below(16) {
            0 => u64::MAX,
            1 => self.current.saturating_sub(near),
            2 => self.current,
            3..=8 => self.current.saturating_add(near),
            // Crowds one tick, so that order within a deadline is tried.
            9 => self.current.saturating_add(64) & !63,
            _ => self.current.saturating_add(far),
        };
        let id = self.inserted;
        self.inserted += 1;
        let key = self.wheel.insert(deadline, id);
        self.model.insert((deadline.max(self.current), id), (key, deadline, id));
        assert_eq!(self.wheel.len(), self.model.len());
    }

    fn cancel_live(&mut self) {
        let Some(place) = self.pick() else { return };
        let (key, _, value) = self.model.remove(&place).expect("picked from the model");
        assert_eq!(self.wheel.cancel(key), Some(value));
        self.cancelled += 1;
        self.stale.push(key);
        assert_eq!(self.wheel.len(), self.model.len());
    }

    fn cancel_stale(&mut self) {
        if self.stale.is_empty() {
            return;
        }
        let chosen = self.random.below(self.stale.len() as u64) as usize;
        assert_eq!(self.wheel.cancel(self.stale[chosen]), None);
        assert_eq!(self.wheel.get_mut(self.stale[chosen]), None);
    }

    fn replace_value(&mut self) {
        let Some(place) = self.pick() else { return };
        let (key, _, value) = self.model.get_mut(&place).expect("picked from the model");
        let stored = self.wheel.get_mut(*key).expect("live");
        assert_eq!(stored, value);
        *value += 1_000_000;
        *stored = *value;
    }

    /// One round: pops all that is due, sometimes meddling between two pops.
    fn advance(&mut self) {
        let (small, leap) = (self.random.below(300), self.random.spread());
        let now = match self.random.below(16) {
            0..=3 => self.current.saturating_add(1),
            4..=5 => self.current,
            6 => self.current.saturating_sub(small),
            7..=11 => self.current.saturating_add(small),
            12..=14 => self.wheel.next_expiry().unwrap_or(self.current),
            _ if self.current > u64::MAX / 2 => self.current.saturating_add(small << 12),
            _ => self.current.saturating_add(leap >> 8),
        };
        while self.pop(now) {
            match self.random.below(12) {
                0 => self.insert(),
                1 => self.cancel_live(),
                _ => {}
            }
        }
    }

    /// One `pop_due` on both sides; false when nothing is due.
    fn pop(&mut self, now: u64) -> bool {
        let now = now.max(self.current);
        let due = self.model.first_key_value().map(|(&place, _)| place);
        let Some(place) = due.filter(|&(tick, _)| tick <= now) else {
            assert_eq!(self.wheel.pop_due(now), None);
            self.current = now;
            return false;
        };
        let (key, deadline, value) = self.model.remove(&place).expect("the first of the model");
        assert_eq!(self.wheel.pop_due(now), Some((deadline, value)));
        self.current = place.0;
        self.stale.push(key);
        assert_eq!(self.wheel.len(), self.model.len());
        true
    }

    fn check_next_expiry(&self) {
        let first = self.model.first_key_value().map(|(&(tick, _), _)| tick);
        let expiry = self.wheel.next_expiry();
        assert_eq!(expiry.is_some(), first.is_some());
        let (Some(first), Some(expiry)) = (first, expiry) else { return };
        assert!(self.current <= expiry && expiry <= first);
        if first / 64 == self.current / 64 || self.cancelled == 0 {
            assert_eq!(expiry, first);
        }
    }

    /// Fires everything by waking only at `next_expiry`, and counts the wake-ups in vain.
    fn drain_by_next_expiry(&mut self) {
        let mut idle = 0;
        while let Some(expiry) = self.wheel.next_expiry() {
            let mut fired = 0;
            while self.pop(expiry) {
                fired += 1;
            }
            idle += u64::from(fired == 0);
            assert!(idle <= self.cancelled, "more idle wake-ups than cancelled timers");
            assert!(self.wheel.next_expiry().is_none_or(|next| next > expiry), "no progress");
            self.check_next_expiry();
        }
        assert!(self.model.is_empty());
        self.wheel.assert_invariants();
    }

    /// The place of a random timer of the model.
    fn pick(&mut self) -> Option<(u64, u64)> {
        let nth = self.random.below(self.model.len().max(1) as u64) as usize;
        self.model.keys().nth(nth).copied()
    }
}

/// Marsaglia's 64-bit xorshift: good enough to wander, and the same on every machine.
struct Xorshift(u64);

impl Xorshift {
    fn new(seed: u64) -> Self {
        // Spreads small seeds over the word; zero is the one state xorshift cannot leave.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Every magnitude alike, so that every level is used.
    fn spread(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }
}

/// Says on the way out of a failing run how to repeat it.
struct NameSeed(u64);

impl Drop for NameSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with CORELOOP_SEED={}", self.0);
        }
    }
}

fn for_each_seed(run: impl Fn(u64)) {
    let chosen = std::env::var("CORELOOP_SEED").ok();
    let seeds = match chosen.map(|seed| seed.parse().expect("CORELOOP_SEED is a number")) {
        Some(seed) => vec![seed],
        None => (0..SEEDS).collect(),
    };
    for seed in seeds {
        let _named = NameSeed(seed);
        run(seed);
    }
}

/// The ticks around the edge of every level, in order.
fn boundary_ticks() -> Vec<u64> {
    let mut ticks = vec![0, 1, 2, 127, 128, u64::MAX - 1, u64::MAX];
    for level in 1..11 {
        let edge = 1_u64 << (6 * level);
        ticks.extend([edge - 1, edge, edge + 1, 2 * edge - 1, 2 * edge, edge + edge / 2]);
    }
    ticks.sort_unstable();
    ticks.dedup();
    ticks
}

const SEEDS: u64 = 256;
const STEPS_PER_SEED: u32 = 2_000;
