//! What the tasks of a program share, on coreloop.
//!
//! Owns one of each primitive, the places where handles lie, and the book of events.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::{self, Awaitable, Child, Completer};
use coreloop::sync::{self, broadcast, mpsc, oneshot, watch};
use coreloop::task::JoinHandle;
use coreloop::time::Instant;

use crate::model::plain::priority;
use crate::model::program::{Event, Id, Out, PAIR, Program, QUEUES};

/// Everything that the tasks share.
pub(super) struct World {
    pub(super) began: Instant,
    pub(super) events: RefCell<Vec<Event>>,
    pub(super) ended_at: Cell<Option<usize>>,
    pub(super) slots: RefCell<BTreeMap<Id, Rc<Slot>>>,
    pub(super) values: Rc<()>,
    pub(super) semaphore: sync::Semaphore,
    pub(super) mutex: sync::Mutex<u32>,
    pub(super) condition: sync::Condition,
    pub(super) rw_lock: sync::RwLock<()>,
    pub(super) once: sync::OnceCell<u32>,
    pub(super) flags: [sync::Event; PAIR],
    pub(super) fifo: sync::Queue<Item>,
    pub(super) lifo: sync::LifoQueue<Item>,
    pub(super) priority: sync::PriorityQueue<Item>,
    /// Items of each queue that were put and not reported as done.
    pub(super) unfinished: [Cell<usize>; QUEUES],
    pub(super) barrier: sync::Barrier,
    pub(super) sender: RefCell<Option<mpsc::Sender<Item>>>,
    pub(super) receiver: RefCell<Option<mpsc::Receiver<Item>>>,
    pub(super) broadcast: RefCell<Option<broadcast::Sender<Item>>>,
    pub(super) hearers: [RefCell<Option<broadcast::Receiver<Item>>>; PAIR],
    pub(super) watch: RefCell<Option<watch::Sender<u32>>>,
    pub(super) watcher: RefCell<Option<watch::Receiver<u32>>>,
    pub(super) versions: Cell<u64>,
    pub(super) oneshots: [RefCell<Option<oneshot::Sender<Item>>>; PAIR],
    pub(super) answers: [RefCell<Option<oneshot::Receiver<Item>>>; PAIR],
    /// Ends of oneshots that are awaited where they lie: senders, receivers.
    pub(super) busy: [[Cell<bool>; PAIR]; 2],
    pub(super) completers: [RefCell<Option<Completer<u32>>>; PAIR],
    pub(super) futures: [Awaitable<u32>; PAIR],
}

/// A value that is counted; its number is the step that made it.
#[derive(Clone)]
pub(super) struct Item(pub(super) u32, #[allow(dead_code)] Rc<()>);

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        priority(self.0).cmp(&priority(other.0))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Item {}

/// Where the handle of a task lies.
pub(super) struct Slot {
    pub(super) owner: Id,
    pub(super) busy: Cell<bool>,
    pub(super) handle: RefCell<Option<Kept>>,
}

pub(super) enum Kept {
    Task(JoinHandle<Result<u32, u32>>),
    Child(Child<u32>),
}

impl World {
    pub(super) fn new(program: &Program) -> Self {
        let [fifo, lifo, priority, channel] = program.places;
        let (sender, receiver) = mpsc::channel(channel);
        let (cast, hearer) = broadcast::channel(program.kept);
        let other = cast.subscribe();
        let (watch, watcher) = watch::channel(0);
        let [(a, a_answer), (b, b_answer)] = [(); PAIR].map(|()| oneshot::channel());
        let [(c, c_waits), (d, d_waits)] = [(); PAIR].map(|()| combine::future());
        let some = |value| RefCell::new(Some(value));
        Self {
            began: Instant::now(),
            events: RefCell::default(),
            ended_at: Cell::default(),
            slots: RefCell::default(),
            values: Rc::default(),
            semaphore: sync::Semaphore::new(program.permits),
            mutex: sync::Mutex::new(0),
            condition: sync::Condition::new(),
            rw_lock: sync::RwLock::new(()),
            once: sync::OnceCell::new(),
            flags: Default::default(),
            fifo: sync::Queue::bounded(fifo),
            lifo: sync::LifoQueue::bounded_lifo(lifo),
            priority: sync::PriorityQueue::bounded_priority(priority),
            unfinished: Default::default(),
            barrier: sync::Barrier::new(program.parties),
            sender: RefCell::new(Some(sender)),
            receiver: RefCell::new(Some(receiver)),
            broadcast: RefCell::new(Some(cast)),
            hearers: [hearer, other].map(|end| RefCell::new(Some(end))),
            watch: RefCell::new(Some(watch)),
            watcher: RefCell::new(Some(watcher)),
            versions: Cell::new(0),
            oneshots: [a, b].map(|end| RefCell::new(Some(end))),
            answers: [a_answer, b_answer].map(|end| RefCell::new(Some(end))),
            busy: Default::default(),
            completers: [c, d].map(some),
            futures: [c_waits, d_waits],
        }
    }

    pub(super) fn item(&self, id: Id) -> Item {
        Item(id, self.values.clone())
    }

    fn now_ms(&self) -> u64 {
        Instant::now().duration_since(self.began).as_millis() as u64
    }

    /// So many ms after the last whole one.
    pub(super) fn after(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(self.now_ms() + ms)
    }

    pub(super) fn note(&self, id: Id, out: Out) {
        let event = Event(self.now_ms(), id, out);
        self.events.borrow_mut().push(event);
    }

    pub(super) fn keep(&self, id: Id, owner: Id, handle: Kept) {
        let handle = RefCell::new(Some(handle));
        let slot = Slot { owner, busy: Cell::new(false), handle };
        self.slots.borrow_mut().insert(id, Rc::new(slot));
    }

    pub(super) fn slot(&self, id: Id) -> Option<Rc<Slot>> {
        let slot = self.slots.borrow().get(&id)?.clone();
        let held = slot.handle.borrow().is_some();
        held.then_some(slot)
    }

    pub(super) fn put_done(&self, queue: usize) {
        self.unfinished[queue].set(self.unfinished[queue].get() + 1);
    }
}
