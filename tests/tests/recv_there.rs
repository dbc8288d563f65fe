//! Receiving what is there before it is asked for: the receive takes a buffer along, and holds it no longer
//! than that.

use std::io::Write;

use coreloop::{EventLoop, Handle, Settings, Snapshot};
use coreloop_net::TcpStream;
use coreloop_tests::drive::pattern;
use coreloop_tests::{Rng, net, poll_once, turns};

/// Messages that are there before they are asked for, until the next one is thought to be.
async fn make_there(ours: &mut TcpStream, theirs: &mut std::net::TcpStream) {
    for round in 0..8u8 {
        theirs.write_all(&[round]).unwrap();
        assert_eq!(&*ours.recv().await.unwrap().unwrap(), &[round]);
    }
}

async fn snapshot() -> Snapshot {
    Handle::current().stats(0).await.unwrap()
}

/// Asks for a message that is not there: how many completions that brings, and whether all buffers are free
/// while it is waited for.
async fn asked_in_vain(ours: &mut TcpStream, theirs: &mut std::net::TcpStream) -> (u64, bool) {
    let before = snapshot().await.counters.completions;
    let mut asked = std::pin::pin!(ours.recv());
    for _ in 0..5 {
        assert!(poll_once(asked.as_mut()).await.is_pending(), "nothing was sent yet");
        turns(2).await;
    }
    let now = snapshot().await;
    theirs.write_all(b"late").unwrap();
    assert_eq!(&*asked.await.unwrap().unwrap(), b"late");
    (now.counters.completions - before, now.gauges.buffers_free == now.gauges.buffers)
}

fn on(settings: Settings, main: impl AsyncFnOnce()) {
    EventLoop::with(settings).unwrap().block_on(main());
}

#[test]
fn there_a_receive_that_was_wrong_waits_without_a_buffer() {
    on(Settings::default(), async || {
        let (mut ours, mut theirs) = net::pair();
        assert_eq!(asked_in_vain(&mut ours, &mut theirs).await, (0, true), "new: it is armed");
        make_there(&mut ours, &mut theirs).await;
        let missed = asked_in_vain(&mut ours, &mut theirs).await;
        assert_eq!(missed, (1, true), "one ends in vain, and the next one is armed");
        assert_eq!(asked_in_vain(&mut ours, &mut theirs).await, (0, true), "not tried again");
    });
}

#[test]
fn there_buffers_of_all_sizes_of_ring_come_back() {
    // With 16 none is spare: all of them circulate.
    for buffers in [16, 1024] {
        on(Settings::default().buffers(buffers, 4096), async || {
            let (mut ours, mut theirs) = net::pair();
            make_there(&mut ours, &mut theirs).await;
            for round in 0..3_000u32 {
                theirs.write_all(&round.to_le_bytes()).unwrap();
                assert_eq!(&*ours.recv().await.unwrap().unwrap(), round.to_le_bytes());
            }
            let gauges = snapshot().await.gauges;
            assert_eq!(
                (gauges.buffers_free, gauges.buffers),
                (u64::from(buffers), u64::from(buffers))
            );
        });
    }
}

#[test]
fn there_chunks_above_the_quota_are_copies() {
    on(Settings::default(), async || {
        let (mut ours, mut theirs) = net::pair();
        make_there(&mut ours, &mut theirs).await;
        let mut held = Vec::new();
        for round in 0..20u8 {
            theirs.write_all(&[round; 5]).unwrap();
            held.push(ours.recv().await.unwrap().unwrap());
        }
        let copies: Vec<_> = held.iter().map(|chunk| chunk.is_copy()).collect();
        assert_eq!(copies, (0..20).map(|at| at >= 8).collect::<Vec<_>>());
        for (round, chunk) in held.iter().enumerate() {
            assert_eq!(**chunk, [round as u8; 5]);
        }
        drop(held);
        let gauges = snapshot().await.gauges;
        assert_eq!(gauges.buffers_free, gauges.buffers);
    });
}

#[test]
fn there_chunks_outlive_their_loop() {
    let mut event_loop = EventLoop::new().unwrap();
    let held = event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        make_there(&mut ours, &mut theirs).await;
        let mut held = Vec::new();
        for round in 0..3u8 {
            theirs.write_all(&[round; 100]).unwrap();
            held.push(ours.recv().await.unwrap().unwrap());
        }
        // One is under way, with a buffer that it names, when the loop ends.
        assert!(poll_once(std::pin::pin!(ours.recv())).await.is_pending());
        held
    });
    drop(event_loop);
    for (round, chunk) in held.iter().enumerate() {
        assert_eq!(**chunk, [round as u8; 100]);
        assert!(!chunk.is_copy());
    }
}

#[test]
fn there_the_end_and_a_reset_are_told() {
    on(Settings::default(), async || {
        let (mut ours, mut theirs) = net::pair();
        make_there(&mut ours, &mut theirs).await;
        theirs.write_all(b"last").unwrap();
        drop(theirs);
        assert_eq!(&*ours.recv().await.unwrap().unwrap(), b"last");
        assert!(ours.recv().await.unwrap().is_none());

        let (mut ours, mut theirs) = net::pair();
        make_there(&mut ours, &mut theirs).await;
        socket2::SockRef::from(&theirs).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(theirs);
        let error = ours.recv().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

/// Messages that are there and messages that are not, small and large ones, read in every way and given up
/// half way.
#[test]
fn there_bytes_come_in_order_whatever_was_thought() {
    on(Settings::default(), async || {
        let (mut ours, mut theirs) = net::pair();
        let (mut rng, mut sent, mut got) = (Rng::new(7), 0, 0);
        let mut missed = 0;
        for _ in 0..4_000 {
            let len = if rng.below(20) == 0 { 3_000 } else { 1 + rng.below(200) as usize };
            let there = rng.below(12) != 0;
            if there {
                theirs.write_all(&pattern(sent, len)).unwrap();
                sent += len;
            } else {
                missed += 1;
                let mut asked = std::pin::pin!(ours.recv());
                assert!(poll_once(asked.as_mut()).await.is_pending(), "all was taken");
                if rng.below(2) == 0 {
                    turns(2).await;
                }
                // Given up: it stays armed.
                continue;
            }
            while got < sent {
                if rng.below(30) == 0 {
                    let n = (sent - got).min(50);
                    let (_, buf) = ours.read_exact(vec![0; n]).await.unwrap();
                    assert_eq!(buf, pattern(got, n));
                    got += n;
                } else {
                    let chunk = ours.recv().await.unwrap().unwrap();
                    assert_eq!(*chunk, pattern(got, chunk.len()));
                    got += chunk.len();
                }
            }
        }
        assert!(missed > 100, "{missed}");
        let gauges = snapshot().await.gauges;
        assert_eq!(gauges.buffers_free, gauges.buffers);
    });
}
