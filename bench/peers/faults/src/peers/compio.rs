//! compio: its io_uring driver with the flags that its builder offers; its accepts in a row are
//! multishot.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncReadAt, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::RuntimeBuilder;
use futures_util::StreamExt;

use crate::cases::Case;
use crate::peer::Peer;

pub struct Compio;

impl Peer for Compio {
    const NAME: &'static str = "compio";
    const VERSION: &'static str = "0.19.2";
    const CANNOT: &'static [(Case, &'static str)] = &[];
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        let mut proactor = ProactorBuilder::new();
        proactor.capacity(64).single_issuer(true).coop_taskrun(true).defer_taskrun(true);
        let runtime =
            RuntimeBuilder::new().with_proactor(proactor).build().map_err(|e| e.to_string())?;
        Ok(runtime.block_on(async { body().await }))
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        compio::runtime::spawn(task).detach();
    }

    async fn panicking() -> Result<(), String> {
        let ended = compio::runtime::spawn(async { panic!("on purpose") }).await;
        ended.map_err(|_| "JoinError".to_owned())
    }

    async fn sleep(time: Duration) {
        compio::time::sleep(time).await;
    }

    async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
        compio::time::timeout(time, work).await.ok()
    }

    async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(addr).await
    }

    fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = std::net::TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, addr))
    }

    async fn accept(listener: &mut TcpListener) -> io::Result<TcpStream> {
        Ok(listener.accept().await?.0)
    }

    async fn accept_many(listener: &mut TcpListener) {
        let mut incoming = listener.incoming();
        while let Some(stream) = incoming.next().await {
            drop(stream);
        }
    }

    async fn recv(stream: &mut TcpStream, size: usize) -> io::Result<Vec<u8>> {
        let BufResult(count, mut buffer) = stream.read(Vec::with_capacity(size)).await;
        buffer.truncate(count?);
        Ok(buffer)
    }

    async fn send(stream: &mut TcpStream, bytes: Vec<u8>) -> io::Result<()> {
        stream.write_all(bytes).await.0
    }

    async fn open(path: &'static str) -> Result<Box<dyn Any>, String> {
        Ok(Box::new(compio::fs::File::open(path).await.map_err(|e| e.to_string())?))
    }

    async fn read_direct(
        _: File,
        path: &'static str,
        offset: u64,
        len: usize,
    ) -> Result<usize, String> {
        // It takes no file of std's.
        let mut options = compio::fs::OpenOptions::new();
        options.read(true).custom_flags(libc::O_DIRECT);
        let file = options.open(path).await.map_err(|e| e.to_string())?;
        file.read_at(Vec::with_capacity(len), offset).await.0.map_err(|e| e.to_string())
    }
}
