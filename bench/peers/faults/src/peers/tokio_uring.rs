//! tokio-uring: tokio's current-thread runtime with a ring beside; tasks and times are tokio's.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio_uring::net::{TcpListener, TcpStream};

use crate::cases::Case;
use crate::peer::Peer;

pub struct TokioUring;

impl Peer for TokioUring {
    const NAME: &'static str = "tokio-uring";
    const VERSION: &'static str = "0.5.0";
    const CANNOT: &'static [(Case, &'static str)] = &[];
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        let mut builder = tokio_uring::builder();
        builder.entries(64);
        let runtime = tokio_uring::Runtime::new(&builder).map_err(|e| e.to_string())?;
        Ok(runtime.block_on(async { body().await }))
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(tokio_uring::spawn(task));
    }

    async fn panicking() -> Result<(), String> {
        let ended = tokio_uring::spawn(async { panic!("on purpose") }).await;
        ended.map_err(|_| "JoinError".to_owned())
    }

    async fn sleep(time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
        tokio::time::timeout(time, work).await.ok()
    }

    async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(addr).await
    }

    fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    }

    async fn accept(listener: &mut TcpListener) -> io::Result<TcpStream> {
        Ok(listener.accept().await?.0)
    }

    async fn recv(stream: &mut TcpStream, size: usize) -> io::Result<Vec<u8>> {
        let (count, mut buffer) = stream.read(Vec::with_capacity(size)).await;
        buffer.truncate(count?);
        Ok(buffer)
    }

    async fn send(stream: &mut TcpStream, bytes: Vec<u8>) -> io::Result<()> {
        stream.write_all(bytes).await.0
    }

    async fn open(path: &'static str) -> Result<Box<dyn Any>, String> {
        Ok(Box::new(tokio_uring::fs::File::open(path).await.map_err(|e| e.to_string())?))
    }

    async fn read_direct(
        file: File,
        _: &'static str,
        offset: u64,
        len: usize,
    ) -> Result<usize, String> {
        let file = tokio_uring::fs::File::from_std(file);
        file.read_at(Vec::with_capacity(len), offset).await.0.map_err(|e| e.to_string())
    }
}
