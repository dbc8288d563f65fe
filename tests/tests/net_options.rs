//! Sockets as they come and as they go: those of other libraries, and how a close is asked for.

use std::time::Duration;

use coreloop_net::TcpStream;
use coreloop_tests::{net, poll_once, turns};

/// Less than a second is no reset, and no more than the option takes is no wrap to one.
#[test]
fn net_a_linger_of_less_than_a_second_is_one() {
    coreloop::run(async {
        let (stream, _peer): (TcpStream, _) = net::pair();
        for (asked, has) in [
            (Some(Duration::ZERO), Some(0)),
            (Some(Duration::from_millis(1)), Some(1)),
            (Some(Duration::from_millis(1_001)), Some(2)),
            (Some(Duration::from_secs(1 << 32)), Some(i32::MAX as u64)),
            (None, None),
        ] {
            stream.set_linger(asked).unwrap();
            let is = stream.socket().linger().unwrap();
            assert_eq!(is.map(|d| d.as_secs()), has, "{asked:?}");
        }
    })
    .unwrap();
}

/// A stream of a library that polls: its operations wait here.
#[test]
fn net_a_stream_that_did_not_block_waits() {
    coreloop::run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(client);
        let mut recv = std::pin::pin!(stream.recv());
        assert!(poll_once(recv.as_mut()).await.is_pending());
        turns(3).await;
        assert!(poll_once(recv.as_mut()).await.is_pending(), "it waits for what comes");
        std::io::Write::write_all(&mut peer, b"late").unwrap();
        assert_eq!(&*recv.await.unwrap().unwrap(), b"late");
    })
    .unwrap();
}
