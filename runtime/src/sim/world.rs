//! One simulated universe.
//!
//! Owns [`World`]: what the cores of a simulation share and what a harness asks of it. Behind it lies one
//! [`State`], borrowed for the length of one call; no user code runs meanwhile, since a descriptor's close
//! is noticed afterwards ([`World::sweep`]) and completions wait in memory until a loop reaps them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use super::check::Violation;
use super::errnos::Call;
use super::faults::Faults;
use super::files::OpenFile;
use super::kernel::SimKernel;
use super::net::{HostId, Link, ProcessId};
use super::rng::Rng;
use super::state::State;
use super::trace::Line;
use super::{memory, quarantine};

/// Hosts, links, sockets, time and chance. Shared by its kernels, on one thread.
pub(crate) struct World {
    /// Whether freed memory is looked at.
    watched: bool,
    state: RefCell<State>,
}

impl World {
    /// A world without hosts. Everything that will happen in it follows from `seed` and from what its users
    /// do.
    pub(crate) fn new(seed: u64, faults: Faults) -> Rc<Self> {
        // Where the sanitizer is asked, blocks are freed at once: it keeps books of its own.
        let watched = !memory::is_asked_direct();
        if watched {
            quarantine::enter();
        }
        Rc::new(Self { watched, state: RefCell::new(State::new(seed, faults)) })
    }

    /// A host with these addresses, beside its loopback ones.
    pub(crate) fn add_host(&self, addrs: Vec<IpAddr>) -> HostId {
        self.with(|state| state.add_host(addrs))
    }

    /// A kernel for one core of a process; of the first one, for a host.
    pub(crate) fn kernel(self: &Rc<Self>, process: impl Into<ProcessId>) -> Rc<SimKernel> {
        SimKernel::new(self.clone(), process.into())
    }

    /// Virtual CLOCK_MONOTONIC.
    pub(crate) fn now_ns(&self) -> u64 {
        self.with(|state| state.now_ns())
    }

    /// The one source of all choices.
    pub(crate) fn rng<R>(&self, f: impl FnOnce(&mut Rng) -> R) -> R {
        self.with(|state| f(&mut state.rng))
    }

    /// From now on nothing is made to go wrong; the links stay as they are.
    pub(crate) fn calm(&self) {
        self.with(State::calm);
    }

    /// Notices descriptors that user code has closed. Called after every slice of it.
    pub(crate) fn sweep(&self) {
        self.with(State::sweep);
    }

    /// When something happens next, if anything is on its way.
    pub(crate) fn next_event_ns(&self) -> Option<u64> {
        self.with(|state| state.next_event_ns())
    }

    /// Moves the clock to `ns` and does all that is due until then.
    pub(crate) fn advance_to(&self, ns: u64) {
        self.with(|state| state.advance_to(ns));
    }

    /// Nobody has anything to do until then: moves the clock there, as [`advance_to`](Self::advance_to).
    pub(crate) fn sleep_to(&self, ns: u64) {
        self.with(State::all_sleep);
        self.advance_to(ns);
    }

    /// What lies between two hosts, in both directions.
    pub(crate) fn set_link(&self, a: HostId, b: HostId, link: Link) {
        self.with(|state| state.set_link(a, b, link));
    }

    /// What lies between two hosts.
    pub(crate) fn link(&self, a: HostId, b: HostId) -> Link {
        self.with(|state| state.link(a, b))
    }

    /// Resets every connection between two hosts.
    pub(crate) fn reset_connections(&self, a: HostId, b: HostId) {
        self.with(|state| state.reset_connections(a, b));
    }

    /// A host loses its connections and listeners without saying so to anybody.
    pub(crate) fn crash(&self, host: HostId) {
        self.with(|state| state.crash(host));
    }

    /// A process begins.
    pub(super) fn begin_process(&self, process: ProcessId) {
        self.with(|state| state.begin_process(process));
    }

    /// A process has ended.
    pub(super) fn end_process(&self, process: ProcessId) {
        self.with(|state| state.end_process(process));
    }

    /// Sends a signal to a process; whether it is there.
    pub(super) fn kill(&self, process: ProcessId, signal: i32) -> bool {
        self.with(|state| state.kill(process, signal) != libc::ESRCH)
    }

    /// Processes that a signal has ended.
    pub(super) fn take_killed(&self) -> Vec<ProcessId> {
        self.with(State::take_killed)
    }

    /// A number over everything that has happened: equal for equal seeds and equal programs.
    pub(crate) fn trace_hash(&self) -> u64 {
        self.with(|state| state.trace.hash())
    }

    /// The last events.
    pub(crate) fn trace(&self) -> Vec<Line> {
        self.with(|state| state.trace.lines())
    }

    /// A line of the harness's own in the trace; the numbers must follow from the seed.
    ///
    /// # Panics
    /// With more than four numbers.
    pub(crate) fn note(&self, what: &'static str, numbers: &[i64]) {
        self.with(|state| state.note(what, numbers));
    }

    /// Whether they saw anything that no correct program does.
    pub(crate) fn any_violation(&self) -> bool {
        self.with(|state| {
            state.look_at_memory();
            !state.violations.is_empty()
        })
    }

    /// Looks at all memory that was freed of late, as it is looked at when it is given back.
    pub(crate) fn look_at_freed(&self) {
        self.with(|_| quarantine::flush());
    }

    /// What the kernels saw that no correct program does.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.with(|state| {
            state.look_at_memory();
            state.violations.clone()
        })
    }

    /// Descriptors of this world that are open, in the order of their making.
    pub(crate) fn open_files(&self) -> Vec<OpenFile> {
        self.with(|state| {
            state.sweep();
            state.open_files()
        })
    }

    /// How often each error was handed out, by call and errno.
    pub(crate) fn drawn(&self) -> BTreeMap<(Call, i32), u64> {
        self.with(|state| state.drawn.clone())
    }

    /// How many errors were handed out.
    pub(crate) fn errors_drawn(&self) -> u64 {
        self.with(|state| state.drawn.values().sum())
    }

    /// Runs `f` with no call of a loop's start failing.
    pub(crate) fn without_errors<R>(&self, f: impl FnOnce() -> R) -> R {
        let swap = |by: (u32, u32)| {
            self.with(|state| {
                let faults = &mut state.faults;
                let was = (faults.start_fails, faults.setup_no_memory);
                (faults.start_fails, faults.setup_no_memory) = by;
                was
            })
        };
        let was = swap((0, 0));
        let result = f();
        swap(was);
        result
    }

    /// Passes on what a real call gave that makes descriptors for the simulation; one that failed for want
    /// of them is noted, since nothing of it is simulated.
    pub(super) fn owned<T>(&self, made: io::Result<T>) -> io::Result<T> {
        self.with(|state| state.owned(made))
    }

    /// The errno for which the process itself could not make a descriptor, and how many this world had.
    pub(crate) fn starved(&self) -> Option<(i32, usize)> {
        self.with(|state| state.starved)
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.borrow_mut())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.watched {
            quarantine::leave();
        }
    }
}
