//! Who else belongs to a core's runtime.
//!
//! Owns [`Peers`], the queues of all its cores in their order, and [`Stop`], the request to end
//! that they share. A loop of its own is its only peer. Knows nothing of who asks for either.

use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::queue::JobQueue;
use crate::contain::wake;
use crate::sys::shared::{AtomicBool, Mutex, MutexGuard, Ordering};

/// The cores of one runtime. Clones name the same ones.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) queues: Arc<[Arc<JobQueue>]>,
    pub(crate) stop: Arc<Stop>,
}

impl Peers {
    pub(crate) fn new(queues: Vec<Arc<JobQueue>>, stop: Arc<Stop>) -> Self {
        Self { queues: queues.into(), stop }
    }

    /// A core that has no others.
    pub(crate) fn alone(queue: Arc<JobQueue>) -> Self {
        Self::new(vec![queue], Arc::default())
    }
}

/// The request to end, and how to make cores look at it.
#[derive(Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    mains: Mutex<Vec<Waker>>,
}

impl Stop {
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        let mains = std::mem::take(&mut *self.lock());
        for waker in mains {
            wake(waker);
        }
    }

    pub(crate) fn wake_when_asked(&self, waker: &Waker) {
        let waker = waker.clone();
        self.lock().push(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        // Nothing panics while it is held.
        self.mains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
