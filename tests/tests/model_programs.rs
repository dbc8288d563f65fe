//! Random programs against the plain model of `coreloop_tests::model`.

use std::env;

use coreloop_tests::model::{self, Counts};

/// Programs of each of the tests that run beside each other.
const PROGRAMS: u64 = 2_000;

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
        if let Err(why) = model::check(seed, &mut counts) {
            panic!(
                "{why}\nto see it again: CORELOOP_MODEL_SEED={seed} cargo test -p coreloop-tests \
                 --test model_programs -- --nocapture"
            );
        }
    }
    for ((what, how), n) in &counts {
        println!("{what:<28} {how:<10} {n:>8}");
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
