//! A TCP proxy that does what networks do, from a seed.
//!
//! Owns [`Proxy`]: threads with blocking sockets, nothing of coreloop's. Each connection through it is split
//! into pieces, delayed, held up, and, by its [`Faults`], cut off by a reset or ended on one side. What it
//! passes on is always an exact prefix of what came: a proxy may cut a stream, never change it. Bounds:
//! connections are 256 at a time, a pause is at most [`PAUSE_MAX`], a buffer 16 KiB.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::drive::Rng;
use crate::net::PATIENCE;

/// Longest pause between two pieces.
pub const PAUSE_MAX: Duration = Duration::from_millis(3);

const CONNECTIONS_MAX: usize = 256;

/// How often things go wrong, in thousandths of pieces passed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A pause before the piece.
    pub pauses: u64,
    /// The connection is cut by a reset, both sides.
    pub resets: u64,
    /// This direction ends here: its reader sees an end, the other direction goes on.
    pub half_closes: u64,
    /// The connection is closed in order, both sides, with bytes on their way.
    pub closes: u64,
}

impl Faults {
    /// Pieces and pauses alone: every byte arrives.
    pub fn slow() -> Self {
        Self { pauses: 120, ..Self::default() }
    }

    /// All of them, so that a connection of some hundred pieces seldom gets through.
    pub fn rough() -> Self {
        Self { pauses: 60, resets: 8, half_closes: 8, closes: 8 }
    }
}

/// What a proxy has done.
#[derive(Debug, Default)]
pub struct Done {
    /// Connections made.
    pub connections: AtomicUsize,
    /// Pieces passed on.
    pub pieces: AtomicUsize,
    /// Connections reset.
    pub resets: AtomicUsize,
    /// Directions ended before their time.
    pub half_closes: AtomicUsize,
    /// Connections closed before their time.
    pub closes: AtomicUsize,
}

/// How long a connect may take: of one to whom nobody listens, the system would go on for minutes.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// A listening proxy; it ends, with its threads and connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    done: Arc<Done>,
    stop: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on loopback and passes on to `to`.
    ///
    /// # Panics
    /// Without loopback.
    pub fn to(to: SocketAddr, faults: Faults, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let addr = listener.local_addr().expect("it is bound");
        let (done, stop) = (Arc::<Done>::default(), Arc::<AtomicBool>::default());
        let (tell, ended) = (done.clone(), stop.clone());
        let listening = thread::spawn(move || accept(&listener, to, faults, seed, &tell, &ended));
        Self { addr, done, stop, listening: Some(listening) }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has done so far.
    pub fn done(&self) -> &Done {
        &self.done
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // It waits for one more connection: this.
        drop(TcpStream::connect_timeout(&self.addr, CONNECT_PATIENCE));
        if let Some(listening) = self.listening.take()
            && let Err(payload) = listening.join()
            && !thread::panicking()
        {
            std::panic::resume_unwind(payload);
        }
    }
}

fn accept(
    listener: &TcpListener,
    to: SocketAddr,
    faults: Faults,
    seed: u64,
    done: &Arc<Done>,
    stop: &AtomicBool,
) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    let mut open: Vec<(TcpStream, TcpStream)> = Vec::new();
    for number in 0u64.. {
        let Ok((near, _)) = listener.accept() else { break };
        if stop.load(Ordering::SeqCst) {
            break;
        }
        if pumps.len() >= 2 * CONNECTIONS_MAX {
            pumps.drain(..).for_each(|pump| drop(pump.join()));
            open.clear();
        }
        // Nobody there: the near side is closed, as a network would.
        let Ok(far) = TcpStream::connect_timeout(&to, CONNECT_PATIENCE) else { continue };
        done.connections.fetch_add(1, Ordering::Relaxed);
        for socket in [&near, &far] {
            socket.set_nodelay(true).expect("it is TCP");
            socket.set_read_timeout(Some(PATIENCE)).expect("a valid limit");
            socket.set_write_timeout(Some(PATIENCE)).expect("a valid limit");
        }
        let twin = |socket: &TcpStream| socket.try_clone().expect("a descriptor is left");
        open.push((twin(&near), twin(&far)));
        for (from, into, way) in [(twin(&near), twin(&far), 0), (far, near, 1)] {
            let done = done.clone();
            let rng = Rng::new(seed ^ (2 * number + way + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            pumps.push(thread::spawn(move || pump(from, into, faults, rng, &done)));
        }
    }
    for (near, far) in open {
        // Its pumps may wait for bytes that nobody sends any more.
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    }
    for pump in pumps {
        if let Err(payload) = pump.join() {
            std::panic::resume_unwind(payload);
        }
    }
}

/// One direction. Ends at the end of what comes, at an error of either side, or by a fault.
fn pump(mut from: TcpStream, mut into: TcpStream, faults: Faults, mut rng: Rng, done: &Done) {
    let mut buf = vec![0; 16 << 10];
    loop {
        let n = match from.read(&mut buf) {
            Ok(n) if n > 0 => n,
            _ => break drop(into.shutdown(Shutdown::Write)),
        };
        let mut sent = 0;
        while sent < n {
            let piece = match rng.below(4) {
                0 => 1,
                1 => 1 + rng.below(100) as usize,
                _ => 1 + rng.below(8 << 10) as usize,
            };
            let piece = piece.min(n - sent);
            let happens = rng.below(1000);
            let (resets, halves) = (faults.resets, faults.resets + faults.half_closes);
            if happens < resets {
                done.resets.fetch_add(1, Ordering::Relaxed);
                return [&from, &into].into_iter().for_each(crate::process::reset_connection);
            }
            if happens < halves {
                done.half_closes.fetch_add(1, Ordering::Relaxed);
                // What still comes is taken and lost, so that its sender is not held up for ever.
                let _ = into.shutdown(Shutdown::Write);
                while from.read(&mut buf).is_ok_and(|n| n > 0) {}
                return;
            }
            if happens < halves + faults.closes {
                done.closes.fetch_add(1, Ordering::Relaxed);
                let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
                return;
            }
            if rng.below(1000) < faults.pauses {
                thread::sleep(PAUSE_MAX * (1 + rng.below(8) as u32) / 8);
            }
            if into.write_all(&buf[sent..sent + piece]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            sent += piece;
            done.pieces.fetch_add(1, Ordering::Relaxed);
        }
    }
}
