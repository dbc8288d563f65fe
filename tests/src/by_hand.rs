//! Futures polled by hand, each with a waker of its own that remembers whether it was called.
//!
//! Owns [`ByHand`]. It needs no loop: what a primitive does is seen step by step.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// A future, and whether it was woken since its last poll. Dropping it cancels it.
pub struct ByHand<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    flag: Arc<Flag>,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a, T> ByHand<'a, T> {
    /// Not polled yet.
    pub fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self { future: Box::pin(future), flag: Arc::default() }
    }

    /// Polled once, and pending.
    #[track_caller]
    pub fn pending(future: impl Future<Output = T> + 'a) -> Self {
        let mut this = Self::new(future);
        assert!(this.poll().is_none(), "it should have to wait");
        this
    }

    /// Polls it with its waker.
    pub fn poll(&mut self) -> Option<T> {
        self.flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(self.flag.clone());
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// Polls it with a waker that it has not seen; the old one counts no more.
    pub fn poll_anew(&mut self) -> Option<T> {
        self.flag = Arc::default();
        self.poll()
    }

    /// Whether its waker was called since the last poll.
    pub fn woken(&self) -> bool {
        self.flag.0.load(Ordering::Relaxed)
    }

    /// Polls it, which was woken and is ready.
    #[track_caller]
    pub fn finish(mut self) -> T {
        assert!(self.woken(), "it was not woken");
        self.poll().expect("it was woken and should be ready")
    }
}

/// What a future gives that must be ready at its first poll.
#[track_caller]
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it should not have to wait"),
    }
}
