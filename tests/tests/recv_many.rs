//! Receiving for busy connections: bytes come unasked, in order, and not without bounds.

use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::task::Poll;
use std::time::Duration;

use coreloop::{EventLoop, Feature, Settings};
use coreloop_net::TcpStream;
use coreloop_tests::drive::pattern;
use coreloop_tests::net::{NO_MULTISHOT, almost_busy, receiving_many};
use coreloop_tests::{Rng, figure, net, poll_once, skip, turns};

/// Messages that are waited for, until the connection is taken for a busy one.
async fn make_busy(ours: &mut TcpStream, theirs: &mut std::net::TcpStream) {
    almost_busy(ours, theirs).await;
    // Asked for once more, it is armed; dropped, it stays so. A kernel that knows no limit of it (before 6.17)
    // refuses a core's first one, and is asked without.
    for _ in 0..2 {
        assert!(poll_once(std::pin::pin!(ours.recv())).await.is_pending());
        turns(2).await;
    }
}

/// Bytes that lie in the kernel's buffer, at most 8 MiB.
fn in_kernel(stream: &TcpStream) -> usize {
    let mut place = vec![MaybeUninit::uninit(); 8 << 20];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    match stream.socket().recv_with_flags(&mut place, flags) {
        Ok(n) => n,
        Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
        Err(e) => panic!("{e}"),
    }
}

/// Sends two messages with nobody asking; how much of them the kernel still has.
fn left_unasked(settings: Settings, busy: bool) -> usize {
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async move {
        let (mut ours, mut theirs) = net::pair();
        if busy {
            make_busy(&mut ours, &mut theirs).await;
        }
        for message in ["one", "another"] {
            theirs.write_all(message.as_bytes()).unwrap();
            turns(5).await;
        }
        let left = in_kernel(&ours);
        let mut got = Vec::new();
        while got.len() < 10 {
            got.extend_from_slice(&ours.recv().await.unwrap().unwrap());
        }
        assert_eq!(got, b"oneanother");
        left
    })
}

#[test]
fn many_a_busy_connection_is_received_for_unasked() {
    if receiving_many(Settings::default()).is_none() {
        skip!("{NO_MULTISHOT}");
    }
    assert_eq!(left_unasked(Settings::default(), true), 0, "busy: all of it is here");
    assert_eq!(left_unasked(Settings::default(), false), 10, "new: nothing was asked for");
    let masked = Settings::default().mask(Feature::MultishotRecv);
    assert_eq!(left_unasked(masked, true), 7, "without: one receive was armed, and no more");
}

#[test]
fn many_a_reader_that_does_not_keep_up_pushes_back() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        make_busy(&mut ours, &mut theirs).await;
        theirs.set_nonblocking(true).unwrap();
        // Until the peer can send no more, while nobody reads here.
        let (mut sent, mut blocked) = (0usize, 0);
        while blocked < 20 {
            let piece = pattern(sent, 1000);
            match theirs.write(&piece) {
                Ok(n) => (sent, blocked) = (sent + n, 0),
                Err(e) if e.kind() == ErrorKind::WouldBlock => blocked += 1,
                Err(e) => panic!("{e}"),
            }
            turns(2).await;
            assert!(sent < 64 << 20, "nobody pushes back");
        }
        let held = sent - in_kernel(&ours);
        figure!("{held} bytes of a peer that was stopped are here or on their way");
        let mut at = 0;
        while at < sent {
            let chunk = ours.recv().await.unwrap().unwrap();
            assert!(*chunk == *pattern(at, chunk.len()), "at {at}");
            at += chunk.len();
        }
    });
}

#[test]
fn many_forms_of_reading_take_turns_without_a_gap() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        let mut rng = Rng::new(7);
        let (mut sent, mut at) = (0usize, 0usize);
        for round in 0..4000 {
            // Long runs of small messages, so that both forms of receiving come and go.
            let size = if round % 500 < 400 { rng.below(40) + 1 } else { rng.below(20_000) + 1 };
            let size = size as usize;
            theirs.write_all(&pattern(sent, size)).unwrap();
            sent += size;
            while at < sent {
                let how = if round % 100 < 90 { 0 } else { rng.below(4) };
                let bytes = match how {
                    0 => ours.recv().await.unwrap().unwrap().to_vec(),
                    1 => ours.read(Vec::with_capacity(17)).await.unwrap().1,
                    2 => {
                        let n = (rng.below(9) as usize + 1).min(sent - at);
                        ours.read_exact(vec![0; n]).await.unwrap().1
                    }
                    _ => match poll_once(std::pin::pin!(ours.recv())).await {
                        Poll::Ready(got) => got.unwrap().unwrap().to_vec(),
                        Poll::Pending => continue,
                    },
                };
                assert!(*bytes == *pattern(at, bytes.len()), "round {round}, at {at}");
                at += bytes.len();
            }
            if round % 7 == 0 {
                turns(1).await;
            }
        }
        assert_eq!((at, in_kernel(&ours)), (sent, 0));
    });
}

#[test]
fn many_unread_bytes_move_with_the_connection() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        for round in 0..20 {
            make_busy(&mut ours, &mut theirs).await;
            // Some in the op, some in the kernel, some on the way.
            for part in 0..6u8 {
                theirs.write_all(&[part; 100]).unwrap();
                if part % 2 == 0 {
                    turns(3).await;
                }
            }
            ours = ours.detach().await.unwrap().attach();
            let (_, got) = ours.read_exact(vec![9; 600]).await.unwrap();
            let wanted: Vec<u8> = (0..6u8).flat_map(|part| [part; 100]).collect();
            assert!(got == wanted, "round {round}");
        }
    });
}

#[test]
fn many_the_end_comes_after_what_was_received() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        make_busy(&mut ours, &mut theirs).await;
        theirs.write_all(b"last").unwrap();
        turns(3).await;
        theirs.write_all(b" words").unwrap();
        drop(theirs);
        turns(5).await;
        let mut got = Vec::new();
        while let Some(chunk) = ours.recv().await.unwrap() {
            got.extend_from_slice(&chunk);
        }
        assert_eq!(got, b"last words");
        assert!(ours.recv().await.unwrap().is_none(), "and again");
    });
}

#[test]
fn many_a_reset_is_told_after_what_was_received() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        make_busy(&mut ours, &mut theirs).await;
        theirs.write_all(b"taken").unwrap();
        turns(3).await;
        socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        turns(3).await;
        assert_eq!(&*ours.recv().await.unwrap().unwrap(), b"taken");
        let error = ours.recv().await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    });
}

#[test]
fn many_a_dropped_connection_is_closed() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        make_busy(&mut ours, &mut theirs).await;
        theirs.set_nonblocking(true).unwrap();
        drop(ours);
        turns(5).await;
        // An armed receive would hold the socket, and no end would leave.
        let mut byte = [0];
        assert_eq!(theirs.read(&mut byte).unwrap(), 0);
    });
}

#[test]
fn many_without_a_buffer_left_it_waits_for_one() {
    let settings = Settings::default().buffers(8, 4096);
    let Some(mut event_loop) = receiving_many(settings) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        make_busy(&mut ours, &mut theirs).await;
        // Others hold what there is, up to the last buffers, from which copies are made.
        let mut hoards = Vec::new();
        for _ in 0..8 {
            let (mut other, mut far) = net::pair();
            far.write_all(b"kept").unwrap();
            hoards.push((other.recv().await.unwrap().unwrap(), other, far));
        }
        for round in 0..1000usize {
            let message = pattern(round, round % 50 + 1);
            theirs.write_all(&message).unwrap();
            let (_, got) = ours.read_exact(vec![0; message.len()]).await.unwrap();
            assert!(got == message, "round {round}");
        }
    });
}
