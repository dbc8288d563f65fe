//! A program on coreloop itself, on a simulated core.
//!
//! Owns the translation of each step into the call that it stands for, and the book of what happened. Handles
//! and ends of channels lie in places that are numbered as in the program; an await that needs one for itself
//! takes it out and puts it back. Knows nothing of what should happen.

use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use coreloop::combine::{
    self, Awaitable, Child, Completer, Either, FutureError, TaskFailure, TaskGroup, WaitError, When,
};
use coreloop::sim::{Faults, Sim};
use coreloop::sync::{self, broadcast, mpsc, oneshot, watch};
use coreloop::task::{JoinError, JoinHandle};
use coreloop::time::{Instant, Sleep, sleep_until, timeout_at};

use super::acts;
use super::plain::LIMIT_MS;
use super::program::{
    Body, Deferred, End, Event, Expr, Id, Out, PAIR, Program, QUEUES, Start, Step, Until,
};

/// What a program did.
#[derive(Debug)]
pub struct Done {
    /// Until the main future's end, in order.
    pub events: Vec<Event>,
    /// Bodies whose destructors ran after that.
    pub left: Vec<Id>,
}

/// Runs a program.
///
/// # Errors
/// What the simulation says: a deadlock, a panic outside of tasks. Also if a value is lost or doubled.
pub fn run(program: &Program) -> Result<Done, String> {
    // Times are whole ms here; what a step takes of virtual time must not round one of them up. Nothing is
    // received or sent, so a ring of the smallest size will do.
    let settings = coreloop::Settings::default()
        .timer_resolution(Duration::from_micros(1))
        .ring_entries(8)
        .cq_entries(16)
        .buffers(1, 64);
    let builder = Sim::builder().seed(1).faults(Faults::none()).settings(settings);
    let sim = builder.build();
    let program = program.clone();
    let place: Rc<OnceCell<Rc<World>>> = Rc::default();
    let main = place.clone();
    sim.client("model", move || {
        let world = Rc::new(World::new(&program));
        let _first = main.set(world.clone());
        let program = program.clone();
        async move {
            let env = Env { world: world.clone(), task: program.main.id, group: None };
            let top = coreloop::spawn(body(env, program.main.clone()));
            let _late = timeout_at(world.after(LIMIT_MS), top).await;
            world.ended_at.set(Some(world.events.borrow().len()));
        }
    });
    let ended = sim.run();
    drop(sim);
    ended.map_err(|e| e.to_string())?;
    let world = Rc::into_inner(place).and_then(|mut place| place.take()).ok_or("no main future")?;
    let mut events = world.events.take();
    let ended_at = world.ended_at.get().ok_or("the main future did not end")?;
    let mut left = Vec::new();
    for event in events.drain(ended_at..) {
        match event.2 {
            Out::Dropped => left.push(event.1),
            Out::Entered => return Err(format!("after the main future's end: {event:?}")),
            // What destructors do.
            _ => {}
        }
    }
    left.sort_unstable();
    let values = world.values.clone();
    drop(world);
    match Rc::strong_count(&values) {
        1 => Ok(Done { events, left }),
        n => Err(format!("{} values were not dropped", n - 1)),
    }
}

/// Everything that the tasks share.
pub(super) struct World {
    began: Instant,
    events: RefCell<Vec<Event>>,
    ended_at: Cell<Option<usize>>,
    slots: RefCell<BTreeMap<Id, Rc<Slot>>>,
    values: Rc<()>,
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
        super::plain::priority(self.0).cmp(&super::plain::priority(other.0))
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
struct Slot {
    owner: Id,
    busy: Cell<bool>,
    handle: RefCell<Option<Kept>>,
}

enum Kept {
    Task(JoinHandle<Result<u32, u32>>),
    Child(Child<u32>),
}

/// What a body knows of where it is.
#[derive(Clone)]
pub(super) struct Env {
    pub(super) world: Rc<World>,
    task: Id,
    pub(super) group: Option<TaskGroup<u32>>,
}

impl World {
    fn new(program: &Program) -> Self {
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
    fn after(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(self.now_ms() + ms)
    }

    fn note(&self, id: Id, out: Out) {
        let event = Event(self.now_ms(), id, out);
        self.events.borrow_mut().push(event);
    }

    fn keep(&self, id: Id, owner: Id, handle: Kept) {
        let handle = RefCell::new(Some(handle));
        let slot = Slot { owner, busy: Cell::new(false), handle };
        self.slots.borrow_mut().insert(id, Rc::new(slot));
    }

    fn slot(&self, id: Id) -> Option<Rc<Slot>> {
        let slot = self.slots.borrow().get(&id)?.clone();
        let held = slot.handle.borrow().is_some();
        held.then_some(slot)
    }

    pub(super) fn put_done(&self, queue: usize) {
        self.unfinished[queue].set(self.unfinished[queue].get() + 1);
    }
}

impl Env {
    /// The slot of a handle that this task holds and nothing awaits.
    fn own(&self, id: Id) -> Option<Rc<Slot>> {
        self.world.slot(id).filter(|slot| slot.owner == self.task && !slot.busy.get())
    }

    fn spawn(&self, part: &Rc<Body>) -> JoinHandle<Result<u32, u32>> {
        let env = Env { task: part.id, ..self.clone() };
        coreloop::spawn(body(env, part.clone()))
    }

    fn cancel(&self, id: Id, task: Id) {
        let cancelled = self.world.slot(task).map(|slot| match &*slot.handle.borrow() {
            Some(Kept::Task(handle)) => handle.cancel(),
            Some(Kept::Child(child)) => child.cancel(),
            None => unreachable!("just seen"),
        });
        self.world.note(id, cancelled.map_or(Out::Absent, Out::Flag));
    }

    /// Takes handles of plain tasks out of their slots: all, or none.
    fn lend(&self, ids: &[Id]) -> Option<Lent> {
        let slots: Option<Vec<_>> = ids.iter().map(|id| self.own(*id)).collect();
        let slots = slots?;
        if slots.iter().any(|slot| matches!(*slot.handle.borrow(), Some(Kept::Child(_)))) {
            return None;
        }
        let take = |slot: &Rc<Slot>| match slot.handle.take() {
            Some(Kept::Task(handle)) => handle,
            _ => unreachable!("just seen"),
        };
        let handles = slots.iter().map(take).collect();
        Some(Lent { slots, handles })
    }
}

/// Handles that go back where they were.
struct Lent {
    slots: Vec<Rc<Slot>>,
    handles: Vec<JoinHandle<Result<u32, u32>>>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        for (slot, handle) in self.slots.iter().zip(self.handles.drain(..)) {
            *slot.handle.borrow_mut() = Some(Kept::Task(handle));
        }
    }
}

/// An end that goes back where it was.
struct LentEnd<'a, T> {
    home: &'a RefCell<Option<T>>,
    end: Option<T>,
}

impl<'a, T> LentEnd<'a, T> {
    fn take(home: &'a RefCell<Option<T>>) -> Option<Self> {
        let end = home.take()?;
        Some(Self { home, end: Some(end) })
    }

    fn get(&mut self) -> &mut T {
        self.end.as_mut().expect("there until the drop")
    }
}

impl<T> Drop for LentEnd<'_, T> {
    fn drop(&mut self) {
        *self.home.borrow_mut() = self.end.take();
    }
}

/// Awaits an end where it lies; it is busy meanwhile.
struct InPlace<'a, F> {
    busy: &'a Cell<bool>,
    poll: F,
}

impl<F: FnMut(&mut Context<'_>) -> Poll<Out> + Unpin> Future for InPlace<'_, F> {
    type Output = Out;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Out> {
        (self.poll)(cx)
    }
}

impl<F> Drop for InPlace<'_, F> {
    fn drop(&mut self) {
        self.busy.set(false);
    }
}

/// A limit that knows nothing of cancels.
struct LetGo {
    inner: Option<Pin<Box<dyn Future<Output = Out>>>>,
    limit: Sleep,
}

impl Future for LetGo {
    type Output = Out;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Out> {
        let inner = self.inner.as_mut().expect("not polled after its end");
        if let Poll::Ready(out) = inner.as_mut().poll(cx) {
            return Poll::Ready(out);
        }
        ready!(Pin::new(&mut self.limit).poll(cx));
        self.inner = None;
        Poll::Ready(Out::Elapsed)
    }
}

/// A body that runs: what it holds goes at its end.
struct Frame {
    env: Env,
    id: Id,
    owned: Vec<Id>,
    deferred: Vec<(Id, Deferred)>,
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.env.world.note(self.id, Out::Dropped);
        for (id, deferred) in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Do(act) => self.env.world.note(id, acts::act(&self.env, id, act)),
                Deferred::Cancel(task) => self.env.cancel(id, task),
                Deferred::Spawn(part) => drop(self.env.spawn(&part)),
            }
        }
        for id in &self.owned {
            let slot = self.env.world.slot(*id);
            let handle = slot.and_then(|slot| slot.handle.take());
            drop(handle);
        }
    }
}

type Ending = Pin<Box<dyn Future<Output = Result<u32, u32>>>>;

fn body(env: Env, body: Rc<Body>) -> Ending {
    Box::pin(async move {
        env.world.note(body.id, Out::Entered);
        let mut frame = Frame { env, id: body.id, owned: Vec::new(), deferred: Vec::new() };
        for step in &body.steps {
            if let Some(end) = frame.step(step).await {
                return end;
            }
        }
        Ok(body.id)
    })
}

impl Frame {
    async fn step(&mut self, step: &Step) -> Option<Result<u32, u32>> {
        let Env { world, task, group } = self.env.clone();
        match step {
            Step::Spawn(child) => {
                let handle = self.env.spawn(child);
                world.keep(child.id, task, Kept::Task(handle));
                self.owned.push(child.id);
            }
            Step::Child(child) => {
                let env = Env { world: world.clone(), task: child.id, group: group.clone() };
                let spawned = group.and_then(|g| g.try_spawn(body(env, child.clone())).ok());
                match spawned {
                    Some(handle) => {
                        world.keep(child.id, task, Kept::Child(handle));
                        self.owned.push(child.id);
                    }
                    None => world.note(child.id, Out::Closed),
                }
            }
            Step::Cancel(id, task) => self.env.cancel(*id, *task),
            Step::Defer(id, deferred) => self.deferred.push((*id, deferred.clone())),
            Step::DropHandle(id, task) => {
                let slot = self.env.own(*task);
                world.note(*id, if slot.is_some() { Out::Unit } else { Out::Absent });
                let handle = slot.and_then(|slot| slot.handle.take());
                drop(handle);
            }
            Step::Ask(id, task) => {
                let said = world.slot(*task).map(|slot| match &*slot.handle.borrow() {
                    Some(Kept::Task(handle)) => [handle.is_finished(), handle.is_cancelled()],
                    Some(Kept::Child(child)) => [child.is_finished(), child.is_cancelled()],
                    None => unreachable!("just seen"),
                });
                let said = said.map(|said| Out::List(said.map(Out::Flag).to_vec()));
                world.note(*id, said.unwrap_or(Out::Absent));
            }
            Step::Do(id, act) => {
                let out = acts::act(&self.env, *id, *act);
                world.note(*id, out);
            }
            Step::Await(id, expr) => {
                let out = eval(self.env.clone(), *id, expr.clone()).await;
                world.note(*id, out);
            }
            Step::End(id, End::Value) => return Some(Ok(*id)),
            Step::End(id, End::Error) => return Some(Err(*id)),
            Step::End(_, End::Panic) => std::panic::resume_unwind(Box::new("as the program says")),
        }
        None
    }
}

/// Awaits a handle where it lies.
struct Awaits {
    slot: Rc<Slot>,
    by_value: bool,
    shielded: bool,
}

impl Future for Awaits {
    type Output = Out;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Out> {
        let mut handle = self.slot.handle.borrow_mut();
        let polled = match handle.as_mut() {
            Some(Kept::Task(handle)) if self.shielded => {
                Pin::new(&mut combine::shield(handle)).poll(cx).map(joined)
            }
            Some(Kept::Task(handle)) => Pin::new(handle).poll(cx).map(joined),
            Some(Kept::Child(child)) => {
                Pin::new(child).poll(cx).map(|value| value.map_or(Out::ChildFailed, Out::Value))
            }
            None => unreachable!("its owner is here"),
        };
        let spent = if polled.is_ready() { handle.take() } else { None };
        drop(handle);
        drop(spent);
        polled
    }
}

impl Drop for Awaits {
    fn drop(&mut self) {
        self.slot.busy.set(false);
        let handle = if self.by_value { self.slot.handle.take() } else { None };
        drop(handle);
    }
}

fn joined(result: Result<Result<u32, u32>, JoinError>) -> Out {
    match result {
        Ok(end) => Out::of(end),
        Err(e) if e.is_cancelled() => Out::Cancelled,
        Err(_) => Out::Panicked,
    }
}

fn failed(reason: &TaskFailure<u32>) -> Out {
    match reason {
        TaskFailure::Error(e) => Out::Failed(*e),
        TaskFailure::Join(e) if e.is_cancelled() => Out::Cancelled,
        TaskFailure::Join(_) => Out::Panicked,
    }
}

fn future_end(end: Result<u32, FutureError>) -> Out {
    match end {
        Ok(value) => Out::Value(value),
        Err(FutureError::Cancelled) => Out::Cancelled,
        Err(_) => Out::Abandoned,
    }
}

async fn started(env: &Env, start: Start, parts: Vec<Rc<Body>>) -> Out {
    let run = |part: &Rc<Body>| body(Env { task: part.id, ..env.clone() }, part.clone());
    let values = |values: Vec<u32>| Out::List(values.into_iter().map(Out::Value).collect());
    let first =
        |e: combine::TryGatherError<u32>| Out::At(e.index() as u32, Box::new(failed(e.reason())));
    match start {
        Start::Gather => {
            let all = combine::gather(parts.iter().map(run)).await;
            Out::List(all.into_iter().map(joined).collect())
        }
        Start::TryGather => {
            combine::try_gather(parts.iter().map(run)).await.map_or_else(first, values)
        }
        Start::Pair => {
            let (a, b) = combine::gather_tuple((run(&parts[0]), run(&parts[1]))).await;
            Out::List(vec![joined(a), joined(b)])
        }
        Start::TryPair => {
            let both = combine::try_gather_tuple((run(&parts[0]), run(&parts[1]))).await;
            both.map(|(a, b)| vec![a, b]).map_or_else(first, values)
        }
    }
}

/// What a step awaits; nothing is done before the first poll.
fn eval(env: Env, id: Id, expr: Expr) -> Pin<Box<dyn Future<Output = Out>>> {
    Box::pin(async move { awaited(&env, id, expr).await.unwrap_or(Out::Absent) })
}

/// None if there is nothing to await.
async fn awaited(env: &Env, id: Id, expr: Expr) -> Option<Out> {
    let world = &*env.world;
    let run = |part: Rc<Body>| body(env.clone(), part);
    Some(match expr {
        Expr::Timeout(ms, inner) => {
            let inner = eval(env.clone(), id, *inner);
            timeout_at(world.after(ms), inner).await.unwrap_or(Out::Elapsed)
        }
        Expr::Race(a, b) => {
            let [a, b] = [a, b].map(|part| eval(env.clone(), id, *part));
            match combine::race(a, b).await {
                Either::First(out) => Out::First(Box::new(out)),
                Either::Second(out) => Out::Second(Box::new(out)),
            }
        }
        Expr::LetGo(ms, inner) => {
            let inner = Some(eval(env.clone(), id, *inner));
            LetGo { inner, limit: sleep_until(world.after(ms)) }.await
        }
        Expr::Started(start, parts) => started(env, start, parts).await,
        Expr::Block(part) => Out::of(run(part).await),
        Expr::Group(part) => {
            let grouped = combine::group(async |group: &TaskGroup<u32>| {
                let env = Env { group: Some(group.clone()), ..env.clone() };
                body(env, part).await
            });
            match grouped.await {
                Ok(value) => Out::Value(value),
                Err(e) => Out::List(
                    e.failures()
                        .iter()
                        .map(|failure| {
                            let number = failure.child.map_or(u32::MAX, |n| n as u32);
                            Out::At(number, Box::new(failed(&failure.reason)))
                        })
                        .collect(),
                ),
            }
        }
        Expr::Sleep(ms) => {
            sleep_until(world.after(ms)).await;
            Out::Unit
        }
        Expr::Yield => {
            coreloop::yield_now().await;
            Out::Unit
        }
        Expr::Join(task) | Expr::JoinRef(task) | Expr::Shield(task) => {
            let slot = env.own(task)?;
            let shielded = matches!(expr, Expr::Shield(_));
            if shielded && matches!(*slot.handle.borrow(), Some(Kept::Child(_))) {
                return None;
            }
            slot.busy.set(true);
            Awaits { slot, by_value: matches!(expr, Expr::Join(_)), shielded }.await
        }
        Expr::JoinTimeout(task, ms) => {
            let mut lent = env.lend(&[task])?;
            let deadline = world.after(ms);
            let ended = lent.handles[0].timeout_at(deadline).await;
            if ended.is_ok() {
                lent.handles.clear();
            }
            ended.map_or(Out::Elapsed, joined)
        }
        Expr::Gather(tasks) => {
            let handles = std::mem::take(&mut env.lend(&tasks)?.handles);
            let all = combine::gather_handles(handles).await;
            Out::List(all.into_iter().map(joined).collect())
        }
        Expr::TryGather(tasks) => {
            let handles = std::mem::take(&mut env.lend(&tasks)?.handles);
            match combine::try_gather_handles(handles).await {
                Ok(values) => Out::List(values.into_iter().map(Out::Value).collect()),
                Err(e) => Out::At(e.index() as u32, Box::new(failed(e.reason()))),
            }
        }
        Expr::AsCompleted(tasks, ms, take) => {
            let handles = std::mem::take(&mut env.lend(&tasks)?.handles);
            let mut ended = combine::as_completed(handles);
            if let Some(ms) = ms {
                ended = ended.until(world.after(ms));
            }
            for _ in 0..take {
                let Some((at, result)) = ended.next().await else { break };
                let out = match result {
                    Ok(end) => Out::of(end),
                    Err(WaitError::Elapsed) => Out::Elapsed,
                    Err(WaitError::Join(e)) => joined(Err(e)),
                };
                world.note(id, Out::At(at as u32, Box::new(out)));
            }
            Out::Unit
        }
        Expr::Wait(tasks, until, ms, fallible) => {
            let mut lent = env.lend(&tasks)?;
            let when = match until {
                Until::All => When::AllCompleted,
                Until::First => When::FirstCompleted,
                Until::Error => When::FirstError,
            };
            let limit = ms.map(|ms| world.after(ms).duration_since(Instant::now()));
            let waited = match fallible {
                true => combine::try_wait(&mut lent.handles, when, limit).await,
                false => combine::wait(&mut lent.handles, when, limit).await,
            };
            let [done, pending] = [waited.done, waited.pending]
                .map(|places| places.into_iter().map(|place| place as u32).collect());
            Out::Sets(done, pending)
        }
        Expr::Acquire(permits, part) => match world.semaphore.acquire_many(permits).await {
            Ok(_held) => Out::of(run(part).await),
            Err(_) => Out::Closed,
        },
        Expr::Lock(part) => {
            let mut value = world.mutex.lock().await;
            *value += 1;
            world.note(part.id, Out::Value(*value));
            Out::of(run(part).await)
        }
        Expr::Read(part) => {
            let _held = world.rw_lock.read().await;
            Out::of(run(part).await)
        }
        Expr::Write(part) => {
            let _held = world.rw_lock.write().await;
            Out::of(run(part).await)
        }
        Expr::Notified(want, part) => {
            let value = world.mutex.lock().await;
            let value = match want {
                None => world.condition.wait(value).await,
                Some(least) => world.condition.wait_for(value, |value| *value >= least).await,
            };
            world.note(part.id, Out::Value(*value));
            Out::of(run(part).await)
        }
        Expr::Event(at) => {
            world.flags[at].wait().await;
            Out::Unit
        }
        Expr::Put(queue) => {
            let item = world.item(id);
            let put = match queue {
                0 => world.fifo.put(item).await,
                1 => world.lifo.put(item).await,
                _ => world.priority.put(item).await,
            };
            if put.is_ok() {
                world.put_done(queue);
            }
            put.map_or(Out::Closed, |()| Out::Unit)
        }
        Expr::Get(queue) => {
            let got = match queue {
                0 => world.fifo.get().await,
                1 => world.lifo.get().await,
                _ => world.priority.get().await,
            };
            got.map_or(Out::Closed, |item| Out::Value(item.0))
        }
        Expr::Finished(queue) => {
            match queue {
                0 => world.fifo.join().await,
                1 => world.lifo.join().await,
                _ => world.priority.join().await,
            }
            Out::Unit
        }
        Expr::Barrier => match world.barrier.wait().await {
            Ok(place) => Out::Value(place.index() as u32),
            Err(_) => Out::Broken,
        },
        Expr::Once(part) => {
            let value = world.once.get_or_try_init(async || run(part).await).await;
            Out::of(value.copied())
        }
        Expr::Send => {
            let sender = world.sender.borrow().clone()?;
            let sent = sender.send(world.item(id)).await;
            sent.map_or(Out::Closed, |()| Out::Unit)
        }
        Expr::Reserve(part) => {
            let sender = world.sender.borrow().clone()?;
            match sender.reserve().await {
                Ok(room) => {
                    let end = run(part).await;
                    if end.is_ok() {
                        room.send(world.item(id));
                    }
                    Out::of(end)
                }
                Err(_) => Out::Closed,
            }
        }
        Expr::Recv => {
            let mut end = LentEnd::take(&world.receiver)?;
            let got = end.get().recv().await;
            got.map_or(Out::Closed, |item| Out::Value(item.0))
        }
        Expr::Hear(at) => {
            let mut end = LentEnd::take(&world.hearers[at])?;
            match end.get().recv().await {
                Ok(item) => Out::Value(item.0),
                Err(broadcast::RecvError::Lagged(lost)) => Out::Lagged(lost),
                Err(broadcast::RecvError::Closed) => Out::Closed,
            }
        }
        Expr::Changed => {
            let mut end = LentEnd::take(&world.watcher)?;
            match end.get().changed().await {
                Ok(()) => Out::Value(*end.get().borrow()),
                Err(_) => Out::Closed,
            }
        }
        Expr::Watched(least) => {
            let mut end = LentEnd::take(&world.watcher)?;
            let value = end.get().wait_for(|value| *value >= least).await;
            value.map_or(Out::Closed, |value| Out::Value(*value))
        }
        Expr::Oneshot(at) => {
            let busy = &world.busy[1][at];
            if busy.replace(true) {
                return None;
            }
            let poll = |cx: &mut Context<'_>| {
                let mut answer = world.answers[at].borrow_mut();
                let answer = answer.as_mut().expect("it stays in its place");
                let got = Pin::new(answer).poll(cx);
                got.map(|got| got.map_or(Out::Closed, |item| Out::Value(item.0)))
            };
            InPlace { busy, poll }.await
        }
        Expr::OneshotClosed(at) => {
            let busy = &world.busy[0][at];
            if world.oneshots[at].borrow().is_none() || busy.replace(true) {
                return None;
            }
            let poll = |cx: &mut Context<'_>| {
                let mut sender = world.oneshots[at].borrow_mut();
                let closed = sender.as_mut().expect("it is busy").closed();
                std::pin::pin!(closed).poll(cx).map(|()| Out::Unit)
            };
            InPlace { busy, poll }.await
        }
        Expr::Future(at) => future_end(world.futures[at].clone().await),
        Expr::FutureShielded(at) => future_end(combine::shield(world.futures[at].clone()).await),
    })
}
