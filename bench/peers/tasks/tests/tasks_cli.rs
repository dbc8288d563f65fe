//! The comparison runs, and says what it should: few operations, no figures are judged.

use std::process::{Command, Output};

fn tasks(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tasks")).args(args).output().expect("the binary was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn tasks_every_workload_runs_on_both_sides() {
    let out = tasks(&["--rounds", "3", "--scale", "0.001", "--json", "-"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let listed = text(&tasks(&["--list"]).stdout).lines().count();
    let rows = report["workloads"].as_array().expect("rows");
    assert_eq!(rows.len(), listed);
    for row in rows {
        let name = &row["workload"];
        assert_eq!(row["coreloop"]["rounds_ns"].as_array().map(Vec::len), Some(3), "{name}");
        for theirs in row["tokio"].as_array().expect("a way or more") {
            assert_eq!(theirs["rounds_ns"].as_array().map(Vec::len), Some(3), "{name}");
        }
        assert!(row["ratio"]["median"].as_f64().is_some_and(|r| r > 0.0), "{name}");
    }
}

#[test]
fn tasks_one_side_alone_and_in_the_main_future() {
    let args = ["--rounds", "1", "--scale", "0.001", "--workload", "spawn-join,gather-10"];
    for side in ["coreloop", "tokio"] {
        let out = tasks(&[&args[..], &["--side", side, "--place", "main"]].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
        let table = text(&out.stdout);
        assert!(table.contains("spawn-join") && table.contains("gather-1000"), "{table}");
        assert!(!table.contains("ahead"), "one side has no ratio: {table}");
    }
}

#[test]
fn tasks_says_what_it_does_not_know() {
    let out = tasks(&["--workload", "nonsense"]);
    assert!(!out.status.success());
    assert!(text(&out.stderr).contains("--list"));
    assert!(!tasks(&["--scale", "0"]).status.success());
    assert!(text(&tasks(&["--help"]).stdout).contains("Examples"));
}
