//! `raw-load`: a closed-loop generator for echo servers, one thread on its own core.
//!
//! Every connection keeps `depth` requests outstanding. Whatever responses one receive completes
//! are followed by as many requests in one contiguous send, one send per connection at a time.
//! The clock is read once per turn, before the completions are handled: a request's time begins
//! with the turn that queues it and ends with the turn that sees its last byte. Being a closed
//! loop it can't see what an open one would: a stalled server also stalls the questions.
//!
//! Payloads are not looked at (the tests compare bytes): all receives share one buffer. With
//! `--server-pid` the server's CPU time is read from the scheduler's own counter at both ends of
//! the measured window.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use io_uring::squeue::Entry;
use io_uring::{EnterFlags, IoUring, opcode, types};
use raw_peers::memory::Region;
use raw_peers::net;
use raw_peers::ring::{kind, user_data};
use socket2::Socket;

const RECV_POLL_FIRST: u16 = 1;
const RECV_SIZE: u32 = 64 << 10;
const RING_ENTRIES: u32 = 4096;

#[derive(Parser)]
#[command(version, about = "Closed-loop load generator for echo servers")]
struct Options {
    #[arg(long, default_value = "127.0.0.1:7001")]
    addr: SocketAddr,
    /// The core that the only thread is pinned to.
    #[arg(long, default_value_t = 1)]
    core: usize,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=16384))]
    connections: u32,
    /// Bytes of a request, and of its response.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Requests outstanding per connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// The measured window.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Before the measured window.
    #[arg(long, default_value_t = 0.3)]
    warmup: f64,
    #[arg(long, default_value = "reno")]
    congestion: String,
    /// Reports this process's CPU time over the window too.
    #[arg(long)]
    server_pid: Option<u32>,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    net::pin(options.core)?;
    let sockets = (0..options.connections)
        .map(|_| net::connect(options.addr, &options.congestion))
        .collect::<io::Result<Vec<_>>>()?;
    let mut load = Load::new(&options, sockets)?;
    load.run(options.seconds, options.warmup)
}

struct Connection {
    /// Bytes of the response that is coming in.
    partial: u32,
    /// Requests to send when the send in flight is over.
    due: u32,
    /// Bytes of the send in flight.
    sending: u32,
    /// When the outstanding requests were queued, in nanoseconds since the start.
    queued_at: VecDeque<u64>,
}

struct Load<'a> {
    options: &'a Options,
    ring: IoUring,
    sockets: Vec<Socket>,
    connections: Vec<Connection>,
    received: Region,
    payload: Region,
    latencies: Histogram<u64>,
    responses: u64,
    /// Of the current turn.
    now_ns: u64,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options, sockets: Vec<Socket>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(4 * RING_ENTRIES)
            .build(RING_ENTRIES)?;
        let depth = options.depth as usize;
        let connections = sockets.iter().map(|_| Connection {
            partial: 0,
            due: options.depth,
            sending: 0,
            queued_at: VecDeque::with_capacity(depth),
        });
        Ok(Self {
            options,
            connections: connections.collect(),
            ring,
            sockets,
            received: Region::new(RECV_SIZE as usize, false)?,
            payload: Region::new(options.size as usize * depth, false)?,
            latencies: Histogram::new_with_bounds(1, 60_000_000_000, 3)
                .map_err(io::Error::other)?,
            responses: 0,
            now_ns: 0,
        })
    }

    fn run(&mut self, seconds: f64, warmup: f64) -> io::Result<()> {
        let start = Instant::now();
        for slot in 0..self.connections.len() {
            self.send_due(slot);
            self.receive(slot);
        }
        self.turns_until(start, start + Duration::from_secs_f64(warmup))?;
        self.responses = 0;
        self.latencies.reset();
        let server_cpu_before = self.server_cpu_ns()?;
        let window = Instant::now();
        self.turns_until(start, window + Duration::from_secs_f64(seconds))?;
        let elapsed = window.elapsed().as_secs_f64();
        let server_cpu = self.server_cpu_ns()?.zip(server_cpu_before).map(|(b, a)| b - a);
        self.print(elapsed, server_cpu);
        Ok(())
    }

    fn turns_until(&mut self, start: Instant, end: Instant) -> io::Result<()> {
        loop {
            let submitter = self.ring.submitter();
            let count = {
                // SAFETY: no other view of the submission queue is alive.
                let sq = unsafe { self.ring.submission_shared() };
                sq.len() as u32
            };
            // SAFETY: no argument is passed.
            let entered = unsafe {
                submitter.enter::<libc::sigset_t>(count, 1, EnterFlags::GETEVENTS.bits(), None)
            };
            match entered {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.now_ns = now.duration_since(start).as_nanos() as u64;
            loop {
                let Some(completion) = self.ring.completion().next() else { break };
                let (data, result) = (completion.user_data(), completion.result());
                if result <= 0 {
                    let error = io::Error::from_raw_os_error(-result);
                    return Err(io::Error::other(format!("connection lost: {error}")));
                }
                let slot = data as u32 as usize;
                if (data >> 32) as u32 == kind::RECV {
                    self.on_received(slot, result as u32);
                } else {
                    self.on_sent(slot, result as u32);
                }
            }
        }
    }

    fn on_received(&mut self, slot: usize, count: u32) {
        let connection = &mut self.connections[slot];
        let bytes = connection.partial + count;
        connection.partial = bytes % self.options.size;
        let responses = bytes / self.options.size;
        for _ in 0..responses {
            let queued_at = connection.queued_at.pop_front().expect("a response has its request");
            self.latencies.saturating_record(self.now_ns - queued_at);
        }
        self.responses += u64::from(responses);
        connection.due += responses;
        if connection.sending == 0 && connection.due > 0 {
            self.send_due(slot);
        }
        self.receive(slot);
    }

    fn on_sent(&mut self, slot: usize, count: u32) {
        let connection = &mut self.connections[slot];
        connection.sending -= count;
        if connection.sending > 0 {
            self.send(slot);
        } else if connection.due > 0 {
            self.send_due(slot);
        }
    }

    fn send_due(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        for _ in 0..connection.due {
            connection.queued_at.push_back(self.now_ns);
        }
        connection.sending = connection.due * self.options.size;
        connection.due = 0;
        self.send(slot);
    }

    fn send(&mut self, slot: usize) {
        let fd = types::Fd(self.sockets[slot].as_raw_fd());
        let length = self.connections[slot].sending;
        let entry = opcode::Send::new(fd, self.payload.start().as_ptr(), length).build();
        self.push(entry.user_data(user_data(kind::SEND, slot as u32)));
    }

    fn receive(&mut self, slot: usize) {
        let fd = types::Fd(self.sockets[slot].as_raw_fd());
        // The response to what was only just queued can't be there yet.
        let entry = opcode::Recv::new(fd, self.received.start().as_ptr(), RECV_SIZE)
            .ioprio(RECV_POLL_FIRST)
            .build();
        self.push(entry.user_data(user_data(kind::RECV, slot as u32)));
    }

    fn push(&mut self, entry: Entry) {
        // SAFETY: both regions are never unmapped and never looked at; `depth` requests fit into
        // the payload, and no more than that can be due.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit().expect("the ring takes submissions");
        }
    }

    /// The first number of `schedstat`, over all threads: nanoseconds on a core.
    fn server_cpu_ns(&self) -> io::Result<Option<u64>> {
        let Some(pid) = self.options.server_pid else { return Ok(None) };
        let mut total_ns = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            total_ns += first.ok_or_else(|| io::Error::other("schedstat without a number"))?;
        }
        Ok(Some(total_ns))
    }

    fn print(&self, elapsed: f64, server_cpu: Option<u64>) {
        let Options { connections, size, depth, .. } = self.options;
        let responses = self.responses;
        let per_second = responses as f64 / elapsed;
        let quantile_us = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let (p50, p99) = (quantile_us(0.5), quantile_us(0.99));
        let server = server_cpu.map_or(String::new(), |cpu_ns| {
            let per_request = cpu_ns as f64 / responses.max(1) as f64;
            let busy = cpu_ns as f64 / 1e9 / elapsed;
            format!(
                ",\"server_cpu_ns\":{cpu_ns},\"server_ns_per_request\":{per_request:.1},\
                 \"server_busy\":{busy:.3}"
            )
        });
        println!(
            "{{\"connections\":{connections},\"size\":{size},\"depth\":{depth},\
             \"seconds\":{elapsed:.3},\"requests\":{responses},\
             \"requests_per_s\":{per_second:.0},\"p50_us\":{p50:.1},\"p99_us\":{p99:.1}{server}}}"
        );
    }
}
