//! The hand-over of listeners under simulation, with one, two, three and sixteen cores: servers are replaced in
//! place while clients connect, write and read; successors die, end or are late, predecessors are killed in
//! the middle.

use coreloop::sim::{Faults, Quarantine};
use coreloop_tests::sim_workload::succession::{Fate, Outcome, Plan, run, run_plan};

/// Notices memory that is freed while the simulated kernel has it.
#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine;

#[track_caller]
fn passes(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        if let Err(e) = run(seed) {
            panic!("{}\n{e}", Plan::drawn(seed));
        }
    }
}

/// A seed takes half a second where nothing is optimised; all of them pass in `.ci/run`, where it is.
const SEEDS: u64 = if cfg!(debug_assertions) { 50 } else { 200 };

// Two tests, which run beside each other.

#[test]
fn handover_sim_restarts_refuse_nobody_over_even_seeds() {
    passes((0..SEEDS).step_by(2));
}

#[test]
fn handover_sim_restarts_refuse_nobody_over_odd_seeds() {
    passes((1..SEEDS).step_by(2));
}

#[track_caller]
fn planned(seed: u64, cores: usize, fates: &[Fate], faults: Faults) -> Outcome {
    let plan = Plan { cores, listeners: 1, fates: fates.to_vec(), faults, clients: 4 };
    run_plan(seed, plan.clone()).unwrap_or_else(|e| panic!("{plan}\n{e}"))
}

#[test]
fn handover_sim_of_sixteen_cores_goes_through_a_chain() {
    for seed in 0..3 {
        let outcome = planned(seed, 16, &[Fate::Fine, Fate::Fine, Fate::Fine], Faults::none());
        assert_eq!(outcome.broken, 0);
        // Each had its time.
        let by: Vec<u8> = outcome.answered.keys().copied().collect();
        assert_eq!(by, [0, 1, 2, 3], "seed {seed}: {:?}", outcome.answered);
    }
}

#[test]
fn handover_sim_successors_that_come_to_nothing_are_passed_over() {
    for (seed, fate) in [(1, Fate::Killed), (2, Fate::Ends), (3, Fate::Late)] {
        for cores in [1, 2, 16] {
            let outcome = planned(seed, cores, &[fate, Fate::Fine], Faults::none());
            // Nobody was answered by the one in the middle.
            let by: Vec<u8> = outcome.answered.keys().copied().collect();
            assert_eq!((by, outcome.broken), (vec![0, 2], 0), "{fate:?}, {cores} cores");
        }
    }
}

#[test]
fn handover_sim_a_predecessor_that_is_killed_leaves_the_place() {
    let (mut broken, mut answered) = (0, 0);
    for seed in 0..20 {
        let outcome = planned(seed, 2, &[Fate::Orphaned], Faults::hidden());
        broken += outcome.broken;
        answered += outcome.answered.get(&1).copied().unwrap_or_default();
    }
    assert!(broken > 0 && answered > 0, "{broken} broken off, {answered} answered");
}

/// 22 cores, of which nearly all sleep, woke each other by waking for nothing: 300,000 steps were not enough.
#[test]
fn handover_sim_cores_that_sleep_do_not_keep_each_other_awake() {
    let report = run(900).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.steps < 100_000, "{} steps for {:?}", report.steps, report.elapsed);
}

#[test]
fn handover_sim_the_same_seed_is_the_same_run() {
    let fates = [Fate::Orphaned, Fate::Killed, Fate::Hurried, Fate::Fine];
    for cores in [2, 16] {
        let one = |seed| {
            let report = planned(seed, cores, &fates, Faults::calls()).report;
            (report.trace_hash, report.steps, report.elapsed)
        };
        assert_eq!(one(8), one(8));
        assert_ne!(one(8), one(9));
    }
}
