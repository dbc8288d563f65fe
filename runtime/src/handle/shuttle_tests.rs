//! The whole way of a task to another core and of its value back, with several senders at a time: closure
//! queue, wake map, park, room to wait for, promise and handle. Too large for loom, so in random orders.

use std::panic::Location;
use std::sync::Arc;

use super::{RemoteError, promise as promised};
use crate::mailbox::cell::{CoreCell, Lease};
use crate::mailbox::queue::{JobQueue, Refused, Room};
use crate::metrics::{Recorder, StatsLevel};
use crate::sys::model::thread;
use crate::sys::modelled::{block_on, boot, check, close, sleep};
use crate::sys::shared::{AtomicUsize, Ordering};

const WAKE: i32 = 0;
const RING: i32 = 1;
const SENDERS: usize = 3;
const EACH: usize = 2;

fn core() -> (&'static CoreCell, Arc<JobQueue>) {
    boot();
    let lease = std::mem::ManuallyDrop::new(Lease::take().expect("a core is free"));
    lease.cell.map.reserve(8);
    lease.open(WAKE, Some(RING));
    let recorder = Arc::new(Recorder::new(StatsLevel::Counters, 0));
    (lease.cell, Arc::new(JobQueue::new(lease.cell, recorder, None)))
}

/// Sends `EACH` closures, each of which wakes a task of the core and keeps a promise; waits for room, and
/// then for every value. How many were answered, and how many by an error.
fn send(cell: &'static CoreCell, queue: &Arc<JobQueue>, sender: usize) -> (usize, usize) {
    let mut handles = Vec::new();
    for i in 0..EACH {
        let (promise, handle) = promised(Location::caller());
        handles.push((handle, sender * EACH + i));
        let mut job: Box<dyn FnOnce() + Send> = Box::new(move || {
            cell.wake((sender * EACH + i) as u32);
            promise.keep(Ok(sender * EACH + i));
        });
        loop {
            job = match queue.push(job) {
                Err(Refused::Full(job)) => job,
                Ok(()) | Err(Refused::Gone) => break,
            };
            block_on(Room::in_queue(queue));
        }
    }
    let mut answered = (0, 0);
    for (handle, value) in handles {
        match block_on(handle) {
            Ok(got) => {
                assert_eq!(got, value);
                answered.0 += 1;
            }
            Err(e) => {
                assert_eq!(e, RemoteError::Gone);
                answered.1 += 1;
            }
        }
    }
    answered
}

/// Turns of the core until `until` says so: mail, then the park.
fn turns(cell: &CoreCell, queue: &JobQueue, woken: &mut usize, until: impl Fn(usize) -> bool) {
    loop {
        if cell.take_post() {
            cell.map.drain(|_| *woken += 1);
            queue.take().into_iter().for_each(|job| job());
        }
        if until(*woken) {
            return;
        }
        cell.park();
        if !cell.has_post() {
            sleep();
        }
        cell.unparked();
    }
}

#[test]
fn shuttle_every_task_is_woken_and_every_value_comes_back() {
    check(5, || {
        let (cell, queue) = core();
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let queue = queue.clone();
                thread::spawn(move || send(cell, &queue, sender))
            })
            .collect();
        let mut woken = 0;
        turns(cell, &queue, &mut woken, |woken| woken == SENDERS * EACH);
        for sender in senders {
            assert_eq!(sender.join().unwrap(), (EACH, 0));
        }
    });
}

/// The core ends after some of it: what is left is answered by an error, and nobody waits for ever.
#[test]
fn shuttle_a_core_that_ends_answers_everybody() {
    check(5, || {
        let (cell, queue) = core();
        let run = Arc::new(AtomicUsize::new(0));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (queue, run) = (queue.clone(), run.clone());
                thread::spawn(move || {
                    let answered = send(cell, &queue, sender);
                    run.fetch_add(answered.0, Ordering::SeqCst);
                    answered
                })
            })
            .collect();
        let mut woken = 0;
        turns(cell, &queue, &mut woken, |woken| woken >= 2);
        cell.park();
        drop(queue.close());
        Lease { id: 0, cell }.close();
        [WAKE, RING].into_iter().for_each(close);
        let mut all = 0;
        for sender in senders {
            let answered = sender.join().unwrap();
            assert_eq!(answered.0 + answered.1, EACH);
            all += answered.0;
        }
        assert_eq!(all, run.load(Ordering::SeqCst));
        assert!(all >= 2, "what was run was answered");
    });
}
