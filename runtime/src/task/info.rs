//! What is known of a task: for lists, and for reports.
//!
//! Owns [`TaskInfo`], plain data, and [`Note`], one byte in which a task says what it waits for where
//! neither the ring nor the timers can tell: a poll that ends pending at a lock or a channel leaves one, the
//! next poll wipes it. Knows no table and no loop.

use std::fmt;
use std::os::fd::RawFd;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::waker::TaskId;
use crate::words::Time;

/// A task as [`all_tasks`](crate::all_tasks) lists it and reports name it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskInfo {
    /// Its id, as [`JoinHandle::id`](super::JoinHandle::id) gives it.
    pub id: TaskId,
    /// Its name, if it was given one.
    pub name: Option<Arc<str>>,
    /// The task that spawned it, or the main future, which also stands for what was spawned from outside;
    /// none for the main future. It may have ended.
    pub parent: Option<TaskId>,
    /// Name of its task queue; none for the default one.
    pub queue: Option<Arc<str>>,
    /// Where it was spawned; none for the main future.
    pub spawned_at: Option<&'static Location<'static>>,
    /// Time since it was spawned, to some 17 ms; zero for the main future.
    pub age: Duration,
    /// How often it has been polled, a poll under way among them; of the main future: all that this loop has
    /// had. None in a report of a task that has ended.
    pub polls: Option<u64>,
    /// What it does now.
    pub state: TaskState,
    /// What it waits for, as far as that can be told: a future of somebody else's leaves no trace. Several
    /// where it waits for the first of several.
    pub waits_for: Vec<WaitsFor>,
}

/// What a task does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskState {
    /// It is being polled: the one that asks.
    Running,
    /// It is to be polled in the next turn.
    Ready,
    /// It waits.
    Waiting,
}

/// Something that a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsFor {
    /// An operation that the kernel has, by the name of its system call, with the descriptor that it is on.
    Op {
        /// `recv`, `accept` and the like.
        name: &'static str,
        /// None for an operation on no descriptor.
        fd: Option<RawFd>,
    },
    /// A timer, due in this time.
    Timer {
        /// Zero if it is due.
        left: Duration,
    },
    /// The end of another task.
    Task(TaskId),
    /// Something of the loop's own: a lock, a channel, a future to be completed.
    Other(&'static str),
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op { name, fd: Some(fd) } => write!(f, "{name} on descriptor {fd}"),
            Self::Op { name, fd: None } => f.write_str(name),
            Self::Timer { left } => write!(f, "a timer in {}", Time(*left)),
            Self::Task(id) => write!(f, "task {id}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl TaskInfo {
    /// Its name, or its id where it has none.
    fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("\"{name}\" ({})", self.id),
            None => self.id.to_string(),
        }
    }
}

/// One line: the task's name or id, its queue if it is not the default one, and where it was spawned.
impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(at) = self.spawned_at else { return write!(f, "main future {}", self.label()) };
        write!(f, "task {}", self.label())?;
        if let Some(queue) = &self.queue {
            write!(f, " of queue \"{queue}\"")?;
        }
        write!(f, ", spawned at {at}")
    }
}

macro_rules! notes {
    ($($variant:ident => $name:expr,)*) => {
        /// What a poll that ended pending waits for.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Note {
            #[default]
            Nothing,
            $($variant),*
        }

        impl Note {
            pub(crate) fn name(self) -> Option<&'static str> {
                match self {
                    Self::Nothing => None,
                    $(Self::$variant => Some($name)),*
                }
            }
        }
    };
}

impl Note {
    /// What a sleep without an end leaves.
    pub(crate) const NEVER: &str = "a time that never comes";
}

notes! {
    Mutex => "a mutex",
    RwLock => "a read-write lock",
    Semaphore => "permits of a semaphore",
    Event => "an event",
    Condition => "a condition",
    Barrier => "a barrier",
    OnceCell => "a once-cell",
    Item => "an item of a queue or channel",
    ItemRoom => "room in a queue or channel",
    QueueJoin => "the end of a queue's work",
    Oneshot => "a one-shot value",
    Broadcast => "a broadcast",
    Watch => "a change of a watched value",
    NoReceiver => "the end of a channel's receivers",
    Future => "a future to be completed",
    Tasks => "the end of one of several tasks",
    Group => "its group",
    Blocking => "a call on the blocking pool",
    BlockingRoom => "room in the blocking pool's queue",
    Token => "a cancel",
    RemoteTask => "a task on another core",
    CoreRoom => "room in another core's queue",
    Connection => "a connection",
    ReceiveBuffer => "a receive buffer",
    EarlierOp => "the end of an earlier operation on its descriptor",
    Shutdown => "word of the shutdown",
    Never => Self::NEVER,
}
