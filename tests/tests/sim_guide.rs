//! The guide's example does what the guide says: some seed finds the planted bug, none the mended program.

#[path = "../examples/replicated_counter.rs"]
mod replicated_counter;

use coreloop::sim::{Failure, Sim};
use replicated_counter::{Answers, find, machines};

#[test]
fn sim_guide_a_seed_finds_the_planted_bug_and_shows_it_again() {
    let error = find(Answers::TooSoon, 1_000).expect("some seed finds it");
    let Failure::Failed { host, why } = error.failure() else { panic!("another one: {error}") };
    assert_eq!(host, "client");
    assert!(why.contains("but the backup has"), "{why}");
    coreloop_tests::figure!("found by seed {}: {why}", error.seed());
    let again = Sim::builder().seed(error.seed()).build();
    machines(&again, Answers::TooSoon);
    assert_eq!(again.run().unwrap_err().to_string(), error.to_string());
}

#[test]
fn sim_guide_the_mended_program_passes_all() {
    if let Some(error) = find(Answers::InTime, 300) {
        panic!("{error}");
    }
}
