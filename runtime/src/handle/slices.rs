//! Questions that a core answers in slices.
//!
//! Owns [`Slices`], what is asked so, and the way of it from one turn of the core to the next: all that
//! is asked shares a slice a turn, so that the core's own tasks go on between.

use std::panic::Location;
use std::sync::Arc;

use super::{Handle, PostError, Promise, RemoteJoinHandle, promise};
use crate::executor::{self, context};
use crate::mailbox::queue::{Asks, Question};

impl Handle {
    /// As [`ask`](Self::ask), in slices: one turn of the core after the other, of all that is asked like
    /// this one slice a turn.
    pub(crate) fn ask_in_slices<S: Slices>(
        &self,
        core: usize,
        slices: S,
    ) -> Result<RemoteJoinHandle<S::Answer>, PostError> {
        let (promise, handle) = promise(Location::caller());
        let question = self.question(core, Asks::InSlices)?;
        let asked = Asked { handle: self.clone(), core, slices, promise, _question: question };
        self.post_anyway(core, Box::new(move || asked.next()))?;
        Ok(handle)
    }
}

/// A question whose answer takes a core several turns.
pub(crate) trait Slices: Send + 'static {
    type Answer: Send + 'static;

    /// Goes on for a bounded time; the answer, once it is whole.
    fn slice(&mut self, core: &executor::Core) -> Option<Self::Answer>;

    /// Nobody waits for the answer any more. Lets go of some of what was gathered, in a bounded time; whether
    /// that was all.
    fn let_go(&mut self) -> bool;
}

/// One of those under way.
struct Asked<S: Slices> {
    handle: Handle,
    core: usize,
    slices: S,
    promise: Promise<S::Answer>,
    /// Held for as long as it takes.
    _question: Question,
}

impl<S: Slices> Asked<S> {
    fn next(mut self) {
        let abandoned = Arc::strong_count(&self.promise.shared) == 1;
        let answer = context::with_core(|core| {
            if !core.may_slice() {
                return None;
            }
            if abandoned {
                // Whatever it says is dropped unheard.
                return self.slices.let_go().then_some(None);
            }
            self.slices.slice(core).map(Some)
        });
        match answer {
            Some(Some(Some(answer))) => self.promise.keep(Ok(answer)),
            // As many as may ask; they move over to the next turn.
            Some(None) => {
                let handle = self.handle.clone();
                _ = handle.post_anyway(self.core, Box::new(move || self.next()));
            }
            Some(Some(None)) | None => {}
        }
    }
}
