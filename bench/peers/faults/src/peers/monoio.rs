//! monoio: its io_uring driver, by name. A receive is `read`, as its examples have it;
//! `cancelable_read` exists for who knows beforehand that he will cancel and by what.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use crate::cases::Case;
use crate::peer::Peer;

pub struct Monoio;

impl Peer for Monoio {
    const NAME: &'static str = "monoio";
    const VERSION: &'static str = "0.2.4";
    const CANNOT: &'static [(Case, &'static str)] = &[];
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(256).enable_timer();
        let mut runtime = builder.build().map_err(|e| e.to_string())?;
        Ok(runtime.block_on(async { body().await }))
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(task));
    }

    async fn panicking() -> Result<(), String> {
        monoio::spawn(async { panic!("on purpose") }).await;
        Ok(())
    }

    async fn sleep(time: Duration) {
        monoio::time::sleep(time).await;
    }

    async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
        monoio::time::timeout(time, work).await.ok()
    }

    async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_addr(addr).await
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
        stream.write_all(bytes).await.0.map(drop)
    }

    async fn open(path: &'static str) -> Result<Box<dyn Any>, String> {
        Ok(Box::new(monoio::fs::File::open(path).await.map_err(|e| e.to_string())?))
    }

    async fn read_direct(
        file: File,
        _: &'static str,
        offset: u64,
        len: usize,
    ) -> Result<usize, String> {
        let file = monoio::fs::File::from_std(file).map_err(|e| e.to_string())?;
        file.read_at(Vec::with_capacity(len), offset).await.0.map_err(|e| e.to_string())
    }
}
