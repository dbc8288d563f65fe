//! A value for each core: made, used and dropped there, and an answer where its core is gone; closures that
//! wait for room in another core's queue.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

use coreloop::cross::{ShardError, Sharded};
use coreloop::time::{sleep, timeout};
use coreloop::{
    Cores, EventLoop, Handle, PostError, RemoteError, Runtime, Settings, spawn, yield_now,
};
use coreloop_tests::drive::Drops;
use coreloop_tests::{settled, two_cores};

const MS: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_secs(10);

/// Three cores on one CPU.
fn three() -> Runtime {
    let cpu = Cores::All.resolve().unwrap()[0];
    Runtime::builder().cores(Cores::These(vec![cpu; 3])).build().unwrap()
}

/// Not `Send`, and notes on which threads it was made and dropped.
struct Resident {
    hits: Rc<Cell<usize>>,
    made_on: ThreadId,
    dropped: Arc<Mutex<Vec<bool>>>,
}

impl Drop for Resident {
    fn drop(&mut self) {
        let same = thread::current().id() == self.made_on;
        self.dropped.lock().unwrap().push(same && Handle::try_current().is_ok());
    }
}

async fn residents(handle: &Handle, dropped: &Arc<Mutex<Vec<bool>>>) -> Sharded<Resident> {
    let dropped = dropped.clone();
    let made = Sharded::new(handle, async move |core| {
        yield_now().await;
        let hits = Rc::new(Cell::new(100 * core));
        Resident { hits, made_on: thread::current().id(), dropped: dropped.clone() }
    });
    made.await.unwrap()
}

#[test]
fn cross_sharded_each_value_is_made_used_and_dropped_on_its_core() {
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let seen = dropped.clone();
    let sums = three().run(move |core| {
        let dropped = seen.clone();
        async move {
            if core.index() != 0 {
                // As long as the first one may need it.
                settled(SOON, || dropped.lock().unwrap().len() == 3).await;
                return 0;
            }
            let all = residents(core.handle(), &dropped).await;
            for to in 0..core.count() {
                let threads = all.on(to, async |value| {
                    yield_now().await;
                    value.hits.set(value.hits.get() + 1);
                    (value.made_on, thread::current().id())
                });
                let (made, used) = threads.await.unwrap();
                assert_eq!(made, used, "core {to}");
            }
            let gone = ShardError::NoSuchCore { cores: 3 };
            assert_eq!(all.on(3, async |_| ()).await, Err(gone));
            assert_eq!(all.local().unwrap().hits.get(), 1);
            let each = all.map_all(async |value| value.hits.get()).await;
            assert_eq!(each, [Ok(1), Ok(101), Ok(201)]);
            let sum = all.map_reduce(async |value| value.hits.get(), 0, |a, b| a + b).await;
            assert_eq!(dropped.lock().unwrap().len(), 0);
            drop(all);
            assert!(settled(SOON, || dropped.lock().unwrap().len() == 3).await);
            sum.unwrap()
        }
    });
    assert_eq!(sums.unwrap(), [303, 0, 0]);
    assert_eq!(*dropped.lock().unwrap(), [true; 3], "each on its own core, within its loop");
}

#[test]
fn cross_sharded_values_go_with_their_cores_at_the_latest() {
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let (seen, kept) = (dropped.clone(), Arc::new(Mutex::new(None)));
    let keep = kept.clone();
    let ended = three().run(move |core| {
        let (dropped, keep) = (seen.clone(), keep.clone());
        async move {
            if core.index() == 0 {
                *keep.lock().unwrap() = Some(residents(core.handle(), &dropped).await);
                core.handle().stop();
            }
            std::future::pending::<()>().await;
        }
    });
    assert!(matches!(ended, Err(coreloop::RunError::Stopped)), "{ended:?}");
    assert_eq!(*dropped.lock().unwrap(), [true; 3]);
    let sharded = kept.lock().unwrap().take().unwrap();
    assert!(sharded.local().is_none());
    let after = coreloop::run(async { sharded.on(1, async |_| ()).await });
    assert_eq!(after.unwrap(), Err(ShardError::CoreGone));
    let all = coreloop::run(async { sharded.map_all(async |_| 1).await });
    assert_eq!(all.unwrap(), [const { Err(ShardError::CoreGone) }; 3]);
}

#[test]
fn cross_sharded_calls_on_one_value_run_interleaved_and_panics_come_back() {
    coreloop::run(async {
        let all = Sharded::new(&Handle::current(), async |_| RefCell::new(Vec::new())).await;
        let all = all.unwrap();
        let push = |what: &'static str| {
            let all = all.clone();
            spawn(async move {
                all.on(0, async move |list: &RefCell<Vec<&str>>| {
                    list.borrow_mut().push(what);
                    yield_now().await;
                    list.borrow_mut().push(what);
                })
                .await
            })
        };
        let (a, b) = (push("a"), push("b"));
        a.await.unwrap().unwrap();
        b.await.unwrap().unwrap();
        let list = all.on(0, async |list| list.borrow().clone()).await.unwrap();
        assert_eq!(list, ["a", "b", "a", "b"]);
        let panicked = all.on(0, async |_| panic!("not that")).await;
        assert_eq!(panicked, Err::<(), _>(ShardError::Panicked("not that".into())));
        assert_eq!(all.on(0, async |list| list.borrow().len()).await, Ok(4));
    })
    .unwrap();
}

#[test]
fn cross_sharded_a_core_that_makes_none_fails_all_and_the_others_go() {
    let drops = Drops::new();
    let counted = drops.clone();
    three()
        .run(move |core| {
            let drops = counted.clone();
            async move {
                if core.index() == 0 {
                    let made = drops.clone();
                    let all = Sharded::new(core.handle(), async move |core| {
                        assert_ne!(core, 1, "no value here");
                        made.guard()
                    });
                    let e = all.await.unwrap_err();
                    assert!(matches!(&e, ShardError::Panicked(text) if text.contains("no value")));
                    assert!(settled(SOON, || drops.count() == 2).await);
                } else {
                    sleep(200 * MS).await;
                }
            }
        })
        .unwrap();
    assert_eq!(drops.count(), 2);
}

#[test]
fn cross_sharded_new_that_is_dropped_midway_leaves_nothing() {
    let drops = Drops::new();
    let counted = drops.clone();
    coreloop::run(async move {
        let made = counted.clone();
        let all = Sharded::new(&Handle::current(), async move |_| {
            let guard = made.guard();
            sleep(20 * MS).await;
            guard
        });
        assert!(timeout(MS, all).await.is_err());
        assert!(settled(SOON, || counted.count() == 1).await);
    })
    .unwrap();
    assert_eq!(drops.count(), 1);
}

/// A value whose destructor uses what it is part of, and then panics.
struct Sore {
    all: Arc<Mutex<Option<Sharded<Sore>>>>,
    handle: Handle,
    dropped: Arc<AtomicUsize>,
    ran: Arc<AtomicUsize>,
}

impl Drop for Sore {
    fn drop(&mut self) {
        // It is out of the list already, or the core is at its end. One that finds it there is not counted:
        // a panic of an assertion would be one more of those that are expected.
        let own = self.all.lock().unwrap().clone();
        if own.is_none_or(|own| own.local().is_none()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        let ran = self.ran.clone();
        let core = Handle::current_core().unwrap();
        let runs = move || _ = ran.fetch_add(1, Ordering::Relaxed);
        drop(self.handle.call_soon_threadsafe(core, runs));
        panic!("a sore value");
    }
}

#[test]
fn cross_sharded_destructors_that_call_back_and_panic_harm_nobody() {
    for ends_with_the_core in [false, true] {
        let [dropped, ran] = [const { AtomicUsize::new(0) }; 2].map(Arc::new);
        let all: Arc<Mutex<Option<Sharded<Sore>>>> = Arc::default();
        let (dropping, running, keep) = (dropped.clone(), ran.clone(), all.clone());
        let ended = three().run(move |core| {
            let (dropped, ran, all) = (dropping.clone(), running.clone(), keep.clone());
            async move {
                if core.index() == 0 {
                    let (handle, theirs) = (core.handle().clone(), all.clone());
                    let (d, r) = (dropped.clone(), ran.clone());
                    let made = Sharded::new(core.handle(), async move |_| Sore {
                        all: theirs.clone(),
                        handle: handle.clone(),
                        dropped: d.clone(),
                        ran: r.clone(),
                    });
                    let made = made.await.unwrap();
                    assert_eq!(made.map_all(async |_| ()).await, [const { Ok(()) }; 3]);
                    *all.lock().unwrap() = Some(made);
                    if ends_with_the_core {
                        core.handle().stop();
                        return std::future::pending().await;
                    }
                    // The last handle, dropped with the lock released.
                    let last = all.lock().unwrap().take();
                    drop(last);
                }
                let count = if ends_with_the_core { usize::MAX } else { 3 };
                assert!(settled(SOON, || ran.load(Ordering::Relaxed) == count).await);
            }
        });
        // Stopped, and not ended by a panic.
        let as_asked = match &ended {
            Ok(_) => !ends_with_the_core,
            Err(e) => ends_with_the_core && matches!(e, coreloop::RunError::Stopped),
        };
        assert!(as_asked, "{ended:?}");
        assert_eq!(dropped.load(Ordering::Relaxed), 3, "each once");
        assert_eq!(ran.load(Ordering::Relaxed), if ends_with_the_core { 0 } else { 3 });
    }
}

#[test]
fn cross_sharded_calls_in_the_middle_are_answered_when_their_core_ends() {
    let ended = three().run(move |core| async move {
        if core.index() == 1 {
            // Until a call is in the middle and others are queued: then it ends by itself.
            let inside = Sharded::<Cell<u8>>::new(core.handle(), async |_| Cell::new(0));
            let inside = inside.await.unwrap();
            let asks = inside.clone();
            let asked = core.handle().spawn_on(2, move || async move {
                let [a, b, c] = std::array::from_fn(|_| asks.clone());
                let never = spawn(async move {
                    let call = async |value: &Cell<u8>| {
                        value.set(1);
                        std::future::pending::<()>().await;
                    };
                    a.on(1, call).await
                });
                let nested = spawn(async move {
                    let inner = b.clone();
                    let call = async move |_: &_| {
                        inner.on(1, async |_| std::future::pending::<()>().await).await
                    };
                    b.on(0, call).await
                });
                let all = spawn(async move {
                    let call = async |value: &Cell<u8>| {
                        if value.get() == 1 {
                            std::future::pending::<()>().await;
                        }
                    };
                    c.map_all(call).await
                });
                assert_eq!(never.await.unwrap(), Err(ShardError::CoreGone));
                assert_eq!(nested.await.unwrap(), Ok(Err(ShardError::CoreGone)));
                let all = all.await.unwrap();
                assert_eq!(all, [Ok(()), Err(ShardError::CoreGone), Ok(())]);
                let later = asks.map_reduce(async |_| 1, 0, |a, b| a + b).await;
                assert_eq!(later, Err(ShardError::CoreGone));
                ANSWERED.store(1, Ordering::Relaxed);
            });
            drop(asked);
            let mine = inside.local().unwrap();
            assert!(settled(SOON, || mine.get() == 1).await);
            return;
        }
        assert!(settled(SOON, || ANSWERED.load(Ordering::Relaxed) == 1).await);
    });
    ended.unwrap();
}

/// Set by the test above.
static ANSWERED: AtomicUsize = AtomicUsize::new(0);

/// Two cores each send the other far more than its queue holds, and neither looks at its queue but by
/// running its loop.
#[test]
fn cross_two_full_cores_do_not_hold_each_other_up() {
    const CALLS: usize = 5_000;
    let done = Arc::new(AtomicUsize::new(0));
    let work = |to: usize| {
        let done = done.clone();
        move || async move {
            let handle = Handle::current();
            let tasks: Vec<_> = (0..CALLS)
                .map(|_| {
                    let (handle, done) = (handle.clone(), done.clone());
                    spawn(async move {
                        let task = handle.spawn_on_when_room(to, move || async move {
                            done.fetch_add(1, Ordering::Relaxed);
                        });
                        task.await.unwrap().await.unwrap();
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            // The other one may not be done.
            assert!(settled(SOON, || done.load(Ordering::Relaxed) == 2 * CALLS).await);
        }
    };
    two_cores(Settings::default(), work(1), work(0));
    assert_eq!(done.load(Ordering::Relaxed), 2 * CALLS);
}

#[test]
fn cross_whoever_waits_for_room_is_answered_when_the_core_ends() {
    let event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    while handle.call_soon_threadsafe(0, || ()).is_ok() {}
    let waits = thread::spawn(move || {
        coreloop::run(async move {
            let waited = handle.spawn_on_when_room(0, || async {}).await;
            waited.map(drop)
        })
    });
    thread::sleep(20 * MS);
    drop(event_loop);
    assert_eq!(waits.join().unwrap().unwrap(), Err(PostError::CoreGone));
}

#[test]
fn cross_a_join_handle_is_waited_for_by_any_thread() {
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    let plain = thread::spawn(move || {
        let a = handle.spawn_on(0, || async { 1 }).unwrap();
        let b = handle.spawn_on(0, || async { 2 }).unwrap();
        let a = a.join();
        let b = coreloop::run(b).unwrap();
        let c = handle.spawn_on(0, std::future::pending::<u8>).unwrap();
        assert!(!c.is_finished());
        go.send(()).unwrap();
        let c = c.join();
        let threads: BTreeSet<u8> = [a.unwrap(), b.unwrap()].into();
        (threads, c)
    });
    while may_go.try_recv().is_err() {
        event_loop.turn(Some(MS));
    }
    drop(event_loop);
    assert_eq!(plain.join().unwrap(), ([1, 2].into(), Err(RemoteError::Gone)));
}
