//! A point that tasks pass together.
//!
//! Owns [`Barrier`]. The arrival of the last one hands everyone their index in one step, and the next
//! round begins at once: there is no phase of leaving in which others would have to be kept out.

use std::cell::Cell;
use std::fmt;

use super::wait_room::WaitRoom;
use crate::task::info::Note;

/// Lets a number of tasks of one core go on only when all of them have come. It can be used again and
/// again.
///
/// Memory: a list of those who wait, at most `parties - 1`.
///
/// ```
/// use coreloop::sync::Barrier;
/// use std::rc::Rc;
///
/// coreloop::run(async {
///     let barrier = Rc::new(Barrier::new(3));
///     let tasks: Vec<_> = (0..3)
///         .map(|_| {
///             let barrier = barrier.clone();
///             coreloop::spawn(async move { barrier.wait().await.unwrap().index() })
///         })
///         .collect();
///     let mut indices = Vec::new();
///     for task in tasks {
///         indices.push(task.await.unwrap());
///     }
///     assert_eq!(indices, [0, 1, 2]);
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::Barrier::new(1));
/// ```
pub struct Barrier {
    parties: usize,
    broken: Cell<bool>,
    room: WaitRoom<(), Result<usize, BrokenBarrier>>,
}

impl Barrier {
    /// One for this many tasks.
    ///
    /// # Panics
    /// If `parties` is zero: nobody could be the last to come.
    #[track_caller]
    pub const fn new(parties: usize) -> Self {
        assert!(parties > 0, "a barrier needs at least one party");
        Self { parties, broken: Cell::new(false), room: WaitRoom::new(Note::Barrier) }
    }

    /// Waits until [`parties`](Self::parties) tasks wait; the last one does not wait.
    ///
    /// The result says which of them this is: 0 for the first to have come, up to `parties - 1`.
    ///
    /// # Errors
    /// [`BrokenBarrier`] if the barrier is [aborted](Self::abort) or [reset](Self::reset) meanwhile, or
    /// was aborted before. Not if all had come by then.
    ///
    /// # Cancel safety
    /// A dropped future counts as not having come; if all had come, the others go on without it.
    pub async fn wait(&self) -> Result<BarrierWaitResult, BrokenBarrier> {
        let index = self.room.wait(|| self.arrive()).await?;
        Ok(BarrierWaitResult { index, is_last: index + 1 == self.parties })
    }

    /// Starts a new round: those who wait get an error, and a broken barrier is whole again.
    pub fn reset(&self) {
        self.broken.set(false);
        self.room.release_all(Err(BrokenBarrier(())));
    }

    /// Breaks it: those who wait get an error, and whoever comes, until it is [reset](Self::reset).
    pub fn abort(&self) {
        self.broken.set(true);
        self.room.release_all(Err(BrokenBarrier(())));
    }

    /// How many tasks it takes.
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.room.waiting()
    }

    /// Whether it was aborted and not reset.
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// What somebody who comes now gets without waiting.
    fn arrive(&self) -> Option<Result<usize, BrokenBarrier>> {
        if self.is_broken() {
            return Some(Err(BrokenBarrier(())));
        }
        if self.room.waiting() + 1 < self.parties {
            return None;
        }
        let mut index = 0;
        self.room.hand_all(|| {
            index += 1;
            Ok(index - 1)
        });
        self.room.wake();
        Some(Ok(self.parties - 1))
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties)
            .field("waiting", &self.waiting())
            .field("broken", &self.is_broken())
            .finish()
    }
}

/// Which of those who passed a [`Barrier`] together this was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    index: usize,
    is_last: bool,
}

impl BarrierWaitResult {
    /// Its number in the order in which they came, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether it is the one of them that does what only one is to do: the last to have come.
    pub fn is_leader(&self) -> bool {
        self.is_last
    }
}

/// The barrier was aborted or reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenBarrier(());

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the barrier was aborted or reset")
    }
}

impl std::error::Error for BrokenBarrier {}
