//! Looks at a server that never was, for tests.

use coreloop::Snapshot;
use coreloop_net::ops::doc::{Cores, Tasks};
use serde_json::{Value, json};

/// Two looks, two seconds apart, at a process of two cores, of which the second has ended.
pub fn cores() -> (Cores, Cores) {
    (look(10, 0, 0), look(12, 2000, 100))
}

fn look(uptime_s: u64, polls: u64, wakes: u64) -> Cores {
    let running: Snapshot = serde_json::from_value(json!({
        "core": 0, "cores": 1, "cpu": 2, "state": "running", "uptime": time(uptime_s * 1000),
        "level": "histograms",
        "queues": [
            { "name": "default", "shares": 1000, "tasks": 60, "polls": polls, "cpu_time": time(1) },
            {
                "name": "batch", "shares": 10, "tasks": 4, "polls": polls / 20,
                "cpu_time": time((uptime_s - 10) * 100),
            },
        ],
        "long_polls": [
            { "task": "0.4.1", "name": "nap", "spawned_at": "src/nap.rs:7:9", "took": time(3), "ago": time(9) },
        ],
        "counters": {
            "polls": polls,
            "enters": polls / 2,
            "park_ns": (uptime_s - 10) * 500_000_000,
            "spin_ns": (uptime_s - 10) * 100_000_000,
        },
        "histograms": { "wake_to_poll": [[100_000, wakes]], "poll": [[900, wakes * 10]] },
        "gauges": { "tasks": 64, "buffers": 1024, "buffers_free": 1000, "age": time(0) },
        "cpu_time": time(uptime_s * 500),
        "step_downs": [],
    }))
    .unwrap();
    let ended: Snapshot = serde_json::from_value(json!({
        "core": 1, "cores": 1, "cpu": null, "state": "ended", "uptime": time(5000),
        "gauges": { "tasks": 0, "age": time(7000) },
    }))
    .unwrap();
    let mut cores: Cores = serde_json::from_value(json!({
        "schema_version": 1, "ready": true,
        "process": {
            "pid": 4711, "name": "server", "started_unix_ns": 7, "age_ns": uptime_s * 1_000_000_000,
            "cpu_ns": uptime_s * 500_000_000, "resident_bytes": 12 << 20, "open_files": 70,
            "open_files_max": 1024,
        },
    }))
    .unwrap();
    cores.cores = vec![running, ended];
    cores
}

/// Tasks of the first of them.
pub fn tasks() -> Tasks {
    let task = |id: &str, name: &str, age_s: u64, wait: Value| {
        json!({
            "id": id, "name": name, "parent": "0.0.1", "spawned_at": format!("src/{name}.rs:7:9"),
            "age_ns": age_s * 1_000_000_000, "state": "waiting", "waits_for": [wait],
        })
    };
    let recv =
        |fd: i32| json!({ "text": format!("recv on descriptor {fd}"), "op": "recv", "fd": fd });
    let tasks = json!([
        { "id": "0.0.1", "state": "waiting" },
        task("0.1.1", "echo", 90, recv(9)),
        task("0.2.1", "echo", 80, recv(10)),
        task("0.3.1", "echo", 70, json!({ "text": "a mutex" })),
        task("0.4.1", "nap", 5, json!({ "text": "a timer in 3.0s", "left_ns": 3_000_000_000u64 })),
    ]);
    serde_json::from_value(json!({ "cores": [{ "core": 0, "tasks": tasks }] })).unwrap()
}

fn time(ms: u64) -> Value {
    json!({ "secs": ms / 1000, "nanos": ms % 1000 * 1_000_000 })
}
