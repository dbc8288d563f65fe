//! Nobody reads standard error any more: what would have been told there harms nobody.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use coreloop::{EventLoop, Settings, spawn, spawn_blocking};
use coreloop_tests::process::take_number;
use coreloop_tests::{in_child, turns};

/// Standard error is a pipe whose reader is gone, for as long as `body` runs.
fn unread<R>(body: impl FnOnce() -> R) -> R {
    let kept = io::stderr().as_fd().try_clone_to_owned().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    take_number(writer.as_raw_fd(), 2);
    let refused = io::Write::write_all(&mut io::stderr(), b"x").unwrap_err();
    let value = body();
    take_number(kept.as_raw_fd(), 2);
    assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe, "nothing is shown");
    value
}

/// A loop with a blocking closure that outlives it, about which its end has something to say.
fn with_one_left() -> (EventLoop, mpsc::Sender<()>) {
    let (release, held) = mpsc::channel();
    let mut event_loop = EventLoop::with(Settings::default().grace(Duration::ZERO)).unwrap();
    event_loop.block_on(async {
        let (tell, told) = mpsc::channel();
        drop(spawn_blocking(move || {
            tell.send(()).unwrap();
            let _ = held.recv();
        }));
        while told.try_recv().is_err() {
            turns(1).await;
        }
    });
    (event_loop, release)
}

#[test]
fn fault_stderr_unread_at_the_end_of_a_loop() {
    in_child("fault_stderr_unread_at_the_end_of_a_loop", || {
        let (event_loop, release) = with_one_left();
        let dropped = unread(|| catch_unwind(AssertUnwindSafe(|| drop(event_loop))));
        assert!(dropped.is_ok(), "the destructor panicked");
        drop(release);
    });
}

/// The same while a panic unwinds, where another one would end the process.
#[test]
fn fault_stderr_unread_while_a_panic_drops_a_loop() {
    in_child("fault_stderr_unread_while_a_panic_drops_a_loop", || {
        let (event_loop, release) = with_one_left();
        let panicked = unread(|| {
            catch_unwind(AssertUnwindSafe(move || {
                let _dropped = event_loop;
                panic!("on purpose");
            }))
        });
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"on purpose"));
        drop(release);
    });
}

/// What nobody took is told by tasks; the loop goes on.
#[test]
fn fault_stderr_unread_when_a_panic_is_reported() {
    in_child("fault_stderr_unread_when_a_panic_is_reported", || {
        let mut event_loop = EventLoop::new().unwrap();
        let value = unread(|| {
            event_loop.block_on(async {
                drop(spawn(async { panic!("nobody takes it") }));
                turns(3).await;
                coreloop::time::timed("told to nobody", async { 7 }).await
            })
        });
        assert_eq!(value, 7);
    });
}
