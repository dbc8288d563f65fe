//! The way of a value from the thread that made it to the task that awaits it.
//!
//! Owns the one cell that both share. Whoever comes second drops what the other left: a value whose
//! awaiter has gone is dropped on the thread that made it.

use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::contain::wake;
use crate::sys::shared::{Mutex, MutexGuard};

/// A closure's value, or what it panicked with.
pub(crate) type Ended<T> = Result<T, Box<dyn Any + Send>>;

enum State<T> {
    Running(Option<Waker>),
    Ended(Ended<T>),
    /// The awaiter has gone, or has taken it.
    Gone,
}

/// The thread's end; dropped unkept, it says that the closure was not run.
pub(crate) struct Promise<T>(Arc<Mutex<State<T>>>);

/// The task's end.
pub(crate) struct Outcome<T>(Arc<Mutex<State<T>>>);

/// The two ends of a new cell.
pub(crate) fn pair<T>() -> (Promise<T>, Outcome<T>) {
    let state = Arc::new(Mutex::new(State::Running(None)));
    (Promise(state.clone()), Outcome(state))
}

impl<T> Promise<T> {
    pub(crate) fn keep(self, ended: Ended<T>) {
        self.end(ended);
    }

    fn end(&self, ended: Ended<T>) {
        let mut state = lock(&self.0);
        let State::Running(waker) = &mut *state else {
            // Dropped with nothing held.
            drop(state);
            drop(ended);
            return;
        };
        let waker = waker.take();
        *state = State::Ended(ended);
        drop(state);
        if let Some(waker) = waker {
            wake(waker);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if matches!(*lock(&self.0), State::Running(_)) {
            self.end(Err(Box::new("the pool ended before this ran")));
        }
    }
}

impl<T> Future for Outcome<T> {
    type Output = Ended<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended<T>> {
        let new = cx.waker().clone();
        let mut state = lock(&self.0);
        if let State::Running(waker) = &mut *state {
            let old = waker.replace(new);
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, State::Gone) {
            State::Ended(ended) => Poll::Ready(ended),
            _ => panic!("the outcome of blocking work was polled after it was ready"),
        }
    }
}

impl<T> Drop for Outcome<T> {
    fn drop(&mut self) {
        let left = std::mem::replace(&mut *lock(&self.0), State::Gone);
        drop(left);
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    // Nothing panics while it is held.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<T>(outcome: &mut Outcome<T>) -> Poll<Ended<T>> {
        Pin::new(outcome).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_kept_promise_is_the_outcome() {
        let (promise, mut outcome) = pair();
        assert!(poll(&mut outcome).is_pending());
        promise.keep(Ok(7));
        assert!(matches!(poll(&mut outcome), Poll::Ready(Ok(7))));
    }

    #[test]
    fn a_dropped_promise_is_an_error_and_not_a_hang() {
        let (promise, mut outcome) = pair::<u8>();
        drop(promise);
        assert!(matches!(poll(&mut outcome), Poll::Ready(Err(_))));
    }

    #[test]
    fn whoever_comes_second_drops_the_value() {
        let value = Arc::new(());
        let (promise, outcome) = pair();
        drop(outcome);
        promise.keep(Ok(value.clone()));
        assert_eq!(Arc::strong_count(&value), 1);
        let (promise, outcome) = pair();
        promise.keep(Ok(value.clone()));
        assert_eq!(Arc::strong_count(&value), 2);
        drop(outcome);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
