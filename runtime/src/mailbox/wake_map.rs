//! Wakes from other threads, as one bit per task slot.
//!
//! Owns the bits and the two summary levels above them. Never full, never blocks, allocates only on the
//! owning core. A bit says "poll this slot", not which task: at worst a stranger is polled once in vain.
//!
//! Protocol: a setter goes upwards (slot bit, word bit, segment bit), the owner downwards, clearing each
//! level with a swap before it looks below. So a bit that the owner did not see has its summary bits set
//! after the owner's swap, and is found the next time. A setter that finds its slot bit set may stop: the
//! one who set it is about to, or did, go all the way up, and the read-modify-writes of both on the word
//! order what either wrote before the owner's swap.

use std::ptr;

use crate::sys::shared::{AtomicPtr, AtomicU64, Ordering};

/// Bits of a word that are used, for slots as for words below and segments. A model has few.
const BITS: usize = if cfg!(loom) { 2 } else { 64 };
const WORDS: usize = 8 * BITS;
const SLOTS_PER_SEGMENT: u32 = (WORDS * BITS) as u32;
const SEGMENTS: usize = 8 * BITS;

/// Slots that can be named, and so tasks of one core.
pub(crate) const SLOTS_MAX: u32 = SLOTS_PER_SEGMENT * SEGMENTS as u32;

struct Segment {
    words: [AtomicU64; WORDS],
    summary: [AtomicU64; WORDS / BITS],
}

pub(crate) struct WakeMap {
    /// Never freed once set: a stale wake may come at any time.
    segments: [AtomicPtr<Segment>; SEGMENTS],
    dirty: [AtomicU64; SEGMENTS / BITS],
}

impl WakeMap {
    pub(crate) fn new() -> Self {
        Self {
            segments: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            dirty: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Makes room for the bits of all slots below `slots`. The owning core only.
    pub(crate) fn reserve(&self, slots: u32) {
        let needed = slots.div_ceil(SLOTS_PER_SEGMENT) as usize;
        for segment in &self.segments[..needed] {
            if segment.load(Ordering::Relaxed).is_null() {
                let fresh = Box::new(Segment {
                    words: std::array::from_fn(|_| AtomicU64::new(0)),
                    summary: std::array::from_fn(|_| AtomicU64::new(0)),
                });
                segment.store(Box::into_raw(fresh), Ordering::Release);
            }
        }
    }

    /// Sets the bit of `slot`, from any thread. Bits of slots that never were are dropped.
    pub(crate) fn set(&self, slot: u32) {
        let s = (slot / SLOTS_PER_SEGMENT) as usize;
        let Some(segment) = self.segment(s) else { return };
        let at = (slot % SLOTS_PER_SEGMENT) as usize;
        let (w, bit) = (at / BITS, 1 << (at % BITS));
        if segment.words[w].fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return;
        }
        segment.summary[w / BITS].fetch_or(1 << (w % BITS), Ordering::AcqRel);
        self.dirty[s / BITS].fetch_or(1 << (s % BITS), Ordering::AcqRel);
    }

    /// Takes every bit that is set, the owning core only, lowest slot first.
    pub(crate) fn drain(&self, mut woken: impl FnMut(u32)) {
        for (d, dirty) in self.dirty.iter().enumerate() {
            if dirty.load(Ordering::Relaxed) == 0 {
                continue;
            }
            for s in bits(dirty.swap(0, Ordering::AcqRel)).map(|b| d * BITS + b) {
                let Some(segment) = self.segment(s) else { continue };
                for (m, summary) in segment.summary.iter().enumerate() {
                    for w in bits(summary.swap(0, Ordering::AcqRel)).map(|b| m * BITS + b) {
                        for b in bits(segment.words[w].swap(0, Ordering::AcqRel)) {
                            woken(s as u32 * SLOTS_PER_SEGMENT + (w * BITS + b) as u32);
                        }
                    }
                }
            }
        }
    }

    fn segment(&self, s: usize) -> Option<&Segment> {
        let segment = self.segments.get(s)?.load(Ordering::Acquire);
        // SAFETY: null, or made by Box::into_raw in `reserve` and never freed.
        unsafe { segment.as_ref() }
    }
}

/// Positions of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let at = word.trailing_zeros() as usize;
            word &= word - 1;
            at
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_out_once_and_in_order() {
        let map = WakeMap::new();
        map.reserve(SLOTS_PER_SEGMENT + 1);
        let slots = [0, 1, 63, 64, 4095, 4096, SLOTS_PER_SEGMENT - 1, SLOTS_PER_SEGMENT];
        slots.iter().for_each(|s| map.set(*s));
        map.set(64);
        map.set(SLOTS_PER_SEGMENT * 7);
        let mut seen = Vec::new();
        map.drain(|s| seen.push(s));
        assert_eq!(seen, slots);
        map.drain(|s| panic!("slot {s} twice"));
    }

    #[test]
    fn no_wake_is_lost_between_two_setters_and_the_owner() {
        use std::sync::atomic::{AtomicBool, AtomicU32};
        let map = WakeMap::new();
        map.reserve(200);
        let posted: Vec<AtomicU32> = (0..200).map(|_| AtomicU32::new(0)).collect();
        let ended = AtomicBool::new(false);
        let mut seen = vec![0; 200];
        std::thread::scope(|scope| {
            let setters: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for i in 0..100_000 {
                            let slot = i % 200;
                            posted[slot].fetch_add(1, Ordering::Relaxed);
                            map.set(slot as u32);
                        }
                    })
                })
                .collect();
            let owner = scope.spawn(|| {
                loop {
                    let last = ended.load(Ordering::Acquire);
                    // What a setter wrote before its wake is visible after the drain that takes it.
                    map.drain(|s| {
                        seen[s as usize] = posted[s as usize].load(Ordering::Relaxed);
                    });
                    if last {
                        break;
                    }
                }
            });
            setters.into_iter().for_each(|t| t.join().unwrap());
            ended.store(true, Ordering::Release);
            owner.join().unwrap();
        });
        assert!(seen.iter().all(|n| *n == 1000), "{seen:?}");
    }
}
