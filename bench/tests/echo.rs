//! The echo scenarios as a user runs them: counts and exit codes, no speeds.

#![allow(unsafe_code, reason = "kill(2) has no safe form in std")]

mod common;

use common::{Running, io_uring_works, run, scratch, take_json};

/// 0, or 3 where the machine was too busy for a measurement that counts.
fn took_place(ended: &common::Ended) {
    assert!(matches!(ended.code, Some(0 | 3)), "{ended:?}");
}

fn signal(running: &Running, signal: i32) {
    // SAFETY: kill takes two numbers; the process is our child, and not yet waited for.
    assert_eq!(unsafe { libc::kill(running.pid() as i32, signal) }, 0);
}

#[test]
fn a_run_reports_its_requests_in_json_and_words() {
    if !io_uring_works() {
        return;
    }
    let json = scratch("run.json");
    let path = json.to_str().unwrap();
    let ended = run(&[
        "run",
        "echo",
        "--duration",
        "300ms",
        "--warmup",
        "50ms",
        "--connections",
        "4",
        "--json",
        path,
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("requests/s"), "{ended:?}");
    let report = take_json(&json);
    let requests = report["totals"]["requests"].as_u64().unwrap();
    assert!(requests > 0);
    assert_eq!(report["latency"]["uncorrected"]["count"].as_u64(), Some(requests));
    assert_eq!(report["verdict"]["valid"], true);
    assert_eq!(report["totals"]["unanswered"], 0);
    assert_eq!(report["parameters"]["connections"], 4);
    let cores = report["cores"].as_array().unwrap();
    let roles: Vec<&str> = cores.iter().map(|core| core["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["server", "load"]);
    assert!(cores.iter().all(|core| core["requests"].as_u64().unwrap() > 0), "{cores:?}");
    assert!(cores.iter().all(|core| core["loop"]["enters"].as_u64().unwrap() > 0), "{cores:?}");
}

#[test]
fn an_open_loop_reports_both_latencies_and_the_lag() {
    if !io_uring_works() {
        return;
    }
    let json = scratch("open.json");
    let path = json.to_str().unwrap();
    let ended = run(&[
        "run",
        "echo",
        "--duration",
        "500ms",
        "--warmup",
        "0",
        "--connections",
        "7",
        "--rate",
        "1000",
        "--json",
        path,
    ]);
    took_place(&ended);
    let report = take_json(&json);
    let requests = report["totals"]["requests"].as_u64().unwrap();
    assert!(requests > 0 && requests <= 500, "{requests}");
    let answered = report["totals"]["answers_all"].as_u64().unwrap();
    let unanswered = report["totals"]["unanswered"].as_u64().unwrap();
    // All of them were due within the window, whenever their answers came.
    for series in ["corrected", "uncorrected", "lag"] {
        assert_eq!(report["latency"][series]["count"].as_u64(), Some(answered), "{series}");
    }
    assert_eq!(answered + unanswered, 500, "no request of the schedule is forgotten");
}

#[test]
fn a_server_that_stands_still_at_the_end_is_charged_with_what_was_due() {
    if !io_uring_works() {
        return;
    }
    let (json, log) = (scratch("still.json"), scratch("still.hlog"));
    let mut server = Running::start(&["serve", "echo", "--addr", "127.0.0.1:0"]);
    let line = server.line_after("listening");
    let addr = line.split(' ').next().unwrap();
    let fixed = ["load", "echo", "--addr", addr, "--connections", "4", "--rate", "1000"];
    let files = ["--json", json.to_str().unwrap(), "--hlog", log.to_str().unwrap()];
    let time = ["--duration", "2s", "--warmup", "0", "--quiet"];
    let mut load = Running::start(&[&fixed[..], &files, &time].concat());
    // A second is over, and one is left.
    load.wait_for_content(&log);
    signal(&server, libc::SIGSTOP);
    std::thread::sleep(std::time::Duration::from_secs(2));
    signal(&server, libc::SIGCONT);
    let status = load.wait();
    assert_eq!(status.code(), Some(3), "the rate was not reached: {:?}", load.output());
    let report = take_json(&json);
    std::fs::remove_file(log).unwrap();
    let latency = &report["latency"]["corrected"];
    assert_eq!(latency["count"], 2_000, "{report}");
    assert!(latency["max_ns"].as_u64().unwrap() >= 1_900_000_000, "{report}");
    // It is not credited with answers that came too late, though.
    let requests = report["totals"]["requests"].as_u64().unwrap();
    assert!((1_000..2_000).contains(&requests), "{report}");
    let seconds = report["seconds"].as_array().unwrap();
    let counted: u64 = seconds.iter().map(|second| second["requests"].as_u64().unwrap()).sum();
    assert_eq!((seconds.len(), counted), (2, requests), "{report}");
    assert!(seconds[1]["p999_ns"].as_u64().unwrap() >= 1_900_000_000, "{report}");
}

#[test]
fn all_shapes_of_load_come_back_as_they_were_sent() {
    if !io_uring_works() {
        return;
    }
    for shape in [
        ["--connections", "1", "--depth", "1", "--size", "1"],
        ["--connections", "3", "--depth", "16", "--size", "100"],
        ["--connections", "2", "--depth", "4", "--size", "100000"],
        ["--connections", "1", "--depth", "1", "--size", "16M"],
    ] {
        let json = scratch("shape.json");
        let path = json.to_str().unwrap();
        let fixed = ["run", "echo", "--duration", "200ms", "--warmup", "0", "--json", path];
        let ended = run(&[&fixed[..], &shape[..]].concat());
        took_place(&ended);
        let report = take_json(&json);
        assert_eq!(report["totals"]["errors"], 0, "{shape:?}: {ended:?}");
        assert_eq!(report["totals"]["unanswered"], 0, "{shape:?}: {ended:?}");
        assert!(report["totals"]["answers_all"].as_u64().unwrap() > 0, "{shape:?}");
    }
}

#[test]
fn server_and_load_in_two_processes_count_the_same() {
    if !io_uring_works() {
        return;
    }
    let (served, loaded) = (scratch("serve.json"), scratch("load.json"));
    let mut server = Running::start(&[
        "serve",
        "echo",
        "--addr",
        "127.0.0.1:0",
        "--json",
        served.to_str().unwrap(),
    ]);
    let line = server.line_after("listening");
    let addr = line.split(' ').next().unwrap();
    let ended = run(&[
        "load",
        "echo",
        "--addr",
        addr,
        "--connections",
        "10",
        "--size",
        "100",
        "--depth",
        "3",
        "--duration",
        "300ms",
        "--warmup",
        "50ms",
        "--json",
        loaded.to_str().unwrap(),
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let idle = run(&["load", "idle", "--addr", addr, "--connections", "20", "--duration", "100ms"]);
    assert_eq!(idle.code, Some(0), "{idle:?}");
    assert!(idle.stdout.contains("20 connections"), "{idle:?}");
    signal(&server, libc::SIGTERM);
    let status = server.wait();
    let (stdout, stderr) = server.output();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stdout.contains("serve echo"), "{stdout}");

    let sum = |report: &serde_json::Value, field: &str| -> u64 {
        report["cores"].as_array().unwrap().iter().map(|core| core[field].as_u64().unwrap()).sum()
    };
    let (served, loaded) = (take_json(&served), take_json(&loaded));
    assert_eq!(served["addr"], addr);
    assert_eq!(sum(&served, "connections"), 30);
    let answers = loaded["totals"]["answers_all"].as_u64().unwrap();
    assert!(answers >= loaded["totals"]["requests"].as_u64().unwrap());
    assert_eq!(sum(&served, "bytes"), answers * 100);
}

#[test]
fn an_interrupted_run_reports_what_it_has() {
    if !io_uring_works() {
        return;
    }
    let (json, log) = (scratch("interrupted.json"), scratch("interrupted.hlog"));
    let mut running = Running::start(&[
        "run",
        "echo",
        "--duration",
        "1h",
        "--warmup",
        "0",
        "--json",
        json.to_str().unwrap(),
        "--hlog",
        log.to_str().unwrap(),
    ]);
    // The log's first entry is the first second that was measured.
    running.wait_for_content(&log);
    signal(&running, libc::SIGINT);
    let status = running.wait();
    let (stdout, stderr) = running.output();
    assert_eq!(status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("ended early"), "{stdout}");
    let report = take_json(&json);
    std::fs::remove_file(log).unwrap();
    assert!(report["totals"]["requests"].as_u64().unwrap() > 0);
    assert!(report["parameters"]["duration_ns"].as_u64().unwrap() < 60_000_000_000);
}

#[test]
fn a_server_that_is_not_there_is_told_by_its_address() {
    if !io_uring_works() {
        return;
    }
    // Bound, but not listening: nobody else gets the port meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    for scenario in ["echo", "idle"] {
        let ended = run(&["load", scenario, "--addr", &addr]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let words = format!("connection refused: is the server running on {addr}?");
        assert!(ended.stderr.contains(&words), "{ended:?}");
    }
}

#[test]
fn a_second_server_on_the_same_address_is_refused() {
    if !io_uring_works() {
        return;
    }
    let mut first = Running::start(&["serve", "echo", "--addr", "127.0.0.1:0"]);
    let line = first.line_after("listening");
    let addr = line.split(' ').next().unwrap();
    let ended = run(&["serve", "echo", "--addr", addr]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("another server listens there"), "{ended:?}");
    signal(&first, libc::SIGINT);
    assert_eq!(first.wait().code(), Some(0));
}
