//! Work that blocks and does not get to its end (B1): cancelled, left behind, or never started.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use coreloop::{EventLoop, Settings, spawn, spawn_blocking};
use coreloop_tests::drive::{Drops, settled};
use coreloop_tests::process::block_syscall;
use coreloop_tests::{fd_count, fds_settle_at, in_child, skip, turns};

const MS: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_secs(20);

/// A loop with so many threads, and so much room in the queue before them.
fn with(threads: u32, queue: u32) -> EventLoop {
    let settings = Settings::default().blocking_threads(threads).blocking_queue(queue);
    EventLoop::with(settings.grace(Duration::from_millis(200))).unwrap()
}

/// Notes on which thread it was dropped.
#[derive(Clone, Default)]
struct DroppedOn(Arc<Mutex<Vec<ThreadId>>>);

impl DroppedOn {
    fn guard(&self) -> OnDrop {
        OnDrop(self.clone())
    }

    fn threads(&self) -> Vec<ThreadId> {
        self.0.lock().unwrap().clone()
    }
}

struct OnDrop(DroppedOn);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().push(std::thread::current().id());
    }
}

/// A closure that runs until the sender is used or dropped, and a receiver that tells when it has begun.
fn held_up() -> (impl FnOnce() + Send + 'static, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let ((go, may_go), (say, said)) = (mpsc::channel(), mpsc::channel());
    let closure = move || {
        say.send(()).unwrap();
        // Let go of by the test's end at the latest.
        let _ = may_go.recv();
    };
    (closure, go, said)
}

/// Threads of this process.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc is mounted").count()
}

fn threads_settle_at(want: usize) -> usize {
    let until = Instant::now() + SOON;
    while threads() != want && Instant::now() < until {
        std::thread::sleep(2 * MS);
    }
    threads()
}

#[test]
fn b1_a_cancel_before_a_thread_took_it_drops_the_closure_unrun() {
    let mut event_loop = with(1, 1);
    event_loop.block_on(async {
        let (closure, go, begun) = held_up();
        let first = spawn_blocking(closure);
        assert!(settled(SOON, || begun.try_recv().is_ok()).await);
        // The one thread is busy: these three are queued, waiting for room, and not polled yet.
        let (ran, dropped) = (Arc::new(AtomicUsize::new(0)), DroppedOn::default());
        let make = || {
            let (ran, guard) = (ran.clone(), dropped.guard());
            spawn_blocking(move || {
                let _guard = guard;
                ran.fetch_add(1, Ordering::SeqCst)
            })
        };
        let (queued, waiting) = (make(), make());
        turns(3).await;
        let unpolled = make();
        for work in [queued, waiting, unpolled] {
            assert!(work.cancel());
            assert!(work.await.unwrap_err().is_cancelled());
        }
        let here = std::thread::current().id();
        assert_eq!(dropped.threads(), [here; 3], "dropped on the loop, at once");
        // Their places are free again.
        let later = (make(), make());
        drop(go);
        first.await.unwrap();
        assert_eq!((later.0.await.unwrap(), later.1.await.unwrap()), (0, 1));
        assert_eq!(ran.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn b1_a_cancel_while_it_runs_lets_it_end_and_drops_its_value() {
    let mut event_loop = with(1, 8);
    event_loop.block_on(async {
        let (closure, go, begun) = held_up();
        let (ended, dropped) = (Arc::new(AtomicBool::new(false)), DroppedOn::default());
        let (set, value) = (ended.clone(), dropped.guard());
        let work = spawn_blocking(move || {
            closure();
            set.store(true, Ordering::SeqCst);
            value
        });
        assert!(settled(SOON, || begun.try_recv().is_ok()).await);
        assert!(work.cancel());
        assert!(work.await.map(drop).unwrap_err().is_cancelled());
        assert!(!ended.load(Ordering::SeqCst), "the handle does not wait for the closure");
        assert!(dropped.threads().is_empty());
        go.send(()).unwrap();
        let thread = spawn_blocking(|| std::thread::current().id()).await.unwrap();
        assert!(ended.load(Ordering::SeqCst), "which runs to its end");
        assert_eq!(dropped.threads(), [thread], "and whose value is dropped where it was made");
    });
}

#[test]
fn b1_a_cancel_travels_inwards_through_an_await_of_it() {
    let mut event_loop = with(1, 8);
    event_loop.block_on(async {
        let (closure, go, begun) = held_up();
        let first = spawn_blocking(closure);
        assert!(settled(SOON, || begun.try_recv().is_ok()).await);
        let drops = Drops::new();
        let guard = drops.guard();
        let awaiter = spawn(async move { spawn_blocking(move || drop(guard)).await });
        turns(3).await;
        awaiter.cancel();
        assert!(awaiter.await.unwrap_err().is_cancelled());
        turns(2).await;
        assert_eq!(drops.count(), 1, "while the only thread is busy with another");
        drop(go);
        first.await.unwrap();
    });
}

#[test]
fn b1_the_end_of_the_loop_waits_for_what_runs() {
    let mut event_loop = with(2, 8);
    let (ended, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let drops = Drops::new();
    event_loop.block_on(async {
        // One waits for a task of the loop, whose end is what frees it; one takes its time.
        let (hold, held) = mpsc::channel::<()>();
        drop(spawn(async move {
            let _hold = hold;
            std::future::pending::<()>().await;
        }));
        let (say, said) = mpsc::channel();
        let (begun, count) = (say.clone(), ended.clone());
        drop(spawn_blocking(move || {
            begun.send(()).unwrap();
            assert!(held.recv().is_err());
            count.fetch_add(1, Ordering::SeqCst);
        }));
        let count = ended.clone();
        drop(spawn_blocking(move || {
            say.send(()).unwrap();
            std::thread::sleep(50 * MS);
            count.fetch_add(1, Ordering::SeqCst);
        }));
        for _ in 0..2 {
            assert!(settled(SOON, || said.try_recv().is_ok()).await);
        }
        // A slow destructor: time enough for the thread that the first task's end frees, to begin more.
        let slow = SlowDrop;
        drop(spawn(async move {
            let _slow = slow;
            std::future::pending::<()>().await;
        }));
        for _ in 0..5 {
            let (guard, ran) = (drops.guard(), ran.clone());
            drop(spawn_blocking(move || {
                let _guard = guard;
                ran.fetch_add(1, Ordering::SeqCst);
            }));
        }
        turns(2).await;
    });
    let report = event_loop.close(SOON);
    assert_eq!(report.blocking_left, 0);
    assert_eq!(ended.load(Ordering::SeqCst), 2, "they have ended when the close returns");
    assert_eq!(drops.count(), 5, "what was not begun is dropped");
    assert_eq!(ran.load(Ordering::SeqCst), 0, "unrun");
}

struct SlowDrop;

impl Drop for SlowDrop {
    fn drop(&mut self) {
        std::thread::sleep(30 * MS);
    }
}

#[test]
fn b1_the_end_of_the_loop_does_not_wait_for_idle_threads() {
    let mut event_loop = with(4, 8);
    event_loop.block_on(async {
        let work: Vec<_> = (0..8).map(|i| spawn_blocking(move || i)).collect();
        for work in work {
            work.await.unwrap();
        }
    });
    let began = Instant::now();
    assert_eq!(event_loop.close(2 * SOON).blocking_left, 0);
    assert!(began.elapsed() < SOON, "they would have stayed for longer");
}

#[test]
fn b1_what_outlives_the_grace_is_left_behind_and_counted() {
    let (dropped, mut event_loop) = (DroppedOn::default(), with(4, 8));
    let (gos, handles): (Vec<_>, Vec<_>) = event_loop
        .block_on(async {
            let mut running = Vec::new();
            for _ in 0..3 {
                let (closure, go, begun) = held_up();
                let value = dropped.guard();
                let work = spawn_blocking(move || {
                    closure();
                    value
                });
                assert!(settled(SOON, || begun.try_recv().is_ok()).await);
                running.push((go, work));
            }
            running
        })
        .into_iter()
        .unzip();
    let report = event_loop.close(5 * MS);
    assert_eq!((report.blocking_left, report.tasks_cancelled, report.ops_leaked), (3, 3, 0));
    assert!(handles.iter().all(|work| work.is_cancelled()));
    assert!(dropped.threads().is_empty(), "they run on");
    drop(gos);
    let until = Instant::now() + SOON;
    while dropped.threads().len() < 3 && Instant::now() < until {
        std::thread::sleep(MS);
    }
    assert_eq!(dropped.threads().len(), 3, "and end, with nobody to take their values");
    assert!(!dropped.threads().contains(&std::thread::current().id()));
}

#[test]
fn b1_a_dropped_loop_says_what_it_left_behind() {
    const CHILD: &str = "CORELOOP_TEST_LEFT_BEHIND";
    if std::env::var_os(CHILD).is_some() {
        let (mut event_loop, (closure, go, begun)) = (with(1, 8), held_up());
        event_loop.block_on(async {
            drop(spawn_blocking(closure));
            assert!(settled(SOON, || begun.try_recv().is_ok()).await);
        });
        drop(event_loop);
        return drop(go);
    }
    let name = "b1_a_dropped_loop_says_what_it_left_behind";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let said = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("1 closures of spawn_blocking still run (grace 200 ms)"), "{text}");
}

#[test]
fn b1_threads_and_descriptors_are_back_to_what_they_were() {
    in_child("b1_threads_and_descriptors_are_back_to_what_they_were", || {
        let before = (threads(), fd_count());
        for round in 0..20 {
            let mut event_loop = with(8, 4);
            let during = event_loop.block_on(async {
                let (go, may_go) = until_dropped();
                let work: Vec<_> = (0..8).map(|_| spawn_blocking(may_go.clone())).collect();
                assert!(settled(SOON, || threads() == before.0 + 8).await);
                let during = threads();
                drop(go);
                for work in work {
                    work.await.unwrap();
                }
                during
            });
            assert_eq!(during, before.0 + 8, "one thread each in round {round}");
            drop(event_loop);
        }
        let open = fds_settle_at(before.1, SOON);
        assert_eq!((threads_settle_at(before.0), open), before);
        // A loop that has no blocking work starts no thread.
        coreloop::run(turns(3)).unwrap();
        assert_eq!(threads(), before.0);
    });
}

/// Closures that run until the first is dropped.
fn until_dropped() -> (mpsc::Sender<()>, impl FnOnce() + Clone + Send + 'static) {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Arc::new(Mutex::new(may_go));
    (go, move || _ = may_go.lock().unwrap().recv())
}

/// Has every further thread refused, for the calling thread alone.
fn refuse_threads() -> bool {
    [libc::SYS_clone3, libc::SYS_clone].into_iter().all(|n| block_syscall(n, libc::EAGAIN).is_ok())
}

#[test]
fn b1_a_thread_that_is_refused_is_one_less_and_no_hang() {
    in_child("b1_a_thread_that_is_refused_is_one_less_and_no_hang", || {
        let mut event_loop = with(4, 8);
        let blocked = event_loop.block_on(async {
            // One thread is there, and it is busy when further ones are refused.
            let (closure, go, begun) = held_up();
            let first = spawn_blocking(closure);
            assert!(settled(SOON, || begun.try_recv().is_ok()).await);
            if !refuse_threads() {
                return false;
            }
            let work: Vec<_> = (0..20).map(|i| spawn_blocking(move || i)).collect();
            turns(5).await;
            drop(go);
            first.await.unwrap();
            for (i, work) in work.into_iter().enumerate() {
                assert_eq!(work.await.unwrap(), i, "the one thread does it all");
            }
            true
        });
        if !blocked {
            skip!("no seccomp filters here");
        }
        drop(event_loop);
        // None is there, and none can be started: an error each, and the loop goes on.
        coreloop::run(async {
            let drops = Drops::new();
            for _ in 0..3 {
                let guard = drops.guard();
                let e = spawn_blocking(move || drop(guard)).await.unwrap_err();
                let text = e.panic_message().unwrap();
                assert!(text.contains("no thread could be started for blocking work"), "{text}");
            }
            assert_eq!(drops.count(), 3);
            // What it held is dropped while that panic unwinds: its own one must not meet it.
            struct Bomb;
            impl Drop for Bomb {
                fn drop(&mut self) {
                    panic!("a destructor");
                }
            }
            let bomb = Bomb;
            assert!(spawn_blocking(move || drop(bomb)).await.is_err());
            assert_eq!(spawn(async { 1 }).await.unwrap(), 1);
        })
        .unwrap();
    });
}
