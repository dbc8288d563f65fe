//! The geometry of the wheel: positions, slots, and the bitmaps that tell which are occupied.
//!
//! Invariants:
//! - a slot's bit in `occupied` is set exactly while its list has entries, and a level's bit in
//!   `levels` exactly while one of its slots is occupied;
//! - `earliest` of an occupied slot is at or before the deadline of each of its entries, and lies
//!   within the slot's span.
//!
//! It knows only the ends of the lists: what they hold is in `chain`, and how far the wheel has
//! advanced is told by the caller.

use super::chain::List;

/// One slot of one level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    level: u32,
    slot: u32,
}

impl Position {
    /// Where `deadline` belongs while the wheel stands at `current`, which is before it.
    pub(super) fn of(deadline: u64, current: u64) -> Self {
        debug_assert!(deadline > current);
        let level = (deadline ^ current).ilog2() / SLOT_BITS;
        let slot = (deadline >> (level * SLOT_BITS)) as u32 & SLOT_MASK;
        Self { level, slot }
    }

    /// The first tick of the slot. It shares with `current` all bits above its level.
    pub(super) fn start(self, current: u64) -> u64 {
        let shift = self.level * SLOT_BITS;
        // No bit is above the top level, which reaches past bit 63.
        let above = u64::MAX.checked_shl(shift + SLOT_BITS).unwrap_or(0);
        (current & above) | (u64::from(self.slot) << shift)
    }

    /// Whether the slot spans a single tick.
    pub(super) fn is_lowest(self) -> bool {
        self.level == 0
    }

    fn index(self) -> usize {
        (self.level * SLOTS_PER_LEVEL + self.slot) as usize
    }
}

/// The timers of one slot.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) list: List,
    /// A lower bound of the deadlines in `list`, exact as long as none was cancelled. Means nothing
    /// in an empty slot.
    pub(super) earliest: u64,
}

impl Slot {
    const EMPTY: Self = Self { list: List::EMPTY, earliest: u64::MAX };
}

/// All slots, by level.
pub(super) struct Levels {
    /// One bit for each level that is not empty.
    levels: u32,
    /// One bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    /// Empty until the first timer comes, then all slots at once (11 KiB).
    slots: Vec<Slot>,
}

impl Levels {
    pub(super) fn new() -> Self {
        Self { levels: 0, occupied: [0; LEVELS], slots: Vec::new() }
    }

    /// The occupied slot that is next in time.
    pub(super) fn first(&self) -> Option<Position> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros();
        let slot = self.occupied[level as usize].trailing_zeros();
        Some(Position { level, slot })
    }

    pub(super) fn slot(&self, position: Position) -> &Slot {
        &self.slots[position.index()]
    }

    pub(super) fn slot_mut(&mut self, position: Position) -> &mut Slot {
        &mut self.slots[position.index()]
    }

    /// Notes that the slot is about to receive a timer of this deadline. The caller links it.
    pub(super) fn occupy(&mut self, position: Position, deadline: u64) -> &mut Slot {
        if self.slots.is_empty() {
            self.allocate();
        }
        self.levels |= 1 << position.level;
        self.occupied[position.level as usize] |= 1 << position.slot;
        let slot = &mut self.slots[position.index()];
        let bound = if slot.list.is_empty() { u64::MAX } else { slot.earliest };
        slot.earliest = bound.min(deadline);
        slot
    }

    /// Notes that the slot's last timer is unlinked.
    pub(super) fn vacate(&mut self, position: Position) {
        let occupied = &mut self.occupied[position.level as usize];
        *occupied &= !(1 << position.slot);
        if *occupied == 0 {
            self.levels &= !(1 << position.level);
        }
    }

    /// Leaves the slot empty and hands out what it held.
    pub(super) fn take(&mut self, position: Position) -> Slot {
        self.vacate(position);
        std::mem::replace(self.slot_mut(position), Slot::EMPTY)
    }

    #[cold]
    fn allocate(&mut self) {
        self.slots = vec![Slot::EMPTY; LEVELS * SLOTS_PER_LEVEL as usize];
    }
}

#[cfg(test)]
impl Levels {
    /// Every slot with its position and whether its bits say that it is occupied.
    pub(super) fn survey(&self) -> impl Iterator<Item = (Position, bool, &Slot)> {
        self.slots.iter().enumerate().map(|(index, slot)| {
            let per_level = SLOTS_PER_LEVEL as usize;
            let (level, bit) = (index / per_level, index % per_level);
            let occupied = self.occupied[level] & (1 << bit) != 0;
            assert_eq!(self.levels & (1 << level) != 0, self.occupied[level] != 0);
            (Position { level: level as u32, slot: bit as u32 }, occupied, slot)
        })
    }
}

/// Six bits name a slot, so that a level's occupancy is one `u64`.
const SLOT_BITS: u32 = 6;
const SLOTS_PER_LEVEL: u32 = 1 << SLOT_BITS;
const SLOT_MASK: u32 = SLOTS_PER_LEVEL - 1;

/// As many levels as a 64-bit deadline has groups of six bits.
const LEVELS: usize = u64::BITS.div_ceil(SLOT_BITS) as usize;
