//! Random programs against a plain model.
//!
//! Owns [`check`], which is one seed: a random program (`generate`) of tasks that spawn, cancel, drop, wait and
//! hand things to each other is run on a simulated core in virtual time (`real`), and a plain model
//! (`plain`) says beforehand what will happen, event by event: who gets what and when, in which order, which
//! errors, which destructors. The two books must be equal. Where they are not, the program is made smaller
//! for as long as they differ (`shrink`), and printed (`print`).
//!
//! What happens after the main future's end (destructors of all that is left) is compared without its order,
//! which nothing promises. Elsewhere the order follows from the rules in `plain`, but for three things that are
//! as they are, and may change with the model:
//! - the order in which a group that fails or is left cancels its children (`Group` in `plain::sets`), and that
//!   in which those who wait for a completable future are woken (`Future` in `plain::shared`): by place, and of
//!   the places that came free the last one is used again first;
//! - who is woken without need, which puts it into the run queue earlier than the wake-up that counts: by each
//!   task that `try_gather`, `wait` and the like look at, by the first that is left of a `gather`, by what a
//!   task once looked at and does not await any more (`joiner` in `plain`, `on_value` in `plain::shared`).
//!
//! What it has found in the runtime is in `tests/tests/model_regress.rs`. It has been seen to find these too, put
//! into the runtime on purpose, one at a time:
//! - **locks and queues**: a permit kept by a cancelled waiter that was handed it, or given back in part; a
//!   waiter that leaves the line and keeps it closed behind it; a small request that overtakes; the last one
//!   served first; a notification lost with its waiter; an item lost with its getter; equal items out of
//!   order; a barrier that counts who was cancelled; a turn of a once-cell kept after an error; a channel's
//!   room kept by a permit that was dropped; a broadcast that loses one value more; a watch that misses one;
//! - **sets**: a cancelled gather that lets its tasks run on, a failing one that cancels the others; results
//!   as they end in the order of the inputs, or late before those that have ended; a wait that overlooks
//!   panics, or cancels what is late;
//! - **groups**: siblings that are not cancelled, or not waited for;
//! - **limits and cancels**: a limit that is early, beats what is ready, passes no cancel on, or drops late;
//!   `handle.timeout` without the wait for the end; a race's loser that is merely let go of; an await that
//!   passes no cancel on, to a task or a completable future; a shield that does; a handle that does though it
//!   was merely held;
//! - **the loop**: a woken task at the front of the run queue.

mod generate;
mod plain;
mod print;
pub mod program;
mod real;
mod shrink;

use std::collections::BTreeMap;
use std::fmt::Write as _;

pub use self::generate::generate;
use self::program::{Event, Program};

/// How often each thing was exercised, by what and how it went.
pub type Counts = BTreeMap<(&'static str, &'static str), u64>;

/// Runs the program of a seed and the model, and adds to the counts; `beside_queue`: on a core that has
/// another task queue, too, which must make no difference.
///
/// # Errors
/// The smallest program with which they differ, in many lines.
pub fn check(seed: u64, beside_queue: bool, counts: &mut Counts) -> Result<(), String> {
    let program = generate(seed);
    if let Some(first) = difference(&program, beside_queue, counts) {
        let differs = |p: &Program| difference(p, beside_queue, &mut Counts::new());
        let small = shrink::shrink(program, |p| differs(p).is_some());
        let why = differs(&small).unwrap_or(first);
        return Err(format!("seed {seed}, made as small as it gets:\n\n{small}\n{why}"));
    }
    Ok(())
}

/// Runs a program and the model.
///
/// # Errors
/// Where they differ.
pub fn compare(program: &Program) -> Result<(), String> {
    difference(program, false, &mut Counts::new()).map_or(Ok(()), Err)
}

fn difference(program: &Program, beside_queue: bool, counts: &mut Counts) -> Option<String> {
    let predicted = plain::predict(program);
    for (what, n) in predicted.counts {
        *counts.entry(what).or_default() += n;
    }
    let done = match real::run(program, beside_queue) {
        Ok(done) => done,
        Err(why) => return Some(why),
    };
    let (model, real) = (&predicted.events, &done.events);
    let same = model.iter().zip(real).take_while(|(a, b)| a == b).count();
    if same < model.len() || same < real.len() {
        return Some(told(model, real, same));
    }
    if predicted.left != done.left {
        return Some(format!(
            "left at the end of the main future: {:?} by the model, {:?} in fact",
            predicted.left, done.left
        ));
    }
    None
}

fn told(model: &[Event], real: &[Event], same: usize) -> String {
    let mut text = String::from("events (ms, who, what):\n");
    for Event(ms, id, out) in &real[same.saturating_sub(12)..same] {
        let _ = writeln!(text, "  {ms:>3} {id:>3} {out:?}");
    }
    for (whose, events) in [("by the model", model), ("in fact", real)] {
        let _ = writeln!(text, "then, {whose}:");
        for Event(ms, id, out) in events[same..].iter().take(4) {
            let _ = writeln!(text, "  {ms:>3} {id:>3} {out:?}");
        }
        if events.len() == same {
            text.push_str("  nothing more\n");
        }
    }
    text
}
