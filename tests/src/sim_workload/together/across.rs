//! Pieces between cores, and with blocking work.
//!
//! Owns channels from core to core in every way of sending and receiving, values to and fro, a value on each
//! core, calls in crowds, closures on blocking threads. Each call is answered, or told that its core has
//! ended; what was sent comes in order, or is dropped with whoever would have had it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coreloop::cross::{self, Receiver, Sender, ShardError, Sharded, TryRecvError, TrySendError};
use coreloop::{RemoteError, spawn_blocking};

use super::{Seat, Value};

/// More closures than wait for a core at once.
const CROWD: u64 = 1_100;

pub(super) async fn play(seat: &Seat) {
    match seat.ledger.below(9) {
        0..=2 => channel(seat).await,
        3 | 4 => to_and_fro(seat).await,
        5 => sharded(seat).await,
        6 => crowd(seat).await,
        _ => blocking(seat).await,
    }
}

/// Values from here to another core, whose receiver may go half way.
async fn channel(seat: &Seat) {
    let (tx, rx) = cross::channel(1 + seat.ledger.below(5) as usize);
    let goes_at = if seat.ledger.chance(25) { seat.ledger.below(20) } else { u64::MAX };
    let own = seat.clone();
    let there = seat.handle.spawn_on_when_room(seat.some_core(), move || receive(own, rx, goes_at));
    let Ok(there) = there.await else { return seat.told_gone("a receiver's spawn") };
    let (sent, closed) = send(seat, tx).await;
    match there.await {
        Ok(came) if closed || goes_at <= sent => {
            seat.check(came <= sent, || format!("{came} values came of {sent}"));
            let may = goes_at != u64::MAX || seat.gone.load(Ordering::SeqCst);
            seat.check(may, || "a channel was closed that nobody closed".to_owned());
        }
        Ok(came) => seat.check(came == sent, || format!("{came} values came, not {sent}")),
        Err(RemoteError::Gone) => seat.told_gone("a receiver"),
        Err(e) => seat.ledger.found(format!("a receiver: {e}")),
    }
}

/// How many were sent, and whether the receiver was found to be gone.
async fn send(seat: &Seat, mut tx: Sender<Value>) -> (u64, bool) {
    let value = |number| Value::new(&seat.ledger, number);
    let mut sent = 0;
    for _ in 0..seat.ledger.below(30) {
        let ended = match seat.ledger.below(7) {
            0 => {
                let ended = tx.try_send(value(sent));
                ended.map_err(|e| matches!(e, TrySendError::Closed(_)))
            }
            1 => match seat.perhaps(80, tx.send(value(sent))).await {
                Some(ended) => ended.map_err(|_| true),
                None => Err(false),
            },
            2 => match seat.perhaps(40, tx.ready()).await {
                Some(Ok(())) => match tx.try_send(value(sent)) {
                    Ok(()) => Ok(()),
                    Err(TrySendError::Closed(_)) => Err(true),
                    Err(TrySendError::Full(_)) => {
                        seat.ledger.found("a channel that is ready is full".to_owned());
                        Err(false)
                    }
                },
                Some(Err(_)) => Err(true),
                None => Err(false),
            },
            3 => {
                let many = 1 + seat.ledger.below(6);
                sent += tx.try_send_from((sent..sent + many).map(value)) as u64;
                Err(false)
            }
            4 => {
                tx.flush();
                seat.dawdle().await;
                Err(tx.is_closed())
            }
            _ => tx.send(value(sent)).await.map_err(|_| true),
        };
        match ended {
            Ok(()) => sent += 1,
            Err(false) => {}
            Err(true) => return (sent, true),
        }
    }
    (sent, false)
}

/// How many came, each in its order.
async fn receive(seat: Seat, mut rx: Receiver<Value>, goes_at: u64) -> u64 {
    let _guard = seat.ledger.guard();
    let (mut next, mut some) = (0, Vec::new());
    while next < goes_at {
        match seat.ledger.below(5) {
            0 => match rx.try_recv() {
                Ok(value) => some.push(value),
                Err(TryRecvError::Empty) => seat.dawdle().await,
                Err(TryRecvError::Disconnected) => break,
            },
            1 => match seat.perhaps(80, rx.recv()).await {
                Some(Some(value)) => some.push(value),
                Some(None) => break,
                None => {}
            },
            2 => {
                let most = 1 + seat.ledger.below(4) as usize;
                match seat.perhaps(20, rx.recv_many(&mut some, most)).await {
                    Some(0) => break,
                    Some(n) => seat.check(n == some.len() && n <= most, || format!("{n} values")),
                    None => {}
                }
            }
            _ => match rx.recv().await {
                Some(value) => some.push(value),
                None => break,
            },
        }
        for value in some.drain(..) {
            let number = value.number;
            seat.check(number == next, || format!("value {number} came, not {next}"));
            next += 1;
        }
        if seat.ledger.chance(30) {
            seat.dawdle().await;
        }
    }
    next
}

/// A value goes there and comes back, again and again: each end sleeps until the other wakes it.
async fn to_and_fro(seat: &Seat) {
    let ((mut tx, mut there), (mut back, mut rx)) = (cross::channel(1), cross::channel(1));
    let own = seat.clone();
    let answers = seat.handle.spawn_on_when_room(seat.some_core(), move || async move {
        let _guard = own.ledger.guard();
        while let Some(value) = there.recv().await {
            own.dawdle().await;
            if back.send(value).await.is_err() {
                break;
            }
        }
    });
    let Ok(answers) = answers.await else { return seat.told_gone("an answerer's spawn") };
    for number in 0..1 + seat.ledger.below(10) {
        if tx.send(Value::new(&seat.ledger, number)).await.is_err() {
            return seat.told_gone("a value that is sent");
        }
        match rx.recv().await {
            Some(value) => {
                let came = value.number;
                seat.check(came == number, || format!("{came} came back for {number}"));
            }
            None => return seat.told_gone("a value that is to come back"),
        }
    }
    drop(tx);
    match answers.await {
        Ok(()) => {}
        Err(RemoteError::Gone) => seat.told_gone("an answerer"),
        Err(e) => seat.ledger.found(format!("an answerer: {e}")),
    }
}

/// A count on each core, to which several cores add; what was answered is in the sum.
async fn sharded(seat: &Seat) {
    let own = seat.clone();
    let all = Sharded::new(&seat.handle, async move |core| {
        own.dawdle().await;
        (Cell::new(0), Value::new(&own.ledger, core as u64))
    });
    let all = match all.await {
        Ok(all) => all,
        Err(ShardError::CoreGone) => return seat.told_gone("a value's maker"),
        Err(e) => return seat.ledger.found(format!("a value on each core: {e}")),
    };
    let (others, own) = (all.clone(), seat.clone());
    let other = seat.handle.spawn_on_when_room(seat.some_core(), move || async move {
        let _guard = own.ledger.guard();
        add(&own, &others).await
    });
    let other = other.await;
    let mut sums = vec![add(seat, &all).await];
    match other {
        Err(_) => seat.told_gone("an adder's spawn"),
        Ok(other) => match other.await {
            Ok(sum) => sums.push(sum),
            Err(RemoteError::Gone) => return seat.told_gone("an adder"),
            Err(e) => return seat.ledger.found(format!("an adder: {e}")),
        },
    }
    let sure = sums.iter().map(|(sure, _)| sure).sum::<u64>();
    let most = sure + sums.iter().map(|(_, perhaps)| perhaps).sum::<u64>();
    match all.map_reduce(async |(n, _): &(Cell<u64>, Value)| n.get(), 0, |a, b| a + b).await {
        Ok(sum) => seat.check((sure..=most).contains(&sum), || {
            format!("the sum of all cores is {sum}, not {sure} to {most}")
        }),
        Err(ShardError::CoreGone) => seat.told_gone("a sum"),
        Err(e) => seat.ledger.found(format!("a sum: {e}")),
    }
}

/// How many calls were answered, and how many may have been made.
async fn add(seat: &Seat, all: &Sharded<(Cell<u64>, Value)>) -> (u64, u64) {
    let (mut sure, mut perhaps) = (0, 0);
    for _ in 0..1 + seat.ledger.below(6) {
        let (core, own) = (seat.some_core(), seat.clone());
        let guard = seat.ledger.guard();
        let call = all.on(core, async move |(n, value)| {
            let _guard = guard;
            n.set(n.get() + 1);
            own.dawdle().await;
            value.number
        });
        match seat.perhaps(25, call).await {
            None => perhaps += 1,
            Some(Ok(number)) => {
                sure += 1;
                seat.check(number == core as u64, || format!("core {core} said {number}"));
            }
            Some(Err(ShardError::CoreGone)) => {
                perhaps += 1;
                seat.told_gone("a call on a core's value");
            }
            Some(Err(e)) => seat.ledger.found(format!("a call on a core's value: {e}")),
        }
    }
    (sure, perhaps)
}

/// Calls to one core, now and then more than it has room for; they begin in the order of the calls.
async fn crowd(seat: &Seat) {
    let many = if seat.ledger.chance(3) { CROWD } else { 1 + seat.ledger.below(30) };
    let (core, began) = (seat.some_core(), Arc::new(AtomicU64::new(0)));
    let mut calls = Vec::new();
    for number in 0..many {
        let (began, guard) = (began.clone(), seat.ledger.guard());
        let own = (many < CROWD).then(|| seat.clone());
        let call = seat.handle.spawn_on_when_room(core, move || {
            let order = began.fetch_add(1, Ordering::Relaxed);
            async move {
                let _guard = guard;
                if let Some(seat) = own {
                    seat.dawdle().await;
                }
                (number, order)
            }
        });
        match call.await {
            Ok(call) => calls.push(call),
            Err(_) => {
                seat.told_gone("one of many calls");
                break;
            }
        }
    }
    for call in calls {
        match call.await {
            Ok((number, order)) => {
                seat.check(number == order, || format!("call {number} began as number {order}"));
            }
            Err(RemoteError::Gone) => seat.told_gone("one of many calls, sent,"),
            Err(e) => seat.ledger.found(format!("one of many calls: {e}")),
        }
    }
}

/// Closures on blocking threads: each that is awaited was run once; a cancelled one may have been.
async fn blocking(seat: &Seat) {
    let ran = Arc::new(AtomicU64::new(0));
    let many = 1 + seat.ledger.below(8);
    let handles: Vec<_> = (0..many)
        .map(|number| {
            let (ran, guard) = (ran.clone(), seat.ledger.guard());
            spawn_blocking(move || {
                let _guard = guard;
                ran.fetch_add(1, Ordering::Relaxed);
                number
            })
        })
        .collect();
    let mut answered = 0;
    for (number, handle) in handles.into_iter().enumerate() {
        if seat.ledger.chance(15) {
            seat.dawdle().await;
            handle.cancel();
            let ended = handle.await;
            answered += u64::from(ended.is_ok());
            let right = ended.as_ref().map_or_else(|e| e.is_cancelled(), |n| *n == number as u64);
            seat.check(right, || format!("closure {number} gave {ended:?}"));
        } else if let Some(ended) = seat.perhaps(20, handle).await {
            answered += 1;
            let right = matches!(ended, Ok(n) if n == number as u64);
            seat.check(right, || format!("closure {number} gave {ended:?}"));
        }
    }
    let ran = ran.load(Ordering::Relaxed);
    seat.check((answered..=many).contains(&ran), || format!("{ran} closures ran of {answered}"));
}
