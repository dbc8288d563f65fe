//! Values that a core keeps for others.
//!
//! Owns [`Kept`]: values by number, each of which lives on its core until somebody takes it out or the core
//! ends, and is dropped there. Nobody's code runs while the list is borrowed. Knows no type of them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::contain::contained;

#[derive(Default)]
pub(crate) struct Kept {
    values: RefCell<BTreeMap<u64, Rc<dyn Any>>>,
    closed: Cell<bool>,
}

impl Kept {
    /// Keeps a value under a number that is used once; drops it if the core is at its end.
    pub(crate) fn put(&self, number: u64, value: Rc<dyn Any>) {
        if self.closed.get() {
            contained(|| drop(value));
            return;
        }
        let old = self.values.borrow_mut().insert(number, value);
        debug_assert!(old.is_none(), "numbers are used once");
    }

    pub(crate) fn get(&self, number: u64) -> Option<Rc<dyn Any>> {
        self.values.borrow().get(&number).cloned()
    }

    /// Keeps it no longer.
    pub(crate) fn remove(&self, number: u64) {
        let value = self.values.borrow_mut().remove(&number);
        contained(|| drop(value));
    }

    /// Drops all, and keeps none any more.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        let values = self.values.take();
        for value in values.into_values() {
            contained(|| drop(value));
        }
    }
}
