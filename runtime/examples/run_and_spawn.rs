//! When tasks run: one listing in three orders, the end of main, and a loop that is driven by hand.
//!
//! Two naps of 5 and 6 units are spawned, and main computes for 2.5 units: before it awaits
//! anything (8.5), after the first await (7.5), or after a sleep of zero, which lets the naps begin
//! (6).
//!
//! ```text
//! cargo run -p coreloop --example run_and_spawn
//! ```

use std::time::Duration;

use coreloop::task::JoinHandle;
use coreloop::time::{Instant, sleep};
use coreloop::{EventLoop, Handle, spawn, spawn_named, yield_now};

/// A second, if there were as much time.
const UNIT: Duration = Duration::from_millis(20);

/// Keeps the core busy.
fn compute(units: f64) {
    let began = Instant::now();
    while began.elapsed() < UNIT.mul_f64(units) {
        std::hint::spin_loop();
    }
}

/// The clock of a sleep starts where `sleep` is called: here, when the nap begins.
async fn nap(units: u32) {
    sleep(UNIT * units).await;
}

fn two_naps() -> [JoinHandle<()>; 2] {
    [5, 6].map(|units| spawn(nap(units)))
}

async fn computes_first() {
    let [five, six] = two_naps();
    compute(2.5); // Neither nap has begun.
    five.await.expect("it naps");
    six.await.expect("it naps");
}

async fn computes_between() {
    let [five, six] = two_naps();
    five.await.expect("it naps");
    compute(2.5); // The other nap ends meanwhile.
    six.await.expect("it naps");
}

async fn gives_way_first() {
    let [five, six] = two_naps();
    sleep(Duration::ZERO).await; // Both begin.
    compute(2.5);
    five.await.expect("it naps");
    six.await.expect("it naps");
}

async fn report(what: &str, program: impl Future<Output = ()>) {
    let began = Instant::now();
    program.await;
    println!("{what:<26}{:>5.1} units", began.elapsed().as_secs_f64() / UNIT.as_secs_f64());
}

/// Says so when it is dropped.
struct Guest(&'static str);

impl Drop for Guest {
    fn drop(&mut self) {
        println!("  {} is gone", self.0);
    }
}

async fn the_end_of_main() {
    for name in ["one who began", "one who did not begin"] {
        let guest = Guest(name);
        drop(spawn_named(name, async move {
            let guest = guest;
            println!("  {} begins", guest.0);
            std::future::pending::<()>().await;
        }));
        if name == "one who began" {
            yield_now().await;
        }
    }
    println!("  main ends");
}

/// Runs it; the guide's tests do so too.
pub fn main() {
    coreloop::run(async {
        report("computes first", computes_first()).await;
        report("computes between", computes_between()).await;
        report("gives way first", gives_way_first()).await;
    })
    .expect("io_uring is allowed");

    println!("the end of main is the end:");
    coreloop::run(the_end_of_main()).expect("io_uring is allowed");

    println!("a loop by hand, outside of which there is none:");
    if let Err(e) = Handle::try_current() {
        println!("  {e}");
    }
    let mut event_loop = EventLoop::new().expect("io_uring is allowed");
    let task = event_loop.spawn(async {
        for _ in 0..10 {
            yield_now().await;
        }
        "begun in one drive, ended in another"
    });
    event_loop.block_on(yield_now());
    println!("  finished after the first: {}", task.is_finished());
    println!("  {}", event_loop.block_on(task).expect("it does not fail"));
}
