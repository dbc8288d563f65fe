//! What a look at a core takes of it, in time: `cargo run --release -p coreloop-tests --bin look`.
//!
//! First, a core that has nothing else to do is looked at from another thread, so that each turn of its is a
//! look: its own histogram of turns is that of looks. Then two busy cores, at each level: the first takes
//! snapshots of both and adds them up, and a task on each notes the longest that it was not polled meanwhile, by
//! the clock and by its thread's CPU time. Other programs hold a core up too, which the CPU time does not
//! count, and which as long a time without a look shows. How much it is in instructions and
//! bytes is counted elsewhere (`bench/callgrind`, `report_look`), without a clock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coreloop::sched::TaskQueue;
use coreloop::{
    Core, Cores, EventLoop, Handle, Runtime, Settings, Snapshot, StatsLevel, spawn, time::sleep,
    yield_now,
};
use coreloop_tests::process::thread_cpu;

const LOOKS: u32 = 2_000;
const SECOND: Duration = Duration::from_secs(1);

/// Of the two cores, at each level, and as many times without a look.
const LOOKS_OF_TWO: usize = 1_000;

fn main() {
    turns_of_looks();
    pauses_of_two_cores();
}

fn turns_of_looks() {
    println!("  {:>7} {:>7}  {:>9} {:>9} {:>9}", "tasks", "queues", "p50 µs", "p99 µs", "max µs");
    for (tasks, queues) in [(10, 1), (10_000, 1), (10_000, 16)] {
        let settings = Settings::default().stats(StatsLevel::Histograms);
        let ticks = EventLoop::with(settings).expect("a loop").block_on(async move {
            let queues: Vec<TaskQueue> = (1..queues)
                .map(|at| TaskQueue::builder(format!("queue {at}")).build().expect("room"))
                .collect();
            for _ in 0..tasks {
                drop(spawn(sleep(3600 * SECOND)));
            }
            sleep(SECOND / 10).await;
            let handle = Handle::current();
            let before = handle.snapshot(0).expect("it is here");
            let outside = handle.clone();
            let looks = move || {
                for _ in 0..LOOKS {
                    let seen = outside.all_stats_blocking(SECOND);
                    assert!(seen[0].gauges.tasks > 0);
                }
            };
            coreloop::spawn_blocking(looks).await.expect("no panic");
            drop(queues);
            handle.snapshot(0).expect("it is here").since(&before).histograms.expect("kept").tick
        });
        assert!(ticks.count() >= u64::from(LOOKS), "each look is a turn: {}", ticks.count());
        let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
        let (p50, p99) = (us(ticks.quantile_ns(0.5)), us(ticks.quantile_ns(0.99)));
        println!("  {tasks:>7} {queues:>7}  {p50:>9} {p99:>9} {:>9}", us(ticks.max_ns()));
    }
}

fn pauses_of_two_cores() {
    println!("\n  two cores, the longest pause during a look at both, µs");
    let columns = format!("{:>8} {:>8} {:>8}", "p50", "p99", "max");
    println!("  {:>33}  {:>26}  {:>26}", "", "by the clock", "by the thread's CPU time");
    println!("  {:>10}  {:>14}  {:>5}  {columns}  {columns}", "level", "core", "");
    let cpus = Cores::All.resolve().expect("CPUs");
    let pair = vec![cpus[0], *cpus.get(1).unwrap_or(&cpus[0])];
    for (name, level) in [
        ("off", StatsLevel::Off),
        ("counters", StatsLevel::Counters),
        ("histograms", StatsLevel::Histograms),
    ] {
        let runtime = Runtime::builder()
            .cores(Cores::These(pair.clone()))
            .settings(Settings::default().stats(level))
            .build()
            .expect("two cores");
        let (shared, windows) = (Arc::new(Shared::default()), Arc::new(Mutex::new(Vec::new())));
        let seen = windows.clone();
        let main = move |core: Core| windows_of_a_core(core, shared.clone(), seen.clone());
        runtime.run(main).expect("no panic");
        let windows = windows.lock().expect("no panic");
        for (core, what) in [(1, "looked at"), (0, "reads and adds")] {
            for looks in [false, true] {
                let of = || windows.iter().filter(|window| window.looks == looks);
                let clock = figures(of().map(|window| window.longest_ns[core]).collect());
                let cpu = figures(of().map(|window| window.longest_cpu_ns[core]).collect());
                let looks = if looks { "looks" } else { "none" };
                println!("  {name:>10}  {what:>14}  {looks:>5}  {clock}  {cpu}");
            }
        }
    }
}

/// Median, 99th percentile and maximum.
fn figures(mut ns: Vec<u64>) -> String {
    ns.sort_unstable();
    let at = |share: usize| ns[(ns.len() * share / 100).min(ns.len() - 1)] as f64 / 1e3;
    format!("{:>8.1} {:>8.1} {:>8.1}", at(50), at(99), at(100))
}

/// What the cores tell each other: the longest pause of each since the window began.
#[derive(Default)]
struct Shared {
    longest_ns: [AtomicU64; 2],
    longest_cpu_ns: [AtomicU64; 2],
    done: AtomicBool,
}

/// A time with looks, or as long a time without.
struct Window {
    looks: bool,
    longest_ns: [u64; 2],
    longest_cpu_ns: [u64; 2],
}

/// The first core looks and notes, the second one only works.
async fn windows_of_a_core(core: Core, shared: Arc<Shared>, windows: Arc<Mutex<Vec<Window>>>) {
    let queues: Vec<TaskQueue> = (1..16)
        .map(|at| TaskQueue::builder(format!("queue {at}")).build().expect("room"))
        .collect();
    for _ in 0..1_000 {
        drop(spawn(sleep(3600 * SECOND)));
    }
    drop(spawn(pulse(core.index(), shared.clone())));
    sleep(SECOND / 10).await;
    if core.index() == 1 {
        while !shared.done.load(Ordering::Relaxed) {
            sleep(SECOND / 100).await;
        }
        return;
    }
    for _ in 0..LOOKS_OF_TWO {
        let mut length = Duration::ZERO;
        for looks in [true, false] {
            let all = shared.longest_ns.iter().chain(&shared.longest_cpu_ns);
            all.for_each(|longest| longest.store(0, Ordering::Relaxed));
            let began = Instant::now();
            if looks {
                let sum = Snapshot::sum(&core.handle().all_stats(SECOND).await);
                length = began.elapsed();
                assert!(sum.gauges.tasks > 2_000, "it is of both: {:?}", sum.gauges);
            } else {
                sleep(length).await;
            }
            // Both have noted the last pause.
            sleep(SECOND / 2_000).await;
            let read = |all: &[AtomicU64; 2]| [0, 1].map(|core| all[core].load(Ordering::Relaxed));
            let longest_ns = read(&shared.longest_ns);
            let longest_cpu_ns = read(&shared.longest_cpu_ns);
            let window = Window { looks, longest_ns, longest_cpu_ns };
            windows.lock().expect("no panic").push(window);
        }
    }
    shared.done.store(true, Ordering::Relaxed);
    drop(queues);
}

/// A task that has always something to do, and notes how long it was not polled.
async fn pulse(core: usize, shared: Arc<Shared>) {
    let (mut last, mut last_cpu) = (Instant::now(), thread_cpu());
    loop {
        yield_now().await;
        let (now, now_cpu) = (Instant::now(), thread_cpu());
        let pause = now.duration_since(last).as_nanos() as u64;
        shared.longest_ns[core].fetch_max(pause, Ordering::Relaxed);
        let pause = (now_cpu - last_cpu).as_nanos() as u64;
        shared.longest_cpu_ns[core].fetch_max(pause, Ordering::Relaxed);
        (last, last_cpu) = (now, now_cpu);
    }
}
