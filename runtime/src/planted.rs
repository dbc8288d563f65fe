//! Faults put back on purpose, to show that the simulation finds them.
//!
//! Owns the list ([`Fault`]) and the one switch. Each fault is a line or two at the place where the real
//! mistake would be made, behind [`is`]; without the feature `planted`, which nothing but those tests turns
//! on, that is `false` when the code is compiled, and nothing is left of it. Knows nothing of where they are.

#[cfg(feature = "planted")]
use std::sync::atomic::{AtomicU8, Ordering};

/// A mistake that a runtime like this one can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An op that is dropped before its submission was handed over lets go of its descriptor at once.
    CloseBeforeSubmission,
    /// A cancel for which there is no room is forgotten.
    LostCancel,
    /// What a receive brought after its future was dropped goes nowhere.
    DroppedReceive,
    /// A core looks for mail before it announces its park, and not after.
    MissingWakeFence,
    /// A write does not wait for the end of one that was dropped.
    TwoSends,
    /// A connection that arrives when its listener is gone stays open.
    AcceptNotClosed,
    /// A receive buffer is given back twice.
    BufferTwice,
    /// A key is looked up by its place alone, whatever lies there now.
    StaleKey,
    /// A timer goes by the tick before its deadline.
    EarlyTimer,
    /// A loop closes its ring while ops are in flight.
    DrainWithoutWait,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::CloseBeforeSubmission,
        Self::LostCancel,
        Self::DroppedReceive,
        Self::MissingWakeFence,
        Self::TwoSends,
        Self::AcceptNotClosed,
        Self::BufferTwice,
        Self::StaleKey,
        Self::EarlyTimer,
        Self::DrainWithoutWait,
    ];

    /// What it is called on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CloseBeforeSubmission => "close-before-submission",
            Self::LostCancel => "lost-cancel",
            Self::DroppedReceive => "dropped-receive",
            Self::MissingWakeFence => "missing-wake-fence",
            Self::TwoSends => "two-sends",
            Self::AcceptNotClosed => "accept-not-closed",
            Self::BufferTwice => "buffer-twice",
            Self::StaleKey => "stale-key",
            Self::EarlyTimer => "early-timer",
            Self::DrainWithoutWait => "drain-without-wait",
        }
    }
}

/// The place of the planted fault in [`Fault::ALL`], counted from 1; 0 for none.
#[cfg(feature = "planted")]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants a fault in this process, in place of any other, or none.
#[cfg(feature = "planted")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.store(fault.map_or(0, |f| f as u8 + 1), Ordering::Relaxed);
}

/// Whether this fault is planted.
#[cfg(feature = "planted")]
#[inline]
pub fn is(fault: Fault) -> bool {
    PLANTED.load(Ordering::Relaxed) == fault as u8 + 1
}

/// Whether this fault is planted: it is not.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Fault) -> bool {
    false
}
