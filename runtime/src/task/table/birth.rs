//! Making tasks.
//!
//! Owns what a new task is given, and where its first poll takes place: at its turn, or in the call that
//! makes it. That one lies within another poll, whose marks are put back when it is over; whatever a poll may
//! do it may do, since the loop does not run meanwhile and nobody else can find the task in the run queue.

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::{ROOT, Tasks};
use crate::metrics::Kind;
use crate::task::cell::{AnyValue, Birth, Header, Judge, TaskCell};
use crate::task::current;
use crate::task::join::JoinHandle;
use crate::task::local::Within;
use crate::task::waker::Word;

/// Tasks that are polled within each other's making, at most: a chain of them is as deep as the stack is.
const DEPTH_MAX: u32 = 16;

/// A depth at which none is polled as it is made.
const NO_MORE: u32 = u32::MAX;

impl Tasks {
    /// Makes a task; it is polled in the next tick, after those that are ready already.
    pub(crate) fn spawn<F: Future + 'static>(
        self: &Rc<Self>,
        future: F,
        at: &'static Location<'static>,
    ) -> JoinHandle<F::Output> {
        self.clone().spawn_judged::<F, AnyValue>(future, at)
    }

    /// As [`spawn`](Self::spawn); `J` says what a failure is.
    #[inline]
    pub(crate) fn spawn_judged<F: Future + 'static, J: Judge<F::Output>>(
        self: Rc<Self>,
        future: F,
        at: &'static Location<'static>,
    ) -> JoinHandle<F::Output> {
        let task = self.make::<F, J>(future, at, true);
        self.tell_if_idle();
        JoinHandle::new(self, task)
    }

    /// Makes a task and polls it. With [`DEPTH_MAX`] such polls around it, where the loop does not run and
    /// while it closes it is as any other task.
    #[inline]
    pub(crate) fn spawn_eager<F: Future + 'static>(
        self: Rc<Self>,
        future: F,
        at: &'static Location<'static>,
    ) -> JoinHandle<F::Output> {
        if self.depth.get() >= DEPTH_MAX || !current::is_running(&self) {
            return self.spawn_judged::<F, AnyValue>(future, at);
        }
        let task = self.make::<F, AnyValue>(future, at, false);
        // First of all: the handle keeps the task, whatever becomes of it in its poll.
        let handle = JoinHandle::new(self.clone(), task);
        // SAFETY: a new task of this type, live while its handle is; it is in no queue.
        unsafe { self.poll_newborn::<F>(task) };
        handle
    }

    /// From here on each task's first poll is the loop's.
    pub(crate) fn poll_no_newborn(&self) {
        self.depth.set(NO_MORE);
    }

    #[inline]
    fn make<F: Future + 'static, J: Judge<F::Output>>(
        &self,
        future: F,
        at: &'static Location<'static>,
        is_ready: bool,
    ) -> NonNull<Header> {
        self.metrics.count(Kind::Spawns);
        let inner = &mut *self.inner.borrow_mut();
        let slot = match inner.free {
            ROOT => inner.add_slot(&self.lease),
            slot => slot,
        };
        let place = inner.blocks.take(TaskCell::<F>::CLASS, TaskCell::<F>::LAYOUT);
        let entry = &mut inner.table[slot as usize];
        inner.free = entry.scheduled;
        let word = Word::new(self.lease.id, slot, entry.generation);
        let birth = Birth { word, parent: self.running.get(), at, mark: self.birth.get() };
        // SAFETY: fresh memory of this layout.
        let task = unsafe { TaskCell::write::<J>(place, &birth, future) };
        entry.task = Some(task);
        if is_ready {
            entry.scheduled = self.stamp.get();
            inner.ready.push(slot);
        } else {
            entry.scheduled = 0;
        }
        inner.live += 1;
        task
    }

    /// # Safety
    /// `task` is a `TaskCell<F>`, live until this returns; it has not been polled, and is in no queue.
    #[inline]
    unsafe fn poll_newborn<F: Future + 'static>(&self, task: NonNull<Header>) {
        // As in a turn of its own: what is set around the call is the caller's.
        let _locals = Within::nothing();
        let _outer = Outer {
            tasks: self,
            running: self.running.get(),
            polling: self.polling.load(Ordering::Relaxed),
            cancelling: self.cancelling.take(),
            poll: current::poll_number(),
        };
        self.depth.set(self.depth.get() + 1);
        // No poll of the loop: who watches for stalls takes it for a part of the one around it.
        self.metrics.count(Kind::EagerPolls);
        // SAFETY: live, as the caller promised.
        unsafe { self.polls(task) };
        // SAFETY: live, not done, of the loop that runs on this thread, and not being polled: it was made
        // just now.
        let polled = catch_unwind(AssertUnwindSafe(|| unsafe {
            TaskCell::<F>::poll(task.cast(), self);
        }));
        if let Err(payload) = polled {
            self.end_panicked(payload);
        }
    }

    /// Takes the slot that was scheduled last out of the run queue, if it is this one.
    pub(crate) fn unschedule_last(&self, slot: u32) {
        // While the loop closes the queue is where what destructors spawn is found, and ended.
        if self.depth.get() == NO_MORE {
            return;
        }
        let mut inner = self.inner.borrow_mut();
        if inner.ready.last() == Some(slot) {
            inner.ready.pop_last();
            inner.table[slot as usize].scheduled = 0;
        }
    }
}

/// What a poll left when another began within it. It goes on when this is dropped.
struct Outer<'a> {
    tasks: &'a Tasks,
    running: Word,
    polling: *mut Header,
    /// A cancel that is under way is not one of what that other poll drops.
    cancelling: u64,
    poll: u64,
}

impl Drop for Outer<'_> {
    fn drop(&mut self) {
        let tasks = self.tasks;
        tasks.running.set(self.running);
        tasks.polling.store(self.polling, Ordering::Release);
        tasks.cancelling.set(self.cancelling);
        current::resume_poll(self.poll);
        match tasks.depth.get() {
            NO_MORE => {}
            depth => tasks.depth.set(depth - 1),
        }
    }
}
