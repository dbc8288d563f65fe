//! Buffers and operations that the ledger knows of.
//!
//! Owns [`Tracked`], a buffer, [`Tagged`], an operation of a user's own, small or boxed, and [`Once`], one
//! without a future; each holds a guard that must be dropped once, whoever has it at the end: task, driver or kernel.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use coreloop::buf::{IoBuf, IoBufMut};
use coreloop::op::{Cqe, MultishotOp, Op, Sqe};

use super::ledger::{Guard, Ledger};
use super::signal::Sets;

pub(super) struct Tracked {
    pub(super) bytes: Vec<u8>,
    _guard: Guard,
}

impl Tracked {
    pub(super) fn new(ledger: &Arc<Ledger>, bytes: Vec<u8>) -> Self {
        Self { bytes, _guard: ledger.guard() }
    }
}

// SAFETY: a Vec's heap memory stays put when it moves.
unsafe impl IoBuf for Tracked {
    fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }
}

// SAFETY: as above; the Vec owns its memory alone.
unsafe impl IoBufMut for Tracked {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    unsafe fn set_len(&mut self, n: usize) {
        // SAFETY: passed on to the caller.
        unsafe { self.bytes.set_len(n) };
    }
}

/// A no-op that knows what it is; with many words it does not fit into its slot.
pub(super) struct Tagged<const WORDS: usize> {
    words: [u64; WORDS],
    ledger: Arc<Ledger>,
    completed: bool,
    _guard: Guard,
}

impl<const WORDS: usize> Tagged<WORDS> {
    pub(super) fn new(ledger: &Arc<Ledger>, tag: u64) -> Self {
        let (ledger, guard) = (ledger.clone(), ledger.guard());
        Self { words: [tag; WORDS], ledger, completed: false, _guard: guard }
    }

    fn ends(&self, how: &str) {
        if !self.completed {
            self.ledger.found(format!("operation {} {how} before it completed", self.words[0]));
        }
    }
}

// SAFETY: names neither memory nor descriptor.
unsafe impl<const WORDS: usize> Op for Tagged<WORDS> {
    type Out = io::Result<[u64; WORDS]>;

    fn prepare(&mut self) -> Sqe {
        Sqe::nop()
    }

    unsafe fn completed(&mut self, _: Cqe) {
        if std::mem::replace(&mut self.completed, true) {
            self.ledger.found(format!("operation {} completed twice", self.words[0]));
        }
    }

    unsafe fn finish(self, cqe: Cqe) -> Self::Out {
        cqe.result()?;
        self.ends("ended");
        Ok(self.words)
    }

    unsafe fn orphaned(self, _: Cqe) {
        self.ends("was given up");
    }
}

/// A no-op that nobody waits for; what it sets is set at its end.
pub(super) struct Once {
    _sets: Sets,
    _guard: Guard,
}

impl Once {
    pub(super) fn new(ledger: &Arc<Ledger>, sets: Sets) -> Self {
        Self { _sets: sets, _guard: ledger.guard() }
    }
}

// SAFETY: names neither memory nor descriptor.
unsafe impl MultishotOp for Once {
    fn prepare(&mut self) -> Sqe {
        Sqe::nop()
    }

    unsafe fn completed(&mut self, _: Cqe) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
