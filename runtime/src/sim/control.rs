//! The simulation in a test's hand.
//!
//! Owns [`Sim`]: hosts are added, links cut and machines crashed through it, before it runs and, by the
//! simulated programs themselves, while it does. What would take a core away from under the code that asks
//! for it waits until that code has given way.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::builder::Builder;
use super::hosts::{Host, MainOf, MakeMain, Role};
use super::net::{HostId, ProcessId};
use super::panics::Panics;
use super::report::{Report, SimError};
use super::run;
use super::signals::STOPPING;
use super::world::World;
use crate::config::Settings;
use crate::runtime::Core;
use crate::signal::Signal;

/// A simulation: hosts with cores, a network between them, a clock of their own. A clone is the same one;
/// it stays on its thread.
///
/// ```
/// use coreloop::sim::Sim;
/// use coreloop::time::{Instant, sleep};
/// use std::time::Duration;
///
/// let sim = Sim::builder().seed(1).build();
/// sim.client("sleeper", async || {
///     let began = Instant::now();
///     sleep(Duration::from_secs(3600)).await;
///     assert!(began.elapsed() >= Duration::from_secs(3600));
/// });
/// let report = sim.run().unwrap();
/// assert!(report.elapsed >= Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct Sim {
    inner: Rc<Inner>,
}

pub(super) struct Inner {
    pub(super) seed: u64,
    pub(super) world: Rc<World>,
    pub(super) settings: Settings,
    /// Of tasks, if they fail the simulation.
    pub(super) panics: Arc<Panics>,
    /// Steps, and virtual time.
    pub(super) limits: (u64, Duration),
    pub(super) hosts: RefCell<Vec<Host>>,
    /// What waits for the core that runs to give way. Bounded by what one step of it asks for.
    pub(super) commands: RefCell<VecDeque<Command>>,
    /// Whose core is being stepped.
    pub(super) here: Cell<Option<ProcessId>>,
    began_ns: u64,
    stage: Cell<Stage>,
}

/// What is done between steps, to the host of this number.
pub(super) enum Command {
    /// This process, or the next one if none runs.
    Start(usize, Option<ProcessId>),
    Crash(usize),
}

/// A process of a simulated host, of which each start makes one. See [`Sim::successor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(ProcessId);

impl Process {
    /// How many the host had before it.
    pub fn number(self) -> u32 {
        self.0.number
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Running,
    Over,
}

/// What a main future of a simulated core may end with. An error fails the simulation.
pub trait Outcome {
    /// The error's text, if it is one.
    ///
    /// # Errors
    /// That of `self`.
    fn outcome(self) -> Result<(), String>;
}

impl Outcome for () {
    fn outcome(self) -> Result<(), String> {
        Ok(())
    }
}

/// That of a future which never ends, such as a server's `loop`. Stable Rust has no other way to name it.
type Never = <fn() -> ! as Gives>::Value;

#[doc(hidden)]
pub trait Gives {
    type Value;
}

impl<T> Gives for fn() -> T {
    type Value = T;
}

impl Outcome for Never {
    fn outcome(self) -> Result<(), String> {
        self
    }
}

impl<T, E: fmt::Display> Outcome for Result<T, E> {
    fn outcome(self) -> Result<(), String> {
        self.map(drop).map_err(|e| e.to_string())
    }
}

impl Sim {
    /// Settings to start from.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(super) fn new(builder: &Builder) -> Self {
        let world = World::new(builder.seed, builder.faults.drawn(builder.seed));
        let panics = Arc::<Panics>::default();
        let settings = builder.settings_of_cores();
        let settings = if builder.fail_on_panic { panics.noted(settings) } else { settings };
        Self {
            inner: Rc::new(Inner {
                seed: builder.seed,
                began_ns: world.now_ns(),
                world,
                settings,
                panics,
                limits: (builder.steps_max, builder.time_max),
                hosts: RefCell::default(),
                commands: RefCell::default(),
                here: Cell::new(None),
                stage: Cell::new(Stage::New),
            }),
        }
    }

    /// Adds a machine with so many cores, on each of which `main` makes the main future, as
    /// [`Runtime::run`](crate::Runtime::run) would have it. Gives its address, at
    /// which others find its listeners.
    ///
    /// It starts with [`run`](Self::run), or at once in a simulation that is running. It is stopped when
    /// all clients have ended; without clients, the simulation ends when every host has by itself.
    ///
    /// # Panics
    /// If there is a host of this name, without cores, or after the simulation's end.
    #[track_caller]
    pub fn host<F, Fut>(&self, name: &str, cores: usize, main: F) -> IpAddr
    where
        F: Fn(Core) -> Fut + 'static,
        Fut: Future<Output: Outcome> + 'static,
    {
        assert!(cores > 0, "host {name:?} has no cores; it needs at least one");
        let main = Rc::new(main);
        let make = move |core: Core| -> MainOf {
            let main = main.clone();
            Box::pin(async move { main(core).await.outcome() })
        };
        self.add(name, Role::Server, cores, Rc::new(make))
    }

    /// Adds a machine with one core that runs the future of `main`, which is made there, so that all of it
    /// goes by the simulated clock. The simulation ends when all of these have.
    ///
    /// # Panics
    /// If there is a host of this name, or after the simulation's end.
    #[track_caller]
    pub fn client<F, Fut>(&self, name: &str, main: F) -> IpAddr
    where
        F: FnOnce() -> Fut + 'static,
        Fut: Future<Output: Outcome> + 'static,
    {
        let main = Cell::new(Some(main));
        let make = move |_: Core| -> MainOf {
            let main = main.take();
            Box::pin(async move {
                match main {
                    Some(main) => main().await.outcome(),
                    None => Err("a client runs once and cannot be started again".to_owned()),
                }
            })
        };
        self.add(name, Role::Client, 1, Rc::new(make))
    }

    #[track_caller]
    fn add(&self, name: &str, role: Role, cores: usize, make: MakeMain) -> IpAddr {
        let inner = &self.inner;
        assert!(inner.stage.get() != Stage::Over, "the simulation is over: host {name:?} is late");
        let mut hosts = inner.hosts.borrow_mut();
        assert!(hosts.iter().all(|h| &*h.name != name), "there is a host {name:?} already");
        let number = hosts.len() as u32 + 1;
        assert!(number < 1 << 24, "too many hosts");
        let [_, a, b, c] = number.to_be_bytes();
        let addr = IpAddr::V4(Ipv4Addr::new(10, a, b, c));
        let id = inner.world.add_host(vec![addr]);
        hosts.push(Host::new(name.into(), (id, addr), role, cores, make));
        if inner.stage.get() == Stage::Running {
            inner.commands.borrow_mut().push_back(Command::Start(hosts.len() - 1, None));
        }
        addr
    }

    /// The address of a host.
    ///
    /// # Panics
    /// If there is none of this name.
    #[track_caller]
    pub fn addr(&self, name: &str) -> IpAddr {
        let at = self.at(name);
        self.inner.hosts.borrow()[at].addr
    }

    /// The place of a host in the list.
    #[track_caller]
    fn at(&self, name: &str) -> usize {
        let hosts = self.inner.hosts.borrow();
        match hosts.iter().position(|host| &*host.name == name) {
            Some(at) => at,
            None => {
                let known: Vec<_> = hosts.iter().map(|h| &*h.name).collect();
                panic!("there is no host {name:?}; there are: {}", known.join(", "))
            }
        }
    }

    #[track_caller]
    fn pair(&self, a: &str, b: &str) -> (HostId, HostId) {
        let (a, b) = (self.at(a), self.at(b));
        let hosts = self.inner.hosts.borrow();
        (hosts[a].id, hosts[b].id)
    }

    /// Takes the power from a host: its connections and listeners are gone without a word to anybody, its
    /// tasks are dropped. Their destructors do run, as they would not in a real crash; they have no network
    /// any more. It takes place when the code that asks for it gives way.
    ///
    /// # Panics
    /// If there is no host of this name.
    #[track_caller]
    pub fn crash(&self, name: &str) {
        self.inner.commands.borrow_mut().push_back(Command::Crash(self.at(name)));
    }

    /// Starts a host anew, crashed before if it runs: fresh cores, with main futures made anew. What is to
    /// survive a restart is for its closure to hold, as a disk would.
    ///
    /// # Panics
    /// If there is no host of this name, or it is a client.
    #[track_caller]
    pub fn restart(&self, name: &str) {
        let at = self.server(name);
        self.crash(name);
        self.inner.commands.borrow_mut().push_back(Command::Start(at, None));
    }

    /// Starts another process of a host beside the one that runs there, as a restart does that hands over:
    /// cores of its own, as many, with main futures made anew. The two share the machine's addresses and
    /// ports and, once it is handed over, what the one before lets this one have (`coreloop_net::handover`).
    /// Each runs until its main futures have ended or a signal ends it; a [`crash`](Self::crash) ends both.
    /// It begins when the code that asks for it gives way.
    ///
    /// ```
    /// use coreloop::sim::Sim;
    /// use coreloop::time::sleep;
    /// use std::time::Duration;
    ///
    /// let sim = Sim::builder().build();
    /// let own = sim.clone();
    /// sim.host("server", 2, move |_core| {
    ///     let number = own.process().unwrap().number();
    ///     sleep(Duration::from_secs(if number == 0 { 2 } else { 3_600 }))
    /// });
    /// let own = sim.clone();
    /// sim.client("operator", async move || {
    ///     sleep(Duration::from_secs(1)).await;
    ///     let new = own.successor("server");
    ///     sleep(Duration::from_millis(1)).await;
    ///     assert_eq!(own.processes("server").len(), 2);
    ///     sleep(Duration::from_secs(2)).await;
    ///     assert_eq!(own.processes("server"), [new]);
    /// });
    /// sim.run().unwrap();
    /// ```
    ///
    /// # Panics
    /// If there is no host of this name, or it is a client.
    #[track_caller]
    pub fn successor(&self, name: &str) -> Process {
        let at = self.server(name);
        let process = self.inner.hosts.borrow_mut()[at].next_process();
        self.inner.commands.borrow_mut().push_back(Command::Start(at, Some(process)));
        Process(process)
    }

    /// The place of a host that is no client.
    #[track_caller]
    fn server(&self, name: &str) -> usize {
        let at = self.at(name);
        let client = self.inner.hosts.borrow()[at].role == Role::Client;
        assert!(!client, "{name:?} is a client, which runs once; use `host`");
        at
    }

    /// The processes of a host, the oldest first: most often one. One that has ended is among them until all
    /// that it had open is closed, which takes its kernel a moment.
    ///
    /// # Panics
    /// If there is no host of this name.
    #[track_caller]
    pub fn processes(&self, name: &str) -> Vec<Process> {
        let at = self.at(name);
        let hosts = self.inner.hosts.borrow();
        let all: BTreeSet<_> = hosts[at].processes().chain(hosts[at].ending()).collect();
        all.into_iter().map(Process).collect()
    }

    /// The process that the code which asks runs in; none outside of simulated cores.
    pub fn process(&self) -> Option<Process> {
        self.inner.here.get().map(Process)
    }

    /// Sends a signal to the process of a host, to the latest if it has several, as `kill(2)` does; whether
    /// there is one to get it. It arrives a little later, on a core that the seed chooses; those that a
    /// process has pending of one number are one, but for real-time ones. One that was never subscribed to
    /// does what it does by default: SIGTERM and most others end the process, whose connections and
    /// listeners are closed as a kernel closes them, and whose tasks are dropped.
    /// [`restart`](Self::restart) starts another.
    ///
    /// ```
    /// use coreloop::signal::{Signal, Signals};
    /// use coreloop::sim::Sim;
    /// use std::time::Duration;
    ///
    /// let sim = Sim::builder().seed(1).build();
    /// sim.host("server", 16, |core| async move {
    ///     let mut signals = Signals::new([Signal::TERM]).unwrap();
    ///     assert_eq!(signals.recv().await, Signal::TERM);
    ///     assert!(core.index() < 16);
    /// });
    /// let own = sim.clone();
    /// sim.client("operator", async move || {
    ///     coreloop::time::sleep(Duration::from_secs(1)).await;
    ///     assert!(own.kill("server", Signal::TERM));
    ///     coreloop::time::sleep(Duration::from_secs(1)).await;
    /// });
    /// sim.run().unwrap();
    /// ```
    ///
    /// # Panics
    /// If there is no host of this name; for SIGTSTP, SIGTTIN and SIGTTOU, since stops are not simulated.
    #[track_caller]
    pub fn kill(&self, name: &str, signal: Signal) -> bool {
        let at = self.at(name);
        let number = number_of(signal);
        let latest = self.inner.hosts.borrow()[at].processes().last();
        latest.is_some_and(|latest| self.inner.world.kill(latest, number))
    }

    /// As [`kill`](Self::kill), to this process.
    ///
    /// # Panics
    /// For SIGTSTP, SIGTTIN and SIGTTOU.
    #[track_caller]
    pub fn kill_process(&self, process: Process, signal: Signal) -> bool {
        self.inner.world.kill(process.0, number_of(signal))
    }

    /// Lets nothing pass between two hosts. What is sent waits and is sent again, as TCP does, until the
    /// network [heals](Self::heal) or connections time out.
    ///
    /// # Panics
    /// If there is no host of one of the names.
    #[track_caller]
    pub fn partition(&self, a: &str, b: &str) {
        self.set_partitioned(a, b, true);
    }

    /// Undoes [`partition`](Self::partition).
    ///
    /// # Panics
    /// If there is no host of one of the names.
    #[track_caller]
    pub fn heal(&self, a: &str, b: &str) {
        self.set_partitioned(a, b, false);
    }

    #[track_caller]
    fn set_partitioned(&self, a: &str, b: &str, partitioned: bool) {
        let ((a, b), world) = (self.pair(a, b), &self.inner.world);
        let mut link = world.link(a, b);
        link.partitioned = partitioned;
        world.set_link(a, b, link);
    }

    /// How long a packet takes between two hosts: from `least` to `most`, another time each time.
    ///
    /// # Panics
    /// If there is no host of one of the names, or `most` is less than `least`.
    #[track_caller]
    pub fn latency(&self, a: &str, b: &str, least: Duration, most: Duration) {
        assert!(least <= most, "a latency from {least:?} to {most:?}: the first is to be the less");
        let ((a, b), world) = (self.pair(a, b), &self.inner.world);
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX / 4);
        let mut link = world.link(a, b);
        link.latency_ns = (ns(least), ns(most));
        world.set_link(a, b, link);
    }

    /// Resets every connection between two hosts: both ends get ECONNRESET.
    ///
    /// # Panics
    /// If there is no host of one of the names.
    #[track_caller]
    pub fn reset(&self, a: &str, b: &str) {
        let (a, b) = self.pair(a, b);
        self.inner.world.reset_connections(a, b);
    }

    /// From now on nothing is made to go wrong. Links stay as they are; so do partitions.
    pub fn calm(&self) {
        self.inner.world.calm();
    }

    /// What everything follows from.
    pub fn seed(&self) -> u64 {
        self.inner.seed
    }

    /// The next of the random numbers that the seed gives. Take those that a simulated program needs from
    /// here, and a failure can be seen again.
    pub fn random(&self) -> u64 {
        self.inner.world.rng(|rng| rng.number())
    }

    /// Lets `d` of virtual time pass on the spot, as if the code that calls this computed for so long. Its
    /// core does nothing else meanwhile; neither do the others, which then find all that has come due. Time
    /// goes no further than just beyond [`Builder::time_max`], where the simulation is given up.
    ///
    /// ```
    /// use coreloop::sim::Sim;
    /// use coreloop::time::{Instant, sleep};
    /// use std::time::Duration;
    ///
    /// let sim = Sim::builder().build();
    /// let own = sim.clone();
    /// sim.client("busy", async move || {
    ///     let began = Instant::now();
    ///     let task = coreloop::spawn(async { sleep(Duration::from_secs(5)).await });
    ///     own.compute(Duration::from_secs(3));
    ///     task.await.unwrap();
    ///     assert!(began.elapsed() >= Duration::from_secs(8), "it began to sleep after that");
    /// });
    /// sim.run().unwrap();
    /// ```
    pub fn compute(&self, d: Duration) {
        let world = &self.inner.world;
        let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let (_, time_max) = self.inner.limits;
        let time_max = u64::try_from(time_max.as_nanos()).unwrap_or(u64::MAX);
        let last = self.inner.began_ns.saturating_add(time_max).saturating_add(1);
        world.advance_to(world.now_ns().saturating_add(ns).min(last));
    }

    /// Virtual time since the simulation was made.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.inner.world.now_ns() - self.inner.began_ns)
    }

    /// Runs until every client has ended, then stops the hosts in order and looks at what is left.
    ///
    /// # Errors
    /// [`SimError`]: a main future that failed or panicked, a deadlock, a limit, a misuse of the kernel, or
    /// descriptors that nobody closed.
    ///
    /// # Panics
    /// If it has run already, or is called from within a running loop.
    #[track_caller]
    pub fn run(&self) -> Result<Report, SimError> {
        let stage = self.inner.stage.replace(Stage::Running);
        assert!(stage == Stage::New, "a simulation runs once");
        let loops = crate::executor::context::with_core(|_| ());
        assert!(loops.is_none(), "a loop is running on this thread: `run` is for outside of it");
        let ended = run::run(&self.inner);
        self.inner.stage.set(Stage::Over);
        ended
    }
}

#[track_caller]
fn number_of(signal: Signal) -> i32 {
    let number = signal.as_raw();
    assert!(!STOPPING.contains(&number), "{signal} stops a process: that is not simulated");
    number
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.inner.hosts.borrow().len();
        f.debug_struct("Sim")
            .field("seed", &self.inner.seed)
            .field("hosts", &hosts)
            .finish_non_exhaustive()
    }
}
