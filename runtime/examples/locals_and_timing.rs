//! Values that travel with a task, and how long things took, however they ended.
//!
//! ```text
//! cargo run -p coreloop --example locals_and_timing
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use coreloop::Histogram;
use coreloop::combine::gather;
use coreloop::spawn;
use coreloop::task;
use coreloop::time::{Timing, sleep, timed, timeout, try_timed};

const MS: Duration = Duration::from_millis(1);

coreloop::task_local! {
    static REQUEST: u32;
}

/// A line of a log, which knows whose it is without having been told.
fn log(text: &str) {
    match REQUEST.try_get() {
        Ok(request) => println!("  request {request}: {text}"),
        Err(_) => println!("  no request: {text}"),
    }
}

async fn handle() {
    log("begins");
    let helper = spawn(task::inherit(async { log("a helper inherits it") }));
    let stranger = spawn(async { log("a stranger does not") });
    helper.await.expect("it does not fail");
    stranger.await.expect("it does not fail");
}

/// Says how `name` ended, and that it took some time.
fn told(name: &'static str) -> impl FnOnce(Timing) {
    move |timing| println!("  {name}: {timing}")
}

/// Runs it; the guide's tests do so too.
#[coreloop::main]
pub async fn main() {
    println!("a value for one request:");
    REQUEST.scope(7, handle()).await;
    log("outside");

    println!("how they ended:");
    timed(told("a nap"), sleep(5 * MS)).await;
    let parsed = try_timed(told("a parse"), async { "x".parse::<u8>() }).await;
    let hour = timed(told("an hour"), sleep(3_600_000 * MS));
    let late = timeout(5 * MS, hour).await;
    let task = spawn(timed(told("a fall"), async {
        sleep(5 * MS).await;
        panic!("on purpose")
    }));
    let fallen = task.await;
    println!("  as their awaiters see it: {parsed:?}, {late:?}, {fallen:?}");

    let latencies = Rc::new(RefCell::new(Histogram::default()));
    gather([2, 4, 8].map(|ms| timed(latencies.clone(), sleep(ms * MS)))).await;
    let latencies = latencies.borrow();
    println!("into a histogram: {} naps, each of 2 ms or more", latencies.count());
    assert!(latencies.min_ns() >= 1_900_000);
}
