//! Tasks can be named, asked for and listed, each with what it waits for (T10).

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use coreloop::cancel::Token;
use coreloop::combine::{self, as_completed, race};
use coreloop::op::Submitter;
use coreloop::shutdown::Graceful;
use coreloop::sync::{self, Event, Mutex, Queue, Semaphore};
use coreloop::task::{TaskInfo, TaskState, WaitsFor, current_id, current_name};
use coreloop::time::{sleep, timeout};
use coreloop::{all_tasks, spawn, spawn_named};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::net::pair;
use coreloop_tests::{poll_once, turns};

const HOUR: Duration = Duration::from_secs(3600);

fn named(name: &str) -> TaskInfo {
    let mut found: Vec<_> =
        all_tasks().into_iter().filter(|t| t.name.as_deref() == Some(name)).collect();
    assert_eq!(found.len(), 1, "{name}");
    found.remove(0)
}

#[test]
fn t10_a_task_has_a_name_an_id_and_a_place() {
    coreloop::run(async {
        let line = line!() + 1;
        let task = spawn_named("worker", async { (current_id(), current_name()) });
        assert_eq!(task.name().as_deref(), Some("worker"));
        let info = named("worker");
        assert_eq!(info.id, task.id());
        let at = info.spawned_at.unwrap();
        assert!(at.file().ends_with("task_info.rs") && at.line() == line, "{at}");
        let id = task.id();
        let (inner_id, inner_name) = task.await.unwrap();
        assert_eq!((inner_id, inner_name.as_deref()), (Some(id), Some("worker")));
        assert!(all_tasks().iter().all(|t| t.name.is_none()), "what has ended is not listed");
    })
    .unwrap();
    assert!(all_tasks().is_empty() && current_id().is_none(), "outside a loop");
}

#[test]
fn t10_the_list_has_each_task_once_with_its_state() {
    coreloop::run(async {
        let tasks: Vec<_> = (0..100).map(|_| spawn(std::future::pending::<()>())).collect();
        let ready = all_tasks();
        assert_eq!(ready.len(), 101, "the main future too");
        assert_eq!((ready[0].state, ready[0].spawned_at), (TaskState::Running, None));
        assert!(ready[1..].iter().all(|t| t.state == TaskState::Ready));
        turns(1).await;
        let waiting = all_tasks();
        assert!(
            waiting[1..].iter().all(|t| t.state == TaskState::Waiting && t.waits_for.is_empty())
        );
        tasks.iter().take(30).for_each(|t| assert!(t.cancel()));
        turns(1).await;
        assert_eq!(all_tasks().len(), 71);
        let of_itself =
            spawn(async { all_tasks().into_iter().find(|t| Some(t.id) == current_id()) });
        assert_eq!(of_itself.await.unwrap().unwrap().state, TaskState::Running);
    })
    .unwrap();
}

#[test]
fn t10_each_says_what_it_waits_for() {
    coreloop::run(async {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let client = spawn(TcpStream::connect(addr));
        let mut server = listener.accept().await.unwrap();
        let _client = client.await.unwrap().unwrap();
        let _reads = spawn_named("reads", async move { drop(server.recv().await) });
        let _accepts = spawn_named("accepts", async move { drop(listener.accept().await) });
        let sleeps = spawn_named("sleeps", sleep(HOUR));
        let target = sleeps.id();
        let _joins = spawn_named("joins", async move { drop(sleeps.await) });
        let _either = spawn_named("either", race(sleep(HOUR), sleep(2 * HOUR)));
        turns(3).await;
        let recv = named("reads").waits_for;
        assert!(matches!(recv[..], [WaitsFor::Op { name: "recv", fd: Some(3..) }]), "{recv:?}");
        assert!(recv[0].to_string().starts_with("recv on descriptor "));
        assert_eq!(named("accepts").waits_for, [WaitsFor::Other("a connection")]);
        let timer = named("sleeps").waits_for;
        assert!(matches!(timer[..], [WaitsFor::Timer { left }] if left > HOUR / 2), "{timer:?}");
        assert_eq!(named("joins").waits_for, [WaitsFor::Task(target)]);
        assert_eq!(named("either").waits_for.len(), 2);
    })
    .unwrap();
}

/// What neither the ring nor the timers know of.
#[test]
fn t10_waits_for_locks_channels_and_sets_are_told_too() {
    coreloop::run(async {
        let mutex = Rc::new(Mutex::new(()));
        let held = mutex.clone();
        let _held = held.lock().await;
        let (sender, receiver) = sync::oneshot::channel::<u8>();
        let (_completer, future) = combine::future::<u8>();
        let (event, semaphore) = (Event::new(), Semaphore::new(0));
        let never = || spawn(std::future::pending::<()>());
        let _tasks = [
            spawn_named("a mutex", async move { drop(mutex.lock().await) }),
            spawn_named("a one-shot value", async move { _ = receiver.await }),
            spawn_named("a future to be completed", async move { _ = future.await }),
            spawn_named("an event", async move { event.wait().await }),
            spawn_named("permits of a semaphore", async move { drop(semaphore.acquire().await) }),
            spawn_named("its group", async {
                let group = combine::group(async |g| {
                    drop(g.spawn(std::future::pending::<Result<(), ()>>()));
                    Ok(())
                });
                drop(group.await);
            }),
            spawn_named("the end of one of several tasks", async move {
                drop(as_completed([never(), never()]).next().await);
            }),
            spawn_named("a cancel", async { Token::new().cancelled().await }),
            spawn_named("word of the shutdown", async { never_ends().begun().await }),
            spawn_named("a time that never comes", sleep(Duration::MAX)),
            spawn_named("an item of a queue or channel", async {
                // A limit that is none is not worth a word.
                let queue = Queue::<u8>::bounded(1);
                _ = timeout(Duration::MAX, queue.get()).await;
            }),
        ];
        turns(3).await;
        let listed = all_tasks();
        let mut told = 0;
        for task in listed.iter().filter(|task| task.name.is_some()) {
            let name = task.name.as_deref().unwrap();
            let waits: Vec<_> = task.waits_for.iter().map(WaitsFor::to_string).collect();
            assert_eq!(waits, [name]);
            told += 1;
        }
        assert_eq!(told, 11);
        // Sets and groups make their tasks where they were called, not in their own code.
        let here = |task: &&TaskInfo| task.spawned_at.is_none_or(|at| at.file() == file!());
        assert!(listed.iter().all(|task| here(&task)), "{listed:#?}");
        drop(sender);
    })
    .unwrap();
}

fn never_ends() -> Graceful {
    Graceful::new(HOUR)
}

/// What is waited for below a socket: the core's receive buffers, operations that were let go of.
#[test]
fn t10_waits_for_buffers_and_for_earlier_operations_are_told() {
    coreloop::run(async {
        let ((reads, _peer), (writes, _other)) = (pair(), pair());
        // Turns are given at the next look for completions, if there are buffers.
        let _tries_again = spawn_named("waits for a buffer", async {
            let mut turn = Submitter::current().wait_for_buffer();
            poll_fn(|cx| turn.poll(cx)).await;
        });
        turns(1).await;
        let wait = named("waits for a buffer").waits_for;
        assert_eq!(wait, [WaitsFor::Other("a receive buffer")]);
        let _tasks = [
            spawn_named("the end of an earlier operation on its descriptor", async move {
                let (mut reads, _half) = reads.split();
                let mut read = reads.read(vec![0; 64]);
                assert!(poll_once(Pin::new(&mut read)).await.is_pending());
                // Dropped it would be called off; this one goes on.
                std::mem::forget(read);
                drop(reads.read(vec![0; 64]).await);
            }),
            spawn_named("send on descriptor", async move {
                let mut writes = writes;
                drop(writes.write_all(vec![0; 64 << 20]).await);
            }),
        ];
        turns(5).await;
        let listed: Vec<_> = all_tasks().into_iter().filter(|task| task.name.is_some()).collect();
        assert_eq!(listed.len(), 2);
        for task in &listed {
            let waits: Vec<_> = task.waits_for.iter().map(WaitsFor::to_string).collect();
            let name = task.name.as_deref().unwrap();
            // The forgotten read is its task's still, and told beside.
            assert!(
                waits.first().is_some_and(|first| first.starts_with(name)),
                "{name}: {waits:?}"
            );
        }
    })
    .unwrap();
}

#[coreloop::test(sim)]
async fn t10_ages_are_those_of_the_loops_clock() {
    let _old = spawn_named("old", sleep(HOUR));
    sleep(Duration::from_secs(100)).await;
    let _young = spawn_named("young", sleep(HOUR));
    sleep(Duration::from_secs(10)).await;
    // To one unit of 17 ms at either end.
    let near =
        |age: Duration, s: u64| age.abs_diff(Duration::from_secs(s)) < Duration::from_millis(40);
    assert!(near(named("old").age, 110), "{:?}", named("old").age);
    assert!(near(named("young").age, 10), "{:?}", named("young").age);
}
