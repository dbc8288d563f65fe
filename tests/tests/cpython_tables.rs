//! The tables in `tests/cpython`: each of CPython's cases once, with tests that exist, and enough of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use coreloop_tests::twins::python::Interpreter;
use coreloop_tests::{catalog, skip, twins};

const FILES: [&str; 8] =
    ["tasks", "waitfor", "timeouts", "taskgroups", "locks", "queues", "futures", "runners"];
/// Cases that tests of ours cover, at the least.
const COVERED_MIN: usize = 250;

/// A row of a table.
struct Row {
    /// `Class.test_case`.
    case: String,
    /// The minor versions of Python 3 that have it; none: all that are looked at.
    only_in: Vec<u32>,
    is: String,
    here: String,
}

impl Row {
    /// What stands in code quotes and looks like the name of a test or a twin.
    fn names(&self) -> impl Iterator<Item = &str> {
        let quoted = self.here.split('`').skip(1).step_by(2);
        quoted.filter(|n| n.matches('_').count() > 1 && !n.contains(['.', '(', ':']))
    }
}

fn table(file: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cpython/test_{file}.md"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let rows = text.lines().filter(|l| l.starts_with("| `")).map(|line| {
        let cells: Vec<_> = line.split(" | ").collect();
        let [case, is, here] = cells[..] else { panic!("{file}: {line}") };
        let (case, versions) = case.trim_start_matches("| `").split_once('`').unwrap();
        let versions = versions.trim_matches([' ', '(', ')']).split(", ");
        Row {
            case: case.to_owned(),
            only_in: versions.filter_map(|v| v.strip_prefix("3.")?.parse().ok()).collect(),
            is: is.to_owned(),
            here: here.trim_end_matches(" |").to_owned(),
        }
    });
    rows.collect()
}

#[test]
fn cpython_tables_name_tests_that_exist() {
    let known = catalog::tests();
    let played: BTreeSet<_> = twins::all().iter().map(|twin| twin.name).collect();
    let mut bad = Vec::new();
    for file in FILES {
        let mut cases = BTreeSet::new();
        for row in table(file) {
            let said = format!("{file}: {} ({}): {}", row.case, row.is, row.here);
            if !cases.insert(row.case.clone()) {
                bad.push(format!("twice: {said}"));
            }
            let unknown = |n: &&str| !known.contains_key(*n) && !played.contains(n);
            if let Some(name) = row.names().find(unknown) {
                bad.push(format!("no test or twin {name}: {said}"));
            }
            let tests = row.names().filter(|n| known.contains_key(*n)).count();
            match row.is.as_str() {
                "covered" if tests == 0 => bad.push(format!("by nothing: {said}")),
                "differs" | "none" if row.here.is_empty() => bad.push(format!("no reason: {said}")),
                "covered" | "differs" | "none" => {}
                _ => bad.push(format!("no such word: {said}")),
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn cpython_tables_cover_at_least_250_cases() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for file in FILES {
        for row in table(file) {
            *counts.entry(row.is).or_default() += 1;
        }
    }
    println!("{counts:?}");
    let covered = counts["covered"];
    assert!(covered >= COVERED_MIN, "{counts:?}");
}

/// The cases that a file of CPython's has.
fn cases_in(path: PathBuf) -> BTreeSet<String> {
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut class, mut cases) = ("", BTreeSet::new());
    let word =
        |s: &'static str, line: &str| -> Option<usize> { line.starts_with(s).then_some(s.len()) };
    for line in text.lines() {
        let end = |s: &str| s.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(s.len());
        if let Some(at) = word("class ", line) {
            class = &line[at..at + end(&line[at..])];
        }
        let def = word("    def ", line).or_else(|| word("    async def ", line));
        if let Some(at) = def.filter(|at| line[*at..].starts_with("test_")) {
            cases.insert(format!("{class}.{}", &line[at..at + end(&line[at..])]));
        }
    }
    cases
}

#[test]
fn cpython_tables_have_every_case_of_the_installed_interpreter() {
    let python = match Interpreter::find() {
        Ok(python) => python,
        Err(why) => skip!("{why}"),
    };
    let (major, minor) = python.version;
    if !(11..=13).contains(&minor) {
        skip!("Python {major}.{minor}: the tables are of 3.11 to 3.13");
    }
    let code = "import os, test.test_asyncio as t; print(os.path.dirname(t.__file__))";
    let Ok(folder) = python.run(code) else {
        skip!("Python {major}.{minor} is installed without its own tests");
    };
    let mut bad = Vec::new();
    for file in FILES {
        let here = cases_in(Path::new(folder.trim()).join(format!("test_{file}.py")));
        assert!(here.len() > 10, "test_{file}.py: only {} cases were found", here.len());
        let rows = table(file).into_iter();
        let rows = rows.filter(|r| r.only_in.is_empty() || r.only_in.contains(&minor));
        let told: BTreeSet<_> = rows.map(|row| row.case).collect();
        let missing = here.difference(&told).map(|c| format!("{file}: {c} is in no table"));
        let gone = told.difference(&here).map(|c| format!("{file}: {c} is not in 3.{minor}"));
        bad.extend(missing.chain(gone));
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
