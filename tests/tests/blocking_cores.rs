//! Cores and threads: what computing gains from a second core (B2), how a future gets to a core and its value
//! back (B3), and that threads for blocking work may run on all CPUs (B1).

use std::cell::RefCell;
use std::hint;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use coreloop::placement::allowed_cpus;
use coreloop::{
    Cores, EventLoop, Handle, PostError, RemoteError, RunError, Runtime, Settings, Spin, spawn,
    spawn_blocking,
};
use coreloop_tests::process::thread_cpu;
use coreloop_tests::{figure, skip};

const SOON: Duration = Duration::from_secs(20);

/// Some computing, always as much: its value, and what it took of this thread's CPU.
fn compute(rounds: u64) -> (u64, Duration) {
    let began = thread_cpu();
    let value = (0..rounds).fold(1_u64, |x, i| hint::black_box(x.rotate_left(5) ^ i));
    (value, thread_cpu() - began)
}

const ROUNDS: u64 = 3_000_000;

/// As many cores as there are CPUs, at most two; none for one alone.
fn two_cores() -> Option<Runtime> {
    let cpus = allowed_cpus();
    let cores = Cores::These(cpus.get(..2)?.to_vec());
    let settings = Settings::default().spin(Spin::Off);
    Some(Runtime::builder().cores(cores).settings(settings).build().unwrap())
}

#[test]
fn b2_two_computing_tasks_of_one_core_take_turns() {
    coreloop::run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let here = std::thread::current().id();
        let began = thread_cpu();
        let tasks = ["a", "b"].map(|name| {
            let seen = seen.clone();
            spawn(async move {
                assert_eq!(std::thread::current().id(), here);
                seen.borrow_mut().push((name, "begins"));
                let (_, took) = compute(ROUNDS);
                seen.borrow_mut().push((name, "ends"));
                took
            })
        });
        let mut sum = Duration::ZERO;
        for task in tasks {
            sum += task.await.unwrap();
        }
        let all = thread_cpu() - began;
        assert_eq!(
            *seen.borrow(),
            [("a", "begins"), ("a", "ends"), ("b", "begins"), ("b", "ends")],
            "one after the other, as plain calls"
        );
        assert!(sum <= all, "all of it is this thread's CPU: {sum:?} of {all:?}");
    })
    .unwrap();
}

/// Each waits, computing, until the other has begun: on one core that would never end.
#[test]
fn b2_on_two_cores_they_run_at_the_same_time_a_share_each() {
    let Some(runtime) = two_cores() else { skip!("one CPU alone") };
    let begun = Arc::new(AtomicUsize::new(0));
    let ended = runtime.run(move |core| {
        let begun = begun.clone();
        async move {
            let until = Instant::now() + SOON;
            begun.fetch_add(1, Ordering::SeqCst);
            while begun.load(Ordering::SeqCst) < 2 {
                assert!(Instant::now() < until, "the other core never ran");
                hint::spin_loop();
            }
            let (_, took) = spawn(async { compute(ROUNDS) }).await.unwrap();
            (core.cpu(), std::thread::current().id(), took)
        }
    });
    let ended = ended.unwrap();
    let [(cpu, thread, took), (other_cpu, other_thread, other_took)] = ended[..] else {
        panic!("two cores: {ended:?}")
    };
    assert!(cpu != other_cpu && thread != other_thread);
    figure!("a core's share of computing on two: {took:?} and {other_took:?}");
    let (less, more) = (took.min(other_took), took.max(other_took));
    assert!(more < less * 10, "each did one share: {took:?} and {other_took:?}");
}

#[test]
fn b3_a_future_is_sent_from_any_thread_and_awaited_from_any_core_or_thread() {
    let cpu = allowed_cpus()[0];
    let (tell, told) = mpsc::channel::<Handle>();
    let runtime = Runtime::builder()
        .cores(Cores::These(vec![cpu; 3]))
        .on_start(move |handle| tell.send(handle).unwrap())
        .build()
        .unwrap();
    let outside = std::thread::spawn(move || {
        let handle = told.recv().unwrap();
        // `Rc` in the future: only the closure that makes it goes to the core.
        let on = |core: usize| {
            let here = || async move {
                let number = Rc::new(Handle::current_core().unwrap());
                coreloop::yield_now().await;
                *number
            };
            handle.spawn_on(core, here).unwrap()
        };
        // Awaited by this thread; on a loop that is none of the runtime's; on another core of it.
        let by_thread: Vec<_> = (0..3).map(|core| on(core).join().unwrap()).collect();
        let by_loop: Vec<_> =
            (0..3).map(|core| coreloop::run(on(core)).unwrap().unwrap()).collect();
        let by_core: Vec<_> = (0..3)
            .map(|core| {
                let sent = on(core);
                let there = handle.spawn_on((core + 1) % 3, move || sent).unwrap();
                there.join().unwrap().unwrap()
            })
            .collect();
        let panicked = handle.spawn_on(1, || async { panic!("over there") }).unwrap();
        let panicked: Result<(), _> = panicked.join();
        assert_eq!(panicked, Err(RemoteError::Panicked("over there".into())));
        assert_eq!(
            handle.spawn_on(3, || async {}).err(),
            Some(PostError::NoSuchCore { cores: 3 }),
            "no such core"
        );
        handle.stop();
        (by_thread, by_loop, by_core)
    });
    let ended = runtime.run(|_core| std::future::pending::<()>());
    assert!(matches!(ended, Err(RunError::Stopped)), "{ended:?}");
    let (by_thread, by_loop, by_core) = outside.join().unwrap();
    assert_eq!((by_thread, by_loop, by_core), (vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]));
}

#[test]
fn b3_a_core_that_has_ended_answers_with_an_error() {
    let runtime = Runtime::builder().cores(Cores::Count(1)).build().unwrap();
    let handle = runtime.run(|_core| async { Handle::current() }).unwrap().remove(0);
    let e = handle.spawn_on(0, || async {}).unwrap_err();
    assert_eq!(e, PostError::CoreGone);
    assert_eq!(e.to_string(), "the core has ended");
    assert_eq!(handle.call_soon_threadsafe(0, || ()), Err(PostError::CoreGone));
    assert!(coreloop::run(async move { handle.stats(0).await }).unwrap().is_err());
}

/// A line of this thread's status.
fn status(field: &str) -> String {
    let text = std::fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("the kernel says so").trim().to_owned()
}

#[test]
fn b1_threads_may_run_where_the_process_may_and_not_on_the_cores_cpu_alone() {
    let Some(runtime) = two_cores() else { skip!("one CPU alone") };
    let before = status("Cpus_allowed_list");
    let seen = runtime
        .run(|_core| async {
            let pinned = status("Cpus_allowed_list");
            (pinned, spawn_blocking(|| status("Cpus_allowed_list")).await.unwrap())
        })
        .unwrap();
    let cpus: Vec<String> = allowed_cpus()[..2].iter().map(ToString::to_string).collect();
    assert_eq!(seen, [(cpus[0].clone(), before.clone()), (cpus[1].clone(), before)]);
}

/// Where the loops leave a CPU free, other threads keep off theirs.
#[test]
fn b1_threads_keep_off_the_cpus_of_the_loops_where_there_is_room() {
    let cpus = allowed_cpus();
    let [loops, free @ ..] = &cpus[..] else { unreachable!("at least one CPU") };
    if free.is_empty() {
        skip!("one CPU alone");
    }
    let runtime = Runtime::builder().cores(Cores::These(vec![*loops])).build().unwrap();
    let seen = runtime.run(|_core| async { spawn_blocking(allowed_cpus).await.unwrap() }).unwrap();
    assert_eq!(seen, [free.to_vec()]);
}

/// The mask is the loop's: a process that is started there takes the signals that the program's others take.
#[test]
fn b1_threads_and_the_processes_they_start_keep_the_loops_signal_mask() {
    let (before, there, child) = coreloop::run(async {
        let there = spawn_blocking(|| status("SigBlk")).await.unwrap();
        let started = || std::process::Command::new("grep").arg("SigBlk").arg(STATUS).output();
        (status("SigBlk"), there, spawn_blocking(started).await.unwrap())
    })
    .unwrap();
    assert_eq!(before, there);
    let Ok(child) = child else { skip!("no grep here") };
    let text = String::from_utf8(child.stdout).unwrap();
    assert_eq!(text.split_whitespace().nth(1), Some(&*before), "{text}");
}

const STATUS: &str = "/proc/self/status";

#[test]
fn b1_each_core_has_a_pool_of_its_own() {
    let cpu = allowed_cpus()[0];
    let runtime = Runtime::builder()
        .cores(Cores::These(vec![cpu; 2]))
        .settings(Settings::default().blocking_threads(1))
        .build()
        .unwrap();
    // They meet: with one thread for both cores they never would.
    let (say, said) = mpsc::channel();
    let (say, said) = (Arc::new(Mutex::new(say)), Arc::new(Mutex::new(said)));
    let met = runtime.run(move |core| {
        let (say, said) = (say.clone(), said.clone());
        async move {
            let meet = move || match core.index() {
                0 => said.lock().unwrap().recv_timeout(SOON).is_ok(),
                _ => say.lock().unwrap().send(()).is_ok(),
            };
            spawn_blocking(meet).await.unwrap()
        }
    });
    assert_eq!(met.unwrap(), [true, true]);
}

#[test]
fn b1_settings_out_of_range_are_refused_by_name() {
    let refused = |settings| EventLoop::with(settings).unwrap_err().to_string();
    for (settings, name) in [
        (Settings::default().blocking_threads(0), "blocking_threads"),
        (Settings::default().blocking_threads(1025), "blocking_threads"),
        (Settings::default().blocking_queue(0), "blocking_queue"),
        (Settings::default().blocking_queue((1 << 20) + 1), "blocking_queue"),
    ] {
        let text = refused(settings);
        assert!(text.contains(name) && text.contains("is not between 1 and"), "{text}");
    }
}
