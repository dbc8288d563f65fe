//! Simulated machines: a name, an address, and processes that come and go.
//!
//! Owns [`Host`]: how its processes are started, each with as many cores, how they are crashed and started
//! again, and what their ends say. Most have one at a time; a successor runs beside the one before it. A
//! process is let go when all its loops are closed. Cores that were crashed are kept until their kernels are
//! drained; they have no network any more. Of all that were let go, the sums stay.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::cores::{Main, MainEnd, SimCore};
use super::net::{HostId, ProcessId};
use super::world::World;
use crate::config::Settings;
use crate::driver::setup::StartError;
use crate::handle::Handle;
use crate::mailbox::peers::{Peers, Stop};
use crate::metrics::Counters;
use crate::runtime::{self, until_stopped};

/// Makes the main future of a core.
pub(super) type MakeMain = Rc<dyn Fn(runtime::Core) -> MainOf>;

/// A main future before it can be stopped.
pub(super) type MainOf = std::pin::Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// Whether the simulation ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs as long as there are clients.
    Server,
    /// The simulation ends when every one of these has.
    Client,
}

pub(super) struct Host {
    pub(super) name: Rc<str>,
    pub(super) id: HostId,
    pub(super) addr: IpAddr,
    pub(super) role: Role,
    cores: usize,
    make: MakeMain,
    /// The oldest first.
    running: Vec<Process>,
    /// Crashed; their kernels are drained, if that is not done yet.
    leaving: Vec<Rc<RefCell<SimCore>>>,
    gone: Gone,
    /// Processes that there have been, or are to be.
    made: u32,
    /// Processes are asked to stop as soon as they begin.
    stopping: bool,
}

/// One that runs, or whose loops are not all closed.
struct Process {
    id: ProcessId,
    cores: Vec<Rc<RefCell<SimCore>>>,
    stop: Arc<Stop>,
}

/// What is kept of cores that were let go.
#[derive(Default)]
struct Gone {
    leaked: u32,
    buffers_out: i64,
    counters: Counters,
}

/// What a host's cores came to since they were last asked.
pub(super) enum HostEnd {
    Failed(String),
    Panicked { core: usize, message: String },
}

impl Host {
    pub(super) fn new(
        name: Rc<str>,
        (id, addr): (HostId, IpAddr),
        role: Role,
        cores: usize,
        make: MakeMain,
    ) -> Self {
        let (running, leaving, gone) = (Vec::new(), Vec::new(), Gone::default());
        let (made, stopping) = (0, false);
        Self { name, id, addr, role, cores, make, running, leaving, gone, made, stopping }
    }

    /// Names a process that is to be started.
    pub(super) fn next_process(&mut self) -> ProcessId {
        let number = self.made;
        self.made += 1;
        ProcessId { host: self.id, number }
    }

    /// Starts a process: each core on a kernel of its own, all known to each other.
    pub(super) fn start(
        &mut self,
        id: ProcessId,
        world: &Rc<World>,
        settings: &Settings,
    ) -> Result<(), StartError> {
        let started: Result<Vec<_>, _> = (0..self.cores)
            .map(|index| SimCore::start(world.kernel(id), settings, index))
            .collect();
        let mut started = started?;
        let stop = Arc::<Stop>::default();
        let queues = started.iter().map(|c| c.core().jobs.clone()).collect();
        let peers = Peers::new(queues, stop.clone());
        started.iter().for_each(|core| core.core().join_peers(peers.clone()));
        let handle = Handle::of(peers);
        for (index, core) in started.iter_mut().enumerate() {
            let place = runtime::Core::new(index, index, handle.clone());
            core.begin(self.main(place, &stop));
        }
        if self.stopping {
            stop.ask();
        }
        let cores = started.into_iter().map(|core| Rc::new(RefCell::new(core))).collect();
        self.running.push(Process { id, cores, stop });
        world.begin_process(id);
        Ok(())
    }

    /// The main future of a core. It is made when it is first polled, so that all of it runs in its loop
    /// and by its clock.
    fn main(&self, place: runtime::Core, stop: &Arc<Stop>) -> Main {
        let (make, stop) = (self.make.clone(), stop.clone());
        Box::pin(async move { until_stopped(async { make(place).await }, &stop).await })
    }

    /// Whether a process of it runs.
    pub(super) fn is_up(&self) -> bool {
        !self.running.is_empty()
    }

    /// The processes that run, the oldest first.
    pub(super) fn processes(&self) -> impl Iterator<Item = ProcessId> {
        self.running.iter().map(|process| process.id)
    }

    /// Those that were ended and have not closed everything yet.
    pub(super) fn ending(&self) -> BTreeSet<ProcessId> {
        self.leaving.iter().map(|core| core.borrow().process()).collect()
    }

    /// Whether every core's main future has ended, and its loop is closed.
    pub(super) fn is_done(&self) -> bool {
        self.running.iter().all(Process::is_closed)
            && self.leaving.iter().all(|core| core.borrow().is_closed())
    }

    /// Takes the power away: its connections are gone without a word. Gives its cores to be abandoned,
    /// which runs destructors of users, by whoever has nothing borrowed.
    pub(super) fn crash(&mut self, world: &World) -> Vec<Rc<RefCell<SimCore>>> {
        world.crash(self.id);
        let running: Vec<_> = self.processes().collect();
        running.into_iter().flat_map(|id| self.end_process(id, world)).collect()
    }

    /// A process is at its end, but the machine is there: what was open is closed, as a kernel does that
    /// for a process. Gives its cores, as [`crash`](Self::crash) does.
    pub(super) fn end_process(
        &mut self,
        id: ProcessId,
        world: &World,
    ) -> Vec<Rc<RefCell<SimCore>>> {
        world.end_process(id);
        let ended: Vec<_> = self.running.extract_if(.., |process| process.id == id).collect();
        let cores: Vec<_> = ended.into_iter().flat_map(|process| process.cores).collect();
        self.leaving.extend(cores.iter().cloned());
        cores
    }

    /// Takes leave of processes that have ended, and of cores that were crashed and are closed by now: each
    /// is a loop of this process. They are dropped, with what outlives their close, by whoever has nothing
    /// borrowed.
    #[must_use = "the cores are dropped at once otherwise, with the list of hosts borrowed"]
    pub(super) fn let_go(&mut self, world: &World) -> Vec<Rc<RefCell<SimCore>>> {
        let mut closed: Vec<_> =
            self.leaving.extract_if(.., |core| core.borrow().is_closed()).collect();
        for process in self.running.extract_if(.., |process| process.is_closed()) {
            world.end_process(process.id);
            closed.extend(process.cores);
        }
        for core in &closed {
            let core = core.borrow();
            self.gone.leaked += core.leaked();
            self.gone.buffers_out += core.buffers_out();
            self.gone.counters.merge(&core.counters());
        }
        closed
    }

    /// Asks the cores to end in order, and those of processes that are yet to begin.
    pub(super) fn ask_to_stop(&mut self) {
        self.stopping = true;
        self.running.iter().for_each(|process| process.stop.ask());
    }

    /// All cores that are still stepped, with their places.
    pub(super) fn stepped(&self) -> impl Iterator<Item = &Rc<RefCell<SimCore>>> {
        self.running.iter().flat_map(|process| &process.cores).chain(&self.leaving)
    }

    /// Ops that kernels did not give back to cores that were closed.
    pub(super) fn leaked(&self) -> u32 {
        self.gone.leaked + self.stepped().map(|core| core.borrow().leaked()).sum::<u32>()
    }

    /// Receive buffers that were not given back to cores that were closed.
    pub(super) fn buffers_out(&self) -> i64 {
        self.gone.buffers_out + self.stepped().map(|core| core.borrow().buffers_out()).sum::<i64>()
    }

    /// What its cores counted.
    pub(super) fn counters(&self) -> Counters {
        let mut all = self.gone.counters.clone();
        self.stepped().for_each(|core| all.merge(&core.borrow().counters()));
        all
    }

    /// How a main future ended that should not have ended so.
    pub(super) fn failure(&self) -> Option<HostEnd> {
        self.cores().find_map(|(_, core, c)| match c.borrow().main_end() {
            Some(MainEnd::Failed(why)) => Some(HostEnd::Failed(why.clone())),
            Some(MainEnd::Panicked(message)) => {
                Some(HostEnd::Panicked { core, message: message.clone() })
            }
            _ => None,
        })
    }

    /// What has not ended, a line for each core that waits for something.
    pub(super) fn waiting(&self) -> Vec<String> {
        let cores = self.cores().filter_map(|(process, index, core)| {
            let waiting = core.borrow().waiting();
            let of = match process.number {
                0 => String::new(),
                number => format!("'s process {number},"),
            };
            let line = || format!("{}{of} core {index}: {}", self.name, waiting.join(", "));
            (!waiting.is_empty()).then(line)
        });
        cores.collect()
    }

    /// The cores that run, with their process and their place in it.
    fn cores(&self) -> impl Iterator<Item = (ProcessId, usize, &Rc<RefCell<SimCore>>)> {
        self.running.iter().flat_map(|process| {
            let cores = process.cores.iter().enumerate();
            cores.map(|(index, core)| (process.id, index, core))
        })
    }
}

impl Process {
    fn is_closed(&self) -> bool {
        self.cores.iter().all(|core| core.borrow().is_closed())
    }
}
