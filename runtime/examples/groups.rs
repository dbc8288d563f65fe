//! Several at once: gather with failures, as they come, the three waits, and a group that the first
//! failure ends.
//!
//! ```text
//! cargo run -p coreloop --example groups
//! ```

use std::fmt;
use std::time::Duration;

use coreloop::combine::{When, as_completed, gather_handles, group, try_gather, try_wait};
use coreloop::spawn;
use coreloop::task::JoinHandle;
use coreloop::time::sleep;

const MS: Duration = Duration::from_millis(1);

/// What a server says that is not 200.
#[derive(Debug)]
struct Status(u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.0)
    }
}

/// Says so when it is dropped before its answer is there.
struct Pending(&'static str);

impl Drop for Pending {
    fn drop(&mut self) {
        println!("  {} is called off", self.0);
    }
}

async fn request(name: &'static str, after: Duration, status: u16) -> Result<u16, Status> {
    let pending = Pending(name);
    sleep(after).await;
    std::mem::forget(pending);
    println!("  {name}: {status}");
    if status == 200 { Ok(status) } else { Err(Status(status)) }
}

/// Of these, `b` fails, and `c` is the slowest.
fn three() -> [JoinHandle<Result<u16, Status>>; 3] {
    [
        spawn(request("a", 10 * MS, 200)),
        spawn(request("b", 30 * MS, 429)),
        spawn(request("c", 150 * MS, 200)),
    ]
}

/// Runs it; the guide's tests do so too.
#[coreloop::main]
pub async fn main() {
    println!("gather, every result in its place:");
    let results = gather_handles(three()).await;
    let shown = results.iter().flatten().map(|result| match result {
        Ok(status) => status.to_string(),
        Err(e) => format!("failed with {e}"),
    });
    println!("  = {}", shown.collect::<Vec<_>>().join(", "));

    println!("gather, up to the first error; the others run on:");
    let some = [("d", 10, 429), ("e", 150, 200)];
    let all = try_gather(some.map(|(name, ms, status)| request(name, ms * MS, status))).await;
    if let Err(e) = all {
        println!("  = {e}");
    }
    sleep(200 * MS).await;

    println!("as they come, for 60 ms:");
    let mut ended = as_completed(three()).within(60 * MS);
    while let Some((input, result)) = ended.next().await {
        match result {
            Ok(Ok(status)) => println!("  = input {input}: {status}"),
            Ok(Err(e)) => println!("  = input {input}: failed with {e}"),
            Err(e) => println!("  = input {input}: {e}"),
        }
    }
    sleep(200 * MS).await;

    for until in [When::FirstCompleted, When::FirstError, When::AllCompleted] {
        println!("wait, {until:?}:");
        let mut handles = three();
        let waited = try_wait(&mut handles, until, None).await;
        println!("  = done {:?}, pending {:?}", waited.done, waited.pending);
        for input in waited.pending {
            handles[input].cancel();
        }
        try_wait(&mut handles, When::AllCompleted, None).await;
    }

    println!("a group, called off by the first that is refused:");
    let refused = group(async |g| {
        for (name, ms, status) in
            [("f", 10, 200), ("g", 10_000, 200), ("h", 30, 429), ("i", 10_000, 200)]
        {
            let _child = g.spawn(request(name, ms * MS, status));
        }
        Ok(())
    });
    if let Err(e) = refused.await {
        println!("  = {e}");
    }
}
