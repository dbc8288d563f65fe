//! Many tasks that are waited for together: gather, as-completed, groups.
//!
//! The tasks give a number at their first poll, or (where the name says `spread`) after giving way a number
//! of times that differs from task to task, so that they end in many turns and not in one.

use std::hint::black_box;

use coreloop::combine;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::task::JoinSet;

use super::{Workload, give_way};

pub const ALL: &[Workload] = &[
    Workload {
        name: "gather-10",
        op: "a task of a set of 10: spawned, run, its result in its place",
        ops: 100_000,
        ops_min: 10,
        ours: |n| Box::pin(gather(n, 10)),
        theirs: &[
            ("spawn + join_all", |n| Box::pin(tokio_join_all(n, 10))),
            ("JoinSet::join_all", |n| Box::pin(tokio_set_all(n, 10))),
        ],
    },
    Workload {
        name: "gather-1000",
        op: "a task of a set of 1,000: spawned, run, its result in its place",
        ops: 100_000,
        ops_min: 1000,
        ours: |n| Box::pin(gather(n, 1000)),
        theirs: &[
            ("spawn + join_all", |n| Box::pin(tokio_join_all(n, 1000))),
            ("JoinSet::join_all", |n| Box::pin(tokio_set_all(n, 1000))),
        ],
    },
    Workload {
        name: "try-gather-1000",
        op: "as gather-1000, of tasks that return a Result",
        ops: 100_000,
        ops_min: 1000,
        ours: |n| Box::pin(try_gather(n, 1000)),
        theirs: &[("spawn + try_join_all", |n| Box::pin(tokio_try_join_all(n, 1000)))],
    },
    Workload {
        name: "try-gather-1000-spread",
        op: "as try-gather-1000, of tasks that end in 32 turns",
        ops: 20_000,
        ops_min: 1000,
        ours: |n| Box::pin(try_gather_spread(n, 1000)),
        theirs: &[("spawn + try_join_all", |n| Box::pin(tokio_try_join_all_spread(n, 1000)))],
    },
    Workload {
        name: "as-completed-1000",
        op: "a task of a set of 1,000: spawned, run, its result as it ends",
        ops: 100_000,
        ops_min: 1000,
        ours: |n| Box::pin(as_completed(n, 1000)),
        theirs: &[
            ("JoinSet::join_next", |n| Box::pin(tokio_set_next(n, 1000))),
            ("FuturesUnordered", |n| Box::pin(tokio_unordered(n, 1000))),
        ],
    },
    Workload {
        name: "as-completed-1000-spread",
        op: "as as-completed-1000, of tasks that end in 32 turns",
        ops: 20_000,
        ops_min: 1000,
        ours: |n| Box::pin(as_completed_spread(n, 1000)),
        theirs: &[
            ("JoinSet::join_next", |n| Box::pin(tokio_set_next_spread(n, 1000))),
            ("FuturesUnordered", |n| Box::pin(tokio_unordered_spread(n, 1000))),
        ],
    },
    Workload {
        name: "group-10",
        op: "a child of a group of 10, which waits for all",
        ops: 100_000,
        ops_min: 10,
        ours: |n| Box::pin(group(n, 10)),
        theirs: &[
            ("JoinSet::join_next", |n| Box::pin(tokio_set_next(n, 10))),
            ("JoinSet::join_all", |n| Box::pin(tokio_set_all(n, 10))),
        ],
    },
    Workload {
        name: "group-1000",
        op: "a child of a group of 1,000, which waits for all",
        ops: 100_000,
        ops_min: 1000,
        ours: |n| Box::pin(group(n, 1000)),
        theirs: &[
            ("JoinSet::join_next", |n| Box::pin(tokio_set_next(n, 1000))),
            ("JoinSet::join_all", |n| Box::pin(tokio_set_all(n, 1000))),
        ],
    },
    Workload {
        name: "tuple-4",
        op: "4 tasks of different types, spawned and waited for",
        ops: 25_000,
        ops_min: 1,
        ours: |n| Box::pin(tuple(n)),
        theirs: &[("spawn + join!", |n| Box::pin(tokio_tuple(n)))],
    },
];

async fn number(i: u64) -> u64 {
    black_box(i)
}

async fn fallible(i: u64) -> Result<u64, ()> {
    Ok(black_box(i))
}

/// Ends in one of 32 turns.
async fn spread(i: u64) -> u64 {
    for _ in 0..i % 32 {
        give_way().await;
    }
    black_box(i)
}

async fn fallible_spread(i: u64) -> Result<u64, ()> {
    Ok(spread(i).await)
}

/// Against [`tokio_join_all`] and [`tokio_set_all`].
async fn gather(n: u64, set: u64) {
    for _ in 0..n / set {
        let results = combine::gather((0..set).map(number)).await;
        assert_eq!(black_box(results).len() as u64, set);
    }
}

/// Against [`gather`]: the same results in the same order.
async fn tokio_join_all(n: u64, set: u64) {
    for _ in 0..n / set {
        let results = join_all((0..set).map(|i| tokio::spawn(number(i)))).await;
        assert_eq!(black_box(results).len() as u64, set);
    }
}

/// Against [`gather`]: the results come in another order, and a panic would go through.
async fn tokio_set_all(n: u64, set: u64) {
    for _ in 0..n / set {
        let tasks: JoinSet<u64> = (0..set).map(number).collect();
        let results = tasks.join_all().await;
        assert_eq!(black_box(results).len() as u64, set);
    }
}

/// Against [`tokio_try_join_all`].
async fn try_gather(n: u64, set: u64) {
    for _ in 0..n / set {
        let results = combine::try_gather((0..set).map(fallible)).await.unwrap();
        assert_eq!(black_box(results).len() as u64, set);
    }
}

/// Against [`try_gather`].
async fn tokio_try_join_all(n: u64, set: u64) {
    for _ in 0..n / set {
        let tasks = (0..set).map(|i| {
            let task = tokio::spawn(fallible(i));
            async { task.await.unwrap() }
        });
        let results = futures::future::try_join_all(tasks).await.unwrap();
        assert_eq!(black_box(results).len() as u64, set);
    }
}

/// Against [`tokio_try_join_all_spread`].
async fn try_gather_spread(n: u64, set: u64) {
    for _ in 0..n / set {
        let results = combine::try_gather((0..set).map(fallible_spread)).await.unwrap();
        assert_eq!(black_box(results).len() as u64, set);
    }
}

/// Against [`try_gather_spread`].
async fn tokio_try_join_all_spread(n: u64, set: u64) {
    for _ in 0..n / set {
        let tasks = (0..set).map(|i| {
            let task = tokio::spawn(fallible_spread(i));
            async { task.await.unwrap() }
        });
        let results = futures::future::try_join_all(tasks).await.unwrap();
        assert_eq!(black_box(results).len() as u64, set);
    }
}

/// Against [`tokio_set_next`] and [`tokio_unordered`].
async fn as_completed(n: u64, set: u64) {
    for _ in 0..n / set {
        let mut tasks = combine::as_completed((0..set).map(|i| coreloop::spawn(number(i))));
        let mut sum = 0;
        while let Some((_, result)) = tasks.next().await {
            sum += result.unwrap();
        }
        assert_eq!(sum, set * (set - 1) / 2);
    }
}

/// Against [`tokio_set_next_spread`] and [`tokio_unordered_spread`].
async fn as_completed_spread(n: u64, set: u64) {
    for _ in 0..n / set {
        let mut tasks = combine::as_completed((0..set).map(|i| coreloop::spawn(spread(i))));
        let mut sum = 0;
        while let Some((_, result)) = tasks.next().await {
            sum += result.unwrap();
        }
        assert_eq!(sum, set * (set - 1) / 2);
    }
}

/// Against [`as_completed`], and against [`group`], where a failure would have to be acted upon by hand.
async fn tokio_set_next(n: u64, set: u64) {
    for _ in 0..n / set {
        let mut tasks: JoinSet<u64> = (0..set).map(number).collect();
        let mut sum = 0;
        while let Some(result) = tasks.join_next().await {
            sum += result.unwrap();
        }
        assert_eq!(sum, set * (set - 1) / 2);
    }
}

/// Against [`as_completed_spread`].
async fn tokio_set_next_spread(n: u64, set: u64) {
    for _ in 0..n / set {
        let mut tasks: JoinSet<u64> = (0..set).map(spread).collect();
        let mut sum = 0;
        while let Some(result) = tasks.join_next().await {
            sum += result.unwrap();
        }
        assert_eq!(sum, set * (set - 1) / 2);
    }
}

/// Against [`as_completed`].
async fn tokio_unordered(n: u64, set: u64) {
    for _ in 0..n / set {
        let tasks = (0..set).map(|i| tokio::spawn(number(i)));
        let mut tasks: FuturesUnordered<_> = tasks.collect();
        let mut sum = 0;
        while let Some(result) = tasks.next().await {
            sum += result.unwrap();
        }
        assert_eq!(sum, set * (set - 1) / 2);
    }
}

/// Against [`as_completed_spread`].
async fn tokio_unordered_spread(n: u64, set: u64) {
    for _ in 0..n / set {
        let tasks = (0..set).map(|i| tokio::spawn(spread(i)));
        let mut tasks: FuturesUnordered<_> = tasks.collect();
        let mut sum = 0;
        while let Some(result) = tasks.next().await {
            sum += result.unwrap();
        }
        assert_eq!(sum, set * (set - 1) / 2);
    }
}

/// Against [`tokio_set_next`] and [`tokio_set_all`].
async fn group(n: u64, set: u64) {
    for _ in 0..n / set {
        let done = combine::group(async |g| {
            for i in 0..set {
                drop(g.spawn(fallible(i)));
            }
            Ok(())
        });
        done.await.unwrap();
    }
}

/// Against [`tokio_tuple`].
async fn tuple(n: u64) {
    for i in 0..n {
        let futures = (number(i), async { "two" }, async { 3_u8 }, async { [4_u32; 4] });
        let _ = black_box(combine::gather_tuple(futures).await);
    }
}

/// Against [`tuple`].
async fn tokio_tuple(n: u64) {
    for i in 0..n {
        let _ = black_box(tokio::join!(
            biased;
            tokio::spawn(number(i)),
            tokio::spawn(async { "two" }),
            tokio::spawn(async { 3_u8 }),
            tokio::spawn(async { [4_u32; 4] }),
        ));
    }
}
