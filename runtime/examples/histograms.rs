//! From a bad p99 to its cause: a service whose requests are late now and then, what its core's histograms say
//! of that, whom the stall detector names, and the same service mended. The guide's page "Reading the
//! histograms" goes through what it prints.
//!
//! ```text
//! cargo run --release -p coreloop --example histograms
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coreloop::time::{Instant as LoopInstant, sleep, sleep_until};
use coreloop::{
    EventLoop, Histogram, Settings, Snapshot, StatsLevel, spawn, spawn_blocking, spawn_named,
};

const MS: Duration = Duration::from_millis(1);
const CLIENTS: u32 = 50;

/// Runs it; the guide's tests do so too.
pub fn main() {
    println!("with the summary made between requests:");
    service(false, 2000 * MS);
    println!("\nwith the summary made on a blocking thread:");
    service(true, 2000 * MS);
}

/// 50 clients ask every 10 ms; each answer takes some 20 µs. Every 250 ms a summary is made, which takes 30 ms.
fn service(mended: bool, for_how_long: Duration) {
    let settings = Settings::default()
        .stats(StatsLevel::Histograms)
        .timer_resolution(Duration::from_micros(100))
        .stall_threshold(10 * MS)
        .on_stall(|stall| {
            let name = stall.name.as_deref().unwrap_or("(no name)");
            let at = stall.spawned_at.map_or(0, |at| at.line());
            let text = stall.to_string();
            let guilty = text.lines().find(|line| line.contains("make_summary")).unwrap_or("");
            println!("  stall: task {name}, spawned in line {at}, at{guilty}");
        });
    let mut event_loop = EventLoop::with(settings).expect("io_uring is allowed");
    let latency = Rc::new(RefCell::new(Histogram::default()));
    event_loop.block_on(async {
        for client in 0..CLIENTS {
            drop(spawn(ask(client, latency.clone())));
        }
        drop(spawn_named("summary", async move {
            for number in 1.. {
                sleep(250 * MS).await;
                if mended {
                    spawn_blocking(move || make_summary(number)).await.expect("no panic");
                } else {
                    make_summary(number);
                }
            }
        }));
        sleep(for_how_long).await;
    });
    let told = event_loop.stats();
    line("latency", &latency.borrow());
    print(&told);
}

/// A request every 10 ms; its latency counts from when it was due.
async fn ask(client: u32, latency: Rc<RefCell<Histogram>>) {
    let mut due = LoopInstant::now() + MS * (client % 10);
    loop {
        due += 10 * MS;
        sleep_until(due).await;
        compute(Duration::from_micros(20));
        let took = LoopInstant::now() - due;
        latency.borrow_mut().record(took.as_nanos() as u64);
    }
}

#[inline(never)]
fn make_summary(number: u32) {
    compute(30 * MS);
    std::hint::black_box(number);
}

fn compute(d: Duration) {
    let began = Instant::now();
    while began.elapsed() < d {
        std::hint::spin_loop();
    }
}

fn print(told: &Snapshot) {
    let histograms = told.histograms.as_ref().expect("the settings ask for them");
    for (name, values) in histograms.iter().into_iter().filter(|(_, values)| values.count() > 0) {
        line(name, values);
    }
    println!("  polls {}, stalls {}", told.counters.polls, told.counters.stalls);
}

fn line(name: &str, values: &Histogram) {
    let us = |q| values.quantile_ns(q) as f64 / 1e3;
    println!(
        "  {name:<14}{:>8} times   p50 {:>8.1} µs   p99 {:>8.1} µs   max {:>8.1} µs",
        values.count(),
        us(0.5),
        us(0.99),
        us(1.0),
    );
}
