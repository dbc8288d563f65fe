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
        failures: Vec::new(),
        highest: None,
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

/// Peers results in which nothing differs but what `change` does.
fn peers(change: impl FnOnce(&mut crate::peers::results::Results)) -> Side {
    let mut results = crate::peers::results::sample::results();
    change(&mut results);
    read::parse(&serde_json::to_value(&results).unwrap()).unwrap()
}

/// What tokio did in all blocks, or in those from the third on.
fn tokio(of: &mut crate::peers::results::Results, from: usize, error: Option<&str>) {
    let runs = of.workloads[0].runs.iter_mut();
    for run in runs.filter(|run| run.contender == "tokio" && run.block >= from) {
        match error {
            Some(why) => (run.error, run.figures) = (Some(why.into()), Default::default()),
            None => {
                (run.faults, run.marks) = (vec!["80 of 100 reached".into()], Vec::new());
            }
        }
    }
}

#[test]
fn a_server_that_failed_in_b_is_worse_and_not_left_out() {
    let whole = peers(|_| ());
    let same = compare(&args(&[]), &whole, &whole).unwrap();
    assert_eq!(same.worse, 0, "who failed in both is as it was: {same:?}");
    for (from, error, words, count) in [
        (0, Some("boom"), "echo-64 · tokio in 5 of 5 blocks (boom)", "5 of 5"),
        (3, Some("boom"), "echo-64 · tokio in 2 of 5 blocks (boom)", "2 of 5"),
        (0, None, "echo-64 · tokio in 5 of 5 blocks (80 of 100 reached)", "5 of 5"),
        (4, None, "echo-64 · tokio in 1 of 5 blocks (80 of 100 reached)", "1 of 5"),
    ] {
        let b = peers(|results| tokio(results, from, error));
        let c = compare(&args(&["--only", "tokio"]), &whole, &b).unwrap();
        let failed = c.rows.iter().find(|row| row.figure == "failed blocks").unwrap();
        assert_eq!((failed.of.as_str(), failed.says), ("echo-64 · tokio", Says::Worse));
        assert_eq!(c.worse, 1, "{c:?}");
        assert!(c.notes[0].contains(words), "{:?}", c.notes);
        let shown = text(&c, Paint { columns: 100, colour: false });
        assert!(shown.contains(count) && shown.contains("failed in B"), "{shown}");
        let one = compare(&args(&["--only", "latency, 99 %"]), &whole, &b).unwrap();
        assert_eq!(one.worse, 1, "also where a figure is asked for that it lacks: {one:?}");
        let back = compare(&args(&["--only", "tokio"]), &b, &whole).unwrap();
        assert!(back.worse == 0 && back.notes[0].starts_with("A failed"), "{:?}", back.notes);
    }
}

#[test]
fn what_fails_now_and_then_in_both_is_worse_only_if_it_clearly_fails_more() {
    let from = |block| peers(|results| tokio(results, block, None));
    let worse = |a: usize, b: usize| compare(&args(&[]), &from(a), &from(b)).unwrap().worse;
    assert_eq!((worse(4, 3), worse(4, 1), worse(1, 0), worse(0, 0)), (0, 1, 1, 0));
}

#[test]
fn figures_that_only_one_side_has_are_named() {
    let fewer = peers(|results| {
        results.workloads.pop();
        results.workloads[0].runs.retain(|run| run.contender != "monoio flags");
    });
    let c = compare(&args(&["--only", "echo"]), &peers(|_| ()), &fewer).unwrap();
    let note = c.notes.iter().find(|note| note.starts_with("only A has figures of ")).unwrap();
    assert!(note.contains("of echo-64 · monoio flags, echo-1 · coreloop,"), "{note}");
    assert!(note.ends_with("and 2 more"), "{note}");
    assert_eq!(c.worse, 0, "nobody failed");
}

/// A report of `load` whose seconds had so many answers.
fn load(answers: &[u64]) -> Side {
    let mut run = crate::report::sample::closed_run();
    let second = |(index, requests): (usize, &u64)| {
        let ns = if *requests == 0 { 0 } else { 5_000 + index as u64 };
        let (p50_ns, p90_ns, p99_ns, p999_ns) = (ns, ns, ns, ns);
        let (index, requests) = (index as u64, *requests);
        crate::stats::Second { index, requests, p50_ns, p90_ns, p99_ns, p999_ns }
    };
    run.seconds = answers.iter().enumerate().map(second).collect();
    read::parse(&serde_json::to_value(&run).unwrap()).unwrap()
}

#[test]
fn seconds_without_an_answer_are_worse_than_any_other() {
    let whole: Vec<u64> = (0..30).map(|i| 100_000 + i % 7).collect();
    let mut stopped = whole.clone();
    stopped[10..22].fill(0);
    let c = compare(&args(&[]), &load(&whole), &load(&stopped)).unwrap();
    let row = |of: &Comparison, figure: &str| {
        of.rows.iter().find(|row| row.figure == figure).unwrap().clone()
    };
    let (silent, rate, p50) =
        (row(&c, "empty seconds"), row(&c, "requests per second"), row(&c, "p50"));
    assert_eq!((silent.says, silent.a, silent.b), (Says::Worse, 0.0, 12.0));
    assert_eq!((rate.samples_a, rate.samples_b, rate.ratio.unwrap().blocks), (30, 30, 30));
    assert_eq!((p50.samples_b, p50.ratio.unwrap().blocks), (18, 18), "and say so");
    assert!(p50.b > 5.0, "of the seconds that have one: {p50:?}");
    assert!(c.notes[0].contains("12 of 30 seconds (nothing was answered"), "{:?}", c.notes);
    // Most of them, and the ranks say it, too.
    stopped[5..29].fill(0);
    let c = compare(&args(&["--only", "requests"]), &load(&whole), &load(&stopped)).unwrap();
    assert_eq!(row(&c, "requests per second").says, Says::Worse);
    assert_eq!(row(&c, "requests per second").b, 0.0);
    let back = compare(&args(&[]), &load(&stopped), &load(&whole)).unwrap();
    assert_eq!((back.worse, row(&back, "requests per second").says), (0, Says::Better));
    // A few requests a second, at random: some have none.
    let (few, fewer) = ([3, 2, 1, 4, 2, 3, 2], [2, 3, 0, 2, 4, 0, 1]);
    let c = compare(&args(&[]), &load(&few), &load(&fewer)).unwrap();
    assert_eq!(c.worse, 0, "{c:?}");
}

#[test]
fn another_rate_of_an_open_loop_and_a_quick_look_are_another_load() {
    let of = |rate| peers(|results| results.workloads[1].rate = Some(rate));
    let c = compare(&args(&[]), &of(70_000), &of(50_000)).unwrap();
    let told = "did not have the same load: rate of echo-1 (A 70000, B 50000)";
    assert!(c.notes[0].contains(told), "{:?}", c.notes);
    let c = compare(&args(&[]), &peers(|_| ()), &peers(|results| results.quick = true)).unwrap();
    assert!(c.notes[0].contains("the same load: quick (A false, B true)"), "{:?}", c.notes);
    let c = compare(&args(&[]), &of(70_000), &of(70_000)).unwrap();
    assert!(!c.notes.iter().any(|note| note.starts_with(OTHER_LOAD)), "{:?}", c.notes);
}

/// A search of a server whose latency grows towards so many requests a second.
fn search(p99_us: fn(Option<u64>) -> f64) -> Side {
    let results = crate::search::results::sample::results(|runner| runner.p99_us = p99_us);
    read::parse(&serde_json::to_value(&results).unwrap()).unwrap()
}

fn queue(rate: Option<u64>, most: f64) -> f64 {
    100.0 / (1.0 - rate.unwrap_or(60_000) as f64 / most).max(0.001)
}

#[test]
fn a_search_is_compared_by_the_rate_that_it_found() {
    let slow = search(|rate| queue(rate, 60_000.0));
    // It does more, and takes longer for it, which is what the bound allows.
    let mut fast = search(|rate| queue(rate, 80_000.0));
    for series in fast.series.iter_mut().filter(|series| series.less_is_better) {
        series.samples.iter_mut().for_each(|sample| *sample *= 1.5);
    }
    let c = compare(&args(&[]), &slow, &fast).unwrap();
    assert_eq!((c.rows[0].figure.as_str(), c.rows[0].says), ("highest rate", Says::Better));
    assert_eq!((c.worse, c.better), (0, 1), "not for its latency at that rate: {c:?}");
    assert_eq!(c.can_not_tell, c.rows.len() - 1);
    assert!(!c.notes.iter().any(|note| note.starts_with(OTHER_LOAD)), "{:?}", c.notes);
    let shown = text(&c, Paint { columns: 100, colour: false });
    assert!(shown.contains("other rate") && shown.contains("not judged"), "{shown}");
    let back = compare(&args(&[]), &fast, &slow).unwrap();
    assert_eq!((back.worse, back.better), (1, 0), "{back:?}");
    let same = compare(&args(&[]), &slow, &slow).unwrap();
    assert_eq!((same.worse, same.better, same.can_not_tell), (0, 0, 0), "{same:?}");
    // Of one that holds at no rate there are no series, and it is not left out.
    let none = search(|_| 9e3);
    let c = compare(&args(&[]), &slow, &none).unwrap();
    assert_eq!((c.worse, c.rows[0].b), (1, 0.0), "{c:?}");
    assert!(text(&c, Paint::plain()).contains("worse"), "{c:?}");
    // At one rate its latency counts.
    let mut later = slow.clone();
    let p99 = later.series.iter_mut().find(|series| series.figure == "p99").unwrap();
    p99.samples.iter_mut().for_each(|sample| *sample *= 1.5);
    assert_eq!(compare(&args(&[]), &slow, &later).unwrap().worse, 1);
}
