//! `/metrics` as others read it: Prometheus's own parser for OpenMetrics in Python, `promtool`, and a real
//! Prometheus server that scrapes it. Where they are missing the tests say so.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coreloop_tests::python::{self, with_module};

use common::{Running, io_uring_works, run, scratch, serve_with_ops};

const PATIENCE: Duration = Duration::from_secs(60);

fn serve() -> (Running, String, String) {
    let (server, ops) = serve_with_ops(&[]);
    // Its own word for it, since the first line read may have taken others with it.
    let (_, tasks) = get(&ops, "/config", "");
    assert!(tasks.contains("stats"), "{tasks}");
    let addr = format!("127.0.0.1:{}", listening_port(&server, &ops));
    (server, addr, ops)
}

/// The other port on which the process listens.
fn listening_port(server: &Running, ops: &str) -> u16 {
    let tcp = std::fs::read_to_string(format!("/proc/{}/net/tcp", server.pid())).unwrap();
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", server.pid()))
        .unwrap()
        .filter_map(|fd| Some(std::fs::read_link(fd.ok()?.path()).ok()?.display().to_string()))
        .collect();
    let mut ports = tcp.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = fields[3] == "0A" && inodes.contains(&format!("socket:[{}]", fields[9]));
        let port = u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok()?;
        (listens && port.to_string() != ops).then_some(port)
    });
    ports.next().expect("the echo server listens")
}

/// Head and body of a page; of a request without a field `Accept` if that is empty.
fn get(port: &str, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let accept = if accept.is_empty() { "" } else { &format!("Accept: {accept}\r\n") };
    write!(stream, "GET {path} HTTP/1.0\r\n{accept}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {name}: {why}\n");
    let _ = Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
}

/// Puts some load on the server, so that there is something to be read.
fn load(addr: &str) {
    let load = ["load", "echo", "--addr", addr, "--connections", "4", "--quiet"];
    let ended = run(&[&load[..], &["--duration", "300ms", "--warmup", "0"]].concat());
    assert!(matches!(ended.code, Some(0 | 3)), "{ended:?}");
}

/// Reads OpenMetrics from standard input with Prometheus's reference parser, and prints what it found.
const PARSER: &str = r#"
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
found = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    found[family.name] = [family.type, family.unit, len(family.samples)]
print(json.dumps(found))
"#;

/// A Python that has the parser.
fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    with_module("prometheus_client.openmetrics.parser", "prometheus-client==0.26.0", folder)
}

/// What `promtool check metrics` says; none if there is no promtool.
fn promtool(text: &str) -> Option<(bool, String)> {
    python::run(Path::new("promtool"), &["check", "metrics"], text)
}

#[test]
fn metrics_are_read_by_the_reference_parser() {
    if !io_uring_works() {
        return;
    }
    let Some(python) = python() else {
        return skipped("no python3 with prometheus-client, and it can't be installed");
    };
    let (_server, addr, ops) = serve();
    load(&addr);
    let (head, body) = get(&ops, "/metrics", "application/openmetrics-text;version=1.0.0");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    let (well, text) = python::run(&python, &["-c", PARSER], &body).unwrap();
    assert!(well, "{text}");
    let found: BTreeMap<String, (String, String, usize)> = serde_json::from_str(&text).unwrap();
    let of = |name: &str| found.get(name).unwrap_or_else(|| panic!("{name} in {text}")).clone();
    let cores = of("coreloop_core_up").2;
    assert!(cores >= 1);
    let counter = ("counter".to_owned(), String::new(), cores);
    assert_eq!(of("coreloop_polls"), counter);
    assert_eq!(of("coreloop_park_seconds"), ("counter".into(), "seconds".into(), cores));
    assert_eq!(of("coreloop_tasks_bytes"), ("gauge".into(), "bytes".into(), cores));
    let (kind, unit, samples) = of("coreloop_poll_duration_seconds");
    assert_eq!((kind.as_str(), unit.as_str()), ("histogram", "seconds"));
    assert_eq!(samples, cores * (28 + 2), "buckets, count and sum of each core");
    assert!(found.len() > 50, "{}", found.len());
    // And the parser refuses what is wrong: this test can fail.
    let broken = body.replace("# EOF\n", "");
    assert!(!python::run(&python, &["-c", PARSER], &broken).unwrap().0);
}

#[test]
fn metrics_please_promtool() {
    if !io_uring_works() {
        return;
    }
    let (_server, addr, ops) = serve();
    load(&addr);
    // Of who says nothing of formats, as `curl … | promtool check metrics`.
    let (head, body) = get(&ops, "/metrics", "");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let Some((well, text)) = promtool(&body) else {
        return skipped("no promtool: it comes with Debian's package prometheus");
    };
    assert!(well, "{text}");
    assert_eq!(text.trim(), "", "nothing to complain of");
    let broken =
        body.replace("coreloop_polls_total{core=\"0\"}", "coreloop_polls_total{core=\"0\"");
    assert!(!promtool(&broken).unwrap().0);
}

/// A Prometheus that does not outlive its test.
struct Prometheus(Child, PathBuf);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

#[test]
fn a_prometheus_server_scrapes_and_answers_queries() {
    if !io_uring_works() {
        return;
    }
    let (_server, addr, ops) = serve();
    let folder = scratch("prometheus");
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 200ms }}\n\
         scrape_configs: [{{ job_name: coreloop, static_configs: [{{ targets: ['127.0.0.1:{ops}'] }}] }}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let started = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    let Ok(started) = started else {
        let _ = std::fs::remove_dir_all(&folder);
        return skipped("no prometheus: Debian has a package of that name");
    };
    let mut prometheus = Prometheus(started, folder.clone());
    load(&addr);
    let said = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    let queries = [
        ("coreloop_core_up", "1"),
        ("coreloop_build_info", "1"),
        ("sum(coreloop_accepts_total)%3E%3Dbool%204", "1"),
        (
            "histogram_quantile(0.99,sum%20by(le)(coreloop_poll_duration_seconds_bucket))%3Ebool%200",
            "1",
        ),
    ];
    let until = Instant::now() + PATIENCE;
    for (query, expected) in queries {
        loop {
            assert!(prometheus.0.try_wait().unwrap().is_none(), "it has ended: {}", said());
            let answer = try_get(&port, &format!("/api/v1/query?query={query}"));
            let json: serde_json::Value =
                answer.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default();
            if json["data"]["result"][0]["value"][1] == expected {
                break;
            }
            assert!(Instant::now() < until, "{query}: {json}: {}", said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    let targets = try_get(&port, "/api/v1/targets").unwrap();
    let targets: serde_json::Value = serde_json::from_str(&targets).unwrap();
    let target = &targets["data"]["activeTargets"][0];
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()), "{target}");
}

/// The body, if there is an answer of success.
fn try_get(port: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1)?.starts_with("200").then(|| body.to_owned())
}
