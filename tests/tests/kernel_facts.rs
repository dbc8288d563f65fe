//! Facts about descriptors and sends that the design rests on, shown on raw rings, and that coreloop is
//! not bitten by them. Where a kernel shows something else, the test says so and is skipped.
#![allow(unsafe_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream as StdStream;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::time::Duration;

use coreloop::{EventLoop, Settings};
use coreloop_tests::{figure, in_child, net, poll_once, settled, skip, turns};
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};

/// Puts a submission into the queue.
fn push(ring: &mut IoUring, entry: &Entry) {
    // SAFETY: every caller keeps the memory that the entry names until its completion, or until the ring
    // is gone.
    unsafe { ring.submission().push(entry) }.expect("the queue has room");
}

/// Completions that are there: user data, result, flags.
fn completions(ring: &mut IoUring) -> Vec<(u64, i32, u32)> {
    ring.completion().map(|c| (c.user_data(), c.result(), c.flags())).collect()
}

/// Enters until `n` completions are there, at most for `limit`.
fn wait_for(ring: &mut IoUring, n: usize, limit: Duration) -> Vec<(u64, i32, u32)> {
    let mut all = Vec::new();
    let until = std::time::Instant::now() + limit;
    while all.len() < n && std::time::Instant::now() < until {
        let timespec = types::Timespec::new().nsec(5_000_000);
        let args = types::SubmitArgs::new().timespec(&timespec);
        match ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ETIME | libc::EINTR)) => {}
            Err(e) => panic!("{e}"),
        }
        all.extend(completions(ring));
    }
    all
}

const SOON: Duration = Duration::from_secs(5);

fn recv_within(socket: &StdStream, limit: Duration) -> Vec<u8> {
    socket.set_read_timeout(Some(limit)).unwrap();
    let mut buf = [0; 64];
    match (&mut &*socket).read(&mut buf) {
        Ok(n) => buf[..n].to_vec(),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Vec::new(),
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn kernel_fact_a_queued_send_goes_to_whoever_has_the_number_by_then() {
    in_child("kernel_fact_a_queued_send_goes_to_whoever_has_the_number_by_then", || {
        let mut ring = IoUring::new(8).unwrap();
        let (ours, _theirs) = net::std_pair();
        let (stranger, strangers_peer) = net::std_pair();
        let number = ours.into_raw_fd();
        let secret = b"secret";
        let send = opcode::Send::new(types::Fd(number), secret.as_ptr(), secret.len() as u32);
        push(&mut ring, &send.build());
        // SAFETY: the descriptor is ours; `dup2` closes it and gives the number to the stranger.
        assert_eq!(unsafe { libc::dup2(stranger.as_raw_fd(), number) }, number);
        ring.submit_and_wait(1).unwrap();
        let got = recv_within(&strangers_peer, SOON);
        if got != secret {
            skip!("this kernel did not deliver to the stranger");
        }
        close(number);
    });
}

fn close(fd: RawFd) {
    // SAFETY: the callers own the number.
    unsafe { libc::close(fd) };
}

/// The same with our runtime: a write is queued, its stream dropped, the number used again, all in one
/// turn.
#[test]
fn kernel_fact_a_queued_write_never_reaches_a_stranger() {
    in_child("kernel_fact_a_queued_write_never_reaches_a_stranger", || {
        let queues = Settings::default().direct_sends(0);
        EventLoop::with(queues).unwrap().block_on(async {
            let (mut stray, mut same_number) = (0, 0);
            for round in 0..100 {
                let (mut ours, theirs) = net::pair();
                let number = std::os::fd::AsFd::as_fd(&ours).as_raw_fd();
                {
                    let mut write = pin!(ours.write_all("secret"));
                    assert!(poll_once(write.as_mut()).await.is_pending());
                    turns(round % 2).await;
                }
                drop(ours);
                // Strangers on the lowest free numbers, before the loop has looked.
                let strangers: Vec<_> = (0..4).map(|_| net::std_pair()).collect();
                let all = || strangers.iter().flat_map(|(a, b)| [a, b]);
                same_number += usize::from(all().any(|s| s.as_raw_fd() == number));
                turns(3).await;
                for s in all() {
                    s.set_nonblocking(true).unwrap();
                    stray += usize::from((&mut &*s).read(&mut [0; 8]).is_ok());
                }
                // The peer sees all or nothing, then the end.
                theirs.set_nonblocking(true).unwrap();
                let mut got = Vec::new();
                let ended = settled(SOON, || {
                    let mut buf = [0; 16];
                    match (&theirs).read(&mut buf) {
                        Ok(0) => true,
                        Ok(n) => {
                            got.extend_from_slice(&buf[..n]);
                            false
                        }
                        Err(e) => e.kind() == ErrorKind::ConnectionReset,
                    }
                })
                .await;
                assert!(ended && (got.is_empty() || got == b"secret"), "{got:?}");
            }
            figure!("the number was used again at once in {same_number} of 100 rounds");
            assert_eq!(stray, 0, "bytes in a stranger's socket");
        });
    });
}

#[test]
fn kernel_fact_an_armed_multishot_receive_holds_the_end_back() {
    in_child("kernel_fact_an_armed_multishot_receive_holds_the_end_back", || {
        let mut ring = IoUring::new(8).unwrap();
        let (ours, theirs) = net::std_pair();
        let mut memory = vec![0u8; 4096];
        let give = opcode::ProvideBuffers::new(memory.as_mut_ptr(), 1024, 4, 7, 0).build();
        push(&mut ring, &give.user_data(1));
        assert!(wait_for(&mut ring, 1, SOON)[0].1 >= 0);
        let recv = opcode::RecvMulti::new(types::Fd(ours.as_raw_fd()), 7).build().user_data(2);
        push(&mut ring, &recv);
        ring.submit().unwrap();
        drop(ours);
        theirs.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let early = (&theirs).read(&mut [0; 8]);
        let cancel = opcode::AsyncCancel::new(2).build().user_data(3);
        push(&mut ring, &cancel);
        assert_eq!(wait_for(&mut ring, 2, SOON).len(), 2);
        theirs.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!((&theirs).read(&mut [0; 8]).unwrap(), 0, "after the cancel the end comes");
        match early {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            other => skip!("this kernel sent the end at once: {other:?}"),
        }
        drop(memory);
    });
}

/// Fills a socket until the kernel takes no more.
fn fill(socket: &StdStream) -> usize {
    socket.set_nonblocking(true).unwrap();
    let (block, mut taken) = ([b'.'; 65_536], 0);
    while let Ok(n) = (&mut &*socket).write(&block) {
        taken += n;
    }
    socket.set_nonblocking(false).unwrap();
    taken
}

#[test]
fn kernel_fact_two_sends_in_one_submit_interleave() {
    in_child("kernel_fact_two_sends_in_one_submit_interleave", || {
        // Far more than the buffers hold, so that both wait for room again and again.
        const LEN: usize = 32 << 20;
        let mut ring = IoUring::new(8).unwrap();
        let (ours, mut theirs) = net::std_pair();
        let filled = fill(&ours);
        let bufs = [vec![b'A'; LEN], vec![b'B'; LEN]];
        for (i, buf) in bufs.iter().enumerate() {
            let send =
                opcode::Send::new(types::Fd(ours.as_raw_fd()), buf.as_ptr(), buf.len() as u32)
                    .flags(libc::MSG_WAITALL)
                    .build();
            push(&mut ring, &send.user_data(i as u64));
        }
        ring.submit().unwrap();
        let total = filled + 2 * LEN;
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; total];
            theirs.read_exact(&mut got).map(|()| got)
        });
        let ends = wait_for(&mut ring, 2, SOON);
        assert!(ends.iter().all(|(_, n, _)| *n == LEN as i32), "{ends:?}");
        let got = reader.join().unwrap().unwrap();
        let changes = got[filled..].windows(2).filter(|w| w[0] != w[1]).count();
        figure!("{changes} changes between the two senders' bytes");
        if changes <= 1 {
            skip!("the two did not interleave this time");
        }
    });
}

/// What our runtime does instead: one send in flight per socket, the next waits.
#[test]
fn kernel_fact_two_writes_never_interleave() {
    in_child("kernel_fact_two_writes_never_interleave", || {
        coreloop::run(async {
            for _ in 0..5 {
                let (mut ours, mut theirs) = net::pair();
                {
                    let mut first = pin!(ours.write_all(vec![b'A'; 24 << 20]));
                    assert!(poll_once(first.as_mut()).await.is_pending());
                    turns(2).await;
                }
                let reader = std::thread::spawn(move || {
                    let mut got = Vec::new();
                    theirs.read_to_end(&mut got).map(|_| got)
                });
                // The first one was dropped half way and may still be in the kernel: this one waits for
                // its end, and is refused then.
                assert!(ours.write_all(vec![b'B'; 1000]).await.is_err());
                let torn = ours.take_torn_write().expect("24 MiB do not fit");
                ours.write_all(vec![b'B'; 1000]).await.unwrap();
                drop(ours);
                assert!(settled(SOON, || reader.is_finished()).await);
                let got = reader.join().unwrap().unwrap();
                assert_eq!(got.len(), torn.sent + 1000);
                assert!(got[..torn.sent].iter().all(|b| *b == b'A'));
                assert!(got[torn.sent..].iter().all(|b| *b == b'B'));
            }
        })
        .unwrap();
    });
}

#[test]
fn kernel_fact_a_send_that_skips_success_answers_only_what_is_left() {
    in_child("kernel_fact_a_send_that_skips_success_answers_only_what_is_left", || {
        let mut ring = IoUring::new(8).unwrap();
        let (ours, _theirs) = net::std_pair();
        let fd = types::Fd(ours.as_raw_fd());
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL;
        let big = vec![0u8; 64 << 20];
        let send = |len: usize, data: u64| {
            opcode::Send::new(fd, big.as_ptr(), len as u32)
                .flags(flags)
                .build()
                .flags(Flags::SKIP_SUCCESS)
                .user_data(data)
        };
        push(&mut ring, &send(100, 1));
        ring.submit().unwrap();
        let full = completions(&mut ring);
        push(&mut ring, &send(big.len(), 2));
        ring.submit().unwrap();
        let partial = completions(&mut ring);
        fill(&ours);
        push(&mut ring, &send(100, 3));
        ring.submit().unwrap();
        let none = completions(&mut ring);
        figure!("full {full:?}, partial {partial:?}, none {none:?}");
        let partial_says =
            partial.len() == 1 && partial[0].1 > 0 && (partial[0].1 as usize) < big.len();
        let none_says = none.len() == 1 && none[0].1 == -libc::EAGAIN;
        if !full.is_empty() || !partial_says || !none_says {
            skip!("this kernel answers otherwise: {full:?} {partial:?} {none:?}");
        }
    });
}

#[test]
fn kernel_fact_a_cancelled_links_tail_runs_nevertheless() {
    in_child("kernel_fact_a_cancelled_links_tail_runs_nevertheless", || {
        let mut ring = IoUring::new(8).unwrap();
        let (head_reader, mut head_writer) = std::io::pipe().unwrap();
        let (mut tail_reader, tail_writer) = std::io::pipe().unwrap();
        let (head, tail) = (OwnedFd::from(head_reader), OwnedFd::from(tail_writer));
        let (mut byte, word) = ([0u8; 1], b"ran");
        let read = opcode::Read::new(types::Fd(head.as_raw_fd()), byte.as_mut_ptr(), 1).build();
        push(&mut ring, &read.flags(Flags::IO_LINK).user_data(1));
        let write = opcode::Write::new(types::Fd(tail.as_raw_fd()), word.as_ptr(), 3).build();
        push(&mut ring, &write.user_data(2));
        ring.submit().unwrap();
        push(&mut ring, &opcode::AsyncCancel::new(2).build().user_data(3));
        let answer = wait_for(&mut ring, 1, SOON);
        head_writer.write_all(b"x").unwrap();
        let ends = wait_for(&mut ring, 2, SOON);
        drop(tail);
        let mut ran = Vec::new();
        tail_reader.read_to_end(&mut ran).unwrap();
        figure!("the cancel answered {answer:?}, then {ends:?}");
        if answer != [(3, -libc::ENOENT, 0)] || ran != word {
            skip!("this kernel cancels the tail of a link: {answer:?}, {ran:?}");
        }
    });
}
