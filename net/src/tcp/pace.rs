//! How a connection receives.
//!
//! Owns [`Receive`], what is armed, and [`Pace`], which decides between its two forms:
//! ```text
//! One   a submission for each chunk, made when somebody asks: nothing is received unasked
//! Many  one submission for all that comes: a call, a submission and a watch less each time
//! ```
//! Which is cheaper is for the peer to say. Where the next message is there before it is asked for (the core
//! has more than it can do), a submission finds it in the call itself, and nothing has to be watched: One.
//! Where each has to be waited for, the look is in vain and the watch is set up anew each time: Many. So a
//! connection begins with one at a time and is armed for many once several small messages in a row had to
//! be waited for; every few hundred messages it looks again.
//!
//! It also goes back when a reader does not keep up (the kernel's window has to push back), reads into
//! buffers of its own (which is where the bytes should go), or gets messages so large that the copy is
//! what costs.

use coreloop::op::{InFlight, RecvChunk, RecvMany, Series};

use crate::sock::Held;

/// The receive that is armed.
#[derive(Debug, Default)]
pub(crate) enum Receive {
    #[default]
    Nothing,
    One(InFlight<RecvChunk<Held>>),
    Many(Series<RecvMany<Held>>),
}

impl Receive {
    #[inline]
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Receive::Nothing)
    }
}

/// Small messages to be waited for until a connection is armed for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace(u8);

impl Default for Pace {
    fn default() -> Self {
        Self::FIRST
    }
}

impl Pace {
    /// After a look, while it waits for its messages still.
    const LOOK: Self = Self(4);
    /// At first, and after a message that was there at once.
    const FIRST: Self = Self(12);
    /// After a large message, or a read into a buffer of the caller's.
    const LARGE: Self = Self(16);
    /// After a reader that did not keep up.
    const BEHIND: Self = Self(128);
    /// The kernel does not do it.
    pub(crate) const NEVER: Self = Self(u8::MAX);

    /// Whether the next receive is for many.
    #[inline]
    pub(super) fn is_busy(self) -> bool {
        self.0 == 0
    }

    /// A message of `len` bytes came.
    #[inline]
    pub(crate) fn after(self, len: usize, at_once: bool) -> Self {
        if is_large(len) {
            self.at_least(Self::LARGE)
        } else if at_once {
            self.at_least(Self::FIRST)
        } else if self == Self::NEVER {
            self
        } else {
            Self(self.0.saturating_sub(1))
        }
    }

    /// A read into a buffer of the caller's was asked for.
    pub(super) fn after_read(self) -> Self {
        self.at_least(Self::LARGE)
    }

    /// Receiving for many has ended.
    pub(super) fn after_many(self, behind: bool) -> Self {
        self.at_least(if behind { Self::BEHIND } else { Self::LOOK })
    }

    fn at_least(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}

/// Whether a message is so large that the buffer it lies in matters more than a call saved.
#[inline]
pub(super) fn is_large(len: usize) -> bool {
    len >= 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: Pace, messages: &[(usize, bool)]) -> Pace {
        messages.iter().fold(pace, |pace, &(len, at_once)| pace.after(len, at_once))
    }

    #[test]
    fn so_many_small_messages_that_were_waited_for_make_it_busy() {
        let waited = [(64, false); 12];
        assert!(!after(Pace::default(), &waited[1..]).is_busy());
        assert!(after(Pace::default(), &waited).is_busy());
    }

    #[test]
    fn one_that_was_there_at_once_begins_the_count_anew() {
        let mixed = [(64, false), (64, false), (64, false), (64, true), (64, false), (64, false)];
        assert_eq!(after(Pace::default(), &mixed), Pace(10));
        assert_eq!(after(Pace::LOOK, &mixed), Pace(10), "also after a look");
    }

    #[test]
    fn large_messages_reads_and_slow_readers_put_it_off_longer() {
        let busy = Pace(0);
        assert_eq!(busy.after(4096, false), Pace::LARGE);
        assert_eq!(busy.after_read(), Pace::LARGE);
        assert_eq!(busy.after_many(true), Pace::BEHIND);
        assert_eq!(busy.after_many(false), Pace::LOOK);
        assert_eq!(Pace::BEHIND.after(4096, false), Pace::BEHIND, "the longer one stays");
    }

    #[test]
    fn a_kernel_that_does_not_do_it_is_not_asked_again() {
        let never = after(Pace::NEVER, &[(64, false); 1000]);
        assert_eq!(never.after_many(true).after_read(), Pace::NEVER);
    }
}
