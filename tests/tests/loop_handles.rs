//! Loops by hand and by name (L1 to L4): one call or many, never one within another, and which loop runs.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use coreloop::time::sleep;
use coreloop::{
    Cores, EventLoop, Handle, PostError, RemoteError, Runtime, spawn, try_spawn, yield_now,
};
use coreloop_tests::drive::Drops;

const MS: Duration = Duration::from_millis(1);

/// The message that `f` panics with.
fn message_of<R>(f: impl FnOnce() -> R) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else { panic!("it was not refused") };
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().unwrap()).to_owned(),
    }
}

#[test]
fn l1_run_gives_the_value_and_leaves_nothing_running() {
    let drops = Drops::new();
    let (waiting, unpolled) = (drops.guard(), drops.guard());
    let value = coreloop::run(async move {
        drop(spawn(async move {
            let _held = waiting;
            std::future::pending::<()>().await;
        }));
        yield_now().await;
        drop(spawn(async move { drop(unpolled) }));
        7
    });
    assert_eq!(value.unwrap(), 7);
    assert_eq!(drops.count(), 2, "destructors have run before the call returns");
}

#[test]
fn l2_a_nested_run_or_block_on_is_refused_and_the_outer_loop_goes_on() {
    let mut other = EventLoop::new().unwrap();
    let unfinished = other.spawn(async { 5 });
    let ran = Rc::new(Cell::new(false));
    let set = ran.clone();
    let outer = coreloop::run(async move {
        let beside = spawn(async {
            sleep(5 * MS).await;
            9
        });
        let of_run = message_of(|| coreloop::run(async { set.set(true) }));
        let of_block_on = message_of(|| other.block_on(async { 1 }));
        let of_turn = message_of(|| other.turn(None));
        assert!(message_of(|| coreloop::__macros::main(async {})).contains("already running"));
        for text in [&of_run, &of_block_on, &of_turn] {
            assert!(text.contains("a loop is already running on this thread"), "{text}");
        }
        assert!(of_run.contains("await the future"), "it says what to do instead: {of_run}");
        (other, beside.await.unwrap())
    });
    let (mut other, nine) = outer.unwrap();
    assert_eq!(nine, 9, "the outer loop went on");
    assert!(!ran.get(), "nothing of the inner one ran");
    assert_eq!(other.block_on(unfinished).unwrap(), 5, "and the other loop is good");
}

#[test]
fn l2_a_nested_run_in_a_task_is_that_tasks_panic() {
    let caught = coreloop::run(async {
        let task = spawn(async { coreloop::run(async {}) });
        let e = task.await.unwrap_err();
        assert_eq!(spawn(async { 3 }).await.unwrap(), 3);
        e.panic_message().map(str::to_owned)
    });
    assert!(caught.unwrap().unwrap().contains("already running"));
}

#[test]
fn l3_what_one_drive_leaves_unfinished_goes_on_in_the_next() {
    let mut event_loop = EventLoop::new().unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (say, said) = event_loop.block_on(async { coreloop::sync::oneshot::channel::<u32>() });
    let log = seen.clone();
    let task = event_loop.spawn(async move {
        log.borrow_mut().push("began");
        let number = said.await.unwrap();
        log.borrow_mut().push("told");
        number * 2
    });
    event_loop.block_on(yield_now());
    event_loop.block_on(yield_now());
    assert_eq!(*seen.borrow(), ["began"], "it runs while anything is driven");
    assert!(!task.is_finished());
    event_loop.block_on(async { say.send(21).unwrap() });
    assert_eq!(event_loop.block_on(task).unwrap(), 42);
    assert_eq!(*seen.borrow(), ["began", "told"]);
    let report = event_loop.close(Duration::from_secs(5));
    assert_eq!((report.tasks_cancelled, report.ops_leaked, report.blocking_left), (0, 0, 0));
}

/// After a close there is no loop to be misused, since `close` takes it (its documentation holds the example
/// that must not compile). What is left of it answers with an error.
#[test]
fn l3_after_close_its_handles_answer_with_errors() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let unfinished = event_loop.spawn(std::future::pending::<()>());
    let remote = handle.spawn_on(0, std::future::pending::<()>).unwrap();
    event_loop.block_on(yield_now());
    let report = event_loop.close(Duration::from_secs(5));
    assert!(report.tasks_cancelled >= 2, "{report:?}");
    assert_eq!(handle.call_soon_threadsafe(0, || ()), Err(PostError::CoreGone));
    assert_eq!(handle.spawn_on(0, || async {}).err(), Some(PostError::CoreGone));
    assert_eq!(PostError::CoreGone.to_string(), "the core has ended");
    assert_eq!(remote.join(), Err(RemoteError::Gone));
    assert!(coreloop::run(unfinished).unwrap().unwrap_err().is_cancelled());
}

#[test]
fn l4_the_running_loop_is_an_error_value_outside_one() {
    let e = Handle::try_current().unwrap_err();
    let text = e.to_string();
    assert!(
        text.contains("no loop runs on this thread") && text.contains("coreloop::run"),
        "{text}"
    );
    assert_eq!(format!("{e:?}"), text, "an unwrap says it too");
    assert_eq!(Handle::current_core().unwrap_err(), e);
    let text = message_of(Handle::current);
    assert!(text.contains("`Handle::current` needs a running loop"), "{text}");
    // A loop that is there and does not run is not the running one.
    let event_loop = EventLoop::new().unwrap();
    assert!(Handle::try_current().is_err());
    drop(event_loop);
    std::thread::spawn(|| assert!(Handle::try_current().is_err())).join().unwrap();
}

#[test]
fn l4_the_running_loop_can_be_asked_for_anywhere_in_it() {
    struct AtDrop(mpsc::Sender<bool>);
    impl Drop for AtDrop {
        fn drop(&mut self) {
            self.0.send(Handle::try_current().is_ok()).unwrap();
        }
    }
    let (tell, told) = mpsc::channel();
    let mut event_loop = EventLoop::new().unwrap();
    let posted = tell.clone();
    let handle = event_loop.block_on(async move {
        let handle = Handle::current();
        assert_eq!((handle.cores(), Handle::current_core()), (1, Ok(0)));
        let ask = move || posted.send(Handle::try_current().is_ok()).unwrap();
        handle.call_soon_threadsafe(0, ask).unwrap();
        let at_drop = AtDrop(tell);
        spawn(async move { drop(at_drop) }).await.unwrap();
        spawn(async { Handle::current() }).await.unwrap()
    });
    assert!(Handle::try_current().is_err(), "and not after it");
    let remote = handle.spawn_on(0, || async { 4 }).unwrap();
    assert_eq!(event_loop.block_on(remote), Ok(4), "it is this loop's");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [true, true]);
}

#[test]
fn l4_on_a_core_of_several_the_handle_names_them_all() {
    let cpu = Cores::All.resolve().unwrap()[0];
    let runtime = Runtime::builder().cores(Cores::These(vec![cpu; 3])).build().unwrap();
    let counted = Arc::new(AtomicUsize::new(0));
    let ended = runtime.run(move |core| {
        let counted = counted.clone();
        async move {
            let handle = Handle::current();
            assert_eq!((handle.cores(), Handle::current_core()), (3, Ok(core.index())));
            let next = (core.index() + 1) % 3;
            let there = handle.spawn_on(next, || async { Handle::current_core() }).unwrap();
            assert_eq!(there.await, Ok(Ok(next)));
            // The last one ends them all, by the handle that it asked for.
            if counted.fetch_add(1, Ordering::SeqCst) == 2 {
                handle.stop();
            }
            std::future::pending::<()>().await;
        }
    });
    assert!(matches!(ended, Err(coreloop::RunError::Stopped)), "{ended:?}");
}

#[test]
fn l4_spawns_outside_a_loop_are_refused_with_a_message() {
    for text in
        [message_of(|| spawn(async {})), message_of(|| coreloop::spawn_named("x", async {}))]
    {
        assert!(text.contains("a spawn needs a running loop"), "{text}");
        assert!(text.contains("EventLoop::block_on"), "it says where to call it: {text}");
    }
    let text = message_of(|| coreloop::spawn_blocking(|| 1));
    assert!(text.contains("`spawn_blocking` needs a running loop"), "{text}");
    assert_eq!(coreloop::try_spawn_blocking(|| 1).unwrap_err()(), 1, "the closure comes back");
    let future = try_spawn(async { 1 }).unwrap_err();
    assert_eq!(coreloop::run(future).unwrap(), 1, "the future comes back");
}
