//! Random programs.
//!
//! Owns how a seed becomes a program: a few topics each, so that its tasks meet at the same few things, times
//! of a few milliseconds, so that they coincide, and a first task that starts the others and then meddles with
//! them. Whatever it names may be gone, not there yet or another task's when the step runs: that is part of it.

use std::rc::Rc;

use super::program::{Act, Body, CHANNEL, Deferred, End, Expr, Id, Program, Start, Step, Until};
use crate::drive::Rng;

/// The program of a seed.
pub fn generate(seed: u64) -> Program {
    // Neighbouring seeds must not look alike.
    let mut rng = Rng::new(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    rng.number();
    let mut of = Generator {
        topics: Vec::new(),
        ids: 0,
        tasks: Vec::new(),
        budget: 14 + rng.below(40) as usize,
        rng,
    };
    for _ in 0..1 + of.below(3) {
        let topic = TOPICS[of.below(TOPICS.len())];
        of.topics.push(topic);
    }
    let places = std::array::from_fn(|_| 1 + of.below(2));
    Program {
        permits: 1 + of.below(3),
        places,
        parties: 1 + of.below(3),
        kept: 1 + of.below(3),
        main: of.main(),
    }
}

/// What a program's tasks meet at.
#[derive(Clone, Copy, PartialEq)]
enum Topic {
    Semaphore,
    Mutex,
    Condition,
    RwLock,
    Event,
    Queue(usize),
    Barrier,
    Once,
    Channel,
    Broadcast,
    Watch,
    Oneshot,
    Future,
    /// Nothing but each other.
    Tasks,
    Groups,
}

const TOPICS: [Topic; 17] = [
    Topic::Semaphore,
    Topic::Mutex,
    Topic::Condition,
    Topic::RwLock,
    Topic::Event,
    Topic::Queue(0),
    Topic::Queue(1),
    Topic::Queue(2),
    Topic::Barrier,
    Topic::Once,
    Topic::Channel,
    Topic::Broadcast,
    Topic::Watch,
    Topic::Oneshot,
    Topic::Future,
    Topic::Tasks,
    Topic::Groups,
];

/// Bodies within bodies.
const DEPTH_MAX: usize = 4;

struct Generator {
    rng: Rng,
    topics: Vec<Topic>,
    ids: Id,
    tasks: Vec<Id>,
    /// Steps that may still be made.
    budget: usize,
}

/// Where a step stands.
struct Place {
    depth: usize,
    /// Tasks that this one has spawned.
    own: Vec<Id>,
    in_group: bool,
    /// What is held around it: asked for again, it would wait for itself.
    holds: Vec<Topic>,
}

impl Place {
    /// Within a task that is started here.
    fn fresh(&self) -> Self {
        let (own, holds) = (Vec::new(), Vec::new());
        Self { depth: self.depth + 1, own, in_group: self.in_group, holds }
    }
}

impl Generator {
    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn id(&mut self) -> Id {
        self.ids += 1;
        self.ids
    }

    /// A few milliseconds, now and then none.
    fn ms(&mut self) -> u64 {
        self.rng.below(6)
    }

    fn main(&mut self) -> Rc<Body> {
        let id = self.id();
        self.tasks.push(id);
        let mut place = Place { depth: 0, own: Vec::new(), in_group: false, holds: Vec::new() };
        let mut steps = Vec::new();
        for _ in 0..1 + self.below(5) {
            steps.push(self.spawn(&mut place));
        }
        while self.budget > 0 {
            if self.chance(25) {
                let id = self.id();
                let expr = if self.chance(40) { Expr::Yield } else { Expr::Sleep(self.ms()) };
                steps.push(Step::Await(id, expr));
            }
            if self.chance(25) {
                steps.push(Step::Do(self.id(), self.act()));
            }
            steps.push(self.step(&mut place));
            if self.chance(20) {
                // What was just handed over may not have been taken yet.
                let at = self.below(self.tasks.len());
                steps.push(Step::Cancel(self.id(), self.tasks[at]));
            }
        }
        // Time for the others, and a look at what has become of everything.
        steps.push(Step::Await(self.id(), Expr::Sleep(30)));
        steps.push(Step::Do(self.id(), Act::Probe));
        Rc::new(Body { id, steps })
    }

    fn body(&mut self, id: Id, place: &mut Place, most: usize) -> Rc<Body> {
        let mut steps = Vec::new();
        for _ in 0..self.below(most + 1) {
            if self.budget > 0 {
                steps.push(self.step(place));
            }
        }
        if self.chance(30) {
            let end = [End::Value, End::Error, End::Error, End::Panic][self.below(4)];
            steps.push(Step::End(self.id(), end));
        }
        Rc::new(Body { id, steps })
    }

    /// A body within the task; what it spawns is its own, what the task has it may use.
    fn inner(&mut self, place: &Place, topic: Option<Topic>) -> Rc<Body> {
        let id = self.id();
        let Place { depth, in_group, .. } = *place;
        let (own, mut holds) = (place.own.clone(), place.holds.clone());
        holds.extend(topic.map(|topic| match topic {
            Topic::Condition => Topic::Mutex,
            topic => topic,
        }));
        let mut within = Place { depth: depth + 1, own, in_group, holds };
        self.body(id, &mut within, 2)
    }

    /// A group's body: some children, then what any body has.
    fn group(&mut self, place: &Place) -> Rc<Body> {
        let id = self.id();
        let mut within = Place {
            depth: place.depth + 1,
            own: place.own.clone(),
            in_group: true,
            holds: place.holds.clone(),
        };
        let mut steps: Vec<_> =
            (0..self.below(4)).map(|_| Step::Child(self.task(&mut within))).collect();
        let rest = self.body(id, &mut within, 3);
        steps.extend(rest.steps.iter().cloned());
        Rc::new(Body { id, steps })
    }

    fn task(&mut self, place: &mut Place) -> Rc<Body> {
        let id = self.id();
        let mut within = place.fresh();
        let body = self.body(id, &mut within, 4);
        place.own.push(id);
        self.tasks.push(id);
        body
    }

    fn spawn(&mut self, place: &mut Place) -> Step {
        self.budget = self.budget.saturating_sub(1);
        let body = self.task(place);
        if place.in_group && self.chance(70) {
            Step::Child(body)
        } else if self.chance(25) {
            Step::SpawnEager(body)
        } else {
            Step::Spawn(body)
        }
    }

    fn step(&mut self, place: &mut Place) -> Step {
        self.budget = self.budget.saturating_sub(1);
        let shallow = place.depth < DEPTH_MAX;
        // The first task meddles, a group's body and children spawn.
        let spawns = if place.in_group { 34 } else { 20 };
        let acts = if place.depth == 0 { 60 } else { spawns + 22 };
        match self.below(100) {
            n if n < spawns - 8 && shallow => self.spawn(place),
            n if n < spawns => {
                let at = self.below(self.tasks.len());
                let task = self.tasks[at];
                let id = self.id();
                match self.below(10) {
                    0..6 => Step::Cancel(id, task),
                    6..8 => Step::Ask(id, task),
                    _ => Step::DropHandle(id, task),
                }
            }
            n if n < acts && self.chance(12) => {
                let id = self.id();
                let deferred = match self.below(5) {
                    0 => Deferred::Spawn(self.body(id, &mut place.fresh(), 2)),
                    4 => Deferred::SpawnEager(self.body(id, &mut place.fresh(), 2)),
                    1 => Deferred::Cancel(self.tasks[self.ids as usize % self.tasks.len()]),
                    _ => Deferred::Do(self.act()),
                };
                Step::Defer(id, deferred)
            }
            n if n < acts => {
                let id = self.id();
                let act = self.act();
                Step::Do(id, act)
            }
            _ => {
                let id = self.id();
                let expr = self.expr(place, 0);
                Step::Await(id, expr)
            }
        }
    }

    fn expr(&mut self, place: &mut Place, wrapped: usize) -> Expr {
        let shallow = place.depth < DEPTH_MAX;
        match self.below(100) {
            0..12 if wrapped < 2 => Expr::Timeout(self.ms(), self.boxed(place, wrapped)),
            12..15 if wrapped < 2 => Expr::LetGo(self.ms(), self.boxed(place, wrapped)),
            15..26 if wrapped < 2 => {
                let a = self.boxed(place, wrapped);
                Expr::Race(a, self.boxed(place, wrapped))
            }
            26..34 => Expr::Sleep(self.ms()),
            34..38 => Expr::Yield,
            38..42 if shallow => Expr::Block(self.inner(place, None)),
            42..46 if shallow => self.started(place),
            46..72 if !place.own.is_empty() => self.handles(place),
            72..74 if shallow => self.once_awaited(place),
            _ => self.of_topic(place),
        }
    }

    /// A task that was awaited, let go of, and is merely held when the limit is over.
    fn once_awaited(&mut self, place: &Place) -> Expr {
        let (id, mut within) = (self.id(), place.fresh());
        let mut task = vec![Step::Await(self.id(), Expr::Sleep(3 + self.ms()))];
        let own = self.id();
        if self.budget > 0 {
            task.push(self.step(&mut within));
        }
        let awaited = Box::new(Expr::JoinRef(own));
        let steps = vec![
            Step::Spawn(Rc::new(Body { id: own, steps: task })),
            Step::Await(self.id(), Expr::LetGo(self.ms() / 2, awaited)),
            Step::Await(self.id(), Expr::Sleep(self.ms())),
        ];
        Expr::Timeout(self.ms(), Box::new(Expr::Block(Rc::new(Body { id, steps }))))
    }

    fn started(&mut self, place: &mut Place) -> Expr {
        let start = [Start::Gather, Start::TryGather, Start::Pair, Start::TryPair][self.below(4)];
        let tasks = match start {
            Start::Pair | Start::TryPair => 2,
            _ => self.below(4),
        };
        // Nobody can name them.
        let (own, known) = (place.own.len(), self.tasks.len());
        let bodies = (0..tasks).map(|_| self.task(place)).collect();
        place.own.truncate(own);
        self.tasks.truncate(known);
        Expr::Started(start, bodies)
    }

    fn boxed(&mut self, place: &mut Place, wrapped: usize) -> Box<Expr> {
        Box::new(self.expr(place, wrapped + 1))
    }

    fn handles(&mut self, place: &Place) -> Expr {
        let one = place.own[self.below(place.own.len())];
        // Some or all of them, in any order.
        let mut several = place.own.clone();
        for at in (1..several.len()).rev() {
            let other = self.below(at + 1);
            several.swap(at, other);
        }
        let few = if self.chance(50) { several.len() } else { self.below(several.len() + 1) };
        several.truncate(few);
        let limit = if self.chance(40) { Some(self.ms()) } else { None };
        if self.chance(6) {
            // Over before the task is, as likely as not: it goes on.
            return Expr::Timeout(self.ms(), Box::new(Expr::Shield(one)));
        }
        if self.chance(6) {
            // Polled, let go of, and held on.
            return Expr::LetGo(self.ms(), Box::new(Expr::JoinRef(one)));
        }
        match self.below(22) {
            0..3 => Expr::Join(one),
            3..5 => Expr::JoinRef(one),
            5 => Expr::ShieldRef(one),
            6 => Expr::Shield(one),
            7..9 => Expr::JoinTimeout(one, self.ms()),
            9..11 => Expr::Gather(several),
            11..13 => Expr::TryGather(several),
            13..15 => {
                let take = if self.chance(70) { several.len() } else { self.below(3) };
                Expr::AsCompleted(several, limit, take)
            }
            n => {
                let until = [Until::All, Until::First, Until::Error][n % 3];
                Expr::Wait(several, until, limit, self.chance(50))
            }
        }
    }

    fn topic(&mut self) -> Topic {
        if self.chance(40) {
            return self.topics[0];
        }
        let at = self.below(self.topics.len());
        self.topics[at]
    }

    fn of_topic(&mut self, place: &mut Place) -> Expr {
        let at = self.below(2);
        let topic = self.topic();
        let shallow = place.depth < DEPTH_MAX;
        let half = self.chance(50);
        let held = |of: &Topic| *of == topic || *of == Topic::Mutex && topic == Topic::Condition;
        if place.holds.iter().any(held) && self.chance(85) {
            return Expr::Sleep(self.ms());
        }
        match topic {
            Topic::Semaphore if shallow => {
                let permits = 1 + self.below(2);
                Expr::Acquire(permits, self.inner(place, Some(topic)))
            }
            Topic::Condition if shallow && half => {
                let want = if self.chance(50) { Some(1 + self.below(5) as u32) } else { None };
                Expr::Notified(want, self.inner(place, Some(topic)))
            }
            Topic::Mutex if shallow && half => Expr::Lock(self.inner(place, Some(topic))),
            Topic::Mutex | Topic::Condition if shallow => {
                let body = self.inner(place, Some(topic));
                let mut steps = body.steps.clone();
                let act = self.act_on(Topic::Condition);
                steps.insert(0, Step::Do(self.id(), act));
                if self.chance(50) {
                    // Whoever was notified waits for the lock meanwhile.
                    steps.insert(1, Step::Await(self.id(), Expr::Sleep(self.ms())));
                }
                Expr::Lock(Rc::new(Body { id: body.id, steps }))
            }
            Topic::RwLock if shallow && half => Expr::Read(self.inner(place, Some(topic))),
            Topic::RwLock if shallow => Expr::Write(self.inner(place, Some(topic))),
            Topic::Event => Expr::Event(at),
            Topic::Queue(queue) => match self.below(9) {
                0..4 => Expr::Get(queue),
                4..8 => Expr::Put(queue),
                _ => Expr::Finished(queue),
            },
            Topic::Barrier => Expr::Barrier,
            Topic::Once if shallow => Expr::Once(self.inner(place, Some(topic))),
            Topic::Channel => match self.below(6) {
                0..2 => Expr::Send,
                2 if shallow => Expr::Reserve(self.inner(place, Some(topic))),
                _ => Expr::Recv,
            },
            Topic::Broadcast => Expr::Hear(at),
            Topic::Watch if half => Expr::Changed,
            Topic::Watch => Expr::Watched(1 + self.below(3) as u32),
            Topic::Oneshot if self.chance(70) => Expr::Oneshot(at),
            Topic::Oneshot => Expr::OneshotClosed(at),
            Topic::Future if self.chance(70) => Expr::Future(at),
            Topic::Future => Expr::FutureShielded(at),
            Topic::Groups if shallow => Expr::Group(self.group(place)),
            Topic::Tasks if !place.own.is_empty() => self.handles(place),
            _ => Expr::Sleep(self.ms()),
        }
    }

    fn act(&mut self) -> Act {
        let topic = self.topic();
        self.act_on(topic)
    }

    fn act_on(&mut self, topic: Topic) -> Act {
        let at = self.below(2);
        let n = self.below(24);
        match topic {
            Topic::Semaphore => match n {
                0..6 => Act::AddPermit,
                6..16 => Act::TryAcquire(1 + at),
                16 => Act::CloseSemaphore,
                _ => Act::Probe,
            },
            Topic::Mutex => Act::TryLock,
            Topic::Condition => match n {
                0..15 => Act::Notify(1),
                15..18 => Act::Notify(2),
                _ => Act::NotifyAll,
            },
            Topic::RwLock => [Act::TryRead, Act::TryWrite][at],
            Topic::Event => match n {
                0..14 => Act::Set(at),
                _ => Act::Clear(at),
            },
            Topic::Queue(queue) => match n {
                0..7 => Act::TryPut(queue),
                7..13 => Act::TryGet(queue),
                13..20 => Act::TaskDone(queue),
                20 => Act::Shutdown(queue),
                21 => Act::ShutdownNow(queue),
                _ => Act::Probe,
            },
            Topic::Barrier => match n {
                0..3 => Act::ResetBarrier,
                3 => Act::AbortBarrier,
                _ => Act::Probe,
            },
            Topic::Once => [Act::SetOnce, Act::Probe][at],
            Topic::Channel => match n {
                0..9 => Act::TryPut(CHANNEL),
                9..17 => Act::TryGet(CHANNEL),
                17..20 => Act::DropSender,
                20..22 => Act::Shutdown(CHANNEL),
                _ => Act::ShutdownNow(CHANNEL),
            },
            Topic::Broadcast => match n {
                0..14 => Act::Broadcast,
                14..19 => Act::TryHear(at),
                19..21 => Act::DropBroadcast,
                _ => Act::DropHearer(at),
            },
            Topic::Watch => match n {
                0..21 => Act::Watch,
                _ => Act::DropWatch,
            },
            Topic::Oneshot => match n {
                0..9 => Act::SendOneshot(at),
                9..12 => Act::DropOneshot(at),
                12..18 => Act::TryOneshot(at),
                _ => Act::CloseOneshot(at),
            },
            Topic::Future => match n {
                0..12 => Act::Complete(at),
                12..16 => Act::CancelCompleter(at),
                16..20 => Act::Abandon(at),
                _ => Act::CancelFuture(at),
            },
            Topic::Groups if n < 8 => Act::CancelGroup,
            Topic::Groups | Topic::Tasks => Act::Probe,
        }
    }
}
