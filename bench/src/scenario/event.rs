//! A value that one thread sets once and loops on other threads wait for.
//!
//! Owns nothing but that: the first value stays, later ones are ignored. Used between runs' phases,
//! never on the hot path.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// `unset` -> `set`, once.
#[derive(Debug)]
pub struct Event<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waiting: Vec<Waker>,
}

impl<T: Copy> Event<T> {
    /// Not yet set.
    pub fn new() -> Event<T> {
        Event { state: Mutex::new(State { value: None, waiting: Vec::new() }) }
    }

    /// Sets it, unless it is set already, and wakes everybody.
    pub fn set(&self, value: T) {
        let mut state = self.lock();
        state.value.get_or_insert(value);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits for it.
    pub async fn wait(&self) -> T {
        poll_fn(|cx| {
            let mut state = self.lock();
            if let Some(value) = state.value {
                return Poll::Ready(value);
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A value is set in one step: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_value_reaches_a_loop_that_waits() {
        let event = Arc::new(Event::new());
        let setter = event.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            setter.set(7);
            setter.set(8);
        });
        let got = coreloop::run(async { event.wait().await });
        thread.join().unwrap();
        // Where io_uring is missing there is no loop to wait on.
        assert!(got.is_err() || got.is_ok_and(|value| value == 7));
        assert_eq!(event.lock().value, Some(7));
    }
}
