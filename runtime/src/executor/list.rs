//! The tasks of a loop, with what each waits for.
//!
//! Owns the look that brings together what the layers below know of a task: its slot, the ops and timers that
//! would wake it, the tasks whose end it waits for. Nothing of it is kept while tasks run: it is read off the
//! wakers when somebody asks, and costs nothing before.
//!
//! A look reads all places of tasks, ops and timers, which may be very many: a [`Look`] does it in slices,
//! between which the loop runs. Tasks come and go meanwhile. Invariants: a task that is there from the first
//! slice to the last is listed exactly once, none is listed twice, and a wait is only ever noted with the
//! task that its waker names, not with a later one in the same slot.

use std::time::Duration;

use super::{Core, context};
use crate::task::info::Note;
use crate::task::{TaskId, TaskInfo, TaskState, WaitsFor, Word};

/// Every task of the running loop that has not ended, the main future first, then in the order of their
/// slots. Empty outside a loop.
///
/// It reads all tasks, ops and timers of the core at once, and keeps it meanwhile: with very many of them,
/// [`Handle::tasks`](crate::Handle::tasks) does it in small slices.
///
/// ```
/// use coreloop::{all_tasks, spawn_named, time::sleep, yield_now};
/// use std::time::Duration;
///
/// coreloop::run(async {
///     let _nap = spawn_named("nap", sleep(Duration::from_secs(3600)));
///     yield_now().await;
///     for task in all_tasks() {
///         println!("{task}");
///     }
///     let nap = all_tasks().into_iter().find(|task| task.name.as_deref() == Some("nap")).unwrap();
///     assert!(nap.waits_for[0].to_string().starts_with("a timer in 3600"));
///     assert_eq!(nap.polls, Some(1));
/// })
/// .unwrap();
/// ```
pub fn all_tasks() -> Vec<TaskInfo> {
    context::with_core(Core::all_tasks).unwrap_or_default()
}

impl Core {
    /// Whether a slice of a question that takes several may be answered now: one in a turn, of all of them.
    pub(crate) fn may_slice(&self) -> bool {
        let turn = self.turns.get();
        self.sliced.replace(turn) != turn
    }

    /// See [`all_tasks`].
    pub(crate) fn all_tasks(&self) -> Vec<TaskInfo> {
        let mut look = Look { one_runs: true, ..Look::new(0, usize::MAX) };
        while !look.slice(self) {}
        look.found
    }
}

/// A look under way. It may travel to whoever asked for it.
#[derive(Debug)]
pub(crate) struct Look {
    /// The tasks so far, by slot.
    pub(crate) found: Vec<TaskInfo>,
    /// Of those in later slots: how many there were.
    pub(crate) left_out: usize,
    /// Whether it is made within a poll, and not between two.
    one_runs: bool,
    room: usize,
    first: u32,
    now_ns: u64,
    /// The first slot that is not among those listed.
    end: u32,
    at: At,
}

/// What is read next: the place of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Tasks(u32),
    Joins(u32),
    Ops(u32),
    Timers(u32),
    End,
}

/// What a slice may cost. A unit is some 10 ns where nothing is in the caches: a slice is a half of the
/// 100 µs that a look may keep a core at most.
const SLICE: u32 = 4096;
/// To read what a task is, or to note a wait with one, takes some allocations.
const NOTE: u32 = 16;
/// To find out who waits for a task's end takes a line of its memory.
const JOIN: u32 = 4;

/// Tasks that one slice lists at most.
#[cfg(test)]
const SLICE_TASKS_MAX: u32 = SLICE / NOTE;

impl Look {
    /// One for at most `max` tasks from slot `first` on, made between polls.
    pub(crate) fn new(first: u32, max: usize) -> Self {
        let at = At::Tasks(first);
        Self {
            found: Vec::new(),
            left_out: 0,
            one_runs: false,
            room: max,
            first,
            now_ns: 0,
            end: first,
            at,
        }
    }

    /// Where a look at the further tasks begins.
    pub(crate) fn rest(&self) -> Option<u32> {
        (self.left_out > 0).then_some(self.end)
    }

    /// Reads on, for a bounded time. Whether it was the last slice.
    pub(crate) fn slice(&mut self, core: &Core) -> bool {
        self.now_ns = core.timers.now_ns();
        let mut left = SLICE;
        while left > 0 && self.at != At::End {
            left = left.saturating_sub(self.step(core));
        }
        self.at == At::End
    }

    /// Reads one place, and says what that cost.
    fn step(&mut self, core: &Core) -> u32 {
        match self.at {
            At::Tasks(slot) if slot < core.tasks.slots() && self.room > 0 => {
                if self.found.is_empty() {
                    let most = (core.tasks.slots() - slot) as usize;
                    self.found.reserve_exact(most.min(self.room));
                }
                self.end = slot + 1;
                self.at = At::Tasks(self.end);
                let Some(info) = core.tasks.info_at(slot, self.one_runs) else { return 1 };
                self.room -= 1;
                self.found.push(info);
                NOTE
            }
            At::Tasks(_) => {
                // The main future is in none of the slots that are counted below.
                self.left_out = usize::from(self.end == 0);
                self.at = At::Joins(0);
                1
            }
            At::Joins(slot) if slot < core.tasks.slots() => {
                self.at = At::Joins(slot + 1);
                let Some((task, joiner)) = core.tasks.joined_at(slot) else { return 1 };
                self.left_out += usize::from(slot >= self.end);
                JOIN + joiner.map_or(0, |joiner| self.note(joiner, || WaitsFor::Task(task)))
            }
            At::Joins(_) => {
                self.at = At::Ops(0);
                1
            }
            At::Ops(place) if place < core.driver.places() => {
                self.at = At::Ops(place + 1);
                let mut cost = 1;
                core.driver.waiting_at(place, |waker, name, fd| {
                    if let Some(word) = Word::of_waker(waker) {
                        cost += self.note(word, || WaitsFor::Op { name, fd });
                    }
                });
                cost
            }
            At::Ops(_) => {
                self.at = At::Timers(0);
                1
            }
            At::Timers(place) if place < core.timers.places() => {
                self.at = At::Timers(place + 1);
                let mut cost = 1;
                core.timers.at(place, |deadline_ns, waker| {
                    if let Some(word) = Word::of_waker(waker) {
                        let left = Duration::from_nanos(deadline_ns.saturating_sub(self.now_ns));
                        cost += self.note(word, || WaitsFor::Timer { left });
                    }
                });
                cost
            }
            At::Timers(_) | At::End => {
                self.at = At::End;
                1
            }
        }
    }

    /// Adds what the task of a word waits for to what is known of it, unless it is running or not listed.
    fn note(&mut self, word: Word, wait: impl FnOnce() -> WaitsFor) -> u32 {
        if word.slot() < self.first || word.slot() >= self.end {
            return 0;
        }
        let id = TaskId::of(word);
        let at = self.found.binary_search_by_key(&word.slot(), |task| task.id.slot());
        if let Ok(at) = at
            && let task = &mut self.found[at]
            && task.id == id
            && task.state != TaskState::Running
        {
            // A limit that is none says nothing beside what it limits.
            task.waits_for.retain(|wait| *wait != WaitsFor::Other(Note::NEVER));
            task.waits_for.push(wait());
        }
        NOTE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{spawn, time::sleep, yield_now};

    fn now<T>(f: impl FnOnce(&Core) -> T) -> T {
        context::with_core(f).unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn of_all_looks_one_slice_is_read_in_a_turn() {
        crate::run(async {
            // Each turn is a whole one: a timer is due in it, or something was asked for.
            let turn = || sleep(Duration::from_nanos(1));
            turn().await;
            assert!(now(Core::may_slice));
            assert!(!now(Core::may_slice) && !now(Core::may_slice));
            turn().await;
            turn().await;
            sleep(Duration::from_millis(2)).await;
            assert!(now(Core::may_slice));
        })
        .unwrap();
    }

    #[test]
    fn a_slice_has_a_bound_and_tasks_that_stay_are_listed_once_while_others_come_and_go() {
        crate::run(async {
            let mut naps: Vec<_> = (0..20_000).map(|_| spawn(sleep(HOUR))).collect();
            yield_now().await;
            let (mut found, mut next, mut slices) = (Vec::new(), Some(0), 0);
            let mut stay: Vec<_> =
                naps.iter().step_by(3).map(crate::task::JoinHandle::id).collect();
            while let Some(first) = next {
                let mut look = Look::new(first, 3000);
                loop {
                    let before = (look.found.len(), look.at);
                    let ended = now(|core| look.slice(core));
                    assert!(look.found.len() - before.0 <= SLICE_TASKS_MAX as usize);
                    let (from, to) = match (before.1, look.at) {
                        (At::Joins(a), At::Joins(b))
                        | (At::Ops(a), At::Ops(b))
                        | (At::Timers(a), At::Timers(b)) => (a, b),
                        _ => (0, 0),
                    };
                    assert!(to - from <= SLICE, "{before:?} {look:?}");
                    slices += 1;
                    // One goes, one comes, which may take the other's slot and timer.
                    let gone = naps.iter().position(|nap| !stay.contains(&nap.id())).unwrap();
                    naps.swap_remove(gone).cancel();
                    yield_now().await;
                    naps.push(spawn(sleep(HOUR)));
                    yield_now().await;
                    if ended {
                        break;
                    }
                }
                next = look.rest();
                found.extend(look.found);
            }
            assert!(slices > 200, "{slices}");
            let slots: Vec<_> = found.iter().map(|task| task.id.slot()).collect();
            assert!(slots.is_sorted_by(|a, b| a < b), "each once");
            stay.sort_by_key(|id| id.slot());
            for id in stay {
                let at = slots.binary_search(&id.slot()).unwrap();
                assert_eq!(found[at].id, id);
                assert!(
                    matches!(found[at].waits_for[..], [WaitsFor::Timer { .. }]),
                    "{:?}",
                    found[at]
                );
            }
        })
        .unwrap();
    }
}
