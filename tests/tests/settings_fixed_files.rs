//! The ring's table of files: what the kernel has in it, and that nothing else is different. What is in the
//! table is read from `/proc/self/fdinfo` of the ring.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use coreloop::time::timeout;
use coreloop::{EventLoop, Feature, Settings, spawn};
use coreloop_net::TcpStream;
use coreloop_tests::drive::pattern;
use coreloop_tests::process::take_number;
use coreloop_tests::{Child, in_child, net, skipped};

const SOON: Duration = Duration::from_secs(5);

/// A loop with a table of so many places, if this kernel has such tables.
fn with_table(places: u32) -> Option<EventLoop> {
    // A socket is entered by its ops, which sends that are made at once are not.
    let settings = Settings::default().fixed_files(places).direct_sends(0);
    let event_loop = EventLoop::with(settings).unwrap();
    let has = event_loop.ring_report().in_force.contains(Feature::FixedFiles);
    has.then_some(event_loop)
}

/// The descriptor of the process's only ring.
fn ring() -> i32 {
    let is_ring = |fd: &String| {
        let to = fs::read_link(format!("/proc/self/fd/{fd}"));
        to.is_ok_and(|to| to.to_string_lossy().contains("[io_uring]"))
    };
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut rings = fds.filter_map(|fd| fd.file_name().into_string().ok()).filter(is_ring);
    rings.next().expect("a ring").parse().unwrap()
}

/// The places of the table that this ring has, and those that are taken. Their numbers are those of the
/// descriptors.
fn table() -> (usize, Vec<i32>) {
    let ring = ring();
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{ring}")).unwrap();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("UserFiles:"));
    let places = lines.next().expect("UserFiles").split_whitespace().nth(1).unwrap();
    let taken = lines.map_while(|line| line.split_once(':')?.0.trim().parse().ok());
    (places.parse().unwrap(), taken.collect())
}

/// So many bytes there, to `far`'s task and back.
async fn echoed(near: &mut TcpStream, far: TcpStream, bytes: usize) -> TcpStream {
    let (mut reader, mut writer) = far.split();
    let echo = spawn(async move {
        let mut left = bytes;
        while left > 0 {
            let chunk = reader.recv().await.unwrap().expect("not the end");
            left -= chunk.len();
            writer.write_all(chunk).await.unwrap();
        }
        TcpStream::reunite(reader, writer).unwrap()
    });
    near.write_all(pattern(0, bytes)).await.unwrap();
    let mut back = Vec::new();
    while back.len() < bytes {
        back.extend_from_slice(&near.recv().await.unwrap().expect("not the end"));
    }
    assert!(back == pattern(0, bytes), "other bytes than those that were sent");
    echo.await.unwrap()
}

/// So many small messages there and back, each in an op of its own, from which on both ends have places.
async fn busy(near: &mut TcpStream, mut far: TcpStream) -> TcpStream {
    for _ in 0..40 {
        far = echoed(near, far, 10).await;
    }
    far
}

/// Runs it in a process that has no other ring, if the kernel has such tables.
fn with_one_ring(name: &'static str, places: u32, run: impl FnOnce(EventLoop) + Send + 'static) {
    if !Child::is_one() && with_table(places).is_none() {
        return skipped(name, "no table of files");
    }
    in_child(name, move || run(with_table(places).unwrap()));
}

#[test]
fn settings_fixed_files_has_who_is_connected_and_nobody_else() {
    let name = "settings_fixed_files_has_who_is_connected_and_nobody_else";
    with_one_ring(name, 256, |mut event_loop| {
        event_loop.block_on(async {
            assert_eq!(table(), (256, vec![]));
            let (mut near, far) = net::streams().await;
            let mut numbers = vec![near.as_fd().as_raw_fd(), far.as_fd().as_raw_fd()];
            numbers.sort_unstable();
            let far = echoed(&mut near, far, 10).await;
            assert_eq!(table().1, [0; 0], "one message is not worth a place");
            let far = busy(&mut near, far).await;
            assert_eq!(table().1, numbers);
            let far = echoed(&mut near, far, 100_000).await;
            assert_eq!(table().1, numbers);
            // The peer hears of the end though an older op waits: nothing keeps the socket open.
            let (mut other, other_far) = net::streams().await;
            let _other_far = busy(&mut other, other_far).await;
            let waits = spawn(async move { other.recv().await.map(|chunk| chunk.is_none()) });
            coreloop::yield_now().await;
            drop(far);
            let end = timeout(SOON, near.recv()).await.expect("the end is told").unwrap();
            assert!(end.is_none());
            assert_eq!(table().1.len(), 3, "near, other and its far end: {:?}", table());
            waits.cancel();
            assert!(waits.await.is_err());
        });
        assert_eq!(table(), (256, vec![]));
    });
}

/// Numbers are used again, above the table there is none, and a connection that is taken off its loop leaves the
/// table.
#[test]
fn settings_fixed_files_follow_descriptors() {
    with_one_ring("settings_fixed_files_follow_descriptors", 20, |mut event_loop| {
        event_loop.block_on(async {
            let mut seen_above = false;
            for _ in 0..10 {
                let mut pairs = Vec::new();
                for _ in 0..8 {
                    let (mut near, far) = net::streams().await;
                    let far = busy(&mut near, far).await;
                    pairs.push((near, far));
                }
                let number = |stream: &TcpStream| stream.as_fd().as_raw_fd();
                let all = pairs.iter().flat_map(|(near, far)| [number(near), number(far)]);
                let mut below: Vec<_> = all.clone().filter(|fd| *fd < 20).collect();
                below.sort_unstable();
                seen_above |= all.clone().any(|fd| fd >= 20);
                assert_eq!(table(), (20, below));
                for (mut near, far) in pairs {
                    echoed(&mut near, far, 10).await;
                }
            }
            assert!(seen_above, "no descriptor lay above the table");
            assert_eq!(table().1, [0; 0]);

            let (mut near, far) = net::streams().await;
            let far = busy(&mut near, far).await;
            let number = far.as_fd().as_raw_fd();
            let detached = far.detach().await.unwrap();
            assert_eq!(table().1, [near.as_fd().as_raw_fd()]);
            let far = detached.attach();
            assert!(!table().1.contains(&number), "as new to this loop as any");
            busy(&mut near, far).await;
        });
    });
}

/// A stream that outlives its loop: the table ends with the loop, also where the ring does not, so its peer
/// hears at once.
#[test]
fn settings_fixed_files_end_with_the_loop() {
    with_one_ring("settings_fixed_files_end_with_the_loop", 1024, |mut event_loop| {
        const KEPT: i32 = 900;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (mut stream, mut far) = event_loop.block_on(async {
            let near = TcpStream::connect(addr).await.unwrap();
            (near, listener.accept().unwrap().0)
        });
        far.set_read_timeout(Some(SOON)).unwrap();
        event_loop.block_on(async {
            for _ in 0..40 {
                stream.write_all(b"x".to_vec()).await.unwrap();
            }
        });
        far.read_exact(&mut [0; 40]).unwrap();
        assert_eq!(table().1, [stream.as_fd().as_raw_fd()]);
        // As in a child that was forked meanwhile.
        take_number(ring(), KEPT);
        drop(event_loop);
        drop(stream);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
        assert_eq!(ring(), KEPT);
    });
}

#[test]
fn settings_fixed_files_masked_is_stepped_down() {
    let settings = Settings::default().fixed_files(64).mask(Feature::FixedFiles);
    let mut event_loop = EventLoop::with(settings).unwrap();
    let told = event_loop.ring_report().stepped[0].to_string();
    assert_eq!(told, "fixed_files: asked 64, in force off, because masked by settings");
    event_loop.block_on(async {
        let (mut near, far) = net::streams().await;
        echoed(&mut near, far, 1000).await;
    });
}

/// Who left the setting alone asked for nothing: an older kernel lacks a feature, and steps nothing down.
#[test]
fn settings_fixed_files_that_nobody_asked_for_are_a_feature_that_is_missing() {
    let event_loop = EventLoop::with(Settings::default().mask(Feature::FixedFiles)).unwrap();
    let report = event_loop.ring_report();
    assert!(report.stepped.is_empty(), "{:?}", report.stepped);
    assert!(report.missing.iter().any(|(feature, _)| *feature == Feature::FixedFiles));
}

/// The kernel has no table of more places than the process may have descriptors, and nobody needs one.
#[test]
fn settings_fixed_files_are_at_most_the_limit_of_descriptors() {
    let name = "settings_fixed_files_are_at_most_the_limit_of_descriptors";
    with_one_ring(name, 1 << 20, |event_loop| {
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let soft = line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX);
        let asked = 1 << 20;
        assert_eq!(table().0, soft.min(asked));
        assert!(event_loop.ring_report().stepped.iter().all(|s| s.setting != "fixed_files"));
    });
}
