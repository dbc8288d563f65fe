//! Messages while cores die: each is delivered, comes back, or is dropped with the queue that it was in, and
//! each call is answered. `CORELOOP_CROSS_MESSAGES` sets how many of either (200,000 messages, 10,000 calls).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use coreloop::cross::{self, SendError};
use coreloop::{EventLoop, Handle, PostError, RemoteError, Settings, Spin, yield_now};
use coreloop_tests::{Child, Rng, figure, in_child};

fn messages() -> usize {
    asked().unwrap_or(200_000)
}

fn asked() -> Option<usize> {
    let asked = std::env::var("CORELOOP_CROSS_MESSAGES").ok();
    asked.map(|n| n.parse().expect("a number of messages"))
}

/// Counts where it ends: taken by a receiver, or dropped by whoever had it then.
struct Message {
    dropped: Option<Arc<AtomicUsize>>,
}

impl Message {
    fn take(mut self) {
        self.dropped = None;
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A core that takes `lives` messages and then ends with whatever is queued; how many it took.
fn dying_core(
    mut rx: cross::Receiver<Message>,
    lives: usize,
    spin: Spin,
) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        let settings = Settings::default().spin(spin).buffers(1, 64);
        let mut event_loop = EventLoop::with(settings).unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let counts = taken.clone();
        // The end of the loop cancels it, in the middle of a receive.
        drop(event_loop.spawn(async move {
            while let Some(message) = rx.recv().await {
                message.take();
                if counts.fetch_add(1, Ordering::Relaxed).is_multiple_of(50) {
                    yield_now().await;
                }
            }
        }));
        event_loop.block_on(async {
            while taken.load(Ordering::Relaxed) < lives {
                yield_now().await;
            }
        });
        drop(event_loop);
        taken.load(Ordering::Relaxed)
    })
}

#[test]
fn cross_death_of_receivers_loses_no_message() {
    in_child("cross_death_of_receivers_loses_no_message", || {
        let (total, dropped) = (messages(), Arc::new(AtomicUsize::new(0)));
        let counter = dropped.clone();
        let (mut delivered, mut refused, mut sent) = (0, 0, 0);
        let mut rng = Rng::new(7);
        let mut deaths = 0;
        while sent + refused < total {
            let (mut tx, rx) = cross::channel(1 + rng.below(200) as usize);
            let lives = rng.below((total as u64 / 100).max(2)) as usize;
            let spin =
                if rng.below(2) == 0 { Spin::Off } else { Spin::Fixed(Duration::from_micros(50)) };
            let core = dying_core(rx, lives, spin);
            let counter = counter.clone();
            let (ok, back) = coreloop::run(async move {
                let (mut ok, mut back) = (0, 0);
                // A few more after the first that comes back: they do too.
                while back < 3 {
                    let message = Message { dropped: Some(counter.clone()) };
                    match tx.send(message).await {
                        Ok(()) => {
                            assert_eq!(back, 0, "once it is gone it stays gone");
                            ok += 1;
                        }
                        Err(SendError(message)) => {
                            back += 1;
                            message.take();
                        }
                    }
                }
                (ok, back)
            })
            .unwrap();
            (sent, refused) = (sent + ok, refused + back);
            delivered += core.join().unwrap();
            deaths += 1;
        }
        let dropped = dropped.load(Ordering::Relaxed);
        assert_eq!(sent, delivered + dropped, "sent ones were taken, or dropped with their queue");
        figure!(
            "{sent} sent, {delivered} delivered, {dropped} dropped with their core, {refused} came back; \
             {deaths} deaths"
        );
    });
}

#[test]
fn cross_death_of_senders_loses_no_message() {
    in_child("cross_death_of_senders_loses_no_message", || {
        let (total, dropped) = (messages(), Arc::new(AtomicUsize::new(0)));
        let mut rng = Rng::new(8);
        let (mut sent, mut delivered) = (0, 0);
        while sent < total {
            let (mut tx, mut rx) = cross::channel(1 + rng.below(200) as usize);
            let lives = rng.below((total as u64 / 100).max(2)) as usize + 1;
            let (counts, counter) = (Arc::new(AtomicUsize::new(0)), dropped.clone());
            let counted = counts.clone();
            let core = thread::spawn(move || {
                let mut event_loop = EventLoop::with(Settings::default().buffers(1, 64)).unwrap();
                drop(event_loop.spawn(async move {
                    loop {
                        let message = Message { dropped: Some(counter.clone()) };
                        tx.send(message).await.map_err(|e| e.0.take()).expect("it is there");
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }));
                event_loop.block_on(async {
                    while counts.load(Ordering::Relaxed) < lives {
                        yield_now().await;
                    }
                });
                drop(event_loop);
                counts.load(Ordering::Relaxed)
            });
            delivered += coreloop::run(async move {
                let mut taken = 0;
                while let Some(message) = rx.recv().await {
                    message.take();
                    taken += 1;
                }
                taken
            })
            .unwrap();
            sent += core.join().unwrap();
        }
        assert_eq!(sent, delivered, "what was sent is received after its sender's end");
        let rest = dropped.load(Ordering::Relaxed);
        figure!("{sent} sent and delivered, {rest} whose send was cancelled by its core's end");
    });
}

#[test]
fn cross_death_answers_every_call() {
    // 10,000,000 take a minute in a debug build.
    let child = Child::new("cross_death_answers_every_call").limit(Duration::from_secs(900));
    child.run(|| {
        let total = asked().unwrap_or(10_000);
        let mut rng = Rng::new(9);
        let (mut answered, mut refused, mut gone) = (0, 0, 0);
        while answered + refused + gone < total {
            let mut event_loop = EventLoop::with(Settings::default().buffers(1, 64)).unwrap();
            let handle: Handle = event_loop.handle();
            let calls = 200 + rng.below(1_500) as usize;
            let caller = thread::spawn(move || {
                coreloop::run(async move {
                    let mut tasks = Vec::new();
                    let mut refused = 0;
                    for i in 0..calls {
                        match handle.spawn_on_when_room(0, move || async move { i }).await {
                            Ok(task) => tasks.push((i, task)),
                            Err(PostError::CoreGone) => refused += 1,
                            Err(e) => panic!("{e}"),
                        }
                    }
                    let (mut answered, mut gone) = (0, 0);
                    for (i, task) in tasks {
                        match task.await {
                            Ok(value) => {
                                assert_eq!(value, i);
                                answered += 1;
                            }
                            Err(RemoteError::Gone) => gone += 1,
                            Err(e) => panic!("{e}"),
                        }
                    }
                    (answered, refused, gone)
                })
                .unwrap()
            });
            for _ in 0..rng.below(30) {
                event_loop.turn(Some(Duration::from_micros(100)));
            }
            drop(event_loop);
            let ended = caller.join().unwrap();
            assert_eq!(ended.0 + ended.1 + ended.2, calls);
            (answered, refused, gone) = (answered + ended.0, refused + ended.1, gone + ended.2);
        }
        figure!("{answered} answered, {refused} refused, {gone} told that the core had ended");
    });
}
