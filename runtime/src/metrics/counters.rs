//! What a core counts.
//!
//! Owns the list of counters: each is a kind for the core that counts and a field of [`Counters`] for who
//! reads. Knows nothing of what is counted.

use crate::sys::shared::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident => $field:ident,)*) => {
        /// Index of a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($variant),* }

        pub(super) const COUNTERS: usize = [$(Kind::$variant),*].len();

        /// What one core counted since it started.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[doc = $doc])* pub $field: u64,)*
        }

        impl Counters {
            pub(super) fn read(cells: &[AtomicU64; COUNTERS]) -> Self {
                Self { $($field: cells[Kind::$variant as usize].load(Ordering::Relaxed),)* }
            }

            /// Adds another core's counts to these.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// What was counted since `earlier`.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: self.$field.saturating_sub(earlier.$field),)* }
            }

            /// What each counter says, by its name, in the order of [`iter`](Self::iter).
            pub const DOCS: &[(&str, &str)] =
                &[$((stringify!($field), concat!($($doc, "\n"),*)),)*];

            /// Every counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    Ticks => ticks,
    /// Calls of `io_uring_enter(2)`.
    Enters => enters,
    /// Of those, the ones that the kernel turned away for now (EAGAIN, EBUSY, ENOMEM).
    EntersPressed => enters_pressed,
    /// Enters in the middle of a tick because the submission queue was full.
    EarlyFlushes => early_flushes,
    /// Sends without copy of which the kernel has let go.
    ZeroCopies => zero_copies,
    /// Sends that were made at once, by a system call of their own, because of `direct_sends`.
    DirectSends => direct_sends,
    /// Submissions in the middle of a turn, because of `flush_interval`.
    MidTurnFlushes => mid_turn_flushes,
    /// Completions reaped.
    Completions => completions,
    /// Completions that belonged to no op; always 0 unless something is broken.
    StrayCompletions => stray_completions,
    /// Enters after which the completion queue had overflowed into the kernel's backlog.
    CqOverflows => cq_overflows,
    /// Task polls by the loop.
    Polls => polls,
    /// Polls of tasks in the call that made them, each within another poll.
    EagerPolls => eager_polls,
    /// Tasks spawned.
    Spawns => spawns,
    /// Tasks that panicked.
    TaskPanics => task_panics,
    /// Wakers that panicked.
    WakerPanics => waker_panics,
    /// Panics in what an operation does at its end (a holder's destructor and the like).
    HookPanics => hook_panics,
    /// Wakes that came from other threads.
    RemoteWakes => remote_wakes,
    /// Timers fired.
    Timers => timers,
    /// Parks: enters that may sleep.
    Parks => parks,
    /// Time in parks, in ns.
    ParkNs => park_ns,
    /// Spins before a park that were rewarded by an event.
    SpinsWon => spins_won,
    /// Spins that ended in a park.
    SpinsLost => spins_lost,
    /// Time spun, in ns.
    SpinNs => spin_ns,
    /// Receives that found the buffer ring empty (ENOBUFS) and waited their turn.
    BuffersOut => buffers_out,
    /// Received chunks that were copied out because buffers ran low or a socket held many.
    ChunksCopied => chunks_copied,
    /// Connections accepted.
    Accepts => accepts,
    /// Times that accepting paused for want of descriptors or memory, or since it failed again and again.
    AcceptPauses => accept_pauses,
    /// Polls that kept the core for longer than the stall threshold, if somebody watches.
    Stalls => stalls,
    /// Ops leaked at shutdown because the kernel did not let go in time.
    OpsLeaked => ops_leaked,
}
