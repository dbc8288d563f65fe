//! Tasks whose first poll takes place in the call that makes them: what is theirs, and what stays that of the
//! poll around it.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use coreloop::task::{JoinHandle, current_id, inherit};
use coreloop::{EventLoop, run, spawn, spawn_eager, yield_now};
use coreloop_tests::{poll_once, stepped, turns};

type Log = Rc<RefCell<Vec<&'static str>>>;

#[test]
fn eager_tasks_run_to_their_first_wait_within_the_call() {
    run(async {
        let log = Log::default();
        let say = |what| log.borrow_mut().push(what);
        let (first, second) = (log.clone(), log.clone());
        let later = spawn(async move { first.borrow_mut().push("spawned before") });
        let eager = spawn_eager(async move {
            second.borrow_mut().push("eager");
            yield_now().await;
            second.borrow_mut().push("eager goes on");
            7
        });
        say("caller");
        assert!(!eager.is_finished());
        assert_eq!(eager.await.unwrap(), 7);
        later.await.unwrap();
        assert_eq!(*log.borrow(), ["eager", "caller", "spawned before", "eager goes on"]);
    })
    .unwrap();
}

#[test]
fn eager_tasks_that_wait_for_nothing_are_over_and_cost_no_turn() {
    let mut event_loop = stepped();
    let before = event_loop.stats().counters;
    event_loop.block_on(async {
        for i in 0..100_u32 {
            let mut task = spawn_eager(async move { i });
            assert!(task.is_finished());
            assert!(matches!(poll_once(Pin::new(&mut task)).await, Poll::Ready(Ok(n)) if n == i));
        }
        drop(spawn_eager(async {}));
    });
    let after = event_loop.stats().counters;
    assert_eq!(after.ticks - before.ticks, 1, "all of it in one turn");
    assert_eq!(after.spawns - before.spawns, 101);
    assert_eq!(after.eager_polls - before.eager_polls, 101);
    assert_eq!(after.polls - before.polls, 1, "the main future's");
    assert_eq!(event_loop.turn(Some(std::time::Duration::ZERO)).tasks, 0);
}

#[test]
fn eager_tasks_have_a_panic_to_themselves() {
    run(async {
        let me = spawn(async {
            let mine = current_id();
            let broken = spawn_eager(async {
                if current_id().is_some() {
                    panic!("at once");
                }
            });
            assert_eq!(current_id(), mine, "the caller goes on as itself");
            let error = broken.await.unwrap_err();
            assert!(error.is_panic() && error.to_string().contains("at once"), "{error}");
            let again = spawn_eager(async { 1 });
            again.await.unwrap()
        });
        assert_eq!(me.await.unwrap(), 1);
        // The same in the main future.
        assert!(spawn_eager(async { panic!("there too") }).await.unwrap_err().is_panic());
    })
    .unwrap();
}

#[test]
fn eager_tasks_and_their_caller_panic_each_for_itself() {
    run(async {
        let seen = Rc::new(Cell::new(None));
        let out = seen.clone();
        let caller = spawn(async move {
            out.set(Some(spawn_eager(async {
                yield_now().await;
                2
            })));
            panic!("the caller");
        });
        let error = caller.await.unwrap_err();
        assert!(error.to_string().contains("the caller"), "it is the caller that ended: {error}");
        assert_eq!(seen.take().unwrap().await.unwrap(), 2);
    })
    .unwrap();
}

#[test]
fn eager_tasks_know_who_they_are() {
    run(async {
        let outer = current_id();
        let inner = Rc::new(Cell::new(None));
        let out = inner.clone();
        let task = spawn_eager(async move { out.set(current_id()) });
        assert_eq!(inner.get(), Some(task.id()));
        assert_eq!(current_id(), outer);
    })
    .unwrap();
}

coreloop::task_local! {
    static REQUEST: u32;
}

#[test]
fn eager_tasks_see_no_locals_of_their_caller_unless_they_inherit_them() {
    run(REQUEST.scope(7, async {
        let stranger = spawn_eager(async {
            let first = REQUEST.try_get().ok();
            yield_now().await;
            (first, REQUEST.try_get().ok())
        });
        assert_eq!(REQUEST.get(), 7, "the caller's are its own");
        let heir = spawn_eager(inherit(async {
            let first = REQUEST.get();
            yield_now().await;
            (first, REQUEST.get())
        }));
        let own = spawn_eager(REQUEST.scope(8, async { REQUEST.get() }));
        drop(spawn_eager(async { panic!("and after a panic") }));
        assert_eq!(REQUEST.get(), 7);
        assert_eq!(stranger.await.unwrap(), (None, None));
        assert_eq!((heir.await.unwrap(), own.await.unwrap()), ((7, 7), 8));
    }))
    .unwrap();
}

/// Counts its drop.
struct Held(Rc<Cell<u32>>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn waits_for_ever(dropped: &Rc<Cell<u32>>) -> JoinHandle<()> {
    let held = Held(dropped.clone());
    spawn(async move {
        let _held = held;
        pending::<()>().await;
    })
}

#[test]
fn eager_tasks_hide_nothing_that_their_caller_awaits_from_a_cancel() {
    run(async {
        let dropped = Rc::new(Cell::new(0));
        let (mut before, after) = (waits_for_ever(&dropped), waits_for_ever(&dropped));
        let awaiter = spawn(async move {
            assert!(poll_once(Pin::new(&mut before)).await.is_pending());
            drop(spawn_eager(async {
                drop(spawn_eager(async {}));
                yield_now().await;
            }));
            after.await.unwrap();
        });
        turns(4).await;
        assert!(awaiter.cancel());
        assert!(awaiter.await.unwrap_err().is_cancelled());
        turns(4).await;
        assert_eq!(dropped.get(), 2, "both were awaited in the last poll");
    })
    .unwrap();
}

/// Has its own content dropped within an eager task, when it is dropped.
struct Elsewhere<T: 'static>(Option<T>);

impl<T> Drop for Elsewhere<T> {
    fn drop(&mut self) {
        let content = self.0.take();
        drop(spawn_eager(async move { drop(content) }));
    }
}

/// Cancels a task that waits, and gives those that it cancels their turns.
async fn cancelled_while_it_waits(awaiter: JoinHandle<()>) {
    turns(3).await;
    awaiter.cancel();
    assert!(awaiter.await.unwrap_err().is_cancelled());
    turns(4).await;
}

#[test]
fn eager_tasks_within_a_cancel_pass_it_on_to_nobody() {
    run(async {
        let dropped = Rc::new(Cell::new(0));
        let mut awaited = waits_for_ever(&dropped);
        let awaiter = spawn(async move {
            assert!(poll_once(Pin::new(&mut awaited)).await.is_pending());
            let _elsewhere = Elsewhere(Some(awaited));
            pending::<()>().await;
        });
        cancelled_while_it_waits(awaiter).await;
        assert_eq!(dropped.get(), 0, "what another task drops is let go of");
    })
    .unwrap();
}

#[test]
fn eager_tasks_of_a_destructor_leave_the_cancel_under_way() {
    struct Eager;
    impl Drop for Eager {
        fn drop(&mut self) {
            drop(spawn_eager(async {}));
        }
    }
    run(async {
        let dropped = Rc::new(Cell::new(0));
        let mut awaited = waits_for_ever(&dropped);
        let awaiter = spawn(async move {
            // Dropped in this order: an eager task is made first, the awaited handle goes behind it.
            let mut both = (Eager, Box::pin(poll_fn(move |cx| Pin::new(&mut awaited).poll(cx))));
            drop(poll_fn(|cx| both.1.as_mut().poll(cx)).await);
        });
        cancelled_while_it_waits(awaiter).await;
        assert_eq!(dropped.get(), 1, "what was awaited is cancelled, too");
    })
    .unwrap();
}

/// Makes a task that makes a task … and says how many were polled in the call.
fn nested(left: u32, polled: Rc<Cell<u32>>) -> Pin<Box<dyn Future<Output = u32>>> {
    Box::pin(async move {
        polled.set(polled.get() + 1);
        if left == 0 {
            return 0;
        }
        spawn_eager(nested(left - 1, polled)).await.unwrap() + 1
    })
}

#[test]
fn eager_tasks_within_each_other_are_bounded_and_all_of_them_run() {
    run(async {
        for _ in 0..2 {
            let polled = Rc::new(Cell::new(0));
            let all = spawn_eager(nested(1_000, polled.clone()));
            assert_eq!(polled.get(), 16, "the next one is the loop's to poll");
            assert_eq!(all.await.unwrap(), 1_000);
            assert_eq!(polled.get(), 1_001);
        }
    })
    .unwrap();
}

#[test]
fn eager_tasks_that_were_woken_in_their_first_poll_are_polled_again() {
    run(async {
        let mut polls = 0;
        let task = spawn_eager(poll_fn(move |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
        }));
        assert!(!task.is_finished());
        assert_eq!(task.await.unwrap(), 3);
    })
    .unwrap();
}

#[test]
fn eager_tasks_are_cancelled_like_others() {
    run(async {
        let dropped = Rc::new(Cell::new(0));
        let held = Held(dropped.clone());
        let task = spawn_eager(async move {
            let _held = held;
            pending::<()>().await;
        });
        assert!(task.cancel());
        assert_eq!(dropped.get(), 0, "not within the call");
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(dropped.get(), 1);
    })
    .unwrap();
}

#[test]
fn eager_tasks_of_a_closing_loop_are_not_polled() {
    struct Late(Rc<Cell<u32>>);
    impl Drop for Late {
        fn drop(&mut self) {
            let ran = self.0.clone();
            drop(spawn_eager(async move { ran.set(ran.get() + 1) }));
        }
    }
    let ran = Rc::new(Cell::new(0));
    let event_loop = EventLoop::new().unwrap();
    let late = Late(ran.clone());
    drop(event_loop.spawn(async move {
        let _late = late;
        pending::<()>().await;
    }));
    drop(event_loop);
    assert_eq!(ran.get(), 0);
}

#[test]
fn eager_tasks_of_a_closure_that_a_close_drops_are_not_polled() {
    struct Late(Arc<AtomicU32>);
    impl Drop for Late {
        fn drop(&mut self) {
            let polls = self.0.clone();
            drop(spawn_eager(async move { polls.fetch_add(1, Ordering::Relaxed) }));
        }
    }
    let polls = Arc::new(AtomicU32::new(0));
    let event_loop = EventLoop::new().unwrap();
    let late = Late(polls.clone());
    event_loop.handle().call_soon_threadsafe(0, move || drop(late)).unwrap();
    drop(event_loop);
    assert_eq!(polls.load(Ordering::Relaxed), 0);
}

#[test]
#[should_panic(expected = "a spawn needs a running loop")]
fn eager_tasks_need_a_loop() {
    drop(spawn_eager(async {}));
}
