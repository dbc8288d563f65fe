//! Mail to a core that is in the middle of a full run queue: it looks between polls, and not after all of them.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use coreloop::{EventLoop, Settings, spawn};

/// Tasks that are ready in one turn.
const READY: usize = 1_000;

/// Polls between two looks at the mail.
const LOOK: usize = 32;

/// Has `READY` tasks polled in one turn, and calls `meanwhile` in each with its number, from 0.
async fn full_turn(meanwhile: impl Fn(usize) + 'static) {
    let (meanwhile, polled) = (Rc::new(meanwhile), Rc::new(Cell::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..READY {
        let (meanwhile, polled) = (meanwhile.clone(), polled.clone());
        tasks.push(spawn(async move { meanwhile(polled.replace(polled.get() + 1)) }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn cross_busy_core_runs_what_is_sent_to_it_within_one_look() {
    // No turn of this loop is cut short.
    let settings = Settings::default().tick_quota(Duration::from_secs(1));
    let mut event_loop = EventLoop::with(settings).unwrap();
    let mut longest = 0;
    for at in (0..READY).step_by(17) {
        let (polled, found) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counts, finds, handle) = (polled.clone(), found.clone(), event_loop.handle());
        event_loop.block_on(full_turn(move |number| {
            counts.store(number + 1, Ordering::Relaxed);
            if number == at {
                let (handle, counts, finds) = (handle.clone(), counts.clone(), finds.clone());
                let sender = thread::spawn(move || {
                    let look =
                        move || finds.store(counts.load(Ordering::Relaxed), Ordering::Relaxed);
                    handle.call_soon_threadsafe(0, look).unwrap();
                });
                // It is in the mail when this poll ends.
                sender.join().unwrap();
            }
        }));
        assert_eq!(polled.load(Ordering::Relaxed), READY);
        let waited = found.load(Ordering::Relaxed) - (at + 1);
        assert!(waited <= LOOK, "sent in poll {at}, and run {waited} polls later");
        longest = longest.max(waited);
    }
    assert!(longest > 0, "some of it was sent in the middle of a turn");
}
