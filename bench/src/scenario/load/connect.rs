//! Opening many connections.
//!
//! Owns how many are under way at a time, and the words for what goes wrong.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coreloop_net::TcpStream;

/// Connects under way at a time per core: enough to be fast, few enough for any accept queue.
const AT_A_TIME: u64 = 64;

/// A server that doesn't answer for so long doesn't answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Whom to connect to, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub addr: SocketAddr,
    /// TCP congestion control, if not the system's.
    pub congestion: Option<String>,
    /// Counts connections that are open, for the progress.
    pub connected: Arc<AtomicU64>,
}

struct Line {
    target: Target,
    left: Cell<u64>,
    streams: RefCell<Vec<TcpStream>>,
    failed: RefCell<Option<String>>,
}

/// Opens `count` connections on this core. The first failure ends it, in words.
pub async fn open(target: &Target, count: u64) -> Result<Vec<TcpStream>, String> {
    let line = Rc::new(Line {
        target: target.clone(),
        left: Cell::new(count),
        streams: RefCell::new(Vec::with_capacity(count as usize)),
        failed: RefCell::new(None),
    });
    let workers: Vec<_> =
        (0..AT_A_TIME.min(count)).map(|_| coreloop::spawn(worker(line.clone()))).collect();
    for worker in workers {
        // A worker has no value; what it did stands in the line.
        let _ = worker.await;
    }
    match line.failed.take() {
        Some(words) => Err(words),
        None => Ok(line.streams.take()),
    }
}

async fn worker(line: Rc<Line>) {
    while line.left.get() > 0 && line.failed.borrow().is_none() {
        line.left.set(line.left.get() - 1);
        match one(&line.target).await {
            Ok(stream) => {
                line.streams.borrow_mut().push(stream);
                line.target.connected.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let open = line.target.connected.load(Ordering::Relaxed);
                line.failed.borrow_mut().get_or_insert(in_words(line.target.addr, open, &error));
            }
        }
    }
}

async fn one(target: &Target) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(target.addr, LIMIT).await?;
    if let Some(name) = &target.congestion {
        stream.socket().set_tcp_congestion(name.as_bytes())?;
    }
    Ok(stream)
}

fn in_words(addr: SocketAddr, open: u64, error: &io::Error) -> String {
    let what = match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => {
            format!("connection refused: is the server running on {addr}?")
        }
        Some(libc::EADDRNOTAVAIL) => format!(
            "no local port left for another connection to {addr}: use fewer connections, wait a \
             minute for old ones, or widen net.ipv4.ip_local_port_range"
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            format!("no descriptor left for another connection to {addr}: raise ulimit -n")
        }
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => format!("no way to {addr}: {error}"),
        _ if error.kind() == io::ErrorKind::TimedOut => {
            format!("{addr} did not answer within {} s: is that the address?", LIMIT.as_secs())
        }
        _ => format!("can't connect to {addr}: {error}"),
    };
    match open {
        0 => what,
        open => format!("{what} ({open} connections were open)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_address_and_what_to_do() {
        let addr = "127.0.0.1:7000".parse().unwrap();
        let told = |open, errno| in_words(addr, open, &io::Error::from_raw_os_error(errno));
        let refused = told(0, libc::ECONNREFUSED);
        assert_eq!(refused, "connection refused: is the server running on 127.0.0.1:7000?");
        assert!(told(28_231, libc::EADDRNOTAVAIL).contains("ip_local_port_range"));
        assert!(told(28_231, libc::EADDRNOTAVAIL).ends_with("(28231 connections were open)"));
        let silent = in_words(addr, 0, &io::ErrorKind::TimedOut.into());
        assert!(silent.contains("did not answer within 10 s"), "{silent}");
    }
}
