//! Random programs against the plain model of `coreloop_tests::model`, and that they exercise everything.

use std::env;

use coreloop_tests::model::{self, Counts};

/// Programs of each of the two tests that run beside each other.
const PROGRAMS: u64 = 3_000;

/// Each of these is begun, comes to its end, and is cancelled while it waits, at least so often in that many.
const BEGUN_MIN: u64 = 30;
const READY_MIN: u64 = 8;
const CANCELLED_MIN: u64 = 1;

const AWAITED: [&str; 55] = [
    "&mut handle",
    "a foreign limit",
    "as_completed",
    "as_completed within",
    "barrier.wait",
    "block",
    "broadcast.recv",
    "condition.wait",
    "condition.wait_for",
    "event.wait",
    "future",
    "gather",
    "gather of futures",
    "gather_tuple",
    "group",
    "handle",
    "handle.timeout",
    "mpsc.recv",
    "mpsc.reserve",
    "mpsc.send",
    "mutex.lock",
    "once_cell.get_or_try_init",
    "oneshot",
    "oneshot.closed",
    "queue.get fifo",
    "queue.get lifo",
    "queue.get priority",
    "queue.join",
    "queue.put fifo",
    "queue.put lifo",
    "queue.put priority",
    "race",
    "rw_lock.read",
    "rw_lock.write",
    "semaphore.acquire_many",
    "shield(&mut handle)",
    "shield(future)",
    "shield(handle)",
    "sleep",
    "timeout",
    "try_gather",
    "try_gather of futures",
    "try_gather_tuple",
    "try_wait AllCompleted",
    "try_wait FirstCompleted",
    "try_wait FirstError",
    "wait AllCompleted",
    "wait FirstCompleted",
    "wait FirstError",
    "wait AllCompleted within",
    "wait FirstCompleted within",
    "wait FirstError within",
    "watch.changed",
    "watch.wait_for",
    "yield_now",
];

/// What never waits is done at least so often.
const DONE_MIN: u64 = 10;

const DONE: [&str; 47] = [
    "a panic",
    "an error",
    "awaitable.cancel",
    "barrier.abort",
    "barrier.reset",
    "broadcast receiver dropped",
    "broadcast sender dropped",
    "broadcast.send",
    "broadcast.try_recv",
    "completer dropped",
    "completer.cancel",
    "completer.complete",
    "condition.notify",
    "condition.notify_all",
    "event.clear",
    "event.set",
    "group.cancel",
    "group.spawn",
    "handle asked",
    "handle dropped",
    "handle.cancel",
    "in a destructor",
    "look at everything",
    "mpsc receiver dropped",
    "mpsc sender dropped",
    "mpsc.close",
    "mpsc.try_recv",
    "mpsc.try_send",
    "mutex.try_lock",
    "once_cell.set",
    "oneshot sender dropped",
    "oneshot.close",
    "oneshot.send",
    "oneshot.try_recv",
    "queue.shutdown",
    "queue.shutdown_now",
    "queue.task_done",
    "queue.try_get",
    "queue.try_put",
    "rw_lock.try_read",
    "rw_lock.try_write",
    "semaphore.add_permits",
    "semaphore.try_acquire_many",
    "spawn",
    "spawn_eager",
    "spawn_eager in a destructor",
    "watch.send",
];

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Every second program, from `first` on. `CORELOOP_MODEL_PROGRAMS` says how many there are in all,
/// `CORELOOP_MODEL_SEED` runs one alone.
fn run(first: u64) {
    let mut counts = Counts::new();
    let only = number("CORELOOP_MODEL_SEED");
    let programs = number("CORELOOP_MODEL_PROGRAMS").unwrap_or(2 * PROGRAMS);
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..programs,
    };
    for seed in seeds.filter(|seed| seed % 2 == first) {
        if let Err(why) = model::check(seed, false, &mut counts) {
            panic!(
                "{why}\nto see it again: CORELOOP_MODEL_SEED={seed} cargo test -p coreloop-tests \
                 --test model_programs -- --nocapture"
            );
        }
    }
    println!("{}", table(&counts));
    if only.is_none() && programs >= 2 * PROGRAMS {
        exercised(&counts);
    }
}

/// What was exercised: how often it was begun or done, came to its end, was cancelled while it waited, was let
/// go of (no cancel passes then), and found nothing to be done with.
fn table(counts: &Counts) -> String {
    let ways = ["begun", "ready", "cancelled", "let go", "refused"];
    let mut text = format!("{:<28}", "");
    ways.iter().for_each(|how| text.push_str(&format!("{how:>10}")));
    let mut last = "";
    for &(what, _) in counts.keys() {
        if what == last {
            continue;
        }
        last = what;
        text.push_str(&format!("\n{what:<28}"));
        for how in ways {
            let done = if how == "begun" { count(counts, what, "done") } else { 0 };
            text.push_str(&format!("{:>10}", count(counts, what, how) + done));
        }
    }
    text
}

fn count(counts: &Counts, what: &'static str, how: &'static str) -> u64 {
    counts.get(&(what, how)).copied().unwrap_or(0)
}

fn exercised(counts: &Counts) {
    let least = [("begun", BEGUN_MIN), ("ready", READY_MIN), ("cancelled", CANCELLED_MIN)];
    for what in AWAITED {
        for (how, least) in least {
            let n = count(counts, what, how);
            assert!(n >= least, "{what:?} was {how} {n} times, not {least}");
        }
    }
    for what in DONE {
        let n = count(counts, what, "done");
        assert!(n >= DONE_MIN, "{what:?} was done {n} times, not {DONE_MIN}");
    }
}

#[test]
fn model_programs_with_even_seeds() {
    run(0);
}

#[test]
fn model_programs_with_odd_seeds() {
    run(1);
}

/// All rules of order hold within a queue: the default one, where there is another.
#[test]
fn model_programs_run_alike_beside_another_task_queue() {
    for seed in 0..PROGRAMS / 2 {
        if let Err(why) = model::check(seed, true, &mut Counts::new()) {
            panic!("beside another queue: {why}");
        }
    }
}

#[test]
fn model_programs_follow_from_their_seed() {
    for seed in [0, 1, 1438] {
        assert_eq!(model::generate(seed).to_string(), model::generate(seed).to_string());
        assert_ne!(model::generate(seed).to_string(), model::generate(seed + 2).to_string());
    }
}
