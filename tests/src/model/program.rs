//! What a random program is made of.
//!
//! Owns the words: a [`Program`] is the body of a first task; a body is a list of steps; a step does something
//! at once ([`Act`]), starts a task, or awaits an [`Expr`], which may hold further bodies. Each step, body and
//! task has a number of its own, by which events name it. No loops: every step runs at most once, so every
//! program ends or waits. Knows neither how a program is made nor what it does.

use std::rc::Rc;

/// Names a step, body or task.
pub type Id = u32;

/// A program, and the sizes of what it shares.
#[derive(Clone, Debug)]
pub struct Program {
    /// Permits of the semaphore.
    pub permits: usize,
    /// Places of the FIFO, LIFO and priority queue, and of the channel.
    pub places: [usize; QUEUES],
    /// Parties of the barrier.
    pub parties: usize,
    /// Values that the broadcast channel keeps.
    pub kept: usize,
    /// The first task.
    pub main: Rc<Body>,
}

/// Queues of each kind, and the channel of many senders, which is the last.
pub const QUEUES: usize = 4;
/// The channel among the queues.
pub const CHANNEL: usize = 3;
/// Events, oneshot channels, completable futures and receivers of the broadcast: so many of each.
pub const PAIR: usize = 2;

/// Steps in a scope of their own: what it spawned, it holds the handles of.
#[derive(Debug)]
pub struct Body {
    /// Its number; of a task's body, that of the task.
    pub id: Id,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// Starts a task, whose handle the body holds.
    Spawn(Rc<Body>),
    /// The same, and polls it at once.
    SpawnEager(Rc<Body>),
    /// Starts a child of the innermost group, or of that which the task was spawned in.
    Child(Rc<Body>),
    /// Cancels a task by its handle.
    Cancel(Id, Id),
    /// Drops a handle.
    DropHandle(Id, Id),
    /// Asks a handle about its task.
    Ask(Id, Id),
    /// Does something that never waits.
    Do(Id, Act),
    /// Leaves something to the body's destructor, in the order of these steps.
    Defer(Id, Deferred),
    /// Awaits.
    Await(Id, Expr),
    /// Ends the body.
    End(Id, End),
}

/// What a destructor does.
#[derive(Clone, Debug)]
pub enum Deferred {
    /// Something that never waits.
    Do(Act),
    /// Cancels a task by its handle.
    Cancel(Id),
    /// Starts a task, whose handle it drops.
    Spawn(Rc<Body>),
    /// The same, and polls it at once.
    SpawnEager(Rc<Body>),
}

/// How a body ends itself.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// With a value.
    Value,
    /// With an error.
    Error,
    /// By a panic.
    Panic,
}

/// What is awaited. Tasks are named by their numbers, queues and the like by their places.
#[derive(Clone, Debug)]
pub enum Expr {
    /// `time::timeout`.
    Timeout(u64, Box<Expr>),
    /// `combine::race`.
    Race(Box<Expr>, Box<Expr>),
    /// A limit of foreign make: over it, it drops what it holds, and no cancel passes.
    LetGo(u64, Box<Expr>),
    /// Bodies that are started as tasks by the set that awaits them.
    Started(Start, Vec<Rc<Body>>),
    /// A future of its own.
    Block(Rc<Body>),
    /// `combine::group`.
    Group(Rc<Body>),
    /// `time::sleep`, in milliseconds.
    Sleep(u64),
    /// `yield_now`.
    Yield,
    /// A handle by value.
    Join(Id),
    /// A handle by `&mut`.
    JoinRef(Id),
    /// `combine::shield(&mut handle)`.
    ShieldRef(Id),
    /// `combine::shield(handle)`.
    Shield(Id),
    /// `handle.timeout(d)`.
    JoinTimeout(Id, u64),
    /// `combine::gather_handles`.
    Gather(Vec<Id>),
    /// `combine::try_gather_handles`.
    TryGather(Vec<Id>),
    /// `combine::as_completed` with a limit, so many results.
    AsCompleted(Vec<Id>, Option<u64>, usize),
    /// `combine::try_wait`, or `wait` if false.
    Wait(Vec<Id>, Until, Option<u64>, bool),
    /// A semaphore's permits while the body runs.
    Acquire(usize, Rc<Body>),
    /// The mutex while the body runs; what it holds is counted on.
    Lock(Rc<Body>),
    /// A reader-writer lock, read.
    Read(Rc<Body>),
    /// The same one, written.
    Write(Rc<Body>),
    /// Locks, waits for a notification (or until the value is so large), and runs the body locked.
    Notified(Option<u32>, Rc<Body>),
    /// Waits for an event.
    Event(usize),
    /// Puts the step's number.
    Put(usize),
    /// Takes an item.
    Get(usize),
    /// Waits until all items are done.
    Finished(usize),
    /// Waits at the barrier.
    Barrier,
    /// Initialises the once-cell with what the body gives.
    Once(Rc<Body>),
    /// Sends the step's number into the channel.
    Send,
    /// Reserves room, runs the body, and sends the step's number if it gives a value.
    Reserve(Rc<Body>),
    /// Receives from the channel.
    Recv,
    /// Receives from the broadcast.
    Hear(usize),
    /// Waits for a change of the watched value.
    Changed,
    /// Waits until the watched value is so large.
    Watched(u32),
    /// Awaits a oneshot's receiver by `&mut`.
    Oneshot(usize),
    /// Waits until a oneshot's receiver is gone.
    OneshotClosed(usize),
    /// Awaits a completable future.
    Future(usize),
    /// The same, shielded.
    FutureShielded(usize),
}

/// Which set starts tasks itself.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// `combine::gather`.
    Gather,
    /// `combine::try_gather`.
    TryGather,
    /// `combine::gather_tuple`, of two.
    Pair,
    /// `combine::try_gather_tuple`, of two.
    TryPair,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// `AllCompleted`.
    All,
    /// `FirstCompleted`.
    First,
    /// `FirstError`.
    Error,
}

/// What is done at once.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Adds a permit.
    AddPermit,
    /// Takes permits and gives them back.
    TryAcquire(usize),
    /// Closes the semaphore.
    CloseSemaphore,
    /// Locks the mutex and unlocks it.
    TryLock,
    /// Locks for reading and unlocks.
    TryRead,
    /// Locks for writing and unlocks.
    TryWrite,
    /// Sets an event.
    Set(usize),
    /// Clears an event.
    Clear(usize),
    /// Notifies so many.
    Notify(usize),
    /// Notifies all.
    NotifyAll,
    /// Puts the step's number if there is room.
    TryPut(usize),
    /// Takes an item if there is one.
    TryGet(usize),
    /// Reports an item as done.
    TaskDone(usize),
    /// Shuts a queue down; of the channel: closes it.
    Shutdown(usize),
    /// Shuts a queue down and drops what is in it; of the channel: drops the receiver.
    ShutdownNow(usize),
    /// Drops the channel's sender.
    DropSender,
    /// Resets the barrier.
    ResetBarrier,
    /// Breaks the barrier.
    AbortBarrier,
    /// Fills the once-cell.
    SetOnce,
    /// Sends to the broadcast.
    Broadcast,
    /// Receives from it, if there is something.
    TryHear(usize),
    /// Drops its sender.
    DropBroadcast,
    /// Drops a receiver of it.
    DropHearer(usize),
    /// Sends to the watch.
    Watch,
    /// Drops its sender.
    DropWatch,
    /// Sends on a oneshot.
    SendOneshot(usize),
    /// Drops its sender.
    DropOneshot(usize),
    /// Receives from it, if there is something.
    TryOneshot(usize),
    /// Closes its receiver.
    CloseOneshot(usize),
    /// Completes a future.
    Complete(usize),
    /// Cancels it by its completer.
    CancelCompleter(usize),
    /// Drops the completer.
    Abandon(usize),
    /// Cancels it by an awaitable.
    CancelFuture(usize),
    /// Cancels the group.
    CancelGroup,
    /// Looks at everything that is shared.
    Probe,
}

/// Something that happened: when (in ms), to whom, and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event(pub u64, pub Id, pub Out);

/// What came of a step, or happened to a body.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Out {
    Entered,
    Dropped,
    Unit,
    Flag(bool),
    Value(u32),
    Failed(u32),
    Cancelled,
    Panicked,
    ChildFailed,
    Elapsed,
    First(Box<Out>),
    Second(Box<Out>),
    At(u32, Box<Out>),
    List(Vec<Out>),
    Sets(Vec<u32>, Vec<u32>),
    Numbers(Vec<u64>),
    Closed,
    Full,
    Empty,
    Broken,
    Abandoned,
    Lagged(u64),
    /// There is nothing to do it with: the handle or end is gone, lent, or another task's.
    Absent,
}

impl Out {
    /// How a body ended.
    pub fn of(end: Result<u32, u32>) -> Self {
        match end {
            Ok(value) => Self::Value(value),
            Err(error) => Self::Failed(error),
        }
    }
}

impl Expr {
    /// What it is called in the table of what was exercised.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout(..) => "timeout",
            Self::Race(..) => "race",
            Self::LetGo(..) => "a foreign limit",
            Self::Started(Start::Gather, _) => "gather of futures",
            Self::Started(Start::TryGather, _) => "try_gather of futures",
            Self::Started(Start::Pair, _) => "gather_tuple",
            Self::Started(Start::TryPair, _) => "try_gather_tuple",
            Self::Block(_) => "block",
            Self::Group(_) => "group",
            Self::Sleep(_) => "sleep",
            Self::Yield => "yield_now",
            Self::Join(_) => "handle",
            Self::JoinRef(_) => "&mut handle",
            Self::ShieldRef(_) => "shield(&mut handle)",
            Self::Shield(_) => "shield(handle)",
            Self::JoinTimeout(..) => "handle.timeout",
            Self::Gather(_) => "gather",
            Self::TryGather(_) => "try_gather",
            Self::AsCompleted(_, None, _) => "as_completed",
            Self::AsCompleted(..) => "as_completed within",
            Self::Wait(_, Until::All, None, false) => "wait AllCompleted",
            Self::Wait(_, Until::First, None, false) => "wait FirstCompleted",
            Self::Wait(_, Until::Error, None, false) => "wait FirstError",
            Self::Wait(_, Until::All, Some(_), false) => "wait AllCompleted within",
            Self::Wait(_, Until::First, Some(_), false) => "wait FirstCompleted within",
            Self::Wait(_, Until::Error, Some(_), false) => "wait FirstError within",
            Self::Wait(_, Until::All, _, true) => "try_wait AllCompleted",
            Self::Wait(_, Until::First, _, true) => "try_wait FirstCompleted",
            Self::Wait(_, Until::Error, _, true) => "try_wait FirstError",
            Self::Acquire(..) => "semaphore.acquire_many",
            Self::Lock(_) => "mutex.lock",
            Self::Read(_) => "rw_lock.read",
            Self::Write(_) => "rw_lock.write",
            Self::Notified(None, _) => "condition.wait",
            Self::Notified(..) => "condition.wait_for",
            Self::Event(_) => "event.wait",
            Self::Put(0) => "queue.put fifo",
            Self::Put(1) => "queue.put lifo",
            Self::Put(_) => "queue.put priority",
            Self::Get(0) => "queue.get fifo",
            Self::Get(1) => "queue.get lifo",
            Self::Get(_) => "queue.get priority",
            Self::Finished(_) => "queue.join",
            Self::Barrier => "barrier.wait",
            Self::Once(_) => "once_cell.get_or_try_init",
            Self::Send => "mpsc.send",
            Self::Reserve(_) => "mpsc.reserve",
            Self::Recv => "mpsc.recv",
            Self::Hear(_) => "broadcast.recv",
            Self::Changed => "watch.changed",
            Self::Watched(_) => "watch.wait_for",
            Self::Oneshot(_) => "oneshot",
            Self::OneshotClosed(_) => "oneshot.closed",
            Self::Future(_) => "future",
            Self::FutureShielded(_) => "shield(future)",
        }
    }

    /// Bodies and expressions that it holds.
    pub fn parts(&self) -> (Vec<&Rc<Body>>, Vec<&Expr>) {
        match self {
            Self::Timeout(_, inner) | Self::LetGo(_, inner) => (Vec::new(), vec![inner]),
            Self::Started(_, bodies) => (bodies.iter().collect(), Vec::new()),
            Self::Race(a, b) => (Vec::new(), vec![a, b]),
            Self::Block(body)
            | Self::Group(body)
            | Self::Acquire(_, body)
            | Self::Lock(body)
            | Self::Read(body)
            | Self::Write(body)
            | Self::Notified(_, body)
            | Self::Once(body)
            | Self::Reserve(body) => (vec![body], Vec::new()),
            _ => (Vec::new(), Vec::new()),
        }
    }
}

impl Act {
    /// What it is called in the table of what was exercised.
    pub fn label(&self) -> &'static str {
        match self {
            Self::AddPermit => "semaphore.add_permits",
            Self::TryAcquire(_) => "semaphore.try_acquire_many",
            Self::CloseSemaphore => "semaphore.close",
            Self::TryLock => "mutex.try_lock",
            Self::TryRead => "rw_lock.try_read",
            Self::TryWrite => "rw_lock.try_write",
            Self::Set(_) => "event.set",
            Self::Clear(_) => "event.clear",
            Self::Notify(_) => "condition.notify",
            Self::NotifyAll => "condition.notify_all",
            Self::TryPut(CHANNEL) => "mpsc.try_send",
            Self::TryPut(_) => "queue.try_put",
            Self::TryGet(CHANNEL) => "mpsc.try_recv",
            Self::TryGet(_) => "queue.try_get",
            Self::TaskDone(_) => "queue.task_done",
            Self::Shutdown(CHANNEL) => "mpsc.close",
            Self::Shutdown(_) => "queue.shutdown",
            Self::ShutdownNow(CHANNEL) => "mpsc receiver dropped",
            Self::ShutdownNow(_) => "queue.shutdown_now",
            Self::DropSender => "mpsc sender dropped",
            Self::ResetBarrier => "barrier.reset",
            Self::AbortBarrier => "barrier.abort",
            Self::SetOnce => "once_cell.set",
            Self::Broadcast => "broadcast.send",
            Self::TryHear(_) => "broadcast.try_recv",
            Self::DropBroadcast => "broadcast sender dropped",
            Self::DropHearer(_) => "broadcast receiver dropped",
            Self::Watch => "watch.send",
            Self::DropWatch => "watch sender dropped",
            Self::SendOneshot(_) => "oneshot.send",
            Self::DropOneshot(_) => "oneshot sender dropped",
            Self::TryOneshot(_) => "oneshot.try_recv",
            Self::CloseOneshot(_) => "oneshot.close",
            Self::Complete(_) => "completer.complete",
            Self::CancelCompleter(_) => "completer.cancel",
            Self::Abandon(_) => "completer dropped",
            Self::CancelFuture(_) => "awaitable.cancel",
            Self::CancelGroup => "group.cancel",
            Self::Probe => "look at everything",
        }
    }
}
