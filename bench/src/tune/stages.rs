//! The search: from all candidates to one that is confirmed, or to none.
//!
//! Owns the stages and their shares of the time:
//!
//! 1. *screen*: the defaults with one thing changed, and the profiles, by successive halving;
//! 2. *combine*: the best of those that change different things, put together, by successive halving;
//! 3. *effects*: the winner beside itself without each of its changes; a change that makes no resolved
//!    difference is left out;
//! 4. *confirm*: what is left beside the defaults, in blocks that had no part in choosing it. Of many
//!    candidates one always looks good by chance: only these blocks say whether it is.
//!
//! Every stage has an end in time, and the last one its share kept. Knows no processes.

use std::time::Duration;

use crate::peers::child::Trouble;
use crate::peers::interval::{BLOCKS_MIN, Ratio, Verdict};
use crate::peers::run::Measured;
use crate::trial;
use crate::trial::goal::Goal;
use crate::trial::{Ask, Runner};
use crate::tune::contest::{Contest, Ended, GaveUp, Log, Terms};
use crate::tune::judge::Judged;
use crate::tune::schedule::{Round, halving};
use crate::tune::space::Candidate;

/// What to search.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What for.
    pub goal: Goal,
    /// Where orders and samples come from.
    pub seed: u64,
    /// Time for all of it.
    pub budget: Duration,
    /// What may win.
    pub candidates: Vec<Candidate>,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    /// What decided.
    pub judged: Judged,
    /// The open loop's rate.
    pub rate: Option<u64>,
    /// The stages that took place, in their order.
    pub stages: Vec<Contest>,
    /// Candidates for which there was no time.
    pub untried: Vec<Candidate>,
    /// The changes of the combination's winner that were looked at one by one: the figure with it over the
    /// figure without, and whether it was kept.
    pub effects: Vec<Effect>,
    /// Who went into the last stage.
    pub winner: Option<Candidate>,
    /// How that ended.
    pub outcome: Outcome,
    /// Every run.
    pub log: Log,
}

/// What one change of the winner does.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The setting.
    pub name: String,
    /// Its value.
    pub value: String,
    /// With it over without it.
    pub ratio: Option<Ratio>,
    /// Whether it is in what was confirmed.
    pub kept: bool,
}

/// What the last stage says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    /// The winner beats the defaults by a resolved margin.
    Tuned(Ratio),
    /// Nothing does: the nearest came to this.
    DefaultsHold(Option<Ratio>),
    /// Nothing does: the nearest is no server that one would want.
    GaveUp(GaveUp),
    /// It was ended before that was known.
    Interrupted,
    /// There was no time for enough blocks.
    TooShort,
}

/// How the rate of the open loop comes about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// There is none: a closed loop.
    Closed,
    /// As asked for.
    Fixed(u64),
    /// This share of the most that the defaults do.
    Share(f64),
}

const SCREEN_SHARE: f64 = 0.45;
/// Of what is left then.
const COMBINE_SHARE: f64 = 0.25;
/// Of what is left then.
const EFFECTS_SHARE: f64 = 0.45;

/// Candidates that the screening ends with.
const SCREENED: usize = 4;
/// Combinations that are tried.
const COMBINED_MAX: usize = 8;
/// Changes that are put together: more would leave too few blocks for each.
const CHANGES_MAX: usize = 6;
/// More blocks than this resolve nothing that anybody would notice.
const BLOCKS_MAX: usize = 200;
/// What a run takes beyond the time that is measured: starts, warm-up, ends, and one in some that is
/// repeated.
const RUN_EXTRA_S: f64 = 1.0;
/// Room for runs that take longer, or again.
const SLACK: f64 = 1.1;

/// Time in which so many candidates are all tried, if runs of `seconds` take no longer than they do on a
/// quiet machine.
pub fn time_for(candidates: usize, seconds: f64) -> Duration {
    let fewest = |runs: &usize| {
        let rounds = halving(candidates, *runs, SCREENED);
        rounds.first().is_none_or(|round| round.candidates == candidates) && !rounds.is_empty()
    };
    // A block of all in each round: no more than a few times as many.
    let runs = (candidates + 1..=8 * (candidates + 1)).find(fewest).unwrap_or_default();
    let whole = halving(candidates, 3 * runs, SCREENED);
    let runs: usize = whole.iter().map(|round| round.candidates + 1).sum::<usize>().max(runs);
    Duration::from_secs_f64(runs as f64 * (seconds + RUN_EXTRA_S) * SLACK / SCREEN_SHARE)
}

/// Searches. `can` says whether a combination is possible, `watch` hears of each run.
///
/// # Errors
/// If not even the defaults run.
pub fn tune<R: Runner>(
    runner: &mut R,
    plan: &Plan,
    rate: Rate,
    can: impl Fn(&Candidate) -> bool,
    watch: &mut dyn FnMut(Duration, &str),
) -> Result<Found, Trouble> {
    let began = runner.elapsed();
    watch(began, "a first run, which does not count");
    let first = trial::first(runner, &Ask { changes: &[], rate: fixed(rate) })?;
    let rate = first.as_ref().map_or(fixed(rate), |first| rate.after(first));
    let begins = first.is_some();
    let mut search = Search {
        cost: runner.elapsed() - began,
        end: began + plan.budget,
        runner,
        plan,
        found: Found {
            judged: Judged::of(&plan.goal, &[&first.unwrap_or_default()]),
            rate,
            stages: Vec::new(),
            untried: Vec::new(),
            effects: Vec::new(),
            winner: None,
            outcome: Outcome::Interrupted,
            log: Log::default(),
        },
        watch,
    };
    if begins {
        search.stages(can);
    }
    Ok(search.found)
}

impl Rate {
    /// The rate, once the defaults ran.
    pub fn after(self, first: &Measured) -> Option<u64> {
        match self {
            Rate::Closed => None,
            Rate::Fixed(rate) => Some(rate),
            Rate::Share(share) => {
                let most = first.figures.get("requests_per_s").copied().unwrap_or(0.0);
                Some(((most * share / 1e3).floor() as u64 * 1_000).max(1_000))
            }
        }
    }
}

fn fixed(rate: Rate) -> Option<u64> {
    match rate {
        Rate::Fixed(rate) => Some(rate),
        Rate::Closed | Rate::Share(_) => None,
    }
}

struct Search<'a, R> {
    runner: &'a mut R,
    plan: &'a Plan,
    /// What a run takes.
    cost: Duration,
    /// When all must be over.
    end: Duration,
    found: Found,
    watch: &'a mut dyn FnMut(Duration, &str),
}

impl<R: Runner> Search<'_, R> {
    fn stages(&mut self, can: impl Fn(&Candidate) -> bool) {
        let Some(screened) = self.screen() else { return };
        let combinations = combinations(&screened, &can);
        let best = screened.into_iter().next();
        let winner = match combinations.len() {
            // One alone is the best single one: there is nothing to combine.
            0 | 1 => best,
            // If none of them looks better now, the screening's best is still worth being refuted.
            _ => match self.race("combine", combinations, COMBINE_SHARE, 1) {
                Some(ranked) => ranked.into_iter().next().or(best),
                None => return,
            },
        };
        let Some(winner) = winner else {
            // Of fewer blocks nobody can tell a gain from none.
            let known = self.found.stage("screen").is_some_and(|contest| {
                let out = contest.entries.iter().all(|entry| entry.gave_up().is_some());
                let blocks = contest.reference_runs.len();
                blocks >= BLOCKS_MIN || out && blocks > 0
            });
            self.found.outcome =
                if known { Outcome::DefaultsHold(None) } else { Outcome::TooShort };
            return;
        };
        let winner = match winner.changes.len() {
            0 | 1 => Some(winner),
            _ => self.effects(winner),
        };
        if let Some(winner) = winner {
            self.confirm(winner);
        }
    }

    /// Those that the screening ended with, the best first; none if it was interrupted.
    fn screen(&mut self) -> Option<Vec<Candidate>> {
        let runs = self.runs(SCREEN_SHARE);
        let mut field = self.plan.candidates.clone();
        let rounds = halving(field.len(), runs, SCREENED);
        let fits = rounds.first().map_or(0, |round| round.candidates);
        if fits < field.len() {
            // They stand in the order in which they are likely to matter.
            self.found.untried = field.split_off(fits);
        }
        self.race("screen", field, SCREEN_SHARE, SCREENED)
    }

    /// Successive halving; the candidates by rank. None if it was interrupted.
    fn race(
        &mut self,
        stage: &'static str,
        field: Vec<Candidate>,
        share: f64,
        keep: usize,
    ) -> Option<Vec<Candidate>> {
        let rounds = halving(field.len(), self.runs(share), keep);
        let until = self.until(share);
        let mut contest = Contest::new(stage, Candidate::new([]), field);
        let mut ended = Ended::Whole;
        for (i, round) in rounds.iter().enumerate() {
            ended = self.blocks(&mut contest, round.blocks, until);
            if stage == "screen" && i == 0 {
                let reference: Vec<&Measured> = contest.reference_runs.values().collect();
                self.found.judged = Judged::of(&self.plan.goal, &reference);
            }
            if ended != Ended::Whole {
                break;
            }
            let next = rounds.get(i + 1).map_or(keep, |round: &Round| round.candidates);
            contest.halve(next, &self.found.judged);
        }
        let ranked = contest.ranked(&self.found.judged);
        let better = |i: &usize| {
            let entry = &contest.entries[*i];
            let change = contest.change(*i, &self.found.judged);
            change.is_some_and(|change| change < 0.0) && entry.holds(&self.found.judged)
        };
        let better: Vec<Candidate> = ranked
            .into_iter()
            .filter(better)
            .map(|i| contest.entries[i].candidate.clone())
            .take(SCREENED)
            .collect();
        self.found.stages.push(contest);
        (ended != Ended::Interrupted).then_some(better)
    }

    /// The winner with the changes that matter. None if it was interrupted.
    fn effects(&mut self, winner: Candidate) -> Option<Candidate> {
        let changes = winner.changes.len();
        let without: Vec<Candidate> = (0..changes).map(|at| winner.without(at)).collect();
        let blocks = self.runs(EFFECTS_SHARE) / (changes + 1);
        let until = self.until(EFFECTS_SHARE);
        let mut contest = Contest::new("effects", winner.clone(), without);
        let ended = self.blocks(&mut contest, blocks.min(BLOCKS_MAX), until);
        let judged = self.found.judged.clone();
        for (at, (name, value)) in winner.changes.iter().enumerate() {
            let ratio = contest.ratio(at, &judged);
            let behind = |r: Ratio| r.verdict(judged.less_is_better) == Verdict::Behind;
            let helps = ratio.is_some_and(|r| behind(r) && !r.is_equal());
            let needed = !contest.entries[at].holds(&judged);
            // No run without it, or no time for one: the others were tried with it in place.
            let unseen = contest.change(at, &judged).is_none();
            self.found.effects.push(Effect {
                name: name.clone(),
                value: value.clone(),
                ratio: ratio.map(inverse),
                kept: helps || needed || unseen,
            });
        }
        // If none can be told apart from nothing, the one that looks best stands for all of them.
        if !self.found.effects.iter().any(|effect| effect.kept)
            && let Some(at) = contest.ranked(&judged).pop()
        {
            self.found.effects[at].kept = true;
        }
        let kept = self.found.effects.iter().filter(|effect| effect.kept);
        let kept = Candidate::new(kept.map(|e| (e.name.clone(), e.value.clone())));
        self.found.stages.push(contest);
        (ended != Ended::Interrupted).then_some(kept)
    }

    fn confirm(&mut self, winner: Candidate) {
        let blocks = (self.runs(1.0) / 2).min(BLOCKS_MAX);
        let until = self.end;
        let mut contest = Contest::new("confirm", Candidate::new([]), vec![winner.clone()]);
        let ended = self.blocks(&mut contest, blocks, until);
        let judged = &self.found.judged;
        let ratio = contest.ratio(0, judged);
        let entry = &contest.entries[0];
        let holds = entry.holds(judged);
        // That the defaults do not keep up either says nothing of the winner.
        let alone = contest.reference_runs.len() * 2 >= entry.blocks();
        let gave_up = entry.gave_up().filter(|how| match how {
            GaveUp::Failed => true,
            GaveUp::FellBehind => alone && entry.blocks() >= BLOCKS_MIN,
        });
        self.found.outcome = match (gave_up, ratio) {
            _ if ended == Ended::Interrupted => Outcome::Interrupted,
            (Some(how), _) => Outcome::GaveUp(how),
            (_, Some(ratio)) if ratio.blocks < BLOCKS_MIN => Outcome::TooShort,
            (_, None) => Outcome::TooShort,
            (_, Some(ratio))
                if holds
                    && !ratio.is_equal()
                    && ratio.verdict(judged.less_is_better) == Verdict::Ahead =>
            {
                Outcome::Tuned(ratio)
            }
            (_, ratio) => Outcome::DefaultsHold(ratio),
        };
        self.found.winner = Some(winner);
        self.found.stages.push(contest);
    }

    fn blocks(&mut self, contest: &mut Contest, count: usize, until: Duration) -> Ended {
        let terms = Terms { seed: self.plan.seed, rate: self.found.rate, until };
        let (began, ran) = (self.runner.elapsed(), self.found.log.runs.len());
        let ended = contest.blocks(self.runner, count, terms, &mut self.found.log, self.watch);
        let ran = (self.found.log.runs.len() - ran) as u32;
        if let Some(each) = (self.runner.elapsed() - began).checked_div(ran) {
            self.cost = each;
        }
        ended
    }

    /// Runs that fit into a share of the time left.
    fn runs(&self, share: f64) -> usize {
        let time = self.left().as_secs_f64() * share;
        (time / (self.cost.as_secs_f64() * SLACK).max(1e-3)) as usize
    }

    fn until(&self, share: f64) -> Duration {
        self.runner.elapsed() + self.left().mul_f64(share)
    }

    fn left(&self) -> Duration {
        self.end.saturating_sub(self.runner.elapsed())
    }
}

impl Found {
    /// The stage of that name, if it took place.
    pub fn stage(&self, name: &str) -> Option<&Contest> {
        self.stages.iter().find(|contest| contest.stage == name)
    }
}

/// The best of those that change different things: each pair, and the first three, four … together. The
/// best one itself takes part.
fn combinations(screened: &[Candidate], can: &impl Fn(&Candidate) -> bool) -> Vec<Candidate> {
    let Some(best) = screened.first() else { return Vec::new() };
    // Of two values of one setting the better one alone is worth combining.
    let mut apart: Vec<&Candidate> = Vec::new();
    for candidate in screened {
        let shares = |other: &&Candidate| {
            other.changes.iter().any(|(n, _)| candidate.changes.iter().any(|(m, _)| m == n))
        };
        if !apart.iter().any(shares) {
            apart.push(candidate);
        }
    }
    let mut all = vec![best.clone()];
    let mut offer = |parts: &[&Candidate]| {
        let changes = parts.iter().flat_map(|candidate| candidate.changes.iter().cloned());
        let candidate = Candidate::new(changes);
        let new = !all.contains(&candidate) && candidate.changes.len() <= CHANGES_MAX;
        if new && all.len() < COMBINED_MAX && can(&candidate) {
            all.push(candidate);
        }
    };
    for count in 2..=apart.len() {
        offer(&apart[..count]);
    }
    for (i, first) in apart.iter().enumerate() {
        for second in &apart[i + 1..] {
            offer(&[first, second]);
        }
    }
    all
}

/// The other way round.
fn inverse(ratio: Ratio) -> Ratio {
    Ratio {
        median: 1.0 / ratio.median,
        low: 1.0 / ratio.high,
        high: 1.0 / ratio.low,
        blocks: ratio.blocks,
    }
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
