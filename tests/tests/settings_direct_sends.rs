//! Sends that are made at once: when they are, how often in one poll, what they leave to the ring, and what
//! of their errors is told.

use std::io::{ErrorKind, Read};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use coreloop::task::JoinHandle;
use coreloop::time::timeout;
use coreloop::{EventLoop, Feature, Handle, Settings, spawn, spawn_eager};
use coreloop_net::TcpStream;
use coreloop_tests::drive::{pattern, ticker};
use coreloop_tests::forked::fork;
use coreloop_tests::net;
use coreloop_tests::process::block_syscall;
use coreloop_tests::{figure, in_child, poll_once, settled, skip, turns};

const SOON: Duration = Duration::from_secs(10);

/// A loop whose sends are made at once in turns of at most so many tasks.
fn direct_up_to(tasks: u32) -> EventLoop {
    EventLoop::with(Settings::default().direct_sends(tasks)).unwrap()
}

fn direct_sends() -> u64 {
    Handle::current().snapshot(0).unwrap().counters.direct_sends
}

fn echo(mut stream: TcpStream) -> JoinHandle<()> {
    spawn(async move {
        while let Some(chunk) = stream.recv().await.unwrap() {
            stream.write_all(chunk).await.unwrap();
        }
    })
}

/// So many requests and answers between two tasks of a loop; how many sends were made at once, and how many
/// enters that took.
fn conversation(tasks: u32, rounds: u8) -> (u64, u64) {
    let mut event_loop = direct_up_to(tasks);
    event_loop.block_on(async {
        let (mut near, far) = net::streams().await;
        let echo = echo(far);
        for round in 0..rounds {
            near.write_all(vec![round; 64]).await.unwrap();
            let (_, back) = near.read_exact(vec![0; 64]).await.unwrap();
            assert_eq!(back, [round; 64]);
        }
        drop(near);
        echo.await.unwrap();
    });
    let counters = event_loop.stats().counters;
    (counters.direct_sends, counters.enters)
}

#[test]
fn settings_direct_sends_answer_at_once_where_few_tasks_share_a_turn() {
    let (rounds, most) = (100, 200);
    let (none, enters_without) = conversation(0, rounds);
    let (all, enters) = conversation(4, rounds);
    figure!("{all} of {most} sends at once: {enters} enters, and {enters_without} without");
    assert_eq!((none, all), (0, most));
    assert!(enters < enters_without, "each spares a turn");
}

#[test]
fn settings_direct_sends_leave_full_turns_to_the_ring() {
    // As many tasks as connections write in one turn, each once.
    let sent = |tasks: usize| {
        direct_up_to(4).block_on(async move {
            let mut peers = Vec::new();
            let gate = Rc::new(coreloop::sync::Event::new());
            let mut writers = Vec::new();
            for _ in 0..tasks {
                let (mut ours, theirs) = net::pair();
                peers.push(theirs);
                let gate = gate.clone();
                writers.push(spawn(async move {
                    gate.wait().await;
                    ours.write_all("one turn").await.unwrap();
                    ours
                }));
            }
            turns(3).await;
            let before = direct_sends();
            gate.set();
            let mut open = Vec::new();
            for writer in writers {
                open.push(writer.await.unwrap());
            }
            for mut peer in peers {
                let mut got = [0; 8];
                peer.read_exact(&mut got).unwrap();
                assert_eq!(&got, b"one turn");
            }
            direct_sends() - before
        })
    };
    assert_eq!((sent(4), sent(5), sent(64)), (4, 0, 0));
}

#[test]
fn settings_direct_sends_are_one_a_poll_so_that_a_writer_gives_way() {
    direct_up_to(4).block_on(async {
        let (mut ours, mut theirs) = net::pair();
        let (other, others) = ticker();
        turns(2).await;
        let (before, turns_before) = (direct_sends(), others.get());
        for number in 0..100u8 {
            ours.write_all(vec![number; 10]).await.unwrap();
        }
        let (direct, turns) = (direct_sends() - before, others.get() - turns_before);
        figure!("100 writes: {direct} at once, {turns} turns of another task meanwhile");
        // The first of a poll is, the second is not, and ends the poll.
        assert_eq!(direct, 50);
        assert!(turns >= 20, "{turns} turns");
        let mut got = vec![0; 1_000];
        theirs.read_exact(&mut got).unwrap();
        let expected: Vec<u8> = (0..100).flat_map(|number| [number; 10]).collect();
        assert_eq!(got, expected, "in order, whichever way they went");
        other.cancel();
    });
}

#[test]
fn settings_direct_sends_go_on_in_the_ring_where_the_buffer_is_full() {
    const LEN: usize = 64 << 10;
    direct_up_to(4).block_on(async {
        let (mut ours, mut theirs) = net::pair();
        ours.socket().set_send_buffer_size(4 << 10).unwrap();
        socket2::SockRef::from(&theirs).set_recv_buffer_size(4 << 10).unwrap();
        let before = direct_sends();
        {
            let mut writing = pin!(ours.write_all(pattern(0, LEN)));
            assert!(poll_once(writing.as_mut()).await.is_pending(), "it does not fit");
            assert_eq!(direct_sends() - before, 1, "what fits is sent at once");
            let peer = std::thread::spawn(move || {
                let mut got = vec![0; LEN];
                theirs.read_exact(&mut got).unwrap();
                (got, theirs)
            });
            let (n, buf) = timeout(SOON, writing).await.unwrap().unwrap();
            assert_eq!((n, buf.len()), (LEN, LEN));
            assert!(settled(SOON, || peer.is_finished()).await);
            let (got, peer) = peer.join().unwrap();
            assert!(got == pattern(0, LEN), "each byte once, in order");
            theirs = peer;
        }
        // Half done, and dropped in the very turn in which it began: what was sent at once is told.
        {
            let mut writing = pin!(ours.write_all(pattern(0, LEN)));
            assert!(poll_once(writing.as_mut()).await.is_pending());
        }
        assert_eq!(direct_sends() - before, 2);
        let mut torn = None;
        let told = settled(SOON, || {
            torn = ours.take_torn_write();
            torn.is_some()
        });
        assert!(told.await, "half of it was sent");
        let torn = torn.unwrap();
        assert_eq!(torn.len, LEN);
        let mut got = vec![0; torn.sent];
        theirs.read_exact(&mut got).unwrap();
        assert!(torn.sent > 0 && got == pattern(0, torn.sent), "{torn:?}");
        ours.write_all("behind").await.unwrap();
        let mut got = [0; 6];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"behind", "nothing else came between");
    });
}

#[test]
fn settings_direct_sends_tell_what_broke_the_connection() {
    for tasks in [0, 4] {
        direct_up_to(tasks).block_on(async {
            let (mut ours, theirs) = net::pair();
            socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
            drop(theirs);
            let reset = ours.write_all("to nobody").await.expect_err("the peer has reset it");
            assert_eq!(reset.error().kind(), ErrorKind::ConnectionReset, "{tasks} tasks");
            assert_eq!(reset.into_parts().1, "to nobody", "the buffer comes back");
            let broken = ours.write_all("again").await.expect_err("it stays broken");
            assert_eq!(broken.error().kind(), ErrorKind::BrokenPipe, "{tasks} tasks");
        });
    }
}

/// A task that goes on sending by turns with an eager child of its own, whose poll is another one.
#[test]
fn settings_direct_sends_of_eager_children_give_way_too() {
    direct_up_to(4).block_on(async {
        let (mut near, mut near_peer) = net::pair();
        let (far, mut far_peer) = net::pair();
        let (other, others) = ticker();
        turns(2).await;
        let turns_before = others.get();
        let mut far = Some(far);
        for _ in 0..100 {
            near.write_all("n").await.unwrap();
            let mut taken = far.take().unwrap();
            let child = spawn_eager(async move {
                taken.write_all("f").await.unwrap();
                taken
            });
            far = Some(child.await.unwrap());
        }
        let turns = others.get() - turns_before;
        assert!(turns >= 20, "{turns} turns of another task beside 200 writes");
        for (peer, byte) in [(&mut near_peer, b'n'), (&mut far_peer, b'f')] {
            let mut got = [0; 100];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(got, [byte; 100]);
        }
        other.cancel();
    });
}

/// One task is ready, and has a hundred make one call each.
#[test]
fn settings_direct_sends_are_as_many_a_turn_as_it_may_have_tasks() {
    direct_up_to(4).block_on(async {
        let pairs: Vec<_> = (0..100).map(|_| net::pair()).collect();
        turns(3).await;
        let before = direct_sends();
        let mut children = Vec::new();
        let mut peers = Vec::new();
        for (mut stream, peer) in pairs {
            peers.push(peer);
            children.push(spawn_eager(async move {
                stream.write_all("news").await.unwrap();
                stream
            }));
        }
        assert_eq!(direct_sends() - before, 4);
        for child in children {
            child.await.unwrap();
        }
        for mut peer in peers {
            let mut got = [0; 4];
            peer.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"news");
        }
    });
}

#[test]
fn settings_direct_sends_are_none_where_a_thread_of_the_kernel_submits() {
    in_child("settings_direct_sends_are_none_where_a_thread_of_the_kernel_submits", || {
        let settings = Settings::default().sqpoll(Some(Duration::from_millis(50)));
        let mut event_loop = EventLoop::with(settings.direct_sends(4)).unwrap();
        if !event_loop.ring_report().in_force.contains(Feature::SqPoll) {
            skip!("no submitting thread here");
        }
        event_loop.block_on(async {
            let (mut ours, mut theirs) = net::pair();
            for _ in 0..20 {
                ours.write_all("x").await.unwrap();
            }
            let mut got = [0; 20];
            theirs.read_exact(&mut got).unwrap();
            assert_eq!((direct_sends(), got), (0, [b'x'; 20]));
        });
    });
}

/// A forked child that sends on its parent's connection is told and ended before it has.
#[test]
fn settings_direct_sends_of_a_forked_child_reach_nobody() {
    for tasks in [0, 4] {
        in_child("settings_direct_sends_of_a_forked_child_reach_nobody", move || {
            direct_up_to(tasks).block_on(async {
                let (mut ours, theirs) = net::pair();
                turns(2).await;
                let mut child = fork(|| {
                    let mut write = pin!(ours.write_all("from the child"));
                    let context = &mut Context::from_waker(Waker::noop());
                    // Out of the poll, before a turn has ended.
                    i32::from(write.as_mut().poll(context).is_pending())
                });
                let ended = child.wait();
                theirs.set_nonblocking(true).unwrap();
                let got = (&theirs).read(&mut [0; 64]);
                assert_eq!(got.unwrap_err().kind(), ErrorKind::WouldBlock, "{ended:?}");
                // The parent's own way is open.
                ours.write_all("from the parent").await.unwrap();
                let mut got = [0; 15];
                theirs.set_nonblocking(false).unwrap();
                (&theirs).read_exact(&mut got).unwrap();
                assert_eq!(&got, b"from the parent");
            });
        });
    }
}

#[test]
fn settings_direct_sends_end_where_a_filter_forbids_the_call() {
    filtered("settings_direct_sends_end_where_a_filter_forbids_the_call", libc::EPERM);
}

#[test]
fn settings_direct_sends_end_whatever_the_filter_answers() {
    filtered("settings_direct_sends_end_whatever_the_filter_answers", libc::EACCES);
}

fn filtered(name: &'static str, errno: i32) {
    in_child(name, move || {
        if let Err(e) = block_syscall(libc::SYS_sendto, errno) {
            skip!("no seccomp filters: {e}");
        }
        direct_up_to(4).block_on(async {
            let (mut near, far) = net::streams().await;
            let _echo = echo(far);
            for _ in 0..10 {
                near.write_all("hello").await.unwrap();
                let (_, back) = near.read_exact(vec![0; 5]).await.unwrap();
                assert_eq!(back, b"hello");
            }
            let snapshot = Handle::current().snapshot(0).unwrap();
            assert_eq!(snapshot.counters.direct_sends, 0);
            let told: Vec<_> =
                snapshot.step_downs.iter().filter(|step| step.what == "direct_sends").collect();
            assert_eq!(told.len(), 1, "told once: {:?}", snapshot.step_downs);
        });
    });
}
