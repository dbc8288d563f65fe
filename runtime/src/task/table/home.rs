//! From a task to its loop's tasks, without a pointer in either it or its handle.
//!
//! Owns which tasks the id of a core stands for. Invariant: as long as [`Tasks`] live they keep their lease,
//! so what is entered under their id is they; nobody asks but who has a share of them, on their thread.

use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Tasks;
use crate::mailbox::cell::CORES_MAX;
use crate::task::waker::Word;

static HOMES: [AtomicPtr<Tasks>; CORES_MAX] =
    [const { AtomicPtr::new(ptr::null_mut()) }; CORES_MAX];

/// Enters tasks under the id that they have leased.
pub(super) fn enter(tasks: &Rc<Tasks>) {
    let home = Rc::as_ptr(tasks).cast_mut();
    HOMES[tasks.lease.id as usize].store(home, Ordering::Relaxed);
}

/// The tasks of the loop of `word`'s task. They are to be looked at only by who has a share of them: else
/// they may be gone, or others have their place.
#[inline]
pub(in crate::task) fn of(word: Word) -> *const Tasks {
    // A place of the table for every core that a word can name.
    HOMES[word.core() as usize % CORES_MAX].load(Ordering::Relaxed)
}
