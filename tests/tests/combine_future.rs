//! Futures that somebody else completes (F1, F2): once, for all who wait, cancelled, abandoned.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use coreloop::combine::{Awaitable, FutureError, future, gather_handles, shield};
use coreloop::spawn;
use coreloop::time::{sleep, timeout};
use coreloop_tests::drive::{tens, virtually};
use coreloop_tests::turns;

#[test]
fn f1_a_future_is_completed_once_for_all_who_wait() {
    virtually(async || {
        let (completer, awaitable) = future::<String>();
        let waiting = (0..3).map(|_| {
            let awaitable = awaitable.clone();
            spawn(async move { awaitable.await.unwrap() })
        });
        let waiting: Vec<_> = waiting.collect();
        turns(3).await;
        assert!(!awaitable.is_done() && !completer.is_done() && awaitable.peek().is_none());
        completer.complete("value".into()).unwrap();
        assert!(awaitable.is_done() && completer.is_done());
        let e = completer.complete("second".into()).unwrap_err();
        assert!(!e.was_cancelled() && e.to_string().contains("already"));
        assert_eq!(e.into_value(), "second");
        for result in gather_handles(waiting).await {
            assert_eq!(result.unwrap(), "value");
        }
        assert_eq!(awaitable.peek().unwrap().unwrap(), "value");
        drop(completer);
        assert_eq!(awaitable.clone().await.unwrap(), "value", "dropped after it was completed");
        assert!(!awaitable.cancel());
    });
}

#[test]
fn f1_a_future_is_completed_with_an_error() {
    virtually(async || {
        let (completer, awaitable) = future::<Result<u8, &'static str>>();
        drop(spawn(async move {
            sleep(tens(2)).await;
            completer.complete(Err("refused")).unwrap();
        }));
        assert_eq!(awaitable.await, Ok(Err("refused")));
    });
}

#[test]
fn f1_a_dropped_completer_is_an_error_not_a_hang() {
    virtually(async || {
        let (completer, awaitable) = future::<u8>();
        let waits = spawn(awaitable.clone());
        turns(2).await;
        drop(completer);
        assert_eq!(waits.await.unwrap(), Err(FutureError::Abandoned));
        assert!(awaitable.is_done() && !awaitable.is_cancelled());
        assert_eq!(awaitable.peek(), Some(Err(FutureError::Abandoned)));
        // Also when its task is cancelled, or panics.
        let (completer, awaitable) = future::<u8>();
        drop(spawn(async move {
            let _completer = completer;
            panic!("before it was completed");
        }));
        assert_eq!(awaitable.await, Err(FutureError::Abandoned));
    });
}

#[test]
fn f1_a_future_is_cancelled_from_either_end() {
    virtually(async || {
        let (completer, awaitable) = future::<u8>();
        let waits = spawn(awaitable.clone());
        turns(2).await;
        assert!(completer.cancel() && !completer.cancel());
        assert_eq!(waits.await.unwrap(), Err(FutureError::Cancelled));
        let (completer, awaitable) = future::<u8>();
        assert!(awaitable.cancel() && completer.is_cancelled());
        let e = completer.complete(7).unwrap_err();
        assert!(e.was_cancelled() && e.into_value() == 7);
    });
}

#[test]
fn t7_a_cancel_travels_into_a_future_and_stops_at_a_shield() {
    virtually(async || {
        let awaiting = |a: Awaitable<u8>| spawn(async move { a.await.is_ok() });
        let (completer, awaitable) = future::<u8>();
        let outer = awaiting(awaitable.clone());
        turns(2).await;
        outer.cancel();
        assert!(outer.await.is_err());
        assert!(completer.is_cancelled() && awaitable.is_cancelled());
        // Merely held.
        let (completer, awaitable) = future::<u8>();
        let held = awaitable.clone();
        let outer = spawn(async move {
            let _held = held;
            sleep(tens(100)).await;
        });
        turns(2).await;
        outer.cancel();
        assert!(outer.await.is_err() && !completer.is_cancelled());
        // Shielded.
        let outer = spawn(async move { shield(awaitable).await.is_ok() });
        turns(2).await;
        outer.cancel();
        assert!(outer.await.is_err() && !completer.is_cancelled());
    });
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn f1_a_future_wakes_the_waker_it_was_polled_with_last() {
    let counts: [_; 2] = std::array::from_fn(|_| Arc::new(Count(AtomicUsize::new(0))));
    let wakers: Vec<Waker> = counts.iter().map(|c| Waker::from(c.clone())).collect();
    let (completer, awaitable) = future::<u8>();
    let mut one = pin!(awaitable.clone());
    for waker in [&wakers[0], &wakers[1], &wakers[1]] {
        assert!(one.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    // Those that were dropped are not woken, and their places are used again.
    for _ in 0..3 {
        let mut gone = Box::pin(awaitable.clone());
        assert!(gone.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
    }
    completer.complete(1).unwrap();
    let woken: Vec<_> = counts.iter().map(|c| c.0.load(Ordering::SeqCst)).collect();
    assert_eq!(woken, [0, 1]);
    drop((completer, awaitable));
    assert_eq!(Arc::strong_count(&counts[0]), 2, "the test's two");
}

#[test]
fn f1_a_waker_that_panics_harms_no_other() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let (completer, awaitable) = future::<u8>();
    let (mut one, mut two) = (pin!(awaitable.clone()), pin!(awaitable));
    let (bad, good) = (Waker::from(Arc::new(Bad)), Waker::from(count.clone()));
    assert!(one.as_mut().poll(&mut Context::from_waker(&bad)).is_pending());
    assert!(two.as_mut().poll(&mut Context::from_waker(&good)).is_pending());
    completer.complete(3).unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(one.as_mut().poll(&mut cx), Poll::Ready(Ok(3)));
}

#[test]
fn f1_a_clone_of_the_value_may_use_the_future() {
    thread_local! {
        static SEEN: Cell<usize> = const { Cell::new(0) };
    }
    struct Nosy(Rc<RefCell<Option<Awaitable<Nosy>>>>);
    impl Clone for Nosy {
        fn clone(&self) -> Self {
            let own = self.0.borrow().clone();
            SEEN.set(SEEN.get() + usize::from(own.is_some_and(|a| a.is_done())));
            Self(self.0.clone())
        }
    }
    virtually(async || {
        let (completer, awaitable) = future();
        let own = Rc::new(RefCell::new(Some(awaitable.clone())));
        completer.complete(Nosy(own.clone())).unwrap();
        assert!(awaitable.await.is_ok());
        assert_eq!(SEEN.get(), 1);
        own.borrow_mut().take();
    });
}

#[test]
fn f2_whatever_waits_takes_anything_that_can_be_awaited() {
    virtually(async || {
        let (completer, awaitable) = future();
        completer.complete(4).unwrap();
        assert_eq!(timeout(tens(1), awaitable.clone()).await, Ok(Ok(4)));
        assert!(timeout(tens(2), spawn(sleep(tens(1)))).await.unwrap().is_ok());
        assert_eq!(timeout(tens(2), sleep(tens(1))).await, Ok(()));
        assert_eq!(timeout(tens(2), async { 5 }).await, Ok(5));
        let of_any = coreloop::combine::gather([awaitable]).await;
        assert_eq!(of_any.into_iter().next().unwrap().unwrap(), Ok(4));
    });
}
