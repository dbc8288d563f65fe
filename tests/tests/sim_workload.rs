//! The workload of `sim_workload` over a hundred seeds, with debug assertions; `sim_planted` runs several hundred
//! without, and `cargo run --release -p coreloop-tests --bin sim` as many as there is time for.

use coreloop::sim::Quarantine;
use coreloop_tests::sim_workload;

/// Notices memory that is freed while the simulated kernel has it.
#[global_allocator]
static ALLOCATOR: Quarantine = Quarantine;

#[track_caller]
fn passes(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        if let Err(failed) = sim_workload::run(seed) {
            panic!("seed {seed}: {failed}");
        }
    }
}

// Two tests, which run beside each other.

#[test]
fn sim_workload_keeps_its_books_over_50_even_seeds() {
    passes((0..100).step_by(2));
}

#[test]
fn sim_workload_keeps_its_books_over_50_odd_seeds() {
    passes((1..100).step_by(2));
}

#[test]
fn sim_workload_is_the_same_for_the_same_seed() {
    for seed in [3, 17, 41] {
        let hash = || sim_workload::run(seed).unwrap().report.trace_hash;
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}
