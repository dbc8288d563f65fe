//! A server that is restarted in place, again and again, while clients connect, write and read.
//!
//! Owns [`run`], which is one seed: a simulation of its own beside the workload's. A process hands its
//! listeners over to the next one, which takes them, accepts beside it and says that it is ready; then the
//! first serves what it has accepted to its end, and goes. Of clients none may be refused or reset, and every
//! byte must be right. Some successors end before they are ready, by a signal, or are too late: then the
//! process before them serves on. Some predecessors are killed in the middle: then clients may be broken off,
//! but only until the successor has said that it is ready.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use coreloop::cancel::Interruptible;
use coreloop::shutdown::{Graceful, Here};
use coreloop::signal::Signal;
use coreloop::sim::{Call, Faults, Process, Report, Sim, SimError};
use coreloop::time::{Instant, sleep, timeout};
use coreloop::{Core, spawn};
use coreloop_net::handover::Handover;
use coreloop_net::{TcpListener, TcpStream};

/// Where successors connect; a name in the simulated host.
const PATH: &str = "/run/server";

/// What listeners are lent as, and where they listen.
const NAMES: [(&str, u16); 2] = [("http", 7000), ("admin", 7001)];

/// Bytes of a request; a byte more comes back.
const REQUEST: usize = 200;

/// What connections have to end by themselves.
const DRAIN: Duration = Duration::from_secs(3_600);

/// Steps of cores that a seed may take.
const STEPS_MAX: u64 = 300_000;

/// Until then a predecessor is gone, or a doomed successor.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// How patient a predecessor is with a successor that will be late, and otherwise.
const STARTING: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to a process that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It takes over.
    Fine,
    /// It takes over while the next one begins already.
    Hurried,
    /// It is killed before it is ready.
    Killed,
    /// It ends by itself before it is ready.
    Ends,
    /// It is ready too late, is told so, and ends.
    Late,
    /// The process before it is killed while they speak, or about then.
    Orphaned,
}

/// What a seed's server and its restarts look like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cores of each process.
    pub cores: usize,
    /// Listeners of each core of the first process, of each name.
    pub listeners: usize,
    /// Of those that begin after the first one.
    pub fates: Vec<Fate>,
    /// What goes wrong besides.
    pub faults: Faults,
    /// Clients at a time.
    pub clients: usize,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, listeners, fates, faults, clients } = self;
        write!(
            f,
            "{cores} cores with {listeners} listeners, {clients} clients, {fates:?}, {faults:?}"
        )
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn drawn(seed: u64) -> Self {
        let mut rng = crate::drive::Rng::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5ECCE);
        let mut pick = |n: u64| rng.below(n);
        let cores = [1, 2, 2, 2, 3, 16][pick(6) as usize];
        let faults = [Faults::none(), Faults::hidden(), Faults::calls()][pick(3) as usize];
        // Every core costs steps, and so does every descriptor.
        let many = cores == 16;
        let mut fates: Vec<_> = (0..if many { 1 } else { pick(3) })
            .map(|_| match pick(8) {
                0 => Fate::Killed,
                1 => Fate::Ends,
                2 => Fate::Late,
                3 => Fate::Orphaned,
                4 => Fate::Hurried,
                _ => Fate::Fine,
            })
            .collect();
        fates.push(Fate::Fine);
        let listeners = if many { 1 } else { 1 + pick(2) as usize };
        Self { cores, listeners, fates, faults, clients: 3 }
    }
}

/// What became of the clients.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the simulation reports.
    pub report: Report,
    /// Requests that each process answered.
    pub answered: BTreeMap<u8, u64>,
    /// Requests that were broken off when a process had been killed.
    pub broken: u64,
}

/// What all know of each other.
struct Book {
    sim: Sim,
    plan: Plan,
    processes: RefCell<BTreeMap<Process, Rc<Own>>>,
    /// The first process is ready.
    open: Cell<bool>,
    over: Cell<bool>,
    /// Clients take their time: nothing is to be seen for a while.
    slow: Cell<bool>,
    /// Odd while connections may break: a process was killed, and the next one is not ready.
    epoch: Cell<u32>,
    broken: Cell<u64>,
    answered: RefCell<BTreeMap<u8, u64>>,
}

/// What the cores of one process share, and the operator knows of it.
struct Own {
    process: Process,
    fate: Fate,
    /// While any of its cores is there.
    handover: RefCell<Option<Handover>>,
    cores: Cell<usize>,
    graceful: Graceful,
    state: Cell<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Begins,
    Ready,
    /// It was told so.
    Late,
}

/// A core of a process; the last to go takes what they share along.
struct Present(Rc<Own>);

impl Drop for Present {
    fn drop(&mut self) {
        let left = self.0.cores.get() - 1;
        self.0.cores.set(left);
        if left == 0 {
            drop(self.0.handover.take());
        }
    }
}

impl Book {
    fn below(&self, n: u64) -> u64 {
        self.sim.random() % n
    }

    async fn pause(&self, micros: u64) {
        let micros = if self.plan.cores > 4 { micros / 4 } else { micros };
        sleep(Duration::from_micros(self.below(micros))).await;
    }

    /// What listens: all names, or where there are many cores one.
    fn names(&self) -> &'static [(&'static str, u16)] {
        if self.plan.cores > 4 { &NAMES[..1] } else { &NAMES }
    }

    /// A client's pause.
    async fn rest(&self, micros: u64) {
        self.pause(if self.slow.get() { micros * 50 } else { micros }).await;
    }

    /// What the cores of this process share.
    fn own(&self, process: Process) -> Rc<Own> {
        let fates = &self.plan.fates;
        let fate = (process.number() as usize).checked_sub(1).and_then(|n| fates.get(n).copied());
        let own = || Own {
            process,
            fate: fate.unwrap_or(Fate::Fine),
            handover: RefCell::default(),
            cores: Cell::new(0),
            graceful: Graceful::new(DRAIN),
            state: Cell::new(State::Begins),
        };
        self.processes.borrow_mut().entry(process).or_insert_with(|| Rc::new(own())).clone()
    }

    async fn until(&self, what: &str, met: impl Fn() -> bool) -> Result<(), String> {
        let until = Instant::now() + GONE_WITHIN;
        while !met() {
            if Instant::now() >= until {
                let running = self.sim.processes("server");
                return Err(format!("{what}: not within {GONE_WITHIN:?}; there are {running:?}"));
            }
            self.pause(4_000).await;
        }
        Ok(())
    }
}

/// Runs the restarts of one seed.
///
/// # Errors
/// What the simulation found; a client that was refused, reset or told something wrong.
pub fn run(seed: u64) -> Result<Report, SimError> {
    run_plan(seed, Plan::drawn(seed)).map(|outcome| outcome.report)
}

/// The same by this plan.
///
/// # Errors
/// As [`run`].
pub fn run_plan(seed: u64, plan: Plan) -> Result<Outcome, SimError> {
    let sim = Sim::builder().seed(seed).faults(plan.faults).steps_max(STEPS_MAX).build();
    let (cores, clients) = (plan.cores, plan.clients);
    let book = Rc::new(Book {
        sim: sim.clone(),
        plan,
        processes: RefCell::default(),
        open: Cell::new(false),
        over: Cell::new(false),
        slow: Cell::new(false),
        epoch: Cell::new(0),
        broken: Cell::new(0),
        answered: RefCell::default(),
    });
    let own = book.clone();
    let server = sim.host("server", cores, move |core| serve(core, own.clone()));
    for i in 0..clients {
        let own = book.clone();
        sim.client(&format!("client{i}"), move || ask(server, own));
    }
    let own = book.clone();
    sim.client("operator", move || operate(own));
    let ended = sim.run();
    let (answered, broken) = (book.answered.take(), book.broken.get());
    ended.map(|report| Outcome { report, answered, broken })
}

/// A core of a process.
async fn serve(core: Core, book: Rc<Book>) -> Result<(), String> {
    let own = book.own(book.sim.process().expect("a core is a process's"));
    own.cores.set(own.cores.get() + 1);
    let _present = Present(own.clone());
    // A process does it before it starts its cores; here one of them does, and the others wait.
    if core.index() as u64 == book.sim.seed() % core.count() as u64 {
        let handover = begin(&own, &book).await?;
        *own.handover.borrow_mut() = Some(handover);
    }
    let handover = loop {
        let handover = own.handover.borrow().clone();
        match handover {
            Some(handover) => break handover,
            None => book.pause(200).await,
        }
    };
    let here = own.graceful.here();
    let mut listeners = Vec::new();
    for (name, port) in book.names() {
        listeners.extend(listen(name, *port, &core, &handover, &book).await?);
    }
    match own.fate {
        Fate::Ends => {
            book.pause(20_000).await;
            return Ok(());
        }
        Fate::Killed => return std::future::pending().await,
        Fate::Late => {
            sleep(STARTING * 4).await;
            ready(&core, &here, &handover, &own, &book).await?;
            // Nobody accepts, who might be too late.
            here.stopping().cancelled().await;
            return Ok(());
        }
        Fate::Fine | Fate::Hurried | Fate::Orphaned => {}
    }
    let number = own.process.number() as u8;
    let accept = |listener| spawn(accept(here.clone(), listener, number, book.clone()));
    let accepting: Vec<_> = listeners.into_iter().map(accept).collect();
    ready(&core, &here, &handover, &own, &book).await?;
    for task in accepting {
        task.await.map_err(|e| e.to_string())?;
    }
    let drained = here.drained().await;
    match (drained.cancelled, drained.left) {
        (0, 0) => Ok(()),
        _ => Err(format!("core {} drained {drained:?}", core.index())),
    }
}

async fn begin(own: &Own, book: &Book) -> Result<Handover, String> {
    loop {
        match Handover::begin(PATH).await {
            Ok(handover) => {
                let alone = own.process.number() == 0 || own.fate == Fate::Orphaned;
                return match handover.is_successor() || alone {
                    true => Ok(handover),
                    false => Err(format!("{:?} found nobody before it", own.process)),
                };
            }
            Err(e) if is_drawn(&e) && !is_asked_again(&e) => book.pause(2_000).await,
            Err(e) => return Err(format!("a hand-over's begin: {e}")),
        }
    }
}

/// This core's listeners of a name: those that came, or new ones; all are lent on.
async fn listen(
    name: &str,
    port: u16,
    core: &Core,
    handover: &Handover,
    book: &Book,
) -> Result<Vec<TcpListener>, String> {
    let came = handover.take_share(name, core.index(), core.count());
    let came: io::Result<Vec<_>> = came.into_iter().map(TcpListener::from_fd).collect();
    let mut listeners = came.map_err(|e| format!("a listener that came: {e}"))?;
    while listeners.len() < book.plan.listeners {
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Ok(listener) => listeners.push(listener),
            Err(e) if is_drawn(&e) => book.pause(1_000).await,
            Err(e) => return Err(format!("a listener: {e}")),
        }
    }
    for listener in &listeners {
        while let Err(e) = handover.lend(name, listener) {
            if !is_drawn(&e) {
                return Err(format!("a lent listener: {e}"));
            }
            book.pause(1_000).await;
        }
    }
    Ok(listeners)
}

/// Whether an error is one that is drawn from the seed, for whoever asks again.
fn is_drawn(e: &io::Error) -> bool {
    let drawn = |errno| Call::ALL.iter().any(|call| call.errnos().contains(&errno));
    e.raw_os_error().is_some_and(drawn)
}

/// Whether a hand-over's begin should have asked again by itself.
fn is_asked_again(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOMEM | libc::ENOBUFS | libc::EINTR))
}

/// Says that this core is ready; the last one waits for the successor, and begins the end then.
async fn ready(
    core: &Core,
    here: &Here,
    handover: &Handover,
    own: &Rc<Own>,
    book: &Rc<Book>,
) -> Result<(), String> {
    let all = loop {
        match handover.ready(core.count()) {
            Ok(all) => break all,
            Err(e) if e.kind() == io::ErrorKind::TimedOut && own.fate == Fate::Late => {
                own.state.set(State::Late);
                own.graceful.begin();
                return Ok(());
            }
            Err(e) if is_drawn(&e) => book.pause(2_000).await,
            Err(e) => return Err(format!("{:?} is ready: {e}", own.process)),
        }
    };
    if all {
        own.state.set(State::Ready);
        let (own, handover) = (own.clone(), handover.clone());
        let (stopping, book) = (here.stopping().clone(), book.clone());
        drop(spawn(async move {
            loop {
                match stopping.run(handover.successor()).await {
                    Ok(Ok(())) => {
                        own.graceful.begin();
                        return;
                    }
                    Ok(Err(e)) if is_drawn(&e) => book.pause(2_000).await,
                    Ok(Err(e)) => panic!("{:?} waits for its successor: {e}", own.process),
                    Err(_) => return,
                }
            }
        }));
    }
    Ok(())
}

/// Accepts until the end begins; what had been accepted by then is served too.
async fn accept(here: Here, mut listener: TcpListener, number: u8, book: Rc<Book>) {
    let serve = |stream| drop(here.spawn(answer(stream, number, book.clone())));
    while let Ok(stream) = listener.accept().cancel_on(here.stopping()).await {
        serve(stream);
    }
    for stream in listener.pause().await {
        serve(stream.attach());
    }
}

/// Says everything back, behind the number of its process.
async fn answer(mut stream: TcpStream, number: u8, book: Rc<Book>) {
    while let Ok((_, asked)) = stream.read_exact(vec![0; REQUEST]).await {
        let says = [&[number], &asked[..]].concat();
        // Whoever asked finds out if it does not come.
        if stream.write_all(says).await.is_err() {
            return;
        }
        *book.answered.borrow_mut().entry(number).or_default() += 1;
    }
}

/// A client: conversations, one after the other, until the restarts are over.
async fn ask(server: IpAddr, book: Rc<Book>) -> Result<(), String> {
    while !book.open.get() {
        book.pause(5_000).await;
    }
    while !book.over.get() {
        book.rest(20_000).await;
        let epoch = book.epoch.get();
        let Err(why) = converse(server, &book).await else { continue };
        if epoch.is_multiple_of(2) && book.epoch.get() == epoch {
            return Err(why);
        }
        book.broken.set(book.broken.get() + 1);
    }
    Ok(())
}

async fn converse(server: IpAddr, book: &Book) -> Result<(), String> {
    let (name, port) = book.names()[book.below(book.names().len() as u64) as usize];
    let told =
        |what: &str, e: io::Error| format!("a client of {name} was broken off at {what}: {e}");
    let mut stream = loop {
        match TcpStream::connect((server, port)).await {
            Ok(stream) => break stream,
            Err(e) if e.raw_os_error().is_some_and(|e| Call::Socket.errnos().contains(&e)) => {
                book.pause(1_000).await;
            }
            Err(e) => return Err(told("a connect", e)),
        }
    };
    let mut by = None;
    for _ in 0..=book.below(5) {
        let asked: Vec<u8> = (0..REQUEST).map(|_| book.below(256) as u8).collect();
        let sent = stream.write_all(asked.clone()).await;
        sent.map_err(|e| told("a write", e.into_parts().0))?;
        let said = timeout(GONE_WITHIN, stream.read_exact(vec![0; REQUEST + 1])).await;
        let (_, said) = match said {
            Ok(said) => said.map_err(|e| told("a read", e.into_parts().0))?,
            Err(_) => return Err(format!("{name}: no answer within {GONE_WITHIN:?}")),
        };
        if said[1..] != asked || *by.get_or_insert(said[0]) != said[0] {
            return Err(format!("{name}: something else was said back"));
        }
        book.rest(10_000).await;
    }
    Ok(())
}

/// Whoever restarts the server.
async fn operate(book: Rc<Book>) -> Result<(), String> {
    let running = || book.sim.processes("server");
    let is_ready = |process| book.own(process).state.get() == State::Ready;
    let mut now = running()[0];
    book.until("the first process", || is_ready(now)).await?;
    book.open.set(true);
    for (i, fate) in book.plan.fates.iter().enumerate() {
        book.pause(30_000).await;
        if *fate == Fate::Late {
            let handover = book.own(now).handover.borrow().clone();
            handover.ok_or("the process that runs has none")?.starting_within(STARTING);
            book.slow.set(true);
        }
        let new = book.sim.successor("server");
        match fate {
            Fate::Killed => {
                book.pause(20_000).await;
                book.sim.kill_process(new, Signal::QUIT);
                book.until("a killed successor", || running() == [now]).await?;
            }
            Fate::Ends => {
                book.pause(100).await;
                book.until("one that ends", || running() == [now]).await?;
            }
            Fate::Late => {
                let is_late = || book.own(new).state.get() == State::Late;
                book.until("one that is late", || is_late() && running() == [now]).await?;
                let handover = book.own(now).handover.borrow().clone();
                handover.ok_or("the process that runs has none")?.starting_within(PATIENCE);
                book.slow.set(false);
            }
            Fate::Orphaned => {
                book.pause(3_000).await;
                book.epoch.set(book.epoch.get() + 1);
                book.sim.kill_process(now, Signal::QUIT);
                now = new;
                book.until("an orphan", || is_ready(now) && running() == [now]).await?;
                book.epoch.set(book.epoch.get() + 1);
            }
            Fate::Hurried if matches!(book.plan.fates.get(i + 1), Some(Fate::Fine)) => {
                book.pause(2_000).await;
            }
            Fate::Fine | Fate::Hurried => {
                // Two that begin together take over in any order.
                book.until("a successor", || running().len() == 1 && is_ready(new)).await?;
                now = running()[0];
            }
        }
    }
    book.pause(30_000).await;
    book.over.set(true);
    Ok(())
}
