//! The end of a loop's tasks.
//!
//! Owns the order in which what is left is ended when a loop closes, and what becomes of memory that even
//! then somebody may refer to.

use std::ptr::NonNull;

use super::{Next, Tasks};
use crate::task::blocks::Blocks;
use crate::task::cell::{self, DONE, Header};
use crate::task::join::JoinError;

/// Tasks that destructors may spawn while a loop closes.
const CLOSING_SPAWNS_MAX: usize = 1_000_000;

impl Tasks {
    /// Ends every task: futures are dropped, handles say cancelled. Tasks that destructors spawn end too,
    /// one after the other and not within each other.
    pub(crate) fn cancel_all(&self) {
        let slots = {
            let mut inner = self.inner.borrow_mut();
            inner.merge();
            inner.table.len()
        };
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
        let mut ended = 0;
        while ended < CLOSING_SPAWNS_MAX {
            match self.pick() {
                // Entries of those that have ended are no more than there were.
                Some(Next::Task(picked)) => ended += usize::from(self.end(picked.task)),
                Some(Next::Root(_) | Next::Gone) => {}
                None => return,
            }
        }
    }

    /// Ends a task; whether it had not ended.
    fn end(&self, task: NonNull<Header>) -> bool {
        // SAFETY: a task in the table is live.
        let header = unsafe { task.as_ref() };
        let lives = !header.has(DONE);
        if lives {
            // Counted where it belongs, and so is what its destructors spawn.
            self.in_queue(header.queue(), || {
                // SAFETY: as above; nothing is being polled while the loop closes.
                unsafe { cell::end(task, self, JoinError::cancelled()) };
            });
        }
        lives
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        if inner.live_in_all() > 0 {
            // Futures whose destructors did not run: their memory may be referred to (a pinned future is
            // never freed undropped), so it is leaked.
            std::mem::forget(std::mem::replace(&mut inner.blocks, Blocks::new()));
        }
        let highest = inner.table.iter().map(|e| e.generation).max().unwrap_or(0);
        self.lease.set_next_generation(highest.wrapping_add(1));
    }
}
