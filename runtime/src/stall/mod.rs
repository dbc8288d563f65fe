//! Polls that keep their core for too long, told while they do.
//!
//! Owns [`Stall`], what is told of one, and whom it is told to. [`watcher`] is the thread that looks, and
//! `teller` the one that tells, so that a slow listener hides no other stall; the
//! backtrace is made of a copy of the stalled thread's stack ([`crate::sys::sample`]) by `unwind`. Costs a
//! core two stores a turn, whether anybody watches or not; its counters say whether it moves.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::contain::contained;
use crate::task::TaskId;
use crate::words::Time;

#[cfg(feature = "backtrace")]
mod elf;
mod teller;
#[cfg(feature = "backtrace")]
mod unwind;
pub(crate) mod watcher;

/// A poll that has kept its core for longer than the threshold, and still does when this is told. See
/// [`Settings::stall_threshold`](crate::Settings::stall_threshold).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stall {
    /// The core's number in its runtime.
    pub core: usize,
    /// The task; the main future too has an id.
    pub task: Option<TaskId>,
    /// Its name, if it was given one.
    pub name: Option<Arc<str>>,
    /// Where it was spawned. None for the main future, and for what a core does between polls: closures
    /// from other threads, destructors of tasks.
    pub spawned_at: Option<&'static Location<'static>>,
    /// For how long it is known to have kept the core: at least so long, at most a fifth of the threshold
    /// longer.
    pub stalled: Duration,
    /// CPU time of its thread meanwhile: little if it waits for something or was kept from its CPU, all of
    /// it if it computes.
    pub cpu_time: Duration,
    /// Where its thread was.
    pub backtrace: Backtrace,
    /// Stalls of this core since the one told before that were not told: it had too many, too many others
    /// waited to be told, or they were over before their thread had said where it was. Up to this one,
    /// all that were told and all of these are the counter `stalls`.
    pub suppressed: u64,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}: ", self.core)?;
        match (&self.name, self.task, self.spawned_at) {
            (Some(name), Some(id), _) => write!(f, "task \"{name}\" ({id})")?,
            (None, Some(id), Some(_)) => write!(f, "task {id}")?,
            _ => f.write_str("the main future, or what the core does between polls,")?,
        }
        if let Some(at) = self.spawned_at {
            write!(f, ", spawned at {at},")?;
        }
        let (stalled, cpu) = (Time(self.stalled), Time(self.cpu_time));
        write!(f, " has kept the core for {stalled}, of which it computed for {cpu}")?;
        if self.suppressed > 0 {
            write!(f, " ({} stalls before it were not told)", self.suppressed)?;
        }
        if self.backtrace.is_empty() {
            f.write_str("; its thread does not say where it is")
        } else {
            write!(f, "; it is at\n{}", self.backtrace)
        }
    }
}

/// Where a thread was, as addresses; functions and lines are looked up when it is printed, which reads the
/// program's debug information.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Backtrace {
    addresses: Vec<usize>,
}

impl Backtrace {
    /// None if the thread could not be looked at: it blocks the signal, or this machine is of a kind that
    /// coreloop does not know.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Addresses within the functions, the innermost first.
    pub fn addresses(&self) -> &[usize] {
        &self.addresses
    }
}

/// A line for each function, and one for where in the source it is, if that is known. Without the feature
/// `backtrace` the address of the innermost one alone.
impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, &address) in self.addresses.iter().enumerate() {
            #[cfg(feature = "backtrace")]
            unwind::write_frame(f, i, address)?;
            #[cfg(not(feature = "backtrace"))]
            writeln!(f, "{i:>4}: {address:#x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backtrace({} frames)", self.addresses.len())
    }
}

/// Whom stalls are told; by default whoever reads standard error.
#[derive(Clone, Default)]
pub(crate) struct StallHook(Option<Arc<Hook>>);

type Hook = dyn Fn(&Stall) + Send + Sync;

impl StallHook {
    pub(crate) fn new(hook: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    fn tell(&self, stall: &Stall) {
        contained(|| match &self.0 {
            Some(hook) => hook(stall),
            None => crate::contain::tell(format_args!("coreloop: {stall}")),
        });
    }
}

impl fmt::Debug for StallHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a closure" } else { "standard error" })
    }
}
