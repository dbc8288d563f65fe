//! What tasks of one core wait for each other with, and a scope with an awaited exit.
//!
//! ```text
//! cargo run -p coreloop --example primitives
//! ```

use std::rc::Rc;
use std::time::Duration;

use coreloop::cancel::{self, How, Token};
use coreloop::combine::gather;
use coreloop::sync::{Barrier, Condition, Event, Mutex, Queue, Semaphore};
use coreloop::time::sleep;
use coreloop::{spawn, yield_now};

/// Runs it; the guide's tests do so too.
#[coreloop::main]
pub async fn main() {
    lock().await;
    event_and_condition().await;
    semaphore_and_barrier().await;
    queues().await;
    scope_with_an_exit().await;
}

async fn lock() {
    println!("a lock, in the order of asking, and given back by a cancel:");
    let log = Rc::new(Mutex::new(Vec::new()));
    let held = log.clone();
    let holder = spawn(async move {
        let _guard = held.lock().await;
        std::future::pending::<()>().await;
    });
    yield_now().await;
    let writers = ["first", "second"].map(|name| {
        let log = log.clone();
        spawn(async move { log.lock().await.push(name) })
    });
    yield_now().await;
    println!("  before: locked {}", log.is_locked());
    holder.cancel();
    for writer in writers {
        writer.await.expect("it does not fail");
    }
    println!("  after: {}", log.lock().await.join(", "));
}

async fn event_and_condition() {
    println!("an event, and a condition:");
    let ready = Rc::new(Event::new());
    let seen = ready.clone();
    let waits = spawn(async move { seen.wait().await });
    ready.set();
    waits.await.expect("it does not fail");
    println!("  the event is set: {}", ready.is_set());

    let shared = Rc::new((Mutex::new(0), Condition::new()));
    let inner = shared.clone();
    let taker = spawn(async move {
        let (stock, changed) = &*inner;
        let mut stock = changed.wait_for(stock.lock().await, |stock| *stock >= 3).await;
        *stock -= 3;
        *stock
    });
    yield_now().await;
    let (stock, changed) = &*shared;
    for _ in 0..4 {
        *stock.lock().await += 1;
        changed.notify_all();
    }
    println!("  of 4 taken 3, left {}", taker.await.expect("it does not fail"));
}

async fn semaphore_and_barrier() {
    println!("two at a time, and all together:");
    let permits = Rc::new(Semaphore::bounded(2));
    let barrier = Rc::new(Barrier::new(4));
    let runners = (1..=4).map(|n| {
        let (permits, barrier) = (permits.clone(), barrier.clone());
        async move {
            let permit = permits.acquire().await.expect("nobody closes it");
            println!("  {n} runs, {} left", permits.available_permits());
            yield_now().await;
            drop(permit);
            barrier.wait().await.expect("nobody breaks it").is_leader()
        }
    });
    let leaders = gather(runners).await.into_iter().flatten().filter(|leads| *leads).count();
    println!("  all have come, {leaders} was the last");
}

async fn queues() {
    println!("queues: first in, last in, least:");
    let queue = Rc::new(Queue::bounded(2));
    let items = queue.clone();
    let worker = spawn(async move {
        let mut got = Vec::new();
        while let Ok(n) = items.get().await {
            got.push(n);
            items.task_done();
        }
        got
    });
    for n in [3, 1, 2] {
        queue.put(n).await.expect("it is open");
    }
    queue.join().await;
    queue.shutdown();
    println!("  {:?}", worker.await.expect("it does not fail"));

    let (stack, heap) = (Queue::unbounded_lifo(), Queue::unbounded_priority());
    for n in [3, 1, 2] {
        stack.try_put(n).expect("there is room");
        heap.try_put(n).expect("there is room");
    }
    let (mut last_first, mut least_first) = (Vec::new(), Vec::new());
    while let (Ok(last), Ok(least)) = (stack.try_get(), heap.try_get()) {
        last_first.push(last);
        least_first.push(least);
    }
    println!("  {last_first:?}\n  {least_first:?}");
}

async fn scope_with_an_exit() {
    println!("a scope with an awaited exit, asked to end:");
    let token = Token::new();
    let asked = token.clone();
    drop(spawn(async move { asked.cancel() }));
    let closed = cancel::with(
        "session",
        async |_session| std::future::pending::<()>().await,
        async |session, how| {
            sleep(Duration::from_millis(2)).await;
            println!("  the {session} says goodbye, {how:?}");
            matches!(how, How::Cancelled)
        },
    )
    .cancel_on(&token)
    .run()
    .await;
    println!("  closed in time: {}", closed.close == Ok(true));
}
