//! F1 and F2: futures that somebody else completes, and whatever can be awaited.

use coreloop::combine::{Awaitable, FutureError, future, gather_tuple};
use coreloop::spawn;
use coreloop::time::{sleep, timeout};

use super::{Play, Stage, twins, units, yes};

twins! { f1_a_future_that_is_completed_later, f2_anything_awaitable }

fn f1_a_future_that_is_completed_later(play: &mut Play) {
    type Value = Result<u32, &'static str>;

    async fn waits(stage: Stage, name: &'static str, future: Awaitable<Value>) {
        match future.await {
            Ok(Ok(value)) => stage.say(format_args!("{name}: {value}")),
            Ok(Err(e)) => stage.say(format_args!("{name}: error {e}")),
            Err(FutureError::Cancelled) => stage.say(format_args!("{name}: cancelled")),
            Err(e) => panic!("{e}"),
        }
    }
    play.act("a value", async |stage: Stage| {
        let (completer, awaitable) = future::<Value>();
        let a = spawn(waits(stage.clone(), "a", awaitable.clone()));
        let b = spawn(waits(stage.clone(), "b", awaitable.clone()));
        sleep(units(1)).await;
        stage.say(format_args!("done: {}", yes(awaitable.is_done())));
        sleep(units(1)).await;
        completer.complete(Ok(7)).unwrap();
        a.await.unwrap();
        b.await.unwrap();
        stage.say(format_args!("done: {}", yes(awaitable.is_done())));
        if completer.complete(Ok(8)).is_err() {
            stage.say("a second time is refused");
        }
        stage.say(format_args!("once more: {}", awaitable.await.unwrap().unwrap()));
    });
    play.act("an error", async |stage: Stage| {
        let (completer, awaitable) = future::<Value>();
        let a = spawn(waits(stage, "a", awaitable));
        sleep(units(1)).await;
        completer.complete(Err("boom")).unwrap();
        a.await.unwrap();
    });
    play.act("a cancel", async |stage: Stage| {
        let (completer, awaitable) = future::<Value>();
        let a = spawn(waits(stage.clone(), "a", awaitable));
        sleep(units(1)).await;
        stage.say(format_args!("asked: {}", yes(completer.cancel())));
        a.await.unwrap();
        stage.say(format_args!("again: {}", yes(completer.cancel())));
        if completer.complete(Ok(8)).is_err_and(|e| e.was_cancelled()) {
            stage.say("a value is refused");
        }
    });
}

fn f2_anything_awaitable(play: &mut Play) {
    /// A task that gives two after so many units.
    fn two(n: u32) -> coreloop::task::JoinHandle<u32> {
        spawn(async move {
            sleep(units(n)).await;
            2
        })
    }
    play.act("gathered", async |stage: Stage| {
        let (completer, three) = future();
        completer.complete(3).unwrap();
        let (a, b, c, _) = gather_tuple((async { 1 }, two(2), three, sleep(units(1)))).await;
        let (a, b, c) = (a.unwrap(), b.unwrap().unwrap(), c.unwrap().unwrap());
        stage.say(format_args!("results: {a} {b} {c}"));
    });
    play.act("under a limit", async |stage: Stage| {
        let (completer, three) = future();
        completer.complete(3).unwrap();
        let limit = units(2);
        stage.say(format_args!("a block: {}", timeout(limit, async { 1 }).await.unwrap()));
        stage.say(format_args!("a handle: {}", timeout(limit, two(1)).await.unwrap().unwrap()));
        stage.say(format_args!("a future: {}", timeout(limit, three).await.unwrap().unwrap()));
        timeout(limit, sleep(units(1))).await.unwrap();
        stage.say("a timer");
    });
}
