//! What a simulation came to.
//!
//! Owns [`Report`] and [`SimError`], and the words in which a failure says how to see it again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::errnos::Call;
use crate::driver::setup::StartError;
use crate::metrics::Counters;

/// A simulation that ended well.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// What everything followed from.
    pub seed: u64,
    /// A number over everything that happened: equal for equal seeds and equal programs.
    pub trace_hash: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Steps that cores took.
    pub steps: u64,
    /// What all cores counted.
    pub counters: Counters,
    /// Receive buffers that had not been given back when their core was closed: [`Chunk`](crate::buf::Chunk)s
    /// that are held by something that outlives the tasks.
    pub buffers_out: i64,
    /// Errors that calls answered with because the seed said so: how often each, by call and errno.
    pub errors: BTreeMap<(Call, i32), u64>,
    /// Hosts that could not be started at once because of one, and were started again.
    pub starts_failed: u64,
}

/// A simulation that failed: with which seed, how, and what happened last.
pub struct SimError {
    pub(super) seed: u64,
    pub(super) failure: Failure,
    pub(super) elapsed: Duration,
    pub(super) steps: u64,
    pub(super) trace: Vec<String>,
}

/// How a simulation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A host's core could not be started.
    #[error("host {host} could not be started: {source}")]
    Start {
        /// The host.
        host: String,
        /// What was in the way.
        source: StartError,
    },
    /// A main future ended with an error.
    #[error("host {host} failed: {why}")]
    Failed {
        /// The host.
        host: String,
        /// The error.
        why: String,
    },
    /// A main future panicked.
    #[error("host {host}, core {core} panicked: {message}")]
    Panicked {
        /// The host.
        host: String,
        /// The core's number on it.
        core: usize,
        /// The panic's text.
        message: String,
    },
    /// Tasks panicked, and nobody took their results; see
    /// [`Builder::fail_on_panic`](super::Builder::fail_on_panic).
    #[error("a task's panic reached nobody:\n  {}", .reports.join("\n  "))]
    TaskPanicked {
        /// A line for each, with the task's name and where it was spawned.
        reports: Vec<String>,
    },
    /// Nothing can ever happen any more, but something still waits.
    #[error(
        "a deadlock: nothing is on its way, no timer is set, and there wait still\n  {}",
        .waiting.join("\n  ")
    )]
    Deadlock {
        /// A line for each core, with its tasks.
        waiting: Vec<String>,
    },
    /// The limit of steps was reached.
    #[error("no end after {limit} steps; there run still\n  {}", .waiting.join("\n  "))]
    Steps {
        /// The limit.
        limit: u64,
        /// A line for each core, with its tasks.
        waiting: Vec<String>,
    },
    /// The limit of virtual time was reached.
    #[error("no end after {limit:?} of virtual time; there run still\n  {}", .waiting.join("\n  "))]
    Time {
        /// The limit.
        limit: Duration,
        /// A line for each core, with its tasks.
        waiting: Vec<String>,
    },
    /// The kernel saw what no correct program does.
    #[error("the kernel was misused:\n  {}", .seen.join("\n  "))]
    Kernel {
        /// A line for each misuse.
        seen: Vec<String>,
    },
    /// Operations were still in the kernel when their loop was closed.
    #[error("host {host} closed with {ops} operations still in the kernel")]
    OpsLeft {
        /// The host.
        host: String,
        /// How many.
        ops: u32,
    },
    /// The process has no descriptor left for the simulation, each of whose sockets, rings and cores stands
    /// on one or two real ones. Nothing is simulated about this one.
    #[error(
        "descriptors are short on this machine, outside of the simulation: {}; it has {open} open, and needs \
         at least {} of them beside the {} that the process had open for other things. Raise the limit, as \
         with `ulimit -n {}`",
        limit_text(*.errno, *.limit), open + 2, .limit.saturating_sub(*.open as u64),
        (.limit * 2).max(4096)
    )]
    Starved {
        /// EMFILE or ENFILE.
        errno: i32,
        /// RLIMIT_NOFILE, the soft limit.
        limit: u64,
        /// Real descriptors that the simulation has open.
        open: usize,
    },
    /// Descriptors were open when every loop had been closed.
    #[error("descriptors are open after the end:\n  {}", .open.join("\n  "))]
    DescriptorsLeft {
        /// A line for each.
        open: Vec<String>,
    },
}

fn limit_text(errno: i32, limit: u64) -> String {
    if errno == libc::EMFILE {
        format!("RLIMIT_NOFILE (`ulimit -n`) is {limit}")
    } else {
        "the whole system has no more (ENFILE, `sysctl fs.file-max`)".to_owned()
    }
}

impl SimError {
    /// The seed that it failed with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How it failed.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Virtual time that had passed.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Steps that cores had taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The last events, the latest at the end.
    pub fn trace(&self) -> &[String] {
        &self.trace
    }
}

/// Events that a failure shows.
const SHOWN_MAX: usize = 30;

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, failure, elapsed, steps, trace } = self;
        writeln!(f, "seed {seed}, after {elapsed:?} of virtual time and {steps} steps: {failure}")?;
        if !trace.is_empty() {
            writeln!(f, "the last events:")?;
        }
        for line in &trace[trace.len().saturating_sub(SHOWN_MAX)..] {
            writeln!(f, "  {line}")?;
        }
        write!(f, "to see it again: run this test alone with CORELOOP_SEED={seed}")
    }
}

/// The same text as [`Display`](fmt::Display), so that an `unwrap` says what to do.
impl fmt::Debug for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for SimError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}
