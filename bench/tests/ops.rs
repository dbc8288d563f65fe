//! The ops listener of `serve`, and `top` and `ps`, as a user runs them.

#![allow(unsafe_code, reason = "kill(2) has no safe form in std")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use common::{Running, bench, end, io_uring_works, run, scratch, serve_with_ops};

const PATIENCE: Duration = Duration::from_secs(60);

fn signal(running: &Running, signal: i32) {
    // SAFETY: kill takes two numbers; the process is our child, and not yet waited for.
    assert_eq!(unsafe { libc::kill(running.pid() as i32, signal) }, 0);
}

/// Status and body of a page.
fn get(port: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn top_and_ps_show_a_server_as_text_and_json() {
    if !io_uring_works() {
        return;
    }
    let (server, port) = serve_with_ops(&["--set", "mask=msg_ring"]);
    let top = run(&["top", &port, "--once", "--interval", "200ms"]);
    assert_eq!(top.code, Some(0), "{top:?}");
    let address = format!("http://127.0.0.1:{port}");
    for part in [address.as_str(), "coreloop-bench (", "polls/s", "p99 WAKE", "ops connection"] {
        assert!(top.stdout.contains(part), "{part}: {top:?}");
    }
    assert!(!top.stdout.contains('\x1b'), "no escapes in a pipe: {top:?}");
    let json = run(&["top", &port, "--json", "--once", "--interval", "200ms"]);
    let view: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let cores = view["cores"].as_array().unwrap();
    assert_eq!(view["process"]["pid"], server.pid());
    assert!(cores[0]["seconds"].as_f64().unwrap() >= 0.2, "{view}");
    // Nobody asks anything of the last core, which sleeps for all of the time; the first one answers us.
    assert!(cores[0]["busy"].as_f64().unwrap() < 1.0, "{view}");
    assert!(cores.len() == 1 || cores.last().unwrap()["busy"].as_f64().unwrap() < 0.1, "{view}");
    assert!(cores[0]["rates"]["polls"].as_f64().unwrap() > 0.0, "{view}");
    assert!(cores[0]["latencies"]["poll"]["p99_ns"].as_u64().unwrap() > 0, "{view}");
    let shares = ["busy", "spinning", "parked"].map(|share| cores[0][share].as_f64().unwrap());
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{shares:?}");

    let tree = run(&["ps", &port]);
    assert_eq!(tree.code, Some(0), "{tree:?}");
    assert!(tree.stdout.contains("─ ops connection"), "under the listener: {tree:?}");
    let filtered = run(&["ps", &port, "--filter", "OPS CONN", "--json"]);
    let tasks: serde_json::Value = serde_json::from_str(&filtered.stdout).unwrap();
    let kept = tasks["cores"][0]["tasks"].as_array().unwrap();
    let names: Vec<_> = kept.iter().filter_map(|task| task["name"].as_str()).collect();
    assert_eq!(names, ["ops", "ops connection"], "it, and who spawned it: {tasks}");
    assert!(kept[0]["spawned_at"].is_null(), "the main future is its ancestor: {tasks}");

    let (_, config) = get(&port, "/config");
    let row = |name: &str| config.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(row("stats").ends_with("--stats"), "{config}");
    assert!(row("mask").ends_with("mask=msg_ring"), "{config}");
    assert_eq!(row("ops_addr").split_whitespace().nth(2), Some("--ops"), "{config}");
    assert!(config.contains("core 0: msg_ring (masked by settings)"), "{config}");
    signal(&server, libc::SIGTERM);
}

#[test]
fn every_task_that_waits_says_for_what() {
    if !io_uring_works() {
        return;
    }
    for spread in ["reuseport", "round-robin", "least-connections"] {
        let (server, port) = serve_with_ops(&["--accept-spread", spread]);
        // Of those that were just accepted the first poll is over when the list is made, or soon.
        let _idle: Vec<_> =
            (0..3).map(|_| TcpStream::connect(format!("127.0.0.1:{port}")).unwrap()).collect();
        let until = Instant::now() + PATIENCE;
        loop {
            let (status, text) = get(&port, "/tasks?format=json");
            let list: serde_json::Value = serde_json::from_str(&text).unwrap();
            let tasks: Vec<_> = list["cores"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|core| core["tasks"].as_array().unwrap())
                .filter(|task| task["state"] == "waiting")
                .collect();
            let silent = tasks.iter().find(|t| t["waits_for"].as_array().unwrap().is_empty());
            assert!(status == 200 && silent.is_none(), "{spread}: {silent:#?}");
            if tasks.len() >= 8 {
                break;
            }
            assert!(Instant::now() < until, "{spread}: {text}");
        }
        signal(&server, libc::SIGTERM);
    }
}

#[test]
fn a_lame_duck_serves_on_and_says_that_it_is_not_ready() {
    if !io_uring_works() {
        return;
    }
    let (mut server, port) = serve_with_ops(&["--lame-duck", "1h"]);
    assert_eq!(get(&port, "/readyz"), (200, "ready\n".into()));
    assert_eq!(get(&port, "/livez"), (200, "ok\n".into()));
    signal(&server, libc::SIGTERM);
    let until = Instant::now() + PATIENCE;
    while get(&port, "/readyz").0 == 200 {
        assert!(Instant::now() < until);
    }
    assert_eq!(get(&port, "/readyz"), (503, "draining: the process goes down\n".into()));
    assert_eq!(get(&port, "/livez").0, 200, "it is not dead yet");
    assert!(get(&port, "/metrics").1.contains("\ncoreloop_ready 0\n"));
    let top = run(&["top", &port, "--once", "--interval", "100ms"]);
    assert!(top.stdout.contains("NOT READY"), "{top:?}");
    signal(&server, libc::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "the second signal is its end");
}

#[test]
fn the_service_manager_hears_of_the_start_and_the_end() {
    if !io_uring_works() {
        return;
    }
    let path = scratch("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 1000];
        let n = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n]).into_owned()
    };
    let mut command = bench(&["serve", "echo", "--addr", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut server = Running::of(command);
    // The watchdog's task may be the first, and more than once on a busy machine.
    let mut ready = hear();
    while ready.starts_with("WATCHDOG") {
        ready = hear();
    }
    assert!(ready.contains("READY=1") && ready.contains("serving on 127.0.0.1:"), "{ready}");
    assert!(hear().contains("WATCHDOG=1"));
    signal(&server, libc::SIGTERM);
    while !hear().contains("STOPPING=1") {}
    assert_eq!(server.wait().code(), Some(0));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn what_is_in_the_way_is_told_in_words() {
    if !io_uring_works() {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = run(&["serve", "echo", "--addr", "127.0.0.1:0", "--ops", &port]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("pass another --ops"), "{ended:?}");
    let ended = run(&["top", "9464"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("--once"), "without a terminal: {ended:?}");
    drop(taken);
    for command in [&["ps", &port][..], &["top", &port, "--once"], &["top", &port, "--json"]] {
        let ended = run(command);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("--ops"), "{ended:?}");
    }
    let ended = end(bench(&["top", "https://localhost"]));
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("tunnel"), "{ended:?}");
}
