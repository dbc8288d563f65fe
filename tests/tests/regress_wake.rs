//! Wakes that were lost, and wakes that were none.
//!
//! Where one certain `io_uring_enter` must fail, strace fails the K-th one of each thread, and a thread for
//! each distance brings its loop so many enters ahead before the scenario begins: so each enter of the
//! scenario is the one that fails, in some thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread;
use std::time::{Duration, Instant};

use coreloop::op::{InFlight, Nop, PollOnce, Submitter};
use coreloop::sync::Event;
use coreloop::task::JoinHandle;
use coreloop::time::timeout;
use coreloop::{EventLoop, Feature, Settings, Spin, spawn, yield_now};
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::process::{kill, set_file_limit, strace_works};
use coreloop_tests::{Child, figure, in_child, turns};

const SOON: Duration = Duration::from_secs(5);

/// Whether a descriptor is readable within so many milliseconds.
#[allow(unsafe_code)]
fn readable(fd: i32, limit_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    unsafe { libc::poll(&raw mut poll, 1, limit_ms) == 1 }
}

/// A task that hands out its waker and counts its polls, on a loop that has nothing else to do.
fn with_a_waiting_task(settings: Settings) -> (EventLoop, Waker, Arc<AtomicU32>) {
    let mut event_loop = EventLoop::with(settings).unwrap();
    let (waker, polls) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU32::new(0)));
    let (waker_out, seen) = (waker.clone(), polls.clone());
    drop(event_loop.spawn(poll_fn(move |cx| {
        seen.fetch_add(1, Ordering::SeqCst);
        *waker_out.lock().unwrap() = Some(cx.waker().clone());
        Poll::<()>::Pending
    })));
    for _ in 0..20 {
        if !event_loop.turn(Some(Duration::ZERO)).ready {
            let waker = waker.lock().unwrap().take().expect("it was polled");
            return (event_loop, waker, polls);
        }
    }
    panic!("the loop does not come to rest");
}

/// Between turns nobody had announced a park, so a wake or a closure of another thread's set its bit and
/// left the descriptor as it was: whoever waited on it slept on.
#[test]
fn wake_between_turns_shows_on_the_descriptor_whatever_the_kernel_has() {
    let masks = Feature::ALL.into_iter().map(|f| Settings::default().mask(f));
    let bare = Feature::ALL.into_iter().fold(Settings::default(), Settings::mask);
    for (i, settings) in masks.chain([Settings::default(), bare]).enumerate() {
        let (mut event_loop, waker, polls) = with_a_waiting_task(settings);
        let fd = event_loop.poll_fd().unwrap();
        for round in 1..=3 {
            assert!(!readable(fd, 0), "settings {i}: nothing has happened yet");
            let waker = waker.clone();
            thread::spawn(move || waker.wake()).join().unwrap();
            assert!(readable(fd, 5000), "settings {i}: a wake");
            while event_loop.turn(Some(Duration::ZERO)).ready {}
            assert_eq!(polls.load(Ordering::SeqCst), 1 + round, "settings {i}");
        }
        let (handle, ran) = (event_loop.handle(), Arc::new(AtomicBool::new(false)));
        let runs = ran.clone();
        let post = move || {
            handle.call_soon_threadsafe(0, move || runs.store(true, Ordering::SeqCst)).unwrap()
        };
        thread::spawn(post).join().unwrap();
        assert!(readable(fd, 5000), "settings {i}: a closure");
        while event_loop.turn(Some(Duration::ZERO)).ready {}
        assert!(ran.load(Ordering::SeqCst));
    }
}

/// A wake of the main future that came after its end stayed for ever: every turn found it, and none
/// waited.
#[test]
fn wake_of_a_main_future_that_has_ended_keeps_no_turn_from_waiting() {
    let mut event_loop = EventLoop::with(Settings::default().spin(Spin::Off)).unwrap();
    let waker = event_loop.block_on(poll_fn(|cx| Poll::Ready(cx.waker().clone())));
    waker.wake();
    let began = Instant::now();
    for _ in 0..10 {
        event_loop.turn(Some(Duration::from_millis(20)));
    }
    let took = began.elapsed();
    // The first one or two may find the wake.
    assert!(took >= Duration::from_millis(8 * 20), "10 turns of 20 ms took {took:?}");
}

/// If a chunk could keep the only buffer, who waits for one would wait for as long as the chunk lives.
#[test]
fn wake_of_a_receive_while_another_socket_keeps_the_only_buffer() {
    let mut event_loop = EventLoop::with(Settings::default().buffers(1, 4096)).unwrap();
    event_loop.block_on(async {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut one = TcpStream::connect(addr).await.unwrap();
        let mut from_one = listener.accept().await.unwrap();
        let mut two = TcpStream::connect(addr).await.unwrap();
        let mut from_two = listener.accept().await.unwrap();
        one.write_all("one").await.unwrap();
        let held = from_one.recv().await.unwrap().unwrap();
        two.write_all("two").await.unwrap();
        let got = timeout(SOON, from_two.recv()).await.expect("a buffer is left").unwrap().unwrap();
        assert_eq!((&*held, &*got), (&b"one"[..], &b"two"[..]));
    });
}

/// The wait for a signal needed a descriptor at each poll, and took the want of one for a signal: a server
/// out of descriptors ended by itself.
#[test]
fn wake_of_terminate_is_not_the_want_of_descriptors() {
    in_child("wake_of_terminate_is_not_the_want_of_descriptors", || {
        coreloop::run(async {
            let mut terminate = Box::pin(coreloop::signal::try_terminate().unwrap());
            set_file_limit(64);
            let mut hoard = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                hoard.push(file);
            }
            let ended = timeout(Duration::from_millis(100), &mut terminate).await;
            assert!(ended.is_err(), "there was no signal");
            kill(std::process::id() as i32, libc::SIGTERM);
            timeout(SOON, terminate).await.expect("there was one");
        })
        .unwrap();
    });
}

/// Which enter of a thread fails first.
const FAILS: u32 = 12;

/// Entries of the submission queue.
const ENTRIES: u32 = 8;

/// Polls the main future so often before its scenario, with one enter after each.
struct Ahead {
    left: u32,
    nops: Vec<InFlight<Nop>>,
}

impl Ahead {
    /// Ready when the scenario may begin. No turn before that may wait, so the wake read is not yet armed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.left == 0 {
            return Poll::Ready(());
        }
        self.left -= 1;
        self.nops.push(Submitter::current().start(Nop).unwrap());
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Runs `scenario` in fresh loops with each of its first enters failing in turn, and `times - 1` after it.
fn with_each_enter_failing(name: &'static str, times: u32, scenario: fn(&mut EventLoop, Ahead)) {
    if !Child::is_one() && !strace_works() {
        return coreloop_tests::skipped(name, "strace is not here, or may not trace");
    }
    let range = format!("{FAILS}..{}", FAILS + times - 1);
    let when = if times == 1 { FAILS.to_string() } else { range };
    let inject = format!("inject=io_uring_enter:error=EAGAIN:when={when}");
    let only = "trace=io_uring_enter";
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", only, "-e", &inject];
    Child::new(name).under(&strace).limit(Duration::from_secs(60)).run(|| {
        let one = move |left| {
            let settings = Settings::default().ring_entries(ENTRIES).spin(Spin::Off);
            let mut event_loop = EventLoop::with(settings).unwrap();
            scenario(&mut event_loop, Ahead { left, nops: Vec::new() });
            event_loop.stats().counters.enters_pressed > 0
        };
        let failed: Vec<bool> =
            (0..FAILS).map(|left| thread::spawn(move || one(left)).join().unwrap()).collect();
        // The threads differ by one enter: between the first of these two and the second lie those that
        // failed within the scenario, each at another place.
        assert!(!failed[0], "the scenario alone comes to the failing enter");
        assert!(failed[FAILS as usize - 1], "no thread came to the failing enter");
        figure!("the enter failed in {} of {FAILS} threads", failed.iter().filter(|f| **f).count());
    });
}

/// As many ops as the submission queue has entries, and none of them ends.
fn full_queue(idle: &UnixStream) -> Vec<InFlight<PollOnce<UnixStream>>> {
    let readable = || PollOnce::new(idle.try_clone().unwrap(), libc::POLLIN as u32);
    (0..ENTRIES).map(|_| Submitter::current().start(readable()).unwrap()).collect()
}

/// The queue was full and the flush that was to make room for the wake read failed: the core slept
/// without it, and no other thread could wake it.
#[test]
fn wake_from_another_thread_is_not_lost_by_a_failed_enter() {
    let name = "wake_from_another_thread_is_not_lost_by_a_failed_enter";
    with_each_enter_failing(name, 1, |event_loop, mut ahead| {
        let (idle, _other) = UnixStream::pair().unwrap();
        let mut ops = Vec::new();
        let woken = Arc::new(AtomicBool::new(false));
        event_loop.block_on(poll_fn(|cx| {
            ready!(ahead.poll(cx));
            if ops.is_empty() {
                ops = full_queue(&idle);
                let (waker, wakes) = (cx.waker().clone(), woken.clone());
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(50));
                    wakes.store(true, Ordering::SeqCst);
                    waker.wake();
                });
            }
            if woken.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        }));
    });
}

/// What waited for room in the queue was left waiting when the flushes of a whole turn failed.
#[test]
fn wake_of_an_op_that_found_no_room_is_not_lost_by_failed_enters() {
    let name = "wake_of_an_op_that_found_no_room_is_not_lost_by_failed_enters";
    with_each_enter_failing(name, 3, |event_loop, mut ahead| {
        let (idle, _other) = UnixStream::pair().unwrap();
        let (mut ops, mut last) = (Vec::new(), None);
        let ended = event_loop.block_on(poll_fn(|cx| {
            ready!(ahead.poll(cx));
            if last.is_none() {
                ops = full_queue(&idle);
                last = Some(Submitter::current().start(Nop).unwrap());
            }
            last.as_mut().expect("set above").poll(cx)
        }));
        ended.unwrap();
    });
}

/// A loop took the lowest free id, and so that of the one that had just ended: whoever still held a waker of
/// that one woke a task of this one in vain, and before its time. Of two simulations side by side it changed
/// the course of the other.
#[test]
fn wake_of_a_loop_that_has_ended_is_not_one_of_the_next_loop() {
    for _ in 0..20 {
        let (ended, stale, _) = with_a_waiting_task(Settings::default());
        drop(ended);
        let (mut event_loop, waker, polls) = with_a_waiting_task(Settings::default());
        let polls_of = |event_loop: &mut EventLoop, waker: &Waker| {
            let before = polls.load(Ordering::SeqCst);
            thread::scope(|scope| scope.spawn(|| waker.wake_by_ref()).join()).unwrap();
            while event_loop.turn(Some(Duration::ZERO)).ready {}
            polls.load(Ordering::SeqCst) - before
        };
        assert_eq!(polls_of(&mut event_loop, &stale), 0, "nobody was meant");
        assert_eq!(polls_of(&mut event_loop, &waker), 1);
    }
}

thread_local! {
    static ENDING: RefCell<Option<(JoinHandle<()>, Waker)>> = const { RefCell::new(None) };
}

/// Lets go of a task that has just ended, which gives its slot back, and gives way in its name all the same.
struct GivesWay;

impl Wake for GivesWay {
    fn wake(self: Arc<Self>) {
        let (handle, waker) = ENDING.take().expect("it is woken once");
        drop(handle);
        let gives_way = pin!(yield_now());
        assert!(gives_way.poll(&mut Context::from_waker(&waker)).is_pending());
    }
}

#[test]
fn wake_of_a_task_that_has_ended_gives_way_to_nobody() {
    coreloop::run(async {
        let open = Rc::new(Event::new());
        let waits = |n| {
            let open = open.clone();
            spawn(async move {
                open.wait().await;
                n
            })
        };
        // In the lowest slots, which a link that is none would name.
        let first = [waits(1), waits(2), waits(3)];
        let mut handle = spawn(poll_fn(|cx| {
            ENDING.with_borrow_mut(|ending| {
                ending.as_mut().expect("its handle is there").1 = cx.waker().clone();
            });
            Poll::Ready(())
        }));
        let told = Waker::from(Arc::new(GivesWay));
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&told)).is_pending());
        ENDING.set(Some((handle, Waker::noop().clone())));
        turns(3).await;
        let later = [waits(4), waits(5), waits(6), waits(7)];
        turns(2).await;
        open.set();
        let mut ended = Vec::new();
        for task in first.into_iter().chain(later) {
            ended.push(
                timeout(Duration::from_secs(10), task).await.expect("no task is lost").unwrap(),
            );
        }
        assert_eq!(ended, [1, 2, 3, 4, 5, 6, 7]);
    })
    .unwrap();
}
