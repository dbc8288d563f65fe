//! Mutex, semaphore, rw-lock and once-cell: who gets through when, and what a cancel or a panic leaves.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coreloop::spawn;
use coreloop::sync::{
    Mutex, MutexGuard, OnceCell, RwLock, RwLockWriteGuard, Semaphore, TryAcquireError,
};
use coreloop::time::timeout;
use coreloop_tests::{ByHand, now, turns};

#[test]
fn p1_lock_is_handed_over_in_the_order_of_asking() {
    let mutex = Mutex::new(0);
    let held = now(mutex.lock());
    let a = ByHand::pending(mutex.lock());
    let b = ByHand::pending(mutex.lock());
    drop(held);
    assert!(a.woken() && !b.woken());
    // It is a's already: nobody else gets it, not even at once.
    assert!(mutex.try_lock().is_err() && mutex.is_locked());
    let c = ByHand::pending(mutex.lock());
    drop(a.finish());
    assert!(b.woken() && !c.woken());
    drop(b.finish());
    drop(c.finish());
    assert!(!mutex.is_locked() && mutex.try_lock().is_ok());
}

#[test]
fn p1_lock_a_cancelled_waiter_leaves_the_line() {
    let mutex = Mutex::new(());
    let held = now(mutex.lock());
    let a = ByHand::pending(mutex.lock());
    let b = ByHand::pending(mutex.lock());
    drop(a);
    assert!(!b.woken());
    drop(held);
    drop(b.finish());
    // The last one that goes leaves nothing behind.
    let held = now(mutex.lock());
    drop(ByHand::pending(mutex.lock()));
    drop(held);
    assert!(!mutex.is_locked());
}

#[test]
fn p1_lock_cancelled_when_it_was_handed_over_goes_to_the_next() {
    let mutex = Mutex::new(());
    let held = now(mutex.lock());
    let a = ByHand::pending(mutex.lock());
    let b = ByHand::pending(mutex.lock());
    drop(held);
    assert!(a.woken() && !b.woken());
    drop(a);
    drop(b.finish());
    let held = now(mutex.lock());
    let a = ByHand::pending(mutex.lock());
    drop(held);
    drop(a);
    assert!(!mutex.is_locked(), "nobody is left who could have it");
}

#[test]
fn p1_lock_is_not_kept_by_whoever_takes_it_again_at_once() {
    let order = Rc::new(RefCell::new(Vec::new()));
    coreloop::run(async {
        let mutex = Rc::new(Mutex::new(()));
        let tasks: Vec<_> = (0..3)
            .map(|id| {
                let (mutex, order) = (mutex.clone(), order.clone());
                spawn(async move {
                    for _ in 0..3 {
                        let _held = mutex.lock().await;
                        order.borrow_mut().push(id);
                        turns(1).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    })
    .unwrap();
    assert_eq!(*order.borrow(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn p1_lock_a_waiter_may_be_polled_with_another_waker() {
    let mutex = Mutex::new(());
    let held = now(mutex.lock());
    let mut a = ByHand::pending(mutex.lock());
    assert!(a.poll().is_none() && a.poll_anew().is_none());
    drop(held);
    drop(a.finish());
}

#[test]
fn p2_guard_gives_back_on_return_error_panic_and_cancel() {
    coreloop::run(async {
        let mutex = Rc::new(Mutex::new(0));
        let semaphore = Rc::new(Semaphore::new(1));
        let lock = RwLock::new(0);
        let held = async |m: Rc<Mutex<i32>>, s: Rc<Semaphore>, how: u8| {
            let mut guard = m.lock().await;
            let _permit = s.acquire().await.unwrap();
            *guard += 1;
            match how {
                0 => return Ok(()),
                1 => Err("an error")?,
                2 => panic!("with the lock held"),
                _ => std::future::pending::<()>().await,
            }
            Ok::<_, &str>(())
        };
        for how in 0..4 {
            let task = spawn(held(mutex.clone(), semaphore.clone(), how));
            turns(2).await;
            task.cancel();
            let _ = task.await;
            assert!(!mutex.is_locked(), "case {how}");
            assert_eq!(semaphore.available_permits(), 1, "case {how}");
        }
        assert_eq!(*mutex.lock().await, 4);
        assert!(
            timeout(Duration::ZERO, async {
                let _writer = lock.write().await;
                std::future::pending::<()>().await
            })
            .await
            .is_err()
        );
        assert!(lock.try_write().is_ok());
    })
    .unwrap();
}

#[test]
fn p2_a_forgotten_guard_keeps_the_lock_and_harms_nobody() {
    let mut mutex = Mutex::new(7);
    std::mem::forget(now(mutex.lock()));
    assert!(mutex.try_lock().is_err());
    drop(ByHand::pending(mutex.lock()));
    assert_eq!((*mutex.get_mut(), mutex.into_inner()), (7, 7));
    let mutex = Mutex::new(());
    let held = now(mutex.lock());
    let mut waiter = Box::pin(mutex.lock());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiter.as_mut().poll(&mut cx).is_pending());
    std::mem::forget(waiter);
    drop(held);
    assert!(mutex.is_locked(), "it fell to the one that was forgotten");
}

#[test]
fn p1_semaphore_many_permits_are_not_overtaken_by_few() {
    let semaphore = Semaphore::new(3);
    let one = now(semaphore.acquire()).unwrap();
    let three = ByHand::pending(semaphore.acquire_many(3));
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
    let after = ByHand::pending(semaphore.acquire());
    drop(one);
    assert!(three.woken() && !after.woken());
    let three = three.finish().unwrap();
    assert_eq!(three.num_permits(), 3);
    drop(three);
    drop(after.finish());
    assert_eq!(semaphore.available_permits(), 3);
}

#[test]
fn p1_semaphore_those_behind_a_cancelled_one_go_on_at_once() {
    let semaphore = Semaphore::new(2);
    let held = now(semaphore.acquire()).unwrap();
    let big = ByHand::pending(semaphore.acquire_many(2));
    let small = ByHand::pending(semaphore.acquire());
    drop(big);
    drop(small.finish());
    drop(held);
    // Handed over and not taken: both go to the next.
    let held = now(semaphore.acquire_many(2)).unwrap();
    let big = ByHand::pending(semaphore.acquire_many(2));
    let (a, b) = (ByHand::pending(semaphore.acquire()), ByHand::pending(semaphore.acquire()));
    drop(held);
    drop(big);
    let permits = (a.finish(), b.finish());
    assert_eq!(semaphore.available_permits(), 0);
    drop(permits);
}

#[test]
fn p1_semaphore_one_release_is_enough_when_several_were_cancelled() {
    let semaphore = Semaphore::new(1);
    let held = now(semaphore.acquire()).unwrap();
    let mut line: Vec<_> = (0..4).map(|_| ByHand::pending(semaphore.acquire())).collect();
    drop(held);
    line.remove(0);
    line.remove(0);
    assert!(line[0].woken() && !line[1].woken());
    drop(line.remove(0).finish());
    drop(line.remove(0).finish());
}

#[test]
fn p1_semaphore_is_taken_in_the_order_of_asking() {
    let order = Rc::new(RefCell::new(Vec::new()));
    coreloop::run(async {
        let semaphore = Rc::new(Semaphore::new(1));
        let tasks: Vec<_> = (1..=3)
            .map(|id| {
                let (semaphore, order) = (semaphore.clone(), order.clone());
                spawn(async move {
                    for round in 0..2 {
                        let _permit = semaphore.acquire().await.unwrap();
                        order.borrow_mut().push((round, id));
                        turns(2).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    })
    .unwrap();
    assert_eq!(*order.borrow(), [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]);
    // Several released at once wake as many, and whoever asks then is behind them.
    let semaphore = Semaphore::new(0);
    assert!(semaphore.try_acquire().is_err());
    let line: Vec<_> = (0..3).map(|_| ByHand::pending(semaphore.acquire())).collect();
    semaphore.add_permits(3);
    let last = ByHand::pending(semaphore.acquire());
    line.into_iter().for_each(|one| one.finish().unwrap().forget());
    assert!(!last.woken());
}

#[test]
fn p1_semaphore_closed_tells_those_who_wait() {
    let semaphore = Rc::new(Semaphore::new(1));
    let held = now(semaphore.clone().acquire_owned()).unwrap();
    let a = ByHand::pending(semaphore.acquire());
    let b = ByHand::pending(semaphore.clone().acquire_many_owned(2));
    semaphore.close();
    assert!(a.finish().is_err() && b.finish().is_err() && semaphore.is_closed());
    drop(held);
    assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
    assert!(now(semaphore.acquire()).is_err());
}

#[test]
fn p1_semaphore_bounded_refuses_one_permit_too_many() {
    let semaphore = Rc::new(Semaphore::bounded(2));
    let mut two = semaphore.try_acquire_many(2).unwrap();
    assert!(semaphore.try_add_permits(1).is_err(), "those that are held count");
    two.split(1).unwrap().forget();
    assert!(two.split(2).is_none());
    semaphore.add_permits(1);
    drop(two);
    assert_eq!(semaphore.available_permits(), 2);
    let owned = semaphore.clone().try_acquire_owned().unwrap();
    owned.forget();
    assert_eq!(
        semaphore.try_add_permits(2).unwrap_err().to_string(),
        "a semaphore would have more than its bound of 2 permits"
    );
}

#[test]
#[should_panic(expected = "more than its bound of 0 permits")]
fn p1_semaphore_bounded_panics_where_errors_are_not_asked_for() {
    Semaphore::bounded(0).add_permits(1);
}

#[test]
fn p1_rw_lock_neither_readers_nor_writers_starve() {
    let lock = RwLock::new(0);
    let reader = now(lock.read());
    let writer = ByHand::pending(lock.write());
    assert!(lock.try_read().is_err(), "a writer waits");
    let (r1, r2) = (ByHand::pending(lock.read()), ByHand::pending(lock.read()));
    let last = ByHand::pending(lock.write());
    drop(reader);
    assert!(writer.woken() && !r1.woken());
    *writer.finish() += 1;
    assert!(r1.woken() && r2.woken() && !last.woken());
    let (r1, r2) = (r1.finish(), r2.finish());
    assert_eq!(*r1 + *r2, 2);
    drop(r1);
    assert!(!last.woken());
    drop(r2);
    let next = ByHand::pending(lock.read());
    let mut last = last.finish();
    *last += 1;
    assert!(!next.woken());
    let last = RwLockWriteGuard::downgrade(last);
    assert_eq!((*last, *next.finish()), (2, 2));
    assert!(lock.try_write().is_err());
}

#[test]
fn p1_rw_lock_readers_go_on_when_the_writer_before_them_is_cancelled() {
    let lock = RwLock::new(());
    let reader = now(lock.read());
    let writer = ByHand::pending(lock.write());
    let other = ByHand::pending(lock.read());
    drop(writer);
    drop((reader, other.finish()));
    let reader = now(lock.read());
    let writer = ByHand::pending(lock.write());
    let other = ByHand::pending(lock.read());
    drop(reader);
    assert!(writer.woken());
    drop(writer);
    drop(other.finish());
    assert!(lock.try_write().is_ok());
}

#[test]
fn p1_once_cell_one_initialises_and_the_others_get_it() {
    let cell = OnceCell::new();
    let gate = Semaphore::new(0);
    let runs = Cell::new(0);
    let init = async || {
        runs.set(runs.get() + 1);
        gate.acquire().await.unwrap().forget();
        runs.get()
    };
    let a = ByHand::pending(cell.get_or_init(init));
    let b = ByHand::pending(cell.get_or_init(init));
    assert_eq!(cell.set(5), Err(5));
    gate.add_permits(1);
    assert_eq!(a.finish(), &1);
    assert_eq!(b.finish(), &1);
    assert_eq!((now(cell.get_or_init(init)), runs.get()), (&1, 1));
    assert_eq!(cell.set(5), Err(5));
}

#[test]
fn p1_once_cell_an_initialiser_that_ends_badly_passes_the_turn_on() {
    coreloop::run(async {
        let cell = Rc::new(OnceCell::new());
        for how in 0..3 {
            let ours = cell.clone();
            let first = spawn(async move {
                let init = async || {
                    turns(2).await;
                    match how {
                        0 => Err("failed"),
                        1 => panic!("in an initialiser"),
                        _ => std::future::pending().await,
                    }
                };
                ours.get_or_try_init(init).await.copied()
            });
            turns(1).await;
            let theirs = cell.clone();
            let next = spawn(async move {
                theirs
                    .get_or_try_init(async || if how < 2 { Err("too") } else { Ok(9) })
                    .await
                    .copied()
            });
            turns(5).await;
            assert_eq!(next.is_finished(), how < 2);
            first.cancel();
            let _ = first.await;
            assert_eq!(next.await.unwrap(), if how < 2 { Err("too") } else { Ok(9) });
        }
        assert_eq!(cell.get(), Some(&9));
    })
    .unwrap();
}

#[test]
fn p1_lock_names_its_mutex() {
    let mutex = Mutex::new(1);
    let guard = now(mutex.lock());
    assert!(std::ptr::eq(MutexGuard::mutex(&guard), &mutex));
    assert!(format!("{mutex:?}").contains("locked: true"));
    assert_eq!(format!("{guard:?}"), "1");
}
