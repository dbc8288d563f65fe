//! Receives with many completions at the edges: cancels in the turn that started them, foreign wakers, many
//! connections and few buffers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use coreloop::op::{Membership, Next, RecvMany, Series, Submitter};
use coreloop::{EventLoop, Settings};
use coreloop_tests::drive::pattern;
use coreloop_tests::foreign::{ON_CLONE, ON_DROP, acting};
use coreloop_tests::net::{NO_MULTISHOT, almost_busy, receiving_many};
use coreloop_tests::{Rng, net, poll_once, skip, turns};

/// Buffers so small that what lies in a socket is more than the kernel takes at a time.
fn tiny() -> Settings {
    Settings::default().buffers(512, 64)
}

#[test]
fn series_dropped_in_the_turn_that_armed_it_lets_the_connection_go() {
    let Some(mut event_loop) = receiving_many(tiny()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        for bytes in [0, 64, 8000] {
            let (mut ours, mut theirs) = net::pair();
            almost_busy(&mut ours, &mut theirs).await;
            theirs.write_all(&vec![1; bytes]).unwrap();
            theirs.set_nonblocking(true).unwrap();
            assert!(poll_once(std::pin::pin!(ours.recv())).await.is_pending());
            drop(ours);
            turns(10).await;
            match theirs.read(&mut [0]) {
                Ok(0) => {}
                // Not all of it was received.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
                other => panic!("{bytes}: the connection is open still: {other:?}"),
            }
        }
    });
}

/// What a series brings until its end.
async fn drained(series: &mut Series<RecvMany<std::net::TcpStream>>) -> usize {
    let mut got = 0;
    loop {
        match poll_fn(|cx| series.poll_next(cx)).await {
            Next::Item(chunk) => got += chunk.len(),
            Next::End(_) => return got,
        }
    }
}

#[test]
fn series_that_is_cancelled_ends_whatever_lies_there() {
    let Some(mut event_loop) = receiving_many(tiny()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let submitter = Submitter::current();
        let member = submitter.join_buffers();
        for (bytes, later) in [(0, false), (64, false), (8000, false), (0, true), (8000, true)] {
            let (ours, mut theirs) = net::std_pair();
            theirs.write_all(&vec![1; bytes]).unwrap();
            let start = || submitter.recv_many(ours.try_clone().unwrap(), &member, 256).unwrap();
            let mut series = start();
            if later {
                turns(1).await;
            }
            series.cancel();
            let mut got = drained(&mut series).await;
            // What it did not bring is there for the next ones.
            while got < bytes {
                got += drained(&mut start()).await;
            }
            assert_eq!(got, bytes);
        }
    });
}

/// A loop that wakers reach, a series on it, and its peer.
#[expect(clippy::type_complexity)]
fn reachable() -> Option<(
    Rc<RefCell<EventLoop>>,
    Series<RecvMany<std::net::TcpStream>>,
    std::net::TcpStream,
    Membership,
)> {
    let event_loop = Rc::new(RefCell::new(receiving_many(Settings::default())?));
    let (ours, theirs) = net::std_pair();
    let (series, member) = event_loop.borrow_mut().block_on(async {
        let submitter = Submitter::current();
        let member = submitter.join_buffers();
        (submitter.recv_many(ours, &member, 256).unwrap(), member)
    });
    Some((event_loop, series, theirs, member))
}

/// Writes `bytes`, then takes turns of the loop until they have come.
fn arrive(
    event_loop: &Rc<RefCell<EventLoop>>,
    theirs: &std::net::TcpStream,
    bytes: &'static [u8],
) -> Box<dyn FnMut()> {
    let (event_loop, mut theirs) = (event_loop.clone(), theirs.try_clone().unwrap());
    Box::new(move || {
        theirs.write_all(bytes).unwrap();
        for _ in 0..5 {
            event_loop.borrow_mut().turn(Some(Duration::from_millis(5)));
        }
    })
}

#[test]
fn series_brings_what_came_within_a_wakers_clone_or_drop() {
    let Some((event_loop, mut series, theirs, _member)) = reachable() else {
        skip!("{NO_MULTISHOT}")
    };
    let w = acting();
    let mut cx = Context::from_waker(&w);
    let mut noop = Context::from_waker(std::task::Waker::noop());
    assert!(series.poll_next(&mut noop).is_pending());
    ON_CLONE.set(Some(arrive(&event_loop, &theirs, b"in a clone")));
    match series.poll_next(&mut cx) {
        Poll::Ready(Next::Item(chunk)) => assert_eq!(&*chunk, b"in a clone"),
        other => panic!("{other:?}"),
    }
    assert!(series.poll_next(&mut cx).is_pending());
    ON_DROP.set(Some(arrive(&event_loop, &theirs, b"in a drop")));
    match series.poll_next(&mut noop) {
        Poll::Ready(Next::Item(chunk)) => assert_eq!(&*chunk, b"in a drop"),
        other => panic!("{other:?}"),
    }
    // Its last waker's destructor drives the loop to its end.
    assert!(series.poll_next(&mut cx).is_pending());
    ON_DROP.set(Some(arrive(&event_loop, &theirs, b"never asked for")));
    drop(series);
    event_loop.borrow_mut().turn(Some(Duration::from_millis(5)));
}

#[test]
fn series_of_many_connections_share_few_buffers() {
    for buffers in [1, 8] {
        let settings = Settings::default().buffers(buffers, 512);
        let Some(mut event_loop) = receiving_many(settings) else { skip!("{NO_MULTISHOT}") };
        event_loop.block_on(shared_buffers());
    }
}

async fn shared_buffers() {
    let mut rng = Rng::new(11);
    let mut far = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..12 {
        let (mut ours, mut theirs) = net::pair();
        almost_busy(&mut ours, &mut theirs).await;
        theirs.set_nonblocking(true).unwrap();
        far.push((theirs, 0usize));
        readers.push(coreloop::spawn(async move {
            let mut at = 0;
            while let Some(chunk) = ours.recv().await.unwrap() {
                assert!(*chunk == *pattern(at, chunk.len()), "at {at}");
                at += chunk.len();
            }
            at
        }));
    }
    for round in 0..600 {
        for (theirs, sent) in &mut far {
            // Small ones, so that they stay busy; now and then as much as there is room for.
            let most = if round % 100 == 99 { 200_000 } else { 300 };
            let piece = pattern(*sent, rng.below(most) as usize + 1);
            match theirs.write(&piece) {
                Ok(n) => *sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("{e}"),
            }
        }
        turns(2).await;
    }
    for ((theirs, sent), reader) in far.into_iter().zip(readers) {
        drop(theirs);
        assert_eq!(reader.await.unwrap(), sent);
    }
}

#[test]
fn series_keeps_what_it_brought_when_its_loop_closes() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    let (ours, mut theirs) = event_loop.block_on(async {
        let (mut ours, mut theirs) = net::pair();
        almost_busy(&mut ours, &mut theirs).await;
        assert!(poll_once(std::pin::pin!(ours.recv())).await.is_pending());
        turns(2).await;
        for part in ["here ", "is ", "what "] {
            theirs.write_all(part.as_bytes()).unwrap();
            turns(3).await;
        }
        (ours, theirs)
    });
    drop(event_loop);
    theirs.write_all(b"came late").unwrap();
    let mut other = EventLoop::new().unwrap();
    other.block_on(async move {
        let mut ours = ours.detach().await.unwrap().attach();
        let (_, got) = ours.read_exact(vec![0; 22]).await.unwrap();
        assert_eq!(got, b"here is what came late");
    });
}
