//! What the primitives cost and whom they call: no allocation where nobody waits, none after the first wait,
//! and wakers that panic, or that use the primitive while it wakes, clones or drops them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use coreloop::sync::{Barrier, Condition, Event, Mutex, OnceCell, Queue, RwLock, Semaphore, mpsc};
use coreloop_tests::{ByHand, now};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it is; counting touches a thread-local without a
// destructor only.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn p1_costs_nothing_is_allocated_where_nobody_waits() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1, "the count counts");
    let (fifo, (tx, mut rx)) = (Queue::bounded(4), mpsc::channel(4));
    let warm = || {
        fifo.try_put(0).unwrap();
        now(fifo.get()).unwrap();
    };
    warm();
    tx.try_send(0).unwrap();
    now(rx.recv()).unwrap();
    let count = allocations(|| {
        let mutex = Mutex::new(0);
        *now(mutex.lock()) += 1;
        drop(mutex.try_lock());
        let lock = RwLock::new(0);
        drop((now(lock.read()), now(lock.read())));
        drop(now(lock.write()));
        let semaphore = Semaphore::new(2);
        drop((now(semaphore.acquire()), semaphore.try_acquire()));
        drop(now(semaphore.acquire_many(2)));
        let event = Event::new();
        event.set();
        now(event.wait());
        let (cell, condition) = (OnceCell::new(), Condition::new());
        now(cell.get_or_init(async || 1));
        condition.notify_all();
        drop(now(condition.wait_for(now(mutex.lock()), |n| *n == 1)));
        now(Barrier::new(1).wait()).unwrap();
        warm();
        now(fifo.put(1)).unwrap();
        fifo.try_get().unwrap();
        now(tx.send(1)).unwrap();
        now(rx.recv()).unwrap();
    });
    assert_eq!(count, 0);
}

#[test]
fn p1_costs_only_the_first_wait_allocates() {
    let (mutex, event, queue) = (Mutex::new(()), Event::new(), Queue::bounded(1));
    let round = || {
        let mut cx = Context::from_waker(Waker::noop());
        let held = now(mutex.lock());
        let mut waiting = pin!(mutex.lock());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(held);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
        let mut waiting = pin!(event.wait());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        event.set();
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
        event.clear();
        let mut waiting = pin!(queue.get());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        queue.try_put(1).unwrap();
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(Ok(1)));
    };
    assert!(allocations(round) > 0);
    assert_eq!(allocations(|| (0..100).for_each(|_| round())), 0);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("a waker that panics when it is dropped");
    }
}

#[test]
fn p1_wakers_that_panic_keep_nobody_else_from_being_woken() {
    let event = Event::new();
    let bad = std::mem::ManuallyDrop::new(Waker::from(Arc::new(Panics)));
    let mut first = Box::pin(event.wait());
    assert!(first.as_mut().poll(&mut Context::from_waker(&bad)).is_pending());
    let second = ByHand::pending(event.wait());
    event.set();
    second.finish();
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    // The last reference goes with the waiter: its destructor's panic is contained, too.
    let mutex = Mutex::new(());
    let held = now(mutex.lock());
    let bad = Waker::from(Arc::new(Panics));
    let mut first = Box::pin(mutex.lock());
    assert!(first.as_mut().poll(&mut Context::from_waker(&bad)).is_pending());
    let second = ByHand::pending(mutex.lock());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(bad))).is_ok());
    drop(first);
    drop(held);
    drop(second.finish());
}

type Hook = Rc<dyn Fn(&'static str)>;

/// A waker that calls a hook on everything that is done with it; for this thread only.
#[allow(unsafe_code)]
fn hooked(hook: Hook) -> Waker {
    // SAFETY: the data is an `Rc<Hook>` of which each waker owns one count, and these tests keep their
    // wakers on one thread.
    const VTABLE: RawWakerVTable = RawWakerVTable::new(
        |data| {
            // SAFETY: the waker that is cloned holds a count.
            let hook = unsafe { Rc::from_raw(data.cast::<Hook>()) };
            let new = hook.clone();
            std::mem::forget(hook);
            new("clone");
            RawWaker::new(Rc::into_raw(new).cast(), &VTABLE)
        },
        // SAFETY: a wake by value takes the waker's count.
        |data| unsafe { Rc::from_raw(data.cast::<Hook>()) }("wake"),
        |_| {},
        // SAFETY: the drop takes the waker's count.
        |data| unsafe { Rc::from_raw(data.cast::<Hook>()) }("drop"),
    );
    let data = Rc::into_raw(Rc::new(hook)).cast();
    // SAFETY: as with the vtable.
    unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) }
}

/// Polls with a waker that runs `hook`, and is dropped after.
fn poll_hooked<F: Future>(future: std::pin::Pin<&mut F>, hook: &Hook) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&hooked(hook.clone())))
}

#[test]
fn p1_wakers_may_use_the_primitive_whatever_is_done_with_them() {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let parts = Rc::new((Mutex::new(()), Semaphore::new(0), Event::new(), Queue::bounded(1)));
    let (seen, used) = (calls.clone(), parts.clone());
    let hook: Hook = Rc::new(move |what| {
        seen.borrow_mut().push(what);
        drop(used.0.try_lock());
        drop(ByHand::new(used.0.lock()).poll());
        drop(ByHand::new(used.1.acquire()).poll());
        let _ = ByHand::new(used.2.wait()).poll();
        let _ = ByHand::new(used.3.get()).poll();
        assert!(!format!("{used:?}").is_empty());
    });
    let (mutex, semaphore, event, queue) = &*parts;
    let held = now(mutex.lock());
    let mut waiting = Box::pin(async {
        drop(mutex.lock().await);
        drop(semaphore.acquire().await);
        event.wait().await;
        queue.get().await
    });
    assert!(poll_hooked(waiting.as_mut(), &hook).is_pending());
    assert!(poll_hooked(waiting.as_mut(), &hook).is_pending());
    drop(held);
    assert!(poll_hooked(waiting.as_mut(), &hook).is_pending());
    semaphore.add_permits(1);
    assert!(poll_hooked(waiting.as_mut(), &hook).is_pending());
    event.set();
    assert!(poll_hooked(waiting.as_mut(), &hook).is_pending());
    queue.try_put(1).unwrap();
    assert_eq!(poll_hooked(waiting.as_mut(), &hook), Poll::Ready(Ok(1)));
    for what in ["clone", "wake", "drop"] {
        assert!(calls.borrow().contains(&what), "{what}");
    }
}

#[test]
fn p1_wakers_that_give_way_while_they_are_cloned_lose_no_wake() {
    // The clone is where a waiter takes its place: what happens meanwhile counts.
    let semaphore = Rc::new(Semaphore::new(0));
    let event = Rc::new(Event::new());
    let (permits, set) = (semaphore.clone(), event.clone());
    let hook: Hook = Rc::new(move |what| {
        if what == "clone" {
            permits.add_permits(1);
            set.set();
        }
    });
    assert!(poll_hooked(pin!(semaphore.acquire()), &hook).is_ready());
    event.clear();
    assert!(poll_hooked(pin!(event.wait()), &hook).is_ready());
    // Also the clone by which a waker is replaced.
    event.clear();
    let mut waiting = pin!(event.wait());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(poll_hooked(waiting, &hook).is_ready());
}
