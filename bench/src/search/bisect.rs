//! The highest rate that holds a goal: bracketed, halved, and confirmed.
//!
//! Owns the order of the rates and what counts as holding. A rate holds if the majority of its runs do: latency
//! from the intended send time below the bound, the rate reached, nothing unanswered. A run in which the
//! generator was the limit says nothing of the server and counts for neither; where they are the majority, the
//! search ends below, and says so.
//!
//! 1. *hint*: one closed loop, whose rate is about what the server can do;
//! 2. *bracket*: from half of it up or down, until one rate holds and one does not;
//! 3. *halve*: the (geometric) middle of both, until they are near enough;
//! 4. *confirm*: both once more in blocks, in random order; where that contradicts, a step up or down.
//!
//! Each step has an end in time. Knows no processes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::peers::child::Trouble;
use crate::peers::draw::Draw;
use crate::peers::run::Measured;
use crate::trial;
use crate::trial::goal::Point;
use crate::trial::{Ask, Change, Runner, attempt};

/// What to search.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The percentile that must be below …
    pub point: Point,
    /// … this.
    pub bound: Duration,
    /// Settings of the server.
    pub changes: Vec<Change>,
    /// Runs at a rate.
    pub runs: usize,
    /// How near both ends must be: 1.03 for 3 %.
    pub near: f64,
    /// Time for all of it.
    pub budget: Duration,
    /// Seconds that a run is measured: the fewer, the more the number of random requests differs.
    pub seconds: f64,
    /// Where orders come from.
    pub seed: u64,
}

/// Whether a run, or a rate, holds the goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Nobody knows: the generator was the limit.
    Generator,
}

/// A rate and its runs.
#[derive(Clone, Debug, PartialEq)]
pub struct At {
    /// Requests per second.
    pub rate: u64,
    /// Its runs, in their order; an error for those without figures.
    pub runs: Vec<Result<Measured, String>>,
    /// Of them the last ones that confirmed it.
    pub confirming: usize,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// All rates that were tried, the lowest first.
    pub points: Vec<At>,
    /// The highest that holds.
    pub highest: Option<u64>,
    /// The lowest above it that does not.
    pub above: Option<u64>,
    /// How it ended.
    pub ending: Ending,
    /// Requests per second of the closed loop.
    pub closed: f64,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Both ends are confirmed, and near enough.
    Found,
    /// The same, but what is above is the generator's limit.
    GeneratorLimit,
    /// What does not hold was mostly disturbed, which may be why. Said by the results alone.
    Disturbed,
    /// The time was over before both ends were near enough, or confirmed.
    TooShort,
    /// No rate holds.
    NothingHolds,
    /// Ctrl-C.
    Interrupted,
}

/// Of the rate, what must be reached, chance aside.
const RATE_REACHED: f64 = 0.99;
/// Share of the closed loop's rate that is tried first.
const FIRST: f64 = 0.5;
/// Steps while there is no bracket.
const UP: f64 = 1.5;
const DOWN: f64 = 0.5;
/// No rate below this is tried, and none above.
const RATE_MIN: u64 = 10;
const RATE_MAX: u64 = 50_000_000;
/// Times that a confirmation may move the bracket.
const MOVES_MAX: usize = 6;

/// Searches; `watch` hears of each run.
///
/// # Errors
/// If not even a closed loop runs.
pub fn search<R: Runner>(
    runner: &mut R,
    plan: &Plan,
    watch: &mut dyn FnMut(Duration, &str),
) -> Result<Found, Trouble> {
    let began = runner.elapsed();
    watch(began, "a closed loop, for where to begin");
    let Some(first) = trial::first(runner, &Ask { changes: &plan.changes, rate: None })? else {
        let (points, highest, above) = (Vec::new(), None, None);
        return Ok(Found { points, highest, above, ending: Ending::Interrupted, closed: 0.0 });
    };
    let closed = first.figures.get("requests_per_s").copied().unwrap_or(0.0);
    let mut search = Search {
        cost: runner.elapsed() - began,
        end: began + plan.budget,
        runner,
        plan,
        watch,
        points: Vec::new(),
        low: None,
        high: None,
        runs: 0,
    };
    let ending = search.all(closed).unwrap_or_else(|stop| stop);
    let Search { mut points, low, high, .. } = search;
    points.retain(|at| !at.runs.is_empty());
    points.sort_by_key(|at| at.rate);
    Ok(Found { points, highest: low, above: high.map(|(rate, _)| rate), ending, closed })
}

struct Search<'a, R> {
    runner: &'a mut R,
    plan: &'a Plan,
    watch: &'a mut dyn FnMut(Duration, &str),
    /// What a run takes.
    cost: Duration,
    /// When all must be over.
    end: Duration,
    points: Vec<At>,
    low: Option<u64>,
    high: Option<(u64, Holds)>,
    runs: u32,
}

impl<R: Runner> Search<'_, R> {
    fn all(&mut self, closed: f64) -> Result<Ending, Ending> {
        let first = (closed * FIRST).round() as u64;
        self.bracket(round(first.clamp(RATE_MIN, RATE_MAX)))?;
        for _ in 0..MOVES_MAX {
            self.halve()?;
            if self.confirm()? {
                let limit = self.high.map(|(_, holds)| holds);
                return Ok(match limit {
                    Some(Holds::Generator) => Ending::GeneratorLimit,
                    _ if self.near() => Ending::Found,
                    _ => Ending::TooShort,
                });
            }
        }
        Ok(Ending::TooShort)
    }

    /// Until one rate holds and one does not.
    fn bracket(&mut self, mut rate: u64) -> Result<(), Ending> {
        while self.low.is_none() || self.high.is_none() {
            self.try_at(rate)?;
            rate = match (self.low, self.high) {
                (Some(low), None) if low >= RATE_MAX => return Ok(()),
                (Some(low), None) => round((low as f64 * UP) as u64).min(RATE_MAX),
                (None, Some((high, holds))) if high <= RATE_MIN => {
                    return Err(match holds {
                        Holds::Generator => Ending::GeneratorLimit,
                        _ => Ending::NothingHolds,
                    });
                }
                (None, Some((high, _))) => round((high as f64 * DOWN) as u64).max(RATE_MIN),
                _ => rate,
            };
        }
        Ok(())
    }

    /// Until both are near enough, or time is left for the confirmation alone.
    fn halve(&mut self) -> Result<(), Ending> {
        while let (Some(low), Some((high, _))) = (self.low, self.high) {
            let kept = self.cost * (2 * self.plan.runs as u32 + self.plan.runs as u32);
            if self.near() || self.left() < kept {
                break;
            }
            let middle = round((low as f64 * high as f64).sqrt().round() as u64);
            if middle <= low || middle >= high {
                break;
            }
            self.try_at(middle)?;
        }
        Ok(())
    }

    /// Both ends in blocks; false if that moved one of them.
    fn confirm(&mut self) -> Result<bool, Ending> {
        let Some(low) = self.low else { return Ok(true) };
        let mut rates = vec![low];
        rates.extend(self.high.map(|(rate, _)| rate));
        let mut votes: Vec<Vec<Holds>> = vec![Vec::new(); rates.len()];
        for rate in &rates {
            let at = self.at(*rate);
            self.points[at].confirming = 0;
        }
        for block in 0..self.plan.runs {
            let order = Draw::new(self.plan.seed, &format!("confirm/{block}")).order(rates.len());
            for i in order {
                votes[i].push(self.once(rates[i], "confirm")?);
                let at = self.at(rates[i]);
                self.points[at].confirming += 1;
            }
        }
        let low_holds = majority(&votes[0]) == Holds::Yes;
        let high_holds = votes.get(1).map(|votes| majority(votes));
        match (low_holds, high_holds) {
            (true, Some(Holds::Yes)) => {
                self.low = Some(rates[1]);
                let next = round((rates[1] as f64 * self.plan.near.powi(2)) as u64);
                self.high = None;
                self.bracket(next.min(RATE_MAX))?;
                Ok(false)
            }
            (true, other) => {
                // What was said of it when it was tried was said by fewer runs, at another time.
                let rate = self.high.map(|(rate, _)| rate);
                self.high = rate.zip(other);
                Ok(true)
            }
            (false, _) => {
                self.high = Some((low, majority(&votes[0])));
                self.low = None;
                let next = round((low as f64 / self.plan.near.powi(2)) as u64);
                self.bracket(next.max(RATE_MIN))?;
                Ok(false)
            }
        }
    }

    /// Runs at a rate until the majority is certain, and takes it as an end of the bracket.
    fn try_at(&mut self, rate: u64) -> Result<(), Ending> {
        let mut votes = Vec::new();
        while decided(&votes, self.plan.runs).is_none() {
            votes.push(self.once(rate, "try")?);
        }
        match decided(&votes, self.plan.runs).unwrap_or(Holds::No) {
            Holds::Yes => self.low = Some(rate),
            other => self.high = Some((rate, other)),
        }
        Ok(())
    }

    fn once(&mut self, rate: u64, step: &str) -> Result<Holds, Ending> {
        let now = self.runner.elapsed();
        if now >= self.end {
            return Err(Ending::TooShort);
        }
        (self.watch)(now, &format!("{step} {} requests/s", crate::report::units::grouped(rate)));
        let ask = Ask { changes: &self.plan.changes, rate: Some(rate) };
        let outcome = match attempt(self.runner, &ask) {
            Ok(measured) => Ok(measured),
            Err(Trouble::Failed(why)) => Err(why),
            Err(Trouble::Interrupted) => return Err(Ending::Interrupted),
        };
        // What a run takes: the mean of all but the first, which the hint was.
        let took = self.runner.elapsed() - now;
        self.runs += 1;
        self.cost = (self.cost * (self.runs - 1) + took) / self.runs;
        let holds = self.plan.holds(rate, &outcome);
        let at = self.at(rate);
        self.points[at].runs.push(outcome);
        Ok(holds)
    }

    fn at(&mut self, rate: u64) -> usize {
        let known = self.points.iter().position(|at| at.rate == rate);
        known.unwrap_or_else(|| {
            self.points.push(At { rate, runs: Vec::new(), confirming: 0 });
            self.points.len() - 1
        })
    }

    fn near(&self) -> bool {
        match (self.low, self.high) {
            (Some(low), Some((high, _))) => high as f64 <= low as f64 * self.plan.near,
            _ => false,
        }
    }

    fn left(&self) -> Duration {
        self.end.saturating_sub(self.runner.elapsed())
    }
}

impl Plan {
    /// Whether a run holds the goal.
    pub fn holds(&self, rate: u64, run: &Result<Measured, String>) -> Holds {
        let Ok(run) = run else { return Holds::No };
        let figure = |key: &str| run.figures.get(key).copied();
        if figure("generator_limited").unwrap_or(0.0) > 0.0 {
            return Holds::Generator;
        }
        // The number of random requests differs from the mean by its root now and then, and by four times that
        // about never.
        let chance = 4.0 / (rate as f64 * self.seconds).sqrt();
        let reached = figure("rate_reached").is_some_and(|share| share >= RATE_REACHED - chance);
        let answered = figure("unanswered").unwrap_or(0.0) == 0.0;
        let below = figure(self.point.key).is_some_and(|us| us < self.bound.as_secs_f64() * 1e6);
        if reached && answered && below { Holds::Yes } else { Holds::No }
    }
}

impl At {
    /// Whether the rate holds, by the runs that decide.
    pub fn holds(&self, plan: &Plan) -> Holds {
        let votes: Vec<Holds> =
            self.deciding().iter().map(|run| plan.holds(self.rate, run)).collect();
        majority(&votes)
    }

    /// Its last runs if they confirm it, else all.
    pub fn deciding(&self) -> &[Result<Measured, String>] {
        let from = if self.confirming > 0 { self.runs.len() - self.confirming } else { 0 };
        &self.runs[from..]
    }
}

/// What more than half say; without one what is not a yes, the generator's limit if that is said more often.
fn majority(votes: &[Holds]) -> Holds {
    let count = |what: Holds| votes.iter().filter(|vote| **vote == what).count();
    if count(Holds::Yes) * 2 > votes.len() {
        return Holds::Yes;
    }
    if count(Holds::Generator) > count(Holds::No) { Holds::Generator } else { Holds::No }
}

/// The majority of `of` votes, as soon as no further vote can change it.
fn decided(votes: &[Holds], of: usize) -> Option<Holds> {
    let most = of / 2 + 1;
    let sure = [Holds::Yes, Holds::No, Holds::Generator]
        .into_iter()
        .find(|what| votes.iter().filter(|vote| *vote == what).count() >= most);
    match sure {
        Some(what) => Some(what),
        None if votes.len() >= of => Some(majority(votes)),
        None => None,
    }
}

/// To three digits: what is between them nobody can tell.
fn round(rate: u64) -> u64 {
    let unit = 10u64.pow(rate.max(1).ilog10().saturating_sub(2));
    rate.div_euclid(unit) * unit
}

#[cfg(test)]
#[path = "bisect_tests.rs"]
mod tests;
