//! Where ops live while the kernel knows of them.
//!
//! Owns the slots: stable in memory, reused last in, first out, told apart by generation. Each holds an
//! op's own bytes (what the kernel has addresses of), its state and the waker to call.
//!
//! States of a slot:
//! ```text
//! Free -> Queued (written to the ring, or waiting for room) -> Done (completed, not taken) -> Free
//!         Queued + orphan (its future is gone)              -> Free at the completion
//!         Queued (a series: any number of completions, each with a wake) -> Done at the last
//!         Queued -> Answered (a send without copy: the kernel still reads its bytes) -> as at a completion
//! ```
//! Invariants: a slot's address never changes; its bytes are an initialised op exactly while it is not
//! Free; its generation moves on when it becomes Free. All of it is cells: a slot may be looked at while
//! hooks and wakers run, which start, end and drop other ops. Knows nothing of rings and of what ops do.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::TypeId;
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::task::Waker;

use super::sqe::Cqe;
use crate::planted::{self, Fault};
use crate::spans::{self, Wait};
use crate::sys::abi::opcode;
use crate::sys::prefetch::prefetch;

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
    /// It has its result, and the kernel still reads its memory until a second completion.
    Answered,
    Done,
}

/// What the driver must be able to do with an op whose type it no longer knows.
pub(crate) struct VTable {
    pub(crate) type_id: fn() -> TypeId,
    /// Runs at each completion, before anybody is woken. `Break` asks for a cancel.
    pub(crate) completed: unsafe fn(NonNull<u8>, Cqe) -> ControlFlow<()>,
    /// Consumes the op; its future is gone.
    pub(crate) orphaned: unsafe fn(NonNull<u8>, Cqe),
    /// Drops the op, which was never submitted.
    pub(crate) discard: unsafe fn(NonNull<u8>),
    pub(crate) shots: Shots,
}

/// How many completions an op has, and who ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shots {
    /// One, which its handle takes.
    One,
    /// Any number, which go to `completed` alone; the last one frees the slot.
    Many,
    /// Any number, each of which wakes whoever waits; its handle takes the last.
    Series,
}

const INLINE_WORDS: usize = 6;

/// Bytes of an op that fit into its slot; larger ones are boxed.
pub(crate) const INLINE_BYTES: usize = INLINE_WORDS * 8;

pub(crate) struct Slot {
    generation: Cell<u32>,
    /// While it is Free: the next one that is. Else: the descriptor that its submission names, as bits.
    link: Cell<u32>,
    pub(crate) state: Cell<State>,
    pub(crate) orphan: Cell<bool>,
    /// Its submission still waits for room in the queue.
    pub(crate) unsent: Cell<bool>,
    /// A cancel for it has been asked for.
    pub(crate) cancelled: Cell<bool>,
    /// The op's code, for histograms by kind.
    pub(crate) opcode: Cell<u8>,
    /// Before the completion: the time of submission in ns. After: result and flags.
    outcome: Cell<u64>,
    pub(crate) vtable: Cell<&'static VTable>,
    pub(crate) waker: Cell<Option<Waker>>,
    payload: UnsafeCell<[MaybeUninit<u64>; INLINE_WORDS]>,
}

const _: () = assert!(size_of::<Slot>() == 96);

impl Slot {
    pub(crate) fn payload(&self) -> NonNull<u8> {
        // SAFETY: the pointer of a cell within `self` is not null.
        unsafe { NonNull::new_unchecked(self.payload.get()) }.cast()
    }

    /// Whether it holds the op of `key`, whose index is this slot's.
    #[inline]
    pub(crate) fn is(&self, key: Key) -> bool {
        // Without the generation, a key that was kept too long names whoever took the place.
        let same = self.generation.get() == key.generation || planted::is(Fault::StaleKey, 1);
        same && self.state.get() != State::Free
    }

    /// Notes what its submission says, for reports.
    #[inline]
    pub(crate) fn set_submission(&self, opcode: u8, fd: i32) {
        self.opcode.set(opcode);
        self.link.set(fd as u32);
    }

    /// The descriptor that its submission names, if it names one. Only while it is not Free.
    pub(crate) fn fd(&self) -> Option<RawFd> {
        Some(self.link.get() as i32).filter(|fd| *fd >= 0)
    }

    /// A poll ends pending for its completion.
    #[inline(always)]
    pub(super) fn pends(&self) {
        spans::pends(|| Wait::Op(opcode::name(self.opcode.get())));
    }

    pub(crate) fn set_stamp(&self, now: u64) {
        self.outcome.set(now);
    }

    pub(crate) fn stamp(&self) -> u64 {
        self.outcome.get()
    }

    #[inline]
    fn keep(&self, cqe: Cqe) {
        let outcome = u64::from(cqe.raw_flags()) << 32 | u64::from(cqe.raw_result() as u32);
        self.outcome.set(outcome);
    }

    pub(crate) fn cqe(&self) -> Cqe {
        let outcome = self.outcome.get();
        Cqe::new(outcome as u32 as i32, (outcome >> 32) as u32)
    }
}

/// The table of a slot that never held an op.
pub(super) static NO_OP: VTable = VTable {
    type_id: TypeId::of::<()>,
    completed: |_, _| ControlFlow::Continue(()),
    orphaned: |_, _| (),
    discard: |_| (),
    shots: Shots::One,
};

/// The same, in the place of an op with many completions.
pub(super) static NO_OP_MANY: VTable = VTable { shots: Shots::Many, ..NO_OP };

/// Slots in a page. The table has a place for every page that there may be, so that it need not grow while
/// somebody looks at a slot. Slots that are not used are not touched and cost no memory; nor does the table
/// where the allocator has zeros, as it has for one of this size at first.
const PAGE: u32 = 1024;
const PAGES: usize = (OPS_MAX / PAGE) as usize;
const NONE: u32 = u32::MAX;

/// Highest number of ops of one core; user data above it are the driver's own.
pub(crate) const OPS_MAX: u32 = 1 << 24;

pub(crate) struct OpSlab {
    pages: Box<[Cell<*mut Slot>]>,
    /// Slots that have been written: all those below lie in a page. The rest of the last page has not been
    /// touched and costs no memory.
    written: Cell<u32>,
    free: Cell<u32>,
    live: Cell<u32>,
    done: Cell<u32>,
    /// The kernel may still write there: the memory stays.
    leaked: Cell<bool>,
}

impl Default for OpSlab {
    fn default() -> Self {
        Self {
            pages: no_pages(),
            written: Cell::new(0),
            free: Cell::new(NONE),
            live: Cell::new(0),
            done: Cell::new(0),
            leaked: Cell::new(false),
        }
    }
}

impl OpSlab {
    /// Ops that are not Free.
    pub(crate) fn live(&self) -> u32 {
        self.live.get()
    }

    /// Bytes of the slots that were ever used.
    pub(crate) fn bytes(&self) -> usize {
        self.written.get() as usize * size_of::<Slot>()
    }

    /// Ops that have completed and wait to be taken.
    pub(crate) fn done(&self) -> u32 {
        self.done.get()
    }

    /// Notes an op's completion, for whoever takes it.
    #[inline]
    pub(crate) fn complete(&self, slot: &Slot, cqe: Cqe) {
        slot.keep(cqe);
        slot.state.set(State::Done);
        self.done.set(self.done.get() + 1);
    }

    /// Notes the result of an op whose memory the kernel still reads.
    pub(crate) fn answer(&self, slot: &Slot, cqe: Cqe) {
        slot.keep(cqe);
        slot.state.set(State::Answered);
    }

    /// Takes a free slot, which becomes Queued; none if there are [`OPS_MAX`] already. The caller puts an
    /// op of `vtable` into it before anything else can happen.
    #[inline]
    pub(crate) fn take(&self, vtable: &'static VTable) -> Option<(Key, &Slot)> {
        let index = match self.free.get() {
            NONE => self.write_next()?,
            free => free,
        };
        let slot = self.at(index)?;
        self.free.set(slot.link.get());
        self.live.set(self.live.get() + 1);
        slot.state.set(State::Queued);
        slot.orphan.set(false);
        slot.unsent.set(false);
        slot.cancelled.set(false);
        slot.vtable.set(vtable);
        Some((Key { index, generation: slot.generation.get() }, slot))
    }

    /// The slot of `key`, unless that op is gone.
    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&Slot> {
        self.at(key.index).filter(|slot| slot.is(key))
    }

    /// Asks for the memory of the slot of `key`.
    #[inline]
    pub(crate) fn prefetch(&self, key: Key) {
        if let Some(slot) = self.at(key.index) {
            let first = std::ptr::from_ref(slot).cast::<u8>();
            prefetch(first);
            prefetch(first.wrapping_add(64));
        }
    }

    /// Frees the slot of a `key` whose op has been moved out or dropped. The waker goes back to the caller.
    pub(crate) fn free(&self, key: Key) -> Option<Waker> {
        self.free_slot(key, self.get(key)?)
    }

    /// As [`free`](Self::free), of the slot that [`get`](Self::get) has just found for this key.
    #[inline]
    pub(crate) fn free_slot(&self, key: Key, slot: &Slot) -> Option<Waker> {
        debug_assert!(self.get(key).is_some_and(|found| std::ptr::eq(found, slot)));
        let was_done = slot.state.replace(State::Free) == State::Done;
        slot.generation.set(key.generation.wrapping_add(1));
        slot.link.set(self.free.replace(key.index));
        self.live.set(self.live.get() - 1);
        self.done.set(self.done.get() - u32::from(was_done));
        slot.waker.take()
    }

    /// Slots that were ever used: the bound of their indices.
    pub(crate) fn places(&self) -> u32 {
        self.written.get()
    }

    /// The slot at an index, unless it is Free.
    pub(crate) fn used(&self, index: u32) -> Option<&Slot> {
        self.at(index).filter(|slot| slot.state.get() != State::Free)
    }

    /// Keys of all ops that are not Free.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let live = (0..self.written.get()).filter_map(|index| {
            let slot = self.at(index)?;
            let generation = slot.generation.get();
            (slot.state.get() != State::Free).then_some(Key { index, generation })
        });
        live.collect()
    }

    /// Gives all memory up without freeing it: the kernel may still write there. Ops that have not completed
    /// are found no more; those that have can still be taken.
    pub(crate) fn leak(&self) {
        self.leaked.set(true);
        for key in self.keys() {
            if let Some(slot) = self.get(key)
                && slot.state.get() != State::Done
            {
                slot.generation.set(key.generation.wrapping_add(1));
            }
        }
    }

    /// The slot of an index, whatever is in it.
    #[inline]
    fn at(&self, index: u32) -> Option<&Slot> {
        if index >= self.written.get() {
            return None;
        }
        let (page, offset) = place(index);
        debug_assert!(!self.pages[page].get().is_null());
        // SAFETY: slots below `written` lie in a page (there are pages for OPS_MAX of them) and are
        // initialised; pages stay where they are until `self` is dropped, or for ever. All fields are cells.
        unsafe {
            let page = NonNull::new_unchecked(self.pages.get_unchecked(page).get());
            Some(page.add(offset).as_ref())
        }
    }

    fn used_pages(&self) -> impl Iterator<Item = &Cell<*mut Slot>> {
        self.pages.iter().take_while(|page| !page.get().is_null())
    }

    /// Initialises one more slot; gives its index.
    #[cold]
    fn write_next(&self) -> Option<u32> {
        let index = self.written.get();
        if index == OPS_MAX {
            return None;
        }
        let (page, offset) = place(index);
        if offset == 0 {
            // SAFETY: the layout has a size above 0.
            let memory = unsafe { alloc(PAGE_LAYOUT) }.cast::<Slot>();
            if memory.is_null() {
                handle_alloc_error(PAGE_LAYOUT);
            }
            self.pages[page].set(memory);
        }
        let slot = Slot {
            generation: Cell::new(0),
            link: Cell::new(NONE),
            state: Cell::new(State::Free),
            orphan: Cell::new(false),
            unsent: Cell::new(false),
            cancelled: Cell::new(false),
            opcode: Cell::new(0),
            outcome: Cell::new(0),
            vtable: Cell::new(&NO_OP),
            waker: Cell::new(None),
            payload: UnsafeCell::new([MaybeUninit::uninit(); INLINE_WORDS]),
        };
        // SAFETY: the page was allocated when its first slot was written, and has room for this one.
        unsafe { self.pages[page].get().add(offset).write(slot) };
        self.written.set(index + 1);
        Some(index)
    }
}

/// Page and place in it of a slot.
#[inline]
fn place(index: u32) -> (usize, usize) {
    ((index / PAGE) as usize, (index % PAGE) as usize)
}

const PAGE_LAYOUT: Layout = match Layout::array::<Slot>(PAGE as usize) {
    Ok(layout) => layout,
    Err(_) => panic!("a page of slots fits into memory"),
};

fn no_pages() -> Box<[Cell<*mut Slot>]> {
    // As pointers and not as cells they are allocated as zeros, which are not written.
    let pages = vec![ptr::null_mut::<Slot>(); PAGES].into_boxed_slice();
    // SAFETY: a cell lies in memory as what it holds.
    unsafe { Box::from_raw(Box::into_raw(pages) as *mut [Cell<*mut Slot>]) }
}

impl Drop for OpSlab {
    fn drop(&mut self) {
        if self.leaked.get() {
            return;
        }
        debug_assert!(self.live() == 0, "ops left in the slab");
        for index in 0..self.written.get() {
            drop(self.at(index).and_then(|slot| slot.waker.take()));
        }
        for page in self.used_pages() {
            // SAFETY: allocated with this layout in `write_next`, and given up only here.
            unsafe { dealloc(page.get().cast(), PAGE_LAYOUT) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let slab = OpSlab::default();
        let (key, _) = slab.take(&NO_OP).unwrap();
        assert!(slab.get(key).is_some());
        slab.free(key);
        assert!(slab.get(key).is_none());
        let (again, _) = slab.take(&NO_OP).unwrap();
        assert_eq!(again.index, key.index, "last in, first out");
        assert_ne!(again.generation, key.generation);
        assert!(slab.get(key).is_none());
        slab.free(again);
        assert_eq!(slab.live(), 0);
        assert!(slab.get(Key { index: 1, generation: 0 }).is_none(), "never written");
        assert!(slab.get(Key { index: u32::MAX, generation: 0 }).is_none());
    }

    #[test]
    fn slots_do_not_move_when_the_slab_grows() {
        let slab = OpSlab::default();
        let (first, slot) = slab.take(&NO_OP).unwrap();
        let n = 3 * PAGE;
        let more: Vec<_> = (1..n).map(|_| slab.take(&NO_OP).unwrap().0).collect();
        assert_eq!(slab.get(first).unwrap().payload(), slot.payload());
        assert_eq!((slab.live(), slab.keys().len()), (n, n as usize));
        let places: std::collections::BTreeSet<_> =
            more.iter().map(|key| slab.get(*key).unwrap().payload()).collect();
        assert_eq!(places.len(), more.len(), "each in a place of its own");
        assert_eq!(slab.used_pages().count(), 3);
        more.into_iter().chain([first]).for_each(|k| drop(slab.free(k)));
        assert_eq!(slab.live(), 0);
    }

    #[test]
    fn slots_that_are_leaked_are_not_found_and_stay_where_they_are() {
        let slab = OpSlab::default();
        let keys: Vec<_> = (0..=PAGE).map(|_| slab.take(&NO_OP).unwrap().0).collect();
        let pages: Vec<_> = slab.used_pages().map(Cell::get).collect();
        let last = slab.get(keys[PAGE as usize]).unwrap().payload();
        slab.complete(slab.get(keys[7]).unwrap(), Cqe::error(libc::EIO));
        slab.leak();
        let found: Vec<_> = keys.iter().filter(|key| slab.get(**key).is_some()).collect();
        assert_eq!((pages.len(), found), (2, vec![&keys[7]]), "what has completed is to be taken");
        slab.free(keys[7]);
        assert!(slab.get(keys[7]).is_none());
        drop(slab);
        // SAFETY: as the kernel may, this writes where an op was; nobody frees that but the test, below.
        unsafe { last.write(1) };
        for page in pages {
            // SAFETY: allocated with this layout in `write_next`, and given up by `leak`.
            unsafe { dealloc(page.cast(), PAGE_LAYOUT) };
        }
    }

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let mut next = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), next, "slot {index}");
            next.1 += 1;
            if next.1 == PAGE as usize {
                next = (next.0 + 1, 0);
            }
        }
        let (page, offset) = place(OPS_MAX - 1);
        assert_eq!((page, offset), (PAGES - 1, PAGE as usize - 1));
    }
}
