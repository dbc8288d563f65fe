//! Turns in which nothing but tasks is polled: what they leave out for a while comes after few polls.
//!
//! Everything is counted in polls of a task that wakes itself, from the moment at which it sees that
//! something is due; so nothing depends on how fast the machine is.

use std::cell::Cell;
use std::io::Read;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::time::Duration;

use coreloop::time::{Instant, sleep_until};
use coreloop::{EventLoop, Settings, spawn, yield_now};
use coreloop_tests::{net, poll_once};

/// Two looks at everything, and the turns at either end.
const POLLS_MAX: u32 = 2 * 32 + 4;
/// When a test gives up.
const GIVE_UP: u32 = 5_000_000;

/// Wakes itself until `done`; how many polls there were since `due` held.
async fn polls_since(due: impl Fn() -> bool, done: impl Fn() -> bool) -> u32 {
    let mut polls = 0;
    for _ in 0..GIVE_UP {
        if done() {
            return polls;
        }
        polls += u32::from(polls > 0 || due());
        yield_now().await;
    }
    GIVE_UP
}

#[test]
fn l6_task_quiet_turns_keep_no_timer_out() {
    coreloop::run(async {
        for _ in 0..10 {
            let fired = Rc::new(Cell::new(false));
            let deadline = Instant::now() + Duration::from_millis(3);
            let says_so = fired.clone();
            let sleeper = spawn(async move {
                sleep_until(deadline).await;
                says_so.set(true);
            });
            // Timers fire at the wheel's ticks, which lie a millisecond apart.
            let due = deadline + Duration::from_millis(1);
            let spinner = spawn(polls_since(move || Instant::now() >= due, move || fired.get()));
            let polls = spinner.await.unwrap();
            assert!(polls <= POLLS_MAX, "{polls} polls went before a timer that was due");
            sleeper.await.unwrap();
        }
    })
    .unwrap();
}

#[test]
fn l6_task_quiet_turns_keep_no_wake_from_elsewhere_out() {
    coreloop::run(async {
        for _ in 0..10 {
            let (to_thread, wakers) = mpsc::channel::<Waker>();
            let (was_woken, went_on) =
                (Arc::new(AtomicBool::new(false)), Rc::new(Cell::new(false)));
            let (says_so, also_says_so) = (was_woken.clone(), went_on.clone());
            let thread = std::thread::spawn(move || {
                let waker = wakers.recv().unwrap();
                std::thread::sleep(Duration::from_millis(1));
                waker.wake();
                says_so.store(true, Ordering::SeqCst);
            });
            let woken = spawn(async move {
                let mut first = true;
                std::future::poll_fn(move |cx| {
                    if std::mem::take(&mut first) {
                        to_thread.send(cx.waker().clone()).unwrap();
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                })
                .await;
                also_says_so.set(true);
            });
            let due = move || was_woken.load(Ordering::SeqCst);
            let polls = spawn(polls_since(due, move || went_on.get())).await.unwrap();
            assert!(polls <= POLLS_MAX, "{polls} polls went before a wake that had come");
            woken.await.unwrap();
            thread.join().unwrap();
        }
    })
    .unwrap();
}

#[test]
fn t3_task_quiet_turns_submit_what_was_asked_for_before_the_next() {
    let queues = Settings::default().direct_sends(0);
    EventLoop::with(queues).unwrap().block_on(async {
        // The write falls into the first turn of a series, the last one, and all between.
        for before in 0..40 {
            let (mut ours, mut theirs) = net::pair();
            theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let writer = spawn(async move {
                for _ in 0..before {
                    yield_now().await;
                }
                {
                    let mut write = pin!(ours.write_all(vec![7]));
                    assert!(poll_once(write.as_mut()).await.is_pending());
                    write.await.unwrap();
                }
                ours
            });
            let reader = spawn(async move {
                for _ in 0..before {
                    yield_now().await;
                }
                yield_now().await;
                // It blocks the loop: what the kernel does not have by now it does not get.
                let mut byte = [0];
                theirs.read_exact(&mut byte).map(|()| byte[0]).ok()
            });
            assert_eq!(reader.await.unwrap(), Some(7), "after {before} turns");
            drop(writer.await.unwrap());
        }
    });
}
