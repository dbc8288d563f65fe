//! Runtimes that end with something under way.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use super::{Seen, poll_once, say, warm_up};
use crate::peer::{Peer, any};
use crate::system::{fds, fds_above, resident_mib};

const TURN: Duration = Duration::from_millis(2);

/// Counts that it was dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Each task waits for what never comes: bytes, a time, a connection, nothing at all.
async fn park_four<P: Peer>(ended: Arc<AtomicUsize>, peers: bool) -> Result<(), String> {
    let listener = std::net::TcpListener::bind(any()).map_err(say)?;
    let mut stream = P::connect(listener.local_addr().map_err(say)?).await.map_err(say)?;
    let four: [Dropped; 4] = std::array::from_fn(|_| Dropped(ended.clone()));
    let [one, two, three, four] = four;
    P::spawn(async move {
        let _one = one;
        drop(P::recv(&mut stream, 64).await);
    });
    P::spawn(async move {
        let _two = two;
        P::sleep(Duration::from_secs(3600)).await;
    });
    P::spawn(async move {
        let _three = three;
        if peers {
            if let Ok((mut listener, _)) = P::listen(any()) {
                drop(P::accept(&mut listener).await);
            }
        } else {
            std::future::pending::<()>().await;
        }
    });
    P::spawn(async move {
        let _four = four;
        std::future::pending::<()>().await;
    });
    P::sleep(TURN).await;
    Ok(())
}

pub fn parked<P: Peer>() -> Result<Seen, String> {
    let listens = !P::CANNOT.iter().any(|(case, _)| *case == super::Case::AcceptDropped);
    warm_up::<P>()?;
    let (before, resident) = (fds(), resident_mib());
    let ended = Arc::new(AtomicUsize::new(0));
    for _ in 0..50 {
        let ended = ended.clone();
        P::run(move || park_four::<P>(ended, listens))??;
    }
    let left = fds_above(before);
    let kept = 200 - ended.load(Ordering::SeqCst);
    let grown = resident_mib().saturating_sub(resident);
    let holds = left == 0 && kept == 0;
    Ok(Seen::new(holds, format!("{left} fds, {kept} tasks left; {grown} MiB more")))
}

const READS: usize = 256;
const BLOCK: usize = 64 << 10;
const OF_FILE: u8 = 0xF1;
const OF_NEXT: u8 = 0x3E;

fn direct(path: &str) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)
}

pub fn direct_reads<P: Peer>() -> Result<Seen, String> {
    let path = std::env::temp_dir().join(format!("peers-faults-{}", std::process::id()));
    let path: &'static str = String::leak(path.to_str().ok_or("a path of text")?.to_owned());
    let made = File::create(path).and_then(|mut made| {
        made.write_all(&vec![OF_FILE; READS * BLOCK])?;
        made.sync_all()
    });
    let seen = made.map_err(say).and_then(|()| overwritten::<P>(path));
    std::fs::remove_file(path).map_err(say)?;
    seen
}

fn overwritten<P: Peer>(path: &'static str) -> Result<Seen, String> {
    let done = Arc::new(AtomicUsize::new(0));
    let mut overwritten = 0;
    for _ in 0..50 {
        let done = done.clone();
        P::run(move || async move {
            for i in 0..READS {
                let offset = (i * BLOCK) as u64;
                let mut file = direct(path).map_err(say)?;
                file.seek(SeekFrom::Start(offset)).map_err(say)?;
                let done = done.clone();
                P::spawn(async move {
                    if P::read_direct(file, path, offset, BLOCK).await.is_ok() {
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            P::sleep(TURN).await;
            Ok::<(), String>(())
        })??;
        let next: Vec<Vec<u8>> = (0..READS).map(|_| vec![OF_NEXT; BLOCK]).collect();
        thread::sleep(Duration::from_millis(20));
        overwritten += usize::from(next.iter().flatten().any(|byte| *byte != OF_NEXT));
    }
    let done = done.load(Ordering::SeqCst);
    if done == 0 && overwritten == 0 {
        // Shown only if reads work at all.
        let works = P::run(move || async move {
            let file = direct(path).map_err(say)?;
            P::read_direct(file, path, 0, BLOCK).await
        })?;
        works.map_err(|e| format!("it doesn't read at all: {e}"))?;
    }
    Ok(Seen::new(
        overwritten == 0,
        format!("{overwritten} of 50 overwritten; {done} of 12,800 reads were done"),
    ))
}

pub fn accepts<P: Peer>() -> Result<Seen, String> {
    warm_up::<P>()?;
    let before = fds();
    P::run(|| async {
        let (mut listener, addr) = P::listen(any()).map_err(say)?;
        let mut accept = pin!(P::accept_many(&mut listener));
        _ = poll_once(accept.as_mut()).await;
        P::sleep(TURN).await;
        // All without giving way, so that the runtime sees none of them before it ends.
        let clients: Result<Vec<_>, _> = (0..100).map(|_| TcpStream::connect(addr)).collect();
        drop(clients.map_err(say)?);
        Ok::<(), String>(())
    })??;
    let left = fds_above(before);
    Ok(Seen::new(left == 0, format!("{left} fds left")))
}

pub fn op_after<P: Peer>() -> Result<Seen, String> {
    let listener = std::net::TcpListener::bind(any()).map_err(say)?;
    let addr = listener.local_addr().map_err(say)?;
    let stream = P::run_here(move || async move { P::connect(addr).await })?;
    let mut stream = stream.map_err(say)?;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut receive = pin!(P::recv(&mut stream, 64));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..20 {
            if let Poll::Ready(answer) = receive.as_mut().poll(&mut cx) {
                return Some(answer.map(|_| ()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(stream)));
    let after = if dropped.is_err() { "; its drop panics" } else { "" };
    Ok(match outcome {
        Ok(Some(Err(error))) => Seen::new(dropped.is_ok(), format!("error: {error}{after}")),
        Ok(Some(Ok(()))) => Seen::new(false, format!("an answer from nowhere{after}")),
        Ok(None) => Seen::new(false, format!("pends for ever{after}")),
        Err(_) => Seen::new(false, format!("panics{after}")),
    })
}

pub fn wake_after<P: Peer>() -> Result<Seen, String> {
    let ended = Arc::new(AtomicUsize::new(0));
    let dropped = Dropped(ended.clone());
    let waker = P::run(move || async move {
        let (tell, told) = std::sync::mpsc::channel();
        P::spawn(async move {
            let _dropped = dropped;
            std::future::poll_fn(|cx| {
                _ = tell.send(cx.waker().clone());
                Poll::<()>::Pending
            })
            .await;
        });
        P::sleep(TURN).await;
        told.try_recv().map_err(say)
    })??;
    let elsewhere = waker.clone();
    let woken = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    let other = thread::spawn(move || elsewhere.wake()).join();
    if woken.is_err() || other.is_err() {
        return Ok(Seen::new(false, "panics"));
    }
    let freed = ended.load(Ordering::SeqCst) == 1;
    Ok(Seen::new(freed, if freed { "nothing happens" } else { "the task is never freed" }))
}
