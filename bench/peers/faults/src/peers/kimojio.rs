//! kimojio: its runtime on the calling thread. Its futures borrow their buffers; one that is
//! dropped waits for the kernel in its destructor.

use std::any::Any;
use std::ffi::CString;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use kimojio::configuration::{BusyPoll, Configuration, ExitBehavior};
use kimojio::operations::{self, AddressFamily, OFlags, RecvFlags, SendFlags, SocketType};
use kimojio::{Errno, Runtime};

use crate::cases::Case;
use crate::peer::Peer;

pub struct Kimojio;

fn other(error: Errno) -> io::Error {
    io::Error::from_raw_os_error(error.raw_os_error())
}

impl Peer for Kimojio {
    const NAME: &'static str = "kimojio";
    const VERSION: &'static str = "0.19.0";
    const CANNOT: &'static [(Case, &'static str)] = &[];
    type Stream = OwnedFd;
    type Listener = std::net::TcpListener;

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        let configuration = Configuration::new()
            .set_busy_poll(BusyPoll::Never)
            .set_exit_behavior(ExitBehavior::WhenMainTaskCompletes);
        let ended = Runtime::new(0, configuration).block_on(async { body().await });
        match ended.ok_or("the runtime was shut down")? {
            Ok(output) => Ok(output),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(operations::spawn_task(task));
    }

    async fn panicking() -> Result<(), String> {
        let ended = operations::spawn_task(async { panic!("on purpose") }).await;
        ended.map_err(|_| "TaskHandleError".to_owned())
    }

    async fn sleep(time: Duration) {
        operations::sleep(time).await.expect("a sleep");
    }

    async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
        operations::timeout_at(Instant::now() + time, std::pin::pin!(work)).await.ok()
    }

    async fn connect(addr: SocketAddr) -> io::Result<OwnedFd> {
        let socket = operations::socket(AddressFamily::INET, SocketType::STREAM, None)
            .await
            .map_err(other)?;
        operations::connect(&socket, &addr).await.map_err(other)?;
        Ok(socket)
    }

    fn listen(addr: SocketAddr) -> io::Result<(std::net::TcpListener, SocketAddr)> {
        let listener = std::net::TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    }

    async fn accept(listener: &mut std::net::TcpListener) -> io::Result<OwnedFd> {
        operations::accept(listener).await.map_err(other)
    }

    async fn recv(stream: &mut OwnedFd, size: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; size];
        let count =
            operations::recv(stream, &mut buffer, RecvFlags::empty(), None).await.map_err(other)?;
        buffer.truncate(count);
        Ok(buffer)
    }

    async fn send(stream: &mut OwnedFd, bytes: Vec<u8>) -> io::Result<()> {
        let mut unsent = &bytes[..];
        while !unsent.is_empty() {
            let sent =
                operations::send(stream, unsent, SendFlags::NOSIGNAL, None).await.map_err(other)?;
            unsent = &unsent[sent..];
        }
        Ok(())
    }

    async fn open(path: &'static str) -> Result<Box<dyn Any>, String> {
        let path = CString::new(path).map_err(|e| e.to_string())?;
        let opened = operations::open(&path, OFlags::RDONLY, rustix::fs::Mode::empty()).await;
        Ok(Box::new(opened.map_err(|e| e.to_string())?))
    }

    async fn read_direct(
        file: File,
        _: &'static str,
        offset: u64,
        len: usize,
    ) -> Result<usize, String> {
        let mut buffer = vec![0; len];
        operations::pread(&file, &mut buffer, offset).await.map_err(|e| e.to_string())
    }
}
