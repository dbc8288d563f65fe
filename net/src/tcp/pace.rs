//! How a connection receives.
//!
//! Owns [`Receive`], what is armed, and [`Pace`], which decides between its forms:
//! ```text
//! One   a submission for each chunk, made when somebody asks: nothing is received unasked
//!       into whichever buffer the kernel takes, once bytes are there
//!       or into one that it takes along and does not wait with, where they are there most likely
//! Many  one submission for all that comes: a call, a submission and a watch less each time
//! ```
//! Which is cheapest is for the peer to say. Where the next message is there before it is asked for (the core
//! has more than it can do), a submission finds it in the call itself, and nothing has to be watched: One,
//! and after a few of them with a buffer, since the kernel's search for one costs as much as a hundred
//! instructions. Where each has to be waited for, the look is in vain and the watch is set up anew each time:
//! Many. So a connection begins with one at a time and is armed for many once several small messages in a row
//! had to be waited for, as long as the core finds that this pays for all of them together.
//!
//! It also goes back when a reader does not keep up (the kernel's window has to push back), reads into
//! buffers of its own (which is where the bytes should go), or gets messages so large that the copy is
//! what costs.

use std::mem;

use coreloop::op::{InFlight, Outlook, RecvChunk, RecvMany, Series};

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

    /// Arms a single one where nothing is.
    #[inline(always)]
    pub(super) fn arm_one(&mut self, op: InFlight<RecvChunk<Held>>) {
        let nothing = mem::replace(self, Receive::One(op));
        debug_assert!(nothing.is_nothing());
        // The compiler can't know that, and would call a destructor.
        mem::forget(nothing);
    }

    /// Notes that what was armed has ended.
    // Dropped where it lies: moved out, the op would be loaded in one piece right after its key was stored in
    // two, and wait for them. And a receive of many has more to drop than is worth to stand wherever a single
    // one ends.
    #[inline(always)]
    pub(super) fn ended(&mut self) {
        match self {
            Receive::Nothing => {}
            Receive::One(_) => *self = Receive::Nothing,
            Receive::Many(_) => self.many_ended(),
        }
    }

    #[cold]
    #[inline(never)]
    fn many_ended(&mut self) {
        *self = Receive::Nothing;
    }
}

/// How the messages of a connection came of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Small messages to be waited for until it is armed for many.
    waits: u8,
    /// Messages in a row that were there at once, as far as they are counted.
    at_once: u8,
}

impl Default for Pace {
    fn default() -> Self {
        Self { waits: FIRST, at_once: 0 }
    }
}

/// At first, and after a message that was there at once.
const FIRST: u8 = 12;
/// After a large message, or a read into a buffer of the caller's.
const LARGE: u8 = 16;
/// After a reader that did not keep up.
const BEHIND: u8 = 128;
/// The kernel does not do it.
const NEVER: u8 = u8::MAX;
/// Chunks after which a receive for many ends: few, so that all have ended soon where the core tries whether
/// they pay.
pub(super) const SHOTS: u16 = 64;
/// Messages that were there at once until the next one is thought to be.
const THERE: u8 = 8;

impl Pace {
    /// Whether the next receive is for many.
    #[inline]
    pub(super) fn is_busy(self) -> bool {
        self.waits == 0
    }

    /// What is thought of the next message; `can_many` if the kernel receives for many.
    #[inline]
    pub(crate) fn outlook(self, can_many: bool) -> Outlook {
        if self.at_once >= THERE {
            Outlook::There
        } else if self.waits <= FIRST && (can_many || self.waits > 0) {
            Outlook::Asked
        } else {
            Outlook::Unknown
        }
    }

    /// Whether a message of `len` bytes could as well have come by a receive for many.
    #[inline]
    pub(crate) fn may_be_many(self, len: usize) -> bool {
        self.waits <= FIRST && !is_large(len)
    }

    /// A message of `len` bytes came.
    #[inline]
    pub(crate) fn after(self, len: usize, at_once: bool) -> Self {
        let waits = if is_large(len) {
            self.waits.max(LARGE)
        } else if at_once {
            self.waits.max(FIRST)
        } else if self.waits == NEVER {
            NEVER
        } else {
            self.waits.saturating_sub(1)
        };
        let at_once = if at_once { (self.at_once + 1).min(THERE) } else { 0 };
        Self { waits, at_once }
    }

    /// One that was thought to be there was not.
    pub(crate) fn after_miss(self) -> Self {
        Self { at_once: 0, ..self }
    }

    /// A read into a buffer of the caller's was asked for.
    pub(super) fn after_read(self) -> Self {
        Self { waits: self.waits.max(LARGE), ..self }
    }

    /// Receiving for many has ended.
    pub(super) fn after_many(self, behind: bool) -> Self {
        Self { waits: self.waits.max(if behind { BEHIND } else { 0 }), at_once: 0 }
    }

    /// Receiving for many is not to be tried again.
    pub(crate) fn never_many(self) -> Self {
        Self { waits: NEVER, ..self }
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

    fn waits(waits: u8) -> Pace {
        Pace { waits, at_once: 0 }
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
        assert_eq!(after(Pace::default(), &mixed), waits(10));
        assert_eq!(after(waits(0), &mixed), waits(10), "also of a busy one");
    }

    #[test]
    fn large_messages_reads_and_slow_readers_put_it_off_longer() {
        let busy = waits(0);
        assert_eq!(busy.after(4096, false), waits(LARGE));
        assert_eq!(busy.after_read(), waits(LARGE));
        assert_eq!(busy.after_many(true).waits, BEHIND);
        assert_eq!(busy.after_many(false), busy, "armed again");
        assert_eq!(waits(BEHIND).after(4096, false), waits(BEHIND), "the longer one stays");
    }

    #[test]
    fn a_kernel_that_does_not_do_it_is_not_asked_again() {
        let never = after(Pace::default().never_many(), &[(64, false); 1000]);
        assert_eq!(never.after_many(true).after_read().waits, NEVER);
    }

    #[test]
    fn the_next_one_is_thought_to_be_there_after_eight_that_were() {
        let small = after(Pace::default(), &[(64, true); 7]);
        assert_eq!(small.outlook(true), Outlook::Asked, "seven are too few");
        let there = small.after(64, true);
        assert_eq!(there.outlook(true), Outlook::There);
        assert_eq!(there.after_miss().outlook(true), Outlook::Asked);
        assert_eq!(there.after(64, false).outlook(true), Outlook::Asked);
        let large = small.after(4096, true);
        assert_eq!(large.outlook(true), Outlook::There);
        assert_eq!(large.after_miss().outlook(true), Outlook::Unknown, "not armed for many soon");
    }
}
