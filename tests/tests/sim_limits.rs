//! A process that is short of descriptors for a simulation says so, soon, and what it needs.

use std::process::Command;
use std::time::{Duration, Instant};

/// Runs the program `sim` with a limit of so many descriptors; whether it ended well, and what it said.
fn sim(limit: u32, args: &str) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_sim");
    let script = format!("ulimit -n {limit}; exec {program} {args}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn sim_limits_a_seed_without_descriptors_says_which_limit_and_how_many() {
    let began = Instant::now();
    // Too few for the first core, for the second one, and for its connections.
    for limit in [8, 12, 40] {
        let (passed, said) = sim(limit, "--seed 3769");
        assert!(!passed, "{limit}: {said}");
        assert!(said.contains("descriptors are short on this machine"), "{limit}: {said}");
        assert!(said.contains(&format!("RLIMIT_NOFILE (`ulimit -n`) is {limit}")), "{said}");
        assert!(said.contains("`ulimit -n 4096`"), "{said}");
    }
    let took = began.elapsed();
    coreloop_tests::figure!("three refusals took {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn sim_limits_a_search_without_descriptors_ends_with_the_same_words() {
    let (passed, said) = sim(24, "--seeds 20 --jobs 1");
    assert!(!passed && said.contains("descriptors are short on this machine"), "{said}");
}

#[test]
fn sim_limits_enough_descriptors_are_enough() {
    let (passed, said) = sim(1024, "--seed 3769");
    assert!(passed, "{said}");
}
