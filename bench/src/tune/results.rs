//! What a search leaves behind, as plain data: the JSON, from which the terminal's text is made too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compare::series::Series;
use crate::peers::interval::{Ratio, median};
use crate::peers::run::Measured;
use crate::trial::goal::POINTS;
use crate::trial::{Change, Head, few_answers};
use crate::tune::contest::{Contest, GaveUp, RunLog, behind};
use crate::tune::judge::FIGURES;
use crate::tune::stages::{Found, Outcome, Plan};

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What was run, on what.
    #[serde(flatten)]
    pub head: Head,
    /// Requests per second of an open loop.
    pub rate: Option<u64>,
    /// What decided, in a sentence.
    pub judged: String,
    /// The figure that decided.
    pub figure: String,
    /// Whether less of it is better.
    pub less_is_better: bool,
    /// How it ended.
    pub outcome: Ending,
    /// The settings to take: none where the defaults hold or nothing is known.
    pub settings: Vec<Change>,
    /// What was confirmed or refuted in blocks of its own.
    pub candidate: Option<String>,
    /// Its figure over the defaults'.
    pub confirmed: Option<Ratio>,
    /// Why it is out without one.
    #[serde(default)]
    pub gave_up: Option<GaveUp>,
    /// What each change of it does.
    pub effects: Vec<Effect>,
    /// All that was tried, the best first.
    pub tried: Vec<Tried>,
    /// What was not tried, and why.
    pub skipped: Vec<(String, String)>,
    /// What failed, and how.
    pub failed: Vec<(String, String)>,
    /// The figures of the last stage, for `compare`.
    pub series: Vec<Series>,
    /// Every run in its order.
    pub log: Vec<RunLog>,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Settings that beat the defaults by a resolved margin.
    Tuned,
    /// There are none such.
    DefaultsHold,
    /// Most of the runs that should say whether something is better were disturbed: they say nothing.
    Disturbed,
    /// It was ended early.
    Interrupted,
    /// There was no time for enough blocks.
    TooShort,
}

/// What one setting of the candidate does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The setting.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The default.
    pub default: String,
    /// The figure with it over that without it.
    pub ratio: Option<Ratio>,
    /// Whether it is among the settings that were confirmed.
    pub kept: bool,
}

/// A candidate of the screening or of the combinations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// `screen` or `combine`.
    pub stage: String,
    /// What.
    pub candidate: String,
    /// Its figure over the defaults'.
    pub ratio: Ratio,
}

impl Results {
    /// Puts them together.
    pub fn new(
        mut head: Head,
        plan: &Plan,
        found: Found,
        skipped: Vec<(String, String)>,
    ) -> Results {
        let judged = &found.judged;
        head.runs = found.log.runs.len();
        head.disturbed = found.log.disturbed();
        head.interrupted = found.outcome == Outcome::Interrupted;
        let answers = |run: &RunLog| run.figures.get("answers").copied();
        let answers: Vec<f64> = found.log.runs.iter().filter_map(answers).collect();
        if !answers.is_empty() {
            head.notes.extend(few_answers(&plan.goal, median(&answers)));
        }
        head.notes.extend(behind(&found.log.runs, DEFAULTS));
        let disturbed = mostly_disturbed(&found.log.runs);
        let (outcome, confirmed) = match found.outcome {
            Outcome::Tuned(ratio) if disturbed => (Ending::Disturbed, Some(ratio)),
            Outcome::DefaultsHold(ratio) if disturbed => (Ending::Disturbed, ratio),
            Outcome::Tuned(ratio) => (Ending::Tuned, Some(ratio)),
            Outcome::DefaultsHold(ratio) => (Ending::DefaultsHold, ratio),
            Outcome::GaveUp(_) if disturbed => (Ending::Disturbed, None),
            Outcome::GaveUp(_) => (Ending::DefaultsHold, None),
            Outcome::Interrupted => (Ending::Interrupted, None),
            Outcome::TooShort => (Ending::TooShort, None),
        };
        let gave_up = match found.outcome {
            Outcome::GaveUp(how) => Some(how),
            _ => None,
        };
        let mut tried = Vec::new();
        for contest in found.stages.iter().filter(|c| ["screen", "combine"].contains(&c.stage)) {
            tried.extend(contest.ranked(judged).into_iter().filter_map(|at| {
                Some(Tried {
                    stage: contest.stage.into(),
                    candidate: contest.entries[at].candidate.label(),
                    ratio: contest.ratio(at, judged)?,
                })
            }));
        }
        let effects = effects(&found, confirmed);
        let settings = match (outcome, &found.winner) {
            (Ending::Tuned, Some(winner)) => winner.changes.clone(),
            _ => Vec::new(),
        };
        // Without a run nobody knows which of the two questions of a bound is asked.
        let explained = match head.runs {
            0 => "ended before a run that counts was over".into(),
            _ => judged.explained(&plan.goal),
        };
        let mut skipped = skipped;
        let no_time = |c: &crate::tune::space::Candidate| (c.label(), "no time".to_owned());
        skipped.extend(found.untried.iter().map(no_time));
        Results {
            head,
            rate: found.rate,
            judged: explained,
            figure: judged.words.clone(),
            less_is_better: judged.less_is_better,
            outcome,
            settings,
            candidate: found.winner.as_ref().map(|winner| winner.label()),
            confirmed,
            gave_up,
            effects,
            tried,
            skipped,
            failed: found.log.errors(),
            series: found.stage("confirm").map(series).unwrap_or_default(),
            log: found.log.runs,
        }
    }

    /// Runs of the last stage in which the generator was the limit, and all of them.
    pub fn generator_limited(&self) -> (usize, usize) {
        let confirm = || self.log.iter().filter(|run| run.stage == "confirm");
        let limited = |run: &&RunLog| {
            let figure = |key: &str| run.figures.get(key).copied().unwrap_or(0.0);
            figure("generator_limited") > 0.0 && figure("server_cpu_percent") < 95.0
        };
        (confirm().filter(limited).count(), confirm().count())
    }

    /// Medians of a figure over the last stage: the defaults' and the candidate's.
    pub fn medians(&self, figure: &str) -> Option<(f64, f64)> {
        let of = |who: &str| {
            let series = self.series.iter().find(|s| s.of == who && s.figure == figure)?;
            Some(median(&series.samples))
        };
        Some((of(DEFAULTS)?, of(TUNED)?))
    }
}

/// Whose series are whose.
pub const DEFAULTS: &str = "defaults";
/// The candidate's.
pub const TUNED: &str = "tuned";

/// Whether most of the runs that decide stayed disturbed: nothing is to rest on them. They are those that
/// confirm, or all where there was nothing to be confirmed.
fn mostly_disturbed(log: &[RunLog]) -> bool {
    let confirmed = log.iter().any(|run| run.stage == "confirm");
    let decide = || log.iter().filter(|run| !confirmed || run.stage == "confirm");
    decide().filter(|run| !run.marks.is_empty()).count() * 2 > decide().count()
}

/// A change that is the only one was looked at by the last stage itself.
fn effects(found: &Found, confirmed: Option<Ratio>) -> Vec<Effect> {
    let default = |name: &str| {
        let field = coreloop::config::Field::named(name);
        field.map(|field| field.default_text()).unwrap_or_default()
    };
    let effect = |name: &str, value: &str, ratio, kept| Effect {
        name: name.into(),
        value: value.into(),
        default: default(name),
        ratio,
        kept,
    };
    match (&found.winner, found.effects.as_slice()) {
        (Some(winner), []) => winner
            .changes
            .iter()
            .map(|(name, value)| effect(name, value, confirmed, true))
            .collect(),
        (_, effects) => {
            effects.iter().map(|e| effect(&e.name, &e.value, e.ratio, e.kept)).collect()
        }
    }
}

/// Whether runs of so many answers say anything of a figure.
fn far_enough(key: &str, answers: &[f64]) -> bool {
    let point = POINTS.iter().find(|point| point.key == key);
    answers.is_empty() || point.is_none_or(|point| median(answers) >= point.answers_min as f64)
}

fn blocks_answers(runs: &BTreeMap<usize, Measured>) -> Vec<f64> {
    runs.values().filter_map(|run| run.figures.get("answers").copied()).collect()
}

fn series(confirm: &Contest) -> Vec<Series> {
    let sides: [(&str, &BTreeMap<usize, Measured>); 2] =
        [(DEFAULTS, &confirm.reference_runs), (TUNED, &confirm.entries[0].runs)];
    let mut all = Vec::new();
    for (of, runs) in sides {
        for figure in FIGURES {
            // In pairs: only blocks that both have.
            let both = |block: &&usize| sides.iter().all(|(_, runs)| runs.contains_key(block));
            let blocks = runs.keys().filter(both);
            let samples: Vec<f64> =
                blocks.filter_map(|b| runs[b].figures.get(figure.key).copied()).collect();
            if !far_enough(figure.key, &blocks_answers(runs)) {
                continue;
            }
            all.push(Series {
                of: of.into(),
                figure: figure.words.into(),
                unit: figure.unit.into(),
                less_is_better: figure.less_is_better,
                samples,
            });
        }
    }
    all.retain(|series| !series.samples.is_empty());
    all
}

#[cfg(test)]
#[path = "sample.rs"]
pub mod sample;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_as_they_were_written() {
        for results in [sample::tuned(), sample::defaults_hold(), sample::interrupted()] {
            let text = serde_json::to_string_pretty(&results).unwrap();
            assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
        }
    }

    #[test]
    fn they_say_what_was_found_and_what_it_rests_on() {
        let tuned = sample::tuned();
        assert_eq!(tuned.outcome, Ending::Tuned);
        assert_eq!(tuned.candidate.as_deref(), Some("chunk_quota=32 tick_quota=2ms spin=off"));
        assert_eq!(tuned.settings.len(), 3);
        let failed: Vec<&str> = tuned.failed.iter().map(|(who, _)| who.as_str()).collect();
        assert!(failed.contains(&"cq_entries=1024") && failed.len() == 3, "{failed:?}");
        let (defaults, ours) = tuned.medians("CPU per request").unwrap();
        assert!((ours / defaults - tuned.confirmed.unwrap().median).abs() < 0.02);
        assert!(tuned.tried.iter().any(|t| t.stage == "combine"));
        assert_eq!(tuned.head.runs, tuned.log.len());
        let loud = sample::disturbed();
        assert_eq!((loud.outcome, loud.settings.len()), (Ending::Disturbed, 0));
        assert!(loud.head.disturbed * 2 > loud.head.runs);
        let loud = sample::disturbed_without_effects();
        assert_eq!((loud.outcome, loud.settings.len()), (Ending::Disturbed, 0));
        let short = sample::too_short();
        assert_eq!((short.outcome, short.settings.len()), (Ending::TooShort, 0));
        assert!(short.log.iter().any(|run| run.block > 0), "more than one block");
        let none = sample::defaults_hold();
        assert_eq!((none.outcome, none.settings.len()), (Ending::DefaultsHold, 0));
        assert!(none.confirmed.is_some(), "what came nearest is told");
        let early = sample::interrupted();
        assert!(early.head.interrupted && early.confirmed.is_none() && !early.tried.is_empty());
    }
}
