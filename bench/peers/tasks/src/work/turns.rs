//! One task after the other: spawning, giving way, limits, selects.

use std::cell::Cell;
use std::future::{pending, ready};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Workload, give_way};

pub const ALL: &[Workload] = &[
    Workload {
        name: "timeout-ready",
        op: "a limit of 1 s around a future that is ready",
        ops: 200_000,
        ops_min: 1,
        ours: |n| Box::pin(timeout_ready(n)),
        theirs: &[("time::timeout", |n| Box::pin(tokio_timeout_ready(n)))],
    },
    Workload {
        name: "timeout-one-turn",
        op: "a limit of 1 s around a future that gives way once",
        ops: 50_000,
        ops_min: 1,
        ours: |n| Box::pin(timeout_one_turn(n)),
        theirs: &[("time::timeout", |n| Box::pin(tokio_timeout_one_turn(n)))],
    },
    Workload {
        name: "select-2",
        op: "select! of one that gives way once and one that never ends",
        ops: 100_000,
        ops_min: 1,
        ours: |n| Box::pin(select(n)),
        theirs: &[("select! biased", |n| Box::pin(tokio_select(n)))],
    },
    Workload {
        name: "spawn-join",
        op: "spawn a task and wait for it, one by one",
        ops: 100_000,
        ops_min: 1,
        ours: |n| Box::pin(spawn_join(n)),
        theirs: &[("task::spawn", |n| Box::pin(tokio_spawn_join(n)))],
    },
    Workload {
        name: "spawn-batch",
        op: "spawn a task, let go of its handle, run it; 1,000 at a time",
        ops: 500_000,
        ops_min: 1000,
        ours: |n| Box::pin(spawn_batch(n)),
        theirs: &[("task::spawn", |n| Box::pin(tokio_spawn_batch(n)))],
    },
    Workload {
        name: "give-way-1000",
        op: "a wake and a poll, among 1,000 tasks that wake themselves",
        ops: 500_000,
        ops_min: 1000,
        ours: |n| Box::pin(give_way_among(n)),
        theirs: &[("task::spawn", |n| Box::pin(tokio_give_way_among(n)))],
    },
    Workload {
        name: "yield-now-1000",
        op: "yield_now, among 1,000 tasks that do so",
        ops: 500_000,
        ops_min: 1000,
        ours: |n| Box::pin(yield_among(n)),
        theirs: &[("task::yield_now", |n| Box::pin(tokio_yield_among(n)))],
    },
];

const LIMIT: Duration = Duration::from_secs(1);

/// Against [`tokio_timeout_ready`].
async fn timeout_ready(n: u64) {
    for i in 0..n {
        let value = coreloop::time::timeout(LIMIT, ready(black_box(i))).await;
        assert_eq!(value.ok(), Some(i));
    }
}

/// Against [`timeout_ready`].
async fn tokio_timeout_ready(n: u64) {
    for i in 0..n {
        let value = tokio::time::timeout(LIMIT, ready(black_box(i))).await;
        assert_eq!(value.ok(), Some(i));
    }
}

/// Against [`tokio_timeout_one_turn`].
async fn timeout_one_turn(n: u64) {
    for _ in 0..n {
        assert!(coreloop::time::timeout(LIMIT, give_way()).await.is_ok());
    }
}

/// Against [`timeout_one_turn`].
async fn tokio_timeout_one_turn(n: u64) {
    for _ in 0..n {
        assert!(tokio::time::timeout(LIMIT, give_way()).await.is_ok());
    }
}

/// Against [`tokio_select`].
async fn select(n: u64) {
    for i in 0..n {
        let won = coreloop::select! {
            never = pending::<u64>() => never,
            () = give_way() => black_box(i),
        };
        assert_eq!(won, i);
    }
}

/// Against [`select`]; in the order of the arms, as coreloop's is.
async fn tokio_select(n: u64) {
    for i in 0..n {
        let won = tokio::select! {
            biased;
            never = pending::<u64>() => never,
            () = give_way() => black_box(i),
        };
        assert_eq!(won, i);
    }
}

/// Against [`tokio_spawn_join`].
async fn spawn_join(n: u64) {
    for i in 0..n {
        assert_eq!(coreloop::spawn(async move { black_box(i) }).await.unwrap(), i);
    }
}

/// Against [`spawn_join`].
async fn tokio_spawn_join(n: u64) {
    for i in 0..n {
        assert_eq!(tokio::spawn(async move { black_box(i) }).await.unwrap(), i);
    }
}

/// Against [`tokio_spawn_batch`].
async fn spawn_batch(n: u64) {
    let ran = Rc::new(Cell::new(0));
    for _ in 0..n / TASKS {
        for _ in 0..TASKS {
            drop(coreloop::spawn(async {}));
        }
        let last = ran.clone();
        drop(coreloop::spawn(async move { last.set(last.get() + 1) }));
        coreloop::yield_now().await;
    }
    assert_eq!(ran.get(), n / TASKS);
}

/// Against [`spawn_batch`].
async fn tokio_spawn_batch(n: u64) {
    let ran = Arc::new(AtomicU64::new(0));
    for before in 0..n / TASKS {
        for _ in 0..TASKS {
            drop(tokio::spawn(async {}));
        }
        let last = ran.clone();
        drop(tokio::spawn(async move { last.store(last.load(Relaxed) + 1, Relaxed) }));
        while ran.load(Relaxed) == before {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(ran.load(Relaxed), n / TASKS);
}

/// Tasks that take turns.
const TASKS: u64 = 1000;

/// Against [`tokio_give_way_among`].
async fn give_way_among(n: u64) {
    let run = |_| {
        coreloop::spawn(async move {
            for _ in 0..n / TASKS {
                give_way().await;
            }
        })
    };
    for task in (0..TASKS).map(run).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Against [`give_way_among`].
async fn tokio_give_way_among(n: u64) {
    let run = |_| {
        tokio::spawn(async move {
            for _ in 0..n / TASKS {
                give_way().await;
            }
        })
    };
    for task in (0..TASKS).map(run).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Against [`tokio_yield_among`].
async fn yield_among(n: u64) {
    let run = |_| {
        coreloop::spawn(async move {
            for _ in 0..n / TASKS {
                coreloop::yield_now().await;
            }
        })
    };
    for task in (0..TASKS).map(run).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Against [`yield_among`].
async fn tokio_yield_among(n: u64) {
    let run = |_| {
        tokio::spawn(async move {
            for _ in 0..n / TASKS {
                tokio::task::yield_now().await;
            }
        })
    };
    for task in (0..TASKS).map(run).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}
