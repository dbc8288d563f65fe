//! The slots of one core's tasks, and its run queue.
//!
//! Owns which task is in which slot, the generations, and the order in which tasks run: who is woken goes to
//! the end of the run queue; who gives way ([`Tasks::give_way`]) goes there when the next turn is over, so
//! that what others ask for in that turn is in the kernel by then. Slot 0 is the main future's: it has its
//! place in the order, but lives with whoever drives the loop.

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::mem;
use std::panic::resume_unwind;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::task::Waker;

use super::blocks::{Blocks, Class};
use super::cell::{self, CANCEL, DONE, Header, Mark, NAMED};
use super::current;
use super::info::Note;
use super::join::JoinError;
use super::joiner::Joiner;
use super::line::Line;
use super::queues::{DEFAULT, Queues, Terms};
use super::report::Reporter;
use super::set::Sets;
use super::waker::{GENERATION_MASK, Word, WordCell};
use crate::mailbox::cell::Lease;
use crate::mailbox::wake_map::SLOTS_MAX;
use crate::metrics::{Kind, Recorder, wake_contained};
use crate::spans;
use crate::sys::locks::Mutex;

mod ahead;
mod birth;
mod end;
pub(super) mod home;
mod look;
pub(crate) mod served;
mod turns;

pub(crate) use look::Whose;
pub(crate) use turns::Begun;

/// The main future's slot.
pub(crate) const ROOT: u32 = 0;

pub(crate) struct Tasks {
    lease: Lease,
    inner: RefCell<Inner>,
    /// Sets of tasks that are waited for together.
    pub(super) sets: Sets,
    /// Shared with whoever watches for stalls.
    names: Names,
    metrics: Arc<Recorder>,
    reporter: Reporter,
    /// What the main future's last poll ended at.
    root_note: Cell<Note>,
    /// Number of the main future's last poll: see [`Word::polls_begin_after`].
    root_poll: Cell<u64>,
    /// The main future.
    root: Word,
    /// Who is being polled or ended.
    running: WordCell,
    /// The task whose future's `poll` is under way: the one that is to blame for a panic.
    polling: AtomicPtr<Header>,
    /// Number of the poll whose awaits a cancel that is under way passes on to; 0 for none.
    cancelling: Cell<u64>,
    /// Time of the latest wakes in units of [`STAMP_UNIT_NS`], [`UNSTAMPED`] while nobody measures.
    stamp: Cell<u32>,
    /// Tasks that are being polled within each other's making; see `birth`.
    depth: Cell<u32>,
    /// What new tasks are marked with: when the tick began, in units of [`AGE_UNIT_NS`], and the queue that
    /// is being served.
    birth: Cell<Mark>,
    /// What the default queue is told to be.
    default_terms: Cell<Terms>,
}

struct Inner {
    table: Vec<Entry>,
    /// The slot that was given back last; [`ROOT`] if there is none. Each says which one is the next.
    free: u32,
    blocks: Blocks,
    /// Those to be polled, in order.
    ready: Line,
    /// Those that gave way, in order; they are not in `ready`.
    gave_way: Line,
    /// Tasks that have not ended: of the queue that is being served, if there are several.
    live: u32,
    reserved: u32,
    /// The queue that is being served.
    serving: u8,
    /// None while the default queue is the only one: then it is `ready` and `gave_way`.
    queues: Option<Box<Queues>>,
}

/// A slot: 16 bytes a task.
#[derive(Clone, Copy)]
struct Entry {
    task: Option<NonNull<Header>>,
    generation: u32,
    /// Stamp of the wake that put it in the run queue, or among those that gave way; 0 while it is in
    /// neither. Of a free slot: the next free one.
    scheduled: u32,
}

/// Wake stamps are kept in 4 bytes: at 64 ns a unit they wrap after 275 s.
pub(crate) const STAMP_UNIT_NS: u64 = 64;

/// The least stamp: 0 says that a slot is not scheduled.
pub(crate) const UNSTAMPED: u32 = 1;

/// Ages are kept in 4 bytes: at some 17 ms a unit they wrap after two years.
const AGE_UNIT_NS: u64 = 1 << 24;

/// Places of a queue at first: few tasks that wake each other never make it grow.
const QUEUE_FIRST: usize = 32;

/// How many places behind the next one in the run queue a task's memory is asked for.
const TASKS_AHEAD: u32 = 1;

/// Names of a core's tasks, by slot.
pub(crate) type Names = Arc<Mutex<HashMap<u32, Arc<str>>>>;

/// What comes next in the run queue.
pub(crate) enum Next {
    /// The main future, woken at this stamp.
    Root(u32),
    Task(Picked),
    /// A task that has ended meanwhile. Its turn is over, too: nothing that became ready since may take it.
    Gone,
}

/// A task taken out of the run queue.
pub(crate) struct Picked {
    task: NonNull<Header>,
    /// When it was woken, see [`Tasks::set_stamp`].
    pub(crate) stamp: u32,
}

impl Tasks {
    pub(crate) fn new(
        lease: Lease,
        metrics: Arc<Recorder>,
        reporter: Reporter,
        now_ns: u64,
    ) -> Rc<Self> {
        let generation = lease.first_generation();
        let root = Word::new(lease.id, ROOT, generation);
        lease.cell.map.reserve(1);
        let inner = Inner {
            table: vec![Entry { task: None, generation, scheduled: 0 }],
            free: ROOT,
            blocks: Blocks::new(),
            ready: Line::new(QUEUE_FIRST),
            gave_way: Line::new(QUEUE_FIRST),
            live: 0,
            reserved: 1,
            serving: DEFAULT,
            queues: None,
        };
        let tasks = Rc::new(Self {
            lease,
            inner: RefCell::new(inner),
            sets: Sets::default(),
            names: Names::default(),
            metrics,
            reporter,
            root_note: Cell::new(Note::Nothing),
            root_poll: Cell::new(root.polls_begin_after()),
            root,
            running: WordCell::new(root),
            polling: AtomicPtr::new(ptr::null_mut()),
            cancelling: Cell::new(0),
            stamp: Cell::new(UNSTAMPED),
            depth: Cell::new(0),
            birth: Cell::new(Mark::new(age_units(now_ns), DEFAULT)),
            default_terms: Cell::default(),
        });
        home::enter(&tasks);
        tasks
    }

    pub(crate) fn core_id(&self) -> u32 {
        self.lease.id
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Tasks that have not ended.
    pub(crate) fn live(&self) -> u32 {
        self.inner.borrow().live_in_all()
    }

    /// Whether anybody is to be polled.
    pub(crate) fn any_ready(&self) -> bool {
        let inner = self.inner.borrow();
        !(inner.ready.is_empty() && inner.gave_way.is_empty())
            || inner.queues.as_ref().is_some_and(|queues| queues.any_ready())
    }

    /// Schedules the task that a waker names, unless it is gone.
    #[inline]
    pub(crate) fn wake(&self, word: Word) {
        spans::woken(word.core(), word.slot(), Some(word.generation()));
        let mut inner = self.inner.borrow_mut();
        let Some(entry) = inner.table.get_mut(word.slot() as usize) else { return };
        if entry.is_live(word) && entry.scheduled == 0 {
            entry.scheduled = self.stamp.get();
            // The run queue grows last of all: this is called for each completion, and saves no registers
            // so.
            if !inner.ready.push_if_room(word.slot()) {
                drop(inner);
                self.push_and_grow(word.slot());
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn push_and_grow(&self, slot: u32) {
        self.inner.borrow_mut().ready.push(slot);
    }

    /// Schedules whatever is in `slot`, as wakes from other threads ask for.
    pub(crate) fn wake_slot(&self, slot: u32) {
        let mut inner = self.inner.borrow_mut();
        if inner.table.get(slot as usize).is_some_and(|e| e.task.is_some()) || slot == ROOT {
            inner.schedule(slot, self.stamp.get());
        }
    }

    /// Nobody drives a main future any more: its wakes are stale.
    pub(crate) fn forget_root(&self) {
        let mut inner = self.inner.borrow_mut();
        if mem::take(&mut inner.table[ROOT as usize].scheduled) != 0 {
            inner.merge();
            inner.ready.remove(ROOT);
            inner.gave_way.remove(ROOT);
        }
    }

    /// Takes the first entry out of the run queue.
    #[inline]
    pub(crate) fn pick(&self) -> Option<Next> {
        self.inner.borrow_mut().pick()
    }

    /// Polls it, or ends it if it was cancelled. If its future panics so does this: see
    /// [`end_panicked`](Self::end_panicked).
    #[inline]
    pub(crate) fn run(&self, picked: Picked) {
        // SAFETY: a task in the table is live.
        let header = unsafe { picked.task.as_ref() };
        if header.has(DONE | CANCEL) {
            return self.run_marked(&picked);
        }
        header.note.set(Note::Nothing);
        self.metrics.count(Kind::Polls);
        // SAFETY: as above.
        unsafe { self.polls(picked.task) };
        // SAFETY: live, not done, of this loop and so of this thread, and not being polled: `pick` is
        // called by the loop alone, which does not run while a poll does.
        unsafe { cell::poll(picked.task, self) };
        self.running.set(self.root);
    }

    /// A poll of this task begins. It is numbered, and with that counted.
    ///
    /// # Safety
    /// It is live.
    #[inline]
    unsafe fn polls(&self, task: NonNull<Header>) {
        // SAFETY: as the caller promised.
        let header = unsafe { task.as_ref() };
        self.running.set(header.word);
        current::begin_poll(next_poll(&header.last_poll));
        // Released: a signal handler that finds it finds the header, too.
        self.polling.store(task.as_ptr(), Ordering::Release);
    }

    /// The turn of a task that has ended, or is to end.
    #[cold]
    fn run_marked(&self, picked: &Picked) {
        // SAFETY: a task in the table is live.
        let header = unsafe { picked.task.as_ref() };
        if !header.has(DONE) {
            self.running.set(header.word);
            // SAFETY: as in `run`.
            unsafe { cell::end(picked.task, self, JoinError::cancelled()) };
            self.running.set(self.root);
        }
    }

    /// The future of the task that is running has returned from its `poll`.
    #[inline]
    pub(super) fn polled(&self) {
        self.polling.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Ends the task whose poll panicked with `payload`.
    ///
    /// # Panics
    /// With the same payload if no poll was under way.
    #[cold]
    pub(crate) fn end_panicked(&self, payload: Box<dyn Any + Send>) {
        let Some(task) = NonNull::new(self.polling.load(Ordering::Relaxed)) else {
            resume_unwind(payload)
        };
        self.polled();
        // SAFETY: it was live and not done when its poll began, and only the loop ends tasks; the panic has
        // ended its poll.
        unsafe { cell::end(task, self, JoinError::panicked(payload)) };
        self.running.set(self.root);
    }

    /// A poll of the main future begins.
    pub(crate) fn begin_root_poll(&self) {
        self.root_note.set(Note::Nothing);
        self.metrics.count(Kind::Polls);
        current::begin_poll(next_poll(&self.root_poll));
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
        self.inner.borrow_mut().schedule(header.word.slot(), self.stamp.get());
        self.tell_if_idle();
        true
    }

    /// As [`cancel`](Self::cancel), of the task that `word` named at its birth, if it is still there.
    pub(crate) fn cancel_named(&self, word: Word) {
        let task = self.inner.borrow().table.get(word.slot() as usize).and_then(|e| e.task);
        // SAFETY: a task in the table is live.
        if let Some(task) = task.filter(|t| unsafe { t.as_ref() }.word == word) {
            self.cancel(task);
        }
    }

    /// Between the turns of a loop that is stepped by hand, whoever waits on its descriptor is told.
    fn tell_if_idle(&self) {
        if !current::is_running(self) {
            self.lease.cell.unpark();
        }
    }

    /// The task in `slot`, if there is one.
    pub(super) fn task_in(&self, slot: u32) -> Option<NonNull<Header>> {
        self.inner.borrow().table.get(slot as usize).and_then(|e| e.task)
    }

    /// The waker word of the task in `slot`.
    pub(crate) fn word_of(&self, slot: u32) -> Word {
        self.inner.borrow().word_of(self.lease.id, slot)
    }

    /// Sets the time that new tasks count as theirs.
    #[inline]
    pub(crate) fn set_time(&self, now_ns: u64) {
        self.birth.set(self.birth.get().at(age_units(now_ns)));
    }

    /// Sets the time with which wakes are stamped from now on, in ns.
    pub(crate) fn set_stamp(&self, now: u64) {
        self.stamp.set(((now / STAMP_UNIT_NS) as u32).max(UNSTAMPED));
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

    /// Tells a task that waited for another one's end.
    #[inline]
    pub(super) fn tell_task(&self, word: Word) {
        if word.core() == self.lease.id {
            self.wake(word);
        } else {
            word.wake();
        }
    }

    /// Tells whoever waited for a task that has ended. It may be gone before this returns, which an argument
    /// that is a reference may not.
    #[inline(never)]
    pub(super) fn tell(&self, ended: NonNull<Header>, joiner: Joiner) {
        match joiner {
            Joiner::Task(word) => self.tell_task(word),
            Joiner::Place(place) => {
                // SAFETY: it is there until somebody is told of its end, below.
                if let Some(waker) = self.sets.ended(unsafe { ended.as_ref() }, place) {
                    self.call(waker);
                }
            }
            Joiner::Other(waker) => self.call(*waker),
        }
    }

    /// Calls a waker: one of our own without a detour, a stranger's with its panic contained.
    #[inline]
    pub(crate) fn call(&self, waker: Waker) {
        match Word::of_waker(&waker) {
            Some(word) if word.core() == self.lease.id => {
                // Its destructor does nothing.
                mem::forget(waker);
                self.wake(word);
            }
            _ => wake_contained(waker, &self.metrics),
        }
    }

    /// Gives a task's slot and memory back.
    ///
    /// # Safety
    /// The task has ended, its result is gone, and nobody refers to it; this is its class of blocks, and its
    /// layout.
    #[inline]
    pub(super) unsafe fn release(&self, task: NonNull<Header>, class: Class, layout: Layout) {
        // SAFETY: live until given back below.
        let header = unsafe { task.as_ref() };
        if header.has(NAMED) {
            self.forget_name(header.word.slot());
        }
        // SAFETY: as the caller promised.
        unsafe { self.release_nameless(task, class, layout) };
    }

    /// As [`release`](Self::release), of a task without a name.
    ///
    /// # Safety
    /// As there.
    #[inline]
    pub(super) unsafe fn release_nameless(
        &self,
        task: NonNull<Header>,
        class: Class,
        layout: Layout,
    ) {
        // SAFETY: live until given back below.
        let slot = unsafe { task.as_ref() }.word.slot();
        let inner = &mut *self.inner.borrow_mut();
        let entry = &mut inner.table[slot as usize];
        entry.task = None;
        // One that is in the run queue waits until it comes out of it: the next task in this slot must not
        // take the place in line of this one.
        if entry.scheduled == 0 {
            entry.scheduled = mem::replace(&mut inner.free, slot);
        }
        // SAFETY: taken in `spawn` with this layout; nobody uses it any more.
        unsafe { inner.blocks.give(task.cast(), class, layout) };
    }

    #[cold]
    #[inline(never)]
    fn forget_name(&self, slot: u32) {
        let name = self.lock_names().remove(&slot);
        drop(name);
    }
}

impl Entry {
    /// Whether a word that names this slot names its task, which has not ended, or the main future.
    #[inline]
    fn is_live(&self, word: Word) -> bool {
        self.task.is_some() && self.is_of(word) || word.slot() == ROOT
    }

    /// Whether a word that names this slot is that of its task, if there is one, which then has not ended.
    #[inline]
    fn is_of(&self, word: Word) -> bool {
        self.generation & GENERATION_MASK == word.generation()
    }
}

impl Inner {
    #[inline]
    fn pick(&mut self) -> Option<Next> {
        let slot = self.ready.pop()?;
        if let Some(later) = self.ready.ahead(TASKS_AHEAD) {
            self.prefetch(later);
        }
        Some(self.picked(slot))
    }

    /// What has come out of a line.
    #[inline]
    fn picked(&mut self, slot: u32) -> Next {
        let entry = &mut self.table[slot as usize];
        let stamp = mem::take(&mut entry.scheduled);
        match entry.task {
            Some(task) => Next::Task(Picked { task, stamp }),
            None if slot == ROOT => Next::Root(stamp),
            None => {
                // Kept back by `release`.
                entry.scheduled = mem::replace(&mut self.free, slot);
                Next::Gone
            }
        }
    }

    fn schedule(&mut self, slot: u32, stamp: u32) {
        let entry = &mut self.table[slot as usize];
        if entry.scheduled == 0 {
            entry.scheduled = stamp;
            self.ready.push(slot);
        }
    }

    fn word_of(&self, core: u32, slot: u32) -> Word {
        Word::new(core, slot, self.table[slot as usize].generation)
    }

    /// Makes a free slot.
    #[cold]
    fn add_slot(&mut self, lease: &Lease) -> u32 {
        let slot = self.table.len() as u32;
        assert!(slot < SLOTS_MAX, "more than {SLOTS_MAX} tasks on one core");
        let generation = lease.first_generation();
        self.table.push(Entry { task: None, generation, scheduled: 0 });
        if slot >= self.reserved {
            self.reserved = self.table.capacity().min(SLOTS_MAX as usize) as u32;
            lease.cell.map.reserve(self.reserved);
        }
        slot
    }
}

/// The number of the poll after the one that `last` has the number of, which becomes the last.
#[inline]
fn next_poll(last: &Cell<u64>) -> u64 {
    let number = last.get().wrapping_add(1);
    last.set(number);
    number
}

fn age_units(ns: u64) -> u32 {
    (ns / AGE_UNIT_NS) as u32
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
