//! Logs of several runs put together, by the very program that the guide's page on production has.

mod common;

use std::io::Write as _;
use std::path::Path;

use common::{io_uring_works, run, scratch, take_json};
use coreloop_tests::python::{self, with_module};

/// The program of the page.
fn program() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/production.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut programs =
        page.split("```python\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    programs.next().expect("the page has one").to_owned()
}

#[test]
fn logs_of_several_runs_are_merged_as_the_guide_says() {
    if !io_uring_works() {
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(python) = with_module("hdrh.log", "hdrhistogram==0.10.8", folder) else {
        let line = "SKIPPED logs_of_several_runs_are_merged_as_the_guide_says: no python3 with \
                    hdrhistogram, and it can't be installed\n";
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
        return;
    };
    // A closed loop and an open one: the page names the tags of both.
    let runs =
        [&["--connections", "4"][..], &["--connections", "4", "--rate", "2000"]].map(|more| {
            let at = more.len();
            let (json, log) =
                (scratch(&format!("merge{at}.json")), scratch(&format!("merge{at}.hlog")));
            let files = ["--json", json.to_str().unwrap(), "--hlog", log.to_str().unwrap()];
            let how = ["run", "echo", "--quiet", "--duration", "1200ms", "--warmup", "0"];
            let ended = run(&[&how[..], &files, more].concat());
            assert!(matches!(ended.code, Some(0 | 3)), "{ended:?}");
            (take_json(&json), log)
        });
    let program = program();
    let mut args = vec!["-c", program.as_str()];
    args.extend(runs.iter().map(|(_, log)| log.to_str().unwrap()));
    let (well, said) = python::run(&python, &args, "").unwrap();
    assert!(well, "{said}");
    let latency = |run: &serde_json::Value, what: &str| -> (u64, u64) {
        let all = &run["latency"];
        let of = if all["corrected"].is_null() { &all["uncorrected"] } else { &all["corrected"] };
        (of["count"].as_u64().unwrap(), of[what].as_u64().unwrap())
    };
    let counted: u64 = runs.iter().map(|(run, _)| latency(run, "max_ns").0).sum();
    assert!(
        counted > 1000 && said.starts_with(&format!("requests {counted}\n")),
        "{counted}: {said}"
    );
    // Both ends are those of one of the two.
    let max = runs.iter().map(|(run, _)| latency(run, "max_ns").1).max().unwrap();
    let line = said.lines().find(|line| line.starts_with("100 ")).unwrap();
    let told: f64 = line.split(' ').nth(1).unwrap().parse().unwrap();
    let limits = max as f64 / 1e6 * 0.999..=max as f64 / 1e6 * 1.001;
    assert!(limits.contains(&told), "{max} ns: {said}");
    runs.iter().for_each(|(_, log)| std::fs::remove_file(log).unwrap());
}
