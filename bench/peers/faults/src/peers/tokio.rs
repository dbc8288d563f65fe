//! tokio: its current-thread runtime, with a `LocalSet` as everybody here has local tasks.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

use crate::cases::Case;
use crate::peer::Peer;

pub struct Tokio;

impl Peer for Tokio {
    const NAME: &'static str = "tokio";
    const VERSION: &'static str = "1.54.1";
    const RING: bool = false;
    const CANNOT: &'static [(Case, &'static str)] = &[];
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let local = LocalSet::new();
        Ok(local.block_on(&runtime, async { body().await }))
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(spawn_local(task));
    }

    async fn panicking() -> Result<(), String> {
        let ended = spawn_local(async { panic!("on purpose") }).await;
        ended.map_err(|e| if e.is_panic() { "JoinError".to_owned() } else { e.to_string() })
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
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, addr))
    }

    async fn accept(listener: &mut TcpListener) -> io::Result<TcpStream> {
        Ok(listener.accept().await?.0)
    }

    async fn recv(stream: &mut TcpStream, size: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; size];
        let count = stream.read(&mut buffer).await?;
        buffer.truncate(count);
        Ok(buffer)
    }

    async fn send(stream: &mut TcpStream, bytes: Vec<u8>) -> io::Result<()> {
        stream.write_all(&bytes).await
    }

    async fn open(path: &'static str) -> Result<Box<dyn Any>, String> {
        Ok(Box::new(tokio::fs::File::open(path).await.map_err(|e| e.to_string())?))
    }

    async fn read_direct(file: File, _: &'static str, _: u64, len: usize) -> Result<usize, String> {
        let mut file = tokio::fs::File::from_std(file);
        file.read(&mut vec![0; len]).await.map_err(|e| e.to_string())
    }
}
