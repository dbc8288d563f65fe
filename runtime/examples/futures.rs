//! A future that somebody else completes: awaited by several, completed once, cancelled, or
//! abandoned.
//!
//! ```text
//! cargo run -p coreloop --example futures
//! ```

use std::time::Duration;

use coreloop::combine::{Awaitable, future};
use coreloop::time::{sleep, timeout};
use coreloop::{call_later, spawn, yield_now};

const MS: Duration = Duration::from_millis(1);

async fn reader(name: &'static str, price: Awaitable<u32>) {
    match price.await {
        Ok(price) => println!("  {name} has {price}"),
        Err(e) => println!("  {name}: {e}"),
    }
}

/// Runs it; the guide's tests do so too.
#[coreloop::main]
pub async fn main() {
    println!("one completes, several wait:");
    let (completer, price) = future();
    let readers = ["ann", "bob"].map(|name| spawn(reader(name, price.clone())));
    println!("  done: {}", price.is_done());
    call_later(10 * MS, move || {
        completer.complete(42).expect("it is the first time");
        let refused = completer.complete(43).expect_err("it is the second");
        println!("  again: {refused}, {} comes back", refused.into_value());
    });
    for reader in readers {
        reader.await.expect("it does not fail");
    }
    reader("late", price).await;

    println!("cancelled, and abandoned:");
    let (completer, price) = future();
    let waits = spawn(reader("ann", price));
    yield_now().await;
    completer.cancel();
    waits.await.expect("it does not fail");
    let (completer, price) = future();
    drop(completer);
    reader("bob", price).await;

    println!("whatever can be awaited can be limited:");
    let (completer, price) = future();
    completer.complete(1).expect("it is the first time");
    println!("  a future: {:?}", timeout(60_000 * MS, price).await);
    let task = spawn(async { 2 });
    println!("  a task: {:?}", timeout(60_000 * MS, task).await);
    println!("  a block: {:?}", timeout(60_000 * MS, async { 3 }).await);
    println!("  a timer: {:?}", timeout(60_000 * MS, sleep(MS)).await);
}
