//! Few buffers, many streams: nobody starves, nothing is lost, memory stays bounded.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coreloop::buf::Chunk;
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Feature, Settings};
use coreloop_tests::drive::{pattern, pattern_at};
use coreloop_tests::{assert_memory_grew_less, figure, in_child, net, rss_bytes, turns};

const SOON: Duration = Duration::from_secs(30);

/// 1,000 streams through `settings`, each fed by one writer thread; gives what the loop counted. One is dead that is
/// not at its end, and none has brought anything for [`SOON`].
fn a_thousand_streams(settings: Settings) -> coreloop::Counters {
    const STREAMS: usize = 1000;
    const BYTES: usize = 20_000;
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async {
        let (ours, mut theirs): (Vec<_>, Vec<_>) = (0..STREAMS).map(|_| net::pair()).unzip();
        let writer = std::thread::spawn(move || {
            let mut at = 0;
            while at < BYTES {
                let len = 500.min(BYTES - at);
                for (i, peer) in theirs.iter_mut().enumerate() {
                    peer.write_all(&pattern(at + i, len)).unwrap();
                }
                at += len;
            }
            theirs.iter().for_each(|peer| peer.shutdown(Shutdown::Write).unwrap());
            theirs
        });
        let brought = Rc::new(Cell::new(0));
        let readers: Vec<_> = ours
            .into_iter()
            .enumerate()
            .map(|(i, mut stream)| {
                let brought = brought.clone();
                coreloop::spawn(async move {
                    let (mut got, mut wrong) = (0, 0);
                    while let Some(chunk) = stream.recv().await.unwrap() {
                        wrong += wrong_bytes(&chunk, got + i);
                        got += chunk.len();
                        brought.set(brought.get() + chunk.len());
                        // Held across a turn, as a handler would.
                        turns(1).await;
                    }
                    (got, wrong)
                })
            })
            .collect();
        let (mut dead, mut wrong) = (0, 0);
        for mut reader in readers {
            loop {
                let before = brought.get();
                match timeout(SOON, &mut reader).await {
                    Ok(end) => {
                        let (got, bad) = end.unwrap();
                        assert_eq!(got, BYTES);
                        wrong += bad;
                    }
                    Err(_) if brought.get() > before => continue,
                    Err(_) => dead += 1,
                }
                break;
            }
        }
        assert_eq!((dead, wrong), (0, 0), "dead streams, wrong bytes");
        drop(writer.join().unwrap());
    });
    event_loop.stats().counters
}

fn wrong_bytes(bytes: &[u8], at: usize) -> usize {
    bytes.iter().enumerate().filter(|(i, b)| **b != pattern_at(at + i)).count()
}

#[test]
fn resource_4_buffers_and_1000_streams() {
    in_child("resource_4_buffers_and_1000_streams", || {
        let began = Instant::now();
        let counters = a_thousand_streams(Settings::default().buffers(4, 256));
        figure!(
            "20 MB in {:?}, {} receives found no buffer, {} chunks copied",
            began.elapsed(),
            counters.buffers_out,
            counters.chunks_copied
        );
        assert!(counters.buffers_out > 100, "the ring was never short: {}", counters.buffers_out);
    });
}

#[test]
fn resource_1_buffer_and_1000_streams() {
    in_child("resource_1_buffer_and_1000_streams", || {
        let counters = a_thousand_streams(Settings::default().buffers(1, 1024));
        assert!(counters.buffers_out > 100, "the ring was never short: {}", counters.buffers_out);
    });
}

#[test]
fn resource_no_buffer_ring_and_1000_streams() {
    in_child("resource_no_buffer_ring_and_1000_streams", || {
        a_thousand_streams(Settings::default().buffers(4, 256).mask(Feature::BufferRing));
    });
}

/// A socket that keeps all it receives gets copies after its quota, and the others never notice.
#[test]
fn resource_hoarding_socket_gets_copies_and_starves_nobody() {
    in_child("resource_hoarding_socket_gets_copies_and_starves_nobody", || {
        let settings = Settings::default().buffers(16, 1024).chunk_quota(4);
        let mut event_loop = EventLoop::with(settings).unwrap();
        event_loop.block_on(async {
            let (mut hoarder, mut feeder) = net::pair();
            let mut hoard: Vec<Chunk> = Vec::new();
            let mut hoarded = 0;
            while hoard.len() < 500 {
                feeder.write_all(&pattern(hoarded, 700)).unwrap();
                let chunk = timeout(SOON, hoarder.recv()).await.expect("fed").unwrap().unwrap();
                hoarded += chunk.len();
                hoard.push(chunk);
            }
            let held = hoard.iter().filter(|c| !c.is_copy()).count();
            assert!((1..=4).contains(&held), "{held} buffers are held with a quota of 4");
            // 20 others with 12 buffers between them.
            let others: Vec<_> = (0..20)
                .map(|i| {
                    coreloop::spawn(async move {
                        let (mut stream, mut peer) = net::pair();
                        for round in 0..50 {
                            peer.write_all(&pattern(round + i, 900)).unwrap();
                            let (_, got) = stream.read_exact(vec![0; 900]).await.unwrap();
                            assert_eq!(wrong_bytes(&got, round + i), 0);
                        }
                    })
                })
                .collect();
            for other in others {
                timeout(SOON, other).await.expect("it is not starved").unwrap();
            }
            let mut at = 0;
            for chunk in &hoard {
                assert_eq!(wrong_bytes(chunk, at), 0, "a held chunk stays as it was");
                at += chunk.len();
            }
        });
        assert!(event_loop.stats().counters.chunks_copied >= 490);
    });
}

/// Chunks held by a hundred sockets use the ring up; everybody goes on with copies.
#[test]
fn resource_many_hoarders_leave_a_reserve() {
    in_child("resource_many_hoarders_leave_a_reserve", || {
        let mut event_loop = EventLoop::with(Settings::default().buffers(32, 512)).unwrap();
        event_loop.block_on(async {
            let mut hoard = Vec::new();
            let mut sockets = Vec::new();
            for i in 0..100 {
                let (mut stream, mut peer) = net::pair();
                for round in 0..8 {
                    peer.write_all(&pattern(i + round, 100)).unwrap();
                    let chunk = timeout(SOON, stream.recv()).await.expect("not starved");
                    hoard.push((i + round, chunk.unwrap().unwrap()));
                }
                sockets.push((stream, peer));
            }
            assert_eq!(hoard.len(), 800);
            let held = hoard.iter().filter(|(_, c)| !c.is_copy()).count();
            figure!("{held} of 32 buffers are held, 800 chunks are");
            assert!((1..32).contains(&held));
            for (at, chunk) in &hoard {
                assert_eq!(wrong_bytes(chunk, *at), 0);
            }
        });
    });
}

/// 1 GB is offered to 1,000 sockets whose tasks do not read, as fast as it is taken: the kernel's buffers
/// fill, ours do not. The peers' send buffers are small, so that the offer is never taken whole.
#[test]
fn resource_1000_readers_that_do_not_read() {
    in_child("resource_1000_readers_that_do_not_read", || {
        const STREAMS: usize = 1000;
        const OFFER: usize = 1_000_000_000 / STREAMS;
        let mut event_loop = EventLoop::new().unwrap();
        event_loop.block_on(async {
            let (mut ours, theirs): (Vec<_>, Vec<_>) = (0..STREAMS).map(|_| net::pair()).unzip();
            // Each has received once, so that whatever a receive sets up is there.
            for (stream, peer) in ours.iter_mut().zip(&theirs) {
                socket2::SockRef::from(peer).set_send_buffer_size(32 << 10).unwrap();
                (&mut &*peer).write_all(b"x").unwrap();
                stream.recv().await.unwrap().unwrap();
            }
            // And has a receive armed that nobody waits for.
            for stream in &mut ours {
                let mut pending = std::pin::pin!(stream.recv());
                assert!(coreloop_tests::poll_once(pending.as_mut()).await.is_pending());
            }
            turns(3).await;
            let before = rss_bytes();
            let offer = vec![0xAB; OFFER];
            let mut taken = vec![0; STREAMS];
            // Until nothing more is taken for a while: an acknowledgement may be on its way.
            let mut refused = 0;
            while refused < 20 {
                refused += 1;
                for (peer, taken) in theirs.iter().zip(&mut taken) {
                    peer.set_nonblocking(true).unwrap();
                    while *taken < OFFER
                        && let Ok(n) = (&mut &*peer).write(&offer[*taken..])
                    {
                        *taken += n;
                        refused = 0;
                    }
                }
                turns(3).await;
                sleep(Duration::from_millis(5)).await;
            }
            let grown = rss_bytes().saturating_sub(before);
            let sum: usize = taken.iter().sum();
            figure!("{} of 1,000 MB taken, our memory grew by {} KB", sum >> 20, grown >> 10);
            assert!(sum > 16 << 20, "only {sum} bytes were taken: no pressure");
            assert!(taken.iter().all(|n| *n < OFFER), "a stream took all that was offered");
            // One receive of at most one buffer (16 KiB) each is all that may lie on our side, and the
            // core's own buffers.
            assert_memory_grew_less!(grown, 32 << 20, "");
        });
    });
}

/// A peer that is slow to read holds a writer back: what was not taken stays in the one buffer given.
#[test]
fn resource_slow_reader_holds_the_writer_back() {
    in_child("resource_slow_reader_holds_the_writer_back", || {
        coreloop::run(async {
            let (mut ours, mut theirs) = net::pair();
            let before = rss_bytes();
            let chunk: std::rc::Rc<[u8]> = vec![7u8; 1 << 20].into();
            let mut written = 0usize;
            let stuck = loop {
                match timeout(Duration::from_millis(200), ours.write_all(chunk.clone())).await {
                    Ok(done) => written += done.unwrap().0,
                    Err(_) => break true,
                }
                if written > 256 << 20 {
                    break false;
                }
            };
            assert!(stuck, "{written} bytes were taken from us with nobody reading");
            let grown = rss_bytes().saturating_sub(before);
            figure!("stuck after {} KB, our memory grew by {} KB", written >> 10, grown >> 10);
            assert_memory_grew_less!(grown, 4 << 20, "");
            assert_eq!(theirs.read(&mut [0; 16]).unwrap(), 16);
        })
        .unwrap();
    });
}
