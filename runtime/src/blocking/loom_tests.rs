//! loom's models of the blocking pool's queue and of a value's way back.
//!
//! loom has no time: that a thread has waited in vain for [`IDLE`](super::worker::IDLE) is said to it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use super::outcome::pair;
use super::pool::{Handed, Limits, Pool, Submission};
use super::worker::serve;
use crate::sys::model::thread;
use crate::sys::modelled::{block_on, check};
use crate::sys::shared::{Condvar, Mutex};

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

/// How many closures ran. Waited for by a lock and not by looks: what never comes is a deadlock, not a loop
/// that takes all of loom's branches.
#[derive(Default)]
struct Ran {
    closures: Mutex<usize>,
    more: Condvar,
}

impl Ran {
    fn one_more(&self) {
        *self.closures.lock().unwrap() += 1;
        self.more.notify_one();
    }

    fn wait_for(&self, closures: usize) {
        let mut ran = self.closures.lock().unwrap();
        while *ran < closures {
            ran = self.more.wait(ran).unwrap();
        }
    }
}

fn pool(threads: u32, queue: u32) -> (Pool, Arc<Ran>) {
    (Pool::new(Limits { threads, queue }), Arc::default())
}

fn counted(pool: &Pool, ran: &Arc<Ran>) -> Submission {
    let ran = ran.clone();
    pool.submit(Box::new(move || ran.one_more()))
}

/// Queues a closure; the thread that serves it, if one more was asked for.
fn submit(pool: &Pool, ran: &Arc<Ran>) -> Option<thread::JoinHandle<()>> {
    let mut submission = counted(pool, ran);
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
        ran.wait_for(3);
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

/// A thread that goes for want of work and a closure that comes: one of both sees the other.
#[test]
fn loom_blocking_a_closure_is_run_though_the_only_thread_goes_as_it_comes() {
    check(3, || {
        let (pool, ran) = pool(1, 1);
        let first = submit(&pool, &ran);
        ran.wait_for(1);
        let shared = pool.shared().clone();
        let patience = thread::spawn(move || shared.lose_patience());
        let second = submit(&pool, &ran);
        ran.wait_for(2);
        patience.join().unwrap();
        assert_eq!(pool.close(Duration::MAX), 0);
        first.into_iter().chain(second).for_each(|worker| worker.join().unwrap());
    });
}

#[test]
fn loom_blocking_a_place_that_nobody_wants_any_more_goes_to_the_next() {
    check(3, || {
        let (pool, ran) = pool(1, 1);
        let worker = submit(&pool, &ran);
        // Waits for the place of the first and may be promised it, or has it, queued or even run.
        let mut given_up = pool.submit(Box::new(|| ()));
        let mut next = counted(&pool, &ran);
        let mut cx = Context::from_waker(Waker::noop());
        let [_, served] =
            [&mut given_up, &mut next].map(|mut asks| Pin::new(&mut asks).poll(&mut cx));
        let gives_up = thread::spawn(move || drop(given_up));
        if served.is_pending() {
            assert_eq!(block_on(&mut next), Handed::Served);
        }
        ran.wait_for(2);
        gives_up.join().unwrap();
        pool.close(Duration::MAX);
        worker.into_iter().for_each(|worker| worker.join().unwrap());
    });
}
