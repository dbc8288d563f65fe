//! What the tests of every peer's binary check, given the binary's path: its servers echo any
//! stream, and its workloads print figures.
//!
//! The bytes of a connection are a fixed function of its seed and their position, so that a reader
//! can check them without knowing how they were cut. Every wait is bounded.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::measure::Random;
use crate::work;

const SOCKET_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections at once.
const CONNECTIONS: u64 = 7;

/// Bytes of each.
const STREAM_BYTES: usize = 512 << 10;

/// `describe` says what is so: the version is the lock file's, names are the protocol's, nothing
/// is both done and unsupported, and each workload is one or the other.
pub fn describes_itself(binary: &str, runtime: &str, lock_file: &str) {
    let description = describe(binary);
    assert_eq!(description["runtime"], runtime);
    let version = description["version"].as_str().expect("a version");
    let locked = format!("name = \"{runtime}\"\nversion = \"{version}\"\n");
    assert!(lock_file.contains(&locked), "{runtime} {version} isn't what is built");
    let done = strings(&description["workloads"]);
    assert!(done.contains(&"echo".to_owned()));
    for name in work::NAMES {
        let refused = description["unsupported"][name].is_string();
        assert!(refused != done.iter().any(|d| d == name), "{name}: {description}");
    }
    let variants = strings(&description["variants"]);
    assert!(!variants.is_empty());
    assert!(strings(&description["spins"]).iter().all(|spins| variants.contains(spins)));
}

/// Each variant's server, with small and large buffers: several connections at once, chunks of any
/// size, more in flight than a buffer holds; and clients that reset theirs harm nobody.
pub fn echoes_bytes(binary: &str) {
    echoes(binary, Ends::WhenSent);
}

/// The same for a runtime that drops what it has not answered when a client ends its stream: each
/// client first waits for all answers. Who calls this says why.
pub fn echoes_bytes_of_open_streams(binary: &str) {
    echoes(binary, Ends::WhenAnswered);
}

/// When a client ends its stream.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    WhenSent,
    WhenAnswered,
}

fn echoes(binary: &str, ends: Ends) {
    for variant in strings(&describe(binary)["variants"]) {
        for size in ["64", "16384"] {
            let server = Server::start(binary, &variant, size);
            for _ in 0..3 {
                server.reset_one();
            }
            thread::scope(|scope| {
                for seed in 0..CONNECTIONS {
                    let server = &server;
                    scope.spawn(move || exchange(&server.connect(), seed, ends));
                }
            });
            server.reset_one();
            exchange(&server.connect(), 99, ends);
        }
    }
}

/// Each workload of each variant, small: exit code 0, one line, as many rounds as were asked for,
/// and the figures that the protocol names. What is unsupported ends with code 3 and a reason.
pub fn works(binary: &str) {
    let description = describe(binary);
    for variant in strings(&description["variants"]) {
        for name in work::NAMES {
            let second_core = if cores() > 1 { "1" } else { "0" };
            let output = Command::new(binary)
                .args(["work", name, "--variant", &variant, "--core", "0"])
                .args(["--second-core", second_core, "--count", "2000", "--rounds", "2"])
                .output()
                .expect("the binary runs");
            let case = format!("{variant} {name}: {}", String::from_utf8_lossy(&output.stderr));
            if description["unsupported"][name].is_string() {
                assert_eq!(output.status.code(), Some(3), "{case}");
                assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{case}");
                continue;
            }
            assert_eq!(output.status.code(), Some(0), "{case}");
            let text = String::from_utf8(output.stdout).expect("text");
            assert_eq!(text.lines().count(), 1, "{case}\n{text}");
            let report: Value = serde_json::from_str(&text).expect(&case);
            assert_eq!(report["workload"], name, "{case}");
            assert_eq!(report["variant"], variant.as_str(), "{case}");
            let rounds = report["rounds"].as_array().expect(&case);
            assert_eq!(rounds.len(), 2, "{case}");
            for round in rounds {
                for figure in figures_of(name) {
                    let value = round[figure].as_f64().unwrap_or_else(|| panic!("{case} {round}"));
                    assert!(value.is_finite(), "{case} {round}");
                    // Counts of mistakes, page counts and sleeps in time may be zero.
                    let positive = figure.contains("ns") || *figure == "m_per_s";
                    assert!(value > 0.0 || !positive, "{case} {round}");
                }
                if name == "sleeps" {
                    assert_eq!(round["early"], 0.0, "{case} {round}");
                }
            }
        }
    }
}

/// The figures that a workload's rounds have, by the protocol.
fn figures_of(name: &str) -> &'static [&'static str] {
    match name {
        "spawn-batch" | "spawn-each" | "spawn-eager" => &["ns_per_task"],
        "yield" => &["ns_per_yield"],
        "timers-ordered" | "timers-random" => &["insert_ns", "cancel_ns"],
        "sleeps" => &["late_p50_us", "late_p99_us", "late_max_us", "cpu_ms", "early"],
        "idle-tasks" => &["bytes_per_task", "heap_bytes_per_task", "future_bytes"],
        "cross-round-trip" => &["trips", "p50_ns", "p99_ns", "mean_ns"],
        "cross-one-way" => &["m_per_s"],
        other => panic!("no workload {other}"),
    }
}

fn describe(binary: &str) -> Value {
    let output = Command::new(binary).arg("describe").output().expect("the binary runs");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn strings(array: &Value) -> Vec<String> {
    let array = array.as_array().expect("an array");
    array.iter().map(|value| value.as_str().expect("a string").to_owned()).collect()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(binary: &str, variant: &str, size: &str) -> Self {
        let mut child = Command::new(binary)
            .args(["echo", "--variant", variant, "--addr", "127.0.0.1:0", "--core", "0"])
            .args(["--size", size])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        stderr.read_line(&mut line).expect("a line");
        // What a runtime says later is no reason to block it.
        thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::stderr()));
        let addr = line.trim().strip_prefix("listening on ").expect(&line).parse().expect(&line);
        Self { child, addr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("it listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(SOCKET_TIMEOUT)).expect("not zero");
        stream.set_write_timeout(Some(SOCKET_TIMEOUT)).expect("not zero");
        stream
    }

    /// A client that sends and goes away with the answer unread.
    fn reset_one(&self) {
        let mut stream = self.connect();
        stream.write_all(&bytes(1, 0, 10_000)).expect("it listens");
        let socket = socket2::Socket::from(stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes and checks at once, ends the stream, and expects the other side to end it too.
fn exchange(stream: &TcpStream, seed: u64, ends: Ends) {
    thread::scope(|scope| {
        scope.spawn(move || write(stream, seed, ends));
        check(stream, seed, ends);
    });
}

fn write(mut stream: &TcpStream, seed: u64, ends: Ends) {
    let mut sizes = Random::new(seed);
    let mut position = 0;
    while position < STREAM_BYTES {
        let size_max = if sizes.between(0, 2) == 0 { 200 } else { 40_000 };
        let size = (sizes.between(1, size_max) as usize).min(STREAM_BYTES - position);
        stream.write_all(&bytes(seed, position, size)).expect("the server reads");
        position += size;
    }
    if ends == Ends::WhenSent {
        stream.shutdown(Shutdown::Write).expect("it is open");
    }
}

fn check(mut stream: &TcpStream, seed: u64, ends: Ends) {
    let mut position = 0;
    let mut buffer = vec![0; 8192];
    loop {
        let count = stream.read(&mut buffer).expect("the server answers");
        if count == 0 {
            break;
        }
        let expected = bytes(seed, position, count);
        assert!(buffer[..count] == expected, "seed {seed}, within {count} bytes at {position}");
        position += count;
        if position == STREAM_BYTES && ends == Ends::WhenAnswered {
            stream.shutdown(Shutdown::Write).expect("it is open");
        }
    }
    assert_eq!(position, STREAM_BYTES, "seed {seed}");
}

fn bytes(seed: u64, position: usize, length: usize) -> Vec<u8> {
    let byte = |at: usize| {
        let mixed = (at as u64 ^ (seed << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    };
    (position..position + length).map(byte).collect()
}
