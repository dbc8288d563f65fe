//! A program on coreloop itself, on a simulated core.
//!
//! Owns the run and its book, and the translation of each step into the call that it stands for: what never
//! waits is in `acts`, what does in `awaits`, what tasks share in `world`, and how an await uses what lies
//! there in `places`. Knows nothing of what should happen.

mod acts;
mod awaits;
mod places;
mod world;

use std::cell::OnceCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::TaskGroup;
use coreloop::sched::TaskQueue;
use coreloop::sim::{Faults, Sim};
use coreloop::task::JoinHandle;
use coreloop::time::timeout_at;

use self::awaits::eval;
use self::places::Lent;
use self::world::{Kept, Slot, World};
use super::plain::LIMIT_MS;
use super::program::{Body, Deferred, End, Event, Id, Out, Program, Step};

/// What a program did.
#[derive(Debug)]
pub struct Done {
    /// Until the main future's end, in order.
    pub events: Vec<Event>,
    /// Bodies whose destructors ran after that.
    pub left: Vec<Id>,
}

/// Runs a program; `beside_queue`: on a core that has another task queue, too.
///
/// # Errors
/// What the simulation says: a deadlock, a panic outside of tasks. Also if a value is lost or doubled.
pub fn run(program: &Program, beside_queue: bool) -> Result<Done, String> {
    // Times are whole ms here; what a step takes of virtual time must not round one of them up. Nothing is
    // received or sent, so a ring of the smallest size will do.
    // Programs panic on purpose, and let go of it.
    let settings = coreloop::Settings::default()
        .on_report(|_| ())
        .timer_resolution(Duration::from_micros(1))
        .ring_entries(8)
        .cq_entries(16)
        .buffers(1, 64);
    let builder = Sim::builder().seed(1).faults(Faults::none()).settings(settings);
    // Programs panic where they please; what comes of it is what the model says.
    let sim = builder.fail_on_panic(false).build();
    let program = program.clone();
    let place: Rc<OnceCell<Rc<World>>> = Rc::default();
    let main = place.clone();
    sim.client("model", move || {
        let world = Rc::new(World::new(&program));
        let _first = main.set(world.clone());
        let program = program.clone();
        async move {
            let env = Env { world: world.clone(), task: program.main.id, group: None };
            let _other = beside_queue.then(|| TaskQueue::builder("other").build());
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

/// What a body knows of where it is.
#[derive(Clone)]
struct Env {
    world: Rc<World>,
    task: Id,
    group: Option<TaskGroup<u32>>,
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

    fn spawn_eager(&self, part: &Rc<Body>) -> JoinHandle<Result<u32, u32>> {
        let env = Env { task: part.id, ..self.clone() };
        coreloop::spawn_eager(body(env, part.clone()))
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
                Deferred::SpawnEager(part) => drop(self.env.spawn_eager(&part)),
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
            Step::SpawnEager(child) => {
                let handle = self.env.spawn_eager(child);
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
