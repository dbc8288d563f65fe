//! The running loop, as the layers above see it.
//!
//! Owns the way from a call such as `spawn` to the core that runs on this thread. No borrow of the context
//! is held across a poll, a drop or a foreign wake.

use std::rc::Rc;

use super::Core;
use crate::driver::Driver;
use crate::executor::timers::Timers;
use crate::sys::Kernel;
use crate::sys::linux::Linux;
use crate::task::{current, local};

/// Runs `f` with `core` as the current one.
pub(crate) fn enter<R>(core: &Core, f: impl FnOnce() -> R) -> R {
    /// Also where a panic goes through: nobody is within, and what was put into channels is sent. No turn may
    /// come that would do it.
    struct Left<'a>(&'a Core);
    impl Drop for Left<'_> {
        fn drop(&mut self) {
            self.0.metrics.set_busy(false);
            self.0.unsent.send();
        }
    }
    // What is set around the call (in a task of another loop, or of a stranger's) is of nobody in here.
    let _locals = local::is_any().then(local::Within::nothing);
    let _left = Left(core);
    current::enter(&core.tasks, std::ptr::from_ref(core).cast(), f)
}

/// Calls `f` with the core that runs on this thread, if one does.
pub(crate) fn with_core<R>(f: impl FnOnce(&Core) -> R) -> Option<R> {
    let core = current::core().cast::<Core>();
    // SAFETY: set by `enter` (here or in `close`) from a reference to a `Core` that outlives the call of
    // its `f`, within which we are, on the same thread.
    unsafe { core.as_ref() }.map(f)
}

/// The driver of the running loop.
pub(crate) fn driver() -> Option<Rc<Driver>> {
    with_core(|core| core.driver.clone())
}

/// Calls `f` with the kernel of the running loop, or the system's outside of one.
pub(crate) fn with_kernel<R>(f: impl FnOnce(&dyn Kernel) -> R) -> R {
    match driver() {
        Some(driver) => f(driver.kernel()),
        None => f(&Linux),
    }
}

/// The timers of the running loop.
///
/// # Panics
/// Outside a loop.
#[track_caller]
pub(crate) fn timers() -> Rc<Timers> {
    match with_core(|core| core.timers.clone()) {
        Some(timers) => timers,
        None => no_loop("a timer"),
    }
}

#[track_caller]
#[cold]
pub(crate) fn no_loop(what: &str) -> ! {
    panic!(
        "{what} needs a running loop: call it from a future that `coreloop::run`, \
         `EventLoop::block_on` or `Runtime::run` drives"
    );
}
