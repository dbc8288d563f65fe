//! A kernel that refuses to accept, whatever waits: a security module's EPERM comes before the queue is
//! looked at.

use std::net::{Ipv4Addr, TcpStream as StdStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Feature, Settings, spawn};
use coreloop_net::TcpListener;
use coreloop_tests::process::take_number;

const LIMIT: Duration = Duration::from_secs(20);

/// What is refused here is to accept on a socket that knows no connections: EOPNOTSUPP, passed over as EPERM
/// is.
fn refused(settings: Settings) {
    let mut event_loop = EventLoop::with(settings).unwrap();
    let handle = event_loop.handle();
    event_loop.block_on(async move {
        let counters = async || handle.stats(0).await.unwrap().counters;
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let (number, kept) =
            (listener.as_fd().as_raw_fd(), listener.as_fd().try_clone_to_owned().unwrap());
        let refuses = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        take_number(refuses.as_raw_fd(), number);
        let before = counters().await;
        let accepts =
            spawn(async move { listener.accept().await.map(|accepted| (accepted, listener)) });
        let paused = async {
            while counters().await.accept_pauses < 3 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, paused).await.expect("it pauses");
        let after = counters().await;
        // The first error costs no pause, and each of the others one.
        let came = after.since(&before);
        assert!(came.completions <= 2 * (came.accept_pauses + 1), "{came:?}");

        // Once it is no longer refused, it goes on.
        take_number(kept.as_raw_fd(), number);
        let client = StdStream::connect(addr).unwrap();
        let accepted = timeout(LIMIT, accepts).await.expect("it tries again").unwrap();
        let (stream, mut listener) = accepted.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), client.local_addr().unwrap());
        let _another = StdStream::connect(addr).unwrap();
        timeout(LIMIT, listener.accept()).await.expect("and again").unwrap();
    });
}

#[test]
fn fault_accept_that_is_refused_pauses() {
    refused(Settings::default());
}

#[test]
fn fault_accept_that_is_refused_pauses_single_shot() {
    refused(Settings::default().mask(Feature::MultishotAccept));
}
