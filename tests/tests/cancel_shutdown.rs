//! The end of a loop: destructors run, descriptors come back, and what outlives it answers with an error.

use std::cell::RefCell;
use std::io::{Read as _, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coreloop::op::{Nop, Read, Submitter, submit};
use coreloop::time::sleep;
use coreloop::{Cores, EventLoop, PostError, RunError, Runtime, Settings, cross};
use coreloop_net::TcpListener;
use coreloop_tests::drive::Drops;
use coreloop_tests::trials::median_of;
use coreloop_tests::{
    Child, assert_memory_grew_less, fd_count, fds_settle_at, figure, in_child, net, rss_bytes,
    turns,
};

const SOON: Duration = Duration::from_secs(5);

/// A task parked on a receive, one on an accept, one on a pipe, one on a timer; each with a drop guard.
async fn park_four(drops: &Drops, held: &Rc<RefCell<Vec<OwnedFd>>>) {
    let (mut stream, peer) = net::pair();
    let guard = drops.guard();
    drop(coreloop::spawn(async move {
        let _guard = guard;
        drop(stream.recv().await);
        unreachable!("the peer is silent");
    }));
    let guard = drops.guard();
    drop(coreloop::spawn(async move {
        let _guard = guard;
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        drop(listener.accept().await);
        unreachable!("nobody connects");
    }));
    let guard = drops.guard();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(coreloop::spawn(async move {
        let _guard = guard;
        drop(submit(Read::new(OwnedFd::from(reader), Vec::with_capacity(64))).await);
        unreachable!("nobody writes");
    }));
    let guard = drops.guard();
    drop(coreloop::spawn(async move {
        let _guard = guard;
        sleep(Duration::MAX).await;
    }));
    held.borrow_mut().push(OwnedFd::from(peer));
    held.borrow_mut().push(OwnedFd::from(writer));
    turns(3).await;
}

#[test]
fn cancel_shutdown_50_loops_with_4_parked_tasks_each() {
    in_child("cancel_shutdown_50_loops_with_4_parked_tasks_each", || {
        let before = fd_count();
        let drops = Drops::new();
        for round in 0..50 {
            let held = Rc::new(RefCell::new(Vec::new()));
            let mut event_loop = EventLoop::new().unwrap();
            event_loop.block_on(park_four(&drops, &held));
            // Half of them by close, half by drop.
            if round % 2 == 0 {
                let report = event_loop.close(SOON);
                assert_eq!((report.tasks_cancelled, report.ops_leaked), (4, 0), "loop {round}");
            } else {
                drop(event_loop);
            }
            assert_eq!(drops.count(), 4 * (round + 1), "destructors have run by then");
            held.borrow_mut().clear();
            assert_eq!(fds_settle_at(before, SOON), before, "descriptors after loop {round}");
        }
    });
}

#[test]
fn cancel_shutdown_50_runtimes_with_4_parked_tasks_on_each_core() {
    in_child("cancel_shutdown_50_runtimes_with_4_parked_tasks_on_each_core", || {
        let before = fd_count();
        let drops = Drops::new();
        let (mut cores, mut parked) = (0, 0);
        for round in 0..50 {
            let on_core = drops.clone();
            let runtime = Runtime::builder().cores(Cores::All).build().unwrap();
            let runtime_cores = runtime.cpus().len();
            cores += runtime_cores;
            let ended = runtime.run(move |core| {
                let drops = on_core.clone();
                async move {
                    let held = Rc::new(RefCell::new(Vec::new()));
                    park_four(&drops, &held).await;
                    if round % 2 == 1 {
                        core.handle().stop();
                        std::future::pending::<()>().await;
                    }
                }
            });
            match ended {
                Ok(_) => assert_eq!(round % 2, 0),
                Err(RunError::Stopped) => assert_eq!(round % 2, 1),
                Err(e) => panic!("{e}"),
            }
            // A core that was stopped before it had parked all four made fewer.
            assert_eq!(drops.count(), drops.made(), "destructors have run by then, round {round}");
            parked += if round % 2 == 0 { 4 * runtime_cores } else { 0 };
            assert_eq!(fds_settle_at(before, SOON), before, "descriptors after runtime {round}");
        }
        figure!("{} destructors on {cores} cores", drops.count());
        assert!(drops.made() >= parked, "{} of {parked} parked at the least", drops.made());
    });
}

/// More than it may grow by over 1,000 of anything: a leak of 4 KiB each would be 4 MiB.
const GROWN_MAX: u64 = 2 << 20;

/// What resident memory grows by over 1,000 of them; no descriptor is left.
fn grown_over_1000(what: &str, cycle: impl Fn()) -> u64 {
    let fds = fd_count();
    for _ in 0..100 {
        cycle();
    }
    let rss = rss_bytes();
    let began = Instant::now();
    for _ in 0..1000 {
        cycle();
    }
    let grown = rss_bytes().saturating_sub(rss);
    figure!("1,000 {what} in {:?}; resident memory grew by {grown} bytes", began.elapsed());
    assert_eq!(fds_settle_at(fds, SOON), fds);
    grown
}

/// Two cores each, which call each other, send, echo, block, and end with a task that waits.
#[test]
fn cancel_shutdown_1000_runtimes_one_after_the_other() {
    const NAME: &str = "cancel_shutdown_1000_runtimes_one_after_the_other";
    Child::new(NAME).limit(Duration::from_secs(500)).run(|| {
        let cpus = Cores::All.resolve().unwrap();
        let mut ends = vec![cpus[0], cpus[cpus.len() - 1]];
        ends.dedup();
        let cycle = || {
            let runtime = Runtime::builder().cores(Cores::These(ends.clone())).build().unwrap();
            let answers = runtime.run(|core| async move {
                let other = (core.index() + 1) % core.count();
                let asked = core.handle().spawn_on_when_room(other, || async { 7 }).await;
                // The other one may have ended by now.
                let answer = match asked {
                    Ok(asked) => asked.await.unwrap_or(7),
                    Err(_) => 7,
                };
                drop(coreloop::spawn(std::future::pending::<()>()));
                let (mut tx, mut rx) = cross::channel(4);
                tx.send(answer).await.unwrap();
                assert_eq!(net::echoes(1, 3).await.unwrap(), 3);
                assert_eq!(coreloop::spawn_blocking(|| 1).await.unwrap(), 1);
                rx.recv().await
            });
            assert!(answers.unwrap().iter().all(|answer| *answer == Some(7)));
        };
        let grown = grown_over_1000("runtimes", cycle);
        assert_memory_grew_less!(grown, GROWN_MAX, " over 1,000 runtimes");
    });
}

#[test]
fn cancel_shutdown_1000_loops_one_after_the_other() {
    in_child("cancel_shutdown_1000_loops_one_after_the_other", || {
        let cycle = || {
            let sum = coreloop::run(async {
                let (mut ours, mut theirs) = net::pair();
                let tasks: Vec<_> = (0..20u64).map(|i| coreloop::spawn(async move { i })).collect();
                drop(coreloop::spawn(std::future::pending::<()>()));
                theirs.write_all(b"ping").unwrap();
                let mut sum = ours.recv().await.unwrap().unwrap().len() as u64;
                for task in tasks {
                    sum += task.await.unwrap();
                }
                sleep(Duration::from_micros(10)).await;
                sum
            });
            assert_eq!(sum.unwrap(), 194);
        };
        let grown = grown_over_1000("loops", cycle);
        assert_memory_grew_less!(grown, GROWN_MAX, " over 1,000 loops");
    });
}

#[test]
fn cancel_shutdown_sockets_that_outlive_their_loop_answer_with_an_error() {
    in_child("cancel_shutdown_sockets_that_outlive_their_loop_answer_with_an_error", || {
        let before = fd_count();
        let mut first = EventLoop::new().unwrap();
        let (mut stream, mut peer, mut listener, submitter, chunk) = first.block_on(async {
            let (mut stream, mut peer) = net::pair();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            peer.write_all(b"chunk").unwrap();
            let chunk = stream.recv().await.unwrap().unwrap();
            (stream, peer, listener, Submitter::current(), chunk)
        });
        drop(first);
        assert_eq!(&*chunk, b"chunk", "a chunk stays good after its loop is gone");
        coreloop::run(async {
            peer.write_all(b"late").unwrap();
            let cancelled = Some(libc::ECANCELED);
            assert_eq!(stream.recv().await.unwrap_err().raw_os_error(), cancelled);
            let read = stream.read(Vec::with_capacity(8)).await.unwrap_err();
            assert_eq!(read.error().raw_os_error(), cancelled);
            assert_eq!(read.into_buf().capacity(), 8, "the buffer comes back");
            let write = stream.write_all("x").await.unwrap_err();
            assert_eq!(write.error().raw_os_error(), cancelled);
            assert_eq!(listener.accept().await.unwrap_err().raw_os_error(), cancelled);
            assert!(submitter.is_closed());
            assert!(submitter.start(Nop).is_err());
        })
        .unwrap();
        drop((stream, peer, listener, submitter, chunk));
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}

#[test]
fn cancel_shutdown_ops_held_over_the_end_are_answered() {
    in_child("cancel_shutdown_ops_held_over_the_end_are_answered", || {
        let before = fd_count();
        let mut first = EventLoop::new().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut read = Box::pin(submit(Read::new(OwnedFd::from(reader), Vec::with_capacity(8))));
        first.block_on(async {
            assert!(coreloop_tests::poll_once(read.as_mut()).await.is_pending());
            turns(2).await;
        });
        drop(first);
        // Its loop cancelled it and awaited it: the end is there to be taken, on any loop.
        let end = coreloop::run(read).unwrap();
        assert_eq!(end.unwrap_err().error().raw_os_error(), Some(libc::ECANCELED));
        drop(writer);
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}

#[test]
fn cancel_shutdown_handles_say_that_the_core_has_gone() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let task = event_loop.spawn(std::future::pending::<()>());
    drop(event_loop);
    assert_eq!(handle.call_soon_threadsafe(0, || ()), Err(PostError::CoreGone));
    assert!(handle.spawn_on(0, || async { 1 }).is_err());
    assert!(task.is_finished());
    let end = coreloop::run(task).unwrap();
    assert!(end.unwrap_err().is_cancelled());
}

#[test]
fn cancel_shutdown_posted_closures_run_or_are_dropped() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let (drops, runs) = (Drops::new(), Arc::new(AtomicUsize::new(0)));
    let mut taken = 0;
    for _ in 0..2000 {
        let (guard, runs) = (drops.guard(), runs.clone());
        let job = move || {
            let _guard = guard;
            runs.fetch_add(1, Ordering::Relaxed);
        };
        taken += usize::from(handle.call_soon_threadsafe(0, job).is_ok());
    }
    let remote = handle.spawn_on(0, || async { 5 });
    assert_eq!(remote.err(), Some(PostError::Full), "the queue is bounded");
    assert_eq!(taken, 1024);
    drop(event_loop);
    assert_eq!((drops.count(), runs.load(Ordering::Relaxed)), (2000, 0), "none runs, none leaks");
}

#[test]
fn cancel_shutdown_what_a_remote_task_gave_in_the_last_turn_is_handed_over() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let last = |ends: fn() -> u8| {
        handle.spawn_on(0, move || async move {
            coreloop::yield_now().await;
            ends()
        })
    };
    let gives = last(|| 7).unwrap();
    let panics = last(|| panic!("at the end")).unwrap();
    // In the first it begins, in the second it ends; a third would tell whoever waits.
    event_loop.turn(Some(Duration::ZERO));
    event_loop.turn(Some(Duration::ZERO));
    assert!(!gives.is_finished() && !panics.is_finished());
    drop(event_loop);
    assert_eq!(gives.join(), Ok(7));
    assert_eq!(panics.join(), Err(coreloop::RemoteError::Panicked("at the end".to_owned())));
}

#[test]
fn cancel_shutdown_a_remote_task_of_a_dying_core_is_answered() {
    let (tell, told) = std::sync::mpsc::channel();
    let core = std::thread::spawn(move || {
        let mut event_loop = EventLoop::new().unwrap();
        tell.send(event_loop.handle()).unwrap();
        event_loop.block_on(sleep(Duration::from_millis(50)));
    });
    let handle = told.recv().unwrap();
    let never = handle.spawn_on(0, std::future::pending::<()>).unwrap();
    let began = Instant::now();
    assert_eq!(never.join(), Err(coreloop::RemoteError::Gone));
    assert!(began.elapsed() < SOON);
    core.join().unwrap();
}

#[test]
fn cancel_shutdown_panic_in_a_cross_core_closure_is_the_senders() {
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let core = std::thread::spawn(move || {
        let mut event_loop = EventLoop::new().unwrap();
        tell.send(event_loop.handle()).unwrap();
        while stopped.try_recv().is_err() {
            event_loop.turn(Some(Duration::from_millis(5)));
        }
    });
    let handle = told.recv().unwrap();
    let e = handle.spawn_on(0, || async { panic!("boom in the task") }).unwrap().join();
    assert_eq!(e, Err::<(), _>(coreloop::RemoteError::Panicked("boom in the task".into())));
    // Within 10 ms. Without the panic hook, which takes a multiple of that to name the frames.
    let all = median_of(21, Duration::from_millis(10), SOON, || {
        let began = Instant::now();
        let remote = handle.spawn_on(0, || -> std::future::Ready<()> {
            std::panic::resume_unwind(Box::new("boom in the closure"))
        });
        let e = remote.unwrap().join();
        assert_eq!(e, Err(coreloop::RemoteError::Panicked("boom in the closure".into())));
        began.elapsed()
    });
    figure!("the sender had the error after {:?}, at worst {:?}", all[10], all[20]);
    // An ordinary panic while the future is made reaches its sender too.
    let made = handle.spawn_on(0, || {
        assert!(std::hint::black_box(false), "boom in the closure");
        async { 1 }
    });
    assert!(made.unwrap().join().is_err());
    assert_eq!(handle.spawn_on(0, || async { 9 }).unwrap().join(), Ok(9), "the core goes on");
    stop.send(()).unwrap();
    core.join().unwrap();
}

#[test]
fn cancel_shutdown_a_task_that_spawns_as_it_is_dropped() {
    struct Spawner(Drops, u32);
    impl Drop for Spawner {
        fn drop(&mut self) {
            drop(self.0.guard());
            if self.1 > 0 {
                let next = Spawner(self.0.clone(), self.1 - 1);
                drop(coreloop::spawn(async move {
                    let _next = next;
                    std::future::pending::<()>().await;
                }));
            }
        }
    }
    let drops = Drops::new();
    let mut event_loop = EventLoop::with(Settings::default()).unwrap();
    let first = Spawner(drops.clone(), 20);
    drop(event_loop.spawn(async move {
        let _first = first;
        std::future::pending::<()>().await;
    }));
    event_loop.turn(Some(Duration::ZERO));
    drop(event_loop);
    assert_eq!(drops.count(), 21, "each was dropped though its loop was closing");
}

#[test]
fn cancel_shutdown_a_panicking_main_future_still_cleans_up() {
    in_child("cancel_shutdown_a_panicking_main_future_still_cleans_up", || {
        let before = fd_count();
        let drops = Drops::new();
        let held = Rc::new(RefCell::new(Vec::new()));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            coreloop::run(async {
                park_four(&drops, &held).await;
                panic!("main");
            })
        }));
        assert!(caught.is_err());
        assert_eq!(drops.count(), 4);
        held.borrow_mut().clear();
        assert_eq!(fds_settle_at(before, SOON), before);
        assert!(std::io::empty().read(&mut [0]).is_ok());
    });
}
