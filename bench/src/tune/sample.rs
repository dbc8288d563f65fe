//! Results made up for the tests.

use std::time::Duration;

use super::*;
use crate::trial::synthetic::Synthetic;
use crate::tune::space::space;
use crate::tune::stages::{Rate, tune};

/// Three settings that help, and one whose runs fail.
pub fn tuned() -> Results {
    let runner = Synthetic {
        effects: |changes| {
            let factor = |(name, value): &Change| match (name.as_str(), value.as_str()) {
                ("spin", "off") => 0.8,
                ("tick_quota", "2ms") => 0.9,
                ("chunk_quota", "32") => 0.85,
                ("buffers", "256") => 1.3,
                _ => 1.0,
            };
            changes.iter().map(factor).product()
        },
        fails: |changes| changes.iter().any(|(name, _)| name == "cq_entries"),
        ..Synthetic::noisy(0.01, 1)
    };
    let mut results = results(runner);
    let spin = results.effects.iter_mut().find(|effect| effect.name == "spin").unwrap();
    spin.ratio = Some(Ratio { median: 0.88, low: 0.87, high: 0.89, blocks: 21 });
    results
}

/// As above, with others on the cores all the time.
pub fn disturbed() -> Results {
    results(Synthetic {
        effects: |changes| if changes.iter().any(|(name, _)| name == "spin") { 0.8 } else { 1.0 },
        foreign: 0.5,
        ..Synthetic::noisy(0.01, 1)
    })
}

/// As above, and nothing helps.
pub fn disturbed_without_effects() -> Results {
    results(Synthetic { foreign: 0.5, ..Synthetic::noisy(0.01, 3) })
}

/// What is tried hurts, in a few blocks.
pub fn too_short() -> Results {
    let runner = Synthetic {
        effects: |changes| if changes.is_empty() { 1.0 } else { 2.0 },
        ..Synthetic::noisy(0.0, 3)
    };
    results_of(runner, &["tick_quota".to_owned()], Duration::from_secs(30))
}

/// Nothing helps.
pub fn defaults_hold() -> Results {
    results(Synthetic::noisy(0.01, 3))
}

/// Ended while it was screening.
pub fn interrupted() -> Results {
    results(Synthetic { runs_left: Some(50), ..Synthetic::noisy(0.01, 2) })
}

/// Ended in its first run, which does not even count.
pub fn interrupted_at_once() -> Results {
    results(Synthetic { runs_left: Some(0), ..Synthetic::calm() })
}

fn results(runner: Synthetic) -> Results {
    results_of(runner, &[], Duration::from_secs(300))
}

fn results_of(mut runner: Synthetic, only: &[String], budget: Duration) -> Results {
    let skipped = vec![("debug".to_owned(), "it is for developers".to_owned())];
    let candidates = space(only, &[], |_| Ok(())).candidates;
    let plan = Plan { goal: "cpu".parse().unwrap(), seed: 7, budget, candidates };
    let found = tune(&mut runner, &plan, Rate::Closed, |_| true, &mut |_, _| ()).unwrap();
    Results::new(head(), &plan, found, skipped)
}

/// What stands above it.
pub fn head() -> Head {
    let peers = crate::peers::results::sample::results();
    Head {
        schema_version: 1,
        command: "tune".into(),
        command_line: "coreloop-bench tune echo-64 --goal cpu".into(),
        started: "2001-02-03 04:05:06 UTC".into(),
        version: "0.1.0".into(),
        machine: peers.machine,
        cores: peers.cores,
        workload: "echo-64".into(),
        load: "TCP echo, 64 connections, 64 B".into(),
        goal: "cpu".into(),
        budget_s: 300.0,
        took_s: 290.0,
        seconds: 0.6,
        seed: 7,
        interrupted: false,
        runs: 0,
        disturbed: 0,
        notes: vec!["a note".into()],
    }
}
