//! smol: a local executor in `block_on`.

use std::any::Any;
use std::cell::RefCell;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol::{Async, LocalExecutor, Timer};

use crate::cases::Case;
use crate::peer::Peer;

pub struct Smol;

thread_local! {
    static EXECUTOR: RefCell<Option<Rc<LocalExecutor<'static>>>> = const { RefCell::new(None) };
}

fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) -> smol::Task<T> {
    EXECUTOR.with_borrow(|executor| executor.as_ref().expect("it runs").spawn(task))
}

impl Peer for Smol {
    const NAME: &'static str = "smol";
    const VERSION: &'static str = "2.0.2";
    const RING: bool = false;
    const CANNOT: &'static [(Case, &'static str)] =
        &[(Case::EndDirect, "its files read through a buffer of its own, without O_DIRECT")];
    type Stream = TcpStream;
    type Listener = TcpListener;

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        let executor = Rc::new(LocalExecutor::new());
        EXECUTOR.set(Some(executor.clone()));
        let output = smol::block_on(executor.run(async { body().await }));
        EXECUTOR.set(None);
        Ok(output)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        spawn(task).detach();
    }

    async fn panicking() -> Result<(), String> {
        spawn(async { panic!("on purpose") }).await;
        Ok(())
    }

    async fn sleep(time: Duration) {
        Timer::after(time).await;
    }

    async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
        let over = async {
            Timer::after(time).await;
            None
        };
        smol::future::or(async { Some(work.await) }, over).await
    }

    async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(addr).await
    }

    fn listen(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
        let listener = Async::<std::net::TcpListener>::bind(addr)?;
        let addr = listener.get_ref().local_addr()?;
        Ok((TcpListener::from(listener), addr))
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
        Ok(Box::new(smol::fs::File::open(path).await.map_err(|e| e.to_string())?))
    }

    async fn read_direct(_: File, _: &'static str, _: u64, _: usize) -> Result<usize, String> {
        Err("not with O_DIRECT".to_owned())
    }
}
