//! A flag between tasks, cores and operations.
//!
//! Owns [`Signal`], which whoever waits is woken by, and [`Sets`], which sets it when dropped: so the end of
//! an operation or a closure can be waited for, whoever ends it.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// A flag that another core sets; whoever waits leaves its waker.
#[derive(Default)]
pub(super) struct Signal(Mutex<(bool, Option<Waker>)>);

impl Signal {
    pub(super) fn set(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) async fn wait(&self) {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if state.0 {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Sets it when dropped, so also if the core ends before it has run what holds this.
pub(super) struct Sets(pub(super) Arc<Signal>);

impl Drop for Sets {
    fn drop(&mut self) {
        self.0.set();
    }
}
