//! Wakes from anywhere, at any time: none is lost while the loop lives, none does harm afterwards.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
#[cfg(not(tsan))]
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

// A lock that ThreadSanitizer sees: `std`'s is compiled without it.
#[cfg(tsan)]
use coreloop::__tsan::Mutex;
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Settings, Spin, spawn};
use coreloop_tests::{
    Rng, assert_memory_grew_less, fd_count, fds_settle_at, figure, in_child, poll_once, rss_bytes,
    turns,
};

const SOON: Duration = Duration::from_secs(10);

/// The waker of a task of the running loop that is parked for good.
async fn waker_of_a_task() -> Waker {
    let place = Rc::new(RefCell::new(None));
    let seen = place.clone();
    drop(spawn(poll_fn(move |cx| -> Poll<()> {
        *seen.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    })));
    turns(2).await;
    place.borrow_mut().take().expect("it was polled")
}

#[test]
fn task_wake_100_000_clones_of_a_waker() {
    in_child("task_wake_100_000_clones_of_a_waker", || {
        let mut event_loop = EventLoop::new().unwrap();
        let polls = Rc::new(Cell::new(0));
        let seen = polls.clone();
        event_loop.block_on(async move {
            let place = Rc::new(RefCell::new(None));
            let out = place.clone();
            drop(spawn(poll_fn(move |cx| -> Poll<()> {
                seen.set(seen.get() + 1);
                *out.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })));
            turns(2).await;
            let waker = place.borrow_mut().take().unwrap();
            let rss = rss_bytes();
            let clones: Vec<Waker> = (0..100_000).map(|_| waker.clone()).collect();
            // 16 bytes each lie in the vector itself.
            let grown = rss_bytes() - rss;
            // The least that an allocation takes is 16 to 32 bytes.
            assert_memory_grew_less!(grown, 5 << 19, ": a clone allocates");
            assert_eq!(polls.get(), 1);
            clones.iter().for_each(Waker::wake_by_ref);
            clones.into_iter().for_each(Waker::wake);
            turns(3).await;
            assert_eq!(polls.get(), 2, "200,000 wakes in one turn are one poll");
            assert!(waker.will_wake(&waker.clone()));
        });
    });
}

#[test]
fn task_wake_after_the_task_has_ended_reaches_nobody_else() {
    coreloop::run(async {
        let place = Rc::new(RefCell::new(None));
        let out = place.clone();
        spawn(poll_fn(move |cx| {
            *out.borrow_mut() = Some(cx.waker().clone());
            Poll::Ready(())
        }))
        .await
        .unwrap();
        let stale: Waker = place.borrow_mut().take().unwrap();
        // The next task gets the slot; an old waker must not poll it.
        let polls = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let seen = polls.clone();
            let task = spawn(poll_fn(move |_| -> Poll<()> {
                seen.set(seen.get() + 1);
                Poll::Pending
            }));
            turns(2).await;
            let before = polls.get();
            stale.wake_by_ref();
            turns(2).await;
            assert_eq!(polls.get(), before, "a stale waker polled a stranger");
            task.cancel();
            drop(task);
            turns(2).await;
        }
    })
    .unwrap();
}

#[test]
fn task_wake_after_the_loop_is_gone_does_nothing() {
    in_child("task_wake_after_the_loop_is_gone_does_nothing", || {
        let before = fd_count();
        let (waker, root) = coreloop::run(async {
            let root = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
            (waker_of_a_task().await, root)
        })
        .unwrap();
        assert_eq!(fds_settle_at(before, SOON), before);
        waker.wake_by_ref();
        root.wake_by_ref();
        let there = (waker.clone(), root.clone());
        std::thread::spawn(move || {
            for _ in 0..1000 {
                there.0.wake_by_ref();
                there.1.wake_by_ref();
            }
            drop(there);
        })
        .join()
        .unwrap();
        // The next loop may have the same core: a poll that nobody asked for is legal there, and no more.
        let mut next = EventLoop::new().unwrap();
        let polls = Rc::new(Cell::new(0));
        let seen = polls.clone();
        let parked = next.spawn(poll_fn(move |_| -> Poll<()> {
            seen.set(seen.get() + 1);
            Poll::Pending
        }));
        for _ in 0..10 {
            waker.wake_by_ref();
            root.wake_by_ref();
            next.turn(Some(Duration::ZERO));
        }
        assert!((1..=10).contains(&polls.get()), "{} polls", polls.get());
        assert!(!parked.is_finished());
        assert_eq!(next.block_on(async { spawn(async { 3 }).await.unwrap() }), 3);
        drop((waker, root));
    });
}

#[test]
fn task_wake_in_a_thread_locals_destructor() {
    struct AtExit(RefCell<Vec<Waker>>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            DONE.store(true, Ordering::SeqCst);
            for waker in self.0.borrow_mut().drain(..) {
                waker.wake_by_ref();
                drop(waker.clone());
                waker.wake();
            }
        }
    }
    static DONE: AtomicBool = AtomicBool::new(false);
    thread_local! {
        static AT_EXIT: AtExit = const { AtExit(RefCell::new(Vec::new())) };
    }
    // Its own loop's waker, the loop being gone; and another thread's, whose loop lives.
    let (polled, polls) = mpsc::channel();
    let mut living = EventLoop::new().unwrap();
    let place = Arc::new(Mutex::new(None));
    let out = place.clone();
    drop(living.spawn(poll_fn(move |cx| -> Poll<()> {
        *out.lock().unwrap() = Some(cx.waker().clone());
        polled.send(()).unwrap();
        Poll::Pending
    })));
    living.turn(Some(Duration::ZERO));
    let foreign = place.lock().unwrap().take().unwrap();
    std::thread::spawn(move || {
        let own = coreloop::run(waker_of_a_task()).unwrap();
        AT_EXIT.with(|at_exit| at_exit.0.borrow_mut().extend([own, foreign]));
    })
    .join()
    .unwrap();
    assert!(DONE.load(Ordering::SeqCst), "the destructor ran");
    living.turn(Some(SOON));
    living.turn(Some(Duration::ZERO));
    assert_eq!(
        polls.try_iter().count(),
        2,
        "the first poll and the one that the destructor asked for"
    );
}

#[test]
fn task_wake_from_another_thread_ends_a_park() {
    for settings in [Settings::default(), Settings::default().spin(Spin::Off)] {
        let mut event_loop = EventLoop::with(settings).unwrap();
        event_loop.block_on(async {
            let mut worst = Duration::ZERO;
            for round in 0..200u64 {
                let shared = Arc::new((AtomicBool::new(false), Mutex::new(None::<Waker>)));
                let theirs = shared.clone();
                let thread = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(round * 10));
                    theirs.0.store(true, Ordering::SeqCst);
                    let waker = theirs.1.lock().unwrap().take();
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                    Instant::now()
                });
                let woken = poll_fn(|cx| {
                    *shared.1.lock().unwrap() = Some(cx.waker().clone());
                    if shared.0.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
                });
                timeout(SOON, woken).await.expect("the wake was lost");
                let now = Instant::now();
                worst = worst.max(now.saturating_duration_since(thread.join().unwrap()));
            }
            figure!("200 wakes of a parked core, the slowest took {worst:?}");
            assert!(worst < Duration::from_secs(1));
        });
    }
}

/// Eight threads wake tasks, a million times and more, while loops come and go under them.
#[test]
fn task_wake_by_8_threads_across_drops_of_loops() {
    in_child("task_wake_by_8_threads_across_drops_of_loops", || {
        const WAKES_EACH: usize = 125_000;
        let before = fd_count();
        let current: Arc<Mutex<Vec<Waker>>> = Arc::default();
        let (stop, wakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..8u64)
            .map(|seed| {
                let (current, stop, wakes) = (current.clone(), stop.clone(), wakes.clone());
                std::thread::spawn(move || {
                    let mut rng = Rng::new(seed + 1);
                    let mut mine: Vec<Waker> = Vec::new();
                    let mut done = 0;
                    while done < WAKES_EACH || !stop.load(Ordering::Relaxed) {
                        // Old wakers are kept for a while after their loop is gone.
                        if done % 64 == 0 || mine.is_empty() {
                            mine.extend(current.lock().unwrap().iter().cloned());
                            let surplus = mine.len().saturating_sub(64);
                            mine.drain(..surplus);
                        }
                        if let Some(w) = mine.get(rng.below(mine.len().max(1) as u64) as usize) {
                            w.wake_by_ref();
                            done += 1;
                        } else {
                            std::thread::yield_now();
                        }
                    }
                    wakes.fetch_add(done, Ordering::Relaxed);
                })
            })
            .collect();
        let (mut loops, mut polls) = (0, 0);
        while threads.iter().any(|t| !t.is_finished()) {
            loops += 1;
            let mut event_loop = EventLoop::new().unwrap();
            let count = Rc::new(Cell::new(0usize));
            for _ in 0..16 {
                let (count, current) = (count.clone(), current.clone());
                let mut told = false;
                drop(event_loop.spawn(poll_fn(move |cx| -> Poll<()> {
                    count.set(count.get() + 1);
                    if !told {
                        told = true;
                        current.lock().unwrap().push(cx.waker().clone());
                    }
                    Poll::Pending
                })));
            }
            event_loop.block_on(sleep(Duration::from_millis(1)));
            current.lock().unwrap().clear();
            drop(event_loop);
            polls += count.get();
            if loops >= 200 {
                stop.store(true, Ordering::Relaxed);
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        let wakes = wakes.load(Ordering::Relaxed);
        figure!("{wakes} wakes across {loops} loops gave {polls} polls");
        assert!(wakes >= 8 * WAKES_EACH && loops >= 200);
        assert!(polls > 16 * loops, "no wake ever arrived");
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}

#[test]
fn task_wake_of_a_handle_awaited_on_two_loops_in_turn() {
    // A join handle polled under one waker, then another: the last one counts.
    coreloop::run(async {
        let mut task = spawn(async {
            sleep(Duration::from_millis(2)).await;
            4
        });
        let first = spawn(turns(1));
        assert!(poll_once(std::pin::Pin::new(&mut task)).await.is_pending());
        let second = spawn(async move { task.await.unwrap() });
        first.await.unwrap();
        assert_eq!(timeout(SOON, second).await.expect("it is woken").unwrap(), 4);
    })
    .unwrap();
}

#[test]
fn task_wake_lost_by_nobody_in_a_ping_pong_of_threads() {
    in_child("task_wake_lost_by_nobody_in_a_ping_pong_of_threads", || {
        const ROUNDS: usize = 20_000;
        let (tell, told) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stop_seen = stop.clone();
        let pong = std::thread::spawn(move || {
            let mut event_loop = EventLoop::with(Settings::default().spin(Spin::Off)).unwrap();
            tell.send(event_loop.handle()).unwrap();
            while !stop_seen.load(Ordering::SeqCst) {
                // Not for ever: a turn that runs the last closure goes on to wait.
                event_loop.turn(Some(Duration::from_millis(50)));
            }
        });
        let pong_handle = told.recv().unwrap();
        let mut event_loop = EventLoop::with(Settings::default().spin(Spin::Off)).unwrap();
        let right = event_loop.block_on(async {
            let mut right = 0;
            for i in 0..ROUNDS {
                let answer = pong_handle.spawn_on(0, move || async move { i + 1 }).unwrap();
                right += usize::from(timeout(SOON, answer).await.expect("lost") == Ok(i + 1));
            }
            right
        });
        assert_eq!(right, ROUNDS);
        pong_handle.call_soon_threadsafe(0, move || stop.store(true, Ordering::SeqCst)).unwrap();
        pong.join().unwrap();
    });
}
