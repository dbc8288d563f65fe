//! Three task queues on one core: work in the background, work that pays, and one that must not wait.
//! `cargo run --release -p coreloop --example shares`

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use coreloop::sched::{QueueError, TaskQueue};
use coreloop::time::{Instant, sleep_until};
use coreloop::{EventLoop, Settings, spawn, yield_now};

/// Some microseconds of work.
fn compute() {
    let mut sum = 1u64;
    for i in 0..5_000u64 {
        sum = black_box(sum.rotate_left(7) ^ i);
    }
}

/// Many tasks that compute until `stop`, and spawn more of their kind, which are of the same queue.
fn hog(queue: &TaskQueue, stop: &Rc<Cell<bool>>) {
    for _ in 0..200 {
        let stop = stop.clone();
        drop(queue.spawn(async move {
            while !stop.get() {
                spawn(async { compute() }).await.expect("no panic");
                yield_now().await;
            }
        }));
    }
}

/// How late one is polled who wakes every millisecond or two in this queue: the median. (What is rarer on a busy
/// machine is the system's doing: it takes the thread off its CPU.)
async fn lateness(queue: &TaskQueue) -> Duration {
    let task = queue.spawn(async {
        let mut late = Vec::new();
        for i in 0..200 {
            let at = Instant::now() + Duration::from_micros(1_000 + i % 10 * 100);
            sleep_until(at).await;
            late.push(at.elapsed());
        }
        late.sort_unstable();
        late[late.len() / 2]
    });
    task.await.expect("no panic")
}

fn main() -> Result<(), QueueError> {
    let main = async {
        let batch = TaskQueue::builder("batch").shares(10).build()?;
        let paying = TaskQueue::builder("paying").shares(1_000).build()?;
        let urgent = TaskQueue::builder("urgent").latency(Duration::from_micros(100)).build()?;
        let stop = Rc::new(Cell::new(false));
        hog(&batch, &stop);
        hog(&paying, &stop);
        let within = lateness(&urgent).await;
        urgent.set_latency(None)?;
        let without = lateness(&urgent).await;
        stop.set(true);
        println!("{:<8} {:>6} {:>10} {:>12}", "queue", "shares", "polls", "CPU time");
        for stats in [batch.stats(), paying.stats(), urgent.stats()] {
            let cpu = format!("{:.1} ms", stats.cpu_time.as_secs_f64() * 1e3);
            println!("{:<8} {:>6} {:>10} {cpu:>12}", stats.name, stats.shares, stats.polls);
        }
        println!(
            "urgent polls are {} µs late with a goal of 100 µs, {} µs with none",
            within.as_micros(),
            without.as_micros()
        );
        Ok(())
    };
    let settings = Settings::default().timer_resolution(Duration::from_micros(10));
    EventLoop::with(settings).expect("a loop").block_on(main)
}
