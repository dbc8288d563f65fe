//! The handle of a plain function on the loop.
//!
//! Owns [`Call`]: a task without a value that nobody has to wait for.

use std::fmt;

use super::join::JoinHandle;

/// A function that the loop will call: what [`call_soon`](crate::call_soon),
/// [`call_later`](crate::call_later) and [`call_at`](crate::call_at) give. Dropping it lets the
/// call be made.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// coreloop::run(async {
///     let calls = Rc::new(Cell::new(0));
///     let (one, two) = (calls.clone(), calls.clone());
///     coreloop::call_soon(move || one.set(one.get() + 1));
///     let second = coreloop::call_soon(move || two.set(two.get() + 1));
///     assert!(second.cancel());
///     coreloop::yield_now().await;
///     assert_eq!(calls.get(), 1);
/// })
/// .unwrap();
/// ```
pub struct Call(JoinHandle<()>);

impl Call {
    pub(crate) fn new(task: JoinHandle<()>) -> Self {
        Self(task)
    }

    /// Calls it off: the function is never called, and is dropped at the loop's next turn. `false`
    /// if it has been called already, or called off and dropped.
    pub fn cancel(&self) -> bool {
        self.0.cancel()
    }

    /// Whether the function has been called, or called off and dropped.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Whether it was called off, by [`cancel`](Self::cancel) or by the end of its loop.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelling() || self.0.is_cancelled()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("finished", &self.is_finished())
            .field("cancelled", &self.is_cancelled())
            .finish()
    }
}
