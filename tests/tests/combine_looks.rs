//! How often a set of tasks looks at them: once at the outset, then at those that have ended.
//!
//! A look at a task that still runs takes the set's waker along. So the sets are polled with a waker that is
//! another one each time, and its clones are counted: a set that looks at all its tasks whenever one ends
//! needs some n * n / 2 of them, one that is told which has ended a few for each poll.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use coreloop::combine::{When, as_completed, gather_handles, try_gather_handles, try_wait, wait};
use coreloop::spawn;
use coreloop::sync::Event;
use coreloop::task::JoinHandle;
use coreloop_tests::turns;

/// A waker of its own for each that is made, which counts its clones.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn waker(clones: &Arc<AtomicUsize>) -> Waker {
        fn raw(counted: Counted) -> RawWaker {
            RawWaker::new(Box::into_raw(Box::new(counted)).cast_const().cast(), &VTABLE)
        }
        #[allow(unsafe_code)]
        static VTABLE: RawWakerVTable = RawWakerVTable::new(
            |data| {
                // SAFETY: made by `raw` and not dropped yet.
                let counted = unsafe { &*data.cast::<Counted>() };
                counted.0.fetch_add(1, Ordering::Relaxed);
                raw(Counted(counted.0.clone()))
            },
            // SAFETY: made by `raw`, and this is the waker's end.
            |data| drop(unsafe { Box::from_raw(data.cast_mut().cast::<Counted>()) }),
            |_| (),
            // SAFETY: as above.
            |data| drop(unsafe { Box::from_raw(data.cast_mut().cast::<Counted>()) }),
        );
        // SAFETY: the functions of VTABLE keep the contract; the count is `Send` and `Sync`.
        #[allow(unsafe_code)]
        unsafe {
            Waker::from_raw(raw(Self(clones.clone())))
        }
    }
}

/// Tasks that end when they are told to, each giving its number.
struct Tasks {
    events: Vec<Rc<Event>>,
}

impl Tasks {
    fn new() -> (Self, Vec<JoinHandle<Result<usize, usize>>>) {
        let events: Vec<_> = (0..N).map(|_| Rc::new(Event::new())).collect();
        let spawned = events.iter().enumerate().map(|(i, event)| {
            let event = event.clone();
            spawn(async move {
                event.wait().await;
                Ok(i)
            })
        });
        let handles = spawned.collect();
        (Self { events }, handles)
    }

    /// Ends the tasks one after the other, the last first, and polls `set` after each. How often wakers were
    /// cloned.
    async fn end_each<F: Future>(&self, mut set: Pin<&mut F>) -> usize {
        let clones = Arc::new(AtomicUsize::new(0));
        for event in self.events.iter().rev() {
            let waker = Counted::waker(&clones);
            let polled = set.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            event.set();
            turns(2).await;
        }
        let waker = Counted::waker(&clones);
        assert!(set.poll(&mut Context::from_waker(&waker)).is_ready());
        clones.load(Ordering::Relaxed)
    }
}

const N: usize = 300;
/// For each poll one clone for the set, and as many again for the first look.
const CLONES_MAX: usize = 3 * N;

#[test]
fn g1_gathers_look_once_at_each_task() {
    coreloop::run(async {
        let (tasks, handles) = Tasks::new();
        let clones = tasks.end_each(pin!(gather_handles(handles))).await;
        assert!(clones <= CLONES_MAX, "gather: {clones}");
        let (tasks, handles) = Tasks::new();
        let clones = tasks.end_each(pin!(try_gather_handles(handles))).await;
        assert!(clones <= CLONES_MAX, "try_gather: {clones}");
    })
    .unwrap();
}

#[test]
fn g5_as_completed_looks_once_at_each_task() {
    coreloop::run(async {
        let (tasks, handles) = Tasks::new();
        let mut ended = as_completed(handles);
        let order = pin!(async {
            let mut order = Vec::new();
            while let Some((input, result)) = ended.next().await {
                assert!(matches!(result, Ok(Ok(i)) if i == input));
                order.push(input);
            }
            assert!(order.into_iter().rev().eq(0..N));
        });
        let clones = tasks.end_each(order).await;
        assert!(clones <= CLONES_MAX, "{clones}");
    })
    .unwrap();
}

#[test]
fn g6_wait_looks_once_at_each_task() {
    coreloop::run(async {
        let (tasks, mut handles) = Tasks::new();
        let clones = tasks.end_each(pin!(wait(&mut handles, When::AllCompleted, None))).await;
        assert!(clones <= CLONES_MAX, "wait: {clones}");
        let (tasks, mut handles) = Tasks::new();
        let clones = tasks.end_each(pin!(try_wait(&mut handles, When::FirstError, None))).await;
        assert!(clones <= CLONES_MAX, "try_wait: {clones}");
    })
    .unwrap();
}
