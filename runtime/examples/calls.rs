//! Plain functions on the loop: soon, later, at an instant, from another thread, and called off.
//!
//! ```text
//! cargo run -p coreloop --example calls
//! ```

use std::time::Duration;

use coreloop::sync::oneshot;
use coreloop::time::Instant;
use coreloop::{Handle, call_at, call_later, call_soon, yield_now};

const MS: Duration = Duration::from_millis(1);

#[coreloop::main]
async fn main() {
    let began = Instant::now();
    let say =
        move |what: &'static str| move || println!("{:>5} ms  {what}", began.elapsed().as_millis());

    // In the next turn, in the order of the calls.
    call_soon(say("soon"));
    call_soon(say("soon, too"));
    say("these two have not run yet")();
    yield_now().await;

    // By their times, whatever the order of asking.
    call_later(60 * MS, say("after 60 ms"));
    call_later(20 * MS, say("after 20 ms"));
    call_at(began + 40 * MS, say("at 40 ms"));

    // Dropping what these give lets the call be made; `cancel` does not.
    let never = call_later(30 * MS, say("never"));
    assert!(never.cancel());

    // From another thread: it wakes the loop, which sleeps until its next timer.
    let handle = Handle::current();
    std::thread::spawn(move || {
        std::thread::sleep(50 * MS);
        handle.call_soon_threadsafe(0, say("from another thread")).expect("the loop runs");
    });

    // A call can end somebody's wait.
    let (done, ended) = oneshot::channel();
    call_later(80 * MS, move || _ = done.send("the end"));
    say(ended.await.expect("it is sent"))();
}
