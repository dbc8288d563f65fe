//! Facts about rings, buffers and wakes that the design rests on, shown on raw rings, and that coreloop is
//! not bitten by them. Where a kernel shows something else, the test says so and is skipped.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use coreloop::op::{Nop, submit};
use coreloop::{EventLoop, Feature, Handle, Missing};
use coreloop_tests::process::is_root;
use coreloop_tests::{Child, fd_count, fds_settle_at, figure, in_child, net, skip};
use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};

const SOON: Duration = Duration::from_secs(5);

fn push(ring: &mut IoUring, entry: &Entry) {
    // SAFETY: every caller keeps the memory that the entry names until its completion, or until the ring
    // is gone.
    unsafe { ring.submission().push(entry) }.expect("the queue has room");
}

fn completions(ring: &mut IoUring) -> Vec<(u64, i32, u32)> {
    ring.completion().map(|c| (c.user_data(), c.result(), c.flags())).collect()
}

/// `io_uring_enter` with flags of our own; the crate sets GETEVENTS only where it sees a reason.
fn enter(ring: &IoUring, to_submit: u32, min_complete: u32, flags: u32) -> io::Result<u32> {
    let (fd, none) = (ring.as_raw_fd(), std::ptr::null::<u8>());
    // SAFETY: a ring of ours, no signal mask.
    let rc = unsafe {
        libc::syscall(libc::SYS_io_uring_enter, fd, to_submit, min_complete, flags, none, 0usize)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc as u32) }
}

/// A ring of entries of the ordinary size.
fn builder() -> io_uring::Builder<Entry, io_uring::cqueue::Entry> {
    IoUring::builder()
}

const GETEVENTS: u32 = 1;

/// Writes fields of a submission that the crate has no name for.
fn patch(mut entry: Entry, offset: usize, bytes: &[u8]) -> Entry {
    assert!(offset + bytes.len() <= size_of::<Entry>() && size_of::<Entry>() == 64);
    // SAFETY: an Entry is the 64 plain bytes of a struct io_uring_sqe (repr(C)), all patterns valid.
    unsafe {
        let at = (&raw mut entry).cast::<u8>().add(offset);
        at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
    entry
}

/// Offset of `ioprio` in a submission, and its bits for receives.
const IOPRIO: usize = 2;
const POLL_FIRST: u16 = 1;
const RECV_MULTISHOT: u16 = 2;

/// Gives the ring `n` buffers of 1 KiB in group 7.
fn give_buffers(ring: &mut IoUring, memory: &mut [u8], n: u16) {
    let give = opcode::ProvideBuffers::new(memory.as_mut_ptr(), 1024, n, 7, 0).build();
    push(ring, &give.user_data(99));
    ring.submit_and_wait(1).unwrap();
    assert!(completions(ring)[0].1 >= 0);
}

#[test]
fn kernel_ring_multishot_receive_without_buffers_ends_at_once() {
    let mut ring = IoUring::new(8).unwrap();
    let (ours, _theirs) = net::std_pair();
    let recv = opcode::RecvMulti::new(types::Fd(ours.as_raw_fd()), 7).build().user_data(1);
    push(&mut ring, &recv);
    ring.submit().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let ends = completions(&mut ring);
    if ends != [(1, -libc::ENOBUFS, 0)] {
        skip!("an idle receive without buffers gave {ends:?}");
    }
}

#[test]
fn kernel_ring_multishot_receive_with_poll_first_waits() {
    let mut ring = IoUring::new(8).unwrap();
    let (ours, theirs) = net::std_pair();
    let recv = opcode::RecvMulti::new(types::Fd(ours.as_raw_fd()), 7).build().user_data(1);
    let recv = patch(recv, IOPRIO, &(RECV_MULTISHOT | POLL_FIRST).to_ne_bytes());
    push(&mut ring, &recv);
    ring.submit().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    enter(&ring, 0, 0, GETEVENTS).unwrap();
    let ends = completions(&mut ring);
    if !ends.is_empty() {
        skip!("with POLL_FIRST it ended at once too: {ends:?}");
    }
    // It waits for data, and takes a buffer that came in the meantime.
    let mut memory = vec![0u8; 1024];
    give_buffers(&mut ring, &mut memory, 1);
    io::Write::write_all(&mut &theirs, b"data").unwrap();
    ring.submit_and_wait(1).unwrap();
    let got = completions(&mut ring);
    assert_eq!((got[0].0, got[0].1), (1, 4), "{got:?}");
    assert_eq!(&memory[..4], b"data");
}

/// Our own receives without a free buffer: nobody spins, and the first free buffer is used.
#[test]
fn kernel_ring_receives_without_buffers_do_not_spin() {
    in_child("kernel_ring_receives_without_buffers_do_not_spin", || {
        let settings = coreloop::Settings::default().buffers(1, 64).chunk_quota(8);
        let mut event_loop = EventLoop::with(settings).unwrap();
        event_loop.block_on(async {
            let (mut idle, mut late) = net::pair();
            let reader =
                coreloop::spawn(async move { idle.recv().await.map(|c| c.unwrap().len()) });
            // Whoever spins enters in each of its turns, thousands of times.
            let enters = async || Handle::current().stats(0).await.unwrap().counters.enters;
            let before = enters().await;
            coreloop::time::sleep(Duration::from_millis(300)).await;
            let more = enters().await - before;
            figure!("{more} enters");
            assert!(more < 20, "{more} enters with an idle receive");
            io::Write::write_all(&mut late, b"now").unwrap();
            assert_eq!(reader.await.unwrap().unwrap(), 3);
        });
    });
}

#[test]
fn kernel_ring_total_limit_ends_a_multishot_receive() {
    let mut ring = IoUring::new(8).unwrap();
    let (ours, mut theirs) = net::std_pair();
    let mut memory = vec![0u8; 32 * 1024];
    give_buffers(&mut ring, &mut memory, 32);
    // `optlen` shares its place with the file index, at byte 44.
    let recv = opcode::RecvMulti::new(types::Fd(ours.as_raw_fd()), 7).build().user_data(1);
    push(&mut ring, &patch(recv, 44, &2048u32.to_ne_bytes()));
    ring.submit().unwrap();
    io::Write::write_all(&mut theirs, &[7; 16 * 1024]).unwrap();
    let until = Instant::now() + SOON;
    let mut got = Vec::new();
    while got.last().is_none_or(|(_, _, flags)| io_uring::cqueue::more(*flags)) {
        if Instant::now() > until || got.len() >= 16 {
            break;
        }
        ring.submit_and_wait(1).unwrap();
        got.extend(completions(&mut ring));
    }
    let sum: i32 = got.iter().map(|(_, n, _)| *n).sum();
    figure!("a limit of 2,048 ended after {sum} bytes in {} completions", got.len());
    if got[0].1 == -libc::EINVAL || got.len() >= 16 {
        skip!("this kernel has no total limit on multishot receives");
    }
    assert!((2048..=3072).contains(&sum), "soft by one buffer: {got:?}");
}

#[test]
fn kernel_ring_one_enter_does_not_bring_everything() {
    let built = builder().setup_single_issuer().setup_defer_taskrun().build(256);
    let mut ring = match built {
        Ok(ring) => ring,
        Err(e) => skip!("no DEFER_TASKRUN: {e}"),
    };
    let pipes: Vec<_> = (0..200).map(|_| io::pipe().unwrap()).collect();
    for (i, (reader, _)) in pipes.iter().enumerate() {
        let poll = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), libc::POLLIN as u32);
        push(&mut ring, &poll.build().user_data(i as u64));
    }
    enter_all(&mut ring);
    for (_, writer) in &pipes {
        io::Write::write_all(&mut &*writer, b"x").unwrap();
    }
    enter(&ring, 0, 0, GETEVENTS).unwrap();
    let first = completions(&mut ring).len();
    let mut enters = 1;
    let mut all = first;
    while all < 200 && enters < 200 {
        enter(&ring, 0, 0, GETEVENTS).unwrap();
        all += completions(&mut ring).len();
        enters += 1;
    }
    figure!("one enter brought {first} of 200, all took {enters}");
    assert_eq!(all, 200);
    if first == 200 {
        skip!("one enter brings everything on this kernel");
    }
}

/// Submits what is queued without looking for completions.
fn enter_all(ring: &mut IoUring) {
    let n = ring.submission().len() as u32;
    assert_eq!(enter(ring, n, 0, 0).unwrap(), n);
}

#[test]
fn kernel_ring_sqpoll_excludes_deferred_task_work() {
    let mut with_defer = builder();
    with_defer.setup_sqpoll(10).setup_single_issuer().setup_defer_taskrun();
    let mut with_coop = builder();
    with_coop.setup_sqpoll(10).setup_coop_taskrun();
    for builder in [with_defer, with_coop] {
        match builder.build(8) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(e) => skip!("no SQPOLL here: {e}"),
            Ok(_) => skip!("this kernel allows it"),
        }
    }
}

#[test]
fn kernel_ring_a_completion_queue_below_the_submission_queue_is_refused() {
    let with = |cq: u32| builder().setup_cqsize(cq).build(64).map(|_| ());
    assert_eq!(with(32).map_err(|e| e.raw_os_error()), Err(Some(libc::EINVAL)));
    // It compares what it has made of both: powers of two.
    with(33).unwrap();
}

#[test]
fn kernel_ring_the_17th_registered_ring_of_a_thread_is_refused() {
    in_child("kernel_ring_the_17th_registered_ring_of_a_thread_is_refused", || {
        let mut rings: Vec<_> = (0..20).map(|_| IoUring::new(8).unwrap()).collect();
        let answers: Vec<_> =
            rings.iter_mut().map(|r| r.submitter().register_ring_fd().err()).collect();
        let registered = answers.iter().take_while(|a| a.is_none()).count();
        if registered == 20 {
            skip!("this kernel registers 20 rings of a thread");
        }
        assert_eq!(registered, 16);
        assert_eq!(answers[16].as_ref().and_then(|e| e.raw_os_error()), Some(libc::EBUSY));
    });
}

/// 40 of our loops on one thread: those past the 16th do without, and give nothing away when they go.
#[test]
fn kernel_ring_40_loops_on_one_thread() {
    in_child("kernel_ring_40_loops_on_one_thread", || {
        let before = fd_count();
        for round in 0..3 {
            let mut loops: Vec<_> = (0..40).map(|_| EventLoop::new().unwrap()).collect();
            let without = loops
                .iter()
                .filter(|l| {
                    l.ring_report()
                        .missing
                        .contains(&(Feature::RegisteredRing, Missing::Failed(libc::EBUSY)))
                })
                .count();
            for event_loop in &mut loops {
                event_loop.block_on(async { submit(Nop).await.unwrap() });
            }
            figure!("round {round}: {without} of 40 loops go without a registered ring");
            assert_eq!(
                without, 24,
                "round {round}: a thread has 16 places, and loops that end free theirs"
            );
            drop(loops);
            // A registered index would keep the closed ring, and what it holds, alive.
            assert_eq!(fds_settle_at(before, SOON), before);
        }
    });
}

#[test]
fn kernel_ring_memlock_of_64_kib_caps_the_queue() {
    const NAME: &str = "kernel_ring_memlock_of_64_kib_caps_the_queue";
    if !Child::is_one() && !is_root() {
        skip!("only root can become another user");
    }
    Child::new(NAME).uid(65_533).memlock(64 << 10).run(|| {
        let got = |n| builder().build(n).map(drop).map_err(|e| e.raw_os_error());
        let (small, large) = (got(256), got(4096));
        figure!("256 entries: {small:?}, 4,096: {large:?}");
        assert_eq!(small, Ok(()));
        if large.is_ok() {
            skip!("this kernel does not charge rings to the user");
        }
        assert_eq!(large, Err(Some(libc::ENOMEM)));
    });
}

#[test]
fn kernel_ring_a_thread_without_a_ring_can_send_to_one() {
    const REGISTER_SEND_MSG_RING: u32 = 31;
    let mut ring = IoUring::new(8).unwrap();
    let target = ring.as_raw_fd();
    let answer = std::thread::spawn(move || {
        let message = opcode::MsgRingData::new(types::Fd(target), 41, 42, None).build();
        // SAFETY: `message` is a live struct io_uring_sqe; -1 stands for no ring of our own.
        let rc = unsafe {
            let (op, arg) = (REGISTER_SEND_MSG_RING, &raw const message);
            libc::syscall(libc::SYS_io_uring_register, -1, op, arg, 1)
        };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
    })
    .join()
    .unwrap();
    if let Err(e) = answer {
        skip!("no SEND_MSG_RING (6.13): {e}");
    }
    assert_eq!(completions(&mut ring), [(42, 41, 0)], "it is there at once");
}

#[test]
fn kernel_ring_min_wait_holds_single_completions_back() {
    #[repr(C)]
    struct Arg {
        sigmask: u64,
        sigmask_sz: u32,
        min_wait_us: u32,
        ts: u64,
    }
    const EXT_ARG: u32 = 8;
    let built = builder().setup_single_issuer().setup_defer_taskrun().build(8);
    let Ok(mut ring) = built else { skip!("no DEFER_TASKRUN") };
    let timespec = types::Timespec::new().sec(2);
    let (reader, writer) = io::pipe().unwrap();
    let poll = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), libc::POLLIN as u32);
    push(&mut ring, &poll.build().user_data(1));
    enter_all(&mut ring);
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        io::Write::write_all(&mut &writer, b"x").unwrap();
        OwnedFd::from(writer)
    });
    let arg =
        Arg { sigmask: 0, sigmask_sz: 0, min_wait_us: 200_000, ts: (&raw const timespec) as u64 };
    let began = Instant::now();
    // SAFETY: a ring of ours; `arg` and the time it names are live during the call.
    let rc = unsafe {
        let flags = GETEVENTS | EXT_ARG;
        let size = size_of::<Arg>();
        libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 0, 2, flags, &raw const arg, size)
    };
    let took = began.elapsed();
    drop(writer.join().unwrap());
    figure!("an event after 20 ms ended a wait with min_wait of 200 ms after {took:?} ({rc})");
    if took < Duration::from_millis(150) {
        skip!("no min_wait (6.12): the wait ended after {took:?}");
    }
    assert!(took < Duration::from_secs(1));
}

/// Whether a descriptor is readable within `limit`, and after how long.
fn readable_after(fd: i32, limit: Duration) -> (bool, Duration) {
    let began = Instant::now();
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as i32) } == 1;
    (ready, began.elapsed())
}

/// Whoever sleeps in poll(2) on a ring with deferred task work is not woken by that work: it is seen only
/// when somebody looks anew. A registered eventfd is told.
#[test]
fn kernel_ring_poll_sleeps_through_deferred_task_work() {
    let built = builder().setup_single_issuer().setup_defer_taskrun().build(8);
    let Ok(mut ring) = built else { skip!("no DEFER_TASKRUN") };
    // SAFETY: plain integers.
    let eventfd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    assert!(eventfd >= 0);
    // SAFETY: a fresh descriptor that nobody else has.
    let eventfd: OwnedFd = unsafe { std::os::fd::FromRawFd::from_raw_fd(eventfd) };
    let mut woken_after = [Duration::ZERO; 2];
    for (by_eventfd, took) in woken_after.iter_mut().enumerate() {
        let (reader, writer) = io::pipe().unwrap();
        let poll = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), libc::POLLIN as u32);
        push(&mut ring, &poll.build().user_data(1));
        enter_all(&mut ring);
        let fd = if by_eventfd == 1 {
            ring.submitter().register_eventfd(eventfd.as_raw_fd()).unwrap();
            eventfd.as_raw_fd()
        } else {
            ring.as_raw_fd()
        };
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            io::Write::write_all(&mut &writer, b"x").unwrap();
            writer
        });
        let (ready, after) = readable_after(fd, Duration::from_millis(600));
        drop(writer.join().unwrap());
        assert!(ready, "in the end it is readable");
        *took = after;
        enter(&ring, 0, 1, GETEVENTS).unwrap();
        assert_eq!(completions(&mut ring).len(), 1);
    }
    figure!(
        "work after 50 ms: the ring told after {:?}, its eventfd after {:?}",
        woken_after[0],
        woken_after[1]
    );
    assert!(woken_after[1] < Duration::from_millis(500), "a registered eventfd is told at once");
    if woken_after[0] < Duration::from_millis(500) {
        skip!("this kernel wakes those who poll the ring");
    }
}
