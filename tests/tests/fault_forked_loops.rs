//! A forked child may make a loop of its own, whatever its parent's threads were at when it was forked.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use coreloop::time::{sleep, timeout};
use coreloop::{
    CoreState, Cores, EventLoop, Handle, PostError, Runtime, Settings, spawn, spawn_blocking,
};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::forked::{Ended, fork};
use coreloop_tests::in_child;

const LIMIT: Duration = Duration::from_secs(20);

/// Something of all that a loop is for.
async fn a_bit_of_everything() {
    let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let served = spawn(async move {
        let mut stream = listener.accept().await.unwrap();
        stream.write_all(b"well").await.unwrap();
    });
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let (read, bytes) = stream.read_exact(vec![0; 4]).await.unwrap();
    assert_eq!((read, &bytes[..]), (4, &b"well"[..]));
    served.await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(spawn_blocking(|| 6 * 7).await.unwrap(), 42);
}

async fn in_time(work: impl Future<Output = ()>) -> i32 {
    if timeout(LIMIT, work).await.is_ok() { 7 } else { 1 }
}

fn settings() -> Settings {
    Settings::default().stall_threshold(Duration::from_millis(50)).on_stall(|_| ())
}

#[test]
fn fault_fork_while_threads_make_and_close_loops_leaves_the_child_able_to_do_so() {
    in_child(
        "fault_fork_while_threads_make_and_close_loops_leaves_the_child_able_to_do_so",
        || {
            let (ended, made) = (AtomicBool::new(false), AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !ended.load(Ordering::Relaxed) {
                            let mut event_loop = EventLoop::with(settings()).unwrap();
                            event_loop.block_on(a_bit_of_everything());
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                let children = (0..60).map(|n| {
                    let mut child = fork(|| {
                        if n % 2 == 0 {
                            let mut event_loop = EventLoop::with(settings()).unwrap();
                            return event_loop.block_on(in_time(a_bit_of_everything()));
                        }
                        let cores = Cores::These(vec![coreloop::placement::allowed_cpus()[0]; 2]);
                        let runtime = Runtime::builder().cores(cores).settings(settings()).build();
                        let ends = runtime.unwrap().run(|_core| in_time(a_bit_of_everything()));
                        ends.unwrap().into_iter().max().unwrap()
                    });
                    child.wait()
                });
                let children: Vec<_> = children.collect();
                ended.store(true, Ordering::Relaxed);
                assert!(children.iter().all(|child| *child == Ended::Exit(7)), "{children:?}");
            });
            assert!(made.into_inner() > 20, "little was going on meanwhile");
        },
    );
}

/// The threads of its parent's cores are not in it.
#[test]
fn fault_forked_child_is_told_that_its_parents_cores_are_gone() {
    in_child("fault_forked_child_is_told_that_its_parents_cores_are_gone", || {
        let (tell, told) = mpsc::channel();
        let runtime = Runtime::builder().cores(Cores::Count(1)).build().unwrap();
        let cores = thread::spawn(move || {
            runtime.run(move |_core| {
                let tell = tell.clone();
                async move {
                    tell.send(Handle::current()).unwrap();
                    std::future::pending::<()>().await;
                }
            })
        });
        let handle = told.recv().unwrap();
        let of_before = handle.spawn_on(0, async || 6).unwrap();
        let mut child = fork(|| {
            let gone = |posted| posted == Err(PostError::CoreGone);
            let mut event_loop = EventLoop::with(settings()).unwrap();
            let own = event_loop.handle();
            let answers = [
                gone(handle.call_soon_threadsafe(0, || ())),
                gone(handle.spawn_on(0, async || ()).map(drop)),
                handle.all_stats_blocking(LIMIT)[0].state == CoreState::Closing,
                event_loop.block_on(async {
                    let waits = handle.spawn_on_when_room(0, async || ());
                    let asks = handle.stats(0);
                    gone(waits.await.map(drop)) & gone(asks.await.map(drop))
                }),
                own.call_soon_threadsafe(0, || ()).is_ok(),
            ];
            if answers == [true; 5] { 7 } else { 1 }
        });
        assert_eq!(child.wait(), Ended::Exit(7));
        assert_eq!(of_before.join().unwrap(), 6);
        assert_eq!(handle.spawn_on(0, async || 7).unwrap().join().unwrap(), 7);
        handle.stop();
        assert!(cores.join().unwrap().is_err(), "its core's future was cancelled");
    });
}
