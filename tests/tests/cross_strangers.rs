//! Channels whose ends strangers wake, and which are used where no turn of a loop is under way.

use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use coreloop::EventLoop;
use coreloop::cross::{self, Receiver, SendError, Sender, TryRecvError};
use coreloop::time::timeout;
use coreloop_tests::drive::Drops;
use coreloop_tests::foreign::{ON_WAKE, acting};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(10);

fn poll_with<F: Future>(waker: &Waker, future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

fn panicking() -> Waker {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a stranger's waker");
        }
    }
    Arc::new(Panics).into()
}

#[test]
fn cross_a_sender_that_goes_is_known_to_be_gone_whatever_the_receivers_waker_does() {
    let (tx, mut rx) = cross::channel::<u8>(2);
    assert!(poll_with(&panicking(), pin!(rx.recv())).is_pending());
    // The future is gone, and has taken its waker along: one that stays.
    let mut receiving = Box::pin(rx.recv());
    assert!(poll_with(&panicking(), receiving.as_mut()).is_pending());
    drop(tx);
    assert_eq!(poll_with(Waker::noop(), receiving.as_mut()), Poll::Ready(None));
    drop(receiving);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn cross_a_receiver_that_goes_drops_what_is_queued_whatever_the_senders_waker_does() {
    let drops = Drops::new();
    let (mut tx, rx) = cross::channel(1);
    assert!(tx.try_send(drops.guard()).is_ok());
    let mut sending = Box::pin(tx.send(drops.guard()));
    assert!(poll_with(&panicking(), sending.as_mut()).is_pending());
    drop(rx);
    assert_eq!(drops.count(), 1, "what was queued");
    let sent = poll_with(Waker::noop(), sending.as_mut());
    assert!(matches!(sent, Poll::Ready(Err(SendError(_)))));
    drop(sent);
    assert_eq!(drops.count(), 2, "and what came back");
}

#[test]
fn cross_a_value_is_received_whatever_the_senders_waker_does() {
    let (mut tx, mut rx) = cross::channel(1);
    tx.try_send(1).unwrap();
    let mut sending = Box::pin(tx.send(2));
    assert!(poll_with(&panicking(), sending.as_mut()).is_pending());
    assert_eq!(rx.try_recv(), Ok(1));
    assert_eq!(poll_with(Waker::noop(), sending.as_mut()), Poll::Ready(Ok(())));
    assert_eq!(rx.try_recv(), Ok(2));
}

type Shared<T> = Rc<RefCell<Sender<T>>>;

fn shared<T: Send + 'static>(capacity: usize) -> (Shared<T>, Receiver<T>) {
    let (tx, rx) = cross::channel(capacity);
    (Rc::new(RefCell::new(tx)), rx)
}

/// A main future's destructor runs after the last turn.
#[test]
fn cross_what_a_main_future_sends_when_it_is_dropped_is_sent() {
    struct SendsTwo(Shared<u8>);
    impl Drop for SendsTwo {
        fn drop(&mut self) {
            self.0.borrow_mut().try_send(2).unwrap();
        }
    }
    let (tx, mut rx) = shared(8);
    let guard = SendsTwo(tx.clone());
    EventLoop::new().unwrap().block_on(poll_fn(move |_| {
        guard.0.borrow_mut().try_send(1).unwrap();
        Poll::Ready(())
    }));
    assert_eq!((rx.try_recv(), rx.try_recv()), (Ok(1), Ok(2)));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty), "the sender lives");
    drop(tx);
}

#[test]
fn cross_what_a_main_future_sent_before_it_panicked_is_sent() {
    let (tx, mut rx) = shared(8);
    let sends = tx.clone();
    let mut event_loop = EventLoop::new().unwrap();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        event_loop.block_on(async move {
            sends.borrow_mut().try_send(1).unwrap();
            sends.borrow_mut().try_send(2).unwrap();
            panic!("after two");
        })
    }));
    assert!(ended.is_err());
    assert_eq!((rx.try_recv(), rx.try_recv()), (Ok(1), Ok(2)));
    drop(tx);
}

/// What wakers send that are called when a turn sends what its polls have put.
#[test]
fn cross_a_core_does_not_sleep_on_what_wakers_sent() {
    let ((to_a, mut a), (to_b, mut b), (to_other, mut other)) = (shared(8), shared(8), shared(8));
    let (mut answer, mut answered) = cross::channel(1);
    let thread = thread::spawn(move || {
        let mut sum = 0;
        while sum < 10 {
            match other.try_recv() {
                Ok(n) => sum += n,
                Err(TryRecvError::Empty) => thread::yield_now(),
                Err(TryRecvError::Disconnected) => return,
            }
        }
        answer.try_send(()).unwrap();
    });
    let heard = EventLoop::new().unwrap().block_on(async {
        // The first of a poll goes at once; those after it when the poll ends, or later.
        to_other.borrow_mut().try_send(1).unwrap();
        to_b.borrow_mut().try_send(0).unwrap();
        to_a.borrow_mut().try_send(0).unwrap();
        assert_eq!((a.try_recv(), b.try_recv()), (Ok(0), Ok(0)));
        let (mut from_a, mut from_b) = (Box::pin(a.recv()), Box::pin(b.recv()));
        assert!(poll_with(&acting(), from_a.as_mut()).is_pending());
        assert!(poll_with(&acting(), from_b.as_mut()).is_pending());
        let (to_b, to_other) = (to_b.clone(), to_other.clone());
        ON_WAKE.set(Some(Box::new(move || {
            let to_other = to_other.clone();
            ON_WAKE.set(Some(Box::new(move || to_other.borrow_mut().try_send(9).unwrap())));
            to_b.borrow_mut().try_send(1).unwrap();
        })));
        to_a.borrow_mut().try_send(1).unwrap();
        timeout(LONG, answered.recv()).await
    });
    assert_eq!(heard.ok(), Some(Some(())), "the core sleeps, and nobody has the 9");
    drop((to_a, to_b, to_other));
    thread.join().unwrap();
}
