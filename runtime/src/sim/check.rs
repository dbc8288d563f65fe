//! What a kernel can see of its users' mistakes.
//!
//! Owns [`Violation`]: something that no correct program does to a kernel. Each is noted where it is seen;
//! the run goes on as the kernel would.

use std::fmt;

/// Violations that are kept; a program that is that wrong needs no longer list.
pub(super) const VIOLATIONS_MAX: usize = 64;

/// The kinds of mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Mistake {
    /// A submission names a descriptor that is not open, or not one of this world.
    BadDescriptor,
    /// A descriptor was closed while a submission that names it had not been handed over.
    ClosedBeforeSubmission,
    /// Bytes to be sent changed while the kernel had them.
    SendTouched,
    /// A receive buffer was written to while the kernel had it.
    ReceiveTouched,
    /// Memory that the kernel was given is not mapped any more.
    MemoryGone,
    /// Memory was freed or moved while the kernel had it, or before it was given to the kernel.
    MemoryFreed,
    /// Memory was written to after it had been freed, by whomever.
    FreedTouched,
    /// A provided buffer was written to while the kernel had it.
    ProvidedTouched,
    /// A buffer id was provided while the kernel had it already.
    ProvidedTwice,
    /// More buffers were provided than their ring has places.
    ProvidedTooMany,
    /// A ring was closed with ops in flight.
    ClosedInFlight,
    /// A ring was closed with completions that nobody read.
    ClosedUnread,
    /// An enter on a ring that does not exist, or a submission that cannot be read.
    BadRing,
    /// Two ops that are in flight bear the same user data.
    SameUserData,
    /// Two sends were in flight on one stream: their bytes may interleave.
    TwoSends,
}

/// A mistake, when it was seen and on what.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) at_ns: u64,
    pub(crate) mistake: Mistake,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ns: {}", self.mistake, self.at_ns, self.detail)
    }
}
