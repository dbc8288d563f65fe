//! Dropped receives lose nothing: what arrives belongs to the socket, not to the future.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use coreloop::combine::{Either, race};
use coreloop::time::{sleep, timeout};
use coreloop_net::TcpStream;
use coreloop_tests::drive::{pattern, pattern_at};
use coreloop_tests::{Rng, figure, in_child, net, poll_once, settled, turns};

/// How a test receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Chunk,
    Buffer,
}

async fn receive(stream: &mut TcpStream, by: By, room: usize) -> Vec<u8> {
    match by {
        By::Chunk => stream.recv().await.unwrap().map(|c| c.to_vec()).unwrap_or_default(),
        By::Buffer => stream.read(Vec::with_capacity(room)).await.unwrap().1,
    }
}

/// Polls a receive until it is in the kernel, has the peer write, drops it, and receives again.
fn dropped_then_received_again(first: By, second: By) {
    coreloop::run(async move {
        let (mut ours, mut theirs) = net::pair();
        let mut lost = 0;
        for round in 0..100u8 {
            {
                let mut pending = pin!(receive(&mut ours, first, 64));
                assert!(poll_once(pending.as_mut()).await.is_pending());
                turns(2).await;
                theirs.write_all(&[round; 3]).unwrap();
                // In a third of the rounds the bytes arrive before the drop is submitted; in another one
                // the receive has ended by then, and nobody has asked.
                match round % 3 {
                    0 => std::thread::sleep(Duration::from_micros(200)),
                    1 => turns(3).await,
                    _ => {}
                }
            }
            let mut got = Vec::new();
            while got.len() < 3 {
                let part = timeout(Duration::from_secs(2), receive(&mut ours, second, 64)).await;
                let Ok(part) = part else { break };
                got.extend(part);
            }
            lost += usize::from(got != [round; 3]);
        }
        assert_eq!(lost, 0, "of 100 messages, {first:?} then {second:?}");
    })
    .unwrap();
}

#[test]
fn cancel_recv_dropped_then_received_again() {
    dropped_then_received_again(By::Chunk, By::Chunk);
}

#[test]
fn cancel_read_dropped_then_read_again() {
    dropped_then_received_again(By::Buffer, By::Buffer);
}

#[test]
fn cancel_recv_dropped_then_read() {
    dropped_then_received_again(By::Chunk, By::Buffer);
}

#[test]
fn cancel_read_dropped_then_recv() {
    dropped_then_received_again(By::Buffer, By::Chunk);
}

fn received_under_a_limit(by: By) {
    coreloop::run(async move {
        let (mut ours, mut theirs) = net::pair();
        let mut lost = 0;
        for round in 0..100u8 {
            let limit = Duration::from_millis(2);
            let early = timeout(limit, receive(&mut ours, by, 64)).await;
            assert!(early.is_err(), "nothing was sent yet, but {early:?} came");
            sleep(limit).await;
            theirs.write_all(&[round]).unwrap();
            let again = timeout(Duration::from_secs(2), receive(&mut ours, by, 64)).await;
            lost += usize::from(again != Ok(vec![round]));
        }
        assert_eq!(lost, 0, "of 100 messages by {by:?}");
    })
    .unwrap();
}

#[test]
fn cancel_recv_under_a_limit() {
    received_under_a_limit(By::Chunk);
}

#[test]
fn cancel_read_under_a_limit() {
    received_under_a_limit(By::Buffer);
}

#[test]
fn cancel_recv_raced_against_data_100_000_times() {
    in_child("cancel_recv_raced_against_data_100_000_times", || {
        const RACES: usize = 100_000;
        const BYTES: usize = 8 << 20;
        let enough = Arc::new(AtomicBool::new(false));
        coreloop::run(async {
            let (mut ours, mut theirs) = net::pair();
            let enough_seen = enough.clone();
            let peer = std::thread::spawn(move || {
                let mut rng = Rng::new(7);
                let mut sent = 0;
                while !enough_seen.load(Ordering::Relaxed) {
                    let len = 1 + rng.below(150) as usize;
                    theirs.write_all(&pattern(sent, len)).unwrap();
                    sent += len;
                    if rng.below(8) == 0 {
                        std::thread::yield_now();
                    }
                }
                theirs.shutdown(Shutdown::Write).unwrap();
                // Stays open until everything was read, so that no reset can hide a loss.
                let _ = theirs.read(&mut [0; 1]);
                sent
            });
            let mut rng = Rng::new(11);
            let (mut at, mut races, mut dropped, mut ended) = (0usize, 0usize, 0usize, false);
            while !ended {
                races += 1;
                enough.store(races >= RACES && at >= BYTES, Ordering::Relaxed);
                let by = if rng.below(2) == 0 { By::Chunk } else { By::Buffer };
                let room = 1 + rng.below(600) as usize;
                let patience = rng.below(4) as usize;
                let got = match rng.below(8) {
                    0 => timeout(Duration::ZERO, receive(&mut ours, by, room)).await.ok(),
                    1 => match race(turns(patience), receive(&mut ours, by, room)).await {
                        Either::First(()) => None,
                        Either::Second(got) => Some(got),
                    },
                    _ => match race(receive(&mut ours, by, room), turns(patience)).await {
                        Either::First(got) => Some(got),
                        Either::Second(()) => None,
                    },
                };
                let Some(got) = got else {
                    dropped += 1;
                    continue;
                };
                ended = got.is_empty();
                for (i, byte) in got.iter().enumerate() {
                    assert_eq!(*byte, pattern_at(at + i), "byte {}", at + i);
                }
                at += got.len();
            }
            drop(ours);
            assert_eq!(at, peer.join().unwrap(), "bytes received and sent");
            figure!("{races} receives, {dropped} of them dropped, {at} bytes in order");
            assert!(races >= RACES, "only {races} receives");
            assert!(dropped > 1000, "only {dropped} drops: the race was none");
        })
        .unwrap();
    });
}

#[test]
fn cancel_recv_ping_pong_raced_100_000_times() {
    in_child("cancel_recv_ping_pong_raced_100_000_times", || {
        const ROUNDS: u32 = 100_000;
        coreloop::run(async {
            let (mut ours, mut theirs) = net::pair();
            let peer = std::thread::spawn(move || {
                // Answers each byte with the same one, so that each round is a race of its own.
                let mut byte = [0u8; 1];
                while theirs.read(&mut byte).unwrap() == 1 {
                    theirs.write_all(&byte).unwrap();
                }
            });
            let mut rng = Rng::new(3);
            let mut dropped = 0u32;
            for round in 0..ROUNDS {
                let byte = round as u8;
                ours.write_all(vec![byte]).await.unwrap();
                let got = loop {
                    let by = if rng.below(2) == 0 { By::Chunk } else { By::Buffer };
                    let patience = rng.below(6) as usize;
                    match race(receive(&mut ours, by, 8), turns(patience)).await {
                        Either::First(got) => break got,
                        Either::Second(()) => dropped += 1,
                    }
                };
                assert_eq!(got, [byte], "round {round}");
            }
            figure!("{ROUNDS} rounds, {dropped} receives dropped");
            assert!(dropped > ROUNDS / 10, "only {dropped} drops: the race was none");
            drop(ours);
            peer.join().unwrap();
        })
        .unwrap();
    });
}

#[test]
fn cancel_recv_then_detach_keeps_the_bytes() {
    coreloop::run(async {
        for by in [By::Chunk, By::Buffer] {
            let (mut ours, mut theirs) = net::pair();
            {
                let mut pending = pin!(receive(&mut ours, by, 64));
                assert!(poll_once(pending.as_mut()).await.is_pending());
                turns(2).await;
                theirs.write_all(b"abc").unwrap();
            }
            let detached = ours.detach().await.unwrap();
            let mut ours = detached.attach();
            theirs.write_all(b"def").unwrap();
            let mut got = Vec::new();
            while got.len() < 6 {
                let part = timeout(Duration::from_secs(5), receive(&mut ours, By::Chunk, 64)).await;
                got.extend(part.expect("six bytes were sent"));
            }
            assert_eq!(got, b"abcdef", "{by:?}");
        }
    })
    .unwrap();
}

#[test]
fn cancel_read_then_detach_keeps_the_reset() {
    coreloop::run(async {
        for turns_before_drop in [0, 3] {
            let (mut ours, theirs) = net::pair();
            {
                let mut pending = pin!(ours.read(Vec::with_capacity(64)));
                assert!(poll_once(pending.as_mut()).await.is_pending());
                turns(2).await;
                socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
                drop(theirs);
                std::thread::sleep(Duration::from_millis(5));
                turns(turns_before_drop).await;
            }
            // Either is right: the detach says it, or the next receive does. A clean end is not.
            if let Ok(detached) = ours.detach().await {
                let mut ours = detached.attach();
                let got = ours.recv().await.map(|c| c.map(|c| c.len()));
                assert!(got.is_err(), "after {turns_before_drop} turns a reset reads as {got:?}");
            }
        }
    })
    .unwrap();
}

#[test]
fn cancel_recv_drop_of_the_stream_sends_the_end_at_once() {
    coreloop::run(async {
        for by in [By::Chunk, By::Buffer] {
            let (mut ours, theirs) = net::pair();
            {
                let mut pending = pin!(receive(&mut ours, by, 64));
                assert!(poll_once(pending.as_mut()).await.is_pending());
                turns(2).await;
            }
            drop(ours);
            theirs.set_nonblocking(true).unwrap();
            let began = Instant::now();
            let ended =
                settled(Duration::from_secs(2), || matches!((&theirs).read(&mut [0; 8]), Ok(0)))
                    .await;
            assert!(ended, "no end of the stream {:?} after the drop ({by:?})", began.elapsed());
            figure!("{by:?}: the peer saw the end after {:?}", began.elapsed());
        }
    })
    .unwrap();
}

#[test]
fn cancel_read_exact_leaves_the_rest_in_the_stream() {
    coreloop::run(async {
        let (mut ours, mut theirs) = net::pair();
        theirs.write_all(b"0123456789").unwrap();
        let (_, four) = ours.read_exact(vec![0; 4]).await.unwrap();
        let (n, two) = ours.read(Vec::with_capacity(2)).await.unwrap();
        {
            let mut pending = pin!(ours.read_exact(vec![0; 100]));
            let first = poll_once(pending.as_mut()).await;
            assert!(matches!(first, Poll::Pending));
        }
        assert_eq!((&four[..], n, &two[..]), (&b"0123"[..], 2, &b"45"[..]));
        // By its docs the dropped read_exact took what had come; what comes later must be whole.
        theirs.write_all(b"next").unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"next") {
            got.extend(receive(&mut ours, By::Chunk, 64).await);
        }
        assert!(got == b"next" || got == b"6789next", "{got:?}");
    })
    .unwrap();
}
