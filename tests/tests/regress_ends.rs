//! Ends that once went wrong: calls made while their loop closes, tasks that cancel themselves as they end,
//! second panics, and wakers of strangers whose destructors panic.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use coreloop::cancel::{self, How};
use coreloop::combine::{as_completed, future, gather_handles, group};
use coreloop::task::{Call, JoinHandle};
use coreloop::time::{Instant, sleep, sleep_until};
use coreloop::{EventLoop, call_at, call_later, spawn, spawn_named, yield_now};
use coreloop_tests::drive::{DropGuard, Drops, tens};
use coreloop_tests::{in_child, poll_once, turns};

/// Runs something when it is dropped.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A loop with a task that never ends, and whose destructor does this.
fn loop_whose_end_does(act: impl FnMut() + 'static) -> EventLoop {
    let mut event_loop = EventLoop::new().unwrap();
    let at_end = AtEnd(act);
    drop(event_loop.spawn(async move {
        let _at_end = at_end;
        pending::<()>().await;
    }));
    event_loop.turn(Some(Duration::ZERO));
    event_loop
}

/// Asks for a call, which drops the guard if it is made or not.
type Asks = fn(DropGuard, Rc<Cell<bool>>) -> Call;

const MILLISECOND: Duration = Duration::from_millis(1);

const WAYS: [(&str, Asks); 4] = [
    ("later", |guard, called| call_later(MILLISECOND, move || drop((guard, called.set(true))))),
    ("at", |guard, called| {
        call_at(Instant::now() + MILLISECOND, move || drop((guard, called.set(true))))
    }),
    ("at once", |guard, called| call_at(Instant::now(), move || drop((guard, called.set(true))))),
    ("never", |guard, called| call_at(Instant::NEVER, move || drop((guard, called.set(true))))),
];

/// Such a call waited for a timer outside the run queue, where the closing loop looks for what destructors
/// spawn: its function was never dropped.
#[test]
fn regress_close_ends_calls_that_destructors_ask_for() {
    for (way, asks) in WAYS {
        let (drops, called) = (Drops::new(), Rc::new(Cell::new(false)));
        let kept = Rc::new(RefCell::new(None));
        let (keep, inside, seen) = (kept.clone(), drops.clone(), called.clone());
        let event_loop = loop_whose_end_does(move || {
            drop(asks(inside.guard(), seen.clone()));
            keep.replace(Some(asks(inside.guard(), seen.clone())));
        });
        assert_eq!(event_loop.close(Duration::from_secs(5)).tasks_cancelled, 1, "{way}");
        assert_eq!((drops.made(), drops.count(), called.get()), (2, 2, false), "{way}");
        let call = kept.take().unwrap();
        assert!(call.is_finished() && call.is_cancelled() && !call.cancel(), "{way}");
        drop(call);
        assert_eq!(drops.count(), 2, "{way}: once each");
    }
}

/// The destructor of such a call's function asks for the next one.
#[test]
fn regress_close_ends_a_chain_of_calls() {
    fn ask(left: u32, drops: Drops) {
        let guard = drops.guard();
        let next = AtEnd(move || {
            if left > 1 {
                ask(left - 1, drops.clone());
            }
        });
        drop(call_later(MILLISECOND, move || drop((guard, next))));
    }
    let drops = Drops::new();
    let inside = drops.clone();
    drop(loop_whose_end_does(move || ask(1_000, inside.clone())));
    assert_eq!((drops.made(), drops.count()), (1_000, 1_000));
}

/// Ready at once, and cancels its own task when it is dropped.
struct CancelsItself {
    value: Option<DropGuard>,
    own: Rc<RefCell<Option<JoinHandle<DropGuard>>>>,
}

impl Future for CancelsItself {
    type Output = DropGuard;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<DropGuard> {
        Poll::Ready(self.value.take().unwrap())
    }
}

impl Drop for CancelsItself {
    fn drop(&mut self) {
        let own = self.own.borrow();
        assert!(own.as_ref().is_some_and(JoinHandle::cancel), "it has not ended");
    }
}

/// The cancel was accepted, and the task gave its value all the same.
#[test]
fn regress_a_task_cancelled_by_its_own_destructor_is_cancelled() {
    coreloop::run(async {
        let (drops, own) = (Drops::new(), Rc::new(RefCell::new(None)));
        own.replace(Some(spawn(CancelsItself { value: Some(drops.guard()), own: own.clone() })));
        turns(2).await;
        let task = own.take().unwrap();
        assert!(task.is_finished() && task.is_cancelled() && !task.cancel());
        assert_eq!(drops.count(), 1, "its value is gone");
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!((drops.made(), drops.count()), (1, 1));
        // The slot is good for others.
        assert_eq!(spawn(async { 7 }).await.unwrap(), 7);
    })
    .unwrap();
}

/// A destructor that panics, also while a panic is under way.
struct Sore;

impl Drop for Sore {
    fn drop(&mut self) {
        panic!("a destructor");
    }
}

/// The value was dropped while the body's panic was under way: that ends a process.
#[test]
fn regress_with_a_panic_of_the_body_comes_before_its_closing_value() {
    in_child("regress_with_a_panic_of_the_body_comes_before_its_closing_value", || {
        coreloop::run(async {
            let scope = cancel::with(
                (),
                async |_: &mut ()| -> () { panic!("the body") },
                async |(), how| {
                    assert!(matches!(how, How::Panicked));
                    yield_now().await;
                    Sore
                },
            );
            let task = spawn(async { _ = scope.run().await });
            assert_eq!(task.await.unwrap_err().panic_message(), Some("the body"));
            turns(2).await;
        })
        .unwrap();
    });
}

/// A stranger's waker: its destructor panics, also while a panic is under way.
struct SoreWaker {
    _guard: DropGuard,
}

impl Wake for SoreWaker {
    fn wake(self: Arc<Self>) {}
}

impl Drop for SoreWaker {
    fn drop(&mut self) {
        panic!("a waker's destructor");
    }
}

/// Polls with a new such waker, of which only what was polled keeps a clone.
fn poll_sorely<F: Future>(drops: &Drops, future: Pin<&mut F>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::new(SoreWaker { _guard: drops.guard() }));
    future.poll(&mut Context::from_waker(&waker))
}

/// Whether no panic came out.
fn is_quiet(f: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_ok()
}

/// The first panic came out of the handle's drop, and the second ended the process.
#[test]
fn regress_sore_wakers_of_handles_are_contained() {
    in_child("regress_sore_wakers_of_handles_are_contained", || {
        coreloop::run(async {
            let (drops, ran) = (Drops::new(), Rc::new(Cell::new(0)));
            let task = || {
                let ran = ran.clone();
                spawn(async move {
                    turns(4).await;
                    ran.set(ran.get() + 1);
                })
            };
            let polled = || {
                let mut handle = task();
                assert!(poll_sorely(&drops, Pin::new(&mut handle)).is_pending());
                handle
            };
            let both = vec![polled(), polled()];
            assert!(is_quiet(|| drop(both)));
            assert_eq!((drops.made(), drops.count()), (2, 2));
            // Another waker comes in its place: a stranger's, a task's, a set's.
            let [mut by_other, by_task, by_set] = [polled(), polled(), polled()];
            assert!(is_quiet(|| assert!(
                poll_sorely(&drops, Pin::new(&mut by_other)).is_pending()
            )));
            assert_eq!(drops.count(), 3);
            let mut gathered = pin!(gather_handles([by_task]));
            assert!(poll_once(gathered.as_mut()).await.is_pending());
            assert_eq!(drops.count(), 4);
            let mut ended = as_completed([by_set]);
            assert!(poll_once(pin!(ended.next())).await.is_pending());
            assert_eq!(drops.count(), 5);
            assert!(gathered.await[0].is_ok());
            assert!(matches!(ended.next().await, Some((0, Ok(())))));
            turns(2).await;
            assert_eq!((ran.get(), by_other.is_finished()), (5, true));
            assert_eq!((drops.made(), drops.count()), (6, 6));
        })
        .unwrap();
    });
}

/// A set's own waker, and a group's.
#[test]
fn regress_sore_wakers_of_sets_are_contained() {
    in_child("regress_sore_wakers_of_sets_are_contained", || {
        coreloop::run(async {
            let drops = Drops::new();
            for again in [false, true] {
                let mut ended = as_completed([spawn(pending::<()>())]);
                assert!(poll_sorely(&drops, pin!(ended.next())).is_pending());
                if again {
                    assert!(poll_once(pin!(ended.next())).await.is_pending());
                }
                assert!(is_quiet(|| drop(ended)));
                let mut scope = Box::pin(group(async |g| {
                    drop(g.spawn(pending::<Result<(), ()>>()));
                    Ok(())
                }));
                assert!(poll_sorely(&drops, scope.as_mut()).is_pending());
                if again {
                    assert!(poll_once(scope.as_mut()).await.is_pending());
                }
                assert!(is_quiet(|| drop(scope)));
            }
            turns(2).await;
            assert_eq!((drops.made(), drops.count()), (4, 4));
        })
        .unwrap();
    });
}

/// The waker's panic came before the cancel was passed on.
#[test]
fn regress_sore_wakers_of_an_awaitable_leave_its_cancel_alone() {
    in_child("regress_sore_wakers_of_an_awaitable_leave_its_cancel_alone", || {
        coreloop::run(async {
            for again in [false, true] {
                let drops = Drops::new();
                let (completer, mut awaitable) = future::<()>();
                let wakers = drops.clone();
                let task = spawn(poll_fn(move |_| {
                    for _ in 0..1 + u32::from(again) {
                        assert!(poll_sorely(&wakers, Pin::new(&mut awaitable)).is_pending());
                    }
                    Poll::<()>::Pending
                }));
                turns(2).await;
                assert_eq!(drops.count(), usize::from(again), "the place has one at a time");
                task.cancel();
                assert!(task.await.unwrap_err().is_cancelled(), "and did not panic");
                assert!(completer.is_cancelled() && completer.complete(()).is_err());
                assert_eq!(drops.made(), drops.count());
            }
            // Let go of, it cancels nothing.
            let drops = Drops::new();
            let (completer, mut awaitable) = future();
            assert!(poll_sorely(&drops, Pin::new(&mut awaitable)).is_pending());
            assert!(is_quiet(|| drop(awaitable)));
            assert!(completer.complete(()).is_ok() && drops.count() == 1);
        })
        .unwrap();
    });
}

#[test]
fn regress_sore_wakers_of_sleeps_are_contained() {
    in_child("regress_sore_wakers_of_sleeps_are_contained", || {
        coreloop::run(async {
            let drops = Drops::new();
            let asleep = || {
                let mut asleep = sleep(Duration::from_secs(100));
                assert!(poll_sorely(&drops, Pin::new(&mut asleep)).is_pending());
                asleep
            };
            let both = vec![asleep(), asleep()];
            assert!(is_quiet(|| drop(both)));
            assert_eq!(drops.count(), 2);
            let mut again = asleep();
            assert!(is_quiet(|| assert!(poll_sorely(&drops, Pin::new(&mut again)).is_pending())));
            assert_eq!(drops.count(), 3);
            assert!(is_quiet(|| again.reset(Instant::now() + tens(1))));
            assert_eq!((drops.made(), drops.count()), (4, 4));
            again.await;
        })
        .unwrap();
    });
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls a sleep in one loop, then in another one, which is the only one that runs on.
#[track_caller]
fn goes_on_in_another_loop(begun_with: &Waker, waker: &Waker, woken: &Count) {
    let (mut first, mut second) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
    let due = Instant::now() + tens(10);
    let mut asleep = sleep_until(due);
    first.block_on(poll_fn(|_| {
        assert!(Pin::new(&mut asleep).poll(&mut Context::from_waker(begun_with)).is_pending());
        Poll::Ready(())
    }));
    let mut cx = Context::from_waker(waker);
    let ended = second.block_on(async {
        assert!(Pin::new(&mut asleep).poll(&mut cx).is_pending());
        sleep_until(due + tens(5)).await;
        (woken.0.load(Ordering::SeqCst), Pin::new(&mut asleep).poll(&mut cx).is_ready())
    });
    assert_eq!(ended, (1, true), "woken once, and ready");
}

/// It stayed with the loop that it was first polled in, which nobody drives any more.
#[test]
fn regress_a_sleep_goes_on_in_the_loop_that_polls_it_now() {
    let count = Arc::new(Count::default());
    goes_on_in_another_loop(Waker::noop(), &Waker::from(count.clone()), &count);
}

/// As above; the waker is one of somebody's set of futures, and so the same in both loops.
#[test]
fn regress_a_sleep_goes_on_in_another_loop_with_the_same_waker() {
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    goes_on_in_another_loop(&waker, &waker, &count);
}

/// The name of a task that had ended was still told.
#[test]
fn regress_a_handle_tells_no_name_of_a_task_that_has_ended() {
    coreloop::run(async {
        let names = || ["ends", "panics", "is cancelled"];
        let mut tasks = [
            spawn_named("ends", turns(2)),
            spawn_named("panics", async { panic!("on purpose") }),
            spawn_named("is cancelled", pending()),
        ];
        assert!(tasks.iter().map(JoinHandle::name).eq(names().map(|name| Some(name.into()))));
        tasks[2].cancel();
        assert_eq!(tasks[2].name().as_deref(), Some("is cancelled"), "not before it is gone");
        turns(4).await;
        for (task, name) in tasks.iter_mut().zip(names()) {
            assert!(task.is_finished() && task.name().is_none(), "{name}");
            _ = (&mut *task).await;
            assert!(task.name().is_none(), "{name}, taken");
        }
        // Others go by these names in their slots.
        drop(tasks);
        assert_eq!(spawn_named("next", turns(1)).name().as_deref(), Some("next"));
    })
    .unwrap();
}
