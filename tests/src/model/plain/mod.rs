//! The plain model: what a program does, by the documented rules alone.
//!
//! Owns the run queue, time, and the life of tasks. There are no wakers and no futures here: a task that
//! waits is written into the list of what it waits for, and whoever hands it something puts it at the end of
//! the run queue. What the primitives do is in `shared`, what handles and groups do in `sets`, and how a body
//! runs, step by step, in `body`, with `acts`, `waits` and `leave`. The rules:
//! - who is woken, spawned or cancelled goes to the end of the run queue, once; a turn runs what was in the
//!   queue when it began, after the timers that are due, those of one deadline in the order of their making;
//! - a task that is polled as it is spawned goes nowhere: the poll around it goes on when it waits or ends;
//! - who gives way goes to the front of the queue when the next turn is over, or at once if nobody is in it;
//! - the main future, which awaits the first task, has its place in the queue; its end is the program's;
//! - time moves when nothing is ready, to the next deadline;
//! - a cancel takes effect at the task's next turn: its future is dropped from the inside outwards, and a
//!   handle (a set of handles, a completable future) passes the cancel on if it was polled in the poll that
//!   the cancel is for: the last one of a cancelled task, the present one where a limit is over, the one in
//!   which a race's loser was polled last.
//!
//! Every poll of a task looks at all that the task awaits, from the outside inwards.

mod acts;
mod body;
mod leave;
mod sets;
mod shared;
mod waits;

pub(super) use self::shared::priority;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use self::body::Node;
use self::sets::Group;
use self::shared::Shared;
use super::program::{Body, Event, Id, Out, Program};

/// What is predicted, and how often each thing happened on the way.
#[derive(Debug)]
pub struct Predicted {
    /// Until the main future's end, in order.
    pub events: Vec<Event>,
    /// Bodies that were left then.
    pub left: Vec<Id>,
    /// By what and how it went: "begun", "ready", "dropped" while pending, "done".
    pub counts: BTreeMap<(&'static str, &'static str), u64>,
}

/// When the main future ends at the latest, in ms.
pub const LIMIT_MS: u64 = 10_000;

/// Predicts what a program does.
pub fn predict(program: &Program) -> Predicted {
    let mut plain = Plain {
        now: 0,
        numbers: 0,
        polling: 0,
        mark: 0,
        keys: 0,
        ready: VecDeque::new(),
        gave_way: VecDeque::new(),
        over: false,
        top: program.main.id,
        tasks: BTreeMap::new(),
        timers: Vec::new(),
        groups: BTreeMap::new(),
        shared: Shared::new(program),
        events: Vec::new(),
        live: BTreeSet::new(),
        counts: BTreeMap::new(),
    };
    let top = program.main.id;
    plain.spawn(&program.main, top, None, None);
    // The main future awaits it.
    plain.task(top).handle.held = false;
    while !plain.over {
        plain.turn();
        if plain.ready.is_empty() && plain.gave_way.is_empty() {
            match plain.timers.iter().map(|timer| timer.0).min() {
                Some(deadline) if deadline < LIMIT_MS => plain.now = deadline,
                _ => break,
            }
        }
    }
    let left = plain.live.into_iter().collect();
    Predicted { events: plain.events, left, counts: plain.counts }
}

/// A panic of the program, on its way out.
struct Panic;

/// What a poll comes to: nothing yet, something, or a panic.
type Polled = Result<Option<Out>, Panic>;

struct Plain {
    now: u64,
    /// Polls so far, and ends of tasks, which are numbered with them.
    numbers: u64,
    /// The poll that is under way, or was the last.
    polling: u64,
    /// The poll whose awaits a cancel that is under way passes on to; 0 for none.
    mark: u64,
    keys: u64,
    /// The run queue; none is the main future.
    ready: VecDeque<Option<Id>>,
    gave_way: VecDeque<Id>,
    /// The main future has ended.
    over: bool,
    /// The task that it awaits.
    top: Id,
    tasks: BTreeMap<Id, Task>,
    /// Deadline, key, and who is woken.
    timers: Vec<(u64, u64, Id)>,
    groups: BTreeMap<Id, Group>,
    shared: Shared,
    events: Vec<Event>,
    /// Bodies that were entered and not left.
    live: BTreeSet<Id>,
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

struct Task {
    future: Option<Node>,
    scheduled: bool,
    cancel: bool,
    last_poll: u64,
    /// How it ended, until somebody takes it, and its number among ends.
    end: Option<(u64, Out)>,
    /// Who is told of the end.
    joiner: Option<Id>,
    handle: Handle,
    child: Option<Membership>,
}

/// The handle of a task.
struct Handle {
    /// The task whose body holds it.
    owner: Id,
    /// Where its owner keeps it; not while it is lent to an await.
    held: bool,
    /// Somebody awaits it where it is kept.
    busy: bool,
    /// It exists, wherever.
    exists: bool,
    polled_in: u64,
}

/// Of a child: its group, its place there, and its number.
type Membership = (Id, usize, u32);

impl Task {
    fn new(body: &Rc<Body>, owner: Id, group: Option<Id>, child: Option<Membership>) -> Self {
        Self {
            future: Some(Node::block(group, body)),
            scheduled: false,
            cancel: false,
            last_poll: 0,
            end: None,
            joiner: None,
            handle: Handle { owner, held: true, busy: false, exists: true, polled_in: 0 },
            child,
        }
    }

    fn is_done(&self) -> bool {
        self.end.is_some()
    }
}

impl Plain {
    /// One turn of the loop.
    fn turn(&mut self) {
        let mut due: Vec<_> = self.timers.iter().copied().filter(|t| t.0 <= self.now).collect();
        self.timers.retain(|t| t.0 > self.now);
        due.sort_unstable();
        due.into_iter().for_each(|(_, _, task)| self.wake(task));
        if self.ready.is_empty() {
            self.ready.extend(self.gave_way.drain(..).map(Some));
        }
        let gave_way = self.gave_way.len();
        for _ in 0..self.ready.len() {
            match self.ready.pop_front() {
                Some(Some(id)) => self.run(id),
                Some(None) => return self.over = true,
                None => break,
            }
        }
        for id in self.gave_way.drain(..gave_way).rev() {
            self.ready.push_front(Some(id));
        }
    }

    fn run(&mut self, id: Id) {
        self.task(id).scheduled = false;
        if self.task(id).is_done() {
            return;
        }
        if self.task(id).cancel {
            let mark = self.task(id).last_poll;
            return self.end(id, Out::Cancelled, mark);
        }
        self.poll_task(id);
    }

    fn poll_task(&mut self, id: Id) {
        let number = self.number();
        self.polling = number;
        self.task(id).last_poll = number;
        let mut future = self.task(id).future.take().expect("a task that runs has a future");
        let polled = self.poll(id, &mut future);
        self.task(id).future = Some(future);
        match polled {
            Ok(None) => {}
            // Cancelled in its last poll, its value goes; a group has heard of an error by then.
            Ok(Some(out)) => match self.task(id).cancel {
                true => self.end(id, out, number),
                false => self.end(id, out, 0),
            },
            // A child's panic is told to its group, like an error.
            Err(Panic) => {
                let task = self.task(id);
                let mark = if task.child.is_some() && task.cancel { number } else { 0 };
                self.end(id, Out::Panicked, mark);
            }
        }
    }

    /// Drops the future, tells the group, then whoever waits.
    fn end(&mut self, id: Id, out: Out, mark: u64) {
        let future = self.task(id).future.take();
        if let Some(mut future) = future {
            self.dropped(&mut future, mark);
        }
        let child = self.task(id).child;
        let out = match child {
            Some((group, place, number)) => self.child_ends(group, place, number, out),
            None => out,
        };
        let out = if mark == 0 { out } else { Out::Cancelled };
        let number = self.number();
        let task = self.task(id);
        task.end = Some((number, out));
        if let Some(joiner) = task.joiner.take().filter(|_| task.handle.exists) {
            self.wake(joiner);
        }
        if id == self.top {
            self.ready.push_back(None);
        }
    }

    /// Drops something under a mark, as the mark of that drop alone.
    fn dropped(&mut self, node: &mut Node, mark: u64) {
        let outer = std::mem::replace(&mut self.mark, mark);
        self.drop_node(node);
        self.mark = outer;
    }

    fn spawn(&mut self, body: &Rc<Body>, owner: Id, group: Option<Id>, child: Option<Membership>) {
        self.tasks.insert(body.id, Task::new(body, owner, group, child));
        self.wake(body.id);
    }

    /// Makes a task and polls it: with nothing of the poll or the cancel around it, which goes on afterwards.
    fn spawn_eager(&mut self, body: &Rc<Body>, owner: Id, group: Option<Id>) {
        let mut task = Task::new(body, owner, group, None);
        task.handle.held = false;
        self.tasks.insert(body.id, task);
        let around = (std::mem::take(&mut self.mark), self.polling);
        self.poll_task(body.id);
        (self.mark, self.polling) = around;
    }

    /// What tells polls and ends apart.
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn cancel(&mut self, id: Id) -> bool {
        if self.task(id).is_done() {
            return false;
        }
        self.task(id).cancel = true;
        self.wake(id);
        true
    }

    fn wake(&mut self, id: Id) {
        let task = self.task(id);
        // Who has ended is woken by nobody.
        if !task.is_done() && !std::mem::replace(&mut task.scheduled, true) {
            self.ready.push_back(Some(id));
        }
    }

    fn give_way(&mut self, id: Id) {
        if !std::mem::replace(&mut self.task(id).scheduled, true) {
            self.gave_way.push_back(id);
        }
    }

    fn task(&mut self, id: Id) -> &mut Task {
        self.tasks.get_mut(&id).expect("a task that was spawned")
    }

    fn passes_cancel_to(&self, polled_in: u64) -> bool {
        polled_in != 0 && polled_in == self.mark
    }

    fn note(&mut self, id: Id, out: Out) {
        self.events.push(Event(self.now, id, out));
    }

    fn count(&mut self, what: &'static str, how: &'static str) {
        *self.counts.entry((what, how)).or_default() += 1;
    }

    fn key(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    /// Waits for a deadline; whether it has come.
    fn poll_sleep(&mut self, me: Id, sleep: &mut Sleep) -> bool {
        match sleep.timer {
            Timer::Done => return true,
            Timer::Set(key) => {
                if self.timers.iter().any(|timer| timer.1 == key) {
                    return false;
                }
                sleep.timer = Timer::Done;
                return true;
            }
            Timer::New => {}
        }
        if sleep.deadline <= self.now {
            // One turn is given way.
            sleep.timer = Timer::Done;
            self.give_way(me);
            return false;
        }
        let key = self.key();
        self.timers.push((sleep.deadline, key, me));
        sleep.timer = Timer::Set(key);
        false
    }

    /// As a limit: what is over at the first look gives no turn away.
    fn poll_limit(&mut self, me: Id, sleep: &mut Sleep) -> bool {
        let first = !std::mem::replace(&mut sleep.begun, true);
        (first && sleep.deadline <= self.now) || self.poll_sleep(me, sleep)
    }

    /// As a limit of a set, or on a task: when it strikes it takes one more turn, in which those that were
    /// due in time still count.
    fn poll_late_limit(&mut self, me: Id, sleep: &mut Sleep) -> bool {
        if sleep.struck {
            return true;
        }
        let first = !std::mem::replace(&mut sleep.begun, true);
        if first && sleep.deadline <= self.now {
            return true;
        }
        if self.poll_sleep(me, sleep) {
            sleep.struck = true;
            self.wake(me);
        }
        false
    }

    fn drop_sleep(&mut self, sleep: &Sleep) {
        if let Timer::Set(key) = sleep.timer {
            self.timers.retain(|timer| timer.1 != key);
        }
    }
}

struct Sleep {
    deadline: u64,
    timer: Timer,
    begun: bool,
    struck: bool,
}

enum Timer {
    New,
    Set(u64),
    Done,
}

impl Sleep {
    fn new(deadline: u64) -> Self {
        Self { deadline, timer: Timer::New, begun: false, struck: false }
    }
}
