//! The documents that the ops listener gives as JSON, for programs that read them.
//!
//! Owns their form. Fields may be added, and then are none where an older server leaves them out; what is
//! there keeps its meaning as long as [`SCHEMA_VERSION`] stays.

use std::borrow::Cow;

use coreloop::Snapshot;
use serde::{Deserialize, Serialize};

/// The version of these forms.
pub const SCHEMA_VERSION: u32 = 1;

/// Whether a terminal acts on it instead of showing it: control characters, and those that turn the direction
/// of writing. Names of tasks may have such, from whoever named them.
pub fn is_acted_on(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// `text` for a terminal: what [is acted on](is_acted_on) is written as its number.
///
/// ```
/// use coreloop_net::ops::doc::printable;
///
/// assert_eq!(printable("client \u{1b}[2J\n"), r"client \u{1b}[2J\u{a}");
/// assert_eq!(printable("日本"), "日本");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_acted_on) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| match is_acted_on(c) {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// What `/cores` gives.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Cores {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Whether `/readyz` says that it is ready.
    pub ready: bool,
    /// The process.
    pub process: Process,
    /// Each core, in their order, since it started.
    pub cores: Vec<Snapshot>,
    /// The kernel's workers for the rings of the cores; empty where they can't be told.
    pub ring_workers: Vec<RingWorkers>,
}

/// Threads of the kernel's that carry out what the ring of a core can neither do at once nor wait for (io-wq,
/// threads `iou-wrk-…` of the process). One ends some seconds after its last op.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RingWorkers {
    /// The core's number; none for those that are of no core as far as their names say, as in a PID
    /// namespace.
    pub core: Option<usize>,
    /// How many there are.
    pub workers: u64,
}

/// The process, as the system sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The program's file name.
    pub name: String,
    /// When it was started, in ns since 1970.
    pub started_unix_ns: u64,
    /// Time since then, in ns.
    pub age_ns: u64,
    /// CPU time of all its threads, in ns.
    pub cpu_ns: u64,
    /// Bytes of memory that it has in use (the resident set).
    pub resident_bytes: u64,
    /// Descriptors that it has open; none where the system does not tell in constant time (before Linux 6.2).
    pub open_files: Option<u64>,
    /// The most descriptors that it may have open; none without a limit.
    pub open_files_max: Option<u64>,
}

/// What `/tasks` gives.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Tasks {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The process's id.
    pub pid: u32,
    /// Each core that was asked.
    pub cores: Vec<CoreTasks>,
}

/// The tasks of one core.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CoreTasks {
    /// The core's number.
    pub core: usize,
    /// Why there are none: it has ended, or did not answer in time.
    pub missing: Option<String>,
    /// Tasks left out because no more were asked for.
    pub left_out: usize,
    /// The others, the main future first.
    pub tasks: Vec<Task>,
}

/// One task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Task {
    /// Its id, unique among those of the process that have not ended.
    pub id: String,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// The id of the task that spawned it; it may have ended.
    pub parent: Option<String>,
    /// The name of its task queue; none for the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Where it was spawned, as `file:line:column`; none for a main future.
    pub spawned_at: Option<String>,
    /// Time since it was spawned, in ns.
    pub age_ns: u64,
    /// How often it has been polled, a poll under way among them.
    pub polls: Option<u64>,
    /// `running`, `ready` or `waiting`.
    pub state: String,
    /// What it waits for; several where the first of them will do.
    pub waits_for: Vec<Wait>,
}

/// Something that a task waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Wait {
    /// In words.
    pub text: String,
    /// An operation that the kernel has, by the name of its system call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// The descriptor that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// Time until a timer fires, in ns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ns: Option<u64>,
    /// The id of a task whose end it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// What `/config` gives.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Config {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Each setting in force. Empty if the program did not hand its settings to the listener.
    pub settings: Vec<Setting>,
    /// What each core could not have.
    pub step_downs: Vec<CoreStepDown>,
}

/// One setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Setting {
    /// The core that it is of; none for all that have none of their own.
    pub core: Option<usize>,
    /// Its name.
    pub name: String,
    /// Its value, as files and flags write it.
    pub value: String,
    /// Where that came from.
    pub origin: String,
    /// Why it does nothing beside the others, where that is so and somebody gave it.
    #[serde(default)]
    pub without_effect: Option<String>,
}

/// A feature or setting that a core does without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct CoreStepDown {
    /// The core's number.
    pub core: usize,
    /// What it is.
    pub what: String,
    /// Why.
    pub why: String,
}
