//! The latencies that a core keeps.
//!
//! Owns the list of them: each is an index for the core that records and a field of [`Histograms`] for who
//! reads. Knows nothing of what is measured.

use super::histogram::{Histogram, Track};

macro_rules! histograms {
    ($($(#[doc = $doc:literal])* $variant:ident => $field:ident,)*) => {
        /// Index of a histogram.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Latency { $($variant),* }

        pub(super) const LATENCIES: usize = [$(Latency::$variant),*].len();

        /// One core's latencies, in nanoseconds.
        #[derive(Clone, Debug, Default, PartialEq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
        #[non_exhaustive]
        pub struct Histograms {
            $($(#[doc = $doc])* pub $field: Histogram,)*
        }

        impl Histograms {
            pub(super) fn read(tracks: &[Track; LATENCIES]) -> Self {
                Self { $($field: tracks[Latency::$variant as usize].read(),)* }
            }

            /// Adds another core's latencies to these.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field.merge(&other.$field);)*
            }

            /// What was recorded since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: self.$field.since(&earlier.$field),)* }
            }

            /// What each histogram says, by its name, in the order of [`iter`](Self::iter).
            pub const DOCS: &[(&str, &str)] =
                &[$((stringify!($field), concat!($($doc, "\n"),*)),)*];

            /// Every histogram with its name.
            pub fn iter(&self) -> [(&'static str, &Histogram); LATENCIES] {
                [$((stringify!($field), &self.$field)),*]
            }
        }
    };
}

histograms! {
    /// A turn of the loop from its first step to its submit.
    Tick => tick,
    /// From a wake to the poll; quantised to the tick's clock reading.
    WakeToPoll => wake_to_poll,
    /// One task poll.
    Poll => poll,
    /// How late a timer fired.
    TimerLate => timer_late,
    /// From the hand-over of a closure by another thread, the first since the last look, to the look that
    /// finds it. Empty in a simulation.
    Mailbox => mailbox,
    /// From queueing a receive to its completion, the peer's silence included. Receives for many are not
    /// timed.
    OpRecv => op_recv,
    /// From queueing a send to its completion, of one without copy to its result. Sends made at once are no
    /// ops, and not among them.
    OpSend => op_send,
    /// From queueing a connect to its completion.
    OpConnect => op_connect,
    /// From queueing an accept to its completion, of an op for one connection. A `TcpListener`'s are not
    /// timed, whether one submission of theirs accepts many or one.
    OpAccept => op_accept,
    /// From queueing a read to its completion.
    OpRead => op_read,
    /// From queueing a write to its completion.
    OpWrite => op_write,
    /// The same for every other op.
    OpOther => op_other,
}
