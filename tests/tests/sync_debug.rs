//! What `Debug` says of a primitive (P1): its state, and how many wait.

use std::cell::RefCell;
use std::time::Duration;

use coreloop::sync::{Barrier, Condition, Event, Mutex, Queue, Semaphore};
use coreloop::time::{Instant, sleep, timeout};
use coreloop::{EventLoop, spawn};
use coreloop_tests::ByHand;
use coreloop_tests::by_hand::now;

/// Asserts that all of the words stand in what `Debug` says.
#[track_caller]
fn says(value: &impl std::fmt::Debug, words: &[&str]) {
    let shown = format!("{value:?}");
    for word in words {
        assert!(shown.contains(word), "{word:?} is not in {shown}");
    }
}

#[test]
fn p1_lock_and_event_say_their_states() {
    let mutex = Mutex::new(());
    says(&mutex, &["locked: false", "waiting: 0"]);
    let guard = now(mutex.lock());
    let waits = ByHand::pending(mutex.lock());
    says(&mutex, &["locked: true", "waiting: 1"]);
    drop((waits, guard));
    says(&mutex, &["locked: false", "waiting: 0"]);
    let event = Event::new();
    says(&event, &["set: false", "waiting: 0"]);
    let waits = ByHand::pending(event.wait());
    says(&event, &["set: false", "waiting: 1"]);
    event.set();
    says(&event, &["set: true", "waiting: 0"]);
    drop(waits);
}

#[test]
fn p1_condition_says_how_many_wait() {
    let (mutex, condition) = (Mutex::new(()), Condition::new());
    says(&condition, &["waiting: 0"]);
    let one = ByHand::pending(condition.wait(now(mutex.lock())));
    says(&condition, &["waiting: 1"]);
    let two = ByHand::pending(condition.wait(now(mutex.lock())));
    says(&condition, &["waiting: 2"]);
    drop((one, two));
    says(&condition, &["waiting: 0"]);
}

#[test]
fn p1_semaphore_says_its_permits_and_how_many_wait() {
    let semaphore = Semaphore::new(1);
    says(&semaphore, &["permits: 1", "waiting: 0"]);
    let permit = now(semaphore.acquire()).unwrap();
    says(&semaphore, &["permits: 0", "waiting: 0"]);
    let one = ByHand::pending(semaphore.acquire());
    says(&semaphore, &["waiting: 1"]);
    let two = ByHand::pending(semaphore.acquire());
    says(&semaphore, &["permits: 0", "waiting: 2"]);
    drop((one, two, permit));
    says(&semaphore, &["permits: 1", "waiting: 0"]);
}

#[test]
fn p1_barrier_says_who_has_come_and_whether_it_is_broken() {
    let barrier = Barrier::new(3);
    says(&barrier, &["parties: 3", "waiting: 0", "broken: false"]);
    let waiting = RefCell::new(Vec::new());
    for come in 1..3 {
        waiting.borrow_mut().push(ByHand::pending(barrier.wait()));
        says(&barrier, &["parties: 3", &format!("waiting: {come}")]);
    }
    barrier.abort();
    says(&barrier, &["waiting: 0", "broken: true"]);
    waiting.take();
    barrier.reset();
    says(&barrier, &["broken: false"]);
}

#[test]
fn p1_queue_says_what_is_in_it_and_who_waits() {
    let queue = Queue::bounded(1);
    says(&queue, &["len: 0", "getters: 0", "putters: 0", "unfinished: 0", "shutdown: false"]);
    let get = ByHand::pending(queue.get());
    says(&queue, &["getters: 1"]);
    drop(get);
    queue.try_put(1).unwrap();
    let put = ByHand::pending(queue.put(2));
    says(&queue, &["len: 1", "putters: 1", "unfinished: 1"]);
    drop(put);
    now(queue.get()).unwrap();
    says(&queue, &["len: 0", "unfinished: 1"]);
    queue.task_done();
    queue.shutdown();
    says(&queue, &["unfinished: 0", "shutdown: true"]);
}

#[test]
fn w1_a_limit_and_a_handle_say_their_states() {
    let mut event_loop = EventLoop::new().unwrap();
    event_loop.block_on(async {
        let mut task = spawn(sleep(Duration::from_secs(9)));
        says(&task, &["finished: false"]);
        let at = Instant::now() + Duration::from_secs(5);
        says(&coreloop::time::timeout_at(at, async {}), &["deadline", &format!("{at:?}")]);
        says(&timeout(Duration::MAX, async {}), &["deadline", "never"]);
        says(&task.timeout_at(at), &["finished: false", &format!("{at:?}")]);
        task.cancel();
        assert!((&mut task).await.is_err());
        says(&task, &["finished: true"]);
    });
}
