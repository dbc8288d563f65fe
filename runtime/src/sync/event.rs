//! A flag that can be waited for.
//!
//! Owns [`Event`]. Setting it hands a wake-up to everyone who waits, in one step: who waited when it
//! was set goes on, even if it is cleared before they run.

use std::cell::Cell;
use std::fmt;

use super::wait_room::WaitRoom;
use crate::task::info::Note;

/// A flag that tasks of one core set, clear and wait for.
///
/// Memory: nothing is allocated unless a task waits. The list of waiters is as long as there are
/// waiters.
///
/// ```
/// use coreloop::sync::Event;
/// use std::rc::Rc;
///
/// coreloop::run(async {
///     let ready = Rc::new(Event::new());
///     let seen = ready.clone();
///     let task = coreloop::spawn(async move { seen.wait().await });
///     ready.set();
///     task.await.unwrap();
///     assert!(ready.is_set());
///     ready.clear();
///     assert!(!ready.is_set());
/// })
/// .unwrap();
/// ```
///
/// It stays on its core:
///
/// ```compile_fail,E0277
/// fn is_send<T: Send>(_: T) {}
/// is_send(coreloop::sync::Event::new());
/// ```
pub struct Event {
    set: Cell<bool>,
    room: WaitRoom<(), ()>,
}

impl Event {
    /// One that is not set.
    pub const fn new() -> Self {
        Self { set: Cell::new(false), room: WaitRoom::new(Note::Event) }
    }

    /// Sets it. Everyone who waits goes on, in the order in which they came; who comes later need not
    /// wait until it is [cleared](Self::clear).
    pub fn set(&self) {
        self.set.set(true);
        self.room.release_all(());
    }

    /// Clears it: who waits from now on waits for the next [`set`](Self::set).
    pub fn clear(&self) {
        self.set.set(false);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Waits until it is set; ready at once if it is.
    ///
    /// # Cancel safety
    /// A dropped future waits no longer; there is nothing to lose. A forgotten one keeps its entry in
    /// the list for as long as the event lives.
    pub async fn wait(&self) {
        self.room.wait(|| self.is_set().then_some(())).await;
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("set", &self.is_set())
            .field("waiting", &self.room.waiting())
            .finish()
    }
}
