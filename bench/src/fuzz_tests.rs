//! What people and files say, mutated: taken or refused in words. Corpora lie in `tests/corpus`.
//!
//! A second for each; `CORELOOP_FUZZ_SECONDS=600 cargo test --release -p coreloop-bench fuzz_` is
//! the longer run.

use std::path::{Path, PathBuf};

use coreloop_tests::fuzz::{Fuzzed, fuzz, message_signature, signature};

use crate::compare;
use crate::peers;
use crate::trial::goal::{Goal, bounded};

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name)
}

fn shown(fuzzed: Fuzzed) {
    println!("{fuzzed:?}");
    assert!(fuzzed.signatures >= 4, "{fuzzed:?}");
}

#[test]
fn fuzz_goals() {
    let words = [
        "p99.99", "p50", "<=", "<", "max-rate", "cpu", "2ms", "1 us", "µs", "1e9s", ".5", "\u{a0}",
    ];
    shown(fuzz(&corpus("goals"), &words, |input| {
        let text = String::from_utf8_lossy(input);
        match text.parse::<Goal>() {
            Ok(goal) => {
                let (shown, bound) = (goal.to_string(), goal.bounded());
                assert!(bound.is_none_or(|(_, bound)| !bound.is_zero()), "{text:?}: {shown}");
                assert_eq!(bounded(&goal).is_ok(), bound.is_some());
                signature((std::mem::discriminant(&goal), goal.point().map(|point| point.name)))
            }
            Err(why) => {
                assert!(!why.is_empty());
                message_signature(&why)
            }
        }
    }));
}

/// Words of reports, and numbers at the edges of what JSON has.
const WORDS: [&str; 24] = [
    "\"schema_version\":1",
    "\"command\":\"run echo\"",
    "\"command\":\"tune\"",
    "\"seconds\":[",
    "\"series\":[",
    "\"samples\":[0,0,0,0,0,0]",
    "\"samples\":[1,2,3,4,5,6,7]",
    "\"latency\":{\"corrected\":{\"p99_ns\":",
    "\"cores\":[{\"role\":\"server\",\"requests\":",
    "\"contenders\":[]",
    "\"workloads\":[]",
    "null",
    "true",
    "-1",
    "1e308",
    "-1e308",
    "5e-324",
    "1e309",
    "18446744073709551615",
    "\"\\u0000\\u001b[31m\"",
    "\"é\"",
    "[",
    "{",
    "}",
];

/// Each file is compared with itself and with the one before.
#[test]
fn fuzz_reports_to_compare() {
    let mut before = String::from("{}");
    shown(fuzz(&corpus("reports"), &WORDS, |input| {
        let text = String::from_utf8_lossy(input).into_owned();
        let itself = compare::of_texts(&text, &text);
        let other = compare::of_texts(&before, &text);
        let words = [itself, other].map(|side| match side {
            Ok(shown) => message_signature(&shown),
            Err(why) => {
                assert!(!why.is_empty());
                message_signature(&why)
            }
        });
        before = text;
        signature(words)
    }));
}

#[test]
fn fuzz_results_of_peers() {
    shown(fuzz(&corpus("peers_results"), &WORDS, |input| {
        match peers::of_text(&String::from_utf8_lossy(input)) {
            Ok(shown) => message_signature(&shown),
            Err(why) => {
                assert!(!why.is_empty());
                message_signature(&why)
            }
        }
    }));
}
