//! A connection takes none of the kernel's worker threads, however slow or odd its peer is.

use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::thread;

use coreloop::EventLoop;
use coreloop::cancel::Interruptible;
use coreloop::time::Instant;
use coreloop_net::{TcpListener, TcpStream};
use coreloop_tests::drive::pattern;
use coreloop_tests::kernel_workers;
use coreloop_tests::net::{PATIENCE, pair, std_pair};
use socket2::SockRef;

/// A write that finds its socket full some 500 times: in an empty one there is room for 64 KiB. At the 127th time
/// an op that the kernel goes on with by itself is left to a worker (`APOLL_MAX_RETRY`).
#[test]
fn net_a_slow_reader_takes_no_worker() {
    const LEN: usize = 32 << 20;
    let workers = EventLoop::new().unwrap().block_on(async {
        let (mut ours, mut theirs) = pair();
        ours.socket().set_send_buffer_size(4 << 10).unwrap();
        let reader = thread::spawn(move || {
            let (mut got, mut piece) = (Vec::with_capacity(LEN), vec![0; 16 << 10]);
            let (mut reads, mut workers) = (0u32, 0);
            while got.len() < LEN {
                let n = theirs.read(&mut piece).unwrap();
                got.extend_from_slice(&piece[..n]);
                reads += 1;
                if reads.is_multiple_of(64) {
                    workers = kernel_workers().max(workers);
                }
            }
            (got, workers)
        });
        let (sent, bytes) = ours.write_all(pattern(0, LEN)).await.unwrap();
        let (got, workers) = reader.join().unwrap();
        assert_eq!(sent, LEN);
        assert!(got == bytes, "the bytes are others");
        workers
    });
    assert_eq!(workers, 0);
}

fn send_urgently(peer: &StdStream) {
    (&*peer).write_all(b"ab").unwrap();
    assert_eq!(SockRef::from(peer).send_out_of_band(b"c").unwrap(), 1);
    (&*peer).write_all(b"d").unwrap();
}

/// A byte that wakes a receive and is not there to be received costs it one of its 127 tries.
async fn gets_it_in_its_place(mut stream: TcpStream, how: &str) {
    let mut got = Vec::new();
    while got.len() < 4 {
        let chunk = stream.recv().until(Instant::now() + PATIENCE).await.expect(how);
        got.extend_from_slice(&chunk.expect(how));
    }
    assert_eq!(got, b"abcd", "{how}");
}

#[test]
fn net_an_urgent_byte_has_its_place_among_the_others() {
    EventLoop::new().unwrap().block_on(async {
        let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        send_urgently(&peer);
        gets_it_in_its_place(listener.accept().await.unwrap(), "accepted").await;

        let theirs = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = theirs.local_addr().unwrap();
        let stream = TcpStream::connect(addr).await.unwrap();
        send_urgently(&theirs.accept().unwrap().0);
        gets_it_in_its_place(stream, "connected").await;

        let mut listener = TcpListener::from_fd(theirs).unwrap();
        let peer = StdStream::connect(addr).unwrap();
        send_urgently(&peer);
        gets_it_in_its_place(listener.accept().await.unwrap(), "accepted by a listener of others")
            .await;

        let (ours, peer) = std_pair();
        let stream = TcpStream::from_std(ours);
        send_urgently(&peer);
        gets_it_in_its_place(stream, "made by others").await;

        let (ours, peer) = std_pair();
        let stream = coreloop_net::DetachedStream::from(ours).attach();
        send_urgently(&peer);
        gets_it_in_its_place(stream, "made by others, and moved").await;
    });
}
