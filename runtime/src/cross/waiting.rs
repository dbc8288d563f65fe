//! How a task waits for another core.
//!
//! Owns [`Waiting`], which an end of a channel keeps: whether its task is set down as the one that waits, and
//! where. A task of a coreloop core is watched for by its core if that has a place for it; every other future
//! is woken by its waker.

use std::sync::Arc;
use std::task::Context;

use crate::executor::{Core, context};
use crate::mailbox::waiter::Waiter;
use crate::mailbox::watch::{End, Watched};
use crate::task::current;
use crate::task::info::Note;
use crate::task::waker::Word;

#[derive(Default)]
pub(super) enum Waiting {
    #[default]
    Not,
    ByWaker,
    /// The number of the loop and the slot that it waits in, for which position, and the name of its entry
    /// there.
    Watched {
        number: u64,
        slot: u32,
        at: usize,
        id: u64,
    },
}

impl Waiting {
    /// Sets the polled task down as the one that waits until `what` is due at `at`. Whoever calls it looks
    /// once more afterwards.
    pub(super) fn wait(
        &mut self,
        cx: &Context<'_>,
        waiter: Waiter<'_>,
        what: impl FnOnce() -> Arc<dyn Watched>,
        (end, at): (End, usize),
        note: Note,
    ) {
        current::note(note);
        let word = Word::of_waker(cx.waker());
        let ours = word.and_then(|word| {
            let number = |core: &Core| (core.tasks.core_id() == word.core()).then_some(core.number);
            Some((word, context::with_core(number)??))
        });
        if let (Self::Watched { number, slot, at: before, id }, Some((word, here))) = (&*self, ours)
            && (*number, *slot, *before) == (here, word.slot(), at)
            && context::with_core(|core| core.watches.has(*id)) == Some(true)
        {
            return;
        }
        self.end(waiter);
        if let Some((word, number)) = ours
            && let Some(Some(id)) =
                on_loop(number, |core| core.watches.add(word.slot(), what(), end, at))
        {
            *self = Self::Watched { number, slot: word.slot(), at, id };
            waiter.set_watched(word.core(), word.slot());
        } else {
            *self = Self::ByWaker;
            waiter.set_waker(cx.waker().clone());
        }
    }

    /// It waits no more.
    pub(super) fn end(&mut self, waiter: Waiter<'_>) {
        match std::mem::take(self) {
            Self::Not => return,
            Self::ByWaker => {}
            // On another core the entry lapses by itself.
            Self::Watched { number, id, .. } => {
                on_loop(number, |core| core.watches.remove(id));
            }
        }
        waiter.clear();
    }
}

/// Calls `f` with the core that runs on this thread, if it is the loop of this number.
fn on_loop<R>(number: u64, f: impl FnOnce(&Core) -> R) -> Option<R> {
    context::with_core(|core| (core.number == number).then(|| f(core))).flatten()
}
