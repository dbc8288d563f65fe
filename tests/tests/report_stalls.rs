//! The stall detector: which task keeps its core, told while it does, and nothing told of cores that sleep,
//! spin, or move.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use coreloop::time::sleep;
use coreloop::{
    EventLoop, Settings, Spin, Stall, StatsLevel, spawn, spawn_eager, spawn_named, yield_now,
};
use coreloop_tests::process::NoSignals;

const MS: Duration = Duration::from_millis(1);

/// One at a time: there is one watcher in a process, and each of these looks at what it does.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loop whose stalls go to the receiver.
fn watched(settings: Settings) -> (EventLoop, mpsc::Receiver<Stall>) {
    let (tell, told) = mpsc::channel();
    let settings = settings.on_stall(move |stall| {
        let _ = tell.send(stall.clone());
    });
    (EventLoop::with(settings).unwrap(), told)
}

fn watchers() -> usize {
    threads("coreloop-stall")
}

fn threads_end(name: &str) {
    let began = Instant::now();
    while threads(name) > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "{name} is left");
        thread::sleep(MS);
    }
}

fn threads(called: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    names.filter(|name| name.as_ref().is_ok_and(|name| name.trim() == called)).count()
}

#[inline(never)]
fn blocks_the_core(d: Duration) {
    thread::sleep(d);
    std::hint::black_box(());
}

#[inline(never)]
fn computes_for(d: Duration) -> u64 {
    let (began, mut sum) = (Instant::now(), 0u64);
    while began.elapsed() < d {
        sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
    }
    sum
}

#[test]
fn report_a_stall_of_50_ms_names_the_task_while_it_lasts() {
    let _alone = alone();
    let (mut event_loop, told) = watched(Settings::default());
    for attempt in 0.. {
        let (line, id) = event_loop.block_on(async {
            let _others: Vec<_> =
                (0..10).map(|_| spawn_named("innocent", async { sleep(MS).await })).collect();
            let task = spawn_named("guilty", async {
                sleep(2 * MS).await;
                blocks_the_core(50 * MS);
            });
            let line = line!() - 4;
            let id = task.id();
            task.await.unwrap();
            (line, id)
        });
        // A machine that takes the CPU away from the core makes a stall of anybody's poll.
        let of_task = |stall: &Stall| stall.task == Some(id);
        let stalls = || told.recv_timeout(Duration::from_secs(10)).ok();
        let Some(stall) = std::iter::from_fn(stalls).find(of_task) else {
            // A watcher that the machine gave no time within 50 ms; once in a while.
            assert!(attempt < 5, "no stall was found");
            continue;
        };
        assert_eq!(stall.name.as_deref(), Some("guilty"));
        let at = stall.spawned_at.unwrap();
        assert!(at.file().ends_with("report_stalls.rs") && at.line() == line, "{at} {line}");
        assert!(stall.stalled >= 25 * MS, "{stall}");
        assert!(stall.cpu_time < stall.stalled / 2, "it slept: {stall}");
        if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            println!("SKIPPED report_a_stall_of_50_ms: no backtraces on this machine");
            return;
        }
        let text = stall.to_string();
        assert!(text.contains("blocks_the_core"), "{text}");
        assert!(text.contains("report_stalls.rs"), "with lines: {text}");
        assert!(text.contains("block_on"), "to the end of the stack: {text}");
        return;
    }
}

#[test]
fn report_a_stall_of_a_poll_that_makes_one_eager_task_after_another() {
    let _alone = alone();
    let (mut event_loop, told) = watched(Settings::default());
    // One that the machine took the CPU away from is a stall whatever it does: this one computed.
    let computed =
        move |told: &mpsc::Receiver<Stall>| told.try_iter().any(|stall| stall.cpu_time >= 10 * MS);
    event_loop.block_on(async move {
        let began = Instant::now();
        while !computed(&told) {
            assert!(began.elapsed() < Duration::from_secs(120), "each was taken for progress");
            let poll = Instant::now();
            while poll.elapsed() < 200 * MS {
                drop(spawn_eager(async {}));
            }
            yield_now().await;
        }
    });
}

#[test]
fn report_a_stall_is_told_while_it_lasts_and_once() {
    let _alone = alone();
    let heard = Arc::new(AtomicBool::new(false));
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let (heard, told) = (heard.clone(), told.clone());
        move |stall: &Stall| {
            told.lock().unwrap().push(stall.clone());
            heard.store(true, Ordering::Release);
        }
    };
    let mut event_loop = EventLoop::with(Settings::default().on_stall(hook)).unwrap();
    event_loop.block_on(async move {
        let began = Instant::now();
        // It ends only when it was told.
        while !heard.load(Ordering::Acquire) {
            assert!(began.elapsed() < Duration::from_secs(30), "nobody told of it");
            computes_for(MS);
        }
        computes_for(100 * MS);
        sleep(MS).await;
    });
    let stalls = event_loop.stats().counters.stalls;
    drop(event_loop);
    let told = told.lock().unwrap();
    assert_eq!((told.len(), stalls), (1, 1));
    assert_eq!((told[0].spawned_at, told[0].name.as_deref()), (None, None), "the main future");
    assert!(told[0].to_string().contains("main future"));
}

#[test]
fn report_more_than_five_stalls_a_minute_are_counted_and_not_told() {
    let _alone = alone();
    let settings = Settings::default().stall_threshold(5 * MS).stats(StatsLevel::Off);
    let (mut event_loop, told) = watched(settings);
    event_loop.block_on(async {
        let stalls = || coreloop::Handle::current().snapshot(0).unwrap().counters.stalls;
        let (mut heard, mut before) = (0, 0);
        // A slow machine may notice one too late to tell it, or miss it.
        while heard < 5 || stalls() < before + 3 {
            blocks_the_core(20 * MS);
            yield_now().await;
            if heard < 5 {
                heard += told.try_iter().count();
                before = stalls();
            }
        }
        assert_eq!(heard, 5);
    });
    drop(event_loop);
    assert_eq!(told.iter().count(), 0);
}

/// A thread that takes no signals does not say where it is, and is waited for until its stall is over.
#[test]
fn report_every_stall_that_is_counted_is_told_or_counted_as_not_told() {
    let _alone = alone();
    let (mut event_loop, told) = watched(Settings::default().stall_threshold(5 * MS));
    let signals = NoSignals::here();
    event_loop.block_on(async {
        let stalls = || coreloop::Handle::current().snapshot(0).unwrap().counters.stalls;
        let (mut heard, began) = (Vec::new(), Instant::now());
        // Fewer than are told in a minute, so that there is one for the end.
        while stalls() < 4 && heard.len() < 2 {
            blocks_the_core(8 * MS);
            yield_now().await;
            heard.extend(told.try_iter());
        }
        let (before, mut suppressed) = (heard.len(), 0);
        // The last one lasts until all were told.
        while heard.len() == before || stalls() != heard.len() as u64 + suppressed {
            assert!(began.elapsed() < Duration::from_secs(60), "{} of {heard:?}", stalls());
            heard.extend(told.recv_timeout(10 * MS));
            suppressed = heard.iter().map(|stall: &Stall| stall.suppressed).sum();
        }
    });
    drop(signals);
}

/// What looks up names for a line, or writes it to a full pipe, takes longer than most stalls do.
#[test]
fn report_stalls_are_found_and_counted_while_the_hook_blocks() {
    let _alone = alone();
    let (release, released) = mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let loops = (0..4).map(|_| {
        let (tell, told) = mpsc::channel();
        let released = released.clone();
        let settings = Settings::default().stall_threshold(5 * MS).on_stall(move |stall| {
            let _ = tell.send(stall.suppressed);
            // Until the other side is gone.
            let _ = released.lock().unwrap().recv();
        });
        (EventLoop::with(settings).unwrap(), told)
    });
    let mut loops: Vec<_> = loops.collect();
    let stall = |event_loop: &mut EventLoop| {
        event_loop.block_on(async {
            blocks_the_core(20 * MS);
            yield_now().await;
        });
        event_loop.stats().counters.stalls
    };
    let began = Instant::now();
    let in_time = || assert!(began.elapsed() < Duration::from_secs(120), "they are not looked at");
    // The first one blocks the hook, and others fill what waits behind it.
    for (event_loop, _) in &mut loops[..3] {
        while stall(event_loop) < 8 {
            in_time();
        }
    }
    let (last, told) = &mut loops[3];
    while stall(last) < 8 {
        in_time();
    }
    assert_eq!(told.try_iter().count(), 0, "it is told of after the others");
    drop(release);
    let suppressed = loop {
        stall(last);
        in_time();
        if let Ok(suppressed) = told.try_recv()
            && suppressed > 0
        {
            break suppressed;
        }
    };
    assert!(suppressed >= 3, "those that had no place: {suppressed}");
    drop(loops);
    threads_end("coreloop-tell");
}

#[test]
fn report_cores_that_sleep_spin_or_move_are_not_told_of() {
    let _alone = alone();
    let settings = Settings::default().stall_threshold(20 * MS).spin(Spin::Fixed(100 * MS));
    let (mut event_loop, told) = watched(settings);
    event_loop.block_on(async {
        // Spins, then sleeps.
        sleep(250 * MS).await;
        // Polls for a long time, none of which is long.
        let began = Instant::now();
        while began.elapsed() < 100 * MS {
            yield_now().await;
        }
    });
    // Nobody drives it.
    thread::sleep(60 * MS);
    event_loop.turn(Some(60 * MS));
    thread::sleep(60 * MS);
    drop(event_loop);
    // A machine that keeps it from its CPU for so long within a turn has stalled it.
    for stall in told.iter() {
        assert!(stall.cpu_time < 15 * MS, "{stall}");
    }
}

#[test]
fn report_a_panic_of_the_main_future_leaves_no_stall_behind() {
    let _alone = alone();
    let (mut event_loop, told) = watched(Settings::default().stall_threshold(10 * MS));
    // Without the hook, which prints a backtrace, and takes its time for that.
    let panics = async { std::panic::resume_unwind(Box::new("on purpose")) };
    let main = std::panic::AssertUnwindSafe(|| event_loop.block_on(panics));
    assert!(std::panic::catch_unwind(main).is_err());
    thread::sleep(50 * MS);
    drop(event_loop);
    assert_eq!(told.iter().filter(|stall| stall.cpu_time > 5 * MS).count(), 0);
}

#[test]
fn report_the_watcher_is_there_only_when_it_is_wanted() {
    let _alone = alone();
    // One that was dropped just now may not have noticed yet.
    let gone = |what: &str| {
        let began = Instant::now();
        while watchers() > 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "{what}");
            thread::sleep(MS);
        }
    };
    gone("before");
    let mut plain = EventLoop::new().unwrap();
    plain.block_on(async { spawn(async {}).await.unwrap() });
    assert_eq!(watchers(), 0);
    let first = EventLoop::with(Settings::default().stall_threshold(25 * MS)).unwrap();
    let second = EventLoop::with(Settings::default().stall_threshold(10 * MS)).unwrap();
    while watchers() == 0 {
        thread::yield_now();
    }
    assert_eq!(watchers(), 1);
    drop(first);
    thread::sleep(30 * MS);
    assert_eq!(watchers(), 1, "the second wants it");
    drop(second);
    gone("after");
}
