//! `tune`, `search` and `compare` as a user runs them, for a few seconds each: files and exit codes, no speeds.

#![allow(unsafe_code, reason = "kill(2) has no safe form in std")]

mod common;

use std::path::Path;

use common::{Ended, Running, io_uring_works, run, scratch, take_json};

/// Server and generator need a core each, and a ring.
fn able(test: &str) -> bool {
    let two = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    if !two {
        eprintln!("SKIPPED {test}: it needs two cores");
    }
    two && io_uring_works()
}

fn path(file: &Path) -> &str {
    file.to_str().unwrap()
}

fn tune(more: &[&str]) -> Ended {
    let fixed =
        ["tune", "echo-64", "--connections", "4", "--no-namespace", "--quiet", "--seed", "1"];
    run(&[&fixed[..], more].concat())
}

#[test]
fn a_search_of_settings_writes_a_file_that_the_server_takes() {
    if !able("a_search_of_settings_writes_a_file_that_the_server_takes") {
        return;
    }
    let (toml, json) = (scratch("tuned.toml"), scratch("tune.json"));
    let ended = tune(&[
        "--goal",
        "cpu",
        "--budget",
        "12s",
        "--seconds",
        "0.1",
        "--only",
        "chunk_quota",
        "--out",
        path(&toml),
        "--json",
        path(&json),
    ]);
    // What it finds, and whether its time was enough, is the machine's; nothing of it is a failure.
    assert!(matches!(ended.code, Some(0 | 3)), "{ended:?}");
    let printed = run(&["serve", "echo", "--config", path(&toml), "--print-config"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let results = take_json(&json);
    assert_eq!(results["command"], "tune");
    let outcome = results["outcome"].as_str().unwrap();
    let settings = results["settings"].as_array().unwrap();
    assert_eq!(outcome == "tuned", !settings.is_empty(), "{results}");
    let from_file = printed.stdout.lines().filter(|line| line.contains("tuned.toml:")).count();
    assert_eq!(from_file, settings.len(), "{printed:?}");
    let log = results["log"].as_array().unwrap();
    // A machine on which the first run takes half of the budget has time for no other.
    let tried = |who: &str| log.is_empty() || log.iter().any(|run| run["candidate"] == who);
    assert!(tried("defaults") && (tried("chunk_quota=32") || tried("chunk_quota=2")), "{log:?}");
    assert!(log.iter().all(|run| run["error"].is_null()), "{log:?}");
    std::fs::remove_file(toml).unwrap();
}

#[test]
fn ctrl_c_ends_a_search_of_settings_with_what_is_known() {
    if !able("ctrl_c_ends_a_search_of_settings_with_what_is_known") {
        return;
    }
    let toml = scratch("early.toml");
    let mut running = Running::start(&[
        "tune",
        "echo-64",
        "--connections",
        "4",
        "--no-namespace",
        "--goal",
        "cpu",
        "--budget",
        "10m",
        "--seconds",
        "0.1",
        "--out",
        path(&toml),
    ]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    // SAFETY: kill takes two numbers; the process is our child, and not yet waited for.
    assert_eq!(unsafe { libc::kill(running.pid() as i32, libc::SIGINT) }, 0);
    let status = running.wait();
    let (stdout, stderr) = running.output();
    // On a slow machine in the first run, which is no other end.
    assert_eq!(status.code(), Some(3), "{stdout}{stderr}");
    assert!(stdout.contains("ended early"), "{stdout}");
    let text = std::fs::read_to_string(&toml).unwrap();
    assert!(text.contains("nothing is changed"), "{text}");
    std::fs::remove_file(toml).unwrap();
}

#[test]
fn what_would_be_tried_is_listed() {
    if !io_uring_works() {
        return;
    }
    let ended = tune(&["--goal", "cpu", "--list", "--only", "spin,chunk_quota"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in ["spin=off", "dial", "chunk_quota=32"] {
        assert!(ended.stdout.contains(part), "{ended:?}");
    }
    assert!(!ended.stdout.contains("buffers="), "{ended:?}");
}

#[test]
fn the_highest_rate_of_a_lenient_goal_is_bracketed() {
    if !able("the_highest_rate_of_a_lenient_goal_is_bracketed") {
        return;
    }
    let json = scratch("search.json");
    let ended = run(&[
        "search",
        "echo-64",
        "--connections",
        "4",
        "--goal",
        "p50<50ms",
        "--budget",
        "6s",
        "--seconds",
        "0.1",
        "--runs",
        "1",
        "--precision",
        "50",
        "--no-namespace",
        "--quiet",
        "--json",
        path(&json),
        "--set",
        "spin=off",
    ]);
    assert!(matches!(ended.code, Some(0 | 1 | 3)), "{ended:?}");
    assert!(ended.stdout.contains("requests/s") && ended.stdout.contains("spin=off"), "{ended:?}");
    let results = take_json(&json);
    let points = results["points"].as_array().unwrap();
    assert!(!points.is_empty(), "{results}");
    let rates: Vec<u64> = points.iter().map(|point| point["rate"].as_u64().unwrap()).collect();
    assert!(rates.windows(2).all(|pair| pair[0] < pair[1]), "{rates:?}");
}

#[test]
fn two_runs_of_one_server_can_be_compared() {
    if !io_uring_works() {
        return;
    }
    let (a, b) = (scratch("a.json"), scratch("b.json"));
    for (file, seconds) in [(&a, "6s"), (&b, "300ms")] {
        let ended = run(&[
            "run",
            "echo",
            "--connections",
            "2",
            "--rate",
            "500",
            "--duration",
            seconds,
            "--warmup",
            "0",
            "--quiet",
            "--json",
            path(file),
        ]);
        assert!(matches!(ended.code, Some(0 | 3)), "{ended:?}");
    }
    let same = run(&["compare", path(&a), path(&a)]);
    assert_eq!(same.code, Some(0), "{same:?}");
    assert!(same.stdout.contains("worse: 0, better: 0, unresolved: 5, can't tell: 1"), "{same:?}");
    let short = run(&["compare", path(&a), path(&b)]);
    assert_eq!(short.code, Some(5), "one side has no whole seconds: {short:?}");
    assert!(short.stdout.contains("can't tell"), "{short:?}");
    let json = run(&["compare", path(&a), path(&a), "--json", "--only", "p99"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["rows"][0]["samples_a"], 6);

    // The same report, but every second took half again as long.
    let mut slower: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&a).unwrap()).unwrap();
    for second in slower["seconds"].as_array_mut().unwrap() {
        second["p50_ns"] = (second["p50_ns"].as_u64().unwrap() * 1_000).into();
    }
    std::fs::write(&b, slower.to_string()).unwrap();
    let worse = run(&["compare", path(&a), path(&b)]);
    assert_eq!(worse.code, Some(4), "{worse:?}");
    let back = run(&["compare", path(&b), path(&a)]);
    assert_eq!(back.code, Some(0), "better is no reason to complain: {back:?}");
    [a, b].iter().for_each(|file| std::fs::remove_file(file).unwrap());
}

#[test]
fn what_can_not_be_is_refused_in_words() {
    for (args, code, part) in [
        (&["tune", "echo-64", "--goal", "p98"][..], 2, "'p98' is not among what a run reports"),
        (&["tune", "echo-65", "--goal", "cpu"], 2, "did you mean echo-64?"),
        (&["tune", "echo-64", "--goal", "cpu", "--only", "spinn"], 2, "did you mean spin?"),
        (&["tune", "echo-64", "--goal", "cpu", "--try", "spin=often"], 2, "often"),
        (&["tune", "echo-64", "--goal", "cpu", "--budget", "1s"], 2, "must be 2s to 24h"),
        (&["tune", "echo-64"], 2, "--goal"),
        (&["tune", "echo-64", "--goal", "cpu", "--pairs", "4"], 2, "5 to 1"),
        (&["tune", "echo-64", "--goal", "cpu", "--pairs", "9", "--out", "x"], 2, "--out"),
        (&["tune", "echo-1", "--goal", "max-rate", "--rate", "1k"], 2, "--rate fixes the rate"),
        (&["tune", "open-70", "--goal", "max-rate"], 2, "an open loop, which fixes the rate"),
        (&["search", "echo-64", "--goal", "cpu"], 2, "has no bound"),
        (&["search", "echo-64", "--goal", "p99<1ms", "--set", "spim=off"], 2, "did you mean spin?"),
        (&["compare", "/nonexistent/a.json", "b.json"], 1, "can't read /nonexistent/a.json"),
        (&["compare", "a.json"], 2, "B.json"),
    ] {
        let ended = run(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(part), "{args:?}: {ended:?}");
    }
}

#[test]
fn settings_are_told_in_pairs_and_ctrl_c_leaves_no_process() {
    if !able("settings_are_told_in_pairs_and_ctrl_c_leaves_no_process") {
        return;
    }
    let json = scratch("pairs.json");
    let common = ["--goal", "cpu", "--only", "stats", "--seconds", "0.1", "--json", path(&json)];
    let ended = tune(&[&common[..], &["--pairs", "5"]].concat());
    assert!(matches!(ended.code, Some(0 | 3)), "{ended:?}");
    assert!(ended.stdout.contains("CPU per request: with it"), "{ended:?}");
    let results = take_json(&json);
    let rows = results["rows"].as_array().unwrap();
    let candidates: Vec<&str> = rows.iter().map(|row| row["candidate"].as_str().unwrap()).collect();
    assert_eq!(candidates, ["stats=off", "stats=histograms"]);

    let fixed = ["tune", "echo-64", "--connections", "4", "--no-namespace", "--pairs", "500"];
    let mut running = Running::start(&[&fixed[..], &common].concat());
    std::thread::sleep(std::time::Duration::from_secs(3));
    let pid = running.pid();
    let children = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let ids: Vec<u32> =
            text.unwrap_or_default().split_whitespace().map(|id| id.parse().unwrap()).collect();
        ids
    };
    let theirs = children();
    // SAFETY: kill takes two numbers; the process is our child, and not yet waited for.
    assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGINT) }, 0);
    let status = running.wait();
    assert!(matches!(status.code(), Some(1 | 3)), "{status:?}");
    for id in theirs {
        let left = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        assert!(!left.contains("echo"), "process {id} is left: {left}");
    }
    // Where the machine was too slow for even one run there is none.
    drop(std::fs::remove_file(json));
}
