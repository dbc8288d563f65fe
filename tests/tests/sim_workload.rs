//! The workload of `sim_workload` over a few hundred seeds; `cargo run --release -p coreloop-tests --bin sim`
//! runs as many as there is time for.

use coreloop_tests::sim_workload;

#[test]
fn sim_workload_keeps_its_books_over_300_seeds() {
    for seed in 0..300 {
        if let Err(failed) = sim_workload::run(seed) {
            panic!("seed {seed}: {failed}");
        }
    }
}

#[test]
fn sim_workload_is_the_same_for_the_same_seed() {
    for seed in [3, 17] {
        let hash = || sim_workload::run(seed).unwrap().report.trace_hash;
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}
