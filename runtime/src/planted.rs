//! Faults put back on purpose, to show that the simulation finds them.
//!
//! Owns the list ([`Fault`]), the places of each, and the one switch. Each place is a line or two where the
//! real mistake would be made, behind [`is`]; without the feature `planted`, which nothing but those tests
//! turns on, that is `false` when the code is compiled, and nothing is left of it. Knows nothing of what
//! stands around them.

#[cfg(feature = "planted")]
use std::cell::Cell;
#[cfg(feature = "planted")]
use std::sync::atomic::{AtomicU16, Ordering};

/// A mistake that a runtime like this one can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An op that is dropped lets go of its descriptor at once, whether its submission was handed over or
    /// not.
    CloseBeforeSubmission,
    /// The memory of an op that is dropped is freed at once, whether it has ended or not.
    FreedInFlight,
    /// A cancel is forgotten.
    LostCancel,
    /// A close asks again for the end of ops that were never sent, and then sends them.
    CancelAgain,
    /// What a receive brought after its future was dropped goes nowhere.
    DroppedReceive,
    /// That a cancel found a receive on a worker is taken for an error of the connection.
    LateInterrupt,
    /// A core looks for mail before it announces its park, and not after.
    MissingWakeFence,
    /// A write does not wait for the end of one that was dropped.
    TwoSends,
    /// A connection that its listener does not hand out stays open.
    AcceptNotClosed,
    /// A receive buffer is given back twice.
    BufferTwice,
    /// A key is looked up by its place alone, whatever lies there now.
    StaleKey,
    /// A timer goes by the tick before its deadline.
    EarlyTimer,
    /// A loop closes its ring while ops are in flight.
    DrainWithoutWait,
    /// A signal that came is never told.
    LostSignal,
    /// What the second signal of a stop asks for is not done.
    UnheardHaste,
    /// A successor that ends before it is ready is taken for one that is.
    EndForReady,
    /// What is lent to a successor is closed before it has it.
    LentTooShort,
    /// A successor that was given up is not told so.
    UntoldLate,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::CloseBeforeSubmission,
        Self::FreedInFlight,
        Self::LostCancel,
        Self::CancelAgain,
        Self::DroppedReceive,
        Self::LateInterrupt,
        Self::MissingWakeFence,
        Self::TwoSends,
        Self::AcceptNotClosed,
        Self::BufferTwice,
        Self::StaleKey,
        Self::EarlyTimer,
        Self::DrainWithoutWait,
        Self::LostSignal,
        Self::UnheardHaste,
        Self::EndForReady,
        Self::LentTooShort,
        Self::UntoldLate,
    ];

    /// What it is called on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CloseBeforeSubmission => "close-before-submission",
            Self::FreedInFlight => "freed-in-flight",
            Self::LostCancel => "lost-cancel",
            Self::CancelAgain => "cancel-again",
            Self::DroppedReceive => "dropped-receive",
            Self::LateInterrupt => "late-interrupt",
            Self::MissingWakeFence => "missing-wake-fence",
            Self::TwoSends => "two-sends",
            Self::AcceptNotClosed => "accept-not-closed",
            Self::BufferTwice => "buffer-twice",
            Self::StaleKey => "stale-key",
            Self::EarlyTimer => "early-timer",
            Self::DrainWithoutWait => "drain-without-wait",
            Self::LostSignal => "lost-signal",
            Self::UnheardHaste => "unheard-haste",
            Self::EndForReady => "end-for-ready",
            Self::LentTooShort => "lent-too-short",
            Self::UntoldLate => "untold-late",
        }
    }

    /// Where it is planted, one place at a time: each for itself must be found.
    pub fn places(self) -> &'static [&'static str] {
        match self {
            Self::CloseBeforeSubmission => {
                &["an op with one completion, any", "an op with many completions"]
            }
            Self::FreedInFlight => &["an op with one completion, any"],
            Self::LostCancel => &["for want of room in the queue", "of an op that was never sent"],
            Self::CancelAgain => &["at a loop's close"],
            Self::DroppedReceive => &[
                "a read into a buffer",
                "a chunk",
                "a chunk that comes unasked behind another",
                "the chunks of a busy connection that is cancelled",
            ],
            Self::LateInterrupt => &["a read into a buffer"],
            Self::MissingWakeFence => &["the look for mail after the announcement"],
            Self::TwoSends => &["any write"],
            Self::AcceptNotClosed => {
                &["one that comes when the listener is gone", "one that waits in it then"]
            }
            Self::BufferTwice => &[
                "of bytes that are copied",
                "of a chunk that is dropped",
                "of a receive that named it",
            ],
            Self::StaleKey => &["any key"],
            Self::EarlyTimer => &[
                "a deadline is rounded down",
                "the time now is rounded up",
                "what is due within a tick counts as due",
            ],
            Self::DrainWithoutWait => &["a loop's close"],
            Self::LostSignal => &["of several that came at once"],
            Self::UnheardHaste => &["the second signal begins again"],
            Self::EndForReady => &["the end of the conversation"],
            Self::LentTooShort => &["when a successor connects"],
            Self::UntoldLate => &["when the predecessor's patience ends"],
        }
    }
}

/// The place of the planted fault in [`Fault::ALL`], counted from 1, and below it that in
/// [`Fault::places`]; 0 for none.
#[cfg(feature = "planted")]
static PLANTED: AtomicU16 = AtomicU16::new(0);

#[cfg(feature = "planted")]
thread_local! {
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

#[cfg(feature = "planted")]
const fn code(fault: Fault, place: u8) -> u16 {
    (fault as u16 + 1) << 8 | place as u16
}

/// Plants a fault in this process at one of its places, counted from 1, instead of any other; or none.
#[cfg(feature = "planted")]
pub fn plant(fault: Option<(Fault, u8)>) {
    PLANTED.store(fault.map_or(0, |(fault, place)| code(fault, place)), Ordering::Relaxed);
}

/// Whether this fault is planted at this place.
#[cfg(feature = "planted")]
#[inline]
pub fn is(fault: Fault, place: u8) -> bool {
    PLANTED.load(Ordering::Relaxed) == code(fault, place)
}

/// Whether this fault is planted: it is not.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Fault, _: u8) -> bool {
    false
}

/// Runs `f`; what it frees on this thread stays, in programs with the simulation's allocator: so that a fault
/// in the use of descriptors is not seen as one in that of memory.
#[cfg(feature = "planted")]
pub fn keeping_memory<R>(f: impl FnOnce() -> R) -> R {
    let was = KEEPS.replace(true);
    let result = f();
    KEEPS.set(was);
    result
}

/// Runs `f`.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub fn keeping_memory<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Whether memory is to stay.
#[cfg(feature = "planted")]
pub fn keeps_memory() -> bool {
    KEEPS.get()
}

/// Whether memory is to stay: it is not.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn keeps_memory() -> bool {
    false
}
