//! coreloop, with its defaults but for a small ring.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use coreloop::op::{Read, submit};
use coreloop::time::timeout;
use coreloop::{EventLoop, Settings};
use coreloop_net::{TcpListener, TcpStream};

use crate::cases::Case;
use crate::peer::Peer;

pub struct Coreloop;

impl Peer for Coreloop {
    const NAME: &'static str = "coreloop";
    const VERSION: &'static str = "0.1.0";
    const CANNOT: &'static [(Case, &'static str)] = &[(Case::OpenDropped, "no files yet")];
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        let settings = Settings::default().ring_entries(64).cq_entries(128);
        let mut event_loop = EventLoop::with(settings).map_err(|e| e.to_string())?;
        Ok(event_loop.block_on(async { body().await }))
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(coreloop::spawn(task));
    }

    async fn panicking() -> Result<(), String> {
        coreloop::spawn(async { panic!("on purpose") }).await.map_err(|e| e.to_string())
    }

    async fn sleep(time: Duration) {
        coreloop::time::sleep(time).await;
    }

    async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
        timeout(time, work).await.ok()
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
        listener.accept().await
    }

    async fn recv(stream: &mut TcpStream, size: usize) -> io::Result<Vec<u8>> {
        Ok(stream.read(Vec::with_capacity(size)).await?.1)
    }

    async fn send(stream: &mut TcpStream, bytes: Vec<u8>) -> io::Result<()> {
        stream.write_all(bytes).await?;
        Ok(())
    }

    async fn open(_: &'static str) -> Result<Box<dyn Any>, String> {
        Err("no files yet".to_owned())
    }

    async fn read_direct(file: File, _: &'static str, _: u64, len: usize) -> Result<usize, String> {
        let read = submit(Read::new(file, Vec::with_capacity(len))).await;
        read.map(|(count, _)| count).map_err(|e| e.to_string())
    }
}
