//! Every server, as a process, against checking clients: each byte comes back, in order, once.
//!
//! The bytes of a connection are a fixed function of its seed and their position, so a reader can
//! check them without knowing how they were cut. Every wait is bounded by the socket timeout, and
//! a server ends by itself after a minute whatever happens to the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

const SOCKET_TIMEOUT: Duration = Duration::from_secs(20);

/// Every server, and every way of holding files and buffers.
const SERVERS: [&[&str]; 6] = [
    &["raw", "--form", "select"],
    &["raw", "--form", "own", "--stride-pad", "192"],
    &["raw", "--form", "multishot"],
    &["raw", "--form", "select", "--direct", "--huge", "--stride-pad", "192", "--no-iowait"],
    &["raw", "--form", "multishot", "--direct"],
    &["epoll"],
];

/// So few and small that connections run out of them all the time.
const SCARCE: [&str; 4] = ["--buffers", "3", "--buffer-size", "777"];

#[test]
fn random_chunks_come_back_in_order() {
    for arguments in SERVERS {
        let shared_buffers = arguments.contains(&"select") || arguments.contains(&"multishot");
        for scarce in [false, true] {
            let server = Server::start(arguments, scarce);
            on_connections(9, |index| {
                let stream = server.connect();
                let sizes = Random(index + 1);
                exchange(&stream, index, 1 << 20, sizes.map(|word| 1 + word % 20_000));
                0
            });
            let report = server.stop();
            assert_eq!(field(&report, "requests_bytes"), 9 << 20, "{report}");
            if scarce && shared_buffers {
                assert!(field(&report, "enobufs") > 0, "{report}");
            }
        }
    }
}

#[test]
fn sixteen_requests_in_flight() {
    for server in SERVERS {
        for size in [64_usize, 16 << 10] {
            let server = Server::start(server, false);
            on_connections(8, |index| {
                let mut stream = server.connect();
                let request = bytes(index, 0, size);
                let mut response = vec![0; size];
                (0..16).for_each(|_| stream.write_all(&request).unwrap());
                for round in 0..300 {
                    stream.read_exact(&mut response).unwrap();
                    assert!(response == request, "connection {index}, response {round}");
                    stream.write_all(&request).unwrap();
                }
                0
            });
        }
    }
}

#[test]
fn slow_reader_gets_everything() {
    for server in SERVERS {
        let server = Server::start(server, false);
        let stream = server.connect_with_small_window();
        let length = 6 << 20;
        thread::scope(|scope| {
            scope.spawn(|| write(&stream, 7, length, std::iter::repeat(64 << 10)));
            thread::sleep(Duration::from_millis(300));
            check(&stream, 7, length);
        });
    }
}

/// A waiter that is admitted and has nothing to receive must not keep others from buffers that
/// are free, nor may idle connections hold buffers.
#[test]
fn idle_connections_keep_nobody_waiting() {
    for server in SERVERS {
        let server = Server::start(server, true);
        let idle: Vec<_> = (0..50).map(|_| server.connect()).collect();
        on_connections(20, |index| {
            exchange(&server.connect(), index, 64 << 10, std::iter::repeat(5000));
            0
        });
        for (index, stream) in idle.iter().enumerate().rev() {
            exchange(stream, index as u64, 3000, std::iter::repeat(3000));
        }
    }
}

#[test]
fn resets_leave_no_descriptor_and_no_buffer() {
    for server in SERVERS {
        for scarce in [false, true] {
            let server = Server::start(server, scarce);
            // Once it has answered, it has everything open that it keeps open.
            exchange(&server.connect(), 1, 1000, std::iter::repeat(100));
            let before = server.descriptors();
            for round in 0..10 {
                on_connections(10, |index| {
                    let mut stream = server.connect();
                    stream.write_all(&bytes(round, 0, 30_000 + 1000 * index as usize)).unwrap();
                    let socket = Socket::from(stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                    0
                });
            }
            on_connections(5, |index| {
                exchange(&server.connect(), index, 100_000, std::iter::repeat(10_000));
                0
            });
            let deadline = Instant::now() + SOCKET_TIMEOUT;
            while server.descriptors() != before {
                assert!(Instant::now() < deadline, "{} of {before}", server.descriptors());
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Beyond the limit connections are closed, or stay in line until others have gone.
#[test]
fn too_many_connections_harm_nobody() {
    for server in SERVERS {
        let arguments: Vec<_> = server.iter().copied().chain(["--max-connections", "12"]).collect();
        let server = Server::start(&arguments, false);
        let answered = on_connections(30, |_| {
            let mut stream = server.connect();
            let mut response = [0; 4];
            let answered =
                stream.write_all(b"echo").and_then(|()| stream.read_exact(&mut response));
            // Nobody leaves before all have asked.
            thread::sleep(Duration::from_millis(300));
            u32::from(answered.is_ok())
        });
        assert!(answered > 0, "{arguments:?}");
        if !arguments.contains(&"--direct") {
            assert!(answered <= 12, "{arguments:?}: {answered}");
        }
        exchange(&server.connect(), 1, 1000, std::iter::repeat(100));
    }
}

#[test]
fn a_report_on_request_and_one_at_the_end() {
    for server in SERVERS {
        let mut server = Server::start(server, false);
        exchange(&server.connect(), 3, 5000, std::iter::repeat(5000));
        server.signal(libc::SIGUSR1);
        let report = server.read_report();
        assert_eq!(field(&report, "requests_bytes"), 5000, "{report}");
        assert!(field(&report, "cpu_ns") > 0 && field(&report, "enters") > 0, "{report}");
        exchange(&server.connect(), 4, 700, std::iter::repeat(70));
        assert_eq!(field(&server.stop(), "requests_bytes"), 5700);
    }
}

struct Server {
    child: Child,
    addr: SocketAddr,
    reports: BufReader<std::process::ChildStdout>,
}

impl Server {
    fn start(arguments: &[&str], scarce: bool) -> Self {
        let ring = arguments[0] == "raw";
        let binary =
            if ring { env!("CARGO_BIN_EXE_raw-echo") } else { env!("CARGO_BIN_EXE_epoll-echo") };
        let scarce = if scarce { &SCARCE[if ring { 0 } else { 2 }..] } else { &[] };
        let mut child = Command::new(binary)
            .args(["--addr", "127.0.0.1:0", "--seconds", "60"])
            .args(&arguments[1..])
            .args(scarce)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().rsplit(' ').next().unwrap().parse().expect(&line);
        let reports = BufReader::new(child.stdout.take().unwrap());
        Self { child, addr, reports }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOCKET_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(SOCKET_TIMEOUT)).unwrap();
        stream
    }

    fn connect_with_small_window(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(8192).unwrap();
        socket.connect(&self.addr.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOCKET_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(SOCKET_TIMEOUT)).unwrap();
        stream
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child is not yet waited for, so the number is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    fn read_report(&mut self) -> String {
        let mut line = String::new();
        self.reports.read_line(&mut line).unwrap();
        line
    }

    fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        let report = self.read_report();
        assert!(self.child.wait().unwrap().success());
        report
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a client per connection, each with its index, and adds up what they return.
fn on_connections(count: u64, client: impl Fn(u64) -> u32 + Sync) -> u32 {
    let client = &client;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..count).map(|index| scope.spawn(move || client(index))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

/// Writes and checks at once, ends the stream, and expects the other side to end it too.
fn exchange(stream: &TcpStream, seed: u64, length: usize, sizes: impl Iterator<Item = u64> + Send) {
    thread::scope(|scope| {
        scope.spawn(move || write(stream, seed, length, sizes));
        check(stream, seed, length);
    });
}

fn write(mut stream: &TcpStream, seed: u64, length: usize, sizes: impl Iterator<Item = u64>) {
    let mut position = 0;
    for size in sizes {
        let size = (size as usize).min(length - position);
        stream.write_all(&bytes(seed, position, size)).unwrap();
        position += size;
        if position == length {
            break;
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn check(mut stream: &TcpStream, seed: u64, length: usize) {
    let mut position = 0;
    let mut buffer = vec![0; 8192];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        let expected = bytes(seed, position, count);
        assert!(buffer[..count] == expected, "seed {seed}, within {count} bytes at {position}");
        position += count;
    }
    assert_eq!(position, length, "seed {seed}");
}

fn bytes(seed: u64, position: usize, length: usize) -> Vec<u8> {
    let byte = |at: usize| {
        let mixed = (at as u64 ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    };
    (position..position + length).map(byte).collect()
}

fn field(report: &str, name: &str) -> u64 {
    let (_, rest) = report.split_once(&format!("\"{name}\":")).expect(report);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect(report)
}

/// Xorshift: a fixed sequence per seed.
struct Random(u64);

impl Iterator for Random {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some(self.0)
    }
}
