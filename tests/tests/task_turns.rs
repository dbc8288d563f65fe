//! When tasks run: at which turn, in which order, and what the kernel has by then (L6, T1 to T4).

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use coreloop::time::{Instant, sleep};
use coreloop::{EventLoop, Settings, StatsLevel, spawn, yield_now};
use coreloop_net::TcpStream;
use coreloop_tests::drive::Drops;

const SECOND: Duration = Duration::from_secs(1);

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    fn say(&self, what: &'static str) {
        self.0.borrow_mut().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.borrow_mut())
    }

    /// A task that says `first`, gives way, and says `second`.
    fn two_steps(
        &self,
        first: &'static str,
        second: &'static str,
    ) -> impl Future<Output = ()> + use<> {
        let log = self.clone();
        async move {
            log.say(first);
            yield_now().await;
            log.say(second);
        }
    }
}

#[coreloop::test(sim)]
async fn t1_one_after_the_other_takes_the_sum_and_tasks_the_longer_one() {
    let began = Instant::now();
    sleep(2 * SECOND).await;
    sleep(3 * SECOND).await;
    let sum = began.elapsed();
    assert!(sum >= 5 * SECOND && sum < 5 * SECOND + SECOND / 100, "{sum:?}");
    let began = Instant::now();
    let (a, b) = (spawn(sleep(2 * SECOND)), spawn(sleep(3 * SECOND)));
    a.await.unwrap();
    b.await.unwrap();
    let longer = began.elapsed();
    assert!(longer >= 3 * SECOND && longer < 3 * SECOND + SECOND / 100, "{longer:?}");
}

#[test]
fn t2_a_spawned_task_starts_at_the_next_turn() {
    coreloop::run(async {
        let log = Log::default();
        let task = spawn(log.two_steps("a", "A"));
        log.say("spawned");
        std::future::ready(()).await;
        log.say("still nobody else");
        task.await.unwrap();
        assert_eq!(log.take(), ["spawned", "still nobody else", "a", "A"]);
        // From within a task too, and behind all that were ready.
        let (inner, outer) = (log.clone(), log.clone());
        let parent = spawn(async move {
            drop(spawn(async move { inner.say("child") }));
            outer.say("parent");
        });
        let sibling = spawn(log.two_steps("sibling", "sibling again"));
        parent.await.unwrap();
        sibling.await.unwrap();
        assert_eq!(log.take(), ["parent", "sibling", "child", "sibling again"]);
    })
    .unwrap();
}

#[test]
fn t2_a_future_that_nobody_awaits_does_nothing() {
    coreloop::run(async {
        let log = Log::default();
        drop(log.two_steps("never", "never"));
        yield_now().await;
        assert_eq!(log.take(), [""; 0]);
    })
    .unwrap();
}

#[test]
fn t3_what_others_ask_for_is_in_the_kernel_when_the_one_that_gave_way_goes_on() {
    for zero in [false, true] {
        coreloop::run(async {
            let peer = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stream = TcpStream::connect(peer.local_addr().unwrap()).await.unwrap();
            let (mut near, _) = peer.accept().unwrap();
            near.set_nonblocking(true).unwrap();
            drop(spawn(async move { stream.write_all(b"asked for").await.unwrap() }));
            match zero {
                false => yield_now().await,
                true => sleep(Duration::ZERO).await,
            }
            let mut bytes = [0; 9];
            near.read_exact(&mut bytes).expect("the kernel has sent it");
            assert_eq!(&bytes, b"asked for");
        })
        .unwrap();
    }
}

#[test]
fn t3_giving_way_is_for_one_turn_and_in_order() {
    coreloop::run(async {
        let log = Log::default();
        let tasks = [("a", "A"), ("b", "B"), ("c", "C")].map(|(x, y)| spawn(log.two_steps(x, y)));
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(log.take(), ["a", "b", "c", "A", "B", "C"]);
        // One that is woken while another gives way goes first.
        let task = spawn(log.two_steps("woken", "gave way"));
        yield_now().await;
        log.say("main");
        task.await.unwrap();
        assert_eq!(log.take(), ["woken", "main", "gave way"]);
    })
    .unwrap();
}

#[test]
fn t4_the_main_futures_end_ends_the_program() {
    let drops = Drops::new();
    let (log, guard) = (Log::default(), drops.guard());
    let (unfinished, never) = (log.clone(), log.clone());
    coreloop::run(async {
        drop(spawn(async move {
            let _guard = guard;
            unfinished.say("begun");
            sleep(3600 * SECOND).await;
            unfinished.say("done");
        }));
        yield_now().await;
        let guard = drops.guard();
        drop(spawn(async move {
            let _guard = guard;
            never.say("never");
        }));
    })
    .unwrap();
    assert_eq!(log.take(), ["begun"]);
    assert_eq!(drops.count(), 2, "destructors have run");
}

#[test]
fn t4_what_is_due_in_the_turn_in_which_the_main_future_ends_does_not_run() {
    let log = Log::default();
    let mut event_loop = EventLoop::new().unwrap();
    let later = log.two_steps("later", "later still");
    event_loop.block_on(async {
        drop(spawn(later));
        yield_now().await;
    });
    assert_eq!(log.take(), ["later"]);
    // Here it goes on: the loop is driven again.
    event_loop.block_on(yield_now());
    assert_eq!(log.take(), ["later still"]);
}

#[coreloop::test(sim)]
async fn t4_awaiting_the_shorter_does_not_wait_for_the_longer() {
    let log = Log::default();
    let say = |after: Duration, what| {
        let log = log.clone();
        spawn(async move {
            sleep(after).await;
            log.say(what);
        })
    };
    let (short, long) = (say(SECOND, "short"), say(2 * SECOND, "long"));
    short.await.unwrap();
    assert_eq!(log.take(), ["short"]);
    long.await.unwrap();
    assert_eq!(log.take(), ["long"]);
}

#[test]
fn l6_the_main_future_has_its_place_in_the_order() {
    coreloop::run(async {
        let log = Log::default();
        let (completer, told) = coreloop::combine::future();
        let (early, late) = (log.clone(), log.clone());
        let first = told.clone();
        drop(spawn(async move {
            first.await.unwrap();
            early.say("woken before the main future");
        }));
        drop(spawn(async move {
            yield_now().await;
            completer.complete(()).unwrap();
            late.say("completes");
        }));
        yield_now().await;
        told.await.unwrap();
        log.say("main");
        assert_eq!(log.take(), ["completes", "woken before the main future", "main"]);
    })
    .unwrap();
}

/// Not even for one poll: the end of the main future is the end of the program.
#[test]
fn t4_what_was_never_given_way_to_never_starts() {
    let (began, drops) = (Rc::new(Cell::new(0)), Drops::new());
    let (count, outer) = (began.clone(), drops.clone());
    coreloop::run(async move {
        for _ in 0..3 {
            let (count, guard) = (count.clone(), outer.guard());
            drop(spawn(async move {
                let _guard = guard;
                count.set(count.get() + 1);
            }));
        }
    })
    .unwrap();
    assert_eq!((began.get(), drops.count()), (0, 3));
    // What a drive leaves behind begins in the next.
    let mut event_loop = EventLoop::new().unwrap();
    let (count, left) = (began.clone(), Rc::new(Cell::new(None)));
    let leave = left.clone();
    event_loop.block_on(async move {
        leave.set(Some(spawn(async move { count.set(count.get() + 1) })));
    });
    assert_eq!(began.get(), 0);
    event_loop.block_on(left.take().unwrap()).unwrap();
    assert_eq!(began.get(), 1);
}

/// What the order of a run may not depend on: whether polls are timed, which takes every turn as a whole.
#[test]
fn t4_the_turn_in_which_the_main_future_ends_leaves_the_same_order_quiet_or_not() {
    let order = |level, wakes: u32| {
        let mut event_loop = EventLoop::with(Settings::default().stats(level)).unwrap();
        let (log, waiting) = (Log::default(), Rc::new(RefCell::new(None::<Waker>)));
        let (behind, place) = (log.clone(), waiting.clone());
        let _woken = event_loop.spawn(async move {
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                *place.borrow_mut() = Some(cx.waker().clone());
                polls += 1;
                if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            behind.say("woken behind main");
        });
        let gives = log.clone();
        let _gives_way = event_loop.spawn(async move {
            for _ in 0..20 {
                yield_now().await;
                gives.say("gave way");
            }
        });
        let (mut polls, end) = (0, log.clone());
        event_loop.block_on(std::future::poll_fn(move |cx| {
            polls += 1;
            if polls > wakes {
                end.take();
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            if polls == wakes {
                waiting.borrow().as_ref().unwrap().wake_by_ref();
            }
            Poll::Pending
        }));
        event_loop.block_on(async {
            yield_now().await;
            yield_now().await;
        });
        log.take()
    };
    for wakes in 2..9 {
        let quiet = order(StatsLevel::Counters, wakes);
        assert!(quiet.contains(&"woken behind main") && quiet.contains(&"gave way"));
        assert_eq!(quiet, order(StatsLevel::Histograms, wakes), "{wakes} turns before");
    }
}
