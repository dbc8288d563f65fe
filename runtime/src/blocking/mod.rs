//! Threads for work that blocks, beside one loop.
//!
//! Owns the bounded queue between a loop and its threads ([`pool`]), who serves it ([`worker`]),
//! and the way of a closure's value back ([`outcome`]). A closure goes one way:
//! ```text
//! waiting for room --room, in turn--> queued --a thread takes it--> running --> ended
//!        |                              |                              |
//!        +----- its awaiter goes: dropped unrun -----+      its awaiter goes: it runs to its end,
//!                                                           and its value is dropped there
//! ```
//! Which of the two happens to a queued closure is settled under the pool's lock, which is held for
//! a push or a pop only, never while user code runs. Invariants: a free place in the queue is
//! promised to whoever waits longest; a closure is queued only while a thread serves the queue or
//! is being started for it; an idle thread ends after [`worker::IDLE`].
//!
//! Knows no tasks and no loop: who waits is a waker.

pub(crate) mod outcome;
pub(crate) mod pool;
pub(crate) mod worker;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

#[cfg(all(test, loom))]
mod loom_tests;
