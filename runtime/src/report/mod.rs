//! What cores did and what their tasks wait for, for any thread.
//!
//! Owns the calls of [`Handle`](crate::Handle) that ask for it ([`TaskList`], snapshots). Counters and
//! histograms are read without a word to the core that writes them; what a core has at a moment, and its
//! tasks, it says itself when it is asked, and who asks waits for a time of its own choosing.

mod ask;
#[cfg(feature = "hlog")]
mod files;
#[cfg(feature = "hlog")]
#[doc(hidden)]
pub mod format;

pub use ask::{TaskList, TaskPlace};
#[cfg(feature = "hlog")]
pub use files::{FilesError, HistogramFiles, Writing};
