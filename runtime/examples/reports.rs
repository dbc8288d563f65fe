//! What a loop has to say: debug mode's reports, failures that nobody took, and a list of all
//! tasks.
//!
//! ```text
//! cargo run -p coreloop --example reports
//! ```

use std::thread;
use std::time::Duration;

use coreloop::sync::Event;
use coreloop::task::{Report, WaitsFor};
use coreloop::time::sleep;
use coreloop::{EventLoop, Settings, all_tasks, spawn_fallible, spawn_named, yield_now};

const MS: Duration = Duration::from_millis(1);

/// Runs it; the guide's tests do so too.
pub fn main() {
    let settings = Settings::default().debug(true).slow_poll(20 * MS).on_report(|report| {
        let kind = match report {
            Report::Panicked { .. } => "panicked",
            Report::Failed { .. } => "failed",
            Report::SlowPoll { .. } => "slow",
            Report::Unfinished { .. } => "unfinished",
            _ => "other",
        };
        println!("  [{kind}] {report}");
    });
    // Its own words come from the hook; ours are enough.
    std::panic::set_hook(Box::new(|_| ()));
    let mut event_loop = EventLoop::with(settings).expect("io_uring is allowed");
    event_loop.block_on(async {
        println!("what nobody took, and what was slow:");
        drop(spawn_named("careless", async { panic!("nobody waits for me") }));
        drop(spawn_fallible(async { "x".parse::<u8>() }));
        drop(spawn_named("slow", async { thread::sleep(30 * MS) }));
        let taken = spawn_named("taken", async { panic!("somebody does") });
        println!("  taken: {}", taken.await.expect_err("it panics"));

        println!("all tasks:");
        let event = Event::new();
        let nap = spawn_named("nap", sleep(Duration::from_secs(3600)));
        drop(spawn_named("waits for nap", nap));
        drop(spawn_named("waits for an event", async move { event.wait().await }));
        yield_now().await;
        list();
        println!("the end of the loop:");
    });
}

fn list() {
    println!("  {:<20}{:<10}{:<8}waits for", "name", "state", "line");
    for task in all_tasks() {
        let name = task.name.as_deref().unwrap_or("(main)");
        let line = task.spawned_at.map_or(String::new(), |at| at.line().to_string());
        let waits_for = task.waits_for.iter().map(|what| match what {
            WaitsFor::Timer { left } => format!("a timer, {:.0} s", left.as_secs_f64()),
            other => other.to_string(),
        });
        let waits_for = waits_for.collect::<Vec<_>>().join(", ");
        println!("  {name:<20}{:<10}{line:<8}{waits_for}", format!("{:?}", task.state));
    }
}
