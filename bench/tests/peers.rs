//! `peers` with contenders made of shell scripts, and with a real one where it is built.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::{Ended, bench, end, run, scratch, take_json};

/// A folder like `bench/peers` with binaries that are scripts; gone at the end of its test.
struct Peers(PathBuf);

impl Peers {
    fn new(name: &str) -> Peers {
        let folder = scratch(name);
        fs::create_dir_all(folder.join("target/release")).unwrap();
        Peers(folder)
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.0.join("target/release").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A peer that describes itself, and does `work` as told.
    fn peer(&self, name: &str, work: &str) {
        let describe = format!(
            r#"{{"runtime":"{name}","version":"1.2.3","variants":["default"],"ring":true,"spins":[],"workloads":["yield"],"unsupported":{{"sleeps":"it never tires"}}}}"#
        );
        self.script(
            &format!("peer-{name}"),
            &format!("case $1 in describe) echo '{describe}';; *) {work};; esac"),
        );
    }

    fn compare(&self, args: &[&str]) -> Ended {
        self.compare_with(&[], args)
    }

    /// As [`compare`](Self::compare), from a terminal that has these variables.
    fn compare_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Ended {
        let folder = self.0.to_str().unwrap();
        let mut all = vec!["peers", "--no-build", "--peers-dir", folder, "--no-namespace"];
        all.extend(args);
        let mut command = bench(&all);
        command.envs(variables.iter().copied());
        end(command)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn yields(ns: u32) -> String {
    format!(
        r#"echo '{{"runtime":"x","variant":"default","workload":"yield","rounds":[{{"ns_per_yield":{ns}}}]}}'"#
    )
}

/// Server and generator need a core each.
fn two_cores(test: &str) -> bool {
    let two = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    if !two {
        eprintln!("SKIPPED {test}: it needs two cores");
    }
    two
}

fn contents(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn peers_that_work_are_compared_and_those_that_fail_are_told() {
    if !two_cores("peers_that_work_are_compared_and_those_that_fail_are_told") {
        return;
    }
    let peers = Peers::new("told");
    peers.peer("coreloop", &yields(10));
    peers.peer("slow", &yields(30));
    peers.peer("sick", "echo 'the ring is on strike' >&2; exit 3");
    peers.script("peer-mute", "exit 1");
    let json = scratch("told.json");
    let args =
        ["yield", "sleeps", "--blocks", "5", "--seed", "7", "--json", json.to_str().unwrap()];
    let ended = peers.compare(&args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Long lines are wrapped.
    let out = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        out.contains(
            "sick: failed 2 times: the work ended with exit status: 3: the ring is on strike"
        ),
        "{out}"
    );
    assert!(out.contains("mute: the peer ended with exit status: 1"), "{out}");
    assert!(out.contains("slow: unsupported: it never tires"), "{out}");
    assert!(out.contains("seed 7"), "{out}");
    let slow = ended.stdout.lines().find(|line| line.trim_start().starts_with("slow ")).unwrap();
    assert!(slow.contains("0.333–0.333") && slow.contains("ahead"), "{out}");
    let results = take_json(&json);
    assert_eq!(results["schema_version"], 1);
    let runs = results["workloads"][0]["runs"].as_array().unwrap();
    let of = |who: &str| {
        runs.iter().filter(|run| run["contender"] == who && run["attempt"] == 0).count()
    };
    assert_eq!((of("coreloop"), of("slow"), of("sick")), (5, 5, 2));
    let sick = runs.iter().find(|run| run["contender"] == "sick").unwrap();
    assert!(sick["error"].as_str().unwrap().contains("on strike"));
}

#[test]
fn no_contender_is_given_settings_by_the_terminal_and_a_mask_is_told() {
    if !two_cores("no_contender_is_given_settings_by_the_terminal_and_a_mask_is_told") {
        return;
    }
    let peers = Peers::new("terminal");
    let no_settings = "env | grep ^CORELOOP_ | grep -v ^CORELOOP_MASK=napi >&2 && exit 1";
    peers.peer("coreloop", &format!("{no_settings}; {}", yields(10)));
    let json = scratch("terminal.json");
    let variables =
        [("CORELOOP_SPIN", "off"), ("CORELOOP_CORE_0_SPIN", "50us"), ("CORELOOP_MASK", "napi")];
    let args = ["yield", "--blocks", "1", "--json", json.to_str().unwrap()];
    let ended = peers.compare_with(&variables, &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = "CORELOOP_MASK was set to \"napi\"";
    assert!(ended.stdout.contains(told), "{ended:?}");
    let results = take_json(&json);
    assert_eq!(results["workloads"][0]["runs"][0]["error"], serde_json::Value::Null, "{results}");
    assert!(
        results["notes"].as_array().unwrap().iter().any(|n| n.as_str().unwrap().contains(told))
    );
}

#[test]
fn two_blocks_resolve_nothing() {
    if !two_cores("two_blocks_resolve_nothing") {
        return;
    }
    let peers = Peers::new("quick");
    peers.peer("coreloop", &yields(10));
    peers.peer("slow", &yields(30));
    let ended = peers.compare(&["yield", "--quick"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("2 blocks are too few"), "{ended:?}");
    let slow = ended.stdout.lines().find(|line| line.trim_start().starts_with("slow ")).unwrap();
    assert!(slow.contains("unresolved"), "{ended:?}");
}

#[test]
fn a_disturbed_run_is_repeated_and_stays_marked() {
    if !two_cores("a_disturbed_run_is_repeated_and_stays_marked") {
        return;
    }
    let peers = Peers::new("disturbed");
    peers.peer("coreloop", &yields(10));
    if run_shell("command -v taskset").is_none() || run_shell("taskset -c 0 true").is_none() {
        eprintln!("SKIPPED a_disturbed_run_is_repeated_and_stays_marked: no taskset, or no core 0");
        return;
    }
    peers.peer("calm", &format!("sleep 0.4; {}", yields(10)));
    let hog = Hog::on_core_0();
    let json = scratch("disturbed.json");
    let path = json.to_str().unwrap();
    let ended = peers.compare(&[
        "yield",
        "--blocks",
        "1",
        "--contenders",
        "calm",
        "--server-core",
        "0",
        "--json",
        path,
    ]);
    drop(hog);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let results = take_json(&json);
    let runs = results["workloads"][0]["runs"].as_array().unwrap();
    let calm: Vec<_> = runs.iter().filter(|run| run["contender"] == "calm").collect();
    assert_eq!(calm.len(), 3, "twice again: {calm:?}");
    for run in calm {
        let marks = run["marks"].as_array().unwrap();
        assert!(marks.iter().any(|mark| mark.as_str().unwrap().contains("others used")), "{run}");
    }
}

/// Somebody who keeps a core busy.
struct Hog(std::process::Child);

impl Hog {
    fn on_core_0() -> Hog {
        let mut command = std::process::Command::new("taskset");
        command.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
        Hog(command.spawn().unwrap())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run_shell(script: &str) -> Option<()> {
    let status = std::process::Command::new("sh")
        .args(["-c", script])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    status.is_ok_and(|status| status.success()).then_some(())
}

#[test]
fn stored_results_are_drawn_again() {
    if !two_cores("stored_results_are_drawn_again") {
        return;
    }
    let peers = Peers::new("again");
    peers.peer("coreloop", &yields(10));
    peers.peer("slow", &yields(30));
    let (json, html, chart) = (scratch("again.json"), scratch("again.html"), scratch("again.svg"));
    let [json_path, html_path, chart_path] =
        [&json, &html, &chart].map(|path| path.to_str().unwrap());
    let first = peers.compare(&["yield", "--json", json_path, "--html", html_path]);
    assert_eq!(first.code, Some(0), "{first:?}");
    let page = contents(&html);
    fs::remove_file(&html).unwrap();
    let again = run(&["peers", "--from", json_path, "--html", html_path, "--chart", chart_path]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(contents(&html), page, "the same results draw the same page");
    assert!(page.contains("slow") && page.contains("<svg"));
    assert!(contents(&chart).starts_with("<svg"));
    let table = |out: &str| {
        let from = out.find("\nyield").unwrap();
        out[from..from + out[from..].find("Summary").unwrap()].to_owned()
    };
    assert_eq!(table(&first.stdout), table(&again.stdout));
    for path in [json, html, chart] {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn what_can_not_be_is_refused_in_words() {
    for (args, code, part) in [
        (&["peers", "echo-2"][..], 2, "no workload 'echo-2'"),
        (&["peers", "--peers-dir", "/nonexistent/peers"], 1, "--peers-dir"),
        (&["peers", "--from", "/nonexistent/x.json"], 1, "can't read /nonexistent/x.json"),
        (&["peers", "--seconds", "0"], 2, "0.1 to 600"),
        (&["peers", "--from", "x", "--json", "y"], 2, "cannot be used with"),
    ] {
        let ended = run(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!(ended.stderr.contains(part), "{args:?}: {ended:?}");
    }
}

#[test]
fn a_refusal_leaves_the_results_that_were_there() {
    if !two_cores("a_refusal_leaves_the_results_that_were_there") {
        return;
    }
    let peers = Peers::new("kept");
    peers.peer("slow", &yields(30));
    let json = scratch("kept.json");
    fs::write(&json, "last night's").unwrap();
    let args = ["yield", "--contenders", "nonesuch", "--json", json.to_str().unwrap()];
    let ended = peers.compare(&args);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(contents(&json), "last night's");
    fs::remove_file(json).unwrap();
}

#[test]
fn lists_name_workloads_contenders_and_commands() {
    let peers = Peers::new("lists");
    peers.peer("slow", &yields(30));
    let ended = peers.compare(&["--list"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in ["echo-1000", "idle-tasks", "slow", "1.2.3", "raw select", "was not built"] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
    if !two_cores("lists_name_workloads_contenders_and_commands") {
        return;
    }
    let ended = peers.compare(&["--list-commands", "echo-d16"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in ["serve echo --addr 0.0.0.0:7000", "load echo --addr SERVER:7000", "--depth 16"] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
}

#[test]
fn a_real_server_is_measured() {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    if !peers.join("target/release/raw-echo").is_file() {
        eprintln!("SKIPPED a_real_server_is_measured: bench/peers is not built");
        return;
    }
    if !two_cores("a_real_server_is_measured") || !common::io_uring_works() {
        return;
    }
    let json = scratch("real.json");
    let args = ["peers", "echo-64", "--no-build", "--contenders", "raw select", "--blocks", "1"];
    let more = ["--seconds", "0.2", "--json", json.to_str().unwrap()];
    let ended = run(&[&args[..], &more].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let results = take_json(&json);
    let runs = results["workloads"][0]["runs"].as_array().unwrap();
    for who in ["coreloop", "raw select"] {
        let run = runs.iter().find(|run| run["contender"] == who).unwrap();
        assert_eq!(run["error"], serde_json::Value::Null, "{run}");
        let figure = |key: &str| run["figures"][key].as_f64().unwrap();
        assert!(figure("cpu_ns_per_request") > 100.0, "{run}");
        assert!(figure("requests_per_s") > 100.0, "{run}");
        assert!(figure("p50_us") <= figure("p99_us"), "{run}");
    }
}
