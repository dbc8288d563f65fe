//! Wakes and waits of tasks, as a subscriber sees them that reads what `console-subscriber` reads: the same
//! names, targets, fields and types, and nothing else (`tests/console` has the real one). Needs the feature
//! `tracing`: `cargo test -p coreloop --features tracing --test tracing_console`.

#![cfg(feature = "tracing")]

mod console;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use coreloop::op::{PollOnce, Submitter};
use coreloop::sync::{Mutex as Lock, mpsc};
use coreloop::time::sleep;
use coreloop::{EventLoop, Handle, spawn, spawn_eager, spawn_named, yield_now};

use console::Console;

/// Runs `main` on a loop whose tasks this console watches.
fn watched<F: Future>(console: &Console, main: F) -> F::Output {
    tracing::subscriber::with_default(console.clone(), || EventLoop::new().unwrap().block_on(main))
}

async fn turns(n: usize) {
    for _ in 0..n {
        yield_now().await;
    }
}

#[test]
fn console_wakes_are_counted_and_those_by_the_task_itself() {
    let console = Console::default();
    watched(&console, async {
        let waker = Arc::new(Mutex::new(None::<Waker>));
        let kept = waker.clone();
        let sleeper = spawn_named("sleeper", async move {
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                *kept.lock().unwrap() = Some(cx.waker().clone());
                polls += 1;
                if polls > 3 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        let yields = spawn_named("yields", turns(5));
        for _ in 0..3 {
            turns(2).await;
            waker.lock().unwrap().as_ref().unwrap().wake_by_ref();
        }
        sleeper.await.unwrap();
        yields.await.unwrap();
        // Of one that has ended, to nobody.
        waker.lock().unwrap().take().unwrap().wake();
        turns(2).await;
    });
    let (sleeper, yields) = (console.task("sleeper"), console.task("yields"));
    assert_eq!((sleeper.wakes, sleeper.self_wakes), (3, 0), "{sleeper:?}");
    assert_eq!((yields.wakes, yields.self_wakes), (5, 5), "{yields:?}");
    // The drop of the future counts, as tokio's does.
    assert_eq!((sleeper.polls, yields.polls), (5, 7));
    assert_eq!((sleeper.clones, &sleeper.kind[..]), (1, "local"));
    assert!(sleeper.closed && yields.closed, "nothing keeps a span");
}

#[test]
fn console_wakes_by_timers_tasks_and_other_threads_count() {
    let console = Console::default();
    watched(&console, async {
        let timed = spawn_named("timed", sleep(Duration::from_millis(2)));
        let joined = spawn_named("joins", timed);
        let waker = Arc::new(Mutex::new(None::<Waker>));
        let (kept, done) = (waker.clone(), Arc::new(Mutex::new(false)));
        let over = done.clone();
        let foreign = spawn_named(
            "foreign",
            std::future::poll_fn(move |cx| {
                *kept.lock().unwrap() = Some(cx.waker().clone());
                if *over.lock().unwrap() { Poll::Ready(()) } else { Poll::Pending }
            }),
        );
        turns(2).await;
        let waker = waker.lock().unwrap().take().unwrap();
        // On a thread where nobody collects anything.
        std::thread::spawn(move || {
            *done.lock().unwrap() = true;
            waker.wake();
        })
        .join()
        .unwrap();
        foreign.await.unwrap();
        joined.await.unwrap().unwrap();
    });
    for (name, wakes) in [("timed", 1), ("joins", 1), ("foreign", 1)] {
        let task = console.task(name);
        assert_eq!((task.wakes, task.self_wakes), (wakes, 0), "{task:?}");
    }
}

#[test]
fn console_waits_say_what_is_waited_for_and_when_it_has_come() {
    let console = Console::default();
    watched(&console, async {
        let lock = std::rc::Rc::new(Lock::new(0));
        let guard = lock.lock().await;
        let theirs = lock.clone();
        let locks = spawn_named("locks", async move {
            *theirs.lock().await += 1;
            sleep(Duration::from_millis(1)).await;
        });
        let (send, mut receive) = mpsc::channel::<u8>(1);
        let receives = spawn_named("receives", async move { receive.recv().await });
        let either = spawn_named("either", async {
            let nap = spawn_named("nap", sleep(Duration::from_secs(3600)));
            let mut first = coreloop::combine::race(sleep(Duration::from_secs(3600)), nap);
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                polls += 1;
                std::pin::Pin::new(&mut first).poll(cx).map(drop)
            })
            .await;
        });
        turns(3).await;
        assert_eq!(console.waits("locks"), [("sync a mutex".into(), Some(false), false)]);
        let mut waits = console.waits("either");
        waits.sort();
        let waiting = |what: &str| (what.to_owned(), Some(false), false);
        assert_eq!(waits, [waiting("task end of a task"), waiting("timer timer")]);
        drop(guard);
        turns(3).await;
        let expected = [("sync a mutex".into(), Some(true), true), waiting("timer timer")];
        assert_eq!(console.waits("locks"), expected);
        locks.await.unwrap();
        send.send(1).await.unwrap();
        assert_eq!(receives.await.unwrap(), Some(1));
        either.cancel();
        assert!(either.await.is_err());
    });
    let waits = console.waits("receives");
    assert_eq!(waits, [("sync an item of a queue or channel".into(), Some(true), true)]);
    let waits = console.waits("either");
    assert!(waits.iter().all(|wait| wait.2), "a cancel ends them: {waits:?}");
    console.with(|spans| assert!(spans.iter().all(|span| span.closed), "{spans:?}"));
}

#[test]
fn console_waits_of_an_eager_task_are_not_its_maker_s() {
    let console = Console::default();
    watched(&console, async {
        let maker = spawn_named("maker", async {
            let inner = spawn_eager(sleep(Duration::from_millis(1)));
            yield_now().await;
            inner.await.unwrap();
        });
        maker.await.unwrap();
    });
    let waits: Vec<String> = console.waits("maker").into_iter().map(|wait| wait.0).collect();
    assert_eq!(waits, ["task end of a task"]);
    let waits: Vec<String> = console.waits("").into_iter().map(|wait| wait.0).collect();
    assert_eq!(waits, ["timer timer"]);
}

#[test]
fn console_waits_of_an_eager_task_that_nobody_collects_are_nobody_s() {
    let console = Console::default();
    watched(&console, async {
        let maker = spawn_named("maker", async {
            let nobody = tracing::subscriber::NoSubscriber::new();
            let unseen = tracing::subscriber::with_default(nobody, || {
                spawn_eager(sleep(Duration::from_millis(1)))
            });
            yield_now().await;
            sleep(Duration::from_millis(2)).await;
            drop(unseen);
        });
        turns(1).await;
        assert!(console.waits("maker").is_empty(), "{:?}", console.waits("maker"));
        maker.await.unwrap();
    });
    assert_eq!(console.waits("maker"), [("timer timer".into(), Some(true), true)]);
    assert!(console.waits("").is_empty());
}

#[test]
fn console_a_subscriber_may_spawn_wake_and_panic_when_it_hears_of_a_wake() {
    let (ran, other) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None::<Waker>)));
    let (runs, wakes) = (ran.clone(), other.clone());
    let on_wake = move || {
        let runs = runs.clone();
        drop(spawn(async move { _ = runs.fetch_add(1, Ordering::Relaxed) }));
        if let Some(waker) = &*wakes.lock().unwrap() {
            waker.wake_by_ref();
        }
        // On purpose, and without a message.
        std::panic::resume_unwind(Box::new(()));
    };
    let console = Console { on_wake: Some(Arc::new(on_wake)), ..Console::default() };
    watched(&console, async {
        let mut polls = 0;
        let woken = spawn_named(
            "woken by the subscriber",
            std::future::poll_fn(move |cx| {
                *other.lock().unwrap() = Some(cx.waker().clone());
                polls += 1;
                if polls > 2 { Poll::Ready(()) } else { Poll::Pending }
            }),
        );
        let timed = spawn_named("timed", sleep(Duration::from_millis(1)));
        let joined = spawn_named("joins", timed);
        spawn_named("yields", turns(3)).await.unwrap();
        joined.await.unwrap().unwrap();
        woken.await.unwrap();
        yield_now().await;
    });
    assert_eq!(console.task("joins").wakes, 1);
    assert_eq!(console.task("yields").wakes, 3);
    // A subscriber is not told of what it does itself while it is told of something.
    assert_eq!(console.task("woken by the subscriber").wakes, 0);
    assert_eq!(ran.load(Ordering::Relaxed), 5, "one a wake");
}

#[test]
fn console_who_is_deaf_to_wakes_hears_of_none_and_a_loop_without_any_goes_on() {
    let console = Console { deaf_to_wakes: true, ..Console::default() };
    watched(&console, async {
        spawn_named("yields", turns(3)).await.unwrap();
    });
    let yields = console.task("yields");
    assert_eq!((yields.polls, yields.wakes, yields.clones), (5, 0, 0));
    // Watched tasks of another loop do not make an unwatched one's wakes known to anybody.
    let seen = Console::default();
    let mut unwatched = EventLoop::new().unwrap();
    tracing::subscriber::with_default(seen.clone(), || {
        EventLoop::new().unwrap().block_on(async {
            let stays = spawn_named("stays", std::future::pending::<()>());
            turns(2).await;
            tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
                drop(unwatched.spawn(turns(3)));
            });
            drop(stays);
        });
    });
    unwatched.block_on(turns(6));
    assert_eq!(seen.with(|spans| spans.iter().map(|span| span.wakes).sum::<usize>()), 0);
}

async fn opened(gate: Arc<AtomicBool>) {
    while !gate.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn console_what_another_core_sends_or_answers_is_a_wake() {
    let console = Console::default();
    let (mut send, mut receive) = coreloop::cross::channel::<u8>(4);
    let (never_sends, mut ends) = coreloop::cross::channel::<u8>(4);
    let (tell, told) = std::sync::mpsc::channel::<Handle>();
    // Set when all three of them wait.
    let gate = Arc::new(AtomicBool::new(false));
    let (sends, answers) = (gate.clone(), gate.clone());
    let other = std::thread::spawn(move || {
        let mut event_loop = EventLoop::new().unwrap();
        tell.send(event_loop.handle()).unwrap();
        event_loop.block_on(async {
            opened(sends).await;
            send.send(7).await.unwrap();
            drop(never_sends);
            sleep(Duration::from_millis(50)).await;
        });
    });
    let handle = told.recv().unwrap();
    watched(&console, async move {
        let asks = spawn_named("asks", handle.spawn_on(0, || opened(answers)).unwrap());
        let receives = spawn_named("receives", async move { receive.recv().await });
        let ends = spawn_named("ends", async move { ends.recv().await });
        turns(3).await;
        gate.store(true, Ordering::Relaxed);
        asks.await.unwrap().unwrap();
        assert_eq!((receives.await.unwrap(), ends.await.unwrap()), (Some(7), None));
    });
    other.join().unwrap();
    for name in ["asks", "receives", "ends"] {
        let task = console.task(name);
        assert_eq!((task.wakes, task.self_wakes), (1, 0), "{task:?}");
    }
}

#[test]
fn console_operations_that_the_kernel_has_are_waits_by_their_name() {
    let console = Console::default();
    watched(&console, async {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let polls = spawn_named("polls", async move {
            let readable = PollOnce::new(ours, libc::POLLIN as u32);
            let mut op = Submitter::current().start(readable).unwrap();
            std::future::poll_fn(|cx| op.poll(cx)).await.unwrap()
        });
        turns(3).await;
        assert_eq!(console.waits("polls"), [("io poll".into(), Some(false), false)]);
        drop(theirs);
        polls.await.unwrap();
    });
    assert_eq!(console.waits("polls"), [("io poll".into(), Some(true), true)]);
    assert_eq!(console.task("polls").wakes, 1);
}
