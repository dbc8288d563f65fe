//! Random asks, cancels, releases and polls of each primitive against a plain model of it: who has been
//! handed what must agree after every step, so no wake-up, permit or item can be lost unseen.

use std::cell::Cell;
use std::collections::VecDeque;

use coreloop::sync::{
    Barrier, Condition, Event, Mutex, Queue, RwLock, Semaphore, TryGetError, TryPutError, broadcast,
};
use coreloop_tests::{ByHand, Rng, now};

const SEEDS: u64 = 40;
const STEPS: usize = 600;

/// Who is in line for a number of permits, and who was handed some.
struct Model {
    free: usize,
    line: VecDeque<(u32, usize)>,
    handed: Vec<u32>,
}

impl Model {
    fn serve(&mut self) {
        while let Some((id, need)) = self.line.front().copied().filter(|(_, n)| *n <= self.free) {
            self.free -= need;
            self.line.pop_front();
            self.handed.push(id);
        }
    }
}

/// Runs anything that hands out permits in the order of asking: `ask` with how many, `attempt` at once.
fn stress_permits<'a, G: 'a>(
    seed: u64,
    total: usize,
    needs: &[usize],
    ask: &dyn Fn(usize) -> ByHand<'a, G>,
    attempt: &dyn Fn(usize) -> Option<G>,
) {
    let mut rng = Rng::new(seed);
    let mut model = Model { free: total, line: VecDeque::new(), handed: Vec::new() };
    let mut waiters: Vec<(u32, usize, ByHand<'a, G>)> = Vec::new();
    let mut holders: Vec<(usize, G)> = Vec::new();
    let mut next_id = 0;
    for step in 0..STEPS {
        let at = format!("seed {seed}, step {step}");
        match rng.below(10) {
            0..=2 if waiters.len() < 12 => {
                let need = needs[rng.below(needs.len() as u64) as usize];
                next_id += 1;
                let mut waiter = ask(need);
                model.line.push_back((next_id, need));
                model.serve();
                let ready = model.handed.iter().position(|id| *id == next_id);
                let got = waiter.poll();
                assert_eq!(got.is_some(), ready.is_some(), "{at}: first poll");
                match (got, ready) {
                    (Some(guard), Some(place)) => {
                        model.handed.swap_remove(place);
                        holders.push((need, guard));
                    }
                    _ => waiters.push((next_id, need, waiter)),
                }
            }
            3 => {
                let need = needs[rng.below(needs.len() as u64) as usize];
                let possible = model.line.is_empty() && model.free >= need;
                let got = attempt(need);
                assert_eq!(got.is_some(), possible, "{at}: at once");
                if let Some(guard) = got {
                    model.free -= need;
                    holders.push((need, guard));
                }
            }
            4 | 5 if !holders.is_empty() => {
                let (need, guard) = holders.swap_remove(rng.below(holders.len() as u64) as usize);
                drop(guard);
                model.free += need;
                model.serve();
            }
            6 | 7 if !waiters.is_empty() => {
                // A poll, whether it was woken or not, with its waker or another one.
                let which = rng.below(waiters.len() as u64) as usize;
                let (id, need, waiter) = &mut waiters[which];
                let got = if rng.below(2) == 0 { waiter.poll() } else { waiter.poll_anew() };
                let place = model.handed.iter().position(|handed| handed == id);
                assert_eq!(got.is_some(), place.is_some(), "{at}: poll of {id}");
                if let (Some(guard), Some(place)) = (got, place) {
                    model.handed.swap_remove(place);
                    holders.push((*need, guard));
                    waiters.swap_remove(which);
                }
            }
            8 if !waiters.is_empty() => {
                let (id, need, waiter) =
                    waiters.swap_remove(rng.below(waiters.len() as u64) as usize);
                drop(waiter);
                model.line.retain(|(waiting, _)| *waiting != id);
                if let Some(place) = model.handed.iter().position(|handed| *handed == id) {
                    model.handed.swap_remove(place);
                    model.free += need;
                }
                model.serve();
            }
            _ => {}
        }
        for (id, _, waiter) in &waiters {
            assert_eq!(waiter.woken(), model.handed.contains(id), "{at}: wake of {id}");
        }
    }
    drop(waiters);
    drop(holders);
    assert!(attempt(total).is_some(), "seed {seed}: all of it comes back");
}

#[test]
fn p1_stress_mutex_against_a_model() {
    for seed in 1..=SEEDS {
        let mutex = Mutex::new(());
        let ask = |_| ByHand::new(mutex.lock());
        stress_permits(seed * 31, 1, &[1], &ask, &|_| mutex.try_lock().ok());
    }
}

#[test]
fn p1_stress_semaphore_against_a_model() {
    for seed in 1..=SEEDS {
        let semaphore = Semaphore::new(4);
        let ask = |n| {
            let asked = semaphore.acquire_many(n);
            ByHand::new(async move { asked.await.unwrap() })
        };
        let attempt = |n| semaphore.try_acquire_many(n).ok();
        stress_permits(seed * 37, 4, &[1, 1, 2, 4], &ask, &attempt);
    }
}

#[test]
fn p1_stress_rw_lock_against_a_model() {
    /// In the model a writer takes this many, more than there are readers at once.
    const ALL: usize = 1 << 20;
    for seed in 1..=SEEDS {
        let lock = RwLock::new(());
        let lock = &lock;
        let ask = |n| match n {
            1 => ByHand::new(async move { (Some(lock.read().await), None) }),
            _ => ByHand::new(async move { (None, Some(lock.write().await)) }),
        };
        let attempt = |n| match n {
            1 => lock.try_read().ok().map(|reader| (Some(reader), None)),
            _ => lock.try_write().ok().map(|writer| (None, Some(writer))),
        };
        stress_permits(seed * 41, ALL, &[1, 1, 1, ALL], &ask, &attempt);
    }
}

#[test]
fn p1_stress_queue_against_a_model() {
    for seed in 1..=SEEDS {
        let mut rng = Rng::new(seed * 43);
        let queue = Queue::bounded(3);
        let mut model = VecDeque::new();
        let mut getters: Vec<ByHand<'_, _>> = Vec::new();
        let mut putters: Vec<(u64, ByHand<'_, _>)> = Vec::new();
        for step in 0..STEPS as u64 {
            match rng.below(9) {
                0 | 1 if putters.len() < 8 => {
                    let mut putter = ByHand::new(queue.put(step));
                    match putter.poll() {
                        Some(put) => {
                            put.unwrap();
                            model.push_back(step);
                        }
                        None => putters.push((step, putter)),
                    }
                }
                2 | 3 if getters.len() < 8 => {
                    let mut getter = ByHand::new(queue.get());
                    match getter.poll() {
                        Some(got) => assert_eq!(got.ok(), model.pop_front(), "seed {seed}"),
                        None => getters.push(getter),
                    }
                }
                4 => match queue.try_put(step) {
                    Ok(()) => model.push_back(step),
                    Err(e) => assert_eq!(e, TryPutError::Full(step)),
                },
                5 => match queue.try_get() {
                    Ok(got) => assert_eq!(Some(got), model.pop_front(), "seed {seed}"),
                    Err(e) => assert_eq!(e, TryGetError::Empty),
                },
                6 if !getters.is_empty() => {
                    drop(getters.swap_remove(rng.below(getters.len() as u64) as usize));
                }
                7 if !putters.is_empty() => {
                    drop(putters.swap_remove(rng.below(putters.len() as u64) as usize));
                }
                _ => {
                    // All who were woken run, one after the other.
                    if let Some(which) = getters.iter().position(ByHand::woken) {
                        let got = getters.remove(which).finish();
                        assert_eq!(got.ok(), model.pop_front(), "seed {seed}");
                    }
                    if let Some(which) = putters.iter().position(|(_, putter)| putter.woken()) {
                        let (item, putter) = putters.remove(which);
                        putter.finish().unwrap();
                        model.push_back(item);
                    }
                }
            }
            assert_eq!(queue.len(), model.len(), "seed {seed}");
            let promised = getters.iter().filter(|getter| getter.woken()).count();
            let filling = putters.iter().filter(|(_, putter)| putter.woken()).count();
            assert!(model.len() + filling <= 3, "seed {seed}: the bound");
            // Nobody waits in vain.
            let waits = getters.len() > promised;
            assert!(!waits || model.len() == promised, "seed {seed}: an item and a getter");
            let waits = putters.len() > filling;
            assert!(!waits || model.len() + filling == 3, "seed {seed}: a place and a putter");
        }
        drop((getters, putters));
        while let Ok(item) = queue.try_get() {
            assert_eq!(Some(item), model.pop_front(), "seed {seed}");
        }
        assert!(model.is_empty(), "seed {seed}: nothing is lost");
        (0..3).for_each(|n| queue.try_put(n).unwrap());
    }
}

#[test]
fn p1_stress_condition_loses_no_notification() {
    for seed in 1..=SEEDS {
        let mut rng = Rng::new(seed * 47);
        let (stock, changed) = (Mutex::new(0_u64), Condition::new());
        let taken = Cell::new(0);
        let take = async || {
            let mut stock = changed.wait_for(stock.lock().await, |stock| *stock > 0).await;
            *stock -= 1;
            taken.set(taken.get() + 1);
        };
        let mut waiters: Vec<ByHand<'_, ()>> = Vec::new();
        let mut put = 0;
        for _ in 0..STEPS {
            match rng.below(6) {
                0 | 1 if waiters.len() < 10 => {
                    let mut waiter = ByHand::new(take());
                    if waiter.poll().is_none() {
                        waiters.push(waiter);
                    }
                }
                2 => {
                    if let Ok(mut stock) = stock.try_lock() {
                        *stock += 1;
                        put += 1;
                        changed.notify_one();
                    }
                }
                3 if !waiters.is_empty() => {
                    drop(waiters.swap_remove(rng.below(waiters.len() as u64) as usize));
                }
                4 if rng.below(8) == 0 => {
                    settle(&mut waiters);
                    let left = *now(stock.lock());
                    assert!(left == 0 || waiters.is_empty(), "seed {seed}: {left} wait for nobody");
                }
                _ if !waiters.is_empty() => {
                    let which = rng.below(waiters.len() as u64) as usize;
                    let waiter = &mut waiters[which];
                    let done = if rng.below(2) == 0 { waiter.poll() } else { waiter.poll_anew() };
                    if done.is_some() {
                        waiters.swap_remove(which);
                    }
                }
                _ => {}
            }
        }
        settle(&mut waiters);
        let left = *now(stock.lock());
        assert_eq!(taken.get() + left, put, "seed {seed}");
    }
}

/// Lets those who were woken run, until nobody is. All of them wait: a newcomer would take what a lost
/// notification left lying.
fn settle(waiters: &mut Vec<ByHand<'_, ()>>) {
    while waiters.iter().any(ByHand::woken) {
        waiters.retain_mut(|waiter| !waiter.woken() || waiter.poll().is_none());
    }
}

#[test]
fn p1_stress_event_and_barrier_wake_exactly_those_who_wait() {
    for seed in 1..=SEEDS {
        let mut rng = Rng::new(seed * 53);
        let (event, barrier) = (Event::new(), Barrier::new(4));
        let mut for_event: Vec<(bool, ByHand<'_, ()>)> = Vec::new();
        let mut for_barrier: Vec<(bool, ByHand<'_, bool>)> = Vec::new();
        for _ in 0..STEPS {
            match rng.below(7) {
                0 | 1 if event.is_set() => now(event.wait()),
                0 | 1 => for_event.push((false, ByHand::pending(event.wait()))),
                2 => {
                    event.set();
                    for_event.iter_mut().for_each(|(told, _)| *told = true);
                    if rng.below(2) == 0 {
                        event.clear();
                    }
                }
                3 => event.clear(),
                4 => {
                    let come = for_barrier.iter().filter(|(told, _)| !told).count();
                    assert_eq!(barrier.waiting(), come, "seed {seed}");
                    let mut one = ByHand::new(async { barrier.wait().await.is_ok() });
                    assert_eq!(one.poll().is_some(), come == 3, "seed {seed}");
                    match come {
                        3 => for_barrier.iter_mut().for_each(|(told, _)| *told = true),
                        _ => for_barrier.push((false, one)),
                    }
                }
                5 if !for_event.is_empty() => {
                    drop(for_event.swap_remove(rng.below(for_event.len() as u64) as usize));
                }
                6 if !for_barrier.is_empty() => {
                    let which = rng.below(for_barrier.len() as u64) as usize;
                    let (told, waiter) = for_barrier.swap_remove(which);
                    if told {
                        assert!(waiter.finish(), "seed {seed}");
                    }
                }
                _ => {}
            }
            for_event.iter().for_each(|(told, one)| assert_eq!(one.woken(), *told, "seed {seed}"));
            for_barrier.iter().for_each(|(told, one)| assert_eq!(one.woken(), *told, "{seed}"));
        }
    }
}

#[test]
fn stress_broadcast_against_a_model() {
    const KEPT: u64 = 5;
    for seed in 1..=SEEDS {
        let mut rng = Rng::new(seed * 59);
        let (tx, first) = broadcast::channel(KEPT as usize);
        let mut receivers = vec![(first, 0)];
        let mut sent = 0_u64;
        for _ in 0..STEPS {
            let which = rng.below(receivers.len() as u64) as usize;
            match rng.below(8) {
                0..=2 => {
                    assert_eq!(tx.send(sent), Ok(receivers.len()));
                    sent += 1;
                }
                3 if receivers.len() < 6 => receivers.push((tx.subscribe(), sent)),
                4 if receivers.len() > 1 => drop(receivers.swap_remove(which)),
                _ => {
                    let (receiver, next) = &mut receivers[which];
                    let lost = sent.saturating_sub(KEPT + *next);
                    let expected = match () {
                        () if lost > 0 => Err(broadcast::TryRecvError::Lagged(lost)),
                        () if *next == sent => Err(broadcast::TryRecvError::Empty),
                        () => Ok(*next),
                    };
                    assert_eq!(receiver.try_recv(), expected, "seed {seed}");
                    *next += if lost > 0 { lost } else { u64::from(expected.is_ok()) };
                }
            }
            let behind = receivers.iter().map(|(_, next)| sent - next).max().unwrap_or(0);
            assert_eq!(tx.len() as u64, behind.min(KEPT), "seed {seed}: kept for nobody");
        }
    }
}
