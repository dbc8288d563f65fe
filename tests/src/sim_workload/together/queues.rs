//! Pieces with queues and channels between tasks of one core.
//!
//! Owns a piece for each kind. Several tasks put, several take, each with waits that are broken off; what was
//! put is taken once, by one of them, or dropped with the queue, and in the order that the kind has.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use coreloop::spawn;
use coreloop::sync::{Queue, Store, TryGetError, broadcast, mpsc, oneshot, watch};

use super::{Seat, Value};

pub(super) async fn play(seat: &Seat) {
    let room = 1 + seat.ledger.below(4) as usize;
    match seat.ledger.below(8) {
        0 | 1 => queue(seat, Queue::bounded(room), true).await,
        2 => queue(seat, Queue::bounded_lifo(room), false).await,
        3 => queue(seat, Queue::bounded_priority(room), false).await,
        4 | 5 => messages(seat, room).await,
        6 => latest(seat, room).await,
        _ => once(seat).await,
    }
}

/// Who put it, and what number it has there.
type Name = (u64, u64);

struct Item {
    name: Name,
    _value: Value,
}

impl Item {
    fn new(seat: &Seat, name: Name) -> Self {
        Self { name, _value: Value::new(&seat.ledger, name.1) }
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.1.cmp(&other.name.1)
    }
}

/// What went in and what came out, in order.
#[derive(Default)]
struct Log {
    put: RefCell<Vec<Name>>,
    taken: RefCell<Vec<Name>>,
}

impl Log {
    fn is_empty(&self) -> bool {
        self.put.borrow().len() == self.taken.borrow().len()
    }

    /// Nothing twice, nothing that was not put; all of it where `all`, and in order where `in_order`.
    fn check(&self, seat: &Seat, what: &str, all: bool, in_order: bool) {
        let (mut put, taken) = (self.put.borrow().clone(), self.taken.borrow());
        let mut last = BTreeMap::new();
        for &(by, number) in taken.iter() {
            let before = last.insert(by, number);
            let is_next = !in_order || before.is_none_or(|before| before < number);
            seat.check(is_next, || format!("{what} gave {number} of {by} after {before:?}"));
        }
        put.sort_unstable();
        let mut got = taken.clone();
        got.sort_unstable();
        let twice = got.windows(2).find(|pair| pair[0] == pair[1]);
        seat.check(twice.is_none(), || format!("{what} gave {twice:?}, twice"));
        let strange = got.iter().find(|name| put.binary_search(name).is_err());
        seat.check(strange.is_none(), || format!("{what} gave {strange:?}, which was never put"));
        let lost = put.iter().find(|name| got.binary_search(name).is_err());
        seat.check(!all || lost.is_none(), || format!("{what} lost {lost:?}"));
    }
}

async fn queue<S>(seat: &Seat, queue: Queue<Item, S>, in_order: bool)
where
    S: Store<Item> + 'static,
{
    let (queue, log) = (Rc::new(queue), Rc::new(Log::default()));
    let putters: Vec<_> = (0..1 + seat.ledger.below(3))
        .map(|by| spawn(put(seat.clone(), queue.clone(), log.clone(), by)))
        .collect();
    let takers: Vec<_> = (0..1 + seat.ledger.below(3))
        .map(|_| spawn(take(seat.clone(), queue.clone(), log.clone())))
        .collect();
    for putter in putters {
        seat.check(putter.await.is_ok(), || "a task that puts".to_owned());
    }
    if seat.ledger.chance(40) {
        queue.join().await;
        let done = log.is_empty() && queue.is_empty();
        seat.check(done, || format!("a queue was done with {} items in it", queue.len()));
    }
    let all = seat.ledger.chance(70);
    if all {
        queue.shutdown();
    } else {
        queue.shutdown_now();
    }
    for taker in takers {
        seat.check(taker.await.is_ok(), || "a task that takes".to_owned());
    }
    let left = queue.try_put(Item::new(seat, (99, 0))).is_ok() || !queue.is_empty();
    seat.check(!left, || format!("a queue that is shut down has {} items", queue.len()));
    // Whatever was dropped is done with.
    queue.join().await;
    log.check(seat, "a queue", all, in_order);
}

async fn put<S: Store<Item>>(seat: Seat, queue: Rc<Queue<Item, S>>, log: Rc<Log>, by: u64) {
    let _guard = seat.ledger.guard();
    for number in 0..1 + seat.ledger.below(8) {
        let item = Item::new(&seat, (by, number));
        let is_in = match seat.ledger.below(4) {
            0 => queue.try_put(item).is_ok(),
            1 => seat.perhaps(80, queue.put(item)).await.is_some_and(|put| put.is_ok()),
            _ => queue.put(item).await.is_ok(),
        };
        if is_in {
            log.put.borrow_mut().push((by, number));
        }
        seat.dawdle().await;
    }
}

async fn take<S: Store<Item>>(seat: Seat, queue: Rc<Queue<Item, S>>, log: Rc<Log>) {
    let _guard = seat.ledger.guard();
    loop {
        let item = match seat.ledger.below(4) {
            0 => match queue.try_get() {
                Ok(item) => item,
                Err(TryGetError::ShutDown) => return,
                Err(TryGetError::Empty) => {
                    seat.ledger.sleep(seat.ledger.micros(300)).await;
                    continue;
                }
            },
            1 => match seat.perhaps(80, queue.get()).await {
                Some(Ok(item)) => item,
                Some(Err(_)) => return,
                None => continue,
            },
            _ => match queue.get().await {
                Ok(item) => item,
                Err(_) => return,
            },
        };
        log.taken.borrow_mut().push(item.name);
        seat.dawdle().await;
        queue.task_done();
    }
}

/// Several send to one, who closes half way, or goes, or does not.
async fn messages(seat: &Seat, room: usize) {
    let (tx, mut rx) = match seat.ledger.below(4) {
        0 => mpsc::unbounded_channel(),
        _ => mpsc::channel(room),
    };
    let log = Rc::new(Log::default());
    let senders: Vec<_> = (0..1 + seat.ledger.below(3))
        .map(|by| spawn(send(seat.clone(), tx.clone(), log.clone(), by)))
        .collect();
    drop(tx);
    let (closes_at, goes_at) = match seat.ledger.below(4) {
        0 => (seat.ledger.below(6), u64::MAX),
        1 => (u64::MAX, seat.ledger.below(6)),
        _ => (u64::MAX, u64::MAX),
    };
    let mut came = 0;
    while came != goes_at {
        if came == closes_at {
            rx.close();
        }
        let item: Item = match seat.perhaps(20, rx.recv()).await {
            Some(Some(item)) => item,
            Some(None) => break,
            None => continue,
        };
        log.taken.borrow_mut().push(item.name);
        came += 1;
        seat.dawdle().await;
    }
    drop(rx);
    for sender in senders {
        seat.check(sender.await.is_ok(), || "a task that sends".to_owned());
    }
    log.check(seat, "a channel", came != goes_at, true);
}

async fn send(seat: Seat, tx: mpsc::Sender<Item>, log: Rc<Log>, by: u64) {
    let _guard = seat.ledger.guard();
    for number in 0..1 + seat.ledger.below(8) {
        let item = Item::new(&seat, (by, number));
        let is_in = match seat.ledger.below(5) {
            0 => tx.try_send(item).is_ok(),
            1 => seat.perhaps(80, tx.send(item)).await.is_some_and(|sent| sent.is_ok()),
            // A place, and then what goes there, or nothing.
            2 => match seat.perhaps(30, tx.reserve()).await {
                Some(Ok(place)) if seat.ledger.chance(70) => {
                    seat.dawdle().await;
                    place.send(item);
                    true
                }
                _ => false,
            },
            _ => tx.send(item).await.is_ok(),
        };
        if is_in {
            log.put.borrow_mut().push((by, number));
        }
        seat.dawdle().await;
    }
}

/// Values of which each receiver has the last, or all but those that it is told of.
async fn latest(seat: &Seat, room: usize) {
    // What was sent by now: less than was to be, where this is broken off.
    let last = Rc::new(Cell::new(0));
    let (all_tx, all_rx) = broadcast::channel(room);
    let (last_tx, last_rx) = watch::channel(0);
    let mut tasks = Vec::new();
    for _ in 0..1 + seat.ledger.below(3) {
        let (own, mut all, sent) = (seat.clone(), all_rx.resubscribe(), last.clone());
        tasks.push(spawn(async move {
            let _guard = own.ledger.guard();
            let mut next = 1;
            loop {
                match own.perhaps(20, all.recv()).await {
                    Some(Ok(n)) => {
                        own.check(n == next, || format!("a broadcast gave {n}, not {next}"));
                        next += 1;
                    }
                    Some(Err(broadcast::RecvError::Lagged(lost))) => next += lost,
                    Some(Err(broadcast::RecvError::Closed)) => break,
                    None => {}
                }
                own.dawdle().await;
            }
            let last = sent.get();
            own.check(next == last + 1, || format!("a broadcast of {last} ended before {next}"));
        }));
        let (own, mut rx, sent) = (seat.clone(), last_rx.clone(), last.clone());
        tasks.push(spawn(async move {
            let _guard = own.ledger.guard();
            let mut seen = 0;
            loop {
                match own.perhaps(20, rx.changed()).await {
                    Some(Ok(())) => {
                        let n = *rx.borrow_and_update();
                        own.check(n > seen, || format!("a watch gave {n} after {seen}"));
                        seen = n;
                    }
                    Some(Err(_)) => break,
                    None => {}
                }
                own.dawdle().await;
            }
            let last = sent.get();
            own.check(seen == last, || format!("a watch ended at {seen}, not {last}"));
        }));
    }
    drop((all_rx, last_rx));
    for n in 1..=1 + seat.ledger.below(12) {
        last.set(n);
        seat.check(all_tx.send(n).is_ok() & last_tx.send(n).is_ok(), || "no receiver".to_owned());
        seat.dawdle().await;
    }
    drop((all_tx, last_tx));
    for task in tasks {
        seat.check(task.await.is_ok(), || "a task that receives".to_owned());
    }
}

/// One value, unless either end goes.
async fn once(seat: &Seat) {
    let (tx, mut rx) = oneshot::channel();
    let (own, sent) = (seat.clone(), Rc::new(Cell::new(false)));
    let has_sent = sent.clone();
    let sends = spawn(async move {
        let _guard = own.ledger.guard();
        own.dawdle().await;
        if own.ledger.chance(80) {
            has_sent.set(tx.send(Value::new(&own.ledger, 7)).is_ok());
        }
    });
    if seat.ledger.chance(20) {
        seat.dawdle().await;
        drop(rx);
    } else {
        seat.perhaps(30, &mut rx).await.map_or_else(
            || false,
            |came| {
                let wanted = came.as_ref().map_or(!sent.get(), |v| sent.get() && v.number == 7);
                seat.check(wanted, || format!("one value, sent: {}", sent.get()));
                true
            },
        );
    }
    seat.check(sends.await.is_ok(), || "a task that sends once".to_owned());
}
