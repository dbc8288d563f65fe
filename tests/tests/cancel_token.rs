//! Tokens: who is told, in which order, what is left behind, and what waiting costs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use coreloop::cancel::Token;
use coreloop::combine::shield;
use coreloop::spawn;
use coreloop_tests::drive::Drops;
use coreloop_tests::foreign::{ON_CLONE, ON_DROP, ON_WAKE, acting};
use coreloop_tests::{poll_once, turns};

struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: everything goes on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        HELD.set(HELD.get() + layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn t8_a_token_reaches_its_waiters_in_order_and_its_children_after() {
    coreloop::run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let token = Token::new();
        let (first, second) = (token.child(), token.child());
        let grandchild = first.child();
        let mut tasks = Vec::new();
        let waits =
            [("second", &second), ("grand", &grandchild), ("own", &token), ("first", &first)];
        for (name, t) in waits.into_iter().chain([("own again", &token)]) {
            let (order, wait) = (order.clone(), t.cancelled());
            tasks.push(spawn(async move {
                wait.await;
                order.borrow_mut().push(name);
            }));
        }
        turns(1).await;
        token.cancel();
        token.cancel();
        assert!(order.borrow().is_empty(), "not within the call");
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), ["own", "own again", "first", "second", "grand"]);
        assert!(second.child().is_cancelled(), "a child of a cancelled one");
        second.child().cancelled().await;
    })
    .unwrap();
}

#[test]
fn t8_a_childs_cancel_does_not_reach_its_parent_or_siblings() {
    let token = Token::new();
    let (one, two) = (token.child(), token.child());
    one.cancel();
    assert!(one.is_cancelled() && !two.is_cancelled() && !token.is_cancelled());
    // Also through a parent whose own tokens are gone.
    let orphan = two.child();
    drop(two);
    assert!(!orphan.is_cancelled());
    token.cancel();
    assert!(orphan.is_cancelled());
    assert!(one.is_same(&one.clone()) && !one.is_same(&token));
}

#[test]
fn t8_everything_is_cancelled_before_the_first_waker_runs() {
    let token = Token::new();
    let (child, seen) = (token.child(), Rc::new(Cell::new(false)));
    let mut wait = pin!(token.cancelled());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&acting())).is_pending());
    let (looked_at, note) = (child.clone(), seen.clone());
    ON_WAKE.set(Some(Box::new(move || note.set(looked_at.is_cancelled()))));
    token.cancel();
    assert!(seen.get());
}

#[test]
fn t8_children_leave_nothing_in_a_long_lived_parent() {
    let token = Token::new();
    drop(token.child());
    let before = HELD.get();
    let children: Vec<_> = (0..10_000).map(|_| token.child()).collect();
    let named = format!("{token:?}");
    assert!(named.contains("children: 10000"), "{named}");
    // From the middle, by cancel and by drop.
    for (i, child) in children.into_iter().enumerate() {
        if i % 3 == 0 {
            child.cancel();
        }
    }
    drop(named);
    assert!(HELD.get() <= before, "{} bytes are left", HELD.get() - before);
    for _ in 0..100_000 {
        drop(token.child());
    }
    assert!(HELD.get() - before < 4096, "{} bytes more", HELD.get() - before);
    let cancelled = token.child();
    cancelled.cancel();
    assert!(format!("{token:?}").contains("children: 0"), "one that is kept is off the list");
    // The first in time is the first in the list, also where places were used again.
    let (a, b) = (token.child(), token.child());
    drop(a);
    let c = token.child();
    let mut waits = Vec::new();
    for (name, child) in [("c", &c), ("b", &b)] {
        let mut wait = Box::pin(child.cancelled());
        let waker = naming(name);
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        waits.push(wait);
    }
    token.cancel();
    assert_eq!(NAMES.take(), ["b", "c"]);
}

thread_local! {
    static NAMES: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

fn naming(name: &'static str) -> Waker {
    struct Naming(&'static str);
    impl Wake for Naming {
        fn wake(self: Arc<Self>) {
            NAMES.with_borrow_mut(|names| names.push(self.0));
        }
    }
    Arc::new(Naming(name)).into()
}

#[test]
fn t8_a_chain_of_100_000_tokens_is_cancelled_and_dropped_without_a_deep_stack() {
    let top = Token::new();
    let mut bottom = top.child();
    for _ in 0..100_000 {
        bottom = bottom.child();
    }
    let other = bottom.clone();
    top.cancel();
    assert!(other.is_cancelled());
    drop((top, bottom, other));
    let mut bottom = Token::new();
    for _ in 0..100_000 {
        bottom = bottom.child();
    }
    drop(bottom);
}

#[test]
fn t8_waiting_allocates_nothing() {
    coreloop::run(async {
        let token = Token::new();
        let asked = |before: usize| ASKED.get() - before;
        // The first wait makes the list.
        assert!(poll_once(pin!(token.cancelled())).await.is_pending());
        let before = ASKED.get();
        for _ in 0..100 {
            let mut wait = pin!(token.cancelled());
            assert!(poll_once(wait.as_mut()).await.is_pending());
            assert!(poll_once(wait.as_mut()).await.is_pending());
            assert_eq!(token.clone().run(turns(1)).await, Ok(()));
        }
        assert_eq!(asked(before), 0);
        let mut wait = pin!(token.cancelled());
        assert!(poll_once(wait.as_mut()).await.is_pending());
        let before = ASKED.get();
        token.cancel();
        wait.await;
        assert_eq!(asked(before), 0, "a cancel without children");
    })
    .unwrap();
}

#[test]
fn t8_a_token_dropped_while_awaited_waits_on() {
    coreloop::run(async {
        let token = Token::new();
        let mut wait = pin!(token.cancelled());
        assert!(poll_once(wait.as_mut()).await.is_pending());
        drop(token);
        turns(3).await;
        assert!(poll_once(wait.as_mut()).await.is_pending());
        // A parent still reaches it.
        let parent = Token::new();
        let mut wait = pin!(parent.child().cancelled());
        assert!(poll_once(wait.as_mut()).await.is_pending());
        parent.cancel();
        assert!(poll_once(wait.as_mut()).await.is_ready());
        assert!(poll_once(wait.as_mut()).await.is_ready(), "it stays so");
    })
    .unwrap();
}

#[test]
fn t8_a_waker_may_cancel_wait_and_drop() {
    let token = Token::new();
    let kept = Rc::new(RefCell::new(Vec::new()));
    // In the clone, at the first poll: it must see that.
    let mut wait = Box::pin(token.cancelled());
    let waker = acting();
    let again = token.clone();
    ON_CLONE.set(Some(Box::new(move || again.cancel())));
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    // In the wake: another token, new children, another wait, and the wait's own drop.
    let token = Token::new();
    let other = Token::new();
    let mut wait = Box::pin(token.cancelled());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    kept.borrow_mut().push(wait);
    let (t, o, k) = (token.clone(), other.clone(), kept.clone());
    ON_WAKE.set(Some(Box::new(move || {
        t.cancel();
        o.cancel();
        assert!(t.child().is_cancelled());
        k.borrow_mut().clear();
    })));
    token.cancel();
    assert!(other.is_cancelled() && kept.borrow().is_empty());
    // In the waker's destructor, when a wait is dropped.
    let token = Token::new();
    let mut wait = Box::pin(token.cancelled());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let t = token.clone();
    ON_DROP.set(Some(Box::new(move || t.cancel())));
    drop(wait);
    assert!(token.is_cancelled());
}

#[test]
fn t8_a_panicking_waker_does_not_keep_others_from_being_woken() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    coreloop::run(async {
        let token = Token::new();
        let mut bad = Box::pin(token.cancelled());
        let waker = Waker::from(Arc::new(Panics));
        assert!(bad.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        let task = spawn(token.child().cancelled());
        turns(1).await;
        token.cancel();
        task.await.unwrap();
    })
    .unwrap();
}

#[test]
fn t8_forgotten_waits_are_sound() {
    coreloop::run(async {
        let token = Token::new();
        let mut wait = Box::pin(token.child().cancelled());
        assert!(poll_once(wait.as_mut()).await.is_pending());
        std::mem::forget(wait);
        std::mem::forget(token.child());
        let task = spawn(token.cancelled());
        turns(1).await;
        token.cancel();
        task.await.unwrap();
    })
    .unwrap();
}

#[test]
fn t8_a_guard_cancels_by_return_panic_and_cancel_unless_disarmed() {
    coreloop::run(async {
        let token = Token::new();
        let guard = token.child().drop_guard();
        assert!(!guard.disarm().is_cancelled());
        let (by_panic, by_cancel) = (token.child(), token.child());
        let guard = by_panic.clone().drop_guard();
        let panics = spawn(async move {
            let _guard = guard;
            panic!("on purpose");
        });
        assert!(panics.await.unwrap_err().is_panic());
        let guard = by_cancel.clone().drop_guard();
        let waits = spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        turns(2).await;
        waits.cancel();
        assert!(waits.await.unwrap_err().is_cancelled());
        assert!(by_panic.is_cancelled() && by_cancel.is_cancelled() && !token.is_cancelled());
    })
    .unwrap();
}

#[test]
fn t8_run_drops_what_it_ran_as_a_cancel() {
    coreloop::run(async {
        let (token, drops) = (Token::new(), Drops::new());
        let guard = drops.guard();
        let mut awaited = spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let mut shielded = spawn(async { turns(10).await });
        let held = spawn(async { turns(10).await });
        let (t, asked) = (token.clone(), token.clone());
        drop(spawn(async move {
            turns(3).await;
            asked.cancel();
        }));
        let ran = t.run(async {
            let _held = &held;
            let awaiting = async {
                let _ = (&mut awaited).await;
            };
            coreloop::combine::race(awaiting, async {
                let _ = shield(&mut shielded).await;
            })
            .await;
        });
        assert!(ran.await.is_err());
        assert!(!awaited.is_finished(), "it ends at its next turn");
        // By reference nothing is passed on, as for any handle that outlives the await.
        assert!(shielded.await.is_ok());
        assert!(held.await.is_ok());
        drop(awaited);
        // By value it is.
        let guard = drops.guard();
        let inner = spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        let token = Token::new();
        let asked = token.clone();
        drop(spawn(async move {
            turns(3).await;
            asked.cancel();
        }));
        assert!(token.run(inner).await.is_err());
        turns(2).await;
        assert_eq!(drops.count(), 1);
    })
    .unwrap();
}

#[test]
fn t8_run_takes_what_is_ready_in_the_same_poll_but_begins_nothing_late() {
    coreloop::run(async {
        let token = Token::new();
        let asked = token.clone();
        let both = std::future::poll_fn(move |_| {
            asked.cancel();
            Poll::Ready(7)
        });
        assert_eq!(token.run(both).await, Ok(7));
        let never = std::future::poll_fn(|_| -> Poll<()> { panic!("it was polled") });
        assert!(token.run(never).await.is_err());
    })
    .unwrap();
}
