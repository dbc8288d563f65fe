//! A mix of everything over many seeds: echoes through other cores, limits, dropped reads and writes, moved and
//! broken-off connections, all of it checked byte by byte.
//!
//! `CORELOOP_SEEDS=10m cargo test -p coreloop-tests --test sim_mix` runs as many seeds as that time allows.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use coreloop::Core;
use coreloop::combine::{Either, race};
use coreloop::sim::Sim;
use coreloop::spawn;
use coreloop::time::{sleep, timeout};
use coreloop_net::{TcpListener, TcpStream};

const PORT: u16 = 7000;

/// Echoes every connection; some move to another core first.
async fn serve(core: Core, sim: Sim) -> io::Result<()> {
    let mut listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    loop {
        let stream = listener.accept().await?;
        let other = (core.index() + 1) % core.count();
        if !sim.random().is_multiple_of(3) {
            drop(spawn(echo(stream, core.clone(), other)));
            continue;
        }
        let own = core.clone();
        drop(spawn(async move {
            let Ok(moved) = stream.detach().await else { return };
            let home = own.index();
            let handle = own.handle().clone();
            // The future never leaves its core, what it needs does.
            let run = move || async move { echo(moved.attach(), own, home).await };
            if let Ok(running) = handle.spawn_on(other, run) {
                drop(running.await);
            }
        }));
    }
}

/// Sends back what comes, by way of core `other`.
async fn echo(mut stream: TcpStream, core: Core, other: usize) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        let bytes = chunk.to_vec();
        drop(chunk);
        let there = core.handle().spawn_on(other, move || async move { bytes });
        // The host is stopped when the clients have ended, one core before the other.
        let Ok(there) = there.map_err(io::Error::other)?.await else { return Ok(()) };
        stream.write_all(there).await?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// A connection with what was sent on it and has not come back.
struct Line {
    stream: TcpStream,
    under_way: VecDeque<u8>,
    next: u8,
}

impl Line {
    async fn new(server: IpAddr) -> Self {
        loop {
            match TcpStream::connect((server, PORT)).await {
                Ok(stream) => return Self { stream, under_way: VecDeque::new(), next: 0 },
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    fn fresh(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for byte in &mut bytes {
            *byte = self.next;
            self.next = self.next.wrapping_mul(5).wrapping_add(1);
        }
        bytes
    }

    async fn send(&mut self, len: usize) {
        let bytes = self.fresh(len);
        self.under_way.extend(&bytes);
        self.stream.write_all(bytes).await.unwrap();
    }

    fn took(&mut self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(Some(*byte), self.under_way.pop_front(), "a byte that was not next");
        }
    }

    /// Receives until all that was sent has come back.
    async fn catch_up(&mut self) {
        while !self.under_way.is_empty() {
            let chunk = self.stream.recv().await.unwrap().expect("the server goes on");
            let bytes = chunk.to_vec();
            self.took(&bytes);
        }
    }

    /// Sends more than all buffers between the two hold, and receives it meanwhile.
    async fn send_through(mut self, len: usize) -> Self {
        self.catch_up().await;
        let bytes = self.fresh(len);
        let Self { stream, under_way, next } = self;
        let (mut read, mut write) = stream.split();
        let sent = bytes.clone();
        let sender = spawn(async move {
            write.write_all(sent).await.unwrap();
            write
        });
        let (n, came) = read.read_exact(vec![0; len]).await.unwrap();
        assert_eq!((n, came), (len, bytes));
        let stream = TcpStream::reunite(read, sender.await.unwrap()).unwrap();
        Self { stream, under_way, next }
    }

    /// Receives for a while, with a chunk or with a buffer of its own; nothing is lost by stopping.
    async fn receive_for(&mut self, limit: Duration, len: usize) {
        let bytes = if len == 0 {
            match timeout(limit, self.stream.recv()).await {
                Ok(chunk) => chunk.unwrap().map(|c| c.to_vec()).unwrap_or_default(),
                Err(_) => return,
            }
        } else {
            match race(self.stream.read(vec![0; len]), sleep(limit)).await {
                Either::First(read) => {
                    let (n, buf) = read.unwrap();
                    buf[..n].to_vec()
                }
                Either::Second(()) => return,
            }
        };
        self.took(&bytes);
    }

    /// Sends, gives up half way, and ends the stream: an exact prefix comes back.
    async fn give_up(mut self, len: usize, limit: Duration) {
        let bytes = self.fresh(len);
        let whole = timeout(limit, self.stream.write_all(bytes.clone())).await.is_ok();
        let before = self.under_way.len();
        self.under_way.extend(&bytes);
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let all = self.under_way.len();
        while let Some(chunk) = self.stream.recv().await.unwrap() {
            let bytes = chunk.to_vec();
            self.took(&bytes);
        }
        let came = all - self.under_way.len();
        assert!(came >= before, "{came} of {before} bytes that were sent whole came back");
        assert!(!whole || came == all, "{came} of {all} bytes came back");
    }
}

/// One client: so many things in any order.
async fn client(sim: Sim, server: IpAddr) {
    let mut line = Line::new(server).await;
    let below = |n: u64| sim.random() % n;
    for _ in 0..12 {
        let (few, many) = ([1, 100, 700][below(3) as usize], 1 + below(6_000) as usize);
        let limit = Duration::from_micros(below(3_000));
        match below(8) {
            0 | 1 => line.send(few).await,
            2 => line = line.send_through(many).await,
            3 => line.receive_for(limit, 0).await,
            4 => line.receive_for(limit, few).await,
            5 => sleep(limit).await,
            6 => {
                line.catch_up().await;
                let old = std::mem::replace(&mut line, Line::new(server).await);
                old.give_up(many, limit).await;
            }
            _ => {
                // Broken off, with whatever is under way.
                line = Line::new(server).await;
            }
        }
        // The server stops reading when nobody takes its answers: no more than all buffers hold.
        if line.under_way.len() > 700 {
            line.catch_up().await;
        }
    }
    line.catch_up().await;
    line.give_up(1, Duration::MAX).await;
}

#[test]
fn sim_mix_every_byte_and_descriptor_is_accounted_for() {
    coreloop::sim::check(40, |sim| {
        let own = sim.clone();
        let server = sim.host("server", 2, move |core| serve(core, own.clone()));
        for name in ["a", "b"] {
            let own = sim.clone();
            sim.client(name, move || client(own, server));
        }
    });
}
