//! What carries values between tasks: one-shot, mpsc, broadcast, watch.

use std::hint::black_box;

use super::Workload;

pub const ALL: &[Workload] = &[
    Workload {
        name: "oneshot",
        op: "make, send, receive, in one task",
        ops: 300_000,
        ops_min: 1,
        ours: |n| Box::pin(oneshot(n)),
        theirs: &[("sync::oneshot", |n| Box::pin(tokio_oneshot(n)))],
    },
    Workload {
        name: "oneshot-ping-pong",
        op: "make, send, wake the other task, receive",
        ops: 100_000,
        ops_min: 2,
        ours: |n| Box::pin(ping_pong(n)),
        theirs: &[("sync::oneshot", |n| Box::pin(tokio_ping_pong(n)))],
    },
    Workload {
        name: "mpsc",
        op: "a value through 16 places, from task to task",
        ops: 200_000,
        ops_min: 1,
        ours: |n| Box::pin(mpsc(n, 16)),
        theirs: &[("sync::mpsc", |n| Box::pin(tokio_mpsc(n, 16)))],
    },
    Workload {
        name: "mpsc-1",
        op: "a value through 1 place, from task to task",
        ops: 100_000,
        ops_min: 1,
        ours: |n| Box::pin(mpsc(n, 1)),
        theirs: &[("sync::mpsc", |n| Box::pin(tokio_mpsc(n, 1)))],
    },
    Workload {
        name: "mpsc-unbounded",
        op: "a value, from task to task; the sender gives way every 16",
        ops: 200_000,
        ops_min: 1,
        ours: |n| Box::pin(unbounded(n)),
        theirs: &[("sync::mpsc", |n| Box::pin(tokio_unbounded(n)))],
    },
    Workload {
        name: "broadcast",
        op: "a value to 4 receivers; the sender gives way every 8",
        ops: 50_000,
        ops_min: 1,
        ours: |n| Box::pin(broadcast(n)),
        theirs: &[("sync::broadcast", |n| Box::pin(tokio_broadcast(n)))],
    },
    Workload {
        name: "watch",
        op: "a new value, seen by 1 receiver; the sender gives way",
        ops: 100_000,
        ops_min: 1,
        ours: |n| Box::pin(watch(n)),
        theirs: &[("sync::watch", |n| Box::pin(tokio_watch(n)))],
    },
];

/// Against [`tokio_oneshot`].
async fn oneshot(n: u64) {
    for i in 0..n {
        let (tx, rx) = coreloop::sync::oneshot::channel();
        tx.send(black_box(i)).unwrap();
        black_box(rx.await.unwrap());
    }
}

/// Against [`oneshot`].
async fn tokio_oneshot(n: u64) {
    for i in 0..n {
        let (tx, rx) = tokio::sync::oneshot::channel();
        tx.send(black_box(i)).unwrap();
        black_box(rx.await.unwrap());
    }
}

/// A ball that carries the way back.
struct Ball(coreloop::sync::oneshot::Sender<Ball>);

/// Against [`tokio_ping_pong`]: every hop makes the channel for the way back, and sends its end along.
async fn ping_pong(n: u64) {
    async fn play(mut rx: coreloop::sync::oneshot::Receiver<Ball>, hops: u64) {
        for _ in 0..hops {
            let Ok(Ball(back)) = rx.await else { return };
            let (tx, next) = coreloop::sync::oneshot::channel();
            rx = next;
            let _ = back.send(Ball(tx));
        }
    }
    let (tx, rx) = coreloop::sync::oneshot::channel();
    let (first, back) = coreloop::sync::oneshot::channel();
    let other = coreloop::spawn(play(rx, n / 2));
    assert!(tx.send(Ball(first)).is_ok());
    coreloop::spawn(play(back, n / 2)).await.unwrap();
    other.await.unwrap();
}

/// As [`Ball`].
struct TokioBall(tokio::sync::oneshot::Sender<TokioBall>);

/// Against [`ping_pong`].
async fn tokio_ping_pong(n: u64) {
    async fn play(mut rx: tokio::sync::oneshot::Receiver<TokioBall>, hops: u64) {
        for _ in 0..hops {
            let Ok(TokioBall(back)) = rx.await else { return };
            let (tx, next) = tokio::sync::oneshot::channel();
            rx = next;
            let _ = back.send(TokioBall(tx));
        }
    }
    let (tx, rx) = tokio::sync::oneshot::channel();
    let (first, back) = tokio::sync::oneshot::channel();
    let other = tokio::spawn(play(rx, n / 2));
    assert!(tx.send(TokioBall(first)).is_ok());
    tokio::spawn(play(back, n / 2)).await.unwrap();
    other.await.unwrap();
}

/// Against [`tokio_mpsc`].
async fn mpsc(n: u64, places: usize) {
    let (tx, mut rx) = coreloop::sync::mpsc::channel(places);
    let sender = coreloop::spawn(async move {
        for i in 0..n {
            tx.send(i).await.unwrap();
        }
    });
    let receiver = coreloop::spawn(async move {
        let mut sum = 0;
        while let Some(i) = rx.recv().await {
            sum += i;
        }
        sum
    });
    sender.await.unwrap();
    assert_eq!(receiver.await.unwrap(), n * (n - 1) / 2);
}

/// Against [`mpsc`].
async fn tokio_mpsc(n: u64, places: usize) {
    let (tx, mut rx) = tokio::sync::mpsc::channel(places);
    let sender = tokio::spawn(async move {
        for i in 0..n {
            tx.send(i).await.unwrap();
        }
    });
    let receiver = tokio::spawn(async move {
        let mut sum = 0;
        while let Some(i) = rx.recv().await {
            sum += i;
        }
        sum
    });
    sender.await.unwrap();
    assert_eq!(receiver.await.unwrap(), n * (n - 1) / 2);
}

/// Against [`tokio_unbounded`].
async fn unbounded(n: u64) {
    let (tx, mut rx) = coreloop::sync::mpsc::unbounded_channel();
    let sender = coreloop::spawn(async move {
        for i in 0..n {
            tx.try_send(i).unwrap();
            if i % 16 == 15 {
                super::give_way().await;
            }
        }
    });
    let receiver = coreloop::spawn(async move {
        let mut sum = 0;
        while let Some(i) = rx.recv().await {
            sum += i;
        }
        sum
    });
    sender.await.unwrap();
    assert_eq!(receiver.await.unwrap(), n * (n - 1) / 2);
}

/// Against [`unbounded`].
async fn tokio_unbounded(n: u64) {
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    let sender = tokio::spawn(async move {
        for i in 0..n {
            tx.send(i).unwrap();
            if i % 16 == 15 {
                super::give_way().await;
            }
        }
    });
    let receiver = tokio::spawn(async move {
        let mut sum = 0;
        while let Some(i) = rx.recv().await {
            sum += i;
        }
        sum
    });
    sender.await.unwrap();
    assert_eq!(receiver.await.unwrap(), n * (n - 1) / 2);
}

/// Receivers of a broadcast.
const RECEIVERS: u64 = 4;

/// Against [`tokio_broadcast`].
async fn broadcast(n: u64) {
    let (tx, rx) = coreloop::sync::broadcast::channel(16);
    let receivers: Vec<_> = (0..RECEIVERS)
        .map(|_| {
            let mut rx = rx.resubscribe();
            coreloop::spawn(async move {
                let mut sum = 0_u64;
                while let Ok(i) = rx.recv().await {
                    sum += i;
                }
                sum
            })
        })
        .collect();
    drop(rx);
    for i in 0..n {
        tx.send(i).unwrap();
        if i % 8 == 7 {
            super::give_way().await;
        }
    }
    drop(tx);
    for receiver in receivers {
        assert_eq!(receiver.await.unwrap(), n * (n - 1) / 2);
    }
}

/// Against [`broadcast`].
async fn tokio_broadcast(n: u64) {
    let (tx, rx) = tokio::sync::broadcast::channel(16);
    let receivers: Vec<_> = (0..RECEIVERS)
        .map(|_| {
            let mut rx = rx.resubscribe();
            tokio::spawn(async move {
                let mut sum = 0_u64;
                while let Ok(i) = rx.recv().await {
                    sum += i;
                }
                sum
            })
        })
        .collect();
    drop(rx);
    for i in 0..n {
        tx.send(i).unwrap();
        if i % 8 == 7 {
            super::give_way().await;
        }
    }
    drop(tx);
    for receiver in receivers {
        assert_eq!(receiver.await.unwrap(), n * (n - 1) / 2);
    }
}

/// Against [`tokio_watch`].
async fn watch(n: u64) {
    let (tx, mut rx) = coreloop::sync::watch::channel(0_u64);
    let receiver = coreloop::spawn(async move {
        let mut seen = 0_u64;
        while rx.changed().await.is_ok() {
            black_box(*rx.borrow_and_update());
            seen += 1;
        }
        seen
    });
    for i in 0..n {
        tx.send(i).unwrap();
        super::give_way().await;
    }
    drop(tx);
    assert!(receiver.await.unwrap() > n / 2);
}

/// Against [`watch`].
async fn tokio_watch(n: u64) {
    let (tx, mut rx) = tokio::sync::watch::channel(0_u64);
    let receiver = tokio::spawn(async move {
        let mut seen = 0_u64;
        while rx.changed().await.is_ok() {
            black_box(*rx.borrow_and_update());
            seen += 1;
        }
        seen
    });
    for i in 0..n {
        tx.send(i).unwrap();
        super::give_way().await;
    }
    drop(tx);
    assert!(receiver.await.unwrap() > n / 2);
}
