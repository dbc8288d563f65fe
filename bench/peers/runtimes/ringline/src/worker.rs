//! Running a future on a worker, and what ringline's interface needs around it.
//!
//! A handler is made by its type alone, so that what it is to run waits in a static queue. Only
//! the harness's own futures come here.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::{Arc, Barrier, Mutex, PoisonError, mpsc};
use std::task::Waker;
use std::time::Duration;

use peers_common::Failure;
use ringline::{AsyncEventHandler, Config, ConfigBuilder, ConnCtx, DriverCtx, RinglineBuilder};

use crate::channel::WakeAt;

/// More than any workload has at a time.
const TASKS: u32 = 1 << 18;

type Body = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A launch holds this lock for as long as its handler may take the body from it.
static NEXT: Mutex<Option<Body>> = Mutex::new(None);
static LAUNCHING: Mutex<()> = Mutex::new(());

thread_local! {
    static WAITING: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// Runs the future of `body` on a worker of the calling thread's core.
pub fn run<F: Future<Output: Send + 'static> + 'static>(
    body: impl FnOnce() -> F + Send + 'static,
) -> Result<F::Output, Failure> {
    run_two(&Arc::new(Barrier::new(1)), [], body)
}

/// The same for one of two workers that wake each other. When the worker runs, it is told to
/// `ends` how to wake it, and the barrier is waited at.
pub fn run_two<F: Future<Output: Send + 'static> + 'static>(
    started: &Arc<Barrier>,
    ends: impl IntoIterator<Item = Arc<WakeAt>>,
    body: impl FnOnce() -> F + Send + 'static,
) -> Result<F::Output, Failure> {
    let (tell, told) = mpsc::sync_channel(1);
    let body: Body = Box::new(move || {
        Box::pin(async move {
            let output = body().await;
            // Room for one is room for this; nobody else sends.
            _ = tell.try_send(output);
            _ = ringline::request_shutdown();
        })
    });
    let launching = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
    *NEXT.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    let (shutdown, workers) = RinglineBuilder::new(config()?).launch::<Runner>()?;
    drop(launching);
    let wake = shutdown.worker_wake_handle(0).ok_or("there is a worker")?;
    for end in ends {
        end.set(wake.clone());
    }
    started.wait();
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")??;
    }
    Ok(told.try_recv()?)
}

/// One worker with room for the tasks; without the threads that a workload has no work for.
fn config() -> Result<Config, Failure> {
    let config = ConfigBuilder::new()
        .workers(1)
        .pin_to_core(false)
        .standalone_task_capacity(TASKS)
        .max_connections(16)
        .resolver_threads(0)
        .spawner_threads(0)
        .blocking_threads(0)
        .no_fs();
    Ok(config.build()?)
}

/// The calling task is polled again after the next wake of its worker from outside.
pub fn wait_for_wake(waker: &Waker) {
    WAITING.with_borrow_mut(|waiting| waiting.push(waker.clone()));
}

struct Runner(Mutex<Option<Body>>);

impl AsyncEventHandler for Runner {
    #[expect(clippy::manual_async_fn, reason = "the trait asks for a static future")]
    fn on_accept(&self, _: ConnCtx) -> impl Future<Output = ()> + 'static {
        async {}
    }

    fn on_start(&self) -> Option<Pin<Box<dyn Future<Output = ()> + 'static>>> {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        body.map(|body| body())
    }

    fn on_notify(&mut self, _: &mut DriverCtx<'_>) {
        for waker in WAITING.with_borrow_mut(std::mem::take) {
            waker.wake();
        }
    }

    fn create_for_worker(_: usize) -> Self {
        Self(Mutex::new(NEXT.lock().unwrap_or_else(PoisonError::into_inner).take()))
    }
}

/// Sends in pieces that the send pool can take, each awaited, as soon as it has room again.
pub async fn send_later(conn: &ConnCtx, data: &[u8]) -> io::Result<()> {
    for piece in data.chunks(64 << 10) {
        loop {
            match conn.send(piece) {
                Ok(sending) => {
                    sending.await?;
                    break;
                }
                // Full by what others send; it isn't told when that is over.
                Err(error) if error.kind() == io::ErrorKind::Other => {
                    ringline::sleep(Duration::from_micros(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Gives the listener of that address the congestion control that all peers have: ringline has no
/// setting for it and does not give its socket away.
pub fn set_congestion(addr: SocketAddr) -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // SAFETY: it was open a moment ago; at worst the calls below fail, or concern a socket
        // that has come to stand in its place with the same address.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let socket = socket2::SockRef::from(&fd);
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        if local == Some(addr) {
            return socket.set_tcp_congestion(b"reno");
        }
    }
    Err(io::Error::other("the listener isn't there"))
}
