//! loom's models of wakes, of the park, of leases and of the closure queue.
//!
//! What must hold here is broken on purpose, one thing at a time, by `tests/loom_breaks.sh`, which wants
//! one of these to find it. `docs/TESTING.md` says which breaks have been seen to be found.

use std::sync::Arc;

use super::cell::{CoreCell, Lease};
use super::queue::{JobQueue, Refused, Room};
use crate::metrics::{Recorder, StatsLevel};
use crate::sys::model::thread;
use crate::sys::modelled::{block_on, boot, check, close, sleep};
use crate::sys::shared::{AtomicUsize, Ordering};

const WAKE: i32 = 0;
const RING: i32 = 1;
const NOTIFY: i32 = 2;

fn core() -> &'static CoreCell {
    boot();
    let lease = std::mem::ManuallyDrop::new(Lease::take().expect("a core is free"));
    lease.cell.map.reserve(8);
    lease.open(WAKE, Some(RING));
    lease.cell
}

/// What the loop does between two turns: announces its park, looks once more, sleeps.
fn park(cell: &CoreCell) {
    cell.park();
    if !cell.has_post() {
        sleep();
    }
    cell.unparked();
}

/// What it does at the beginning of one.
fn take_wakes(cell: &CoreCell, woken: impl FnMut(u32)) {
    if cell.take_post() {
        cell.map.drain(woken);
    }
}

fn wait_for(cell: &CoreCell, mut slots: Vec<u32>) {
    loop {
        take_wakes(cell, |slot| slots.retain(|s| *s != slot));
        if slots.is_empty() {
            return;
        }
        park(cell);
    }
}

#[test]
fn loom_park_no_wake_is_lost() {
    for slots in [[0, 0], [0, 1], [0, 2], [0, 4]] {
        check(3, move || {
            let cell = core();
            let senders = slots.map(|slot| thread::spawn(move || cell.wake(slot)));
            wait_for(cell, slots.to_vec());
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        });
    }
}

#[test]
fn loom_park_a_second_wake_of_the_same_slot_is_not_lost() {
    check(3, || {
        let cell = core();
        let written = Arc::new(AtomicUsize::new(0));
        let sender = thread::spawn({
            let written = written.clone();
            move || {
                for n in 1..=2 {
                    written.store(n, Ordering::Relaxed);
                    cell.wake(0);
                }
            }
        });
        let mut seen = 0;
        while seen < 2 {
            take_wakes(cell, |_| seen = written.load(Ordering::Relaxed));
            if seen < 2 {
                park(cell);
            }
        }
        sender.join().unwrap();
    });
}

#[test]
fn loom_park_a_wake_brings_what_was_written() {
    check(3, || {
        let cell = core();
        let written = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let senders = [0, 1].map(|sender| {
            let written = written.clone();
            thread::spawn(move || {
                written[sender].store(1, Ordering::Relaxed);
                cell.map.set(0);
            })
        });
        // Both set the same bit: who comes second stops there, and still is seen by who takes the bit.
        let mut seen = 0;
        let mut look = || {
            cell.map.drain(|_| seen = written.iter().map(|w| w.load(Ordering::Relaxed)).sum());
        };
        look();
        look();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        // What was not taken before is taken now; whoever took the bit last has seen both.
        look();
        assert_eq!(seen, 2);
    });
}

#[test]
fn loom_close_no_descriptor_is_used_after() {
    for ring_first in [false, true] {
        check(3, move || {
            let cell = core();
            let lease = Lease { id: 0, cell };
            lease.notify(NOTIFY);
            let senders = [0, 1].map(|slot| thread::spawn(move || cell.wake(slot)));
            cell.park();
            if ring_first {
                lease.close_ring();
                close(RING);
            }
            lease.close();
            [WAKE, NOTIFY].into_iter().for_each(close);
            if !ring_first {
                close(RING);
            }
            cell.unparked();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        });
    }
}

/// Counts how often it is run, and how often dropped.
struct Job(Arc<[AtomicUsize; 2]>);

impl Job {
    fn boxed(count: &Arc<[AtomicUsize; 2]>) -> Box<dyn FnOnce() + Send> {
        let job = Self(count.clone());
        Box::new(move || {
            job.0[0].fetch_add(1, Ordering::Relaxed);
        })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }
}

fn queue_of(cell: &'static CoreCell) -> Arc<JobQueue> {
    Arc::new(JobQueue::new(cell, Arc::new(Recorder::new(StatsLevel::Counters, 0)), None))
}

fn count() -> Arc<[AtomicUsize; 2]> {
    Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)])
}

/// A thread that leaves a closure.
fn pusher(queue: &Arc<JobQueue>, count: &Arc<[AtomicUsize; 2]>) -> thread::JoinHandle<()> {
    let (queue, count) = (queue.clone(), count.clone());
    thread::spawn(move || assert!(queue.push_anyway(Job::boxed(&count)).is_ok()))
}

/// What the loop does when it has taken the word that there is mail.
fn run_jobs(queue: &JobQueue) {
    if queue.any() {
        queue.take().into_iter().for_each(|job| job());
    }
}

#[test]
fn loom_queue_a_push_wakes_the_core() {
    check(3, || {
        let cell = core();
        let queue = queue_of(cell);
        let count = count();
        let senders = [(); 2].map(|()| pusher(&queue, &count));
        while count[0].load(Ordering::Relaxed) < 2 {
            if cell.take_post() {
                run_jobs(&queue);
            } else {
                park(cell);
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(count[1].load(Ordering::Relaxed), 2);
    });
}

/// A wake and a closure are told by the same word.
#[test]
fn loom_park_neither_of_a_wake_and_a_closure_is_lost() {
    check(3, || {
        let cell = core();
        let queue = queue_of(cell);
        let count = count();
        let senders = [pusher(&queue, &count), thread::spawn(move || cell.wake(0))];
        let mut woken = false;
        while !woken || count[0].load(Ordering::Relaxed) == 0 {
            if cell.take_post() {
                cell.map.drain(|_| woken = true);
                run_jobs(&queue);
            } else {
                park(cell);
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(count[1].load(Ordering::Relaxed), 1);
    });
}

#[test]
fn loom_queue_every_closure_is_run_or_dropped() {
    check(3, || {
        let cell = core();
        let queue = queue_of(cell);
        let count = count();
        let senders = [(); 2].map(|()| {
            let (queue, count) = (queue.clone(), count.clone());
            thread::spawn(move || match queue.push(Job::boxed(&count)) {
                Ok(()) => true,
                Err(Refused::Full(job)) => {
                    drop(job);
                    false
                }
                Err(Refused::Gone) => false,
            })
        });
        queue.take().into_iter().for_each(|job| job());
        drop(queue.close());
        let taken = senders.map(|sender| sender.join().unwrap());
        let run = count[0].load(Ordering::Relaxed);
        assert!(run <= taken.into_iter().filter(|taken| *taken).count());
        assert_eq!(count[1].load(Ordering::Relaxed), 2);
    });
}

#[test]
fn loom_queue_room_wakes_who_waits() {
    check(3, || {
        let cell = core();
        let queue = queue_of(cell);
        let count = count();
        assert!(queue.push(Job::boxed(&count)).is_ok());
        let sender = thread::spawn({
            let (queue, count) = (queue.clone(), count.clone());
            move || {
                let mut job = Job::boxed(&count);
                loop {
                    job = match queue.push(job) {
                        Err(Refused::Full(job)) => job,
                        Ok(()) | Err(Refused::Gone) => return,
                    };
                    block_on(Room::in_queue(&queue));
                }
            }
        });
        queue.take().into_iter().for_each(|job| job());
        drop(queue.close());
        sender.join().unwrap();
        assert_eq!(count[1].load(Ordering::Relaxed), 2);
    });
}

#[test]
fn loom_lease_a_core_has_one_loop_at_a_time_and_the_next_one_sees_what_it_left() {
    check(3, || {
        boot();
        let live = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let uses = |live: Arc<[AtomicUsize; 2]>| {
            let lease = Lease::take().expect("there are as many as threads");
            let id = lease.id as usize;
            assert_eq!(live[id].fetch_add(1, Ordering::Relaxed), 0);
            lease.set_next_generation(lease.first_generation() + 1);
            lease.open(WAKE, None);
            live[id].fetch_sub(1, Ordering::Relaxed);
        };
        let other = thread::spawn({
            let live = live.clone();
            move || uses(live)
        });
        uses(live);
        other.join().unwrap();
        let leases = [Lease::take().unwrap(), Lease::take().unwrap()];
        assert_eq!(leases.map(|lease| lease.first_generation()).iter().sum::<u32>(), 2);
    });
}
