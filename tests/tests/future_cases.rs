//! Corner cases of futures (F1) that CPython's tests know: their states, who is woken, code that comes back.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use coreloop::combine::{Awaitable, FutureError, future};
use coreloop_tests::by_hand::now;

#[test]
fn f1_the_states_of_a_future() {
    let (completer, awaitable) = future::<u8>();
    assert!(!awaitable.is_done() && !awaitable.is_cancelled() && awaitable.peek().is_none());
    assert!(format!("{awaitable:?}").contains("done: false"));
    // Cancelled: a value is refused, and so is another cancel.
    assert!(awaitable.cancel());
    assert!(awaitable.is_cancelled() && awaitable.is_done());
    assert_eq!(awaitable.peek(), Some(Err(FutureError::Cancelled)));
    assert!(completer.complete(1).is_err_and(|e| e.was_cancelled() && e.into_value() == 1));
    assert!(!awaitable.cancel() && awaitable.is_cancelled(), "a late value changes nothing");
    assert!(format!("{awaitable:?} {completer:?}").contains("done: true"));
    // A value, and an error: done, not cancelled, once.
    for end in [Ok(42), Err("boom")] {
        let (completer, awaitable) = future::<Result<u8, &str>>();
        completer.complete(end).unwrap();
        assert!(awaitable.is_done() && !awaitable.is_cancelled());
        assert_eq!(awaitable.peek(), Some(Ok(&end)));
        assert_eq!(now(awaitable.clone()), Ok(end));
        assert!(completer.complete(Ok(7)).is_err_and(|e| !e.was_cancelled()));
        assert!(!awaitable.cancel() && !completer.cancel());
    }
}

/// Notes its number when it is woken, and then does what it was made for.
struct Noted {
    number: u32,
    log: Arc<Mutex<Vec<u32>>>,
}

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.log.lock().unwrap().push(self.number);
    }
}

fn wait(awaitable: &mut Awaitable<&'static str>, number: u32, log: &Arc<Mutex<Vec<u32>>>) {
    let waker = Waker::from(Arc::new(Noted { number, log: log.clone() }));
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(awaitable).poll(&mut cx).is_pending());
}

#[test]
fn f1_those_who_stopped_waiting_are_not_woken_the_others_in_order() {
    // Which of three leave, and who is woken.
    let cases: [(&[usize], &[u32]); 5] = [
        (&[0], &[17, 100]),
        (&[0, 1], &[100]),
        (&[2], &[42, 17]),
        (&[], &[42, 17, 100]),
        (&[0, 1, 2], &[]),
    ];
    for (leave, woken) in cases {
        let log = Arc::default();
        let (completer, awaitable) = future();
        let mut waiting: Vec<_> = (0..3).map(|_| Some(awaitable.clone())).collect();
        for (one, number) in waiting.iter_mut().zip([42, 17, 100]) {
            wait(one.as_mut().unwrap(), number, &log);
        }
        for at in leave {
            waiting[*at] = None;
        }
        assert!(log.lock().unwrap().is_empty());
        completer.complete("foo").unwrap();
        assert_eq!(*log.lock().unwrap(), woken, "without {leave:?}");
        assert_eq!(now(awaitable), Ok("foo"));
    }
}

#[test]
fn f1_one_waiter_is_woken_once_however_often_it_asked() {
    let log = Arc::default();
    let (completer, mut awaitable) = future();
    for _ in 0..5 {
        wait(&mut awaitable, 1, &log);
    }
    let mut other = awaitable.clone();
    wait(&mut other, 2, &log);
    completer.complete("foo").unwrap();
    assert_eq!(*log.lock().unwrap(), [1, 2]);
}

thread_local! {
    /// What a waker of [`Meddles`] drops and polls.
    static REST: RefCell<Vec<Awaitable<&'static str>>> = const { RefCell::new(Vec::new()) };
    static SOURCE: RefCell<Option<Awaitable<&'static str>>> = const { RefCell::new(None) };
}

/// A waker that makes others leave and come, whatever is done with it.
struct Meddles(Arc<Mutex<Vec<u32>>>);

impl Meddles {
    fn meddle(&self) {
        drop(REST.take());
        let Some(mut another) = SOURCE.with_borrow(Clone::clone) else { return };
        let waker = Waker::from(Arc::new(Noted { number: 7, log: self.0.clone() }));
        let polled = Pin::new(&mut another).poll(&mut Context::from_waker(&waker));
        assert!(matches!(polled, Poll::Ready(Ok("foo")) | Poll::Pending));
        REST.set(vec![another]);
    }
}

impl Wake for Meddles {
    fn wake(self: Arc<Self>) {
        self.meddle();
    }
}

impl Drop for Meddles {
    fn drop(&mut self) {
        self.meddle();
    }
}

#[test]
fn f1_a_waker_may_make_others_leave_and_come() {
    for by_drop in [false, true] {
        let log = Arc::default();
        let (completer, awaitable) = future();
        let mut first = awaitable.clone();
        let waker = Waker::from(Arc::new(Meddles(Arc::clone(&log))));
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        let mut rest: Vec<_> = (0..63).map(|_| awaitable.clone()).collect();
        for (number, one) in rest.iter_mut().enumerate() {
            wait(one, number as u32, &log);
        }
        REST.set(rest);
        SOURCE.set(Some(awaitable.clone()));
        if by_drop {
            drop(first);
            assert_eq!(REST.with_borrow(Vec::len), 1, "it meddled");
        }
        completer.complete("foo").unwrap();
        let woken = log.lock().unwrap().clone();
        if by_drop {
            assert_eq!(woken, [7], "those who left are not woken, the one who came is");
        } else {
            assert!(woken.len() <= 63 && !woken.contains(&64), "nobody twice: {woken:?}");
        }
        assert_eq!(now(awaitable), Ok("foo"));
        SOURCE.take();
        REST.take();
    }
}

#[test]
fn f1_a_values_destructor_may_use_futures() {
    struct Evil(Rc<RefCell<Vec<u8>>>);
    impl Drop for Evil {
        fn drop(&mut self) {
            let (completer, awaitable) = future::<u8>();
            completer.complete(1).unwrap();
            self.0.borrow_mut().extend(now(awaitable));
        }
    }
    let seen = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..100 {
        let (completer, awaitable) = future();
        completer.complete(Rc::new(Evil(seen.clone()))).unwrap();
        drop((completer, awaitable));
    }
    assert_eq!(seen.borrow().len(), 100);
}
