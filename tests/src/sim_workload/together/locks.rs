//! Pieces with what tasks of one core wait for each other with.
//!
//! Owns the [`Stand`], of which each core has one that all its voices use at once: a mutex with a condition,
//! a semaphore, a lock for readers and writers. Who is inside is counted: never two in a lock, never more
//! permits than there are, and all of it as found once the voices are done. Events, barriers and cells are
//! made for one piece each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use coreloop::spawn;
use coreloop::sync::{Barrier, Condition, Event, Mutex, OnceCell, RwLock, Semaphore};
use coreloop::time::sleep;
use coreloop::yield_now;

use super::Seat;

/// Looks of a core at its stand until everything must have been let go.
const LOOKS_MAX: u32 = 10_000;

/// What the voices of one core share.
pub(super) struct Stand {
    seat: Seat,
    /// How many there are of what `changed` tells of.
    stock: Mutex<u64>,
    changed: Condition,
    made: Cell<u64>,
    used: Cell<u64>,
    locked: Cell<usize>,
    permits: Rc<Semaphore>,
    permits_all: usize,
    permits_out: Cell<usize>,
    rows: RwLock<u64>,
    reading: Cell<usize>,
    writing: Cell<usize>,
}

/// So many are inside while it lives.
struct Inside<'a>(&'a Cell<usize>, usize);

impl<'a> Inside<'a> {
    fn new(count: &'a Cell<usize>, n: usize) -> Self {
        count.set(count.get() + n);
        Self(count, n)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - self.1);
    }
}

impl Stand {
    pub(super) fn new(seat: &Seat) -> Self {
        let permits_all = 1 + seat.ledger.below(4) as usize;
        Self {
            seat: seat.clone(),
            stock: Mutex::new(0),
            changed: Condition::new(),
            made: Cell::new(0),
            used: Cell::new(0),
            locked: Cell::new(0),
            permits: Rc::new(Semaphore::new(permits_all)),
            permits_all,
            permits_out: Cell::new(0),
            rows: RwLock::new(0),
            reading: Cell::new(0),
            writing: Cell::new(0),
        }
    }

    /// Inside of the mutex, alone.
    fn alone(&self) -> Inside<'_> {
        let inside = Inside::new(&self.locked, 1);
        self.seat.check(self.locked.get() == 1, || "a mutex is held by two".to_owned());
        inside
    }

    /// Once the voices are done, and what they spawned.
    pub(super) async fn is_left_as_found(self: Rc<Self>) {
        for _ in 0..LOOKS_MAX {
            if Rc::strong_count(&self) == 1 {
                break;
            }
            sleep(std::time::Duration::from_micros(100)).await;
        }
        let (seat, stock) = (&self.seat, self.stock.try_lock().map(|stock| *stock));
        let left = self.made.get() - self.used.get();
        seat.check(stock == Ok(left), || format!("a stock has {stock:?} left and not {left}"));
        let permits = self.permits.available_permits();
        seat.check(permits == self.permits_all, || {
            format!("a semaphore of {} has {permits} permits at its end", self.permits_all)
        });
        seat.check(self.rows.try_write().is_ok(), || "a lock is held by nobody".to_owned());
    }
}

pub(super) async fn play(seat: &Seat, stand: &Rc<Stand>) {
    match seat.ledger.below(10) {
        0 => mutex(seat, stand).await,
        1 => condition(seat, stand).await,
        2 => one_by_one(seat).await,
        3 => semaphore(seat, stand).await,
        7 => line(seat).await,
        4 => rows(seat, stand).await,
        5 => event(seat).await,
        6 => barrier(seat).await,
        _ => cell(seat).await,
    }
}

async fn mutex(seat: &Seat, stand: &Stand) {
    for _ in 0..1 + seat.ledger.below(5) {
        let held = async {
            let _stock = stand.stock.lock().await;
            let _alone = stand.alone();
            seat.dawdle().await;
        };
        seat.perhaps(30, held).await;
    }
}

/// Takes one of the stock, and has one made: so there is one for whoever waits to the end.
async fn condition(seat: &Seat, stand: &Rc<Stand>) {
    for _ in 0..1 + seat.ledger.below(4) {
        let maker = stand.clone();
        drop(spawn(async move {
            let Stand { seat, stock, changed, .. } = &*maker;
            let _guard = seat.ledger.guard();
            seat.dawdle().await;
            let mut stock = stock.lock().await;
            let alone = maker.alone();
            *stock += 1;
            maker.made.set(maker.made.get() + 1);
            drop((alone, stock));
            match seat.ledger.below(3) {
                0 => changed.notify_all(),
                1 => changed.notify(2),
                _ => changed.notify_one(),
            }
        }));
        let used = async {
            let stock = stand.stock.lock().await;
            let mut stock = stand.changed.wait_for(stock, |stock| *stock > 0).await;
            let _alone = stand.alone();
            *stock -= 1;
            stand.used.set(stand.used.get() + 1);
            seat.dawdle().await;
        };
        seat.perhaps(30, used).await;
    }
}

async fn semaphore(seat: &Seat, stand: &Stand) {
    let (permits, all) = (&stand.permits, stand.permits_all);
    for _ in 0..1 + seat.ledger.below(5) {
        let n = 1 + seat.ledger.below(all as u64) as usize;
        let count = |n| {
            let inside = Inside::new(&stand.permits_out, n);
            let out = stand.permits_out.get();
            seat.check(out <= all, || format!("{out} permits of {all} are out"));
            inside
        };
        let held = async {
            match seat.ledger.below(4) {
                0 => {
                    let permit = permits.clone().acquire_many_owned(n).await;
                    let _inside = count(n);
                    seat.dawdle().await;
                    drop(permit);
                }
                // Forgotten, and made up for.
                1 => {
                    let Ok(permit) = permits.acquire_many(n).await else { return };
                    let inside = count(n);
                    seat.dawdle().await;
                    permit.forget();
                    drop(inside);
                    permits.add_permits(n);
                }
                // In two parts.
                2 => {
                    let Ok(mut permit) = permits.acquire_many(n).await else { return };
                    let _inside = count(n - 1);
                    let part = permit.split(1);
                    let first = count(1);
                    seat.check(part.is_some(), || "a permit has no part".to_owned());
                    seat.dawdle().await;
                    drop((first, part));
                    seat.dawdle().await;
                }
                _ => {
                    let permit = permits.acquire_many(n).await;
                    let _inside = count(n);
                    seat.dawdle().await;
                    seat.check(permit.is_ok(), || "a semaphore is closed".to_owned());
                }
            }
        };
        seat.perhaps(40, held).await;
    }
}

/// Some permits are out for the whole time. Of those who wait for the others, some for more than there are,
/// which break off, everyone else has its turn.
async fn line(seat: &Seat) {
    let (all, kept) = (2 + seat.ledger.below(3) as usize, 1);
    let permits = Rc::new(Semaphore::new(all));
    // Also when this is broken off, and the tasks go on.
    permits.try_acquire_many(kept).expect("nobody has any").forget();
    let tasks: Vec<_> = (0..2 + seat.ledger.below(4))
        .map(|_| {
            let (seat, permits) = (seat.clone(), permits.clone());
            let need = 1 + seat.ledger.below(all as u64) as usize;
            spawn(async move {
                let _guard = seat.ledger.guard();
                seat.dawdle().await;
                let breaks = if need > all - kept { 100 } else { 20 };
                if let Some(permit) = seat.perhaps(breaks, permits.acquire_many(need)).await {
                    seat.check(permit.is_ok(), || "a semaphore is closed".to_owned());
                    seat.check(need < all, || format!("{need} permits of {all}, with one out"));
                    seat.dawdle().await;
                }
            })
        })
        .collect();
    for task in tasks {
        seat.check(task.await.is_ok(), || "a task that waited in line".to_owned());
    }
    let left = permits.available_permits();
    seat.check(left == all - kept, || format!("{left} permits of {all}, with one out"));
}

/// There is never more than one to be had, and nobody is told twice of it: whoever is told, and breaks off, must
/// tell the next.
async fn one_by_one(seat: &Seat) {
    let shared = Rc::new((Mutex::new(0), Condition::new(), Event::new()));
    let waiting = Rc::new(Cell::new(0));
    for _ in 0..2 + seat.ledger.below(4) {
        let (seat, shared) = (seat.clone(), shared.clone());
        let waits = Waits(waiting.clone(), shared.clone());
        waiting.set(waiting.get() + 1);
        drop(spawn(async move {
            let (_waits, _guard) = (waits, seat.ledger.guard());
            let (stock, changed, moved) = &*shared;
            seat.dawdle().await;
            let takes = async {
                let stock = stock.lock().await;
                *changed.wait_for(stock, |stock| *stock > 0).await -= 1;
                moved.set();
            };
            seat.perhaps(40, takes).await;
        }));
    }
    let (stock, changed, moved) = &*shared;
    loop {
        moved.clear();
        if waiting.get() == 0 {
            return;
        }
        let mut stock = stock.lock().await;
        if *stock == 0 {
            *stock += 1;
            changed.notify_one();
        }
        drop(stock);
        seat.dawdle().await;
        moved.wait().await;
    }
}

/// One of those who wait; its end is told.
struct Waits(Rc<Cell<usize>>, Rc<(Mutex<u32>, Condition, Event)>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.2.set();
    }
}

async fn rows(seat: &Seat, stand: &Stand) {
    for _ in 0..1 + seat.ledger.below(5) {
        let reads = seat.ledger.chance(60);
        let held = async {
            if reads {
                let _rows = stand.rows.read().await;
                let _reading = Inside::new(&stand.reading, 1);
                seat.check(stand.writing.get() == 0, || "read while it is written".to_owned());
                seat.dawdle().await;
            } else {
                let mut rows = stand.rows.write().await;
                let _writing = Inside::new(&stand.writing, 1);
                let alone = stand.writing.get() == 1 && stand.reading.get() == 0;
                seat.check(alone, || "a lock is written by two, or read meanwhile".to_owned());
                *rows += 1;
                seat.dawdle().await;
            }
        };
        seat.perhaps(30, held).await;
    }
}

/// Whoever waits when it is set goes on, also if it is cleared at once.
async fn event(seat: &Seat) {
    let event = Rc::new(Event::new());
    let came = Rc::new(Cell::new(0));
    let tasks: Vec<_> = (0..1 + seat.ledger.below(4))
        .map(|_| {
            let (seat, event, came) = (seat.clone(), event.clone(), came.clone());
            spawn(async move {
                let _guard = seat.ledger.guard();
                seat.dawdle().await;
                came.set(came.get() + 1);
                seat.perhaps(20, event.wait()).await;
            })
        })
        .collect();
    while came.get() < tasks.len() {
        sleep(std::time::Duration::from_micros(50)).await;
    }
    event.set();
    if seat.ledger.chance(50) {
        event.clear();
    }
    for task in tasks {
        seat.check(task.await.is_ok(), || "a task that waited for an event".to_owned());
    }
}

/// All parties come, or one breaks it for all.
async fn barrier(seat: &Seat) {
    let parties = 1 + seat.ledger.below(4) as usize;
    let barrier = Rc::new(Barrier::new(parties));
    let breaks = parties > 1 && seat.ledger.chance(30);
    let tasks: Vec<_> = (usize::from(breaks)..parties)
        .map(|_| {
            let (seat, barrier) = (seat.clone(), barrier.clone());
            spawn(async move {
                let _guard = seat.ledger.guard();
                seat.dawdle().await;
                barrier.wait().await.ok().map(|place| place.index())
            })
        })
        .collect();
    if breaks {
        seat.dawdle().await;
        barrier.abort();
    }
    let mut places = Vec::new();
    for task in tasks {
        places.push(task.await.unwrap_or_default());
    }
    places.sort_unstable();
    let wanted: Vec<_> = match breaks {
        true => vec![None; parties - 1],
        false => (0..parties).map(Some).collect(),
    };
    seat.check(places == wanted, || format!("a barrier's places: {places:?}, not {wanted:?}"));
}

/// One of them makes the value, whoever is broken off.
async fn cell(seat: &Seat) {
    let cell = Rc::new(OnceCell::new());
    let made = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<_> = (0..2 + seat.ledger.below(3))
        .map(|number| {
            let (seat, cell, made) = (seat.clone(), cell.clone(), made.clone());
            spawn(async move {
                let _guard = seat.ledger.guard();
                let make = async || {
                    seat.dawdle().await;
                    yield_now().await;
                    made.borrow_mut().push(number);
                    number
                };
                let value = seat.perhaps(if number == 0 { 0 } else { 50 }, cell.get_or_init(make));
                value.await.copied()
            })
        })
        .collect();
    for task in tasks {
        let value = task.await.unwrap_or_default();
        let made = made.borrow();
        let is_it = made.len() == 1 && value.is_none_or(|value| value == made[0]);
        seat.check(is_it, || format!("a cell gave {value:?}, and was made by {made:?}"));
    }
}
