//! Which way of receiving pays is for a core to find out: what it looks at, and what it makes of it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::Write;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use coreloop::op::{InFlight, Membership, Outlook, Receiver, RecvChunk, Submitter};
use coreloop::time::sleep;
use coreloop::{EventLoop, Feature, Handle, Settings, Snapshot, Spin, spawn};
use coreloop_net::TcpStream;
use coreloop_tests::net::{NO_MULTISHOT, almost_busy, receiving_many};
use coreloop_tests::{figure, net, poll_once, skip, turns};

/// A socket of which is known what it is told.
struct Told {
    stream: StdStream,
    outlook: Outlook,
    heard: Rc<Cell<u32>>,
    /// Its hook panics.
    panics: bool,
}

impl AsFd for Told {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Receiver for Told {
    fn received(&self, bytes: u32, _: bool) -> bool {
        self.heard.set(self.heard.get() + bytes);
        assert!(!self.panics, "a hook that panics");
        true
    }

    fn outlook(&self) -> Outlook {
        self.outlook
    }
}

fn ask(told: Told, member: &Membership) -> InFlight<RecvChunk<Told>> {
    match Submitter::current().recv_chunk(told, member) {
        Ok(asked) => asked,
        Err(_) => panic!("there is room for one op"),
    }
}

async fn snapshot() -> Snapshot {
    Handle::current().stats(0).await.unwrap()
}

/// Enters of a core that asks for a message and then has nothing to do: the fewest of five times.
fn enters_of_a_wait(settings: &Settings, outlook: Outlook) -> u64 {
    let mut event_loop = EventLoop::with(settings.clone().spin(Spin::Off)).unwrap();
    event_loop.block_on(async {
        let member = Submitter::current().join_buffers();
        let mut fewest = u64::MAX;
        for _ in 0..5 {
            let (stream, mut theirs) = net::std_pair();
            let told = Told { stream, outlook, heard: Rc::default(), panics: false };
            let before = snapshot().await.counters.enters;
            let mut asked = ask(told, &member);
            sleep(Duration::from_millis(5)).await;
            fewest = fewest.min(snapshot().await.counters.enters - before);
            theirs.write_all(b"late").unwrap();
            let chunk = poll_fn(|cx| asked.poll(cx)).await.unwrap().unwrap();
            assert_eq!(&*chunk, b"late");
        }
        fewest
    })
}

#[test]
fn ways_a_receive_that_is_asked_about_is_submitted_by_an_enter_that_does_not_sleep() {
    let settings = Settings::default();
    let plain = enters_of_a_wait(&settings, Outlook::Unknown);
    assert_eq!(enters_of_a_wait(&settings, Outlook::Asked), plain + 1);
    let masked = settings.mask(Feature::BufferRing);
    let plain = enters_of_a_wait(&masked, Outlook::Unknown);
    assert_eq!(enters_of_a_wait(&masked, Outlook::Asked), plain, "nothing to choose from");
}

/// Where completions come whenever they like, nothing can be told from when they come.
#[test]
fn ways_nothing_is_asked_about_where_nothing_can_be_told() {
    let masked = Settings::default().mask(Feature::DeferTaskrun);
    let plain = enters_of_a_wait(&masked, Outlook::Unknown);
    assert_eq!(enters_of_a_wait(&masked, Outlook::Asked), plain);
}

/// A message that was asked for before it was sent.
async fn waited(ours: &mut TcpStream, theirs: &mut StdStream) {
    let mut asked = pin!(ours.recv());
    if poll_once(asked.as_mut()).await.is_pending() {
        turns(2).await;
        theirs.write_all(b"waited").unwrap();
        assert_eq!(&*asked.await.unwrap().unwrap(), b"waited");
    } else {
        panic!("nothing was sent yet");
    }
}

/// A message that was sent before it was asked for.
async fn there(ours: &mut TcpStream, theirs: &mut StdStream) {
    theirs.write_all(b"there").unwrap();
    assert_eq!(&*ours.recv().await.unwrap().unwrap(), b"there");
}

#[test]
fn ways_a_core_tries_both_and_stays_with_what_it_finds() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let many_pay = || Submitter::current().many_pay();
        let (mut ours, mut theirs) = net::pair();
        almost_busy(&mut ours, &mut theirs).await;
        let mut messages = 0;
        while many_pay() {
            waited(&mut ours, &mut theirs).await;
            messages += 1;
            assert!(messages < 10_000, "no trial");
        }
        figure!("the first trial begins after {messages} messages");
        // Single receives find something: they stay, also when a pause makes some of them wait.
        for _ in 0..4_000 {
            there(&mut ours, &mut theirs).await;
            assert!(!many_pay());
        }
        for _ in 0..4_000 {
            waited(&mut ours, &mut theirs).await;
            assert!(!many_pay(), "that may have been a pause");
        }
        let mut messages = 0;
        while !many_pay() {
            waited(&mut ours, &mut theirs).await;
            messages += 1;
            assert!(messages < 10_000, "they all wait, and are never armed for many again");
        }
        figure!("and ends {messages} messages after those 4,000 that waited");
    });
}

/// What a connection is sent that could never be armed for many says nothing about those that could.
#[test]
fn ways_large_messages_do_not_decide_for_small_ones() {
    let Some(mut event_loop) = receiving_many(Settings::default()) else { skip!("{NO_MULTISHOT}") };
    event_loop.block_on(async {
        let many_pay = || Submitter::current().many_pay();
        let (mut ours, mut theirs) = net::pair();
        let (mut bulk, mut sender) = net::pair();
        let large = vec![7; 8_000];
        almost_busy(&mut ours, &mut theirs).await;
        let mut trials = 0;
        for round in 0..16_000 {
            let before = many_pay();
            waited(&mut ours, &mut theirs).await;
            trials += u32::from(before && !many_pay());
            // One message in three is there, and large.
            if round % 2 == 0 {
                sender.write_all(&large).unwrap();
                let mut got = 0;
                while got < large.len() {
                    got += bulk.recv().await.unwrap().unwrap().len();
                }
            }
        }
        assert_eq!(trials, 1);
        assert!(many_pay(), "the small ones wait: they are armed for many");
    });
}

#[test]
fn ways_a_hook_that_panics_takes_no_buffer_with_it() {
    for outlook in [Outlook::Unknown, Outlook::Asked, Outlook::There] {
        EventLoop::new().unwrap().block_on(async {
            let member = Submitter::current().join_buffers();
            let (stream, mut theirs) = net::std_pair();
            theirs.write_all(b"bytes").unwrap();
            let heard = Rc::new(Cell::new(0));
            let told = Told { stream, outlook, heard: heard.clone(), panics: true };
            let mut asked = ask(told, &member);
            let ended = spawn(async move { poll_fn(|cx| asked.poll(cx)).await }).await;
            assert_eq!(heard.get(), 5, "{outlook:?}");
            drop(ended);
            let gauges = snapshot().await.gauges;
            assert_eq!(gauges.buffers_free, gauges.buffers, "{outlook:?}");
        });
    }
}
