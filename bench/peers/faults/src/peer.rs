//! What a runtime is asked for by the cases, each in its own words.
//!
//! Nothing here works around a runtime: a receive is what its users write, a limit is its own
//! timeout where it has one, and a runtime is dropped where its `run` returns.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cases::Case;

/// What a server counts.
#[derive(Default)]
pub struct Counts {
    /// Connections that it was given.
    pub accepted: AtomicU64,
    /// Errors that its accepts answered.
    pub errors: AtomicU64,
}

/// A runtime as its users have it.
pub trait Peer: 'static {
    /// The name in the table.
    const NAME: &'static str;
    /// The version, as the lock file has it.
    const VERSION: &'static str;
    /// Whether it is built on io_uring.
    const RING: bool = true;
    /// What it can't do, and why.
    const CANNOT: &'static [(Case, &'static str)];

    /// A connection.
    type Stream: 'static;
    /// A listening socket.
    type Listener: 'static;

    /// Runs a body on a fresh runtime with a small ring, and drops the runtime.
    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String>;

    /// The same for what may be run on another thread than the calling one.
    fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, String> {
        Self::run_here(body)
    }

    /// Starts a task and lets go of its handle.
    fn spawn(task: impl Future<Output = ()> + 'static);

    /// Starts a task that panics, and says what its handle answers.
    fn panicking() -> impl Future<Output = Result<(), String>>;

    /// Waits.
    fn sleep(time: Duration) -> impl Future<Output = ()>;

    /// Gives up after a time.
    fn limit<F: Future>(time: Duration, work: F) -> impl Future<Output = Option<F::Output>>;

    /// Connects.
    fn connect(addr: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Listens.
    fn listen(addr: SocketAddr) -> io::Result<(Self::Listener, SocketAddr)>;

    /// Accepts one connection.
    fn accept(listener: &mut Self::Listener) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Accepts by a multishot accept, where there is one.
    fn accept_many(listener: &mut Self::Listener) -> impl Future<Output = ()> {
        async { drop(Self::accept(listener).await) }
    }

    /// Receives some bytes into a buffer of that size.
    fn recv(stream: &mut Self::Stream, size: usize) -> impl Future<Output = io::Result<Vec<u8>>>;

    /// Sends them all.
    fn send(stream: &mut Self::Stream, bytes: Vec<u8>) -> impl Future<Output = io::Result<()>>;

    /// Opens a file.
    fn open(path: &'static str) -> impl Future<Output = Result<Box<dyn Any>, String>>;

    /// Reads at an offset of a file that was opened with O_DIRECT; the file's own position is there
    /// too.
    fn read_direct(
        file: File,
        path: &'static str,
        offset: u64,
        len: usize,
    ) -> impl Future<Output = Result<usize, String>>;

    /// An echo server for ever on the calling thread, whose accepts go on after an error.
    fn serve(
        counts: Arc<Counts>,
        tell: impl FnOnce(SocketAddr) + Send + 'static,
    ) -> Result<(), String> {
        Self::run(move || async move {
            let (mut listener, addr) = Self::listen(any()).map_err(|e| e.to_string())?;
            tell(addr);
            loop {
                match Self::accept(&mut listener).await {
                    Ok(stream) => {
                        counts.accepted.fetch_add(1, Ordering::SeqCst);
                        Self::spawn(echo::<Self>(stream));
                    }
                    Err(_) => _ = counts.errors.fetch_add(1, Ordering::SeqCst),
                }
            }
        })?
    }
}

async fn echo<P: Peer + ?Sized>(mut stream: P::Stream) {
    while let Ok(bytes) = P::recv(&mut stream, 4096).await {
        if bytes.is_empty() || P::send(&mut stream, bytes).await.is_err() {
            return;
        }
    }
}

/// Any port of the loopback.
pub fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
