//! The slots of one core's tasks, and its run queue.
//!
//! Owns which task is in which slot, the generations, and the order in which tasks run. Slot 0 is the
//! main future's: it lives with whoever drives the loop and is only told that it was woken.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::Waker;

use super::blocks::Blocks;
use super::cell::{self, CANCEL, DONE, Header, TaskCell};
use super::current;
use super::join::{JoinError, JoinHandle};
use super::waker::{GENERATION_MASK, TaskId, Word};
use crate::mailbox::cell::Lease;
use crate::mailbox::wake_map::SLOTS_MAX;
use crate::metrics::{Kind, Recorder, wake_contained};

/// The main future's slot.
pub(crate) const ROOT: u32 = 0;

pub(crate) struct Tasks {
    lease: Lease,
    inner: RefCell<Inner>,
    names: RefCell<std::collections::HashMap<u32, Rc<str>>>,
    metrics: Rc<Recorder>,
    root_woken: Cell<bool>,
    /// Slot that is being polled or ended.
    running: Cell<u32>,
    /// The task whose future's `poll` is under way: the one that is to blame for a panic.
    polling: Cell<Option<NonNull<Header>>>,
    /// Number of the poll whose awaits a cancel that is under way passes on to; 0 for none.
    cancelling: Cell<u64>,
    /// Time of the latest wakes in units of [`STAMP_UNIT_NS`], 0 while nobody measures.
    stamp: Cell<u32>,
}

struct Inner {
    table: Vec<Entry>,
    free: Vec<u32>,
    blocks: Blocks,
    ready: VecDeque<Ready>,
    live: u32,
    reserved: u32,
}

/// A slot: 16 bytes a task.
#[derive(Clone, Copy)]
struct Entry {
    task: Option<NonNull<Header>>,
    generation: u32,
    /// In the run queue.
    scheduled: bool,
}

#[derive(Clone, Copy)]
struct Ready {
    slot: u32,
    stamp: u32,
}

/// Wake stamps are kept in 4 bytes: at 64 ns a unit they wrap after 275 s.
pub(crate) const STAMP_UNIT_NS: u64 = 64;

/// Tasks that destructors may spawn while a loop closes.
const CLOSING_SPAWNS_MAX: usize = 1_000_000;

/// A slot taken out of the run queue.
pub(crate) struct Picked {
    task: NonNull<Header>,
    generation: u32,
    /// When it was woken, see [`Tasks::set_stamp`].
    pub(crate) stamp: u32,
}

impl Tasks {
    pub(crate) fn new(lease: Lease, metrics: Rc<Recorder>) -> Rc<Self> {
        let generation = lease.first_generation();
        let root = Entry { task: None, generation, scheduled: false };
        lease.cell.map.reserve(1);
        let inner = Inner {
            table: vec![root],
            free: Vec::new(),
            blocks: Blocks::new(),
            ready: VecDeque::new(),
            live: 0,
            reserved: 1,
        };
        Rc::new(Self {
            lease,
            inner: RefCell::new(inner),
            names: RefCell::default(),
            metrics,
            root_woken: Cell::new(false),
            running: Cell::new(ROOT),
            polling: Cell::new(None),
            cancelling: Cell::new(0),
            stamp: Cell::new(0),
        })
    }

    pub(crate) fn core_id(&self) -> u32 {
        self.lease.id
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Tasks that have not ended.
    pub(crate) fn live(&self) -> u32 {
        self.inner.borrow().live
    }

    /// Slots and names of the tasks that have not ended.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn unfinished(&self) -> Vec<(u32, Option<Rc<str>>)> {
        let inner = self.inner.borrow();
        let slots = inner.table.iter().zip(0..).filter_map(|(e, slot)| Some((e.task?, slot)));
        // SAFETY: a task in the table is live.
        let live = slots.filter(|(task, _)| !unsafe { task.as_ref() }.has(DONE));
        live.map(|(_, slot)| (slot, self.name(slot))).collect()
    }

    /// Entries in the run queue.
    pub(crate) fn ready(&self) -> usize {
        self.inner.borrow().ready.len()
    }

    /// Makes a task; it is polled in the next tick, after those that are ready already.
    pub(crate) fn spawn<F: Future + 'static>(self: &Rc<Self>, future: F) -> JoinHandle<F::Output> {
        self.metrics.count(Kind::Spawns);
        let mut inner = self.inner.borrow_mut();
        let slot = inner.take_slot(&self.lease);
        let born = inner.table[slot as usize].generation;
        let place = inner.blocks.take(TaskCell::<F>::layout());
        // SAFETY: fresh memory of this layout.
        let task = unsafe { TaskCell::write(place, slot, born, future) };
        inner.live += 1;
        inner.table[slot as usize].task = Some(task);
        inner.schedule(slot, self.stamp.get());
        drop(inner);
        self.tell_if_idle();
        JoinHandle::new(self.clone(), task)
    }

    /// Schedules the task that a waker names, unless it is gone.
    #[inline]
    pub(crate) fn wake(&self, word: Word) {
        if word.slot() == ROOT {
            self.root_woken.set(true);
            return;
        }
        let mut inner = self.inner.borrow_mut();
        let known = inner.table.get(word.slot() as usize);
        if known.is_some_and(|e| {
            e.task.is_some() && e.generation & GENERATION_MASK == word.generation()
        }) {
            inner.schedule(word.slot(), self.stamp.get());
        }
    }

    /// Schedules whatever is in `slot`, as wakes from other threads ask for.
    pub(crate) fn wake_slot(&self, slot: u32) {
        if slot == ROOT {
            self.root_woken.set(true);
            return;
        }
        let mut inner = self.inner.borrow_mut();
        if inner.table.get(slot as usize).is_some_and(|e| e.task.is_some()) {
            inner.schedule(slot, self.stamp.get());
        }
    }

    pub(crate) fn take_root_woken(&self) -> bool {
        self.root_woken.replace(false)
    }

    pub(crate) fn root_woken(&self) -> bool {
        self.root_woken.get()
    }

    /// Takes the first entry out of the run queue: the task to run next, or none if that one is gone. Its
    /// turn is over then, too: nothing that became ready meanwhile may take it.
    pub(crate) fn pick(&self) -> Option<Picked> {
        let mut inner = self.inner.borrow_mut();
        let Ready { slot, stamp } = inner.ready.pop_front()?;
        let entry = &mut inner.table[slot as usize];
        entry.scheduled = false;
        if let Some(task) = entry.task {
            return Some(Picked { task, generation: entry.generation, stamp });
        }
        // Kept back by `release`.
        inner.free.push(slot);
        None
    }

    /// Polls it, or ends it if it was cancelled. If its future panics so does this: see
    /// [`end_panicked`](Self::end_panicked).
    #[inline]
    pub(crate) fn run(&self, picked: Picked) {
        // SAFETY: a task in the table is live.
        let header = unsafe { picked.task.as_ref() };
        if header.has(DONE) {
            return;
        }
        self.running.set(header.slot);
        if header.has(CANCEL) {
            // SAFETY: live, not done, of this loop and so of this thread, and not being polled: `pick` is
            // called by the loop alone, which does not run while a poll does.
            unsafe { cell::end(picked.task, self, JoinError::cancelled()) };
        } else {
            header.last_poll.set(self.begin_poll());
            let word = Word::new(self.lease.id, header.slot, picked.generation);
            self.polling.set(Some(picked.task));
            // SAFETY: as above.
            unsafe { cell::poll(picked.task, self, word) };
        }
        self.running.set(ROOT);
    }

    /// The future of the task that is running has returned from its `poll`.
    #[inline]
    pub(super) fn polled(&self) {
        self.polling.set(None);
    }

    /// Ends the task whose poll panicked with `payload`.
    ///
    /// # Panics
    /// With the same payload if no poll was under way.
    #[cold]
    pub(crate) fn end_panicked(&self, payload: Box<dyn Any + Send>) {
        let Some(task) = self.polling.take() else { resume_unwind(payload) };
        // SAFETY: it was live and not done when its poll began, and only the loop ends tasks; the panic has
        // ended its poll.
        unsafe { cell::end(task, self, JoinError::panicked(payload)) };
        self.running.set(ROOT);
    }

    /// Numbers a poll: a task's, or the main future's.
    pub(crate) fn begin_poll(&self) -> u64 {
        self.metrics.count(Kind::Polls);
        current::next_poll()
    }

    /// Marks what is dropped until the guard goes as cancelled, not merely let go of: handles that were
    /// awaited in poll `number` pass the cancel on.
    pub(crate) fn mark_cancelling(&self, number: u64) -> CancelMark<'_> {
        CancelMark { tasks: self, outer: self.cancelling.replace(number) }
    }

    /// Whether a cancel under way passes on to a handle that was last polled in poll `number`.
    pub(crate) fn passes_cancel_to(&self, number: u64) -> bool {
        number != 0 && self.cancelling.get() == number
    }

    /// Marks a task for its end at its next turn.
    pub(crate) fn cancel(&self, task: NonNull<Header>) -> bool {
        // SAFETY: a task in the table, or one whose handle the caller holds, is live.
        let header = unsafe { task.as_ref() };
        if header.has(DONE) {
            return false;
        }
        header.set(CANCEL);
        self.inner.borrow_mut().schedule(header.slot, self.stamp.get());
        self.tell_if_idle();
        true
    }

    /// As [`cancel`](Self::cancel), of the task that was born with this generation in this slot, if it is
    /// still there.
    pub(crate) fn cancel_born(&self, slot: u32, born: u32) {
        let task = self.inner.borrow().table.get(slot as usize).and_then(|e| e.task);
        // SAFETY: a task in the table is live.
        if let Some(task) = task.filter(|t| unsafe { t.as_ref() }.born == born) {
            self.cancel(task);
        }
    }

    /// Between the turns of a loop that is stepped by hand, whoever waits on its descriptor is told.
    fn tell_if_idle(&self) {
        if !current::is_running(self) {
            self.lease.cell.unpark();
        }
    }

    /// Ends every task: futures are dropped, handles say cancelled. Tasks that destructors spawn end too,
    /// one after the other and not within each other.
    pub(crate) fn cancel_all(&self) {
        let slots = self.inner.borrow().table.len();
        for slot in 1..slots {
            let task = self.inner.borrow().table[slot].task;
            if let Some(task) = task {
                self.end(task);
            }
        }
        self.end_spawned();
    }

    /// Ends what was spawned since [`cancel_all`](Self::cancel_all); after [`CLOSING_SPAWNS_MAX`] tasks the
    /// rest is given up (see `Drop`).
    pub(crate) fn end_spawned(&self) {
        for _ in 0..CLOSING_SPAWNS_MAX {
            if self.ready() == 0 {
                return;
            }
            if let Some(picked) = self.pick() {
                self.end(picked.task);
            }
        }
    }

    fn end(&self, task: NonNull<Header>) {
        // SAFETY: a task in the table is live.
        if !unsafe { task.as_ref() }.has(DONE) {
            // SAFETY: as above; nothing is being polled while the loop closes.
            unsafe { cell::end(task, self, JoinError::cancelled()) };
        }
    }

    /// The waker word of the task in `slot`.
    pub(crate) fn word_of(&self, slot: u32) -> Word {
        let generation = self.inner.borrow().table[slot as usize].generation;
        Word::new(self.lease.id, slot, generation)
    }

    /// Id of the task that is being polled; the main future has one too.
    pub(crate) fn running_id(&self) -> TaskId {
        let slot = self.running.get();
        let generation = self.inner.borrow().table[slot as usize].generation;
        TaskId::of(self.lease.id, slot, generation)
    }

    /// Name of the task that is being polled.
    pub(crate) fn running_name(&self) -> Option<Rc<str>> {
        self.name(self.running.get())
    }

    pub(crate) fn set_name(&self, slot: u32, name: Rc<str>) {
        self.names.borrow_mut().insert(slot, name);
    }

    pub(crate) fn name(&self, slot: u32) -> Option<Rc<str>> {
        self.names.borrow().get(&slot).cloned()
    }

    /// Sets the time with which wakes are stamped from now on, in ns; 0 for none.
    pub(crate) fn set_stamp(&self, now: u64) {
        self.stamp.set((now / STAMP_UNIT_NS) as u32);
    }

    pub(super) fn move_generation_on(&self, slot: u32) {
        let mut inner = self.inner.borrow_mut();
        let entry = &mut inner.table[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        inner.live -= 1;
    }

    /// Counts a panic that was a task's end.
    pub(crate) fn note_end(&self, panicked: bool) {
        if panicked {
            self.metrics.count(Kind::TaskPanics);
        }
    }

    /// Calls a waker: one of our own without a detour, a stranger's with its panic contained.
    #[inline]
    pub(crate) fn call(&self, waker: Waker) {
        match Word::of_waker(&waker) {
            Some(word) if word.core() == self.lease.id => self.wake(word),
            _ => wake_contained(waker, &self.metrics),
        }
    }

    /// Gives a task's slot and memory back.
    ///
    /// # Safety
    /// The task has ended, its result is gone, and nobody refers to it.
    pub(super) unsafe fn release(&self, task: NonNull<Header>) {
        // SAFETY: live until given back below.
        let header = unsafe { task.as_ref() };
        let (slot, layout) = (header.slot, header.layout());
        let name = self.names.borrow_mut().remove(&slot);
        drop(name);
        let mut inner = self.inner.borrow_mut();
        let entry = &mut inner.table[slot as usize];
        entry.task = None;
        // One that is in the run queue waits until it comes out of it: the next task in this slot must not
        // take the place in line of this one.
        if !entry.scheduled {
            inner.free.push(slot);
        }
        // SAFETY: taken in `spawn` with this layout; nobody uses it any more.
        unsafe { inner.blocks.give(task.cast(), layout) };
    }
}

impl Inner {
    fn schedule(&mut self, slot: u32, stamp: u32) {
        let entry = &mut self.table[slot as usize];
        if !entry.scheduled {
            entry.scheduled = true;
            self.ready.push_back(Ready { slot, stamp });
        }
    }

    fn take_slot(&mut self, lease: &Lease) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let slot = self.table.len() as u32;
        assert!(slot < SLOTS_MAX, "more than {SLOTS_MAX} tasks on one core");
        let generation = lease.first_generation();
        self.table.push(Entry { task: None, generation, scheduled: false });
        if slot >= self.reserved {
            self.reserved = self.table.capacity().min(SLOTS_MAX as usize) as u32;
            lease.cell.map.reserve(self.reserved);
        }
        slot
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        if inner.live > 0 {
            // Futures whose destructors did not run: their memory may be referred to (a pinned future is
            // never freed undropped), so it is leaked.
            std::mem::forget(std::mem::replace(&mut inner.blocks, Blocks::new()));
        }
        let highest = inner.table.iter().map(|e| e.generation).max().unwrap_or(0);
        self.lease.set_next_generation(highest.wrapping_add(1));
    }
}

/// See [`Tasks::mark_cancelling`].
pub(crate) struct CancelMark<'a> {
    tasks: &'a Tasks,
    outer: u64,
}

impl Drop for CancelMark<'_> {
    fn drop(&mut self) {
        self.tasks.cancelling.set(self.outer);
    }
}
