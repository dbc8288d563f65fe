//! Streams through a proxy that splits, delays, resets and half-closes: what arrives is what was sent, as far
//! as it arrives, and nothing hangs or is left open.
//!
//! Each run is of one seed; `CORELOOP_PROXY_SEEDS` says how many (3).

use std::cell::Cell;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coreloop::combine::gather_handles;
use coreloop::time::timeout;
use coreloop::{EventLoop, Feature, Settings, spawn};
use coreloop_net::{ReadHalf, TcpListener, TcpStream};
use coreloop_tests::drive::{Rng, pattern, pattern_at};
use coreloop_tests::proxy::{Faults, Proxy};
use coreloop_tests::{Child, fd_count, fds_settle_at, figure, settled};

const SOON: Duration = Duration::from_secs(30);
/// Bytes that each connection is to carry, there and back.
const LEN: usize = 96 << 10;

fn seeds() -> u64 {
    let asked = std::env::var("CORELOOP_PROXY_SEEDS").ok();
    asked.map_or(3, |n| n.parse().expect("a number of seeds"))
}

/// An echo server on the running loop; how many of its connections are open.
fn serve() -> io::Result<(SocketAddr, Rc<Cell<usize>>)> {
    let mut listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let open = Rc::new(Cell::new(0));
    let count = open.clone();
    drop(spawn(async move {
        loop {
            let Ok(mut stream) = listener.accept().await else { continue };
            let open = open.clone();
            open.set(open.get() + 1);
            drop(spawn(async move {
                // A connection that is cut ends here, one that is closed too.
                while let Ok(Some(chunk)) = stream.recv().await {
                    if stream.write_all(chunk).await.is_err() {
                        break;
                    }
                }
                open.set(open.get() - 1);
            }));
        }
    }));
    Ok((addr, count))
}

/// Reads the echo, each time in another way, often under a limit that is too short: how much came, and
/// whether an orderly end came after it.
async fn read_back(reader: &mut ReadHalf, base: usize, mut rng: Rng) -> (usize, io::Result<()>) {
    let mut at = 0;
    let mut buf = Vec::with_capacity(700);
    loop {
        let limit = Duration::from_micros(1 + rng.below(400));
        let got = match rng.below(4) {
            0 => reader.recv().await.map(|chunk| chunk.map(|c| c.to_vec())),
            1 => match timeout(limit, reader.recv()).await {
                Ok(got) => got.map(|chunk| chunk.map(|c| c.to_vec())),
                Err(_) => continue,
            },
            2 => match timeout(limit, reader.read(Vec::with_capacity(333))).await {
                Ok(Ok((0, _))) => Ok(None),
                Ok(Ok((_, bytes))) => Ok(Some(bytes)),
                Ok(Err(e)) => Err(e.into_parts().0),
                Err(_) => continue,
            },
            _ => match reader.read(buf).await {
                Ok((n, bytes)) => {
                    buf = bytes;
                    Ok((n > 0).then(|| buf[..n].to_vec()))
                }
                Err(e) => Err(e.into_parts().0),
            },
        };
        buf = Vec::with_capacity(700);
        match got {
            Ok(Some(bytes)) => {
                let right = bytes.iter().enumerate().all(|(i, b)| *b == pattern_at(base + at + i));
                assert!(right, "wrong bytes after {at} of connection {base}");
                at += bytes.len();
            }
            Ok(None) => return (at, Ok(())),
            Err(e) => return (at, Err(e)),
        }
    }
}

/// One connection that sends [`LEN`] bytes in pieces and takes them back at the same time.
async fn connection(
    addr: SocketAddr,
    base: usize,
    seed: u64,
) -> io::Result<(usize, io::Result<()>)> {
    let stream = TcpStream::connect(addr).await?;
    let (mut reader, mut writer) = stream.split();
    let mut rng = Rng::new(seed);
    let reads = Rng::new(rng.number());
    let writing = spawn(async move {
        let mut sent = 0;
        while sent < LEN {
            let n = (1 + rng.below(5000) as usize).min(LEN - sent);
            let (n, _) = writer.write_all(pattern(base + sent, n)).await?;
            sent += n;
        }
        writer.shutdown()?;
        Ok::<_, io::Error>(writer)
    });
    let read = read_back(&mut reader, base, reads).await;
    // Its end may find it in the middle of a write to nobody.
    writing.cancel();
    drop(writing.await);
    Ok(read)
}

/// What became of the connections of one seed.
#[derive(Debug, Default)]
struct Seen {
    whole: usize,
    ended: usize,
    cut: usize,
    unmade: usize,
}

fn through_a_proxy(settings: Settings, faults: Faults, seed: u64, connections: usize) -> Seen {
    let before = fd_count();
    let mut event_loop = EventLoop::with(settings).unwrap();
    let mut seen = Seen::default();
    event_loop.block_on(async {
        let (server, open) = serve().unwrap();
        let proxy = Proxy::to(server, faults, seed);
        let all = (0..connections)
            .map(|c| spawn(connection(proxy.addr(), c * 7919, seed * 1000 + c as u64)));
        let all = gather_handles(all.collect::<Vec<_>>());
        for ended in timeout(SOON, all).await.expect("a connection hangs") {
            match ended.expect("its bytes were right") {
                Ok((LEN, Ok(()))) => seen.whole += 1,
                Ok((got, Ok(()))) => seen.ended += usize::from(got < LEN),
                Ok((_, Err(e))) => {
                    let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
                    assert!(kinds.contains(&e.kind()), "{e:?}");
                    seen.cut += 1;
                }
                Err(e) => {
                    assert_eq!(e.kind(), io::ErrorKind::ConnectionReset, "{e:?}");
                    seen.unmade += 1;
                }
            }
        }
        assert!(settled(SOON, || open.get() == 0).await, "{} are open at the server", open.get());
        let done = proxy.done();
        let count = |n: &std::sync::atomic::AtomicUsize| n.load(Ordering::Relaxed);
        figure!(
            "seed {seed}: {seen:?}; {} pieces, {} resets, {} half-closes, {} closes",
            count(&done.pieces),
            count(&done.resets),
            count(&done.half_closes),
            count(&done.closes)
        );
        assert_eq!(count(&done.connections), connections);
    });
    assert_eq!(event_loop.close(SOON).ops_leaked, 0);
    assert_eq!(fds_settle_at(before, SOON), before, "descriptors after seed {seed}");
    let all = seen.whole + seen.ended + seen.cut + seen.unmade;
    assert_eq!(all, connections, "{seen:?}");
    seen
}

fn run(name: &'static str, body: impl FnOnce()) {
    Child::new(name).limit(Duration::from_secs(60 + 60 * seeds())).run(body);
}

#[test]
fn fault_proxy_that_splits_and_delays_loses_no_byte() {
    run("fault_proxy_that_splits_and_delays_loses_no_byte", || {
        for seed in 1..=seeds() {
            let seen = through_a_proxy(Settings::default(), Faults::slow(), seed, 24);
            assert_eq!(seen.whole, 24, "{seen:?}");
        }
    });
}

#[test]
fn fault_proxy_that_cuts_leaves_exact_prefixes_and_nothing_open() {
    run("fault_proxy_that_cuts_leaves_exact_prefixes_and_nothing_open", || {
        let mut all = Seen::default();
        for seed in 1..=seeds() {
            let seen = through_a_proxy(Settings::default(), Faults::rough(), seed, 80);
            all = Seen {
                whole: all.whole + seen.whole,
                ended: all.ended + seen.ended,
                cut: all.cut + seen.cut,
                unmade: all.unmade + seen.unmade,
            };
        }
        assert!(all.ended > 10 && all.cut > 10, "the proxy did not do its worst: {all:?}");
    });
}

#[test]
fn fault_proxy_that_cuts_with_few_buffers_and_no_features() {
    run("fault_proxy_that_cuts_with_few_buffers_and_no_features", || {
        let bare = Feature::ALL.into_iter().fold(Settings::default(), Settings::mask);
        let small = Settings::default().ring_entries(8).cq_entries(16).buffers(2, 256);
        for seed in 1..=seeds() {
            through_a_proxy(bare.clone(), Faults::rough(), 100 + seed, 40);
            through_a_proxy(small.clone(), Faults::rough(), 200 + seed, 40);
        }
    });
}

/// A listener that is closed while clients come, seen through the proxy: connections end, none hangs.
#[test]
fn fault_proxy_to_nobody_ends_every_connection() {
    run("fault_proxy_to_nobody_ends_every_connection", || {
        let before = fd_count();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let proxy = Proxy::to(nobody, Faults::default(), 1);
        coreloop::run(async {
            for _ in 0..50 {
                let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
                let end = timeout(SOON, stream.recv()).await.expect("it hangs");
                assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
                let _ = stream.shutdown(Shutdown::Both);
            }
        })
        .unwrap();
        drop(proxy);
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}
