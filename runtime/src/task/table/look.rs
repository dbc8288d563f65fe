//! What the tasks of a core are doing, for whoever asks.
//!
//! Owns the look at the table that makes a [`TaskInfo`] of each task, and the report of a failure that nobody
//! took; and the notes that polls leave for it. A look changes nothing, and nothing of it is kept.

use std::collections::HashMap;
use std::panic::Location;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{AGE_UNIT_NS, GENERATION_MASK, Names, Picked, ROOT, Tasks};
use crate::sys::locks::MutexGuard;
use crate::sys::sample::{Said, Target};
use crate::task::cell::{DONE, Failure, Header};
use crate::task::current;
use crate::task::info::{Note, TaskInfo, TaskState, WaitsFor};
use crate::task::report::{Report, Reporter};
use crate::task::waker::{TaskId, Word};

/// Which task, for as long as that must be known after its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    pub(crate) word: Word,
    /// None for the main future.
    pub(crate) spawned_at: Option<&'static Location<'static>>,
}

impl Tasks {
    /// The task that is being polled says what it will wait for.
    pub(crate) fn note(&self, note: Note) {
        match NonNull::new(self.polling.load(Ordering::Relaxed)) {
            // SAFETY: a task is live while it is being polled.
            Some(task) => unsafe { task.as_ref() }.note.set(note),
            None => self.root_note.set(note),
        }
    }

    /// What the poll under way has noted.
    #[cfg(feature = "tracing")]
    pub(crate) fn noted(&self) -> Option<&'static str> {
        let polling = NonNull::new(self.polling.load(Ordering::Relaxed))?;
        // SAFETY: a task is live while it is being polled.
        unsafe { polling.as_ref() }.note.get().name()
    }

    /// As [`note`](Self::note), unless this poll has left one: of several waits the others say more.
    #[cold]
    pub(crate) fn note_least(&self, note: Note) {
        let place = match NonNull::new(self.polling.load(Ordering::Relaxed)) {
            // SAFETY: a task is live while it is being polled.
            Some(task) => unsafe { &task.as_ref().note },
            None => &self.root_note,
        };
        if place.get() == Note::Nothing {
            place.set(note);
        }
    }

    /// Slots and names of the tasks that have not ended.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn unfinished(&self) -> Vec<(u32, Option<std::sync::Arc<str>>)> {
        let inner = self.inner.borrow();
        let slots = inner.table.iter().zip(0..).filter_map(|(e, slot)| Some((e.task?, slot)));
        // SAFETY: a task in the table is live.
        let live = slots.filter(|(task, _)| !unsafe { task.as_ref() }.has(DONE));
        live.map(|(_, slot)| (slot, self.name(slot))).collect()
    }

    /// The calling thread, whose loop has these tasks, as a signal handler finds it.
    pub(crate) fn as_target(self: &Rc<Self>) -> &'static Target {
        /// # Safety
        /// `tasks` points at live ones, of the calling thread.
        unsafe fn describe(tasks: *const ()) -> Said {
            // SAFETY: as the caller promises. What is read of them is atomic.
            let tasks = unsafe { &*tasks.cast::<Tasks>() };
            let polling = tasks.polling.load(Ordering::Acquire);
            // SAFETY: null, or a task that is being polled, which is live; where it was spawned is written
            // before it is known to anybody, and never again.
            let at = unsafe { polling.as_ref() }.map(|header| header.spawned_at);
            (tasks.running.get().to_u64(), at)
        }
        // SAFETY: who watches keeps these tasks alive until the target takes leave, and both are bound to
        // this thread.
        unsafe { Target::this_thread(describe, Rc::as_ptr(self).cast()) }
    }

    /// Which task, in which slot, the word of a look at that [target](Self::as_target) names.
    pub(crate) fn understand(word: u64) -> (TaskId, u32) {
        let word = Word::from_u64(word);
        (TaskId::of(word), word.slot())
    }

    /// Tasks that are to be polled in the next turn.
    pub(crate) fn ready(&self) -> usize {
        let inner = self.inner.borrow();
        let in_queues = inner.queues.as_ref().map_or(0, |queues| queues.ready());
        inner.ready.len() + inner.gave_way.len() + in_queues
    }

    /// Bytes of the tasks' memory and tables; those of tasks too large for a page are not among them.
    pub(crate) fn bytes(&self) -> usize {
        let inner = self.inner.borrow();
        let table = inner.table.capacity() * size_of::<super::Entry>();
        table + inner.blocks.bytes() + inner.ready.bytes() + inner.gave_way.bytes()
    }

    /// Id of the task that is being polled; the main future has one too.
    pub(crate) fn running_id(&self) -> TaskId {
        TaskId::of(self.running.get())
    }

    /// Name of the task that is being polled.
    pub(crate) fn running_name(&self) -> Option<Arc<str>> {
        self.name(self.running.get().slot())
    }

    /// Names the task in `slot`; its header says that it has a name.
    pub(in crate::task) fn set_name(&self, slot: u32, name: Arc<str>) {
        let old = self.lock_names().insert(slot, name);
        drop(old);
    }

    pub(crate) fn name(&self, slot: u32) -> Option<Arc<str>> {
        self.lock_names().get(&slot).cloned()
    }

    pub(super) fn lock_names(&self) -> MutexGuard<'_, HashMap<u32, Arc<str>>> {
        // Nothing panics while it is held.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn names(&self) -> Names {
        self.names.clone()
    }

    /// Whose turn [`pick`](Self::pick) gave.
    #[inline]
    pub(crate) fn whose(&self, picked: &Picked) -> Whose {
        // SAFETY: a task in the table is live.
        let header = unsafe { picked.task.as_ref() };
        Whose { word: header.word, spawned_at: Some(header.spawned_at) }
    }

    /// The main future's own.
    pub(crate) fn whose_root(&self) -> Whose {
        Whose { word: self.root, spawned_at: None }
    }

    /// The name of a task, if it has one and has not ended.
    pub(crate) fn name_of(&self, whose: Whose) -> Option<Arc<str>> {
        self.name(self.slot_of_word(whose.word)?)
    }

    /// What is known of the task that [`pick`](Self::pick) gave.
    pub(crate) fn info_of(&self, picked: &Picked) -> TaskInfo {
        // SAFETY: a task in the table is live.
        self.info(unsafe { picked.task.as_ref() }, TaskState::Running)
    }

    /// What is known of the main future.
    pub(crate) fn root_info(&self) -> TaskInfo {
        self.root_info_if(true)
    }

    fn root_info_if(&self, one_runs: bool) -> TaskInfo {
        let inner = self.inner.borrow();
        let running = one_runs && self.running.get() == self.root && current::is_running(self);
        let note = self.root_note.get().name().filter(|_| !running);
        TaskInfo {
            id: TaskId::of(self.root),
            name: None,
            parent: None,
            queue: None,
            spawned_at: None,
            age: Duration::ZERO,
            polls: Some(self.root.polls_up_to(self.root_poll.get())),
            state: match (running, inner.table[ROOT as usize].scheduled != 0) {
                (true, _) => TaskState::Running,
                (false, true) => TaskState::Ready,
                (false, false) => TaskState::Waiting,
            },
            waits_for: note.map(WaitsFor::Other).into_iter().collect(),
        }
    }

    /// Slots that there are, of tasks or free; the main future's is the first.
    pub(crate) fn slots(&self) -> u32 {
        self.inner.borrow().table.len() as u32
    }

    /// What is known of the task in `slot`, if there is one that has not ended. Between polls, where closures
    /// from elsewhere run in the main future's name, `one_runs` is false: nobody does.
    pub(crate) fn info_at(&self, slot: u32, one_runs: bool) -> Option<TaskInfo> {
        if slot == ROOT {
            return Some(self.root_info_if(one_runs));
        }
        let entry = *self.inner.borrow().table.get(slot as usize)?;
        // SAFETY: a task in the table is live, and nothing here ends one.
        let header = unsafe { entry.task?.as_ref() };
        let state = match () {
            () if one_runs && slot == self.running.get().slot() => TaskState::Running,
            () if entry.scheduled != 0 => TaskState::Ready,
            () => TaskState::Waiting,
        };
        (!header.has(DONE)).then(|| self.info(header, state))
    }

    /// The task in `slot`, if there is one that has not ended, and who waits for its end.
    pub(crate) fn joined_at(&self, slot: u32) -> Option<(TaskId, Option<Word>)> {
        let entry = *self.inner.borrow().table.get(slot as usize)?;
        // SAFETY: as in `info_at`.
        let header = unsafe { entry.task?.as_ref() };
        (!header.has(DONE)).then(|| (TaskId::of(header.word), header.joined_by()))
    }

    fn slot_of_word(&self, word: Word) -> Option<u32> {
        let inner = self.inner.borrow();
        let entry = inner.table.get(word.slot() as usize)?;
        (word.core() == self.lease.id && entry.generation & GENERATION_MASK == word.generation())
            .then_some(word.slot())
    }

    fn info(&self, header: &Header, state: TaskState) -> TaskInfo {
        let units = self.birth.get().spawned.wrapping_sub(header.spawned);
        let note = header.note.get().name().filter(|_| state != TaskState::Running);
        TaskInfo {
            id: TaskId::of(header.word),
            name: self.name(header.word.slot()),
            parent: Some(TaskId::of(header.parent)),
            queue: self.queue_name(header.queue()),
            spawned_at: Some(header.spawned_at),
            age: Duration::from_nanos(u64::from(units) * AGE_UNIT_NS),
            polls: header.polls(),
            state,
            waits_for: note.map(WaitsFor::Other).into_iter().collect(),
        }
    }

    /// Tells of a failure that nobody took.
    pub(in crate::task) fn report_failure(&self, header: &Header, failure: &Failure) {
        let task = &self.info(header, TaskState::Waiting);
        self.reporter.tell(&match failure {
            Failure::Panicked(message) => Report::Panicked { task, message },
            Failure::Failed(error) => Report::Failed { task, error },
        });
    }

    pub(crate) fn reporter(&self) -> &Reporter {
        &self.reporter
    }
}
