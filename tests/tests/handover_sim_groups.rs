//! Groups by CPU under simulation: a server of sixteen cores is replaced in place, also after successors that were
//! killed, ended by themselves or were late. Nobody is refused or reset, and but for the change itself each
//! connection is answered by the core of its CPU.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use coreloop::cancel::Interruptible;
use coreloop::shutdown::{Graceful, Here};
use coreloop::signal::Signal;
use coreloop::sim::{Faults, Process, Sim};
use coreloop::time::sleep;
use coreloop::{Core, spawn};
use coreloop_net::handover::Handover;
use coreloop_net::spread::{Group, SteeredListener};
use coreloop_net::{ListenOptions, TcpStream};

const CORES: usize = 16;
const CLIENTS: usize = 4;
const ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7000);
const MS: Duration = Duration::from_millis(1);

/// Where successors connect; a name in the simulated host.
const PATH: &str = "/run/server";

/// How patient a predecessor is.
const STARTING: Duration = Duration::from_millis(300);

/// What clients get to see of a process before the next one begins.
const REST: Duration = Duration::from_millis(60);

/// What happens to a process that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is killed before it is ready, at any time.
    Killed,
    /// It ends by itself when all of its cores have bound.
    Ends,
    /// It is told that it is too late.
    Late,
    /// It takes over.
    Fine,
}

/// What the cores of one process share.
struct Own {
    fate: Fate,
    /// While any of its cores is there.
    shared: RefCell<Option<(Handover, Group)>>,
    cores: Cell<usize>,
    bound: Cell<usize>,
    is_ready: Cell<bool>,
    graceful: Graceful,
}

/// A core of a process; the last to go takes what they share along.
struct Present(Rc<Own>);

impl Present {
    fn of(own: &Rc<Own>) -> Self {
        own.cores.set(own.cores.get() + 1);
        Self(own.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let left = self.0.cores.get() - 1;
        self.0.cores.set(left);
        if left == 0 {
            drop(self.0.shared.take());
        }
    }
}

/// What all know of each other.
struct Book {
    sim: Sim,
    fates: Vec<Fate>,
    processes: RefCell<BTreeMap<Process, Rc<Own>>>,
    /// The process that answers all; none at the start, and while one takes over from another.
    serves: Cell<Option<u8>>,
    over: Cell<bool>,
    /// How many each process has answered.
    answered: RefCell<BTreeMap<u8, usize>>,
}

impl Book {
    fn own(&self, process: Process) -> Rc<Own> {
        let fate = (process.number() as usize).checked_sub(1).map(|at| self.fates[at]);
        let own = || Own {
            fate: fate.unwrap_or(Fate::Fine),
            shared: RefCell::default(),
            cores: Cell::new(0),
            bound: Cell::new(0),
            is_ready: Cell::new(false),
            graceful: Graceful::new(Duration::from_secs(3_600)),
        };
        self.processes.borrow_mut().entry(process).or_insert_with(|| Rc::new(own())).clone()
    }

    async fn pause(&self, micros: u64) {
        sleep(Duration::from_micros(self.sim.random() % micros)).await;
    }

    /// The simulation itself has a limit.
    async fn until(&self, met: impl Fn() -> bool) {
        while !met() {
            sleep(MS).await;
        }
    }
}

/// What a process does before its cores bind; here one of them does.
async fn begun() -> (Handover, Group) {
    let handover = Handover::begin(PATH).await.unwrap();
    handover.starting_within(STARTING);
    let (came, options) = (handover.take_all("http"), ListenOptions::default());
    let group =
        if came.is_empty() { Group::new(ADDR, options) } else { Group::adopt(came, options) };
    let group = group.unwrap();
    handover.lend_group("http", &group).unwrap();
    (handover, group)
}

/// A core of a process.
async fn serve(core: Core, book: Rc<Book>) {
    let process = book.sim.process().expect("a core is a process's");
    let own = book.own(process);
    let _present = Present::of(&own);
    if core.index() == 0 {
        let shared = begun().await;
        *own.shared.borrow_mut() = Some(shared);
    }
    let (handover, group) = loop {
        let shared = own.shared.borrow().clone();
        match shared {
            Some(shared) => break shared,
            None => sleep(MS / 10).await,
        }
    };
    let here = own.graceful.here();
    // In any order.
    book.pause(3_000).await;
    let mut listener = group.bind(core.cpu()).unwrap();
    own.bound.set(own.bound.get() + 1);
    match own.fate {
        Fate::Fine => {}
        Fate::Killed => return std::future::pending().await,
        Fate::Ends => {
            book.until(|| own.bound.get() == CORES).await;
            return book.pause(3_000).await;
        }
        Fate::Late => {
            sleep(STARTING * 2).await;
            return match handover.ready(core.count()) {
                Ok(all) => assert!(!all, "it is too late"),
                Err(e) => assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}"),
            };
        }
    }
    if handover.ready(core.count()).unwrap() {
        own.is_ready.set(true);
        let graceful = own.graceful.clone();
        drop(spawn(async move {
            handover.successor().await.unwrap();
            graceful.begin();
        }));
    }
    answers(&here, &mut listener, [process.number() as u8, core.cpu() as u8]).await;
    drop(listener);
    let drained = here.drained().await;
    assert_eq!((drained.cancelled, drained.left), (0, 0), "everything was answered");
}

/// Accepts until the end begins, and what had been accepted by then; each hears these two bytes.
async fn answers(here: &Here, listener: &mut SteeredListener, says: [u8; 2]) {
    let answer = |mut stream: TcpStream| {
        drop(here.spawn(async move { stream.write_all(says.to_vec()).await }));
    };
    while let Ok(stream) = listener.accept().cancel_on(here.stopping()).await {
        answer(stream);
    }
    for stream in listener.pause().await {
        answer(stream.attach());
    }
}

/// A client: connections, one after the other, until the restarts are over.
async fn ask(server: IpAddr, book: Rc<Book>) {
    book.until(|| book.serves.get().is_some()).await;
    while !book.over.get() {
        book.pause(6_000).await;
        let serves = book.serves.get();
        let mut stream = TcpStream::connect((server, ADDR.port())).await.unwrap();
        let cpu = usize::from(stream.local_addr().unwrap().port()) % CORES;
        let (_, by) = stream.read_exact(vec![0; 2]).await.unwrap();
        // Numbers of processes do not come again: it was that one all the time.
        if serves.is_some() && book.serves.get() == serves {
            assert_eq!((Some(by[0]), usize::from(by[1])), (serves, cpu), "who answers");
        }
        *book.answered.borrow_mut().entry(by[0]).or_default() += 1;
    }
}

/// Whoever restarts the server.
async fn operate(book: Rc<Book>) {
    let running = || book.sim.processes("server");
    let mut now = running()[0];
    book.until(|| book.own(now).is_ready.get()).await;
    book.serves.set(Some(0));
    for fate in &book.fates {
        sleep(REST).await;
        if *fate == Fate::Fine {
            book.serves.set(None);
        }
        let new = book.sim.successor("server");
        match fate {
            Fate::Killed => {
                sleep(MS).await;
                book.pause(8_000).await;
                book.sim.kill_process(new, Signal::QUIT);
            }
            // It begins when this one gives way.
            Fate::Ends | Fate::Late => book.until(|| book.own(new).bound.get() == CORES).await,
            Fate::Fine => {
                book.until(|| book.own(new).is_ready.get() && running() == [new]).await;
                now = new;
                book.serves.set(Some(new.number() as u8));
            }
        }
        book.until(|| running() == [now]).await;
    }
    sleep(REST).await;
    book.over.set(true);
}

/// The processes that answered somebody.
fn replaced(seed: u64, fates: Vec<Fate>) -> Vec<u8> {
    let sim = Sim::builder().seed(seed).faults(Faults::none()).build();
    let book = Rc::new(Book {
        sim: sim.clone(),
        fates,
        processes: RefCell::default(),
        serves: Cell::new(None),
        over: Cell::new(false),
        answered: RefCell::default(),
    });
    let own = book.clone();
    let server = sim.host("server", CORES, move |core| serve(core, own.clone()));
    for i in 0..CLIENTS {
        let own = book.clone();
        sim.client(&format!("client{i}"), move || ask(server, own));
    }
    let own = book.clone();
    sim.client("operator", move || operate(own));
    let report = sim.run().unwrap_or_else(|e| panic!("seed {seed}, {:?}: {e}", book.fates));
    assert_eq!(report.counters.task_panics, 0, "seed {seed}");
    book.answered.take().into_keys().collect()
}

#[test]
fn handover_sim_groups_are_steered_by_whoever_goes_on() {
    for seed in 0..3 {
        let mut fates = vec![Fate::Killed, Fate::Ends, Fate::Late];
        fates.rotate_left(seed as usize);
        // Then one that takes over, and has another that comes to nothing after it.
        fates.extend([Fate::Fine, fates[0], Fate::Fine]);
        assert_eq!(replaced(seed, fates), [0, 4, 6], "seed {seed}");
    }
}
