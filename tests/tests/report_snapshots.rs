//! Snapshots and lists of tasks, taken from other threads and cores: of cores that run, sleep, are kept
//! busy, or have ended.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use coreloop::task::{TaskState, WaitsFor};
use coreloop::time::sleep;
use coreloop::{
    CoreState, Cores, EventLoop, Handle, PostError, Runtime, Settings, Snapshot, StatsLevel, spawn,
    spawn_named, yield_now,
};

const MS: Duration = Duration::from_millis(1);

/// Runs `main` on each of two cores and `outside` beside them, which then stops them.
fn two_cores<F, Fut>(settings: Settings, main: F, outside: impl FnOnce(&Handle))
where
    F: Fn(coreloop::Core) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()>,
{
    let (tell, told) = mpsc::channel();
    let cpu = Cores::Count(1).resolve().unwrap()[0];
    let runtime = Runtime::builder()
        .cores(Cores::These(vec![cpu, cpu]))
        .unpinned()
        .settings(settings)
        .on_start(move |handle| tell.send(handle).unwrap());
    let runtime = runtime.build().unwrap();
    let cores = thread::spawn(move || runtime.run(main));
    let handle = told.recv().unwrap();
    outside(&handle);
    handle.stop();
    let _ = cores.join().unwrap();
}

#[test]
fn report_snapshots_of_all_cores_from_a_plain_thread() {
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let main = |core: coreloop::Core| async move {
        for _ in 0..5 * (core.index() + 1) {
            drop(spawn(sleep(Duration::from_secs(3600))));
        }
        sleep(Duration::from_secs(3600)).await;
    };
    two_cores(settings, main, |handle| {
        let all = loop {
            let all = handle.all_stats_blocking(Duration::from_secs(10));
            if all.iter().enumerate().all(|(i, core)| core.gauges.timers == 5 * (i as u64 + 1) + 1)
            {
                break all;
            }
            thread::sleep(MS);
        };
        for (index, core) in all.iter().enumerate() {
            let tasks = 5 * (index as u64 + 1);
            assert_eq!((core.core, core.cores, core.cpu), (Some(index), 1, None));
            assert_ne!(core.state, CoreState::Ended);
            assert_eq!((core.gauges.tasks, core.gauges.timers), (tasks, tasks + 1));
            assert_eq!(core.counters.spawns, tasks);
            assert!(core.gauges.age < Duration::from_secs(10));
            assert!(core.gauges.bytes_tables() > 300 * 1024, "histograms alone are more");
            assert!(core.histograms.as_ref().unwrap().poll.count() >= tasks);
        }
        let sum = Snapshot::sum(&all);
        assert_eq!((sum.core, sum.cores, sum.gauges.tasks), (None, 2, 15));
        // What came later is in the difference, and nothing else is.
        drop(handle.spawn_on(1, || async { yield_now().await }).unwrap().join());
        let later = handle.snapshots();
        let new: Vec<_> = later.iter().zip(&all).map(|(now, then)| now.since(then)).collect();
        assert_eq!(new[0].counters.spawns, 0);
        assert_eq!(new[1].counters.spawns, 2, "the task, and the one that tells of its end");
    });
}

#[test]
fn report_a_core_that_is_kept_busy_is_read_without_it() {
    // Long enough for a core that has nothing to do, on any machine.
    const LIMIT: Duration = Duration::from_millis(500);
    static DONE: AtomicBool = AtomicBool::new(false);
    /// However the looks end, the core goes on then.
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            DONE.store(true, Ordering::Relaxed);
        }
    }
    let main = |core: coreloop::Core| async move {
        while core.index() == 1 && !DONE.load(Ordering::Relaxed) {
            thread::sleep(MS);
        }
        sleep(Duration::from_secs(3600)).await;
    };
    two_cores(Settings::default(), main, |handle| {
        while handle.snapshot(1).unwrap().counters.polls == 0 {
            thread::yield_now();
        }
        let _done = Done;
        // Whatever is answered here is answered while it is kept.
        let snapshot = handle.snapshot(1).unwrap();
        assert_eq!((snapshot.state, snapshot.counters.polls), (CoreState::Running, 1));
        let all = handle.all_stats_blocking(LIMIT);
        assert!(all[1].gauges.age >= LIMIT, "it did not answer");
        assert!(all[0].gauges.age < all[1].gauges.age);
        let lists = handle.all_tasks_blocking(10, LIMIT);
        assert_eq!(lists[1].as_ref().unwrap_err(), &PostError::NoAnswer { limit: LIMIT });
        assert_eq!(lists[0].as_ref().unwrap().tasks.len(), 1);
    });
}

#[test]
fn report_a_park_counts_while_it_lasts() {
    let main = |_: coreloop::Core| sleep(Duration::from_secs(3600));
    two_cores(Settings::default(), main, |handle| {
        while handle.snapshots().iter().any(|core| core.state != CoreState::Parked) {
            thread::sleep(MS);
        }
        let then = handle.snapshots();
        thread::sleep(50 * MS);
        for (now, then) in handle.snapshots().iter().zip(&then) {
            let idle = now.since(then);
            assert_eq!(idle.counters.ticks, 0, "nobody woke it");
            assert!(idle.counters.park_ns >= 50_000_000, "{}", idle.counters.park_ns);
            assert!(idle.counters.park_ns <= idle.uptime.as_nanos() as u64 + 1_000_000);
        }
    });
}

#[test]
fn report_mail_that_a_busy_core_lets_lie_is_in_its_histogram() {
    let settings = Settings::default().stats(StatsLevel::Histograms);
    let mut event_loop = EventLoop::with(settings).unwrap();
    let handle = event_loop.handle();
    let (begun, begins) = std::sync::mpsc::channel();
    let sender = thread::spawn(move || {
        begins.recv().unwrap();
        let found = handle.spawn_on(0, || async {}).unwrap();
        (Instant::now(), found)
    });
    let (least, found) = event_loop.block_on(async {
        begun.send(()).unwrap();
        thread::sleep(100 * MS);
        let free = Instant::now();
        let (sent, found) = sender.join().unwrap();
        (free.saturating_duration_since(sent), found)
    });
    event_loop.block_on(found).unwrap();
    let mailbox = event_loop.stats().histograms.unwrap().mailbox;
    assert_eq!(mailbox.count(), 1);
    // The histogram keeps three digits.
    assert!(u128::from(mailbox.max_ns()) * 1001 >= least.as_nanos() * 1000, "{least:?}");
}

#[test]
fn report_a_core_that_has_ended_leaves_its_last_figures() {
    let mut event_loop = EventLoop::new().unwrap();
    let handle = event_loop.handle();
    event_loop.block_on(async { spawn(async {}).await.unwrap() });
    assert_eq!(handle.snapshot(0).unwrap().state, CoreState::Running);
    drop(event_loop);
    let last = handle.snapshot(0).unwrap();
    assert_eq!((last.state, last.counters.spawns, last.gauges.tasks), (CoreState::Ended, 1, 0));
    let again = &handle.snapshots()[0];
    assert_eq!((again.uptime, &again.counters), (last.uptime, &last.counters), "nothing moves");
    assert_eq!(handle.all_stats_blocking(MS)[0].state, CoreState::Ended);
    assert!(matches!(handle.all_tasks_blocking(1, MS)[0], Err(PostError::CoreGone)));
    assert!(matches!(handle.snapshot(1), Err(PostError::NoSuchCore { cores: 1 })));
    let stats = coreloop::run(async move { handle.stats(0).await }).unwrap();
    assert_eq!(stats, Err(PostError::CoreGone));
}

#[test]
fn report_cores_ask_each_other_for_stats_and_tasks() {
    static ASLEEP: AtomicUsize = AtomicUsize::new(0);
    let main = |core: coreloop::Core| async move {
        let _task = spawn_named("parent", async {
            let child = spawn_named("child", sleep(Duration::from_secs(3600)));
            child.await.unwrap();
        });
        // Long enough for its own tasks to have begun to wait, however late the other core is.
        sleep(5 * MS).await;
        ASLEEP.fetch_add(1, Ordering::SeqCst);
        if core.index() == 0 {
            while ASLEEP.load(Ordering::SeqCst) < 2 {
                sleep(MS).await;
            }
            // The other one has said so in the poll in which it goes to sleep.
            sleep(5 * MS).await;
            let handle = core.handle();
            let all = handle.all_stats(Duration::from_secs(10)).await;
            assert!(all.iter().all(|core| core.gauges.tasks == 2));
            for list in handle.all_tasks(100, Duration::from_secs(10)).await {
                let list = list.unwrap();
                let names: Vec<_> = list.tasks.iter().map(|t| t.name.as_deref()).collect();
                assert_eq!(names, [None, Some("parent"), Some("child")]);
                assert_eq!(list.tasks[0].parent, None);
                // Nobody runs where a core is asked from elsewhere, its main future neither.
                assert!(list.tasks.iter().all(|t| t.state == TaskState::Waiting), "{list:?}");
                let waits = &list.tasks[0].waits_for;
                assert!(waits.iter().any(|w| matches!(w, WaitsFor::Timer { .. })), "{waits:?}");
                assert_eq!(list.tasks[1].parent, Some(list.tasks[0].id));
                assert_eq!(list.tasks[2].parent, Some(list.tasks[1].id));
                assert_eq!(list.tasks[1].waits_for, [WaitsFor::Task(list.tasks[2].id)]);
                assert!(list.tasks[2].spawned_at.unwrap().file().ends_with("report_snapshots.rs"));
            }
            let few = handle.tasks(1, 1).await.unwrap();
            assert_eq!((few.core, few.tasks.len(), few.left_out), (1, 1, 2));
            // By this one alone: the other's would end the questions.
            handle.stop();
        }
        sleep(Duration::from_secs(3600)).await;
    };
    let cpu = Cores::Count(1).resolve().unwrap()[0];
    let runtime = Runtime::builder().cores(Cores::These(vec![cpu, cpu])).unpinned();
    let ended = runtime.build().unwrap().run(main);
    assert!(matches!(ended, Err(coreloop::RunError::Stopped)), "{ended:?}");
}

/// A core that ends takes no questions any more, and says that it ends.
#[test]
fn report_a_core_that_closes_says_so() {
    struct Looks(Handle, std::sync::mpsc::Sender<(CoreState, bool)>);
    impl Drop for Looks {
        fn drop(&mut self) {
            let refused = self.0.call_soon_threadsafe(0, || ()) == Err(PostError::CoreGone);
            self.1.send((self.0.snapshot(0).unwrap().state, refused)).unwrap();
        }
    }
    let (tell, told) = std::sync::mpsc::channel();
    let mut event_loop = EventLoop::new().unwrap();
    let looks = Looks(event_loop.handle(), tell);
    drop(event_loop.spawn(async move {
        let _looks = looks;
        std::future::pending::<()>().await;
    }));
    event_loop.block_on(yield_now());
    drop(event_loop);
    assert_eq!(told.recv(), Ok((CoreState::Closing, true)));
}
