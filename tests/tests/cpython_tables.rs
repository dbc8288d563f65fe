//! The tables in `tests/cpython` name tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn cpython_tables_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(root.join("tests")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for (at, _) in text.match_indices("fn ") {
            let name = text[at + 3..].split(|c: char| !c.is_alphanumeric() && c != '_').next();
            known.insert(name.unwrap_or_default().to_owned());
        }
    }
    let (mut named, mut unknown) = (0, Vec::new());
    for entry in fs::read_dir(root.join("cpython")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for row in text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| case")) {
            let here = row.split('|').nth(2).unwrap_or_default();
            assert!(!here.trim().is_empty(), "{}: {row}", path.display());
            // Names in code quotes that look like a test's.
            for name in here.split('`').skip(1).step_by(2).filter(|n| n.matches('_').count() > 1) {
                named += 1;
                if !known.contains(name) {
                    unknown.push(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    assert!(named > 60, "only {named} names were found: the reading is wrong");
    assert!(unknown.is_empty(), "no such tests:\n{}", unknown.join("\n"));
}
