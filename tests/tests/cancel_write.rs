//! Dropped writes: the peer sees an exact prefix, and nothing is sent behind it unnoticed.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream as StdStream};
use std::pin::pin;
use std::time::Duration;

use coreloop::combine::{Either, race};
use coreloop::time::timeout;
use coreloop::{EventLoop, Settings};
use coreloop_net::TcpStream;
use coreloop_tests::drive::{pattern, pattern_at};
use coreloop_tests::{Rng, figure, in_child, net, poll_once, settled, turns};

const SOON: Duration = Duration::from_secs(10);

/// More than loopback's buffers hold between two sockets.
const TOO_MUCH: usize = 32 << 20;

/// A pair with small buffers, so that a full socket is cheap to have.
fn small_pair() -> (TcpStream, StdStream) {
    let (ours, theirs) = net::pair();
    ours.socket().set_send_buffer_size(16 << 10).unwrap();
    socket2::SockRef::from(&theirs).set_recv_buffer_size(16 << 10).unwrap();
    (ours, theirs)
}

/// Everything that the peer gets until the end of the stream, read by a thread of its own.
fn read_to_end(mut peer: StdStream) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).unwrap();
        got
    })
}

/// Drops a write of `TOO_MUCH` bytes after some of it was sent.
async fn tear(ours: &mut TcpStream) {
    let mut pending = pin!(ours.write_all(pattern(0, TOO_MUCH)));
    assert!(poll_once(pending.as_mut()).await.is_pending(), "the write fits into the buffers");
    turns(5).await;
    assert!(poll_once(pending.as_mut()).await.is_pending(), "the write fits into the buffers");
}

#[test]
fn cancel_write_half_way_leaves_an_exact_prefix() {
    coreloop::run(async {
        let (mut ours, theirs) = small_pair();
        tear(&mut ours).await;
        // Refused until somebody has looked: bytes behind a torn write would be taken for its rest.
        for _ in 0..2 {
            let refused = timeout(SOON, ours.write_all("behind")).await.unwrap();
            let e = refused.expect_err("a write behind a torn one");
            assert_eq!(e.into_parts().1, "behind", "the buffer comes back");
        }
        let torn = ours.take_torn_write().expect("the write was half done");
        assert_eq!(torn.len, TOO_MUCH);
        assert!(torn.sent > 0 && torn.sent < TOO_MUCH, "{torn:?}");
        assert_eq!(ours.take_torn_write(), None, "told once");
        let peer = read_to_end(theirs);
        ours.write_all("behind").await.unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        assert!(settled(SOON, || peer.is_finished()).await);
        let got = peer.join().unwrap();
        assert_eq!(got.len(), torn.sent + 6, "{torn:?}");
        assert!(got[..torn.sent] == pattern(0, torn.sent), "the prefix is exact");
        assert_eq!(&got[torn.sent..], b"behind");
        figure!("torn after {} of {} bytes", torn.sent, torn.len);
    })
    .unwrap();
}

#[test]
fn cancel_write_many_half_way_leaves_an_exact_prefix() {
    coreloop::run(async {
        let (mut ours, theirs) = small_pair();
        let parts: Vec<Vec<u8>> =
            (0..TOO_MUCH / 10_000).map(|i| pattern(i * 10_000, 10_000)).collect();
        let len = parts.len() * 10_000;
        {
            let mut pending = pin!(ours.write_many(parts));
            assert!(poll_once(pending.as_mut()).await.is_pending());
            turns(5).await;
            assert!(poll_once(pending.as_mut()).await.is_pending());
        }
        let refused = timeout(SOON, ours.write_all("behind")).await.unwrap();
        assert!(refused.is_err());
        let torn = ours.take_torn_write().expect("the write was half done");
        assert_eq!(torn.len, len);
        let peer = read_to_end(theirs);
        drop(ours);
        assert!(settled(SOON, || peer.is_finished()).await);
        let got = peer.join().unwrap();
        assert_eq!(got.len(), torn.sent);
        assert!(got == pattern(0, torn.sent), "the prefix is exact");
    })
    .unwrap();
}

#[test]
fn cancel_write_that_had_sent_nothing_leaves_the_stream_whole() {
    coreloop::run(async {
        let (mut ours, theirs) = small_pair();
        tear(&mut ours).await;
        let settle = timeout(SOON, ours.write_all("x")).await.unwrap();
        assert!(settle.is_err());
        let torn = ours.take_torn_write().unwrap();
        // The socket is full: this one gets nothing out.
        {
            let mut pending = pin!(ours.write_all(vec![0xEE; 1000]));
            assert!(poll_once(pending.as_mut()).await.is_pending());
            turns(3).await;
            assert!(poll_once(pending.as_mut()).await.is_pending());
        }
        let peer = read_to_end(theirs);
        timeout(SOON, ours.write_all("whole")).await.unwrap().expect("nothing is torn");
        assert_eq!(ours.take_torn_write(), None);
        ours.shutdown(Shutdown::Write).unwrap();
        assert!(settled(SOON, || peer.is_finished()).await);
        let got = peer.join().unwrap();
        assert_eq!(got.len(), torn.sent + 5);
        assert!(got.ends_with(b"whole"));
    })
    .unwrap();
}

#[test]
fn cancel_write_before_it_is_submitted_sends_nothing() {
    // By the ring alone, and with the first of them sent at once.
    for direct in [0, 4] {
        let settings = Settings::default().direct_sends(direct);
        EventLoop::with(settings).unwrap().block_on(dropped_before_they_are_submitted());
    }
}

async fn dropped_before_they_are_submitted() {
    let (mut ours, theirs) = net::pair();
    for _ in 0..100 {
        let mut pending = pin!(ours.write_all("never"));
        // Dropped in the turn of its first poll: the kernel may or may not see it.
        let _ = poll_once(pending.as_mut()).await;
    }
    let mut whole = 0;
    let mut out = timeout(SOON, ours.write_all(".")).await.unwrap();
    if out.is_err() {
        // A torn one must say so, and five bytes that go out whole are no tear.
        panic!("a small write can't be torn: {:?}", ours.take_torn_write());
    }
    whole += usize::from(out.is_ok());
    out = ours.write_all(".").await;
    whole += usize::from(out.is_ok());
    ours.shutdown(Shutdown::Write).unwrap();
    let peer = read_to_end(theirs);
    assert!(settled(SOON, || peer.is_finished()).await);
    let got = peer.join().unwrap();
    assert_eq!(whole, 2);
    assert!(got.ends_with(b".."), "{got:?}");
    let words = &got[..got.len() - 2];
    assert!(words.chunks(5).all(|w| w == b"never"), "{got:?}");
    figure!("{} of 100 dropped writes had been sent", words.len() / 5);
}

/// One write after the other, each dropped at a random moment; what the tears say was sent must be what
/// the peer got, byte for byte.
#[test]
fn cancel_write_raced_against_a_reader() {
    in_child("cancel_write_raced_against_a_reader", || {
        coreloop::run(async {
            let (mut ours, theirs) = small_pair();
            let peer = std::thread::spawn(move || {
                let mut peer = theirs;
                let mut rng = Rng::new(17);
                let (mut at, mut wrong) = (0usize, None);
                let mut buf = vec![0; 64 << 10];
                loop {
                    let room = 1 + rng.below(buf.len() as u64 - 1) as usize;
                    let n = peer.read(&mut buf[..room]).unwrap();
                    if n == 0 {
                        return (at, wrong);
                    }
                    for (i, b) in buf[..n].iter().enumerate() {
                        if *b != pattern_at(at + i) && wrong.is_none() {
                            wrong = Some(at + i);
                        }
                    }
                    at += n;
                    if rng.below(16) == 0 {
                        std::thread::sleep(Duration::from_micros(rng.below(300)));
                    }
                }
            });
            let mut rng = Rng::new(13);
            let (mut at, mut torn_writes, mut dropped) = (0usize, 0, 0);
            for _ in 0..3000 {
                let len = 1 + rng.below(100_000) as usize;
                let patience = rng.below(8) as usize;
                let won = match rng.below(2) {
                    0 => race(ours.write_all(pattern(at, len)), turns(patience)).await,
                    _ => {
                        let half = len / 2;
                        let parts = vec![pattern(at, half), pattern(at + half, len - half)];
                        match race(ours.write_many(parts), turns(patience)).await {
                            Either::First(out) => {
                                Either::First(out.map(|(n, _)| (n, Vec::new())).map_err(|e| {
                                    coreloop::buf::BufError::new(e.into_parts().0, Vec::new())
                                }))
                            }
                            Either::Second(()) => Either::Second(()),
                        }
                    }
                };
                if let Either::First(out) = won {
                    at += out.unwrap().0;
                    continue;
                }
                dropped += 1;
                // An empty write waits for the end of the one that was dropped, and says if it is torn.
                let end = timeout(SOON, ours.write_all(Vec::new())).await.expect("the cancel ends");
                match (end, ours.take_torn_write()) {
                    (Err(e), Some(torn)) => {
                        assert_eq!(e.error().kind(), ErrorKind::Other);
                        assert!(
                            torn.sent > 0 && torn.sent < torn.len && torn.len == len,
                            "{torn:?}"
                        );
                        torn_writes += 1;
                        at += torn.sent;
                    }
                    (Ok(_), None) => {
                        // Nothing or all: the next bytes tell. Ask the socket how much it took.
                        at = Whole::ask(&ours, at, len);
                    }
                    (end, torn) => panic!("{end:?} with {torn:?}"),
                }
            }
            ours.shutdown(Shutdown::Write).unwrap();
            assert!(settled(SOON * 3, || peer.is_finished()).await);
            let (got, wrong) = peer.join().unwrap();
            figure!("{got} bytes, {dropped} writes dropped, {torn_writes} of them torn");
            assert_eq!(wrong, None, "the first wrong byte");
            assert_eq!(got, at, "bytes got and bytes said to be sent");
            assert!(torn_writes > 20, "only {torn_writes} were torn: the race was none");
        })
        .unwrap();
    });
}

/// What became of a dropped write of which no tear is told.
struct Whole;

impl Whole {
    /// The stream's position: `at` if nothing of the write was sent, `at + len` if all was.
    #[allow(unsafe_code)]
    fn ask(stream: &TcpStream, at: usize, len: usize) -> usize {
        use std::os::fd::{AsFd, AsRawFd};
        // Offset of `tcpi_bytes_sent`-like fields differs; TIOCOUTQ plus bytes_acked is what was taken.
        let mut info = [0u8; 256];
        let mut size = info.len() as libc::socklen_t;
        let fd = stream.as_fd().as_raw_fd();
        let mut queued = 0i32;
        let mut taken = None;
        for _ in 0..100 {
            let mut before = 0i32;
            // SAFETY: a live i32 that the call fills.
            assert_eq!(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut before) }, 0);
            // SAFETY: a live buffer of `size` bytes that the call fills.
            let rc = unsafe {
                libc::getsockopt(
                    fd,
                    libc::SOL_TCP,
                    libc::TCP_INFO,
                    info.as_mut_ptr().cast(),
                    &raw mut size,
                )
            };
            assert_eq!(rc, 0);
            // SAFETY: as above.
            assert_eq!(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut queued) }, 0);
            if before == queued {
                // `tcpi_bytes_acked` is the u64 at byte 120 of struct tcp_info; it counts the SYN... no.
                let acked = u64::from_ne_bytes(info[120..128].try_into().expect("eight bytes"));
                taken = Some(acked as usize + queued as usize);
                break;
            }
        }
        let taken = taken.expect("the queue stands still for a moment");
        // The SYN counts as one acknowledged byte of ours if we connected.
        for syn in [0, 1] {
            for end in [at, at + len] {
                if taken == end + syn {
                    return end;
                }
            }
        }
        panic!("the kernel took {taken} bytes: neither {at} nor {}", at + len);
    }
}
