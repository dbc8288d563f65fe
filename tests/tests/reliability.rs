//! The guide's table of what must survive names tests that exist, and all that inject faults are in it; what a drop
//! does is said of every function that gives a future.

use std::collections::BTreeSet;

use coreloop_tests::catalog;
use coreloop_tests::promises::{Promise, promises};

const PAGE: &str = include_str!("../../docs/guide/reliability.md");
const SAFETY: &str = include_str!("../../docs/guide/safety.md");

/// Tests that the page names and that stand beside what they test.
const BESIDE: [&str; 11] = [
    include_str!("../../bench/src/fuzz_tests.rs"),
    include_str!("../../net/src/ops/http_fuzz_tests.rs"),
    include_str!("../../net/src/ops/machine_fuzz_tests.rs"),
    include_str!("../../net/src/handover/wire_fuzz_tests.rs"),
    include_str!("../../runtime/src/driver/setup.rs"),
    include_str!("../../runtime/src/event_loop/seam_tests.rs"),
    include_str!("../../runtime/src/executor/park.rs"),
    include_str!("../../runtime/src/placement/machine.rs"),
    include_str!("../../runtime/src/sim/loop_tests.rs"),
    include_str!("../../runtime/src/sim/seeds.rs"),
    include_str!("../../runtime/src/stall/unwind.rs"),
];

/// What stands in code quotes in the last cell of a row and looks like the name of a test.
fn named() -> BTreeSet<&'static str> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| "));
    let last = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let quoted = last.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted.filter(|name| name.matches('_').count() > 1 && !name.contains([' ', '('])).collect()
}

#[test]
fn reliability_table_names_tests_that_exist() {
    let mut known = catalog::tests();
    for text in BESIDE {
        known.extend(catalog::names(text).into_iter().map(|name| (name.to_owned(), String::new())));
    }
    let named = named();
    let gone: Vec<_> = named.iter().filter(|name| !known.contains_key(**name)).collect();
    assert!(gone.is_empty(), "no such tests: {gone:?}");
    assert!(named.len() > 70, "only {} names were found in the table", named.len());
}

#[test]
fn reliability_table_has_every_injected_fault() {
    let named = named();
    // Of masks of features and of settings, which inject nothing into what runs.
    let aside =
        |name: &str| name.starts_with("fault_mask_") || name == "fault_settings_out_of_range";
    let missing: Vec<_> = catalog::tests()
        .into_iter()
        .filter(|(name, file)| {
            file.starts_with("fault_") && !named.contains(&**name) && !aside(name)
        })
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

#[test]
fn reliability_every_function_that_gives_a_future_says_what_a_drop_does() {
    let all = promises();
    let silent: Vec<_> = all.iter().filter(|p| !p.is_said).collect();
    assert!(silent.is_empty(), "no word of cancel safety: {silent:#?}");
    assert!(all.len() > 110, "only {} functions were found", all.len());
}

/// Whether a cell names the function: with its type, or the module that this stands for, where another has one
/// of the same name.
fn names(cell: &[&str], promise: &Promise, alone: bool) -> bool {
    let module = promise.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    cell.iter().any(|text| {
        let (path, name) = text.rsplit_once("::").unwrap_or(("", text));
        let free = path.is_empty() || path.starts_with(char::is_lowercase);
        let heads = |by: &str| {
            let of_it = |quoted: &&str| quoted.split("::").next() == Some(by);
            let in_path = path.rsplit("::").next() == Some(by);
            in_path || path.is_empty() && cell.iter().any(of_it)
        };
        name == promise.name
            && match &*promise.of {
                "" => free,
                of => alone || heads(of) || path == module,
            }
    })
}

#[test]
fn reliability_safety_page_names_every_function_that_gives_a_future() {
    let rows = SAFETY.lines().filter(|line| line.starts_with("| "));
    let calls = rows.filter_map(|row| row.split(" | ").next());
    let quoted: Vec<Vec<&str>> = calls
        .map(|cell| cell.split('`').skip(1).step_by(2))
        .map(|quotes| quotes.map(|q| q.split(['(', '.', '<']).next().unwrap_or(q)).collect())
        .collect();
    let all = promises();
    let missing: Vec<_> = all
        .iter()
        .filter(|promise| {
            let alone = all.iter().filter(|p| p.name == promise.name).count() == 1;
            !quoted.iter().any(|cell| names(cell, promise, alone))
        })
        .map(|p| format!("{}::{} of {}", p.of, p.name, p.file.display()))
        .collect();
    assert!(missing.is_empty(), "not in docs/guide/safety.md: {missing:#?}");
}
