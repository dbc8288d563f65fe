//! ringline: one worker, a thread of its own. It accepts by itself and keeps what it receives, so
//! that some cases have nothing to do with it. A runtime ends by its own `request_shutdown`.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use ringline::fs::OpenFlags;
use ringline::{AsyncEventHandler, ConfigBuilder, ConnCtx, ParseResult, RinglineBuilder};

use crate::cases::Case;
use crate::peer::{Counts, Peer, any};

pub struct Ringline;

const ACCEPTS: &str = "a thread of its own accepts: there is no accept to drop";

type Body = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A handler is made by its type alone, so that what it runs waits here.
static NEXT: Mutex<Option<Body>> = Mutex::new(None);
static COUNTS: OnceLock<Arc<Counts>> = OnceLock::new();

fn config() -> ConfigBuilder {
    ConfigBuilder::new()
        .workers(1)
        .pin_to_core(false)
        .sq_entries(64)
        .max_connections(4096)
        .resolver_threads(0)
        .spawner_threads(0)
        .blocking_threads(0)
}

impl Peer for Ringline {
    const NAME: &'static str = "ringline";
    const VERSION: &'static str = "0.6.12";
    const CANNOT: &'static [(Case, &'static str)] = &[
        (Case::AcceptDropped, ACCEPTS),
        (Case::ReadsDropped, "a receive has no buffer of its own"),
        (Case::EndAccepts, ACCEPTS),
        (
            Case::EndDirect,
            "its O_DIRECT reads take a pointer, whose memory is an unsafe promise of the caller's",
        ),
        (Case::OpAfterEnd, "its futures stay on its own thread, which ends with it"),
    ];
    type Stream = ConnCtx;
    type Listener = ();

    fn run_here<T: 'static, F: Future<Output = T> + 'static>(
        _: impl FnOnce() -> F + 'static,
    ) -> Result<T, String> {
        Err("it runs on threads of its own".to_owned())
    }

    fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
        body: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, String> {
        let (tell, told) = mpsc::channel();
        let body: Body = Box::new(move || {
            Box::pin(async move {
                _ = tell.send(body().await);
                _ = ringline::request_shutdown();
            })
        });
        *NEXT.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        let config = config().build().map_err(|e| e.to_string())?;
        let (_shutdown, workers) =
            RinglineBuilder::new(config).launch::<Runner>().map_err(|e| e.to_string())?;
        for worker in workers {
            worker.join().map_err(|_| "its worker panicked")?.map_err(|e| e.to_string())?;
        }
        told.try_recv().map_err(|_| "its worker ended early".to_owned())
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        ringline::spawn(task).expect("the slab has room");
    }

    async fn panicking() -> Result<(), String> {
        let handle = ringline::spawn_with_handle(async { panic!("on purpose") });
        handle.expect("the slab has room").await;
        Ok(())
    }

    async fn sleep(time: Duration) {
        ringline::sleep(time).await;
    }

    async fn limit<F: Future>(time: Duration, work: F) -> Option<F::Output> {
        ringline::timeout(time, work).await.ok()
    }

    async fn connect(addr: SocketAddr) -> io::Result<ConnCtx> {
        ringline::connect(addr)?.await
    }

    fn listen(_: SocketAddr) -> io::Result<((), SocketAddr)> {
        Err(io::Error::other(ACCEPTS))
    }

    async fn accept((): &mut ()) -> io::Result<ConnCtx> {
        Err(io::Error::other(ACCEPTS))
    }

    async fn recv(stream: &mut ConnCtx, _: usize) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        stream
            .with_data(|data| {
                received.extend_from_slice(data);
                ParseResult::Consumed(data.len())
            })
            .await;
        Ok(received)
    }

    async fn send(stream: &mut ConnCtx, bytes: Vec<u8>) -> io::Result<()> {
        stream.send(&bytes)?.await.map(drop)
    }

    async fn open(path: &'static str) -> Result<Box<dyn Any>, String> {
        let file = ringline::fs::open(path, OpenFlags::READ, 0).map_err(|e| e.to_string())?;
        Ok(Box::new(Opened(file.await.map_err(|e| e.to_string())?)))
    }

    async fn read_direct(_: File, _: &'static str, _: u64, _: usize) -> Result<usize, String> {
        Err("not without an unsafe promise".to_owned())
    }

    fn serve(
        counts: Arc<Counts>,
        tell: impl FnOnce(SocketAddr) + Send + 'static,
    ) -> Result<(), String> {
        _ = COUNTS.set(counts);
        let config = config().build().map_err(|e| e.to_string())?;
        let (shutdown, workers) = RinglineBuilder::new(config)
            .bind(any())
            .launch::<Server>()
            .map_err(|e| e.to_string())?;
        tell(shutdown.bound_addr().ok_or("it listens nowhere")?);
        for worker in workers {
            worker.join().map_err(|_| "its worker panicked")?.map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// A file is closed by a call, not by its drop.
struct Opened(ringline::fs::File);

impl Drop for Opened {
    fn drop(&mut self) {
        _ = ringline::fs::close(self.0);
    }
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

    fn create_for_worker(_: usize) -> Self {
        Self(Mutex::new(NEXT.lock().unwrap_or_else(PoisonError::into_inner).take()))
    }
}

struct Server;

impl AsyncEventHandler for Server {
    #[expect(clippy::manual_async_fn, reason = "the trait asks for a static future")]
    fn on_accept(&self, mut conn: ConnCtx) -> impl Future<Output = ()> + 'static {
        async move {
            if let Some(counts) = COUNTS.get() {
                counts.accepted.fetch_add(1, Ordering::SeqCst);
            }
            while let Ok(bytes) = Ringline::recv(&mut conn, 0).await {
                if bytes.is_empty() || Ringline::send(&mut conn, bytes).await.is_err() {
                    return;
                }
            }
        }
    }

    fn create_for_worker(_: usize) -> Self {
        Self
    }
}
