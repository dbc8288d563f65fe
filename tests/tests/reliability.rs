//! The guide's table of what must survive names tests that exist, and all that inject faults are in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use coreloop_tests::catalog;

const PAGE: &str = include_str!("../../docs/guide/reliability.md");

/// Tests that the page names and that stand beside what they test.
const BESIDE: [&str; 3] = [
    include_str!("../../bench/src/fuzz_tests.rs"),
    include_str!("../../net/src/ops/http_fuzz_tests.rs"),
    include_str!("../../net/src/handover/wire_fuzz_tests.rs"),
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
    let files = ["fault_enter.rs", "fault_machine.rs", "fault_process.rs", "fault_proxy.rs"];
    let missing: Vec<_> = catalog::tests()
        .into_iter()
        .filter(|(name, file)| files.contains(&&**file) && !named.contains(&**name))
        .collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}

/// Files below a folder of the repository, the simulation's own aside.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("sim") {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn reliability_every_async_function_says_what_a_drop_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    sources(&root.join("runtime/src"), &mut files);
    sources(&root.join("net/src"), &mut files);
    let (mut said, mut silent) = (0, Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut docs = String::new();
        for line in text.lines().map(str::trim_start) {
            if line.starts_with("///") {
                docs.push_str(line);
            } else if line.starts_with("pub async fn ") && !docs.contains("# Cancel safety") {
                silent.push(format!("{}: {line}", file.display()));
            } else if !line.starts_with("#[") {
                said += usize::from(line.starts_with("pub async fn "));
                docs.clear();
            }
        }
    }
    assert!(silent.is_empty(), "no word of cancel safety: {silent:#?}");
    assert!(said > 35, "only {said} functions were found");
}
