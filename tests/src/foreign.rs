//! A waker that comes back to the loop.
//!
//! Owns [`acting`]: what its clone, its wake and its drop are to do is set for the thread, and done once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use coreloop::EventLoop;
use coreloop::op::Submitter;

/// One thing to be done.
pub type Act = Box<dyn FnMut()>;

thread_local! {
    /// See [`acting`].
    pub static ON_CLONE: RefCell<Option<Act>> = const { RefCell::new(None) };
    /// See [`acting`].
    pub static ON_DROP: RefCell<Option<Act>> = const { RefCell::new(None) };
    /// See [`acting`].
    pub static ON_WAKE: RefCell<Option<Act>> = const { RefCell::new(None) };
    /// See [`acting`].
    pub static WAKES: Cell<u32> = const { Cell::new(0) };
}

fn act(on: &'static std::thread::LocalKey<RefCell<Option<Act>>>) {
    let taken = on.take();
    if let Some(mut f) = taken {
        f();
    }
}

/// A waker whose clone, drop and wake each run one thing that was set for this thread.
pub fn acting() -> Waker {
    static VTABLE: RawWakerVTable = RawWakerVTable::new(
        |p| {
            act(&ON_CLONE);
            RawWaker::new(p, &VTABLE)
        },
        |_| {
            WAKES.set(WAKES.get() + 1);
            act(&ON_WAKE);
        },
        |_| {
            WAKES.set(WAKES.get() + 1);
            act(&ON_WAKE);
        },
        |_| act(&ON_DROP),
    );
    // SAFETY: the functions take any pointer; the waker stays on this thread.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) }
}

/// A loop that its own wakers can reach.
pub fn shared() -> Rc<RefCell<EventLoop>> {
    Rc::new(RefCell::new(EventLoop::new().unwrap()))
}

/// Five turns of a loop.
pub fn drive(event_loop: &Rc<RefCell<EventLoop>>) -> Act {
    let event_loop = event_loop.clone();
    Box::new(move || {
        for _ in 0..5 {
            event_loop.borrow_mut().turn(Some(Duration::from_millis(2)));
        }
    })
}

/// A loop's way to take ops.
pub fn submitter(event_loop: &Rc<RefCell<EventLoop>>) -> Submitter {
    event_loop.borrow_mut().block_on(async { Submitter::current() })
}
