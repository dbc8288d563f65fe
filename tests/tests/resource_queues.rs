//! Small rings under many ops: overflow loses nothing, and is counted.

use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use coreloop::op::{Nop, PollOnce, Read, submit};
use coreloop::{EventLoop, Feature, Settings};
use coreloop_tests::{fd_count, fds_settle_at, figure, in_child, net, turns};

const SOON: Duration = Duration::from_secs(20);

fn pipes(n: usize) -> (Vec<OwnedFd>, Vec<PipeWriter>) {
    let pair = || std::io::pipe().map(|(r, w): (PipeReader, _)| (OwnedFd::from(r), w)).unwrap();
    (0..n).map(|_| pair()).unzip()
}

/// 5,000 pipes (10,000 descriptors) become readable between two turns of a loop whose completion queue
/// has 128 places.
fn thousands_readable_at_once(settings: Settings) -> u64 {
    const READS: usize = 5000;
    let before = fd_count();
    let mut event_loop = EventLoop::with(settings).unwrap();
    event_loop.block_on(async {
        let (readers, mut writers) = pipes(READS);
        let reads: Vec<_> = readers
            .into_iter()
            .map(|r| coreloop::spawn(submit(Read::new(r, Vec::with_capacity(16)))))
            .collect();
        turns(3).await;
        for (i, writer) in writers.iter_mut().enumerate() {
            writer.write_all(&(i as u64).to_ne_bytes()).unwrap();
        }
        let mut right = 0;
        for (i, read) in reads.into_iter().enumerate() {
            let (n, bytes) = read.await.unwrap().unwrap();
            right += usize::from(n == 8 && bytes == (i as u64).to_ne_bytes());
        }
        assert_eq!(right, READS, "reads that brought what was theirs");
    });
    let counters = event_loop.stats().counters;
    assert_eq!(counters.stray_completions, 0);
    drop(event_loop);
    assert_eq!(fds_settle_at(before, SOON), before);
    counters.cq_overflows
}

#[test]
fn resource_5000_readable_pipes_at_128_completions() {
    in_child("resource_5000_readable_pipes_at_128_completions", || {
        let overflows =
            thousands_readable_at_once(Settings::default().ring_entries(64).cq_entries(128));
        figure!("{overflows} enters with an overflow");
        assert!(overflows > 0, "the overflow is counted");
    });
}

#[test]
fn resource_5000_readable_pipes_without_features() {
    in_child("resource_5000_readable_pipes_without_features", || {
        let bare = Feature::ALL.into_iter().fold(Settings::default(), Settings::mask);
        let overflows = thousands_readable_at_once(bare.ring_entries(64).cq_entries(128));
        figure!("{overflows} enters with an overflow");
        assert!(overflows > 0, "the overflow is counted");
    });
}

#[test]
fn resource_2000_readable_sockets_at_128_completions() {
    in_child("resource_2000_readable_sockets_at_128_completions", || {
        const SOCKETS: usize = 2000;
        let settings = Settings::default().ring_entries(64).cq_entries(128);
        let mut event_loop = EventLoop::with(settings).unwrap();
        event_loop.block_on(async {
            let (ours, mut theirs): (Vec<_>, Vec<_>) = (0..SOCKETS).map(|_| net::pair()).unzip();
            let reads: Vec<_> = ours
                .into_iter()
                .map(|mut stream| {
                    coreloop::spawn(async move {
                        let first = stream.read_exact(vec![0; 8]).await.unwrap().1;
                        (first, stream)
                    })
                })
                .collect();
            turns(3).await;
            for (i, peer) in theirs.iter_mut().enumerate() {
                peer.write_all(&(i as u64).to_ne_bytes()).unwrap();
            }
            let mut right = 0;
            for (i, read) in reads.into_iter().enumerate() {
                let (got, _stream) = read.await.unwrap();
                right += usize::from(got == (i as u64).to_ne_bytes());
            }
            assert_eq!(right, SOCKETS);
        });
        let overflows = event_loop.stats().counters.cq_overflows;
        figure!("{overflows} enters with an overflow");
        assert!(overflows > 0, "the overflow is counted");
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
