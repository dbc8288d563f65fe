//! Buffers that worker threads of the kernel's have taken: nobody spins for them, and all is served when they
//! come back. A file of its own: it counts the threads of its process.

use std::io::Write;
use std::time::Duration;

use coreloop::time::{sleep, timeout};
use coreloop::{EventLoop, Settings, spawn};
use coreloop_tests::net::pair;
use coreloop_tests::{kernel_workers, skip};
use socket2::SockRef;

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(20);

/// One buffer, taken by a receive that was woken 127 times by urgent bytes which are not there for it.
#[test]
fn resource_no_spin_for_a_buffer_that_a_worker_has_taken() {
    let mut event_loop = EventLoop::with(Settings::default().buffers(1, 4096)).unwrap();
    let stats = event_loop.handle();
    let pinned = event_loop.block_on(async {
        let (mut a, mut to_a) = pair();
        a.socket().set_out_of_band_inline(false).unwrap();
        // An urgent byte that the next one overtakes becomes one like the others.
        let first =
            spawn(async move { while !a.recv().await.unwrap().unwrap().ends_with(b"a") {} });
        let mut urgent = 0;
        while kernel_workers() == 0 {
            urgent += 1;
            if urgent > 2_000 {
                return false;
            }
            SockRef::from(&to_a).send_out_of_band(b"!").unwrap();
            sleep(2 * MS).await;
        }
        let (mut b, mut to_b) = pair();
        let second = spawn(async move { b.recv().await.unwrap().unwrap().to_vec() });
        to_b.write_all(b"b").unwrap();
        sleep(20 * MS).await;
        let turns = || stats.snapshots()[0].counters.ticks;
        let before = turns();
        sleep(200 * MS).await;
        // Sleeping, and being asked, take a few; going round takes tens of thousands.
        assert!(turns() - before < 200, "{} turns in 200 ms", turns() - before);
        assert!(!first.is_finished() && !second.is_finished());
        to_a.write_all(b"a").unwrap();
        timeout(LONG, first).await.unwrap().unwrap();
        assert_eq!(timeout(LONG, second).await.unwrap().unwrap(), b"b");
        true
    });
    if !pinned {
        skip!("this kernel leaves no receive to a worker");
    }
}
