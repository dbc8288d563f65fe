//! Faults put back on purpose, one at a time, each at each of its places, are found by the workload of
//! `sim_workload` within 1,000 seeds, as what they are; the same seeds pass without them. Needs the feature `planted`:
//! `cargo test --release -p coreloop-tests --features planted --test sim_planted`.

#![cfg(feature = "planted")]

use std::process::Command;

use coreloop::planted::Fault;

/// Runs the program `sim`; whether it ended well, and what it printed.
fn sim(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(args).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn sim_planted_every_fault_is_found_within_1000_seeds() {
    let (found, said) = sim(&["--planted", "all"]);
    println!("{said}");
    assert!(found, "{said}");
    for fault in Fault::ALL {
        for place in 1..=fault.places().len() {
            assert!(said.contains(&format!("| {}.{place} | ", fault.name())), "{said}");
        }
    }
    let most = said.lines().filter_map(|line| line.split(" | ").nth(1)?.parse::<u64>().ok()).max();
    let (passed, said) = sim(&["--seeds", &most.unwrap().to_string(), "--seconds", "600"]);
    assert!(passed, "without a fault: {said}");
}

#[test]
fn sim_planted_says_what_it_does_not_know() {
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(["--planted", "nonesuch"]).output();
    let output = output.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nonesuch") && said.contains("lost-cancel"), "{said}");
}
