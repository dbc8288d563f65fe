//! Work that blocks, on the loop and beside it (B1): who is stalled, what comes back, who waits for room.
//!
//! No test measures a time. A loop that stalled would end in a deadlock: what blocks waits for what a task of
//! the same loop does meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::time::Duration;

use coreloop::combine::{When, gather_handles, wait};
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Handle, Settings, spawn, spawn_blocking, yield_now};
use coreloop_tests::drive::{Drops, settled};

const MS: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_secs(20);

/// A loop with so many threads, and so much room in the queue before them.
fn with(threads: u32, queue: u32) -> EventLoop {
    let settings = Settings::default().blocking_threads(threads).blocking_queue(queue);
    EventLoop::with(settings).unwrap()
}

/// Holds closures up until it is opened.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let (open, _) = self.0.1.wait_timeout_while(open, SOON, |open| !*open).unwrap();
        assert!(*open, "nobody opened the door");
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

#[test]
fn b1_a_blocking_call_in_a_task_stalls_its_whole_core() {
    coreloop::run(async {
        let (ticks, seen) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::new())));
        let (count, log) = (ticks.clone(), seen.clone());
        let ticker = spawn(async move {
            loop {
                count.set(count.get() + 1);
                yield_now().await;
            }
        });
        let blocker = spawn(async move {
            let before = ticks.get();
            std::thread::sleep(5 * MS);
            log.borrow_mut().push(ticks.get() - before);
        });
        blocker.await.unwrap();
        ticker.cancel();
        assert_eq!(*seen.borrow(), [0], "nothing else ran meanwhile");
    })
    .unwrap();
}

/// The closure ends only if tasks of its loop run while it blocks: one feeds it, one counts.
#[test]
fn b1_on_the_pool_it_stalls_nobody() {
    coreloop::run(async {
        let (feed, fed) = mpsc::channel();
        let work = spawn_blocking(move || {
            let sum: u32 = (0..100).map(|_| fed.recv_timeout(SOON).unwrap()).sum();
            (sum, std::thread::current().name().map(str::to_owned))
        });
        let ticker = spawn(async move {
            for i in 0..100 {
                feed.send(i).unwrap();
                yield_now().await;
            }
        });
        let (sum, name) = work.await.unwrap();
        assert_eq!(sum, 4950);
        assert!(name.unwrap().starts_with("coreloop-block-"));
        ticker.await.unwrap();
    })
    .unwrap();
}

#[test]
fn b1_so_many_threads_work_at_a_time_and_no_more() {
    let mut event_loop = with(3, 64);
    event_loop.block_on(async {
        // Each three meet: fewer threads would never open the barrier, more would be seen.
        let barrier = Arc::new(Barrier::new(3));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..12).map(|_| {
            let (barrier, now, most) = (barrier.clone(), now.clone(), most.clone());
            spawn_blocking(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                barrier.wait();
                now.fetch_sub(1, Ordering::SeqCst);
                std::thread::current().id()
            })
        });
        let ids = gather_handles(work).await.into_iter().map(Result::unwrap);
        let ids: HashSet<_> = ids.collect();
        assert_eq!(ids.len(), 3, "threads are used again");
        assert_eq!(most.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn b1_an_idle_thread_is_used_before_a_new_one_is_started() {
    coreloop::run(async {
        let mut ids = HashSet::new();
        for _ in 0..20 {
            ids.insert(spawn_blocking(|| std::thread::current().id()).await.unwrap());
            // Long enough, mostly, for the thread to be idle again.
            sleep(2 * MS).await;
        }
        assert!(ids.len() < 16, "{} threads for one piece of work at a time", ids.len());
    })
    .unwrap();
}

#[test]
fn b1_a_full_queue_waits_in_order_and_blocks_nobody() {
    let mut event_loop = with(1, 2);
    event_loop.block_on(async {
        let (door, order) = (Door::default(), Arc::new(Mutex::new(Vec::new())));
        let work: Vec<_> = (0..50)
            .map(|i| {
                let (door, order) = (door.clone(), order.clone());
                spawn_blocking(move || {
                    door.wait();
                    order.lock().unwrap().push(i);
                    i
                })
            })
            .collect();
        // One runs, two are queued, the rest waits for room; the loop goes on.
        for _ in 0..10 {
            yield_now().await;
        }
        sleep(5 * MS).await;
        assert!(order.lock().unwrap().is_empty());
        assert!(work.iter().all(|work| !work.is_finished()), "none is turned away");
        door.open();
        let values = gather_handles(work).await.into_iter().map(Result::unwrap);
        assert!(values.eq(0..50));
        assert!(order.lock().unwrap().iter().copied().eq(0..50), "in the order of asking");
    });
}

#[test]
fn b1_a_closure_that_panics_is_its_awaiters_error() {
    let mut event_loop = with(1, 8);
    event_loop.block_on(async {
        let fine = spawn_blocking(|| 1);
        let text = spawn_blocking(|| panic!("told {}", "you"));
        let value = spawn_blocking(|| std::panic::panic_any(77_u8));
        let after = spawn_blocking(|| 2);
        assert_eq!(fine.await.unwrap(), 1);
        let e = text.await.unwrap_err();
        assert!(e.is_panic() && !e.is_cancelled());
        assert_eq!(e.panic_message(), Some("told you"));
        let e = value.await.unwrap_err();
        assert_eq!(e.into_panic().unwrap().downcast_ref::<u8>(), Some(&77), "the payload itself");
        assert_eq!(after.await.unwrap(), 2, "the same thread goes on");
    });
    assert_eq!(event_loop.stats().counters.task_panics, 2);
}

#[test]
fn b1_a_value_whose_drop_panics_harms_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }
    let mut event_loop = with(1, 8);
    event_loop.block_on(async {
        let door = Door::default();
        let (inside, started) = mpsc::channel();
        let held = door.clone();
        let work = spawn_blocking(move || {
            inside.send(()).unwrap();
            held.wait();
            Bomb
        });
        assert!(settled(SOON, || started.try_recv().is_ok()).await);
        work.cancel();
        assert!(work.await.map(std::mem::forget).unwrap_err().is_cancelled());
        door.open();
        assert_eq!(spawn_blocking(|| 5).await.unwrap(), 5, "the only thread lives");
        // Nobody to take a panic with a payload that panics.
        drop(spawn_blocking(|| std::panic::panic_any(Bomb)));
        drop(spawn_blocking(|| panic!("nobody asks")));
        assert_eq!(spawn_blocking(|| 6).await.unwrap(), 6);
    });
}

#[test]
fn b1_all_tools_for_handles_work_on_it() {
    coreloop::run(async {
        let door = Door::default();
        let held = door.clone();
        let slow = spawn_blocking(move || held.wait());
        let mut shielded = slow;
        let elapsed = timeout(5 * MS, coreloop::combine::shield(&mut shielded)).await;
        assert!(elapsed.is_err(), "a limit ends the wait");
        assert!(!shielded.is_finished(), "and the shield keeps the work");
        let mut handles = [spawn_blocking(|| ()), shielded];
        let waited = wait(&mut handles, When::FirstCompleted, None).await;
        assert_eq!((waited.done, waited.pending), (vec![0], vec![1]));
        door.open();
        let ended = gather_handles(handles).await;
        assert!(ended.iter().all(Result::is_ok));
        // A limit on a handle cancels it: the wait is over at once, whatever the closure does.
        let door = Door::default();
        let held = door.clone();
        let limited = timeout(5 * MS, spawn_blocking(move || held.wait())).await;
        assert!(limited.is_err());
        door.open();
    })
    .unwrap();
}

#[test]
fn b1_a_closure_has_no_loop_but_may_speak_to_one() {
    coreloop::run(async {
        let handle = Handle::current();
        let work = spawn_blocking(move || {
            assert!(Handle::try_current().is_err());
            let value = handle.spawn_on(0, || async { 20 }).unwrap().join().unwrap();
            // A loop of its own is fine: this thread has none.
            value + coreloop::run(async { spawn_blocking(|| 22).await.unwrap() }).unwrap()
        });
        assert_eq!(work.await.unwrap(), 42);
    })
    .unwrap();
}

#[test]
fn b1_values_and_closures_are_dropped_once() {
    let drops = Drops::new();
    let mut event_loop = with(4, 4);
    event_loop.block_on(async {
        let work = (0..200).map(|i| {
            let (held, value) = (drops.guard(), drops.guard());
            spawn_blocking(move || {
                let _held = held;
                assert!(i % 10 != 9, "one in ten panics");
                value
            })
        });
        let mut work: Vec<_> = work.collect();
        let cancelled = work.iter().skip(3).step_by(5).filter(|work| work.cancel()).count();
        assert_eq!(cancelled, 40);
        for handle in work.drain(..) {
            drop(handle.await);
        }
        assert!(settled(SOON, || drops.count() == 400).await, "{} drops", drops.count());
    });
}
