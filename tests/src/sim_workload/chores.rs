//! What a server does for a frame before it answers.
//!
//! Owns the chores: calls to other cores and wakes from them, tasks that are cancelled, races whose loser is
//! dropped, operations of a user's own, timers. Each waits for its own end without a limit, so whatever is
//! lost shows as a server that never answers.

use std::sync::Arc;
use std::time::Duration;

use coreloop::combine::{Either, race};
use coreloop::op::submit;
use coreloop::time::{Instant, interval};
use coreloop::{Handle, spawn, yield_now};

use super::ledger::Ledger;
use super::line::Cut;
use super::ops;
use super::signal::{Sets, Signal};
use super::tracked::Tagged;

/// What a frame may ask for.
pub(super) mod ask {
    pub(crate) const NOTHING: u8 = 0;
    pub(crate) const REMOTE: u8 = 1;
    pub(crate) const POST: u8 = 2;
    pub(crate) const CANCEL: u8 = 3;
    pub(crate) const RACE: u8 = 4;
    pub(crate) const OPS: u8 = 5;
    pub(crate) const TIMERS: u8 = 6;
    /// Those above are chores; these are for the server itself.
    pub(crate) const MOVE: u8 = 7;
    pub(crate) const CONNECT: u8 = 8;
    pub(crate) const ALL: u64 = 9;
}

/// Where code runs, and how to reach its neighbours.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) handle: Handle,
    pub(super) index: usize,
}

impl Place {
    /// Some core of the host, the own one too.
    pub(super) fn some(&self, ledger: &Ledger) -> usize {
        ledger.below(self.handle.cores() as u64) as usize
    }

    pub(super) fn at(&self, index: usize) -> Self {
        Self { handle: self.handle.clone(), index }
    }
}

/// Does the chore.
///
/// # Errors
/// If another core has ended, which is for the last moments of a host.
pub(super) async fn chore(ledger: &Arc<Ledger>, here: &Place, ask: u8) -> Result<(), Cut> {
    let _guard = ledger.guard();
    match ask {
        ask::REMOTE => remote(ledger, here).await,
        ask::POST => post(ledger, here).await,
        ask::CANCEL => {
            cancel(ledger).await;
            Ok(())
        }
        ask::RACE => race_remote(ledger, here).await,
        ask::OPS => {
            ops::ops(ledger).await;
            Ok(())
        }
        ask::TIMERS => {
            timers(ledger).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A future made and awaited on another core.
async fn remote(ledger: &Arc<Ledger>, here: &Place) -> Result<(), Cut> {
    let (own, tag) = (ledger.clone(), ledger.below(u64::MAX));
    let there = here.handle.spawn_on(here.some(ledger), move || async move {
        let _guard = own.guard();
        if own.chance(50) {
            own.sleep(own.micros(2_000)).await;
        }
        tag
    });
    let given = there.map_err(|_| Cut)?.await.map_err(|_| Cut)?;
    if given != tag {
        ledger.found(format!("another core gave {given} for {tag}"));
    }
    Ok(())
}

/// A closure on another core, and a wake from there.
async fn post(ledger: &Arc<Ledger>, here: &Place) -> Result<(), Cut> {
    for _ in 0..1 + ledger.below(3) {
        let signal = Arc::new(Signal::default());
        let (sets, own) = (Sets(signal.clone()), ledger.clone());
        let later = ledger.chance(50);
        let posted = here.handle.call_soon_threadsafe(here.some(ledger), move || {
            let guard = own.guard();
            if !later {
                return drop(sets);
            }
            drop(spawn(async move {
                let _guard = guard;
                own.sleep(own.micros(500)).await;
                drop(sets);
            }));
        });
        posted.map_err(|_| Cut)?;
        signal.wait().await;
    }
    Ok(())
}

/// A task that is cancelled while it waits for another one, and for everything else.
async fn cancel(ledger: &Arc<Ledger>) {
    let own = ledger.clone();
    let task = spawn(async move {
        let _guard = own.guard();
        let inner = own.clone();
        let child = spawn(async move {
            let _guard = inner.guard();
            inner.sleep(Duration::from_secs(1 << 20)).await;
        });
        let _ = submit(Tagged::<1>::new(&own, 1)).await;
        child.await
    });
    match ledger.below(3) {
        0 => {}
        1 => yield_now().await,
        _ => ledger.sleep(ledger.micros(1_000)).await,
    }
    task.cancel();
    match task.await {
        Err(e) if e.is_cancelled() => {}
        other => ledger.found(format!("a cancelled task ended with {:?}", other.map(drop))),
    }
}

/// A call to another core against time: the loser is dropped, what it began goes on.
async fn race_remote(ledger: &Arc<Ledger>, here: &Place) -> Result<(), Cut> {
    let own = ledger.clone();
    let there = here.handle.spawn_on(here.some(ledger), move || async move {
        let _guard = own.guard();
        own.sleep(own.micros(1_000)).await;
    });
    let there = there.map_err(|_| Cut)?;
    let guard = ledger.guard();
    let waits = async move {
        let _guard = guard;
        there.await
    };
    match race(waits, ledger.sleep(ledger.micros(1_000))).await {
        Either::First(Err(_)) => Err(Cut),
        _ => Ok(()),
    }
}

async fn timers(ledger: &Arc<Ledger>) {
    let sleeps: Vec<_> = (0..1 + ledger.below(6))
        .map(|_| {
            let own = ledger.clone();
            spawn(async move { own.sleep(own.micros(4_000)).await })
        })
        .collect();
    let period = Duration::from_micros(100) + ledger.micros(1_000);
    let began = Instant::now();
    let mut ticks = interval(period);
    for n in 0..3 {
        ticks.tick().await;
        ledger.not_early("an interval", began, period * n);
    }
    for sleep in sleeps {
        if let Err(e) = sleep.await {
            ledger.found(format!("a task that sleeps: {e}"));
        }
    }
}
