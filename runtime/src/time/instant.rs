//! A point of the loop's clock.
//!
//! Owns [`Instant`]: nanoseconds of CLOCK_MONOTONIC in one word. It stands beside the one of std, whose
//! value can't be set, so that a simulated loop can have a clock of its own. `u64::MAX` means never.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use crate::executor::context;
use crate::sys::linux;

/// A point in time of the loop's monotonic clock.
///
/// Adding more than fits gives a point that never comes, not an overflow.
///
/// ```
/// use coreloop::time::Instant;
/// use std::time::Duration;
///
/// let now = Instant::now();
/// assert_eq!((now + Duration::from_millis(5)) - now, Duration::from_millis(5));
/// assert!((now + Duration::MAX).is_never());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// A point that never comes.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// A fresh reading: of the running loop's clock, or of the system's outside of one.
    pub fn now() -> Self {
        let ns = context::with_core(|core| core.timers.now_ns());
        Self(ns.unwrap_or_else(linux::monotonic_ns))
    }

    /// Time since `earlier`, or zero if that is later.
    pub fn duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time since this point, or zero if it is yet to come.
    pub fn elapsed(self) -> Duration {
        Self::now().duration_since(self)
    }

    /// Whether this is [`NEVER`](Self::NEVER).
    pub fn is_never(self) -> bool {
        self == Self::NEVER
    }

    pub(crate) fn ns(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, d: Duration) -> Instant {
        let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(ns))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, d: Duration) -> Instant {
        let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_sub(ns))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }
}

/// The same point, some tens of nanoseconds later at most. In a simulated loop, whose clock is not that of
/// std: a point as far from now.
///
/// ```
/// use coreloop::time::Instant;
///
/// let at = std::time::Instant::now();
/// assert_eq!(Instant::from(at), Instant::from(at));
/// ```
impl From<std::time::Instant> for Instant {
    fn from(at: std::time::Instant) -> Self {
        Self(context::with_kernel(|kernel| kernel.ns_of(at)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() {
            return f.write_str("Instant(never)");
        }
        write!(f, "Instant({:?})", Duration::from_nanos(self.0))
    }
}
