//! The rims of loops and of operations: what is set around a loop, what has ended before its loop did, who waits
//! for room at another core's queue and goes, what a foreign task leaves behind.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use coreloop::op::{LateBytes, PollOnce, Recv, Submitter};
use coreloop::{EventLoop, Settings, StatsLevel, fds, spawn, task_local};
use coreloop_tests::{in_child, rest, stepped};

task_local! {
    static REQUEST: u32;
}

/// A loop that is driven within somebody's scope, and one that is closed there, know nothing of it.
#[test]
fn rims_what_is_set_around_a_loop_is_of_none_of_its_tasks() {
    struct Looks(Rc<RefCell<Vec<Option<u32>>>>);
    impl Looks {
        fn look(&self) {
            self.0.borrow_mut().push(REQUEST.try_with(|n| *n).ok());
        }
    }
    impl Drop for Looks {
        fn drop(&mut self) {
            self.look();
        }
    }
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut event_loop = stepped();
    let looks = Looks(seen.clone());
    drop(event_loop.spawn(async move {
        loop {
            looks.look();
            coreloop::yield_now().await;
        }
    }));
    let driven = REQUEST.scope(7, async move {
        event_loop.turn(Some(Duration::ZERO));
        let inner = async { spawn(async { REQUEST.try_with(|n| *n).ok() }).await };
        assert_eq!(event_loop.block_on(inner).unwrap(), None);
        drop(event_loop);
    });
    assert!(pin!(driven).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    assert!(seen.borrow().len() >= 3, "{seen:?}");
    assert!(seen.borrow().iter().all(Option::is_none), "{seen:?}");
}

/// A socket of a stranger's, whose hook for late bytes panics.
struct Sore(UnixStream);

impl AsFd for Sore {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl LateBytes for Sore {
    fn recv_ended(&self) {}

    fn late_bytes(&self, bytes: &[u8]) {
        panic!("{} bytes too late", bytes.len());
    }

    fn late_error(&self, _: io::Error) {}
}

/// The end of an operation that had completed when its handle went, in a task that panics.
#[test]
fn rims_a_hook_that_panics_does_not_meet_the_panic_of_its_task() {
    in_child("rims_a_hook_that_panics_does_not_meet_the_panic_of_its_task", || {
        let mut event_loop = stepped();
        let ended = event_loop.block_on(async {
            spawn(async {
                let (ours, theirs) = UnixStream::pair().unwrap();
                io::Write::write_all(&mut &theirs, b"here").unwrap();
                let op = Submitter::current().start(Recv::new(Sore(ours), Vec::with_capacity(8)));
                let op = op.unwrap_or_else(|_| panic!("there is room"));
                while !op.is_done() {
                    coreloop::yield_now().await;
                }
                if op.is_done() {
                    panic!("of the task");
                }
            })
            .await
        });
        assert_eq!(ended.unwrap_err().panic_message(), Some("of the task"));
        assert_eq!(event_loop.stats().counters.hook_panics, 1);
    });
}

/// An operation that the kernel keeps past the grace takes none with it that has completed.
#[test]
fn rims_what_has_completed_is_taken_though_others_outlive_the_grace() {
    in_child("rims_what_has_completed_is_taken_though_others_outlive_the_grace", || {
        let mut event_loop = stepped();
        let submitter = event_loop.block_on(async { Submitter::current() });
        let start = |socket: UnixStream| {
            submitter.start(PollOnce::new(socket, libc::POLLIN as u32)).unwrap()
        };
        let (near, far) = UnixStream::pair().unwrap();
        let (kept, _other) = UnixStream::pair().unwrap();
        let (mut ready, mut waits) = (start(near), start(kept));
        io::Write::write_all(&mut &far, b"x").unwrap();
        while !ready.is_done() {
            event_loop.turn(Some(Duration::from_millis(10)));
        }
        // No time at all: nothing is waited for.
        assert!(event_loop.close(Duration::ZERO).ops_leaked >= 1);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(ready.poll(&mut cx), Poll::Ready(Ok(events)) if events != 0));
        let lost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            waits.poll(&mut Context::from_waker(Waker::noop()))
        }));
        let said = lost.unwrap_err();
        let said = said.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(said.contains("past its grace"), "{said}");
        drop((ready, waits));
    });
}

/// Many wait for room at a core's queue: as many are told as there is room for, the longest first, and one that
/// was told and goes passes it on.
#[test]
fn rims_who_waits_for_room_at_a_core_has_it_in_turn() {
    const QUEUE: usize = 1024;
    const WAIT: usize = 2 * QUEUE + 500;
    type Waits = Pin<Box<dyn Future<Output = ()>>>;
    let (mut own, mut other) = (stepped(), stepped());
    let handle = other.handle();
    while handle.call_soon_threadsafe(0, || ()).is_ok() {}
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiting: VecDeque<Waits> = (0..WAIT)
        .map(|n| {
            let (handle, order) = (handle.clone(), order.clone());
            let waits: Waits = Box::pin(async move {
                let work = move || async move { order.lock().unwrap().push(n) };
                handle.spawn_on_when_room(0, work).await.unwrap();
            });
            waits
        })
        .collect();
    let woken = Arc::new(Woken::default());
    let poll_all = |own: &mut EventLoop, waiting: &mut VecDeque<Waits>| {
        own.block_on(async {
            let mut left = VecDeque::new();
            for mut one in waiting.drain(..) {
                let waker = Waker::from(woken.clone());
                if one.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    left.push_back(one);
                }
            }
            *waiting = left;
        });
    };
    poll_all(&mut own, &mut waiting);
    assert_eq!((waiting.len(), woken.count()), (WAIT, 0));
    other.turn(Some(Duration::ZERO));
    assert_eq!(woken.count(), QUEUE, "as many as there is room for");
    // All of those go: the next ones hear of the room that they leave.
    waiting.drain(..QUEUE);
    assert_eq!(woken.count(), 2 * QUEUE);
    // One that looks by itself, untold, and finds room: its place in line goes with it.
    let mut early = waiting.pop_back().unwrap();
    let before = Arc::strong_count(&woken);
    let waker = Waker::from(woken.clone());
    assert!(early.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    drop((early, waker));
    assert_eq!(Arc::strong_count(&woken), before - 1, "its waker is nobody's place any more");
    while !waiting.is_empty() {
        poll_all(&mut own, &mut waiting);
        rest(&mut other);
    }
    rest(&mut other);
    assert_eq!(Arc::strong_count(&woken), 1);
    let order = order.lock().unwrap();
    assert_eq!(order[0], WAIT - 1);
    assert_eq!(order[1..], (QUEUE..WAIT - 1).collect::<Vec<_>>());
}

/// Counts its calls.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl Woken {
    fn count(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Whoever awaited a task of another core and gave up is not kept by it.
#[test]
fn rims_a_remote_handle_that_goes_keeps_nobodys_waker() {
    let mut other = stepped();
    let mut task = other.handle().spawn_on(0, pending::<()>).unwrap();
    rest(&mut other);
    let awaits = Arc::new(Woken::default());
    let waker = Waker::from(awaits.clone());
    assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&awaits), 2);
    drop(task);
    assert_eq!(Arc::strong_count(&awaits), 1);
    drop(other);
    assert_eq!(awaits.count(), 0);
}

/// Time between two drives of a loop is nobody's wait for a poll, and no task's age.
#[test]
fn rims_the_time_between_drives_is_no_wait() {
    const REST: Duration = Duration::from_millis(500);
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async {});
    std::thread::sleep(REST);
    let waits = event_loop.spawn(pending::<()>());
    let age = event_loop.block_on(async move {
        let list = coreloop::all_tasks();
        list.iter().find(|task| task.id == waits.id()).map(|task| task.age)
    });
    assert!(age.unwrap() < REST, "{age:?}");
    std::thread::sleep(REST);
    event_loop.block_on(async {});
    let longest = event_loop.stats().histograms.unwrap().wake_to_poll.max_ns();
    assert!(Duration::from_nanos(longest) < REST, "{longest} ns");
}

/// What is told to come back over a stream of a Unix socket comes whole, or says that it did not.
#[test]
fn rims_a_message_that_a_stream_takes_in_part_is_an_error() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let refused = coreloop::fds::send(&ours, &vec![7; 16 << 20], &[]).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WriteZero, "{refused}");
}

/// Of a stream that lives nothing was received, which is what its end looks like.
#[test]
fn rims_a_message_received_into_nothing_is_refused_and_is_no_end() {
    let (near, far) = UnixStream::pair().unwrap();
    let refused = || fds::recv(&far, &mut []).unwrap_err().kind();
    assert_eq!(refused(), io::ErrorKind::InvalidInput);
    fds::send(&near, b"yours", &[near.as_fd()]).unwrap();
    assert_eq!(refused(), io::ErrorKind::InvalidInput);
    let mut bytes = [0; 8];
    let (n, came) = fds::recv(&far, &mut bytes).unwrap();
    assert_eq!((&bytes[..n], came.len()), (&b"yours"[..], 1), "it was left where it was");
    drop(came);
    // Not by a close: a process that another test starts has a copy until its exec.
    near.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(refused(), io::ErrorKind::InvalidInput);
    assert_eq!(fds::recv(&far, &mut bytes).unwrap().0, 0, "this is the end");
}
