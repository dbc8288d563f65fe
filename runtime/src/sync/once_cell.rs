//! A value that is made once, by an initialiser that may wait.
//!
//! Owns [`OnceCell`]: a gate with one permit for the turn to initialise, closed when the value is
//! there.

use std::cell;
use std::convert::Infallible;
use std::fmt;

use super::gate::Gate;
use crate::task::info::Note;

/// A cell that is filled once, by the first initialiser that succeeds.
///
/// While one initialises, others wait. One that fails, panics or is cancelled passes the turn on to the
/// next in line, with that one's own initialiser. One that asks for the same cell waits for itself for
/// ever.
///
/// Memory: nothing is allocated unless a task waits.
///
/// ```
/// use coreloop::sync::OnceCell;
///
/// coreloop::run(async {
///     let cell = OnceCell::new();
///     assert_eq!(cell.get_or_try_init(async || Err::<u8, _>("no")).await, Err("no"));
///     assert_eq!(cell.get_or_init(async || 7).await, &7);
///     assert_eq!(cell.get_or_init(async || 8).await, &7);
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::OnceCell::<u8>::new());
/// ```
pub struct OnceCell<T> {
    value: cell::OnceCell<T>,
    turn: Gate,
}

impl<T> OnceCell<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self { value: cell::OnceCell::new(), turn: Gate::new(1, Note::OnceCell) }
    }

    /// The value, if it is there.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, if it is there.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// The value, if it is there.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Fills it, if it is empty and nobody initialises it.
    ///
    /// # Errors
    /// The value otherwise.
    pub fn set(&self, value: T) -> Result<(), T> {
        match self.turn.try_acquire(1) {
            Ok(_turn) => {
                let set = self.value.set(value);
                self.turn.close();
                set
            }
            Err(_) => Err(value),
        }
    }

    /// The value; `init` makes it if nobody else has.
    ///
    /// # Cancel safety
    /// A future that is dropped while it initialises passes the turn on. A forgotten one keeps it.
    pub async fn get_or_init(&self, init: impl AsyncFnOnce() -> T) -> &T {
        match self.get_or_try_init(async || Ok::<_, Infallible>(init().await)).await {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The value; `init` makes it if nobody else has, or fails and leaves the cell empty.
    ///
    /// # Errors
    /// Those of `init`. Others who wait don't see them: the next one tries.
    ///
    /// # Cancel safety
    /// As [`get_or_init`](Self::get_or_init).
    pub async fn get_or_try_init<E>(
        &self,
        init: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        // Closed: the value came while we waited.
        if let Ok(_turn) = self.turn.acquire(1).await {
            let value = init().await?;
            // We have the turn: nobody can have filled it.
            let _ = self.value.set(value);
            self.turn.close();
        }
        Ok(self.get().expect("the turn ends with a value"))
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for OnceCell<T> {
    fn from(value: T) -> Self {
        let turn = Gate::new(1, Note::OnceCell);
        turn.close();
        Self { value: value.into(), turn }
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceCell").field("value", &self.get()).finish_non_exhaustive()
    }
}
