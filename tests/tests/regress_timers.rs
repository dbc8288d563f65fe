//! Timers at the edges: foreign wakers, and loops that are gone.

use std::task::Context;
use std::time::Duration;

use coreloop::time::{Instant, sleep, sleep_until};
use coreloop_tests::foreign::{ON_CLONE, WAKES, acting, shared};
use coreloop_tests::{in_child, poll_once, stepped};

#[test]
fn timer_that_fires_within_a_wakers_clone_is_not_lost() {
    let el = shared();
    let deadline = Instant::now() + Duration::from_millis(20);
    let mut sleeper = Box::pin(sleep_until(deadline));
    el.borrow_mut().block_on(async {
        assert!(poll_once(sleeper.as_mut()).await.is_pending());
    });
    let (inner, w) = (el.clone(), acting());
    // The clone drives the loop until the timer has fired, and has woken whoever waited before.
    ON_CLONE.set(Some(Box::new(move || {
        while inner.borrow_mut().block_on(async { Instant::now() }) < deadline {
            inner.borrow_mut().turn(Some(Duration::from_millis(2)));
        }
        inner.borrow_mut().turn(Some(Duration::from_millis(20)));
        inner.borrow_mut().turn(Some(Duration::from_millis(20)));
    })));
    let woken = WAKES.get();
    let ready = sleeper.as_mut().poll(&mut Context::from_waker(&w)).is_ready();
    el.borrow_mut().block_on(sleep(Duration::from_millis(30)));
    assert!(ready || WAKES.get() > woken, "nobody is told of it any more");
}

/// The step that fired it went on to sleep, for ever: it had run no task.
#[test]
fn timer_that_wakes_a_stranger_ends_the_step_in_which_it_fires() {
    in_child("timer_that_wakes_a_stranger_ends_the_step_in_which_it_fires", || {
        let mut event_loop = stepped();
        let mut sleeper = Box::pin(sleep(Duration::from_millis(10)));
        let (w, woken) = (acting(), WAKES.get());
        event_loop.block_on(async {
            assert!(sleeper.as_mut().poll(&mut Context::from_waker(&w)).is_pending());
        });
        while WAKES.get() == woken {
            event_loop.turn(None);
        }
        assert!(sleeper.as_mut().poll(&mut Context::from_waker(&w)).is_ready());
    });
}
