//! Task queues of one core: how much each has used, and whose turn it is.
//!
//! Owns, for each queue, its lines, its shares, its virtual time (CPU time over shares) and its books. The
//! queue with the least virtual time is served next. One that had nothing to do begins, when it has
//! something again, where the one that was served last began: idle time earns nothing. Place 0 is the
//! default queue's and is never given back. Pure: knows no task and no clock.

use std::cell::Cell;
use std::sync::Arc;

use super::line::Line;

/// Queues that a core can have at a time, the default one among them: 6 bits of a task's flags.
pub(crate) const QUEUES_MAX: usize = 64;

/// The default queue's place.
pub(crate) const DEFAULT: u8 = 0;

/// Shares of a queue that was not told otherwise.
pub(crate) const SHARES_DEFAULT: u32 = 1_000;

/// What one nanosecond is in virtual time, at one share.
const UNIT: u128 = 1 << 20;

/// What a queue is told to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// At least 1.
    pub(crate) shares: u32,
    /// How long its tasks may wait for a turn, in ns; `u64::MAX` if that does not matter.
    pub(crate) latency_ns: u64,
}

impl Default for Terms {
    fn default() -> Self {
        Self { shares: SHARES_DEFAULT, latency_ns: u64::MAX }
    }
}

/// One queue.
pub(crate) struct Queue {
    pub(crate) name: Arc<str>,
    pub(crate) terms: Terms,
    /// Handles to it: more than can be forgotten in a process's life.
    pub(super) handles: u64,
    /// Its tasks that have not ended; while it is being served, the table counts them.
    pub(crate) tasks: u32,
    pub(crate) polls: u64,
    pub(crate) cpu_ns: u64,
    /// The most that it was ever told to have used: what is taken back later counts for its share, but no
    /// reader sees a sum go down.
    pub(crate) cpu_ns_told: Cell<u64>,
    /// Those to be polled, in order.
    pub(super) ready: Line,
    /// Those that gave way, in order.
    pub(super) gave_way: Line,
    /// How many are still to be polled in this turn.
    pub(super) left: usize,
    /// Of those that gave way: the first so many did so before this turn.
    pub(super) gave_way_before: usize,
    /// CPU time over shares.
    used: u128,
    /// Which of all that were made it is: its place may be another one's before.
    number: u64,
}

impl Queue {
    fn new(name: Arc<str>, terms: Terms) -> Self {
        Self {
            name,
            terms,
            handles: 1,
            tasks: 0,
            polls: 0,
            cpu_ns: 0,
            cpu_ns_told: Cell::new(0),
            ready: Line::new(2),
            gave_way: Line::new(2),
            left: 0,
            gave_way_before: 0,
            used: 0,
            number: 0,
        }
    }

    /// CPU time as it is told: it never goes down.
    pub(crate) fn tell_cpu_ns(&self) -> u64 {
        self.cpu_ns_told.set(self.cpu_ns_told.get().max(self.cpu_ns));
        self.cpu_ns_told.get()
    }

    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.gave_way.is_empty()
    }

    /// Its turn of the run queue begins; the same rules as where there is one queue.
    fn begin_turn(&mut self) {
        if self.ready.is_empty() {
            std::mem::swap(&mut self.ready, &mut self.gave_way);
        }
        self.left = self.ready.len();
        self.gave_way_before = self.gave_way.len();
    }

    /// Its turn ends, if it was served at all.
    fn end_turn(&mut self, served: bool) {
        let n = std::mem::take(&mut self.gave_way_before).min(self.gave_way.len());
        let whole = std::mem::take(&mut self.left) == 0;
        match (served, whole) {
            (false, _) => {}
            (true, true) => self.ready.take_in_front(&mut self.gave_way, n),
            (true, false) => self.ready.take_behind(&mut self.gave_way, n),
        }
    }
}

/// Which line of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Ready,
    GaveWay,
}

/// The queues of a core, while there are others than the default one.
pub(crate) struct Queues {
    list: Vec<Option<Queue>>,
    /// Virtual time at which the queue that was served last began.
    now: u128,
    /// Which queues were served in this turn, a bit each.
    served: u64,
    /// How many were made, beside the default one, which is number 0.
    made: u64,
}

/// What a poll is charged at least, as much as reading the clock after it takes. Under a simulation polls
/// take no time, and a queue that is never charged would be served before all others for ever.
const LEAST_POLL_NS: u64 = 20;

impl Queues {
    /// The default one alone, with these terms and so many tasks.
    pub(super) fn new(terms: Terms, tasks: u32) -> Self {
        let mut default = Queue::new("default".into(), terms);
        default.tasks = tasks;
        Self { list: vec![Some(default)], now: 0, served: 0, made: 0 }
    }

    /// Makes a queue, with one handle to it; its place. None if there are [`QUEUES_MAX`].
    pub(super) fn add(&mut self, name: Arc<str>, terms: Terms) -> Option<u8> {
        self.made += 1;
        let queue = Queue { used: self.now, number: self.made, ..Queue::new(name, terms) };
        if let Some(free) = self.list.iter().position(Option::is_none) {
            self.list[free] = Some(queue);
            return Some(free as u8);
        }
        if self.list.len() == QUEUES_MAX {
            return None;
        }
        self.list.push(Some(queue));
        Some((self.list.len() - 1) as u8)
    }

    /// The queue in this place; the default one if there is none any more.
    pub(super) fn at(&mut self, id: u8) -> &mut Queue {
        let there = self.list.get(usize::from(id)).is_some_and(Option::is_some);
        let place = if there { usize::from(id) } else { usize::from(DEFAULT) };
        self.list[place].as_mut().expect("the default queue is never given back")
    }

    pub(super) fn get(&self, id: u8) -> Option<&Queue> {
        self.list.get(usize::from(id))?.as_ref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, &Queue)> {
        (0..).zip(&self.list).filter_map(|(id, queue)| Some((id, queue.as_ref()?)))
    }

    fn each(&mut self) -> impl Iterator<Item = (u8, &mut Queue)> {
        (0..).zip(&mut self.list).filter_map(|(id, queue)| Some((id, queue.as_mut()?)))
    }

    /// Whether the default queue is the only one.
    pub(super) fn is_default_alone(&self) -> bool {
        self.iter().count() == 1
    }

    /// Whether anybody is to be polled.
    pub(super) fn any_ready(&self) -> bool {
        self.iter().any(|(_, queue)| !queue.is_idle())
    }

    /// How many are to be polled.
    pub(super) fn ready(&self) -> usize {
        self.iter().map(|(_, queue)| queue.ready.len() + queue.gave_way.len()).sum()
    }

    /// The shortest of the times that a queue's tasks may wait, in ns.
    pub(super) fn latency_ns(&self) -> u64 {
        self.iter().map(|(_, queue)| queue.terms.latency_ns).min().unwrap_or(u64::MAX)
    }

    /// Puts a slot at the end of a queue's line.
    pub(super) fn push(&mut self, id: u8, place: Place, slot: u32) {
        let now = self.now;
        let queue = self.at(id);
        if queue.is_idle() {
            queue.used = queue.used.max(now);
        }
        match place {
            Place::Ready => queue.ready.push(slot),
            Place::GaveWay => queue.gave_way.push(slot),
        }
    }

    /// Begins a turn for all.
    pub(super) fn begin_turn(&mut self) {
        self.served = 0;
        self.each().for_each(|(_, queue)| queue.begin_turn());
    }

    /// Who is to be served next: the queue with the least virtual time of those that have somebody to be
    /// polled. None if nobody has, or if those that it has became ready in this turn and so wait for the
    /// next.
    pub(super) fn next(&mut self) -> Option<u8> {
        let busy = self.iter().filter(|(_, queue)| !queue.is_idle());
        let (id, queue) = busy.min_by_key(|(_, queue)| (queue.used, queue.terms.latency_ns))?;
        if queue.left == 0 {
            return None;
        }
        self.now = self.now.max(queue.used);
        self.served |= 1 << id;
        Some(id)
    }

    /// Writes down what a queue used; its number, if there is one in this place.
    pub(super) fn used(&mut self, id: u8, polls: u64, ns: u64) -> Option<u64> {
        let queue = self.list.get_mut(usize::from(id))?.as_mut()?;
        queue.polls += polls;
        queue.cpu_ns += ns;
        let charged = ns.max(polls.saturating_mul(LEAST_POLL_NS));
        queue.used += in_virtual_time(charged, queue.terms.shares);
        Some(queue.number)
    }

    /// Takes back what the queue of this number did not use after all, if it is still in its place.
    pub(super) fn unused(&mut self, id: u8, number: u64, ns: u64) {
        let there = self.list.get_mut(usize::from(id)).and_then(Option::as_mut);
        let Some(queue) = there.filter(|queue| queue.number == number) else { return };
        queue.cpu_ns = queue.cpu_ns.saturating_sub(ns);
        queue.used = queue.used.saturating_sub(in_virtual_time(ns, queue.terms.shares));
    }

    /// Ends the turn for all.
    pub(super) fn end_turn(&mut self) {
        let served = self.served;
        self.each().for_each(|(id, queue)| queue.end_turn(served & 1 << id != 0));
    }

    /// Gives a queue's place back, if it has neither handles nor tasks. Turns that are left in its lines
    /// are those of tasks that have ended: they go to the default queue. Whether it did.
    pub(super) fn give_back(&mut self, id: u8) -> bool {
        let is_free = |queue: &Queue| queue.handles == 0 && queue.tasks == 0;
        if id == DEFAULT || !self.get(id).is_some_and(is_free) {
            return false;
        }
        if let Some(mut old) = self.list[usize::from(id)].take() {
            let now = self.now;
            let default = self.at(DEFAULT);
            if default.is_idle() {
                // As where one of its own is woken.
                default.used = default.used.max(now);
            }
            let (ready, gave_way) = (old.ready.len(), old.gave_way.len());
            self.at(DEFAULT).ready.take_behind(&mut old.ready, ready);
            self.at(DEFAULT).ready.take_behind(&mut old.gave_way, gave_way);
        }
        true
    }

    /// Takes all that are to be polled out of all queues: behind `ready`, and behind `gave_way`.
    pub(super) fn empty_into(&mut self, ready: &mut Line, gave_way: &mut Line) {
        for (_, queue) in self.each() {
            let (n, m) = (queue.ready.len(), queue.gave_way.len());
            ready.take_behind(&mut queue.ready, n);
            gave_way.take_behind(&mut queue.gave_way, m);
        }
    }
}

fn in_virtual_time(ns: u64, shares: u32) -> u128 {
    u128::from(ns) * UNIT / u128::from(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(shares: u32) -> Terms {
        Terms { shares, ..Terms::default() }
    }

    /// Serves whoever is next, who uses `ns` and has as much to do again; who it was.
    fn serve(queues: &mut Queues, ns: u64) -> Option<u8> {
        queues.begin_turn();
        let id = queues.next()?;
        let slot = queues.at(id).ready.pop().expect("somebody is left");
        queues.at(id).left -= 1;
        queues.used(id, 1, ns);
        queues.push(id, Place::Ready, slot);
        queues.end_turn();
        Some(id)
    }

    fn times(queues: &mut Queues, n: usize) -> [usize; 4] {
        let mut times = [0; 4];
        for _ in 0..n {
            times[usize::from(serve(queues, 1_000).expect("somebody is ready"))] += 1;
        }
        times
    }

    fn three() -> (Queues, [u8; 2]) {
        let mut queues = Queues::new(Terms::default(), 0);
        let ids = [10, 200].map(|shares| queues.add("q".into(), terms(shares)).expect("room"));
        (queues, ids)
    }

    #[test]
    fn turns_are_shared_out_by_shares() {
        let (mut queues, [poor, rich]) = three();
        queues.push(poor, Place::Ready, 7);
        queues.push(rich, Place::Ready, 8);
        let [_, poor, rich, _] = times(&mut queues, 2_100);
        assert!(poor.abs_diff(100) <= 1 && rich.abs_diff(2_000) <= 1, "{poor} {rich}");
    }

    #[test]
    fn idle_time_earns_nothing() {
        let (mut queues, [poor, rich]) = three();
        queues.push(poor, Place::Ready, 7);
        assert_eq!(times(&mut queues, 1_000)[1], 1_000, "alone it has all");
        queues.push(rich, Place::Ready, 8);
        let [_, poor, rich, _] = times(&mut queues, 2_100);
        assert!(poor.abs_diff(100) <= 2 && rich.abs_diff(2_000) <= 2, "{poor} {rich}");
    }

    #[test]
    fn of_two_that_have_used_as_much_the_more_urgent_is_first() {
        let mut queues = Queues::new(Terms::default(), 0);
        let urgent = Terms { shares: SHARES_DEFAULT, latency_ns: 1_000 };
        let urgent = queues.add("urgent".into(), urgent).expect("room");
        queues.push(DEFAULT, Place::Ready, 0);
        queues.push(urgent, Place::Ready, 1);
        queues.begin_turn();
        assert_eq!(queues.next(), Some(urgent));
        assert_eq!(queues.latency_ns(), 1_000);
    }

    #[test]
    fn whoever_became_ready_in_a_turn_waits_for_the_next() {
        let (mut queues, [poor, rich]) = three();
        queues.push(poor, Place::Ready, 7);
        queues.begin_turn();
        queues.push(rich, Place::Ready, 8);
        assert_eq!(queues.next(), Some(poor));
        queues.used(poor, 1, 1_000);
        assert_eq!(queues.next(), None, "the rich one is next, but not in this turn");
        queues.end_turn();
        queues.begin_turn();
        assert_eq!(queues.next(), Some(rich));
    }

    #[test]
    fn a_place_is_given_back_when_neither_handles_nor_tasks_are_left_and_nothing_is_lost() {
        let (mut queues, [poor, rich]) = three();
        queues.push(poor, Place::Ready, 7);
        queues.push(poor, Place::GaveWay, 8);
        queues.at(poor).tasks = 1;
        queues.at(poor).handles = 0;
        assert!(!queues.give_back(poor), "a task is left");
        queues.at(poor).tasks = 0;
        assert!(queues.give_back(poor) && !queues.give_back(DEFAULT));
        assert_eq!(
            std::iter::from_fn(|| queues.at(DEFAULT).ready.pop()).collect::<Vec<_>>(),
            [7, 8]
        );
        assert_eq!(queues.add("next".into(), terms(1)), Some(poor));
        assert!(!queues.is_default_alone());
        for id in [poor, rich] {
            queues.at(id).handles = 0;
            queues.give_back(id);
        }
        assert!(queues.is_default_alone());
    }

    #[test]
    fn time_is_not_given_back_to_a_queue_that_came_into_the_place_later() {
        let mut queues = Queues::new(Terms::default(), 0);
        let id = queues.add("first".into(), terms(10)).expect("room");
        let first = queues.used(id, 1, 5_000).expect("it is there");
        queues.at(id).handles = 0;
        assert!(queues.give_back(id));
        assert_eq!(queues.add("second".into(), terms(10)), Some(id));
        let second = queues.used(id, 1, 1_000).expect("it is there");
        queues.unused(id, first, 400);
        assert_eq!(queues.at(id).cpu_ns, 1_000);
        queues.unused(id, second, 400);
        assert_eq!(queues.at(id).cpu_ns, 600);
        let default = queues.used(DEFAULT, 1, 1_000).expect("it is always there");
        queues.unused(DEFAULT, default, 400);
        assert_eq!(queues.at(DEFAULT).cpu_ns, 600);
    }

    #[test]
    fn there_is_a_most() {
        let mut queues = Queues::new(Terms::default(), 0);
        for id in 1..QUEUES_MAX {
            assert_eq!(queues.add("q".into(), terms(1)), Some(id as u8));
        }
        assert_eq!(queues.add("q".into(), terms(1)), None);
    }
}
