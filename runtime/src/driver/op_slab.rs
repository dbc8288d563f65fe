//! Where ops live while the kernel knows of them.
//!
//! Owns the slots: stable in memory, reused last in, first out, told apart by generation. Each holds an
//! op's own bytes (what the kernel has addresses of), its state and the waker to call.
//!
//! States of a slot:
//! ```text
//! Free -> Queued (written to the ring, or waiting for room) -> Done (completed, not taken) -> Free
//!         Queued + orphan (its future is gone)              -> Free at the completion
//! ```
//! Invariants: a slot's address never changes; its bytes are an initialised op exactly while it is not
//! Free; its generation moves on when it becomes Free. Knows nothing of rings and of what ops do.

use std::any::TypeId;
use std::mem::{self, MaybeUninit};
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::task::Waker;

use super::sqe::{Cqe, Sqe};

/// Names an op: slot index and generation. Its bits are the submission's user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Key {
    pub(crate) fn to_user_data(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_user_data(data: u64) -> Self {
        Self { index: data as u32, generation: (data >> 32) as u32 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Free,
    Queued,
    Done,
}

/// What the driver must be able to do with an op whose type it no longer knows.
pub(crate) struct VTable {
    pub(crate) type_id: fn() -> TypeId,
    pub(crate) prepare: unsafe fn(NonNull<u8>) -> Sqe,
    /// Runs at each completion, before anybody is woken. `Break` asks for a cancel.
    pub(crate) completed: unsafe fn(NonNull<u8>, Cqe) -> ControlFlow<()>,
    /// Consumes the op; its future is gone.
    pub(crate) orphaned: unsafe fn(NonNull<u8>, Cqe),
    /// Drops the op, which was never submitted.
    pub(crate) discard: unsafe fn(NonNull<u8>),
    /// Whether completions go to `completed` alone, and the last one frees the slot.
    pub(crate) multishot: bool,
}

const INLINE_WORDS: usize = 6;

/// Bytes of an op that fit into its slot; larger ones are boxed.
pub(crate) const INLINE_BYTES: usize = INLINE_WORDS * 8;

pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) state: State,
    pub(crate) orphan: bool,
    /// Its submission still waits for room in the queue.
    pub(crate) unsent: bool,
    /// A cancel for it has been asked for.
    pub(crate) cancelled: bool,
    /// The op's code, for histograms by kind.
    pub(crate) opcode: u8,
    /// Before the completion: the time of submission in ns. After: result and flags.
    outcome: u64,
    pub(crate) vtable: Option<&'static VTable>,
    pub(crate) waker: Option<Waker>,
    payload: [MaybeUninit<u64>; INLINE_WORDS],
    next_free: u32,
}

impl Slot {
    pub(crate) fn payload(&mut self) -> NonNull<u8> {
        NonNull::from(&mut self.payload).cast()
    }

    pub(crate) fn set_stamp(&mut self, now: u64) {
        self.outcome = now;
    }

    pub(crate) fn stamp(&self) -> u64 {
        self.outcome
    }

    fn set_cqe(&mut self, cqe: Cqe) {
        self.outcome = u64::from(cqe.raw_flags()) << 32 | u64::from(cqe.raw_result() as u32);
    }

    pub(crate) fn cqe(&self) -> Cqe {
        Cqe::new(self.outcome as u32 as i32, (self.outcome >> 32) as u32)
    }
}

const PAGE: usize = 64;
const NONE: u32 = u32::MAX;

/// Highest number of ops of one core; user data above it are the driver's own.
pub(crate) const OPS_MAX: u32 = 1 << 24;

#[derive(Default)]
pub(crate) struct OpSlab {
    /// Raw, so that a pointer to one slot stays good while another is borrowed.
    pages: Vec<NonNull<[Slot; PAGE]>>,
    free: Option<u32>,
    live: u32,
    done: u32,
}

impl OpSlab {
    /// Ops that are not Free.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Ops that have completed and wait to be taken.
    pub(crate) fn done(&self) -> u32 {
        self.done
    }

    /// Notes an op's completion, for whoever takes it.
    pub(crate) fn complete(&mut self, key: Key, cqe: Cqe) -> Option<Waker> {
        let slot = self.get(key)?;
        slot.set_cqe(cqe);
        slot.state = State::Done;
        let waker = slot.waker.take();
        self.done += 1;
        waker
    }

    pub(crate) fn capacity(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }

    /// Takes a free slot; none if there are [`OPS_MAX`] already.
    pub(crate) fn take(&mut self) -> Option<(Key, &mut Slot)> {
        if self.free.is_none() {
            self.grow()?;
        }
        let index = self.free?;
        self.live += 1;
        let slot = self.at(index)?;
        let next = slot.next_free;
        let generation = slot.generation;
        self.free = (next != NONE).then_some(next);
        let slot = self.at(index)?;
        Some((Key { index, generation }, slot))
    }

    /// The slot of `key`, unless that op is gone.
    pub(crate) fn get(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.at(key.index)?;
        (slot.generation == key.generation && slot.state != State::Free).then_some(slot)
    }

    /// Frees a slot whose op has been moved out or dropped. The waker goes back to the caller, who drops
    /// it when nothing is borrowed.
    pub(crate) fn free(&mut self, key: Key) -> Option<Waker> {
        let next = self.free.unwrap_or(NONE);
        let slot = self.get(key)?;
        let was_done = slot.state == State::Done;
        slot.state = State::Free;
        slot.generation = slot.generation.wrapping_add(1);
        slot.vtable = None;
        slot.orphan = false;
        slot.unsent = false;
        slot.cancelled = false;
        slot.next_free = next;
        let waker = slot.waker.take();
        self.free = Some(key.index);
        self.live -= 1;
        self.done -= u32::from(was_done);
        waker
    }

    /// Keys of all ops that are not Free.
    pub(crate) fn keys(&mut self) -> Vec<Key> {
        let all = 0..self.capacity();
        let live = all.filter_map(|index| {
            let slot = self.at(index)?;
            let generation = slot.generation;
            (slot.state != State::Free).then_some(Key { index, generation })
        });
        live.collect()
    }

    /// Gives all memory up without freeing it: the kernel may still write there.
    pub(crate) fn leak(&mut self) {
        mem::take(&mut self.pages);
        self.free = None;
    }

    fn at(&mut self, index: u32) -> Option<&mut Slot> {
        let page = self.pages.get_mut(index as usize / PAGE)?;
        // SAFETY: pages live until `self` is dropped, and `&mut self` keeps others out of this slot. Of
        // the payload only raw pointers are ever made, and those do not pass through this borrow.
        Some(unsafe { &mut (*page.as_ptr())[index as usize % PAGE] })
    }

    fn grow(&mut self) -> Option<()> {
        let base = self.capacity();
        if base >= OPS_MAX {
            return None;
        }
        let page: Box<[Slot; PAGE]> = Box::new(std::array::from_fn(|i| Slot {
            generation: 0,
            state: State::Free,
            orphan: false,
            unsent: false,
            cancelled: false,
            opcode: 0,
            outcome: 0,
            vtable: None,
            waker: None,
            payload: [MaybeUninit::uninit(); INLINE_WORDS],
            next_free: if i + 1 < PAGE { base + i as u32 + 1 } else { NONE },
        }));
        self.pages.push(NonNull::from(Box::leak(page)));
        self.free = Some(base);
        Some(())
    }
}

impl Drop for OpSlab {
    fn drop(&mut self) {
        debug_assert!(self.live == 0 || self.pages.is_empty(), "ops left in the slab");
        for page in self.pages.drain(..) {
            // SAFETY: made by Box::leak in `grow`, and given up only here.
            drop(unsafe { Box::from_raw(page.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = OpSlab::default();
        let (key, slot) = slab.take().unwrap();
        slot.state = State::Queued;
        assert!(slab.get(key).is_some());
        slab.free(key);
        assert!(slab.get(key).is_none());
        let (again, slot) = slab.take().unwrap();
        slot.state = State::Queued;
        assert_eq!(again.index, key.index, "last in, first out");
        assert_ne!(again.generation, key.generation);
        assert!(slab.get(key).is_none());
        slab.free(again);
        assert_eq!(slab.live(), 0);
    }

    #[test]
    fn slots_do_not_move_when_the_slab_grows() {
        let mut slab = OpSlab::default();
        let (first, slot) = slab.take().unwrap();
        slot.state = State::Queued;
        let before = slot.payload();
        let more: Vec<_> = (0..1000)
            .map(|_| {
                let (key, slot) = slab.take().unwrap();
                slot.state = State::Queued;
                key
            })
            .collect();
        assert_eq!(slab.get(first).unwrap().payload(), before);
        assert_eq!(slab.live(), 1001);
        more.into_iter().chain([first]).for_each(|k| drop(slab.free(k)));
        assert_eq!(slab.live(), 0);
    }
}
