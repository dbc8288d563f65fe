//! Plain functions on the loop (L5): soon, later, at an instant, from another thread, and called off.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use coreloop::task::Call;
use coreloop::time::{Instant, sleep};
use coreloop::{EventLoop, Handle, PostError, call_at, call_later, call_soon, spawn, yield_now};
use coreloop_tests::drive::{Drops, settled};

const MS: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_secs(10);

/// What was seen, in order.
#[derive(Clone, Default)]
struct Seen(Rc<RefCell<Vec<u32>>>);

impl Seen {
    /// A function that notes `number`.
    fn note(&self, number: u32) -> impl FnOnce() + 'static {
        let seen = self.0.clone();
        move || seen.borrow_mut().push(number)
    }

    fn all(&self) -> Vec<u32> {
        self.0.borrow().clone()
    }
}

#[test]
fn l5_call_soon_runs_in_the_next_iteration_in_order_among_tasks() {
    coreloop::run(async {
        let seen = Seen::default();
        call_soon(seen.note(0));
        let note = seen.note(1);
        drop(spawn(async move { note() }));
        let (nested, in_nested) = (seen.note(4), seen.note(2));
        call_soon(move || {
            in_nested();
            call_soon(nested);
        });
        call_soon(seen.note(3));
        assert!(seen.all().is_empty(), "not within the call");
        yield_now().await;
        assert_eq!(seen.all(), [0, 1, 2, 3], "what a call asks for is for the iteration after");
        yield_now().await;
        assert_eq!(seen.all(), [0, 1, 2, 3, 4]);
    })
    .unwrap();
}

#[test]
fn l5_a_dropped_call_is_made_and_a_cancelled_one_is_not() {
    coreloop::run(async {
        let (seen, drops) = (Seen::default(), Drops::new());
        let guarded = |number| {
            let (note, guard) = (seen.note(number), drops.guard());
            move || {
                let _guard = guard;
                note();
            }
        };
        let calls: [Call; 3] = [
            call_soon(guarded(1)),
            call_later(MS, guarded(2)),
            call_at(Instant::now() + 2 * MS, guarded(3)),
        ];
        for call in &calls {
            assert!(call.cancel());
            assert!(call.is_cancelled() && !call.is_finished());
        }
        let kept = call_later(3 * MS, guarded(4));
        drop(call_later(4 * MS, guarded(5)));
        yield_now().await;
        assert_eq!(drops.count(), 3, "what was called off is dropped at the next turn");
        assert!(calls.iter().all(|call| call.is_finished() && call.is_cancelled()));
        assert!(calls.iter().all(|call| !call.cancel()), "a second time it says so");
        assert!(settled(SOON, || seen.all().len() == 2).await);
        assert_eq!(seen.all(), [4, 5]);
        assert!(kept.is_finished() && !kept.is_cancelled() && !kept.cancel());
        assert_eq!(drops.count(), 5);
    })
    .unwrap();
}

#[coreloop::test(sim, seeds = 50)]
async fn l5_call_later_is_never_early_and_in_order_of_time_then_of_asking() {
    let (seen, began) = (Rc::new(RefCell::new(Vec::new())), Instant::now());
    let delays = [30, 10, 20, 10, 0, 30, 10, 70, 0, 200, 70];
    for (number, ms) in delays.into_iter().enumerate() {
        let (seen, due) = (seen.clone(), began + ms * MS);
        call_at(due, move || {
            assert!(Instant::now() >= due, "call {number} came early");
            seen.borrow_mut().push((ms, number));
        });
    }
    sleep(300 * MS).await;
    let seen = seen.take();
    assert_eq!(seen.len(), delays.len());
    assert!(seen.is_sorted(), "{seen:?}");
}

/// A loop that was busy past several calls makes them in the order of their times, not of asking.
#[test]
fn l5_overdue_calls_come_in_the_order_of_their_times() {
    async fn busy_past_several() {
        let seen = Seen::default();
        call_later(30 * MS, seen.note(3));
        call_later(10 * MS, seen.note(1));
        call_later(20 * MS, seen.note(2));
        std::thread::sleep(40 * MS);
        call_later(Duration::ZERO, seen.note(4));
        call_at(Instant::now(), seen.note(5));
        call_soon(seen.note(0));
        yield_now().await;
        yield_now().await;
        yield_now().await;
        assert_eq!(seen.all(), [0, 1, 2, 3, 4, 5], "and none waits for the timers to tick on");
    }
    // The main future runs before the tasks of a turn, and a task among them.
    coreloop::run(busy_past_several()).unwrap();
    coreloop::run(async { spawn(busy_past_several()).await.unwrap() }).unwrap();
}

#[test]
fn l5_a_call_at_no_time_is_never_made_and_dropped_with_the_loop() {
    let (drops, mut event_loop) = (Drops::new(), EventLoop::new().unwrap());
    let calls = event_loop.block_on(async {
        let guards = [drops.guard(), drops.guard(), drops.guard()];
        let [a, b, c] = guards.map(|guard| move || drop(guard));
        let calls =
            [call_at(Instant::NEVER, a), call_later(Duration::MAX, b), call_later(999_999 * MS, c)];
        sleep(5 * MS).await;
        calls
    });
    assert_eq!(drops.count(), 0);
    drop(event_loop);
    assert_eq!(drops.count(), 3);
    assert!(calls.iter().all(|call| call.is_finished() && call.is_cancelled()));
}

#[test]
fn l5_a_panic_in_a_call_is_contained_and_counted() {
    let mut event_loop = EventLoop::new().unwrap();
    let seen = event_loop.block_on(async {
        let seen = Seen::default();
        call_soon(|| panic!("in a call soon"));
        call_soon(seen.note(1));
        call_later(MS, || panic!("in a call later"));
        call_later(2 * MS, seen.note(2));
        // A panic takes its time, to be printed.
        assert!(settled(SOON, || seen.all().len() == 2).await);
        seen.all()
    });
    assert_eq!(seen, [1, 2]);
    assert_eq!(event_loop.stats().counters.task_panics, 2);
}

/// Cancelled ones leave the wheel, so that they are not in memory until their time.
#[test]
fn l5_calls_called_off_leave_nothing_behind() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        for _ in 0..100 {
            let calls: Vec<_> = (0..100).map(|_| call_later(3_600_000 * MS, || ())).collect();
            calls.iter().for_each(|call| assert!(call.cancel()));
            assert!(settled(SOON, || calls.iter().all(Call::is_finished)).await);
        }
    });
    let turn = event_loop.turn(Some(Duration::ZERO));
    assert_eq!((turn.tasks, turn.next_deadline), (0, None));
}

/// A wake that is meant for whoever had a call's slot before does not make the call early.
#[test]
fn l5_a_stale_wake_makes_no_call_early() {
    coreloop::run(async {
        let waker = Rc::new(RefCell::new(None));
        let keep = waker.clone();
        spawn(std::future::poll_fn(move |cx| {
            keep.replace(Some(cx.waker().clone()));
            std::task::Poll::Ready(())
        }))
        .await
        .unwrap();
        let seen = Seen::default();
        let call = call_later(3_600_000 * MS, seen.note(1));
        let waker = waker.take().unwrap();
        // From another thread a wake names the slot only.
        std::thread::spawn(move || waker.wake()).join().unwrap();
        sleep(5 * MS).await;
        assert!(seen.all().is_empty() && !call.is_finished());
    })
    .unwrap();
}

/// The loop sleeps for good; only the call can wake it.
#[test]
fn l5_call_soon_threadsafe_wakes_a_parked_loop() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let (tell, told) = mpsc::channel();
    let caller = std::thread::spawn(move || {
        let handle: Handle = told.recv().unwrap();
        // Long enough for a park on any machine; right in any case.
        std::thread::sleep(20 * MS);
        for i in 0..100 {
            let seen = move || SEEN.with_borrow_mut(|seen| seen.push(i));
            handle.call_soon_threadsafe(0, seen).unwrap();
        }
        handle.call_soon_threadsafe(0, || DONE.with_borrow(|done| done.set())).unwrap();
        handle.call_soon_threadsafe(9, || ()).unwrap_err()
    });
    tell.send(handle).unwrap();
    let done = DONE.with_borrow(Rc::clone);
    event_loop.block_on(async { done.wait().await });
    let seen = SEEN.take();
    assert!(seen.iter().copied().eq(0..100), "in the order of the calls: {seen:?}");
    assert_eq!(caller.join().unwrap(), PostError::NoSuchCore { cores: 1 });
    assert!(event_loop.stats().counters.parks > 0);
}

thread_local! {
    static SEEN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static DONE: RefCell<Rc<coreloop::sync::Event>> = RefCell::default();
}

#[test]
fn l5_calls_outside_a_loop_are_refused_with_a_message() {
    let called = Rc::new(Cell::new(false));
    let f = || {
        let called = called.clone();
        move || called.set(true)
    };
    let (one, two, three) = (f(), f(), f());
    type Refused = Box<dyn FnOnce() -> Call>;
    let calls: [(&str, Refused); 3] = [
        ("call_soon", Box::new(|| call_soon(one))),
        ("call_later", Box::new(|| call_later(MS, two))),
        ("call_at", Box::new(|| call_at(Instant::now(), three))),
    ];
    for (name, call) in calls {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
        let text = caught.downcast_ref::<String>().unwrap();
        assert!(text.contains(name) && text.contains("needs a running loop"), "{text}");
    }
    assert!(!called.get());
}
