//! Tasks and cores that work with each other: sets of tasks, locks, queues, channels from core to core.
//!
//! Owns [`run`], which is one seed: a simulation of its own beside the workload's, with no socket in it. A
//! machine of a few cores has voices, tasks that play one piece after the other: with sets (`sets`), with
//! what tasks of one core wait for each other with (`locks`, `queues`), with other cores and blocking work
//! (`across`). A caller on another machine plays with its cores from outside. Pieces are broken off, voices
//! cancelled, cores end before the others or with everything in flight, the machine crashes and starts anew.
//! What a piece says of its own end is checked by itself; that each future, value and closure was dropped
//! once, by the ledger. Nothing here has a limit that was not drawn to break it off, so what is lost shows as
//! a deadlock.

mod across;
mod locks;
mod queues;
mod sets;

use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coreloop::combine::{Either, race};
use coreloop::sim::{Faults, Report, Sim};
use coreloop::time::sleep;
use coreloop::{Core, Handle, Settings, spawn, yield_now};

use self::locks::Stand;
use super::ledger::{Guard, Ledger};
use super::signal::Signal;
use crate::drive::Rng;

/// Steps of cores that a seed may take; some 3,000 are usual.
const STEPS_MAX: u64 = 500_000;

/// How a machine's cores end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// They stay until the last voice is done.
    Together,
    /// Each when its own voices are.
    Apart,
    /// One of them at a drawn moment, with everything in flight; the others as above.
    Early,
    /// All of them, by a crash, and then anew.
    Crash,
}

/// What a seed's machine looks like.
struct Plan {
    cores: usize,
    /// Voices of each core, and pieces of each.
    voices: u64,
    pieces: u64,
    end: End,
    faults: Faults,
    settings: Settings,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, voices, pieces, end, faults, .. } = self;
        write!(f, "{cores} cores with {voices} voices of {pieces} pieces, {end:?}, {faults:?}")
    }
}

impl Plan {
    fn drawn(seed: u64) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x70_6E7E);
        let mut pick = |from: &[u32]| from[rng.below(from.len() as u64) as usize];
        let ring = pick(&[8, 16, 64]);
        let micros = |n: u32| Duration::from_micros(u64::from(n));
        Self {
            cores: pick(&[1, 2, 2, 3, 4]) as usize,
            voices: u64::from(pick(&[2, 3, 4])),
            pieces: u64::from(pick(&[4, 6, 8])),
            end: match pick(&[0, 0, 1, 2, 3]) {
                0 => End::Together,
                1 => End::Apart,
                2 => End::Early,
                _ => End::Crash,
            },
            faults: match pick(&[0, 1, 1, 1, 1, 2, 2]) {
                0 => Faults::none(),
                1 => Faults::hidden(),
                _ => Faults::all(),
            },
            settings: Settings::default()
                .ring_entries(ring)
                .cq_entries(ring * 2)
                .blocking_threads(pick(&[1, 2, 4]))
                .blocking_queue(pick(&[1, 2, 16]))
                .timer_resolution(micros(pick(&[20, 100, 1_000])))
                .tick_quota(micros(pick(&[1, 50, 500])))
                .direct_sends(pick(&[0, 4, 1_000])),
        }
    }
}

/// What all cores, and those outside, know of the machine.
#[derive(Clone)]
struct Seat {
    ledger: Arc<Ledger>,
    /// Of the cores that are played with.
    handle: Handle,
    /// One of them has ended, or may at any moment.
    gone: Arc<AtomicBool>,
}

impl Seat {
    /// One of the machine's cores.
    fn some_core(&self) -> usize {
        self.ledger.below(self.handle.cores() as u64) as usize
    }

    /// Lets others go on, or not, for a short while.
    async fn dawdle(&self) {
        match self.ledger.below(5) {
            0 | 1 => {}
            2 => yield_now().await,
            3 => self.ledger.sleep(self.ledger.micros(200)).await,
            _ => self.ledger.sleep(self.ledger.micros(2_000)).await,
        }
    }

    /// The future's value; now and then it is broken off, and there is none. Half of those go without another
    /// look at them, as in a cancel: also when they have been handed what they waited for.
    async fn perhaps<F: Future>(&self, percent: u64, future: F) -> Option<F::Output> {
        if !self.ledger.chance(percent) {
            return Some(future.await);
        }
        let turns = self.ledger.below(5);
        let ended = match self.ledger.below(4) {
            0 | 1 => return self.ledger.limit(self.ledger.micros(1_500), future).await,
            2 => race(sleep(self.ledger.micros(1_500)), future).await,
            _ => race(turned(turns), future).await,
        };
        match ended {
            Either::First(()) => None,
            Either::Second(value) => Some(value),
        }
    }

    /// A call was told that its core has ended.
    fn told_gone(&self, what: &str) {
        if !self.gone.load(Ordering::SeqCst) {
            self.ledger.found(format!("{what} was told that a core has ended, and none has"));
        }
    }

    fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.ledger.found(what());
        }
    }
}

/// So many turns of the loop.
async fn turned(turns: u64) {
    for _ in 0..turns {
        yield_now().await;
    }
}

/// A number that may leave its core, and must be dropped once.
struct Value {
    number: u64,
    _guard: Guard,
}

impl Value {
    fn new(ledger: &Arc<Ledger>, number: u64) -> Self {
        Self { number, _guard: ledger.guard() }
    }
}

/// What the operator knows of the machine, from start to start.
struct Book {
    ledger: Arc<Ledger>,
    plan: Plan,
    gone: Arc<AtomicBool>,
    boot: Mutex<Boot>,
}

#[derive(Default)]
struct Boot {
    number: u32,
    /// Of any of its cores.
    handle: Option<Handle>,
    /// Cores that are done.
    done: usize,
    over: Arc<Signal>,
}

impl Book {
    fn boot<R>(&self, f: impl FnOnce(&mut Boot) -> R) -> R {
        f(&mut self.boot.lock().expect("nothing panics with it"))
    }

    fn done(&self, number: u32) {
        let over = self.boot(|boot| {
            boot.done += usize::from(boot.number == number);
            (boot.done == self.plan.cores).then(|| boot.over.clone())
        });
        // The operator's waker is called with nothing held.
        over.inspect(|over| over.set());
    }
}

/// Runs the pieces of one seed.
///
/// # Errors
/// What did not come as it must.
pub fn run(seed: u64) -> Result<Report, String> {
    let plan = Plan::drawn(seed);
    let shape = plan.to_string();
    let builder = Sim::builder().seed(seed).faults(plan.faults).settings(plan.settings.clone());
    let sim = builder.steps_max(STEPS_MAX).time_max(Duration::from_secs(3600)).build();
    let ledger = Ledger::new(seed ^ 0x7E7E, false, plan.end == End::Crash);
    let book = Arc::new(Book {
        ledger: ledger.clone(),
        plan,
        gone: Arc::default(),
        boot: Mutex::default(),
    });
    let own = book.clone();
    sim.host("cores", book.plan.cores, move |core| play(core, own.clone()));
    let own = book.clone();
    sim.client("caller", move || call(own));
    let (own, control) = (book.clone(), sim.clone());
    sim.client("operator", move || operate(own, control));
    let ended = sim.run();
    // Its handles keep what the cores' mailboxes have.
    drop((book, sim));
    let mut wrong = ledger.findings();
    if ended.is_ok() {
        wrong.extend(ledger.left_over());
    }
    match ended {
        Ok(report) if wrong.is_empty() => Ok(report),
        ended => {
            wrong.extend(ended.err().map(|e| e.to_string()));
            Err(format!("together, {shape}:\n{}", wrong.join("\n")))
        }
    }
}

/// A core of the machine.
async fn play(core: Core, book: Arc<Book>) {
    let number = book.boot(|boot| {
        boot.handle = Some(core.handle().clone());
        boot.number
    });
    let (ledger, gone) = (book.ledger.clone(), book.gone.clone());
    let seat = Seat { ledger, gone, handle: core.handle().clone() };
    let stand = Rc::new(Stand::new(&seat));
    let voices: Vec<_> = (0..book.plan.voices)
        .map(|_| spawn(voice(seat.clone(), stand.clone(), book.plan.pieces)))
        .collect();
    if book.plan.end == End::Early && core.index() == 0 {
        seat.ledger.sleep(seat.ledger.micros(30_000)).await;
        book.gone.store(true, Ordering::SeqCst);
        book.done(number);
        return;
    }
    for voice in voices {
        if seat.ledger.chance(5) {
            voice.cancel();
        }
        match voice.await {
            Err(e) if !e.is_cancelled() => seat.ledger.found(format!("a voice: {e}")),
            _ => {}
        }
    }
    stand.is_left_as_found().await;
    if book.plan.end == End::Apart {
        book.gone.store(true, Ordering::SeqCst);
        return book.done(number);
    }
    book.done(number);
    // Until the operator is content: others may still call.
    std::future::pending().await
}

async fn voice(seat: Seat, stand: Rc<Stand>, pieces: u64) {
    let _guard = seat.ledger.guard();
    for _ in 0..pieces {
        let (own, stand) = (seat.clone(), stand.clone());
        let piece = async move {
            let _guard = own.ledger.guard();
            match own.ledger.below(4) {
                0 => sets::play(&own).await,
                1 => locks::play(&own, &stand).await,
                2 => queues::play(&own).await,
                _ => across::play(&own).await,
            }
        };
        seat.perhaps(15, Box::pin(piece)).await;
    }
}

/// Plays with the machine's cores from outside.
async fn call(book: Arc<Book>) {
    for _ in 0..book.plan.pieces {
        let handle = loop {
            // A machine may be long in starting, where starts fail.
            match book.boot(|boot| boot.handle.clone()) {
                Some(handle) => break handle,
                None => sleep(Duration::from_millis(1)).await,
            }
        };
        let seat = Seat { ledger: book.ledger.clone(), handle, gone: book.gone.clone() };
        seat.perhaps(15, Box::pin(across::play(&seat))).await;
    }
}

async fn operate(book: Arc<Book>, sim: Sim) {
    if book.plan.end == End::Crash {
        for _ in 0..1 + book.ledger.below(2) {
            sleep(book.ledger.micros(40_000)).await;
            book.gone.store(true, Ordering::SeqCst);
            book.boot(|boot| {
                *boot = Boot { number: boot.number + 1, ..Boot::default() };
            });
            sim.restart("cores");
        }
    }
    let over = book.boot(|boot| boot.over.clone());
    over.wait().await;
}
