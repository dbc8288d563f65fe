//! Pieces with more than one task: groups, gathers, tasks as they end, races, shields.
//!
//! Owns a piece for each. Every task of a set counts itself while its future lives, so that a set which ends
//! too early, or never lets go of what it cancelled, is seen; what it gives is compared with what its tasks
//! said they would do.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use coreloop::combine::{Either, TaskFailure, TaskGroup, WaitError, When};
use coreloop::combine::{as_completed, gather, group, race, shield, try_gather, wait};
use coreloop::task::JoinHandle;
use coreloop::{spawn, yield_now};

use super::Seat;
use crate::sim_workload::ledger::Guard;

/// Turns until tasks that were cancelled must be gone.
const TURNS_MAX: u32 = 20_000;

pub(super) async fn play(seat: &Seat) {
    match seat.ledger.below(8) {
        0..=2 => grouped(seat).await,
        3 => gathered(seat).await,
        4 => tried(seat).await,
        5 => as_they_end(seat).await,
        6 => raced(seat).await,
        _ => shielded(seat).await,
    }
}

/// How many futures of a set are alive.
#[derive(Clone, Default)]
struct Alive(Rc<Cell<u32>>);

/// One of them.
struct Lives(Alive, #[allow(dead_code)] Guard);

impl Alive {
    fn one(&self, seat: &Seat) -> Lives {
        self.0.set(self.0.get() + 1);
        Lives(self.clone(), seat.ledger.guard())
    }

    fn check_none(&self, seat: &Seat, what: &str) {
        let n = self.0.get();
        seat.check(n == 0, || format!("{n} tasks outlive {what}"));
    }

    /// Those of a set that was dropped end within a few turns.
    async fn go(&self, seat: &Seat, what: &str) {
        for _ in 0..TURNS_MAX {
            if self.0.get() == 0 {
                return;
            }
            yield_now().await;
        }
        self.check_none(seat, what);
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// Children that have children, fail or are cancelled; none outlives the group.
async fn grouped(seat: &Seat) {
    let alive = Alive::default();
    let (failing, sum) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let body_fails = seat.ledger.chance(10);
    let (own, of_body, fails, adds) = (seat.clone(), alive.clone(), failing.clone(), sum.clone());
    let whole = group(async move |g: &TaskGroup<u64>| {
        let _alive = of_body.one(&own);
        let mut children = Vec::new();
        for number in 0..1 + own.ledger.below(5) {
            let lives = of_body.one(&own);
            let parts = (own.clone(), of_body.clone(), g.clone(), fails.clone(), adds.clone());
            children.push(g.spawn(async move {
                let (seat, alive, g, fails, adds) = parts;
                let _lives = lives;
                seat.dawdle().await;
                if seat.ledger.chance(20) {
                    let (seat, lives, adds) = (seat.clone(), alive.one(&seat), adds.clone());
                    drop(g.spawn(async move {
                        let _lives = lives;
                        seat.dawdle().await;
                        adds.set(adds.get() + 1);
                        Ok(())
                    }));
                }
                if seat.ledger.chance(10) {
                    fails.set(fails.get() + 1);
                    return Err(number);
                }
                adds.set(adds.get() + 1);
                Ok(number)
            }));
        }
        own.dawdle().await;
        if own.ledger.chance(20) {
            children[0].cancel();
        }
        for (number, child) in children.into_iter().enumerate() {
            if own.ledger.chance(50)
                && let Ok(value) = child.await
            {
                own.check(value == number as u64, || format!("child {number} gave {value}"));
            }
        }
        if body_fails { Err(99) } else { Ok(()) }
    });
    match seat.perhaps(25, whole).await {
        None => alive.go(seat, "a group that was dropped").await,
        Some(Ok(())) => {
            alive.check_none(seat, "their group");
            let fails = failing.get();
            seat.check(fails == 0 && !body_fails, || format!("{fails} fail in a group: fine"));
        }
        Some(Err(e)) => {
            alive.check_none(seat, "their group that failed");
            let (told, most) = (e.failures().len(), failing.get() + usize::from(body_fails));
            seat.check(told > 0 && told <= most, || format!("{told} failures of {most}: {e}"));
        }
    }
}

/// All values in order; with a limit the tasks go.
async fn gathered(seat: &Seat) {
    let alive = Alive::default();
    let many = 1 + seat.ledger.below(5);
    let tasks = (0..many).map(|number| {
        let (seat, lives) = (seat.clone(), alive.one(seat));
        async move {
            let _lives = lives;
            seat.dawdle().await;
            number
        }
    });
    let gathered = gather(tasks.collect::<Vec<_>>());
    let cancelled = seat.ledger.chance(20);
    if cancelled {
        gathered.cancel();
    }
    match seat.perhaps(30, gathered).await {
        None => alive.go(seat, "a gather that was dropped by a limit").await,
        Some(values) => {
            alive.check_none(seat, "their gather");
            let right = |(number, value): (usize, &Result<u64, _>)| match value {
                Ok(value) => *value == number as u64 && !cancelled,
                Err(_) => cancelled,
            };
            let all = values.len() as u64 == many && values.iter().enumerate().all(right);
            seat.check(all, || format!("{many} tasks gave {values:?}; cancelled: {cancelled}"));
        }
    }
}

/// All values, or the error of one that fails; the others run on then.
async fn tried(seat: &Seat) {
    let alive = Alive::default();
    let fails: Vec<_> = (0..1 + seat.ledger.below(5)).map(|_| seat.ledger.chance(20)).collect();
    let tasks = fails.iter().enumerate().map(|(number, &fails)| {
        let (seat, lives) = (seat.clone(), alive.one(seat));
        async move {
            let _lives = lives;
            seat.dawdle().await;
            if fails { Err(number) } else { Ok(number) }
        }
    });
    let tried = try_gather(tasks.collect::<Vec<_>>());
    match seat.perhaps(25, tried).await {
        None => {}
        Some(Ok(values)) => {
            alive.check_none(seat, "their gather");
            let right = values.iter().copied().eq(0..fails.len()) && !fails.contains(&true);
            seat.check(right, || format!("{values:?} of tasks of which {fails:?} fail"));
        }
        Some(Err(e)) => {
            let at = e.index();
            let right = fails[at] && matches!(e.reason(), TaskFailure::Error(n) if *n == at);
            seat.check(right, || format!("a gather of {fails:?}: task {at} failed"));
        }
    }
    alive.go(seat, "a gather with errors").await;
}

/// Tasks that say in which order they ended.
fn numbered(seat: &Seat, alive: &Alive, many: u64) -> Vec<JoinHandle<u32>> {
    let ended = Rc::new(Cell::new(0));
    (0..many)
        .map(|_| {
            let (seat, ended, lives) = (seat.clone(), ended.clone(), alive.one(seat));
            spawn(async move {
                let _lives = lives;
                seat.dawdle().await;
                seat.dawdle().await;
                ended.set(ended.get() + 1);
                ended.get()
            })
        })
        .collect()
}

/// Each once, in the order of their ends; none is late that has ended.
async fn as_they_end(seat: &Seat) {
    let alive = Alive::default();
    let many = 1 + seat.ledger.below(6);
    let mut tasks = numbered(seat, &alive, many);
    if seat.ledger.chance(30) {
        let until = [When::FirstCompleted, When::AllCompleted][seat.ledger.below(2) as usize];
        let waited = wait(&mut tasks, until, None).await;
        let done = waited.done.len();
        let enough = if until == When::AllCompleted { tasks.len() } else { 1 };
        seat.check(done >= enough, || format!("{done} tasks have ended, {enough} must have"));
        let all = done + waited.pending.len();
        seat.check(all == tasks.len(), || format!("{all} tasks of {}", tasks.len()));
    }
    let cancelled = seat.ledger.chance(20) && tasks[0].cancel();
    let limit = seat.ledger.chance(20).then(|| seat.ledger.micros(2_000));
    let mut ended = as_completed(tasks);
    if let Some(limit) = limit {
        ended = ended.within(limit);
    }
    let (mut seen, mut last) = (vec![false; many as usize], 0);
    let mut given = 0;
    while given < many {
        // A wait that is dropped loses nothing.
        let Some(next) = seat.perhaps(20, ended.next()).await else { continue };
        let Some((input, result)) = next else {
            return seat.ledger.found(format!("{given} of {many} tasks ended"));
        };
        given += 1;
        let again = std::mem::replace(&mut seen[input], true);
        seat.check(!again, || format!("task {input} ended twice"));
        match result {
            Ok(number) => {
                seat.check(number > last, || format!("end {number} came behind end {last}"));
                last = number;
            }
            Err(WaitError::Elapsed) => {
                seat.check(limit.is_some(), || format!("task {input} is late for nothing"));
            }
            Err(WaitError::Join(e)) => {
                let right = e.is_cancelled() && cancelled && input == 0;
                seat.check(right, || format!("task {input}: {e}"));
            }
        }
    }
    let more = ended.next().await.is_some();
    seat.check(!more, || "more tasks ended than there are".to_owned());
    drop(ended);
    alive.go(seat, "tasks that were waited for").await;
}

/// The loser is dropped when the winner has won.
async fn raced(seat: &Seat) {
    let alive = Alive::default();
    let runner = |number: u64| {
        let (seat, lives) = (seat.clone(), alive.one(seat));
        async move {
            let _lives = lives;
            yield_now().await;
            seat.dawdle().await;
            number
        }
    };
    let (a, b) = (runner(1), runner(2));
    let tasks = seat.ledger.chance(40);
    let won = match tasks {
        // Tasks are cancelled with the race, and end at their next turn.
        true => race(spawn(a), spawn(b)).await.map_both(|won| won.unwrap_or_default()),
        false => race(a, b).await,
    };
    match won {
        Either::First(n) => seat.check(n == 1, || format!("the first of two gave {n}")),
        Either::Second(n) => seat.check(n == 2, || format!("the second of two gave {n}")),
    }
    if !tasks {
        alive.check_none(seat, "their race");
    }
    alive.go(seat, "a race of tasks").await;
}

trait MapBoth<T> {
    fn map_both<U>(self, f: impl FnOnce(T) -> U) -> Either<U, U>;
}

impl<T> MapBoth<T> for Either<T, T> {
    fn map_both<U>(self, f: impl FnOnce(T) -> U) -> Either<U, U> {
        match self {
            Self::First(value) => Either::First(f(value)),
            Self::Second(value) => Either::Second(f(value)),
        }
    }
}

/// A limit, a lost race or a cancel of who waits does not reach the task.
async fn shielded(seat: &Seat) {
    let alive = Alive::default();
    let (own, lives) = (seat.clone(), alive.one(seat));
    let ended = Rc::new(Cell::new(false));
    let ends = ended.clone();
    let mut task = spawn(async move {
        let _lives = lives;
        own.ledger.sleep(own.ledger.micros(1_500)).await;
        own.dawdle().await;
        ends.set(true);
        41
    });
    let value = match seat.ledger.below(3) {
        0 => {
            let awaits = spawn(async move {
                let value = shield(&mut task).await;
                (value.is_ok(), task.is_finished())
            });
            seat.dawdle().await;
            if awaits.cancel() {
                // The handle went with whoever waited; the task runs on, to its end.
                seat.check(awaits.await.is_err(), || "a cancelled task ended".to_owned());
                while alive.0.get() > 0 {
                    coreloop::time::sleep(Duration::from_micros(100)).await;
                }
                return seat.check(ended.get(), || "a shielded task was cancelled".to_owned());
            }
            match awaits.await {
                Ok(ended) => {
                    return seat.check(ended == (true, true), || format!("a shield: {ended:?}"));
                }
                Err(e) => return seat.ledger.found(format!("a shield's awaiter: {e}")),
            }
        }
        1 => match seat.perhaps(80, shield(&mut task)).await {
            Some(value) => value,
            None => task.await,
        },
        _ => match race(shield(&mut task), yield_now()).await {
            Either::First(value) => value,
            Either::Second(()) => task.await,
        },
    };
    seat.check(matches!(value, Ok(41)), || format!("a shielded task gave {value:?}"));
}
