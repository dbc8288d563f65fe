//! A workload for simulations: everything at once, and a book about it.
//!
//! Owns `run`, which is one seed. Servers of several cores and clients hold conversations in numbered
//! frames (`line`); what they do for each other meanwhile is in `chores`, who breaks off and when in
//! `client` and `server`. All of it is entered into the `ledger`, which knows what must come of it: every
//! byte in its place, every future, buffer and guard dropped once, no time early, no end missing. The
//! simulated kernel looks for what a kernel can see. Does not know what is wrong when something
//! is: it says which seed. Beside it, in simulations of their own: signals (`signals`); in one seed of five
//! restarts in place (`succession`); in two of five tasks and cores that work with each other, by sets,
//! locks, queues and channels (`together`).

mod chores;
mod client;
mod expected;
mod ledger;
mod line;
mod ops;
mod server;
mod shape;
mod signal;
pub mod signals;
pub mod succession;
pub mod together;
#[allow(unsafe_code)]
mod tracked;

use std::fmt;
use std::sync::Arc;

use coreloop::sim::{Report, Sim};

pub use self::expected::{finding, findings_of};
use self::ledger::Ledger;
use self::shape::Shape;

/// Seeds of which one has restarts in place.
const RESTARTS_EVERY: u64 = 5;

/// Whether a seed has what cores and tasks do with each other; restarts are in others.
fn is_together(seed: u64) -> bool {
    matches!(seed % RESTARTS_EVERY, 1 | 3)
}

/// What the workload of a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the simulation reports.
    pub report: Report,
    /// Conversations begun.
    pub lines: u32,
    /// Frames that were received.
    pub frames: u64,
}

/// Why a seed failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// In several lines, with the last few events.
    pub text: String,
    /// All events that are still known.
    pub trace: Vec<String>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failed {}

/// Runs the workload of one seed.
///
/// # Errors
/// What did not come as it must.
pub fn run(seed: u64) -> Result<Outcome, Failed> {
    let shape = Shape::drawn(seed);
    let sim = shape.builder.build();
    let ledger = Ledger::new(seed, shape.errors, shape.chaos);
    add_hosts(&sim, &shape, &ledger);
    let ended = sim.run();
    ops::let_go_of_kept();
    drop(sim);
    let mut wrong = ledger.findings();
    match &ended {
        Err(e) => wrong.push(e.to_string()),
        Ok(report) => {
            wrong.extend(ledger.left_over());
            wrong.extend(miscounted(report));
        }
    }
    match signals::run(seed) {
        Err(e) => wrong.push(e.to_string()),
        Ok(report) => wrong.extend(miscounted(&report)),
    }
    if seed.is_multiple_of(RESTARTS_EVERY) {
        match succession::run(seed) {
            Err(e) => wrong.push(e.to_string()),
            Ok(report) => wrong.extend(miscounted(&report)),
        }
    }
    if is_together(seed) {
        match together::run(seed) {
            Err(e) => wrong.push(e),
            Ok(report) => wrong.extend(miscounted(&report)),
        }
    }
    match ended {
        Ok(report) if wrong.is_empty() => {
            let (lines, frames) = ledger.totals();
            Ok(Outcome { report, lines, frames })
        }
        ended => {
            let trace = ended.err().map(|e| e.trace().to_vec()).unwrap_or_default();
            Err(Failed { text: wrong.join("\n"), trace })
        }
    }
}

/// What is shown of the shape that a seed has.
pub fn describe(seed: u64) -> String {
    Shape::drawn(seed).to_string()
}

fn add_hosts(sim: &Sim, shape: &Shape, ledger: &Arc<Ledger>) {
    for (i, &cores) in shape.servers.iter().enumerate() {
        let own = ledger.clone();
        let addr =
            sim.host(&format!("server{i}"), cores, move |core| server::serve(core, own.clone()));
        ledger.add_server(addr);
    }
    for i in 0..shape.clients {
        let own = ledger.clone();
        let conversations = shape.conversations;
        sim.client(&format!("client{i}"), move || client::converse(own, conversations));
    }
    if shape.chaos {
        let (own, control) = (ledger.clone(), sim.clone());
        sim.client("chaos", move || client::chaos(own, control));
    }
}

/// Counters that are 0 unless something is broken.
fn miscounted(report: &Report) -> Vec<String> {
    let counters = &report.counters;
    let zero = [
        ("stray completions", counters.stray_completions),
        ("task panics", counters.task_panics),
        ("waker panics", counters.waker_panics),
        ("hook panics", counters.hook_panics),
        ("ops leaked", counters.ops_leaked),
    ];
    let mut wrong: Vec<_> =
        zero.iter().filter(|z| z.1 > 0).map(|(w, n)| format!("{n} {w}")).collect();
    if report.buffers_out != 0 {
        wrong.push(format!("{} receive buffers are not where they belong", report.buffers_out));
    }
    wrong
}
