//! Event, condition and barrier: who is told, and that no notification is lost to a cancelled task.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coreloop::spawn;
use coreloop::sync::{Barrier, Condition, Event, Mutex};
use coreloop::time::timeout;
use coreloop_tests::{ByHand, now, turns};

#[test]
fn p1_event_wakes_all_in_order_and_stays_set() {
    let event = Event::new();
    let (a, b) = (ByHand::pending(event.wait()), ByHand::pending(event.wait()));
    assert!(!event.is_set());
    event.set();
    event.set();
    a.finish();
    b.finish();
    now(event.wait());
    event.clear();
    event.clear();
    drop(ByHand::pending(event.wait()));
}

#[test]
fn p1_event_who_waited_when_it_was_set_goes_on_though_it_is_cleared() {
    let event = Event::new();
    let a = ByHand::pending(event.wait());
    event.set();
    event.clear();
    let b = ByHand::pending(event.wait());
    a.finish();
    assert!(!b.woken());
    event.set();
    b.finish();
}

#[test]
fn p1_event_a_cancelled_waiter_leaves_nothing() {
    let event = Event::new();
    let (a, b) = (ByHand::pending(event.wait()), ByHand::pending(event.wait()));
    drop(a);
    event.set();
    drop(b);
    assert!(format!("{event:?}").contains("waiting: 0"));
}

/// A condition with its mutex, and futures that wait for it.
#[derive(Default)]
struct Shared {
    stock: Mutex<i32>,
    changed: Condition,
}

impl Shared {
    fn waiter(&self) -> ByHand<'_, ()> {
        ByHand::pending(async { drop(self.changed.wait(self.stock.lock().await).await) })
    }
}

#[test]
fn p1_condition_waits_unlocked_and_comes_back_locked() {
    let shared = Shared::default();
    let mut waiter =
        ByHand::pending(async { shared.changed.wait(shared.stock.lock().await).await });
    let mut held = shared.stock.try_lock().expect("a wait gives up the lock");
    *held = 3;
    shared.changed.notify_one();
    assert!(waiter.woken());
    assert!(waiter.poll().is_none(), "the lock is held by us");
    drop(held);
    let held = waiter.finish();
    assert_eq!(*held, 3);
    assert!(shared.stock.try_lock().is_err());
}

#[test]
fn p1_condition_notifies_as_many_as_asked_for_in_order() {
    let shared = Shared::default();
    let mut line: Vec<_> = (0..4).map(|_| shared.waiter()).collect();
    shared.changed.notify(2);
    let woken: Vec<_> = line.iter().map(ByHand::woken).collect();
    assert_eq!(woken, [true, true, false, false]);
    let rest = line.split_off(2);
    line.into_iter().for_each(ByHand::finish);
    shared.changed.notify(2048);
    rest.into_iter().for_each(ByHand::finish);
    // Nothing is kept for later.
    shared.changed.notify_all();
    let later = shared.waiter();
    assert!(!later.woken());
    shared.changed.notify_all();
    later.finish();
}

#[test]
fn p1_condition_wait_for_looks_again_after_each_notification() {
    coreloop::run(async {
        let shared = Rc::new(Shared::default());
        let looks = Rc::new(Cell::new(0));
        let (theirs, counted) = (shared.clone(), looks.clone());
        let task = spawn(async move {
            let stock = theirs.stock.lock().await;
            let is_so = |stock: &mut i32| {
                counted.set(counted.get() + 1);
                *stock == 2
            };
            *theirs.changed.wait_for(stock, is_so).await
        });
        for step in 1..=2 {
            turns(2).await;
            assert_eq!((looks.get(), task.is_finished()), (step, false));
            *shared.stock.lock().await += 1;
            shared.changed.notify_one();
        }
        assert_eq!((task.await.unwrap(), looks.get()), (2, 3));
        // Not at all if it is so already.
        drop(shared.changed.wait_for(shared.stock.lock().await, |_| true).await);
    })
    .unwrap();
}

#[test]
fn p1_condition_a_cancelled_waiter_passes_its_notification_on() {
    // Notified and not polled since.
    let shared = Shared::default();
    let (a, b) = (shared.waiter(), shared.waiter());
    shared.changed.notify_one();
    assert!(a.woken() && !b.woken());
    drop(a);
    b.finish();
    // Notified, polled, and waiting for the lock.
    let (mut a, b) = (shared.waiter(), shared.waiter());
    let held = now(shared.stock.lock());
    shared.changed.notify_one();
    assert!(a.poll().is_none());
    drop(a);
    drop(held);
    b.finish();
    // Handed the lock, too.
    let (mut a, b) = (shared.waiter(), shared.waiter());
    let held = now(shared.stock.lock());
    shared.changed.notify_one();
    assert!(a.poll().is_none());
    drop(held);
    assert!(a.woken());
    drop(a);
    b.finish();
    assert!(shared.stock.try_lock().is_ok());
}

#[test]
fn p1_condition_what_all_were_told_is_not_passed_on() {
    let shared = Shared::default();
    let a = shared.waiter();
    shared.changed.notify_all();
    let later = shared.waiter();
    drop(a);
    assert!(!later.woken());
}

#[test]
fn p1_condition_a_cancelled_waiter_that_was_not_notified_is_skipped() {
    let shared = Shared::default();
    let (a, b) = (shared.waiter(), shared.waiter());
    drop(a);
    shared.changed.notify_one();
    b.finish();
}

#[test]
fn p1_condition_a_limit_around_a_wait_leaves_the_lock_open() {
    coreloop::run(async {
        let shared = Shared::default();
        let held = shared.stock.lock().await;
        let waited = timeout(Duration::from_millis(1), shared.changed.wait(held)).await;
        assert!(waited.is_err());
        assert!(shared.stock.try_lock().is_ok());
    })
    .unwrap();
}

#[test]
fn p1_condition_a_wait_that_was_never_polled_gives_the_lock_back() {
    let shared = Shared::default();
    drop(shared.changed.wait(now(shared.stock.lock())));
    assert!(!shared.stock.is_locked());
}

#[test]
fn p1_barrier_lets_all_go_with_an_index_each_round_after_round() {
    let barrier = Barrier::new(3);
    for _ in 0..2 {
        let (a, b) = (ByHand::pending(barrier.wait()), ByHand::pending(barrier.wait()));
        assert_eq!((barrier.waiting(), barrier.parties()), (2, 3));
        let last = now(barrier.wait()).unwrap();
        assert_eq!((last.index(), last.is_leader()), (2, true));
        // The next round begins before all of this one have gone on.
        let next = ByHand::pending(barrier.wait());
        let (a, b) = (a.finish().unwrap(), b.finish().unwrap());
        assert_eq!((a.index(), b.index(), a.is_leader(), barrier.waiting()), (0, 1, false, 1));
        drop(next);
        assert_eq!(barrier.waiting(), 0);
    }
    assert_eq!(now(Barrier::new(1).wait()).unwrap().index(), 0);
}

#[test]
fn p1_barrier_a_cancelled_one_has_not_come() {
    let barrier = Barrier::new(3);
    let a = ByHand::pending(barrier.wait());
    let b = ByHand::pending(barrier.wait());
    drop(a);
    let c = ByHand::pending(barrier.wait());
    assert_eq!(now(barrier.wait()).unwrap().index(), 2);
    // Once all have come, a cancel of one is no matter to the others.
    drop(b);
    assert_eq!(c.finish().unwrap().index(), 1);
}

#[test]
fn p1_barrier_reset_and_abort_break_the_round() {
    let barrier = Barrier::new(2);
    let a = ByHand::pending(barrier.wait());
    barrier.reset();
    assert!(a.finish().is_err() && !barrier.is_broken());
    let a = ByHand::pending(barrier.wait());
    barrier.abort();
    assert!(a.finish().is_err() && barrier.is_broken());
    assert!(now(barrier.wait()).is_err());
    barrier.reset();
    let a = ByHand::pending(barrier.wait());
    assert!(now(barrier.wait()).is_ok());
    // Too late for those who have passed.
    barrier.abort();
    assert!(a.finish().is_ok());
}

#[test]
fn p1_barrier_reset_by_one_that_was_told_of_a_break_starts_anew() {
    coreloop::run(async {
        const N: usize = 5;
        let (barrier, sync) = (Rc::new(Barrier::new(N)), Rc::new(Barrier::new(N)));
        let seen = Rc::new(RefCell::new((0, 0)));
        let tasks: Vec<_> = (0..N)
            .map(|_| {
                let (barrier, sync, seen) = (barrier.clone(), sync.clone(), seen.clone());
                spawn(async move {
                    if barrier.wait().await.unwrap().index() == N / 2 {
                        barrier.abort();
                    } else if barrier.wait().await.is_err() {
                        seen.borrow_mut().0 += 1;
                    }
                    if sync.wait().await.unwrap().is_leader() {
                        barrier.reset();
                    }
                    sync.wait().await.unwrap();
                    barrier.wait().await.unwrap();
                    seen.borrow_mut().1 += 1;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*seen.borrow(), (N - 1, N));
        assert!(!barrier.is_broken() && barrier.waiting() == 0);
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "a barrier needs at least one party")]
fn p1_barrier_for_nobody_is_refused() {
    let _ = Barrier::new(0);
}
