//! What is run: each workload twice, with the same operations on either side.
//!
//! Owns [`Workload`] and the list of them. A workload is a pair of futures that take the number of operations;
//! what they need they make within, once a run. Values pass through `black_box`, so neither side computes
//! nothing. Tasks are spawned by either runtime's plain `spawn`. Where a task is to give way, both sides
//! use [`give_way`] and not their own `yield_now`, which is compared by itself.

mod locks;
mod sets;
mod streams;
mod turns;

use std::pin::Pin;
use std::task::Poll;

/// A workload on our side.
pub type Ours = fn(u64) -> Pin<Box<dyn Future<Output = ()>>>;

/// A workload on theirs, where tasks are `Send`.
pub type Theirs = fn(u64) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The same work on both sides.
pub struct Workload {
    /// As the table says it.
    pub name: &'static str,
    /// What one operation is.
    pub op: &'static str,
    /// Operations of a run, at least some milliseconds of them.
    pub ops: u64,
    /// The least number of operations that make sense: a whole set.
    pub ops_min: u64,
    /// coreloop's.
    pub ours: Ours,
    /// tokio's, in one or more ways; the fastest counts.
    pub theirs: &'static [(&'static str, Theirs)],
}

/// All, in the order of the table.
pub const WORKLOADS: &[&[Workload]] = &[locks::ALL, streams::ALL, sets::ALL, turns::ALL];

/// Is ready at its second poll, having woken its task in the first.
pub async fn give_way() {
    let mut gave = false;
    std::future::poll_fn(|cx| {
        if gave {
            return Poll::Ready(());
        }
        gave = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
