//! Small rings under many ops: overflow loses nothing, and is counted.

use std::io::{PipeReader, PipeWriter, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use coreloop::op::{Nop, PollOnce, Read, submit};
use coreloop::time::timeout;
use coreloop::{EventLoop, Feature, Settings};
use coreloop_net::TcpStream;
use coreloop_tests::process::{file_limit, own_descriptor_table};
use coreloop_tests::{fd_count, fds_settle_at, figure, in_child, poll_once, skip, turns};

const SOON: Duration = Duration::from_secs(20);

fn pipes(n: usize) -> (Vec<OwnedFd>, Vec<PipeWriter>) {
    let pair = || std::io::pipe().map(|(r, w): (PipeReader, _)| (OwnedFd::from(r), w)).unwrap();
    (0..n).map(|_| pair()).unzip()
}

/// The peers of [`ten_thousand_readable_sockets`], on a thread with a descriptor table of its own: each
/// connects to `to`, and when told to `write` its own port, as eight bytes. Each connection is `told`, and
/// that all have written.
fn peers(
    n: usize,
    to: std::net::SocketAddr,
    write: mpsc::Receiver<()>,
    told: mpsc::SyncSender<()>,
) -> std::io::Result<()> {
    let mut all = Vec::with_capacity(n);
    for _ in 0..n {
        let peer = StdStream::connect(to)?;
        // No TIME_WAIT: ten thousand of them would use up the ports of the next run.
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO))?;
        all.push(peer);
        if told.send(()).is_err() {
            return Ok(());
        }
    }
    // An end of either channel says that the test is over.
    for () in write {
        for peer in &mut all {
            let port = u64::from(peer.local_addr()?.port());
            peer.write_all(&port.to_ne_bytes())?;
        }
        if told.send(()).is_err() {
            break;
        }
    }
    Ok(())
}

/// What of a receive and its bytes is there first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// All sockets become readable between two turns of a loop that waits for all of them.
    Receives,
    /// All sockets are readable when they are asked, in one turn: each receive ends as it is submitted.
    Bytes,
}

/// 10,000 readable connections on a loop whose completion queue has 128 places. Half of them receive
/// chunks, the others into buffers of their own. Gives the counted overflows.
fn ten_thousand_readable_sockets(settings: Settings, first: First) -> u64 {
    const SOCKETS: usize = 10_000;
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let before = fd_count();
    let (write, when) = mpsc::channel();
    // No more may wait than the backlog holds: the kernel would leave the others for a second.
    let (tell, told) = mpsc::sync_channel(64);
    let peers = std::thread::spawn(move || {
        own_descriptor_table()?;
        peers(SOCKETS, addr, when, tell)
    });
    let settings = settings.ring_entries(64).cq_entries(128);
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async {
        let receive = |i: usize| {
            told.recv().expect("the peers connect");
            let (stream, peer) = listener.accept().unwrap();
            let mut stream = TcpStream::from_std(stream);
            Box::pin(async move {
                let got = if i.is_multiple_of(2) {
                    stream.recv().await.unwrap().unwrap().to_vec()
                } else {
                    stream.read_exact(vec![0; 8]).await.unwrap().1
                };
                (got == u64::from(peer.port()).to_ne_bytes(), stream)
            })
        };
        let mut receives: Vec<_> = (0..SOCKETS).map(receive).collect();
        // Both block the loop, so that it looks again when all of it is done.
        let write = || {
            write.send(()).unwrap();
            told.recv().expect("the peers write");
        };
        if first == First::Bytes {
            write();
        }
        // By one task: a turn that polls many has a quota of time.
        for receive in &mut receives {
            assert!(poll_once(receive.as_mut()).await.is_pending());
        }
        if first == First::Receives {
            turns(2).await;
            write();
        }
        let mut right = 0;
        for receive in receives {
            right += usize::from(timeout(SOON, receive).await.expect("it was sent").0);
        }
        assert_eq!(right, SOCKETS, "sockets that brought what was theirs");
    });
    drop(write);
    peers.join().unwrap().unwrap();
    let counters = event_loop.stats().counters;
    assert_eq!(counters.stray_completions, 0);
    drop(event_loop);
    assert_eq!(fds_settle_at(before, SOON), before);
    counters.cq_overflows
}

/// Whether there are descriptors for [`ten_thousand_readable_sockets`], and a table for those of the peers.
fn room_for_ten_thousand() -> Result<(), String> {
    let limit = file_limit();
    if limit < 10_100 {
        return Err(format!("only {limit} descriptors may be open"));
    }
    let tried = std::thread::spawn(own_descriptor_table).join().unwrap();
    tried.map_err(|e| format!("no descriptor table of a thread's own: {e}"))
}

#[test]
fn resource_10_000_readable_sockets_at_128_completions() {
    in_child("resource_10_000_readable_sockets_at_128_completions", || {
        if let Err(why) = room_for_ten_thousand() {
            skip!("{why}");
        }
        let overflows = ten_thousand_readable_sockets(Settings::default(), First::Bytes);
        figure!("{overflows} enters with an overflow");
        assert!(overflows > 0, "the overflow is counted");
    });
}

/// Nothing is said of overflows: where task work is deferred (6.1) the kernel keeps what has no room.
#[test]
fn resource_10_000_sockets_become_readable_at_128_completions() {
    in_child("resource_10_000_sockets_become_readable_at_128_completions", || {
        if let Err(why) = room_for_ten_thousand() {
            skip!("{why}");
        }
        let overflows = ten_thousand_readable_sockets(Settings::default(), First::Receives);
        figure!("{overflows} enters with an overflow");
    });
}

#[test]
fn resource_10_000_readable_sockets_without_features() {
    in_child("resource_10_000_readable_sockets_without_features", || {
        if let Err(why) = room_for_ten_thousand() {
            skip!("{why}");
        }
        let bare = Feature::ALL.into_iter().fold(Settings::default(), Settings::mask);
        for first in [First::Receives, First::Bytes] {
            let overflows = ten_thousand_readable_sockets(bare.clone(), first);
            figure!("{overflows} enters with an overflow");
            assert!(overflows > 0, "the overflow is counted");
        }
    });
}

#[test]
fn resource_overflow_at_the_end_of_the_loop_leaks_nothing() {
    in_child("resource_overflow_at_the_end_of_the_loop_leaks_nothing", || {
        let before = fd_count();
        let mut event_loop =
            EventLoop::with(Settings::default().ring_entries(8).cq_entries(16)).unwrap();
        let (readers, mut writers) = pipes(3000);
        for r in readers {
            drop(event_loop.spawn(submit(Read::new(r, Vec::with_capacity(16)))));
        }
        for _ in 0..5 {
            event_loop.turn(Some(Duration::ZERO));
        }
        // Half of them complete while the loop is not looking, the other half never would.
        for writer in &mut writers[..1500] {
            writer.write_all(b"x").unwrap();
        }
        let began = Instant::now();
        let report = event_loop.close(SOON);
        figure!("closed in {:?}", began.elapsed());
        assert_eq!((report.tasks_cancelled, report.ops_leaked), (3000, 0));
        drop(writers);
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}

#[test]
fn resource_100_000_ops_through_a_ring_of_8() {
    coreloop_tests::in_child("resource_100_000_ops_through_a_ring_of_8", || {
        let mut event_loop =
            EventLoop::with(Settings::default().ring_entries(8).cq_entries(16)).unwrap();
        event_loop.block_on(async {
            let tasks: Vec<_> = (0..1000)
                .map(|_| {
                    coreloop::spawn(async {
                        for _ in 0..100 {
                            submit(Nop).await.unwrap();
                        }
                        1
                    })
                })
                .collect();
            let mut ended = 0;
            for task in tasks {
                ended += task.await.unwrap();
            }
            assert_eq!(ended, 1000);
        });
        let counters = event_loop.stats().counters;
        assert!(counters.completions >= 100_000, "{}", counters.completions);
        figure!("{} enters, {} early", counters.enters, counters.early_flushes);
    });
}

#[test]
fn resource_polls_of_one_descriptor_all_answer() {
    coreloop_tests::in_child("resource_polls_of_one_descriptor_all_answer", || {
        coreloop::run(async {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let polls: Vec<_> = (0..500)
                .map(|_| {
                    let fd = OwnedFd::from(reader.try_clone().unwrap());
                    coreloop::spawn(submit(PollOnce::new(fd, libc::POLLIN as u32)))
                })
                .collect();
            turns(3).await;
            writer.write_all(b"x").unwrap();
            let mut ready = 0;
            for poll in polls {
                ready += usize::from(poll.await.unwrap().unwrap() & libc::POLLIN as u32 != 0);
            }
            assert_eq!(ready, 500);
        })
        .unwrap();
    });
}
