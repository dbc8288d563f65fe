//! glommio: an executor on the calling thread, with a small ring; files by its `DmaFile`, whose
//! buffers are its own.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::io::DmaFile;
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement, spawn_local};

use crate::cases::Case;
use crate::peer::Peer;

pub struct Glommio;

/// Its errors can't be shared, so that they are kept as text.
fn other(error: glommio::GlommioError<()>) -> io::Error {
    io::Error::other(error.to_string())
}

impl Peer for Glommio {
    const NAME: &'static str = "glommio";
    const VERSION: &'static str = "0.9.0";
    const CANNOT: &'static [(Case, &'static str)] = &[];
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        let builder = LocalExecutorBuilder::new(Placement::Unbound).ring_depth(64);
        let executor = builder.make().map_err(|e| e.to_string())?;
        Ok(executor.run(async { body().await }))
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        spawn_local(task).detach();
    }

    async fn panicking() -> Result<(), String> {
        spawn_local(async { panic!("on purpose") }).await;
        Ok(())
    }

    async fn sleep(time: Duration) {
        Timer::new(time).await;
    }

    async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
        let over = async {
            Timer::new(time).await;
            None
        };
        futures_lite::future::or(async { Some(work.await) }, over).await
    }

    async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(addr).await.map_err(other)
    }

    fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = std::net::TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        // SAFETY: the descriptor is a listening socket's, and nobody else's any more.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        Ok((listener, addr))
    }

    async fn accept(listener: &mut TcpListener) -> io::Result<TcpStream> {
        listener.accept().await.map_err(other)
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
        Ok(Box::new(glommio::io::BufferedFile::open(path).await.map_err(|e| e.to_string())?))
    }

    async fn read_direct(
        _: File,
        path: &'static str,
        offset: u64,
        len: usize,
    ) -> Result<usize, String> {
        let file = DmaFile::open(path).await.map_err(|e| e.to_string())?;
        let read = file.read_at(offset, len).await.map_err(|e| e.to_string());
        read.map(|read| read.len())
    }
}
