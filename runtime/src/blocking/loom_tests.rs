//! loom's models of the blocking pool's queue and of a value's way back.
//!
//! A thread that has waited in vain for [`IDLE`](super::worker::IDLE) is not in them: loom has no time.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::pair;
use super::pool::{Handed, Limits, Pool};
use super::worker::serve;
use crate::sys::model::thread;
use crate::sys::modelled::{block_on, check};
use crate::sys::shared::{AtomicUsize, Ordering};

#[test]
fn loom_blocking_a_kept_promise_reaches_who_awaits_it() {
    check(4, || {
        let (promise, outcome) = pair();
        let worker = thread::spawn(move || promise.keep(Ok(Box::new(7))));
        assert_eq!(block_on(outcome).unwrap(), Box::new(7));
        worker.join().unwrap();
        let (promise, outcome) = pair::<u8>();
        let worker = thread::spawn(move || drop(promise));
        assert!(block_on(outcome).is_err());
        worker.join().unwrap();
    });
}

#[test]
fn loom_blocking_a_value_nobody_awaits_is_dropped_once() {
    check(4, || {
        let value = Arc::new(());
        let (promise, outcome) = pair();
        let kept = value.clone();
        let worker = thread::spawn(move || promise.keep(Ok(kept)));
        drop(outcome);
        worker.join().unwrap();
        assert_eq!(Arc::strong_count(&value), 1);
    });
}

/// A pool, a thread that serves it once somebody asks for one, and how many closures ran.
fn pool(threads: u32, queue: u32) -> (Pool, Arc<AtomicUsize>) {
    (Pool::new(Limits { threads, queue }), Arc::new(AtomicUsize::new(0)))
}

fn submit(pool: &Pool, ran: &Arc<AtomicUsize>) -> Option<thread::JoinHandle<()>> {
    let ran = ran.clone();
    let mut submission = pool.submit(Box::new(move || {
        ran.fetch_add(1, Ordering::Relaxed);
    }));
    let handed = block_on(&mut submission);
    // What runs goes on without it, and what is queued is to run.
    std::mem::forget(submission);
    (handed == Handed::WantsWorker).then(|| {
        let shared = pool.shared().clone();
        thread::spawn(move || serve(&shared, &[]))
    })
}

#[test]
fn loom_blocking_each_closure_is_run_through_a_queue_of_one() {
    check(3, || {
        let (pool, ran) = pool(1, 1);
        let workers: Vec<_> = (0..3).filter_map(|_| submit(&pool, &ran)).collect();
        assert_eq!(workers.len(), 1);
        while ran.load(Ordering::Relaxed) < 3 {
            thread::yield_now();
        }
        assert_eq!(pool.close(Duration::MAX), 0);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn loom_blocking_a_close_waits_for_threads_and_drops_what_is_queued() {
    check(3, || {
        let (pool, ran) = pool(2, 2);
        let held = ran.clone();
        let workers: Vec<_> = (0..2).filter_map(|_| submit(&pool, &ran)).collect();
        assert_eq!(pool.close(Duration::MAX), 0);
        // Run or dropped, none is kept.
        assert_eq!(Arc::strong_count(&held), 2);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn loom_blocking_a_place_that_nobody_wants_any_more_goes_to_the_next() {
    use std::pin::Pin;
    use std::task::{Context, Waker};
    check(3, || {
        let (pool, ran) = pool(1, 1);
        let worker = submit(&pool, &ran);
        // May be promised the place of the first, and is then dropped with it.
        let mut given_up = pool.submit(Box::new(|| ()));
        let polled = Pin::new(&mut &mut given_up).poll(&mut Context::from_waker(Waker::noop()));
        drop(given_up);
        assert!(polled.is_pending() || ran.load(Ordering::Relaxed) <= 1);
        assert!(submit(&pool, &ran).is_none());
        while ran.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        pool.close(Duration::MAX);
        worker.into_iter().for_each(|worker| worker.join().unwrap());
    });
}
