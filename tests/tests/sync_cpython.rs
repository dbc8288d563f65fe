//! The table of CPython's cases names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn cpython_locks_and_queues_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("cpython/locks_and_queues.md")).unwrap();
    let mut tests = BTreeSet::new();
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let names = text.split("#[test]").skip(1).filter_map(|after| after.split_once("fn "));
        tests.extend(names.filter_map(|(_, f)| f.split_once('(')).map(|(name, _)| name.to_owned()));
    }
    let named: BTreeSet<_> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.starts_with("p1_") || word.starts_with("p2_"))
        .collect();
    assert!(named.len() > 30, "only {} names were found: the reading is wrong", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
