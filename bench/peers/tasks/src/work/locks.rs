//! Mutex, rw-lock and semaphore, with nobody waiting and with several.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use super::{Workload, give_way};

pub const ALL: &[Workload] = &[
    Workload {
        name: "mutex",
        op: "lock, add one, unlock; nobody else wants it",
        ops: 1_000_000,
        ops_min: 1,
        ours: |n| Box::pin(mutex(n)),
        theirs: &[("sync::Mutex", |n| Box::pin(tokio_mutex(n)))],
    },
    Workload {
        name: "mutex-contended",
        op: "lock, add one, give way, unlock; 8 tasks in turn",
        ops: 100_000,
        ops_min: 8,
        ours: |n| Box::pin(mutex_contended(n)),
        theirs: &[("sync::Mutex", |n| Box::pin(tokio_mutex_contended(n)))],
    },
    Workload {
        name: "rwlock-read",
        op: "read lock, look, unlock; nobody writes",
        ops: 1_000_000,
        ops_min: 1,
        ours: |n| Box::pin(rw_lock(n)),
        theirs: &[("sync::RwLock", |n| Box::pin(tokio_rw_lock(n)))],
    },
    Workload {
        name: "semaphore",
        op: "acquire, release; a permit is free",
        ops: 1_000_000,
        ops_min: 1,
        ours: |n| Box::pin(semaphore(n)),
        theirs: &[("sync::Semaphore", |n| Box::pin(tokio_semaphore(n)))],
    },
    Workload {
        name: "semaphore-contended",
        op: "acquire, give way, release; 8 tasks, 2 permits",
        ops: 100_000,
        ops_min: 8,
        ours: |n| Box::pin(semaphore_contended(n)),
        theirs: &[("sync::Semaphore", |n| Box::pin(tokio_semaphore_contended(n)))],
    },
];

const TASKS: u64 = 8;

/// Against [`tokio_mutex`].
async fn mutex(n: u64) {
    let mutex = coreloop::sync::Mutex::new(0_u64);
    for _ in 0..n {
        *black_box(&mutex).lock().await += 1;
    }
    assert_eq!(mutex.into_inner(), n);
}

/// Against [`mutex`].
async fn tokio_mutex(n: u64) {
    let mutex = tokio::sync::Mutex::new(0_u64);
    for _ in 0..n {
        *black_box(&mutex).lock().await += 1;
    }
    assert_eq!(mutex.into_inner(), n);
}

/// Against [`tokio_mutex_contended`].
async fn mutex_contended(n: u64) {
    let mutex = Rc::new(coreloop::sync::Mutex::new(0_u64));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let mutex = mutex.clone();
            coreloop::spawn(async move {
                for _ in 0..n / TASKS {
                    let mut held = mutex.lock().await;
                    *held += 1;
                    give_way().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*mutex.lock().await, n / TASKS * TASKS);
}

/// Against [`mutex_contended`].
async fn tokio_mutex_contended(n: u64) {
    let mutex = Arc::new(tokio::sync::Mutex::new(0_u64));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let mutex = mutex.clone();
            tokio::spawn(async move {
                for _ in 0..n / TASKS {
                    let mut held = mutex.lock().await;
                    *held += 1;
                    give_way().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*mutex.lock().await, n / TASKS * TASKS);
}

/// Against [`tokio_rw_lock`].
async fn rw_lock(n: u64) {
    let lock = coreloop::sync::RwLock::new(1_u64);
    for _ in 0..n {
        black_box(*black_box(&lock).read().await);
    }
}

/// Against [`rw_lock`].
async fn tokio_rw_lock(n: u64) {
    let lock = tokio::sync::RwLock::new(1_u64);
    for _ in 0..n {
        black_box(*black_box(&lock).read().await);
    }
}

/// Against [`tokio_semaphore`].
async fn semaphore(n: u64) {
    let semaphore = coreloop::sync::Semaphore::new(2);
    for _ in 0..n {
        drop(black_box(&semaphore).acquire().await.unwrap());
    }
}

/// Against [`semaphore`].
async fn tokio_semaphore(n: u64) {
    let semaphore = tokio::sync::Semaphore::new(2);
    for _ in 0..n {
        drop(black_box(&semaphore).acquire().await.unwrap());
    }
}

/// Against [`tokio_semaphore_contended`].
async fn semaphore_contended(n: u64) {
    let semaphore = Rc::new(coreloop::sync::Semaphore::new(2));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let semaphore = semaphore.clone();
            coreloop::spawn(async move {
                for _ in 0..n / TASKS {
                    let _permit = semaphore.acquire().await.unwrap();
                    give_way().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Against [`semaphore_contended`].
async fn tokio_semaphore_contended(n: u64) {
    let semaphore = Arc::new(tokio::sync::Semaphore::new(2));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let semaphore = semaphore.clone();
            tokio::spawn(async move {
                for _ in 0..n / TASKS {
                    let _permit = semaphore.acquire().await.unwrap();
                    give_way().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
