//! Tasks can be named, asked for and listed, each with what it waits for (T10).

use std::rc::Rc;
use std::time::Duration;

use coreloop::cancel::Token;
use coreloop::combine::{self, as_completed, race};
use coreloop::sync::{self, Event, Mutex, Semaphore};
use coreloop::task::{TaskInfo, TaskState, WaitsFor, current_id, current_name};
use coreloop::time::sleep;
use coreloop::{all_tasks, spawn, spawn_named};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::turns;

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
        assert_eq!(told, 8);
        // Sets and groups make their tasks where they were called, not in their own code.
        let here = |task: &&TaskInfo| task.spawned_at.is_none_or(|at| at.file() == file!());
        assert!(listed.iter().all(|task| here(&task)), "{listed:#?}");
        drop(sender);
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
