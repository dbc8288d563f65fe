//! Who waits for a task's end, in one word and a byte of its header.
//!
//! Owns [`Joiner`] and how it is kept. Nearly all who wait are tasks: those are kept as their waker's word. A
//! task of a set keeps its place in it. Wakers of others lie on the heap. Nothing here runs a stranger's
//! code: who takes a joiner out drops it.

use std::ptr::{self, null};
use std::task::Waker;

use super::cell::Header;
use super::set::Place;
use super::waker::Word;

/// Whom to tell at a task's end.
pub(super) enum Joiner {
    /// A task, of any core.
    Task(Word),
    /// A set of which the task is a member.
    Place(Place),
    /// A stranger.
    Other(Box<Waker>),
}

/// What [`Header::joiner`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum JoinerKind {
    Nobody,
    /// A [`Word`].
    Task,
    /// A [`Place`].
    Place,
    /// What `Box::into_raw` gave of a `Box<Waker>`.
    Other,
}

impl Joiner {
    #[inline]
    fn into_parts(self) -> (JoinerKind, *const ()) {
        match self {
            Self::Task(word) => (JoinerKind::Task, word.data()),
            Self::Place(place) => (JoinerKind::Place, ptr::without_provenance(place.0 as usize)),
            Self::Other(waker) => (JoinerKind::Other, Box::into_raw(waker).cast_const().cast()),
        }
    }
}

impl Header {
    #[inline]
    pub(super) fn take_joiner(&self) -> Option<Joiner> {
        let kind = self.joiner_kind.replace(JoinerKind::Nobody);
        let data = self.joiner.get();
        Some(match kind {
            JoinerKind::Nobody => return None,
            JoinerKind::Task => Joiner::Task(Word::of(data)),
            JoinerKind::Place => Joiner::Place(Place(data.addr() as u64)),
            JoinerKind::Other => {
                // SAFETY: what is kept as `Other` came out of `Box::into_raw` in `into_parts`. It is taken
                // once: from here on the kind says that there is nobody.
                Joiner::Other(unsafe { Box::from_raw(data.cast_mut().cast::<Waker>()) })
            }
        })
    }

    /// Keeps `joiner`, and gives whoever was kept before.
    #[inline]
    pub(super) fn replace_joiner(&self, joiner: Option<Joiner>) -> Option<Joiner> {
        let old = self.take_joiner();
        let (kind, data) =
            joiner.map_or((JoinerKind::Nobody, null()), |joiner| joiner.into_parts());
        self.joiner.set(data);
        self.joiner_kind.set(kind);
        old
    }

    /// Whether anybody is kept.
    #[inline]
    pub(super) fn has_joiner(&self) -> bool {
        self.joiner_kind.get() != JoinerKind::Nobody
    }

    /// Whether a stranger's waker is kept.
    #[inline]
    pub(super) fn has_foreign_joiner(&self) -> bool {
        self.joiner_kind.get() == JoinerKind::Other
    }

    /// As [`take_joiner`](Self::take_joiner), if it is a task.
    #[inline]
    pub(super) fn take_joined_by(&self) -> Option<Word> {
        let word = self.joined_by()?;
        self.joiner_kind.set(JoinerKind::Nobody);
        Some(word)
    }

    /// The task that waits for this one, if a task does.
    #[inline]
    pub(super) fn joined_by(&self) -> Option<Word> {
        (self.joiner_kind.get() == JoinerKind::Task).then(|| Word::of(self.joiner.get()))
    }
}
