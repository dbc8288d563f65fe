//! The guide's table of what must survive names tests that exist, and all that inject faults are in it.

use std::collections::BTreeSet;

use coreloop_tests::catalog;

const PAGE: &str = include_str!("../../docs/guide/reliability.md");

/// What stands in code quotes in the last cell of a row and looks like the name of a test.
fn named() -> BTreeSet<&'static str> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| "));
    let last = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let quoted = last.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted.filter(|name| name.matches('_').count() > 1 && !name.contains([' ', '('])).collect()
}

#[test]
fn reliability_table_names_tests_that_exist() {
    let known = catalog::tests();
    let named = named();
    let gone: Vec<_> = named.iter().filter(|name| !known.contains_key(**name)).collect();
    assert!(gone.is_empty(), "no such tests: {gone:?}");
    assert!(named.len() > 70, "only {} names were found in the table", named.len());
}

#[test]
fn reliability_table_has_every_injected_fault() {
    let named = named();
    let files = ["fault_enter.rs", "fault_machine.rs", "fault_process.rs", "fault_proxy.rs"];
    let missing: Vec<_> = catalog::tests()
        .into_iter()
        .filter(|(name, file)| files.contains(&&**file) && !named.contains(&**name))
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}
