//! Signals to a process of sixteen cores, and the stop that they begin.
//!
//! Owns [`run`], which is one seed: a simulation of its own beside the workload's. An operator sends a few
//! signals at a time, at moments that the seed draws; every core has a subscription, drops waits half way,
//! and must hear of each. Then comes SIGTERM or SIGINT, with tasks under way that have a minute to end, then
//! signals that nobody waits for any more, and often a second SIGINT, after which everything ends at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use coreloop::shutdown::Graceful;
use coreloop::signal::{Signal, Signals};
use coreloop::sim::{Faults, Report, Sim, SimError};
use coreloop::time::{Instant, sleep, timeout};
use coreloop::{Core, spawn};

/// Cores of the process.
pub const CORES: usize = 16;

/// Signals that are sent a few at a time.
const KINDS: [Signal; 4] = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::CHLD];

/// What tasks have to end by themselves, in a stop.
const DRAIN: Duration = Duration::from_secs(60);

/// The first signal of the stop comes so long after the others, at most.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Until then whoever waits for a signal that was sent has it, unless it is lost.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Waits of a round that are short; who is still waiting after them has lost something.
const WAITS_SHORT: u32 = 30;

/// What cores and operator know of each other, beside the signals.
struct Book {
    sim: Sim,
    graceful: Graceful,
    rounds: u64,
    /// Signals of the round that is under way.
    sent: RefCell<Vec<Signal>>,
    round: Cell<u64>,
    /// Cores that are subscribed, or have heard all of a round.
    there: Cell<usize>,
    hastened: Cell<Option<Instant>>,
    /// Whether a second signal is to come during the stop.
    hastens: bool,
}

impl Book {
    fn below(&self, n: u64) -> u64 {
        self.sim.random() % n
    }

    async fn pause(&self, micros: u64) {
        sleep(Duration::from_micros(self.below(micros))).await;
    }

    fn arrives(&self) {
        self.there.set(self.there.get() + 1);
    }

    async fn all_there(&self) -> Result<(), String> {
        for _ in 0..60_000 {
            if self.there.get() == CORES {
                self.there.set(0);
                return Ok(());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Err(format!("{} of {CORES} cores heard of everything", self.there.get()))
    }
}

/// Runs the signals of one seed.
///
/// # Errors
/// What the simulation found; a signal that was lost, and a stop that did not heed the second one.
pub fn run(seed: u64) -> Result<Report, SimError> {
    let sim = Sim::builder().seed(seed).faults(Faults::hidden()).build();
    let book = Rc::new(Book {
        graceful: Graceful::new(DRAIN),
        rounds: 2 + seed % 3,
        sent: RefCell::default(),
        round: Cell::new(0),
        there: Cell::new(0),
        hastened: Cell::new(None),
        hastens: !sim.random().is_multiple_of(3),
        sim: sim.clone(),
    });
    let own = book.clone();
    sim.host("process", CORES, move |core| serve(core, own.clone()));
    sim.client("operator", move || operate(book));
    sim.run()
}

async fn serve(core: Core, book: Rc<Book>) -> Result<(), String> {
    let subscribed = |e| format!("a subscription: {e}");
    let mut signals = Signals::new(KINDS).map_err(subscribed)?;
    let asked = Signals::new([Signal::TERM, Signal::INT]).map_err(subscribed)?;
    let here = book.graceful.here();
    // Any core may be the one that listens for the end.
    if core.index() as u64 == book.sim.seed() % CORES as u64 {
        let graceful = book.graceful.clone();
        drop(spawn(async move { graceful.on_signals(asked).await }));
    }
    book.arrives();
    for round in 1..=book.rounds {
        hear(&core, &book, round, &mut signals).await?;
        book.arrives();
    }
    // All are there when the stop begins; some end in time, others would not.
    let lasts = if book.hastens { 3_600 } else { 20 };
    drop(here.spawn(sleep(STOP_WITHIN + Duration::from_secs(book.below(lasts) + 1))));
    drop(here.spawn(sleep(STOP_WITHIN + Duration::from_secs(lasts))));
    drop(signals);
    let drained = here.drained().await;
    let took = book.hastened.get().map(|at| at.elapsed());
    if let Some(took) = took.filter(|took| *took > Duration::from_secs(5)) {
        return Err(format!("the stop took {took:?} from the second signal on"));
    }
    let late = if book.hastens { 0 } else { drained.cancelled };
    match (drained.finished + drained.cancelled, late, drained.left) {
        (2, 0, 0) => Ok(()),
        _ => Err(format!("core {} drained {drained:?}", core.index())),
    }
}

/// Hears all of a round, each at least once and none that was not sent.
async fn hear(core: &Core, book: &Book, round: u64, signals: &mut Signals) -> Result<(), String> {
    let (mut heard, mut waits) = (Vec::new(), 0);
    let until = Instant::now() + HEARD_WITHIN;
    loop {
        let is_on = book.round.get() == round;
        if is_on && book.sent.borrow().iter().all(|signal| heard.contains(signal)) {
            return Ok(());
        }
        // A wait that is dropped takes nothing along.
        waits += 1;
        let most = if waits < WAITS_SHORT { 3_000 } else { 300_000 };
        let wait = Duration::from_micros(book.below(most));
        let signal = match timeout(wait, signals.recv()).await {
            Ok(signal) => signal,
            Err(_) if Instant::now() < until => continue,
            Err(_) => {
                let (at, sent) = (core.index(), book.sent.borrow());
                return Err(format!(
                    "core {at} was told of {heard:?}, a signal of {sent:?} is lost"
                ));
            }
        };
        if heard.contains(&signal) {
            return Err(format!("core {} heard {signal} twice", core.index()));
        }
        heard.push(signal);
        if book.below(4) == 0 {
            book.pause(500).await;
        }
    }
}

async fn operate(book: Rc<Book>) -> Result<(), String> {
    let send = |signal: Signal| match book.sim.kill("process", signal) {
        true => Ok(()),
        false => Err(format!("nobody was there for {signal}")),
    };
    book.all_there().await?;
    for round in 1..=book.rounds {
        let many = 1 + book.below(KINDS.len() as u64) as usize;
        let first = book.below(KINDS.len() as u64) as usize;
        let sent: Vec<_> = KINDS.into_iter().cycle().skip(first).take(many).collect();
        let apart = [1, 1, 200, 5_000][book.below(4) as usize];
        for &signal in &sent {
            send(signal)?;
            book.pause(apart).await;
        }
        *book.sent.borrow_mut() = sent;
        book.round.set(round);
        book.all_there().await?;
    }
    book.pause(STOP_WITHIN.as_micros() as u64).await;
    send([Signal::TERM, Signal::INT][book.below(2) as usize])?;
    book.graceful.begun().await;
    // Nobody waits for these any more, and they end nothing.
    KINDS.into_iter().try_for_each(&send)?;
    if book.hastens {
        book.pause(3_000_000).await;
        send(Signal::INT)?;
        book.hastened.set(Some(Instant::now()));
    }
    // The process ends by itself: what comes then finds none, or does nothing.
    sleep(DRAIN * 2).await;
    Ok(())
}
