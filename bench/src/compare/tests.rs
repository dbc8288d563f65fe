//! Comparisons of made-up sides, as rows, words and JSON.

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

pub(super) fn args(flags: &[&str]) -> CompareArgs {
    let all = ["coreloop-bench", "compare", "a.json", "b.json"].iter().chain(flags);
    let Command::Compare(args) = Cli::parse_from(all).command else { panic!("not compare") };
    args
}

fn series(of: &str, figure: &str, less_is_better: bool, samples: &[f64]) -> Series {
    let (of, figure, unit) = (of.to_owned(), figure.to_owned(), "µs".to_owned());
    Series { of, figure, unit, less_is_better, samples: samples.to_vec() }
}

fn around(middle: f64) -> Vec<f64> {
    [0.98, 1.0, 1.01, 0.99, 1.02, 1.0, 0.995].map(|factor| factor * middle).to_vec()
}

fn side(scale: f64) -> Side {
    Side {
        kind: "peers",
        in_a_row: false,
        series: vec![
            series("x", "p99", true, &around(100.0 * scale)),
            series("x", "rate", false, &around(50.0 / scale)),
            series("x", "p50", true, &around(10.0)),
            series("x", "cpu", true, &[5.0 * scale]),
        ],
        facts: vec![("kernel".into(), format!("6.{}", (scale * 10.0) as u32))],
        doubts: Vec::new(),
    }
}

fn compared(flags: &[&str], scale: f64) -> Comparison {
    compare(&args(flags), &side(1.0), &side(scale)).unwrap()
}

#[test]
fn what_differs_is_told_from_what_does_not_and_from_what_nobody_knows() {
    let c = compared(&[], 1.1);
    let says: Vec<Says> = c.rows.iter().map(|row| row.says).collect();
    assert_eq!(says, [Says::Worse, Says::Worse, Says::Unresolved, Says::CanNotTell]);
    assert_eq!((c.worse, c.better, c.unresolved, c.can_not_tell), (2, 0, 1, 1));
    let c = compared(&[], 0.9);
    assert_eq!((c.worse, c.better), (0, 2));
    assert!(c.notes[0].contains("they differ in kernel (A 6.10, B 6.9)"), "{:?}", c.notes);
    assert!(c.notes[1].contains("fewer than 5 samples"), "{:?}", c.notes);
}

#[test]
fn a_side_that_is_not_to_be_trusted_is_told_first() {
    let mut loud = side(1.1);
    loud.doubts = vec!["most of its runs were disturbed".into()];
    let c = compare(&args(&[]), &side(1.0), &loud).unwrap();
    assert!(c.notes[0].ends_with("this: B: most of its runs were disturbed"), "{:?}", c.notes);
}

#[test]
fn differences_below_the_threshold_do_not_matter() {
    let c = compared(&["--threshold", "20"], 1.1);
    assert_eq!((c.worse, c.unresolved), (0, 3));
    assert_eq!(c.rows[0].says, Says::BelowThreshold);
    let c = compared(&["--threshold", "5%"], 1.1);
    assert_eq!(c.worse, 2);
}

#[test]
fn figures_can_be_named() {
    assert_eq!(compared(&["--only", "p99"], 1.1).rows.len(), 1);
    let error = compare(&args(&["--only", "p42"]), &side(1.0), &side(1.0)).unwrap_err();
    assert_eq!(error, "no figure of both has 'p42' in its name");
    let other = Side { kind: "run", ..side(1.0) };
    let error = compare(&args(&[]), &side(1.0), &other).unwrap_err();
    assert!(error.contains("a.json is a report of peers, b.json one of run"), "{error}");
}

#[test]
fn words_fit_their_columns_and_say_what_follows() {
    for columns in [80, 120] {
        let paint = Paint { columns, colour: false };
        let shown = text(&compared(&[], 1.1), paint);
        assert!(shown.lines().all(|line| line.chars().count() <= columns), "{shown}");
        for part in
            ["worse: 2, better: 0, unresolved: 1, can't tell: 1", "x · p99", "100 µs", "110 µs"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
    let mut alone = compared(&["--only", "cpu"], 1.1);
    assert!(text(&alone, Paint::plain()).contains("can't tell: neither repeats anything"));
    let row = compared(&["--only", "p50"], 1.0).rows.remove(0);
    alone.rows = vec![row; 50];
    alone.unresolved = 50;
    let many = text(&alone, Paint::plain());
    let many = many.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        !many.contains("x · p50") && many.contains("about 3 would differ by chance alone"),
        "{many}"
    );
    assert!(many.contains("of 50 figures only those that differ"), "{many}");
}

#[test]
fn runs_are_told_that_a_run_is_one_start() {
    let run = Side { kind: "run", in_a_row: true, ..side(1.0) };
    let c = compare(&args(&[]), &run, &run).unwrap();
    assert!(c.notes[0].starts_with("each side is one run"), "{:?}", c.notes);
    assert_eq!((c.worse, c.better), (0, 0));
}

#[test]
fn another_load_is_the_first_thing_that_is_said() {
    let of = |connections: &str| {
        let facts = [("kernel", "6.12"), ("connections", connections)];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Side { facts, ..side(1.0) }
    };
    let c = compare(&args(&[]), &of("64"), &of("1000")).unwrap();
    assert!(c.notes[0].contains("did not have the same load: connections (A 64, B 1000)"), "{c:?}");
    assert!(!c.notes.iter().any(|note| note.starts_with("they differ in")), "{:?}", c.notes);
    let same = compare(&args(&[]), &of("64"), &of("64")).unwrap();
    assert!(!same.notes.iter().any(|note| note.contains("load")), "{:?}", same.notes);
}

#[test]
fn very_long_runs_are_compared_in_bounded_memory() {
    let long: Vec<f64> = (0..200_000).map(|i| 100.0 + f64::from(i % 7)).collect();
    let side = || Side { series: vec![series("x", "p99", true, &long)], ..side(1.0) };
    let c = compare(&args(&[]), &side(), &side()).unwrap();
    assert_eq!((c.rows[0].samples_a, c.rows[0].says), (200_000, Says::Unresolved));
}
