//! Candidates beside a reference, in blocks: runs, their figures, and who is ahead.
//!
//! Owns the order within a block (drawn from the seed), and what becomes of a candidate whose runs fail. A
//! candidate is compared with the reference within blocks only, so that what changes from minute to minute
//! cancels out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::peers::child::Trouble;
use crate::peers::draw::Draw;
use crate::peers::interval::{Ratio, median};
use crate::peers::run::Measured;
use crate::trial::{Ask, Runner, attempt};
use crate::tune::judge::Judged;
use crate::tune::space::Candidate;

/// Everything that ran, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// The runs.
    pub runs: Vec<RunLog>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunLog {
    /// `screen`, `combine`, `effects` or `confirm`.
    pub stage: String,
    /// The block, from 0 in each stage.
    pub block: usize,
    /// The candidate.
    pub candidate: String,
    /// Figures by key.
    pub figures: BTreeMap<String, f64>,
    /// What disturbed it.
    pub marks: Vec<String>,
    /// What the server failed at.
    #[serde(default)]
    pub faults: Vec<String>,
    /// Why it has no figures.
    pub error: Option<String>,
}

/// Candidates and what they did.
#[derive(Clone, Debug)]
pub struct Contest {
    /// The name of its stage.
    pub stage: &'static str,
    /// What they are compared with.
    pub reference: Candidate,
    /// The reference's figures by block; none of blocks in which it fell behind.
    pub reference_runs: BTreeMap<usize, Measured>,
    /// Those who take part.
    pub entries: Vec<Entry>,
    blocks: usize,
}

/// One who takes part.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who.
    pub candidate: Candidate,
    /// Its figures by block; none of blocks in which it fell behind: those would be of an overload.
    pub runs: BTreeMap<usize, Measured>,
    /// Blocks in which it fell behind.
    pub behind: usize,
    /// Whether it still runs: those that were left behind, or failed, do not.
    pub active: bool,
    failures: usize,
}

/// What runs are made for: where, under which load, until when.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Where orders come from.
    pub seed: u64,
    /// The open loop's rate.
    pub rate: Option<u64>,
    /// When no further run may begin.
    pub until: Duration,
}

/// How a series of blocks ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All were run.
    Whole,
    /// The time was over.
    Time,
    /// Ctrl-C.
    Interrupted,
}

/// Failures after which a candidate is not tried again.
const FAILURES_MAX: usize = 2;

/// Why a candidate is out, whatever its figures are where it has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GaveUp {
    /// It gave no figures, twice.
    Failed,
    /// It did not keep up in most of its blocks.
    FellBehind,
}

impl Entry {
    /// Whether it kept up in at least half of its blocks.
    pub fn keeps_up(&self) -> bool {
        self.behind <= self.runs.len()
    }

    /// Whether nothing is to be had of it.
    pub fn gave_up(&self) -> Option<GaveUp> {
        if self.failures >= FAILURES_MAX {
            return Some(GaveUp::Failed);
        }
        (!self.keeps_up()).then_some(GaveUp::FellBehind)
    }

    /// Blocks that it was run in to their end.
    pub fn blocks(&self) -> usize {
        self.runs.len() + self.behind
    }

    /// Whether it holds what must be held. Who does not keep up holds nothing.
    pub fn holds(&self, judged: &Judged) -> bool {
        self.keeps_up() && judged.holds(self.runs.values())
    }
}

impl Contest {
    /// Nobody has run yet.
    pub fn new(stage: &'static str, reference: Candidate, candidates: Vec<Candidate>) -> Contest {
        let entry = |candidate| Entry {
            candidate,
            runs: BTreeMap::new(),
            behind: 0,
            active: true,
            failures: 0,
        };
        Contest {
            stage,
            reference,
            reference_runs: BTreeMap::new(),
            entries: candidates.into_iter().map(entry).collect(),
            blocks: 0,
        }
    }

    /// Runs blocks of all who are active, until nobody is: the reference alone says nothing. `watch` hears of
    /// each run before it begins.
    pub fn blocks<R: Runner>(
        &mut self,
        runner: &mut R,
        count: usize,
        terms: Terms,
        log: &mut Log,
        watch: &mut dyn FnMut(Duration, &str),
    ) -> Ended {
        for of in 0..count {
            if !self.entries.iter().any(|entry| entry.active) {
                break;
            }
            let block = self.blocks;
            let mut part: Vec<Option<usize>> = vec![None];
            part.extend((0..self.entries.len()).filter(|i| self.entries[*i].active).map(Some));
            let order = Draw::new(terms.seed, &format!("{}/{block}", self.stage)).order(part.len());
            for (at, who) in order.into_iter().map(|at| part[at]).enumerate() {
                if runner.elapsed() >= terms.until {
                    return Ended::Time;
                }
                let candidate = match who {
                    None => &self.reference,
                    Some(i) => &self.entries[i].candidate,
                };
                let label = candidate.label();
                watch(
                    runner.elapsed(),
                    &format!(
                        "{} · block {} of {count}, run {} of {} · {label}",
                        self.stage,
                        of + 1,
                        at + 1,
                        part.len()
                    ),
                );
                let ask = Ask { changes: &candidate.changes, rate: terms.rate };
                let outcome = attempt(runner, &ask);
                if outcome == Err(Trouble::Interrupted) {
                    return Ended::Interrupted;
                }
                log.take(self.stage, block, label, &outcome);
                self.take(who, block, outcome.ok());
            }
            self.blocks += 1;
        }
        Ended::Whole
    }

    fn take(&mut self, who: Option<usize>, block: usize, measured: Option<Measured>) {
        match (who, measured) {
            (None, Some(measured)) if measured.usage.faults.is_empty() => {
                drop(self.reference_runs.insert(block, measured));
            }
            (None, _) => {}
            (Some(i), Some(measured)) if !measured.usage.faults.is_empty() => {
                self.entries[i].behind += 1;
            }
            (Some(i), Some(measured)) => drop(self.entries[i].runs.insert(block, measured)),
            (Some(i), None) => {
                let entry = &mut self.entries[i];
                entry.failures += 1;
                entry.active &= entry.failures < FAILURES_MAX;
            }
        }
    }

    /// Leaves all but the better `keep` of the active ones behind.
    pub fn halve(&mut self, keep: usize, judged: &Judged) {
        let ranked = self.ranked(judged);
        let kept: Vec<usize> =
            ranked.into_iter().filter(|i| self.entries[*i].active).take(keep).collect();
        for (i, entry) in self.entries.iter_mut().enumerate() {
            entry.active &= kept.contains(&i);
        }
    }

    /// Those with figures, the best first. A run more counts for more than a better figure: those that
    /// went on are before those that were left behind.
    pub fn ranked(&self, judged: &Judged) -> Vec<usize> {
        let mut ranked: Vec<(usize, (bool, bool, f64))> = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(i, entry)| {
                let change = self.change(i, judged)?;
                Some((i, (!entry.active, !entry.holds(judged), change)))
            })
            .collect();
        ranked
            .sort_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.total_cmp(&b.2)));
        ranked.into_iter().map(|(i, _)| i).collect()
    }

    /// The median over the blocks of the logarithm of its figure over the reference's, so that less is
    /// better.
    pub fn change(&self, at: usize, judged: &Judged) -> Option<f64> {
        let logs: Vec<f64> = self
            .pairs(at, judged)
            .into_iter()
            .filter(|(own, other)| *own > 0.0 && *other > 0.0)
            .map(|(own, other)| (own / other).ln())
            .collect();
        let sign = if judged.less_is_better { 1.0 } else { -1.0 };
        (!logs.is_empty()).then(|| sign * median(&logs))
    }

    /// A candidate's figure over the reference's, with its interval.
    pub fn ratio(&self, at: usize, judged: &Judged) -> Option<Ratio> {
        Ratio::of(&self.pairs(at, judged))
    }

    fn pairs(&self, at: usize, judged: &Judged) -> Vec<(f64, f64)> {
        let figure = |run: &Measured| run.figures.get(judged.key).copied();
        let own = self.entries[at].runs.iter();
        own.filter_map(|(block, run)| {
            Some((figure(run)?, figure(self.reference_runs.get(block)?)?))
        })
        .collect()
    }
}

/// A word of warning where the server as it is did not keep up in most of the runs.
pub fn behind(log: &[RunLog], reference: &str) -> Option<String> {
    let of = || log.iter().filter(|run| run.candidate == reference && run.error.is_none());
    let faulty = of().filter(|run| !run.faults.is_empty()).count();
    let why = of().find_map(|run| run.faults.first())?;
    (faulty * 2 > of().count()).then(|| {
        format!(
            "the {reference} did not keep up in {faulty} of {} runs, which do not count: {why}",
            of().count()
        )
    })
}

impl Log {
    /// Takes a run in.
    pub fn take(
        &mut self,
        stage: &str,
        block: usize,
        candidate: String,
        outcome: &Result<Measured, Trouble>,
    ) {
        let (measured, error) = match outcome {
            Ok(measured) => (measured.clone(), None),
            Err(Trouble::Failed(why)) => (Measured::default(), Some(why.clone())),
            Err(Trouble::Interrupted) => return,
        };
        let (stage, Measured { figures, usage, .. }) = (stage.into(), measured);
        let (marks, faults) = (usage.marks, usage.faults);
        self.runs.push(RunLog { stage, block, candidate, figures, marks, faults, error });
    }

    /// Runs that stayed disturbed.
    pub fn disturbed(&self) -> usize {
        self.runs.iter().filter(|run| !run.marks.is_empty()).count()
    }

    /// What went wrong, once for each candidate.
    pub fn errors(&self) -> Vec<(String, String)> {
        let mut errors: Vec<(String, String)> = Vec::new();
        for run in &self.runs {
            if let Some(error) = &run.error
                && !errors.iter().any(|(known, _)| *known == run.candidate)
            {
                errors.push((run.candidate.clone(), error.clone()));
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::goal::Goal;
    use crate::trial::synthetic::Synthetic;

    const TERMS: Terms = Terms { seed: 3, rate: None, until: Duration::from_secs(1_000) };

    fn judged() -> Judged {
        Judged::of(&Goal::Cpu, &[])
    }

    fn contest(labels: &[(&str, &str)]) -> Contest {
        let candidates = labels.iter().map(|(name, value)| Candidate::single(name, value));
        Contest::new("screen", Candidate::new([]), candidates.collect())
    }

    #[test]
    fn every_block_has_each_once_and_its_reference() {
        let mut runner = Synthetic::calm();
        let mut contest = contest(&[("spin", "off"), ("buffers", "64")]);
        let mut log = Log::default();
        let mut heard = 0;
        let ended = contest.blocks(&mut runner, 4, TERMS, &mut log, &mut |_, _| heard += 1);
        assert_eq!((ended, heard, log.runs.len()), (Ended::Whole, 12, 12));
        let order = |block: usize| -> Vec<&str> {
            let of = log.runs.iter().filter(|run| run.block == block);
            of.map(|run| run.candidate.as_str()).collect()
        };
        for block in 0..4 {
            let mut sorted = order(block);
            sorted.sort_unstable();
            assert_eq!(sorted, ["buffers=64", "defaults", "spin=off"]);
        }
        assert!((1..4).any(|block| order(block) != order(0)), "the order is drawn");
    }

    #[test]
    fn drift_from_block_to_block_cancels_out() {
        let mut runner = Synthetic { drift: 0.4, ..Synthetic::calm() };
        runner.effects = |changes| {
            if changes.first().is_some_and(|(name, _)| name == "spin") { 0.9 } else { 1.0 }
        };
        let mut contest = contest(&[("buffers", "64"), ("spin", "off")]);
        contest.blocks(&mut runner, 9, TERMS, &mut Log::default(), &mut |_, _| ());
        assert_eq!(contest.ranked(&judged()), [1, 0]);
        let ratio = contest.ratio(1, &judged()).unwrap();
        assert!(ratio.low > 0.85 && ratio.high < 0.95, "{ratio:?}");
    }

    #[test]
    fn who_fails_twice_is_not_tried_again_and_told() {
        let mut runner = Synthetic::calm();
        runner.fails = |changes| changes.first().is_some_and(|(name, _)| name == "spin");
        let mut contest = contest(&[("spin", "off"), ("buffers", "64")]);
        let mut log = Log::default();
        contest.blocks(&mut runner, 5, TERMS, &mut log, &mut |_, _| ());
        assert_eq!(log.runs.iter().filter(|run| run.error.is_some()).count(), 2);
        assert_eq!(log.errors(), [("spin=off".into(), "it would not".into())]);
        assert_eq!(contest.ranked(&judged()), [1]);
    }

    #[test]
    fn the_better_half_goes_on_and_stays_ahead() {
        let mut runner = Synthetic::calm();
        runner.effects = |changes| match changes.first() {
            Some((_, value)) => value.parse::<f64>().unwrap() / 1_000.0,
            None => 1.0,
        };
        let values = ["900", "1100", "800", "1000"];
        let mut contest = contest(&values.map(|value| ("buffers", value)));
        contest.blocks(&mut runner, 2, TERMS, &mut Log::default(), &mut |_, _| ());
        contest.halve(2, &judged());
        let active: Vec<bool> = contest.entries.iter().map(|entry| entry.active).collect();
        assert_eq!(active, [true, false, true, false]);
        contest.blocks(&mut runner, 1, TERMS, &mut Log::default(), &mut |_, _| ());
        assert_eq!(contest.entries[1].runs.len(), 2);
        assert_eq!(contest.ranked(&judged()), [2, 0, 3, 1]);
    }

    #[test]
    fn time_and_interrupts_end_a_series_and_keep_what_there_is() {
        let mut runner = Synthetic { cost: Duration::from_secs(1), ..Synthetic::calm() };
        let mut contest = contest(&[("spin", "off")]);
        let terms = Terms { until: Duration::from_secs(5), ..TERMS };
        let mut log = Log::default();
        let ended = contest.blocks(&mut runner, 9, terms, &mut log, &mut |_, _| ());
        assert_eq!((ended, log.runs.len()), (Ended::Time, 5));
        runner.runs_left = Some(1);
        let ended = contest.blocks(&mut runner, 9, TERMS, &mut log, &mut |_, _| ());
        assert_eq!((ended, log.runs.len()), (Ended::Interrupted, 6));
    }
}
