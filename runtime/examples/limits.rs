//! Limits: on a task, which is waited for; around a shield; nested, moved, and none.
//!
//! ```text
//! cargo run -p coreloop --example limits
//! ```

use std::pin::pin;
use std::time::Duration;

use coreloop::combine::shield;
use coreloop::spawn;
use coreloop::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);

/// Says so when it is dropped.
struct Session;

impl Drop for Session {
    fn drop(&mut self) {
        println!("  the session is closed");
    }
}

async fn answer(after: Duration) -> &'static str {
    let _session = Session;
    sleep(after).await;
    "an answer"
}

/// Runs it; the guide's tests do so too.
#[coreloop::main]
pub async fn main() {
    println!("over the limit, the task is gone before the error is there:");
    let mut late = spawn(answer(Duration::MAX));
    if let Err(e) = late.timeout(10 * MS).await {
        println!("  {e}; cancelled: {}", late.is_cancelled());
    }

    println!("shielded, it outlives the limit:");
    let mut slow = spawn(answer(40 * MS));
    if let Err(e) = timeout(10 * MS, shield(&mut slow)).await {
        println!("  {e}; cancelled: {}", slow.is_cancelled());
    }
    println!("  later: {}", slow.await.expect("nobody cancels it"));

    println!("no time at all is enough for what is ready:");
    println!("  {:?}", timeout(Duration::ZERO, async { 7 }).await);
    println!("  {:?}", timeout(Duration::ZERO, sleep(MS)).await);

    println!("nested, each reports its own:");
    let inner = timeout(10 * MS, sleep(Duration::MAX));
    match timeout(Duration::MAX, inner).await {
        Ok(Err(_)) => println!("  the inner one is over"),
        Ok(Ok(())) | Err(_) => println!("  not this"),
    }

    println!("moved while it runs:");
    let mut limit = pin!(timeout(10 * MS, answer(30 * MS)));
    limit.as_mut().reset(Instant::NEVER);
    println!("  {:?}", limit.await);
}
