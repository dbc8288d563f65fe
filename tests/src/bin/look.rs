//! What a look at a core takes of it, in time: `cargo run --release -p coreloop-tests --bin look`.
//!
//! A core that has nothing else to do is looked at from another thread, so that each turn of its is a look:
//! its own histogram of turns is that of looks. How much it is in instructions and bytes is counted
//! elsewhere (`bench/callgrind`, `report_look`), without a clock.

use std::time::Duration;

use coreloop::sched::TaskQueue;
use coreloop::{EventLoop, Handle, Settings, StatsLevel, spawn, time::sleep};

const LOOKS: u32 = 2_000;
const SECOND: Duration = Duration::from_secs(1);

fn main() {
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
