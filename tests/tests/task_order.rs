//! In which order tasks run, and that none keeps the others out.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::Write;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use coreloop::task::{current_id, current_name};
use coreloop::time::sleep;
use coreloop::{EventLoop, Settings, spawn, spawn_named, try_spawn, yield_now};
use coreloop_tests::{assert_memory_grew_less, figure, in_child, net, rss_bytes, settled, turns};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn t2_tasks_start_in_the_order_of_spawning() {
    coreloop::run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..1000)
            .map(|i| {
                let order = order.clone();
                spawn(async move { order.borrow_mut().push(i) })
            })
            .collect();
        assert!(order.borrow().is_empty(), "a task starts at the next turn, not inside `spawn`");
        for task in tasks {
            task.await.unwrap();
        }
        assert!(order.borrow().iter().copied().eq(0..1000));
    })
    .unwrap();
}

#[test]
fn t3_yields_go_round_robin() {
    coreloop::run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..5)
            .map(|i| {
                let order = order.clone();
                spawn(async move {
                    for _ in 0..20 {
                        order.borrow_mut().push(i);
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(order.borrow().iter().copied().eq((0..100).map(|k| k % 5)));
    })
    .unwrap();
}

#[test]
fn t2_a_spawned_task_waits_for_those_that_are_ready() {
    coreloop::run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let (one, two) = (order.clone(), order.clone());
        let first = spawn(async move {
            one.borrow_mut().push("first");
            let inner = one.clone();
            spawn(async move { inner.borrow_mut().push("child") }).await.unwrap();
        });
        let second = spawn(async move { two.borrow_mut().push("second") });
        first.await.unwrap();
        second.await.unwrap();
        assert_eq!(*order.borrow(), ["first", "second", "child"]);
    })
    .unwrap();
}

/// One task that wakes itself for ever, and everything else.
#[test]
fn l6_an_endless_self_waker_keeps_nobody_out() {
    in_child("l6_an_endless_self_waker_keeps_nobody_out", || {
        coreloop::run(async {
            for _ in 0..3 {
                drop(spawn(async {
                    loop {
                        yield_now().await;
                    }
                }));
            }
            let began = Instant::now();
            sleep(Duration::from_millis(20)).await;
            assert!(began.elapsed() < SOON, "timers");
            let (mut ours, mut theirs) = net::pair();
            for i in 0..100u8 {
                theirs.write_all(&[i]).unwrap();
                assert_eq!(&*ours.recv().await.unwrap().unwrap(), [i]);
                ours.write_all(vec![i]).await.unwrap();
            }
            let handle = spawn(async { net::echoes(4, 200).await.unwrap() });
            assert_eq!(handle.await.unwrap(), 200);
        })
        .unwrap();
    });
}

/// Polls of many busy tasks, counted: how long others wait is told in these, whatever the machine's speed.
struct Round {
    began: Instant,
    polls: AtomicU64,
    /// When a timer is due, in ns since `began`, and the poll after which that was first seen.
    due_ns: AtomicU64,
    due: AtomicU64,
    /// The poll after which it called its waker.
    fired: AtomicU64,
}

impl Round {
    fn polls(&self) -> u64 {
        self.polls.load(Relaxed)
    }

    /// One poll of a busy task.
    fn spin(&self) {
        let until = Instant::now() + Duration::from_micros(50);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let polls = self.polls.fetch_add(1, Relaxed) + 1;
        if self.began.elapsed().as_nanos() as u64 >= self.due_ns.load(Relaxed) {
            let _ = self.due.compare_exchange(0, polls, Relaxed, Relaxed);
        }
    }
}

impl Wake for Round {
    fn wake(self: Arc<Self>) {
        self.fired.store(self.polls().max(1), Relaxed);
    }
}

/// Many tasks that wake themselves and take long: the quota of a turn lets timers and posts in.
#[test]
fn l6_busy_tasks_do_not_keep_timers_or_posts_out() {
    // All have their turn in 1,000 polls. A turn ends at the first look past its quota, one in 32 polls; a timer
    // may be rounded up by as long as 20 take. Whom it wakes then waits for its place: that is not counted.
    const POLLS_MAX: u64 = 100;
    in_child("l6_busy_tasks_do_not_keep_timers_or_posts_out", || {
        let settings = Settings::default().tick_quota(Duration::from_micros(500));
        let mut event_loop = EventLoop::with(settings).unwrap();
        let handle = event_loop.handle();
        event_loop.block_on(async {
            let round = Arc::new(Round {
                began: Instant::now(),
                polls: AtomicU64::new(0),
                due_ns: AtomicU64::new(u64::MAX),
                due: AtomicU64::new(0),
                fired: AtomicU64::new(0),
            });
            for _ in 0..1000 {
                let round = round.clone();
                drop(spawn(async move {
                    loop {
                        round.spin();
                        yield_now().await;
                    }
                }));
            }
            turns(2).await;
            let mut worst = 0;
            for _ in 0..20 {
                let due = round.began.elapsed() + Duration::from_millis(1);
                round.fired.store(0, Relaxed);
                round.due.store(0, Relaxed);
                round.due_ns.store(due.as_nanos() as u64, Relaxed);
                let mut timer = pin!(sleep(Duration::from_millis(1)));
                let waker = Waker::from(round.clone());
                assert!(timer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                while round.fired.load(Relaxed) == 0 {
                    yield_now().await;
                }
                let (due, fired) = (round.due.load(Relaxed), round.fired.load(Relaxed));
                worst = worst.max(if due == 0 { 0 } else { fired.saturating_sub(due) });
            }
            figure!("the latest of 20 timers came {worst} polls after it was due");
            assert!(worst <= POLLS_MAX, "{worst} polls: timers wait for the whole run queue");
            let (tell, told) = std::sync::mpsc::channel();
            let (inner, outer) = (round.clone(), round.clone());
            let thread = std::thread::spawn(move || {
                let answer = move || tell.send(inner.polls()).unwrap();
                handle.call_soon_threadsafe(0, answer).unwrap();
                outer.polls()
            });
            let mut answered = None;
            assert!(
                settled(SOON, || {
                    answered = answered.or(told.try_recv().ok());
                    answered.is_some()
                })
                .await
            );
            let waited = answered.unwrap().saturating_sub(thread.join().unwrap());
            figure!("a post to the busy core ran {waited} polls later");
            assert!(waited <= POLLS_MAX, "{waited} polls: posts wait for the whole run queue");
        });
    });
}

#[test]
fn l6_the_main_future_is_not_starved() {
    coreloop::run(async {
        let spins = Rc::new(Cell::new(0u64));
        let seen = spins.clone();
        drop(spawn(async move {
            loop {
                seen.set(seen.get() + 1);
                yield_now().await;
            }
        }));
        for _ in 0..1000 {
            yield_now().await;
        }
        let n = spins.get();
        assert!((500..=2000).contains(&n), "{n} turns of the other in 1,000 of ours");
    })
    .unwrap();
}

#[test]
fn l9_a_spawn_outside_a_loop_is_refused_with_the_future() {
    let given_back = try_spawn(async { 5 });
    let future = given_back.expect_err("no loop runs here");
    assert_eq!(coreloop::run(future).unwrap(), 5);
    let caught = std::panic::catch_unwind(|| drop(spawn(async {})));
    let payload = caught.expect_err("spawn panics outside a loop");
    let text = payload.downcast_ref::<String>().unwrap();
    assert!(text.contains("spawn") && text.contains("running loop"), "{text}");
    assert!(current_id().is_none() && current_name().is_none());
}

#[test]
fn l9_each_thread_has_the_loop_that_it_runs() {
    let other = std::thread::spawn(|| coreloop::run(async { spawn(async { 2 }).await.unwrap() }));
    let here = coreloop::run(async { spawn(async { 1 }).await.unwrap() });
    assert_eq!((here.unwrap(), other.join().unwrap().unwrap()), (1, 2));
}

#[test]
fn t10_names_and_ids_are_the_tasks_own() {
    coreloop::run(async {
        let main = current_id().expect("the main future has one");
        let named = spawn_named("worker-7", async {
            turns(1).await;
            (current_id().unwrap(), current_name().map(|n| n.to_string()))
        });
        let (id, shown) = (named.id(), named.name());
        assert_eq!(shown.as_deref(), Some("worker-7"));
        let (seen, name) = named.await.unwrap();
        assert_eq!((seen, name.as_deref()), (id, Some("worker-7")));
        let plain = spawn(async { (current_id().unwrap(), current_name()) });
        let plain_id = plain.id();
        assert_eq!(plain.await.unwrap(), (plain_id, None), "a name ends with its task");
        assert!(main != id && id != plain_id && main != plain_id);
    })
    .unwrap();
}

#[test]
fn task_spawn_a_million_tasks_leaves_no_memory_behind() {
    in_child("task_spawn_a_million_tasks_leaves_no_memory_behind", || {
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.block_on(async {
            let round = async |n: usize| {
                let mut sum = 0;
                let tasks: Vec<_> = (0..n).map(|i| spawn(async move { i })).collect();
                for task in tasks {
                    sum += task.await.unwrap();
                }
                assert_eq!(sum, n * (n - 1) / 2);
            };
            for _ in 0..5 {
                round(10_000).await;
            }
            let rss = rss_bytes();
            for _ in 0..95 {
                round(10_000).await;
            }
            let grown = rss_bytes().saturating_sub(rss);
            figure!("resident memory grew by {grown} bytes over 950,000 tasks");
            assert_memory_grew_less!(grown, 2 << 20, " over 950,000 tasks");
        });
        assert_eq!(event_loop.stats().counters.spawns, 1_000_000);
    });
}

#[test]
fn task_turn_reports_what_is_left() {
    let mut event_loop = EventLoop::new().unwrap();
    drop(event_loop.spawn(sleep(Duration::from_secs(50))));
    let mut left = 2;
    drop(event_loop.spawn(poll_fn(move |cx| {
        left -= 1;
        if left == 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })));
    let turn = event_loop.turn(Some(Duration::ZERO));
    assert_eq!((turn.ready, turn.tasks), (true, 2));
    assert!(turn.next_deadline.is_some());
    let turn = event_loop.turn(Some(Duration::ZERO));
    assert_eq!((turn.ready, turn.tasks), (false, 1));
    let began = Instant::now();
    event_loop.turn(Some(Duration::from_millis(20)));
    assert!(
        began.elapsed() >= Duration::from_millis(20),
        "nothing happened: it waits all the time"
    );
    assert!(began.elapsed() < SOON);
}

/// Whether a descriptor is readable within so many milliseconds.
#[allow(unsafe_code)]
fn readable(fd: i32, limit_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    unsafe { libc::poll(&raw mut poll, 1, limit_ms) == 1 }
}

/// The descriptor may tell of something once more than there is, but not for ever.
fn comes_to_rest(event_loop: &mut EventLoop, fd: i32) {
    for _ in 0..20 {
        if !readable(fd, 20) {
            return;
        }
        while event_loop.turn(Some(Duration::ZERO)).ready {}
    }
    panic!("the descriptor stays readable though there is nothing to do");
}

/// A loop within another one: its descriptor tells of everything that a turn would find.
#[test]
fn task_poll_fd_tells_of_data_wakes_and_posts() {
    let mut event_loop = EventLoop::new().unwrap();
    let fd = event_loop.poll_fd().unwrap();
    let handle = event_loop.handle();
    let (peer, waker) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::new(None)));
    let (peer_out, waker_out) = (peer.clone(), waker.clone());
    let received = event_loop.spawn(async move {
        let (mut ours, theirs) = net::pair();
        *peer_out.borrow_mut() = Some(theirs);
        ours.recv().await.unwrap().unwrap().len()
    });
    let mut polls = 0;
    let woken = event_loop.spawn(poll_fn(move |cx| {
        polls += 1;
        *waker_out.borrow_mut() = Some(cx.waker().clone());
        if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
    }));
    while event_loop.turn(Some(Duration::ZERO)).ready {}
    assert!(!received.is_finished() && !readable(fd, 20), "nothing has happened yet");
    // Runs the loop only when its descriptor says so, until `done`.
    let mut worst = Duration::ZERO;
    let mut until = |event_loop: &mut EventLoop, done: &dyn Fn() -> bool| {
        for _ in 0..20 {
            if done() {
                return true;
            }
            let began = Instant::now();
            assert!(readable(fd, 5000), "something happened, and the descriptor does not tell");
            // A poll that runs into its limit looks once more, and would find what it was not told of.
            worst = worst.max(began.elapsed());
            while event_loop.turn(Some(Duration::ZERO)).ready {}
        }
        done()
    };
    peer.borrow_mut().as_mut().unwrap().write_all(b"data").unwrap();
    assert!(until(&mut event_loop, &|| received.is_finished()), "data");
    comes_to_rest(&mut event_loop, fd);
    let stranger = waker.borrow_mut().take().unwrap();
    std::thread::spawn(move || stranger.wake());
    assert!(until(&mut event_loop, &|| woken.is_finished()), "a wake from another thread");
    comes_to_rest(&mut event_loop, fd);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        handle.call_soon_threadsafe(0, move || tell.send(()).unwrap()).unwrap()
    });
    assert!(until(&mut event_loop, &|| told.try_recv().is_ok()), "a post from another thread");
    assert!(
        worst < Duration::from_secs(2),
        "whoever waits on the descriptor was told after {worst:?}"
    );
}
