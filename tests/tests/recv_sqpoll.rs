//! Receiving in all of its ways where a thread of the kernel submits: bytes come back as they were sent.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use coreloop::{EventLoop, Feature, Handle, Settings, spawn};
use coreloop_net::TcpStream;
use coreloop_tests::drive::pattern;
use coreloop_tests::net::{self, NO_MULTISHOT, PATIENCE, almost_busy};
use coreloop_tests::{Rng, figure, in_child, poll_once, skip, turns};

/// A loop with a submitting thread that falls asleep now and then; none where the kernel gives none.
fn with_sqpoll(idle: Duration) -> Option<EventLoop> {
    let event_loop = EventLoop::with(
        Settings::default().sqpoll(Some(idle)).flush_interval(Some(Duration::from_micros(1))),
    )
    .unwrap();
    let there = event_loop.ring_report().in_force.contains(Feature::SqPoll);
    there.then_some(event_loop)
}

const NO_SQPOLL: &str = "this kernel gives no submitting thread";

fn in_kernel(stream: &TcpStream) -> usize {
    let mut place = [MaybeUninit::uninit(); 64];
    stream.socket().recv_with_flags(&mut place, libc::MSG_PEEK | libc::MSG_DONTWAIT).unwrap_or(0)
}

/// Sends a piece and has it echoed by way of `ours`, which reads by `recv`.
async fn echo(ours: &mut TcpStream, theirs: &mut std::net::TcpStream, at: &mut usize, len: usize) {
    let sent = pattern(*at, len);
    *at += len;
    theirs.write_all(&sent).unwrap();
    let mut left = len;
    while left > 0 {
        let chunk = ours.recv().await.unwrap().expect("it has not ended");
        left = left.checked_sub(chunk.len()).expect("no more than was sent");
        ours.write_all(chunk).await.unwrap();
    }
    let mut back = vec![0; len];
    theirs.read_exact(&mut back).unwrap();
    assert!(back == sent, "{len} bytes up to {at}");
}

/// One that waits before anything is there: a single receive with buffer selection.
async fn single(ours: &mut TcpStream, theirs: &mut std::net::TcpStream, message: &[u8]) {
    let mut asked = std::pin::pin!(ours.recv());
    assert!(poll_once(asked.as_mut()).await.is_pending(), "nothing was sent yet");
    turns(2).await;
    theirs.write_all(message).unwrap();
    assert_eq!(&*asked.await.unwrap().unwrap(), message);
}

/// After messages that were there the next one is thought to be, and its receive takes a buffer along. Here it
/// is not there: that receive ends without a byte, and one that waits follows it. Whether it was such a one:
/// where the thread is slow to submit, messages look as if they had been waited for.
async fn named_in_vain(ours: &mut TcpStream, theirs: &mut std::net::TcpStream) -> bool {
    for round in 0..16 {
        theirs.write_all(&[round]).unwrap();
        // Submitted early in a long turn, at whose end it has come.
        let slow = (0..50).map(|_| spawn(async { std::thread::sleep(Duration::from_micros(20)) }));
        let slow: Vec<_> = slow.collect();
        assert_eq!(&*ours.recv().await.unwrap().unwrap(), &[round]);
        drop(slow);
    }
    let completions = || Handle::current().snapshot(0).unwrap().counters.completions;
    let before = completions();
    let mut asked = std::pin::pin!(ours.recv());
    for _ in 0..20 {
        assert!(poll_once(asked.as_mut()).await.is_pending(), "nothing was sent yet");
        turns(1).await;
        std::thread::sleep(Duration::from_millis(1));
    }
    let named = completions() > before;
    theirs.write_all(b"late").unwrap();
    assert_eq!(&*asked.await.unwrap().unwrap(), b"late");
    named
}

#[test]
fn sqpoll_echoes_bytes_of_single_named_and_multishot_receives() {
    in_child("sqpoll_echoes_bytes_of_single_named_and_multishot_receives", || {
        for idle in [Duration::from_millis(1), Duration::from_millis(200)] {
            let Some(mut event_loop) = with_sqpoll(idle) else { skip!("{NO_SQPOLL}") };
            event_loop.block_on(async {
                let (mut ours, mut theirs) = net::pair();
                let mut at = 0;
                let mut rng = Rng::new(11);
                for round in 0..5u8 {
                    single(&mut ours, &mut theirs, &[round; 9]).await;
                }
                // There before they are asked for, far more of them than make the next one a named receive.
                for round in 0..400 {
                    let len = rng.below(60) as usize + 1;
                    if round % 40 == 39 {
                        std::thread::sleep(3 * Duration::from_millis(1)); // The thread sleeps as well.
                    }
                    echo(&mut ours, &mut theirs, &mut at, len).await;
                }
                let mut named = 0;
                for _ in 0..2 {
                    named += usize::from(named_in_vain(&mut ours, &mut theirs).await);
                }
                figure!("{named} of 2 receives looked whether a message was there");
                // Waited for often enough that it is armed for many, and back.
                for _ in 0..3 {
                    almost_busy(&mut ours, &mut theirs).await;
                    for _ in 0..200 {
                        let len = rng.below(60) as usize + 1;
                        echo(&mut ours, &mut theirs, &mut at, len).await;
                    }
                    echo(&mut ours, &mut theirs, &mut at, 100_000).await;
                }
            });
            assert_eq!(event_loop.stats().counters.stray_completions, 0);
            assert_eq!(event_loop.close(PATIENCE).ops_leaked, 0);
        }
    });
}

#[test]
fn sqpoll_a_busy_connection_is_received_for_unasked() {
    in_child("sqpoll_a_busy_connection_is_received_for_unasked", || {
        let Some(mut event_loop) = with_sqpoll(Duration::from_millis(1)) else {
            skip!("{NO_SQPOLL}")
        };
        if !event_loop.ring_report().in_force.contains(Feature::MultishotRecv) {
            skip!("{NO_MULTISHOT}");
        }
        event_loop.block_on(async {
            let (mut ours, mut theirs) = net::pair();
            almost_busy(&mut ours, &mut theirs).await;
            // The first receive for many tells whether this kernel takes a limit of it (6.17).
            single(&mut ours, &mut theirs, b"for many").await;
            // Asked for once more, it is armed; dropped, it stays so.
            assert!(poll_once(std::pin::pin!(ours.recv())).await.is_pending());
            turns(2).await;
            let until = Instant::now() + PATIENCE;
            let mut got = Vec::new();
            for message in ["one", "another", "and a third"] {
                theirs.write_all(message.as_bytes()).unwrap();
                while in_kernel(&ours) > 0 {
                    assert!(Instant::now() < until, "nobody takes {message:?}");
                    turns(1).await;
                }
            }
            while got.len() < 21 {
                got.extend_from_slice(&ours.recv().await.unwrap().unwrap());
            }
            assert_eq!(got, b"oneanotherand a third");
            drop(theirs);
            assert!(ours.recv().await.unwrap().is_none(), "the end is told");
        });
        figure!("{} enters", event_loop.stats().counters.enters);
        assert_eq!(event_loop.close(PATIENCE).ops_leaked, 0);
    });
}
