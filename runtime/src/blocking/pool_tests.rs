//! The queue without threads: places, promises and their order, served by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

struct Told(AtomicUsize);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A submission with a waker of its own, and a closure that notes that it ran.
struct Asked {
    submission: Submission,
    told: Arc<Told>,
}

fn pool(threads: u32, queue: u32) -> Pool {
    Pool::new(Limits { threads, queue })
}

fn ask(pool: &Pool, seen: &Arc<Mutex<Vec<u32>>>, number: u32) -> Asked {
    let seen = seen.clone();
    let submission = pool.submit(Box::new(move || seen.lock().unwrap().push(number)));
    Asked { submission, told: Arc::new(Told(AtomicUsize::new(0))) }
}

impl Asked {
    fn poll(&mut self) -> Poll<Handed> {
        self.submission.poll_handed(&Waker::from(self.told.clone()))
    }

    fn told(&self) -> usize {
        self.told.0.load(Ordering::Relaxed)
    }
}

#[test]
fn workers_are_asked_for_one_by_one_up_to_the_limit() {
    let (pool, seen) = (pool(2, 8), Arc::default());
    let mut asked: Vec<_> = (0..4).map(|i| ask(&pool, &seen, i)).collect();
    let handed: Vec<_> = asked.iter_mut().map(|a| a.poll()).collect();
    let (wants, served) = (Poll::Ready(Handed::WantsWorker), Poll::Ready(Handed::Served));
    assert_eq!(handed, [wants, wants, served, served]);
    while let Some(served) = pool.serve_one() {
        served.run();
    }
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3]);
    assert_eq!(pool.shared().lock().running, 0);
    drop((pool.stand_in(), pool.stand_in()));
    assert_eq!(pool.close(Duration::MAX), 0);
}

#[test]
fn a_free_place_goes_to_the_one_that_waits_longest() {
    let (pool, seen) = (pool(1, 2), Arc::default());
    let mut asked: Vec<_> = (0..5).map(|i| ask(&pool, &seen, i)).collect();
    assert_eq!(asked.iter_mut().filter_map(|a| a.poll().is_ready().then_some(())).count(), 2);
    pool.serve_one().unwrap().run();
    assert_eq!(asked.iter().map(Asked::told).collect::<Vec<_>>(), [0, 0, 1, 0, 0]);
    assert!(asked[3].poll().is_pending(), "the place is promised");
    let mut late = ask(&pool, &seen, 9);
    assert!(late.poll().is_pending(), "and nobody comes in between");
    assert!(asked[2].poll().is_ready());
    pool.serve_one().unwrap().run();
    // The one that it was promised to does not want it any more.
    assert_eq!(asked[3].told(), 1);
    drop(asked.remove(3));
    assert_eq!(asked[3].told(), 1, "so it goes to the next");
    assert!(asked[3].poll().is_ready());
    pool.serve_one().unwrap().run();
    assert!(late.poll().is_ready());
    while let Some(served) = pool.serve_one() {
        served.run();
    }
    assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 4, 9]);
    assert_eq!(pool.shared().lock().promised, 0);
    drop(pool.stand_in());
}

#[test]
fn a_closure_that_is_taken_back_makes_room_and_never_runs() {
    let (pool, seen) = (pool(1, 1), Arc::default());
    let (mut first, mut second) = (ask(&pool, &seen, 1), ask(&pool, &seen, 2));
    assert!(first.poll().is_ready());
    assert!(second.poll().is_pending());
    drop(first);
    assert_eq!(second.told(), 1);
    assert!(second.poll().is_ready());
    let mut third = ask(&pool, &seen, 3);
    assert!(third.poll().is_pending());
    drop(third);
    assert!(pool.shared().lock().waiting.is_empty());
    pool.serve_one().unwrap().run();
    assert_eq!(*seen.lock().unwrap(), [2]);
    drop(pool.stand_in());
}

#[test]
fn a_waker_that_panics_takes_no_worker_along() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a stranger's waker");
        }
    }
    let (pool, seen) = (pool(1, 1), Arc::default());
    let (mut first, mut second) = (ask(&pool, &seen, 1), ask(&pool, &seen, 2));
    let mut third = ask(&pool, &seen, 3);
    assert!(first.poll().is_ready());
    let panics = Waker::from(Arc::new(Panics));
    assert!(second.submission.poll_handed(&panics).is_pending());
    assert!(third.submission.poll_handed(&panics).is_pending());
    pool.serve_one().unwrap().run();
    assert_eq!((&*seen.lock().unwrap(), pool.shared().lock().running), (&vec![1], 0));
    // The place that it was promised goes on, to the next one that panics.
    drop(second);
    assert!(third.poll().is_ready());
    pool.serve_one().unwrap().run();
    assert_eq!(*seen.lock().unwrap(), [1, 3]);
    drop(pool.stand_in());
}

#[test]
fn a_closed_pool_drops_what_is_queued_and_counts_what_runs() {
    let (pool, seen) = (pool(1, 4), Arc::default());
    let mut asked: Vec<_> = (0..3).map(|i| ask(&pool, &seen, i)).collect();
    assert!(asked.iter_mut().all(|a| a.poll().is_ready()));
    let running = pool.serve_one().unwrap();
    assert_eq!(pool.close(Duration::from_millis(1)), 1);
    assert!(pool.serve_one().is_none());
    running.run();
    drop((asked, pool.stand_in()));
    assert_eq!(pool.close(Duration::MAX), 0);
    assert_eq!(*seen.lock().unwrap(), [0]);
}
