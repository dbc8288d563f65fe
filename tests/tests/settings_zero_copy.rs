//! Writes without a copy: what they send, when they end, and what a close does with those that nobody
//! acknowledges.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use coreloop::buf::IoBuf;
use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Feature, Settings, spawn};
use coreloop_net::TcpStream;
use coreloop_tests::drive::pattern;
use coreloop_tests::{fd_count, fds_settle_at, figure, in_child, net, skip};

const SOON: Duration = Duration::from_secs(5);
const THRESHOLD: u32 = 16 * 1024;

fn zero_copying() -> Option<EventLoop> {
    let settings = Settings::default().zero_copy_threshold(Some(THRESHOLD));
    let event_loop = EventLoop::with(settings).unwrap();
    event_loop.ring_report().in_force.contains(Feature::SendZc).then_some(event_loop)
}

/// Writes of these sizes, one after the other; what the peer reads.
async fn sent(sizes: &[usize]) -> Vec<u8> {
    let (near, far) = net::streams().await;
    let (mut reader, _far_writer) = far.split();
    let (_near_reader, mut writer) = near.split();
    let total = sizes.iter().sum::<usize>();
    let reading = spawn(async move {
        let mut read = Vec::new();
        while read.len() < total {
            let chunk = reader.recv().await.unwrap().expect("not the end of the stream");
            read.extend_from_slice(&chunk);
        }
        read
    });
    let mut at = 0;
    for size in sizes {
        let buf = pattern(at, *size);
        let back = timeout(SOON, writer.write_all(buf)).await.unwrap().unwrap();
        assert_eq!(back.1.len(), *size, "the buffer comes back");
        at += size;
    }
    reading.await.unwrap()
}

#[test]
fn settings_zero_copy_sends_the_same_bytes_from_the_threshold_on() {
    let Some(mut event_loop) = zero_copying() else { skip!("no send without copy") };
    let threshold = THRESHOLD as usize;
    let sizes = [1, threshold - 1, threshold, 3 << 20, 7, threshold + 1];
    let read = event_loop.block_on(sent(&sizes));
    assert!(read == pattern(0, sizes.iter().sum()), "other bytes than those that were sent");
    let counters = event_loop.stats().counters;
    figure!("{} sends without copy of {} writes", counters.zero_copies, sizes.len());
    assert_eq!(counters.zero_copies, 3);
    assert_eq!(counters.stray_completions, 0);

    let mut copying = EventLoop::new().unwrap();
    assert!(copying.block_on(sent(&sizes)) == read);
    assert_eq!(copying.stats().counters.zero_copies, 0);
}

#[test]
fn settings_zero_copy_masked_is_stepped_down() {
    let settings = Settings::default().zero_copy_threshold(Some(1)).mask(Feature::SendZc);
    let mut event_loop = EventLoop::with(settings).unwrap();
    let told = event_loop.ring_report().stepped[0].to_string();
    let as_asked = "zero_copy_threshold: asked 1, in force off, because masked by settings";
    assert_eq!(told, as_asked);
    assert_eq!(event_loop.block_on(sent(&[100_000])).len(), 100_000);
    assert_eq!(event_loop.stats().counters.zero_copies, 0);
}

/// A buffer that is spoilt as it is dropped, and tells.
struct Told(Vec<u8>, Rc<Cell<bool>>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fill(0xEE);
        self.1.set(true);
    }
}

// SAFETY: a Vec's heap memory stays put when it moves.
unsafe impl IoBuf for Told {
    fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// The kernel has the memory of a dropped write until it says that it has let go: for as long as the peer reads
/// nothing, and a while longer.
#[test]
fn settings_zero_copy_keeps_a_dropped_writes_buffer_for_the_kernel() {
    let Some(mut event_loop) = zero_copying() else { skip!("no send without copy") };
    event_loop.block_on(async {
        let (near, far) = net::streams().await;
        let (mut reader, _far_writer) = far.split();
        let (_near_reader, mut writer) = near.split();
        let gone = Rc::new(Cell::new(false));
        let write = writer.write_all(Told(pattern(0, 32 << 20), gone.clone()));
        assert!(timeout(Duration::from_millis(50), write).await.is_err());
        for _ in 0..20 {
            sleep(Duration::from_millis(5)).await;
            assert!(!gone.get(), "its memory is gone while the kernel has it");
        }
        let (mut read, mut sent) = (0, None);
        while sent.is_none_or(|sent| read < sent) {
            sent = sent.or_else(|| writer.take_torn_write().map(|torn| torn.sent));
            if sent == Some(read) {
                break;
            }
            let chunk = timeout(SOON, reader.recv()).await.unwrap().unwrap().expect("no end");
            assert!(chunk[..] == pattern(read, chunk.len()), "wrong bytes at {read}");
            read += chunk.len();
        }
        let until = Instant::now() + SOON;
        while !gone.get() {
            assert!(Instant::now() < until, "it has all been read, and its memory is kept");
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(event_loop.stats().counters.stray_completions, 0);
}

/// A dropped write's buffer lives on until the kernel has let go of it, and the stream is torn as ever.
#[test]
fn settings_zero_copy_write_dropped_half_way() {
    let Some(mut event_loop) = zero_copying() else { skip!("no send without copy") };
    event_loop.block_on(async {
        let (near, far) = net::streams().await;
        let (mut reader, _far_writer) = far.split();
        let (_near_reader, mut writer) = near.split();
        let whole = 32 << 20;
        // More than the buffers of both ends hold.
        let cut = timeout(Duration::from_millis(50), writer.write_all(pattern(0, whole))).await;
        assert!(cut.is_err(), "it was to be cut off");
        let mut read = 0;
        let torn = loop {
            if let Some(torn) = writer.take_torn_write() {
                break torn;
            }
            let chunk = timeout(SOON, reader.recv()).await.unwrap().unwrap().expect("no end");
            assert!(chunk[..] == pattern(read, chunk.len()), "wrong bytes at {read}");
            read += chunk.len();
        };
        assert!(torn.sent < whole && torn.sent >= read, "{torn:?}, of which {read} read");
        writer.shutdown().unwrap();
        while read < torn.sent {
            let chunk = timeout(SOON, reader.recv()).await.unwrap().unwrap().expect("no end");
            assert!(chunk[..] == pattern(read, chunk.len()), "wrong bytes at {read}");
            read += chunk.len();
        }
        assert_eq!(read, torn.sent);
    });
    assert_eq!(event_loop.close(SOON).ops_leaked, 0);
}

/// The peer never reads: its window is shut, and the kernel would keep the write's memory for ever.
#[test]
fn settings_zero_copy_close_does_not_wait_for_ever() {
    in_child("settings_zero_copy_close_does_not_wait_for_ever", || {
        let before = fd_count();
        let Some(mut event_loop) = zero_copying() else { skip!("no send without copy") };
        // Outside of the loop, so that its end does not close it.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        event_loop.block_on(async move {
            let near = TcpStream::connect(addr).await.unwrap();
            let (_reader, mut writer) = near.split();
            let write = writer.write_all(pattern(0, 32 << 20));
            assert!(timeout(Duration::from_millis(50), write).await.is_err());
        });
        let peer = listener.accept().unwrap().0;
        let (grace, began) = (Duration::from_millis(300), Instant::now());
        let report = event_loop.close(grace);
        let took = began.elapsed();
        figure!("closed after {took:?}");
        assert_eq!(report.ops_leaked, 0, "after {took:?}");
        assert!(took >= grace, "nothing held the close up: {took:?}");
        assert!(took < SOON);
        drop((peer, listener));
        assert_eq!(fds_settle_at(before, SOON), before);
    });
}
