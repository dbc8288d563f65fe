//! Many cores on one thread.
//!
//! Owns the order of everything: which core takes the next step (drawn from the seed among those that have
//! something to do), when the clock moves (when none has, to the next deadline or event), and the verdict at
//! the end. Bounded by steps and by virtual time. Nothing of the simulation is borrowed while a core is
//! stepped, so that user code may call back into it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::control::{Command, Inner};
use super::cores::{Next, SimCore};
use super::hosts::{Host, HostEnd, Role};
use super::net::ProcessId;
use super::report::{Failure, Report, SimError};
use super::rng::Rng;

/// Runs a simulation to its end, and its hosts to theirs.
pub(super) fn run(sim: &Inner) -> Result<Report, SimError> {
    let rng = sim.world.rng(Rng::fork);
    let mut run = Run {
        sim,
        rng,
        cores: Vec::new(),
        steps: 0,
        starts_failed: Cell::new(0),
        began_ns: sim.world.now_ns(),
    };
    let ended = run.start().and_then(|()| run.drive(Run::clients_ended)).and_then(|()| {
        sim.hosts.borrow_mut().iter_mut().for_each(Host::ask_to_stop);
        run.drive(Run::all_ended)
    });
    let ended = ended.and_then(|()| run.leftovers()).map(|()| run.report());
    // Made before the hosts are torn down, which would bury what happened last.
    let ended = ended.map_err(|failure| run.error(failure));
    run.tear_down();
    let ended = ended.and_then(|report| match run.descriptors() {
        Ok(()) => Ok(report),
        Err(failure) => Err(run.error(failure)),
    });
    // These may hold handles to the simulation, which holds them.
    let hosts = sim.hosts.take();
    drop((hosts, run));
    ended
}

struct Run<'a> {
    sim: &'a Inner,
    rng: Rng,
    /// Every core that is stepped; gathered anew when hosts come or go.
    cores: Vec<Rc<RefCell<SimCore>>>,
    steps: u64,
    starts_failed: Cell<u64>,
    began_ns: u64,
}

/// What is to be done next.
enum Choice {
    Step(usize),
    /// Nothing before this time (ns).
    At(u64),
    Nothing,
}

impl Run<'_> {
    fn start(&mut self) -> Result<(), Failure> {
        let hosts = self.sim.hosts.borrow().len();
        (0..hosts).try_for_each(|host| self.start_host(host, None))?;
        self.gather();
        Ok(())
    }

    /// Starts a process of a host: this one, or the next one if none runs.
    fn start_host(&self, at: usize, process: Option<ProcessId>) -> Result<(), Failure> {
        let mut hosts = self.sim.hosts.borrow_mut();
        let host = &mut hosts[at];
        if process.is_none() && host.is_up() {
            return Ok(());
        }
        let id = process.unwrap_or_else(|| host.next_process());
        let world = &self.sim.world;
        world.note("start", &[at as i64, i64::from(id.number)]);
        for _ in 0..STARTS_MAX {
            let drawn = world.errors_drawn();
            let started = host.start(id, world, &self.sim.settings);
            // A supervisor tries again where an error was drawn; any other is the settings' own.
            match started {
                Ok(()) => return Ok(()),
                Err(_) if world.errors_drawn() > drawn => {
                    self.starts_failed.set(self.starts_failed.get() + 1);
                }
                Err(source) => {
                    self.check_descriptors()?;
                    return Err(Failure::Start { host: host.name.to_string(), source });
                }
            }
        }
        // It has been unlucky too often: this once nothing goes wrong.
        let started = world.without_errors(|| host.start(id, world, &self.sim.settings));
        started.map_err(|source| Failure::Start { host: host.name.to_string(), source })
    }

    /// Whether the process itself has run out of descriptors, which nothing of the simulation can mend.
    fn check_descriptors(&self) -> Result<(), Failure> {
        let Some((errno, open)) = self.sim.world.starved() else { return Ok(()) };
        Err(Failure::Starved { errno, limit: descriptor_limit(), open })
    }

    fn gather(&mut self) {
        let world = &self.sim.world;
        let let_go = |host: &mut Host| host.let_go(world);
        let gone: Vec<_> = self.sim.hosts.borrow_mut().iter_mut().map(let_go).collect();
        self.cores.clear();
        if gone.iter().any(|cores| !cores.is_empty()) {
            drop(gone);
            world.sweep();
        }
        let hosts = self.sim.hosts.borrow();
        let cores = hosts.iter().flat_map(|host| host.stepped().cloned());
        self.cores = cores.filter(|core| !core.borrow().is_closed()).collect();
    }

    /// Steps cores and moves the clock until `ended` says so.
    fn drive(&mut self, ended: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let world = self.sim.world.clone();
        loop {
            self.obey()?;
            if ended(self) {
                return Ok(());
            }
            self.check_misuse()?;
            self.check_limits()?;
            match self.choose() {
                Choice::Step(at) => self.step(at)?,
                Choice::At(ns) => world.sleep_to(ns),
                Choice::Nothing => return Err(Failure::Deadlock { waiting: self.waiting() }),
            }
        }
    }

    fn choose(&mut self) -> Choice {
        let now = self.sim.world.now_ns();
        let (mut ready, mut at) = (Vec::new(), None::<u64>);
        for (i, core) in self.cores.iter().enumerate() {
            match core.borrow().next(now) {
                Next::Now => ready.push(i),
                Next::At(ns) => at = Some(at.map_or(ns, |at| at.min(ns))),
                Next::Event | Next::Never => {}
            }
        }
        if !ready.is_empty() {
            return Choice::Step(ready[self.rng.index(ready.len())]);
        }
        // Asked last: looking at a core may have its kernel find news that are to come late.
        let event = self.sim.world.next_event_ns();
        at.into_iter().chain(event).min().map_or(Choice::Nothing, Choice::At)
    }

    fn step(&mut self, at: usize) -> Result<(), Failure> {
        let world = &self.sim.world;
        let core = self.cores[at].clone();
        let mut core = core.borrow_mut();
        let had_ended = core.main_end().is_some();
        self.sim.here.set(Some(core.process()));
        core.step(&mut self.rng);
        self.sim.here.set(None);
        self.steps += 1;
        world.advance_to(world.now_ns().saturating_add(self.rng.below(STEP_NS_MAX)));
        let closed = core.is_closed();
        let ends = !had_ended && core.main_end().is_some();
        drop(core);
        if ends {
            self.check_ends()?;
        }
        if closed {
            // Every other step of a core is followed by an enter, which looks for closed descriptors.
            self.sim.world.sweep();
            self.gather();
        }
        Ok(())
    }

    /// Does what user code asked for meanwhile: a host cannot be taken away from under a core of its own.
    fn obey(&mut self) -> Result<(), Failure> {
        loop {
            self.end_killed();
            let Some(command) = self.sim.commands.borrow_mut().pop_front() else { return Ok(()) };
            match command {
                Command::Start(host, process) => self.start_host(host, process)?,
                Command::Crash(host) => self.crash(host),
            }
            self.gather();
        }
    }

    fn crash(&self, at: usize) {
        self.sim.world.note("crash", &[at as i64]);
        let cores = self.sim.hosts.borrow_mut()[at].crash(&self.sim.world);
        cores.iter().for_each(|core| self.abandon(core));
        self.sim.world.sweep();
    }

    /// Ends the processes that signals have ended.
    fn end_killed(&mut self) {
        for id in self.sim.world.take_killed() {
            let mut hosts = self.sim.hosts.borrow_mut();
            let host = hosts.iter_mut().find(|host| host.id == id.host);
            let cores = host.map(|host| host.end_process(id, &self.sim.world)).unwrap_or_default();
            drop(hosts);
            cores.iter().for_each(|core| self.abandon(core));
            self.sim.world.sweep();
            self.gather();
        }
    }

    fn abandon(&self, core: &RefCell<SimCore>) {
        let process = core.borrow().process();
        self.sim.here.set(Some(process));
        core.borrow_mut().abandon();
        self.sim.here.set(None);
    }

    fn clients_ended(&self) -> bool {
        let hosts = self.sim.hosts.borrow();
        let any_client = hosts.iter().any(|host| host.role == Role::Client);
        hosts.iter().filter(|h| !any_client || h.role == Role::Client).all(|host| host.is_done())
    }

    fn all_ended(&self) -> bool {
        self.cores.iter().all(|core| core.borrow().is_closed())
    }

    /// What the kernel has seen fails a run at once: whatever comes of it later is only its consequence.
    fn check_misuse(&self) -> Result<(), Failure> {
        self.check_descriptors()?;
        if !self.sim.world.any_violation() {
            return self.check_panics();
        }
        let seen = self.sim.world.violations().iter().map(ToString::to_string).collect();
        Err(Failure::Kernel { seen })
    }

    fn check_panics(&self) -> Result<(), Failure> {
        self.sim.panics.noticed().map_or(Ok(()), |reports| Err(Failure::TaskPanicked { reports }))
    }

    fn check_limits(&self) -> Result<(), Failure> {
        let (steps, time) = self.sim.limits;
        if self.steps >= steps {
            return Err(Failure::Steps { limit: steps, waiting: self.waiting() });
        }
        if self.elapsed() > time {
            return Err(Failure::Time { limit: time, waiting: self.waiting() });
        }
        Ok(())
    }

    fn check_ends(&self) -> Result<(), Failure> {
        for host in &*self.sim.hosts.borrow() {
            let name = || host.name.to_string();
            match host.failure() {
                None => {}
                Some(HostEnd::Failed(why)) => return Err(Failure::Failed { host: name(), why }),
                Some(HostEnd::Panicked { core, message }) => {
                    return Err(Failure::Panicked { host: name(), core, message });
                }
            }
        }
        Ok(())
    }

    /// What must not be once all loops are closed.
    fn leftovers(&self) -> Result<(), Failure> {
        for host in &*self.sim.hosts.borrow() {
            let (host, ops) = (host.name.to_string(), host.leaked());
            if ops > 0 {
                return Err(Failure::OpsLeft { host, ops });
            }
        }
        self.check_misuse()
    }

    /// Descriptors that nobody closed, and what the kernel saw of the close; freed memory, to the last block.
    fn descriptors(&self) -> Result<(), Failure> {
        self.sim.world.look_at_freed();
        let hosts = self.sim.hosts.borrow();
        let files = self.sim.world.open_files();
        let open: Vec<_> = files
            .iter()
            .map(|file| {
                let host = hosts.iter().find(|host| host.id == file.host);
                format!("{} of host {}", file.what, host.map_or("none", |host| &*host.name))
            })
            .collect();
        if open.is_empty() { self.leftovers() } else { Err(Failure::DescriptorsLeft { open }) }
    }

    fn waiting(&self) -> Vec<String> {
        self.sim.hosts.borrow().iter().flat_map(|host| host.waiting()).collect()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.sim.world.now_ns() - self.began_ns)
    }

    fn report(&self) -> Report {
        let mut counters = crate::metrics::Counters::default();
        self.sim.hosts.borrow().iter().for_each(|host| counters.merge(&host.counters()));
        let trace_hash = self.sim.world.trace_hash();
        let (seed, elapsed, steps) = (self.sim.seed, self.elapsed(), self.steps);
        let buffers_out = self.sim.hosts.borrow().iter().map(|host| host.buffers_out()).sum();
        let (errors, starts_failed) = (self.sim.world.drawn(), self.starts_failed.get());
        Report { seed, trace_hash, elapsed, steps, counters, buffers_out, errors, starts_failed }
    }

    fn error(&self, failure: Failure) -> SimError {
        let trace = self.sim.world.trace().iter().map(ToString::to_string).collect();
        let (seed, elapsed, steps) = (self.sim.seed, self.elapsed(), self.steps);
        SimError { seed, failure, elapsed, steps, trace }
    }

    /// Ends what still runs after a failure, as well as that goes; whatever comes of it is not judged.
    fn tear_down(&mut self) {
        self.sim.commands.take();
        self.gather();
        if self.cores.is_empty() {
            return;
        }
        self.sim.world.calm();
        let hosts = self.sim.hosts.borrow().len();
        (0..hosts).for_each(|host| self.crash(host));
        self.gather();
        for _ in 0..TEAR_DOWN_STEPS_MAX {
            match self.choose() {
                Choice::Step(at) if self.step(at).is_ok() => {}
                Choice::At(ns) => self.sim.world.advance_to(ns),
                _ => break,
            }
        }
        self.cores.clear();
    }
}

/// Time that a step takes, at most: what user code does costs something, and whoever waits by yielding sees
/// the clock move.
const STEP_NS_MAX: u64 = 1_000;

/// Attempts to start a host whose loops meet errors.
const STARTS_MAX: u32 = 20;

/// The soft limit of descriptors.
fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live rlimit that the call fills.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur
}

/// Steps that the loops of a failed simulation get to close.
const TEAR_DOWN_STEPS_MAX: u32 = 100_000;
