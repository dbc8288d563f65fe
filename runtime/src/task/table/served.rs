//! Task queues: where a task's turns are sorted to, and which queue is being served.
//!
//! Owns the way between the run queue and the task queues. While there are others than the default one, who
//! is woken still goes to the end of the run queue; from there it is sorted to its queue's end whenever the
//! loop asks whose turn it is. The table counts the live tasks of the queue that is being served, and those
//! that are spawned meanwhile are its own: so neither a spawn, nor a wake, nor an end asks which queue it
//! is about, and a core with one queue does nothing for all this but to look, once a turn, whether there
//! are more.

use std::sync::Arc;

use super::{Inner, Next, Tasks};
use crate::metrics::QueueStats;
use crate::task::cell::Mark;
use crate::task::queues::{DEFAULT, Place, Queues, Terms};

/// What [`Tasks::begin_turn`] gives instead of a number while there are several queues: more than any.
pub(crate) const SEVERAL: usize = usize::MAX / 2;

impl Tasks {
    /// Makes a queue, with one handle to it; its place. None if there are as many as there may be.
    pub(crate) fn add_queue(&self, name: Arc<str>, terms: Terms) -> Option<u8> {
        let inner = &mut *self.inner.borrow_mut();
        let live = inner.live;
        let default = self.default_terms.get();
        let queues = inner.queues.get_or_insert_with(|| Box::new(Queues::new(default, live)));
        queues.add(name, terms)
    }

    /// One more handle to a queue.
    pub(crate) fn keep_queue(&self, id: u8) {
        if id != DEFAULT
            && let Some(queues) = &mut self.inner.borrow_mut().queues
        {
            queues.at(id).handles += 1;
        }
    }

    /// One less. The last one lets it go when its tasks have ended.
    pub(crate) fn let_queue_go(&self, id: u8) {
        let inner = &mut *self.inner.borrow_mut();
        let (false, Some(queues)) = (id == DEFAULT, &mut inner.queues) else { return };
        queues.at(id).handles -= 1;
        if inner.serving != id {
            queues.give_back(id);
        }
    }

    /// What a queue is told to be.
    pub(crate) fn terms(&self, id: u8) -> Terms {
        match self.inner.borrow().queues.as_ref().and_then(|queues| queues.get(id)) {
            Some(queue) => queue.terms,
            None => self.default_terms.get(),
        }
    }

    pub(crate) fn set_terms(&self, id: u8, terms: Terms) {
        if id == DEFAULT {
            self.default_terms.set(terms);
        }
        if let Some(queues) = &mut self.inner.borrow_mut().queues {
            queues.at(id).terms = terms;
        }
    }

    /// A queue's name; none of the default one.
    pub(crate) fn queue_name(&self, id: u8) -> Option<Arc<str>> {
        if id == DEFAULT {
            return None;
        }
        self.inner.borrow().queues.as_ref()?.get(id).map(|queue| queue.name.clone())
    }

    /// What each queue has done; none where the default one is the only one.
    pub(crate) fn queue_stats(&self) -> Vec<QueueStats> {
        let inner = self.inner.borrow();
        let Some(queues) = &inner.queues else { return Vec::new() };
        let ids = queues.iter().map(|(id, _)| id);
        ids.filter_map(|id| inner.queue_stats(id)).collect()
    }

    /// What one queue has done; none of the default one while it is the only one.
    pub(crate) fn queue_stats_of(&self, id: u8) -> Option<QueueStats> {
        self.inner.borrow().queue_stats(id)
    }

    /// The queue of the task that is being polled: the default one outside of all polls.
    pub(crate) fn current_queue(&self) -> u8 {
        self.inner.borrow().serving
    }

    /// Calls `f`; tasks that it makes are this queue's. The queue that was being served is kept meanwhile, as
    /// by a handle: `f` may let go of the last one.
    pub(crate) fn in_queue<R>(&self, id: u8, f: impl FnOnce() -> R) -> R {
        struct Back<'a>(&'a Tasks, u8);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.serve(self.1);
                self.0.let_queue_go(self.1);
            }
        }
        self.keep_queue(self.current_queue());
        let _back = Back(self, self.serve(id));
        f()
    }

    /// Serves this queue from now on; which one was served.
    pub(crate) fn serve(&self, id: u8) -> u8 {
        let before = self.inner.borrow_mut().serve(id);
        self.birth.set(Mark::new(self.birth.get().spawned, id));
        before
    }

    /// Begins a turn of all queues.
    pub(crate) fn begin_queues(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.sort();
        if let Some(queues) = &mut inner.queues {
            queues.begin_turn();
        }
    }

    /// The longest that one turn may take for the sake of those that must not wait, in ns.
    pub(crate) fn latency_ns(&self) -> u64 {
        self.inner.borrow().queues.as_ref().map_or(u64::MAX, |queues| queues.latency_ns())
    }

    /// Begins to serve the queue whose turn it is. None if this turn is over.
    pub(crate) fn serve_next(&self) -> Option<u8> {
        let id = {
            let inner = &mut *self.inner.borrow_mut();
            inner.sort();
            inner.queues.as_mut()?.next()?
        };
        self.serve(id);
        Some(id)
    }

    /// Takes out the first that are to be polled in this turn of the queue that is being served.
    pub(crate) fn pick_served(&self) -> Option<Next> {
        let inner = &mut *self.inner.borrow_mut();
        let queue = inner.queues.as_mut()?.at(inner.serving);
        queue.left = queue.left.checked_sub(1)?;
        let slot = queue.ready.pop()?;
        Some(inner.picked(slot))
    }

    /// Ends the serving of a queue, which used this much; its number.
    pub(crate) fn end_served(&self, id: u8, polls: u64, ns: u64) -> Option<u64> {
        self.serve(DEFAULT);
        let inner = &mut *self.inner.borrow_mut();
        let queues = inner.queues.as_mut()?;
        let number = queues.used(id, polls, ns);
        queues.give_back(id);
        number
    }

    /// The queue of this number did not use this much after all.
    pub(crate) fn give_time_back(&self, id: u8, number: u64, ns: u64) {
        if let Some(queues) = &mut self.inner.borrow_mut().queues {
            queues.unused(id, number, ns);
        }
    }

    /// Ends the turn of all queues; whether there are several still. When none is left but the default one,
    /// that is the run queue again, and the next that are made have their numbers anew.
    pub(crate) fn end_queues(&self) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        inner.sort();
        let Some(queues) = &mut inner.queues else { return false };
        queues.end_turn();
        if queues.is_default_alone() {
            inner.merge();
            inner.queues = None;
        }
        inner.queues.is_some()
    }
}

impl Inner {
    fn serve(&mut self, id: u8) -> u8 {
        let before = std::mem::replace(&mut self.serving, id);
        if let Some(queues) = &mut self.queues {
            queues.at(before).tasks = self.live;
            self.live = queues.at(id).tasks;
        }
        before
    }

    /// Tasks of all queues that have not ended.
    pub(super) fn live_in_all(&self) -> u32 {
        let Some(queues) = &self.queues else { return self.live };
        let others = queues.iter().filter(|(id, _)| *id != self.serving);
        self.live + others.map(|(_, queue)| queue.tasks).sum::<u32>()
    }

    /// Sorts the run queue to the queues.
    fn sort(&mut self) {
        let Some(queues) = &mut self.queues else { return };
        for (line, place) in [(&mut self.ready, Place::Ready), (&mut self.gave_way, Place::GaveWay)]
        {
            while let Some(slot) = line.pop() {
                // SAFETY: a task in the table is live.
                let queue = self.table[slot as usize].task.map(|t| unsafe { t.as_ref() }.queue());
                queues.push(queue.unwrap_or(DEFAULT), place, slot);
            }
        }
    }

    /// Puts all that are to be polled back into the run queue.
    pub(super) fn merge(&mut self) {
        self.sort();
        if let Some(queues) = &mut self.queues {
            queues.empty_into(&mut self.ready, &mut self.gave_way);
        }
    }

    fn queue_stats(&self, id: u8) -> Option<QueueStats> {
        let queue = self.queues.as_ref()?.get(id)?;
        Some(QueueStats {
            name: queue.name.to_string(),
            shares: queue.terms.shares,
            tasks: if id == self.serving { self.live } else { queue.tasks },
            polls: queue.polls,
            cpu_time: std::time::Duration::from_nanos(queue.tell_cpu_ns()),
        })
    }
}
